use dinov2_core::{ExtractError, PatchGrid, VitSpec};
use dinov2_weights::position;

/// Position tables of the most recent grids, each `[1 + rows * cols, dim]`; the most recently used comes last.
#[derive(Default)]
pub(crate) struct PositionCache {
    tables: Vec<(PatchGrid, Vec<f32>)>,
}

impl PositionCache {
    /// Folders of pictures rarely mix more aspect ratios than this within a short run.
    const CAPACITY: usize = 8;

    /// The table of `grid`, resampled from `stored` unless it is cached.
    pub(crate) fn get(
        &mut self,
        grid: PatchGrid,
        spec: &VitSpec,
        stored: &[f32],
    ) -> Result<&[f32], ExtractError> {
        match self.tables.iter().position(|(cached, _)| *cached == grid) {
            Some(found) => self.tables[found..].rotate_left(1),
            None => {
                let table = position::resample(stored, spec.position_table, grid, spec.position_convention);
                if self.tables.len() == Self::CAPACITY {
                    self.tables.remove(0);
                }
                let table = table.map_err(|problem| ExtractError::failed(crate::BACKEND, problem))?;
                self.tables.push((grid, table));
            }
        }
        Ok(self.tables.last().map_or(&[], |(_, table)| table))
    }
}
