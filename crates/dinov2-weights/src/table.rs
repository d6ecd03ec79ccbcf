//! Converts the position table of a checkpoint to that of a model file: a row for CLS, then the patches row by row.
//!
//! Sources differ in three ways. *Rows before the patches*: one for CLS; none (timm with `no_embed_class`); or one for CLS
//! and one per register (timm without it), which are added to the register tokens here. *Shape*: given by the
//! configuration; without one the table must be square. *Size*: timm resamples a table of another size than the
//! configuration's when it loads it, and so does this module.

use dinov2_core::{PatchGrid, PositionConvention, limits};

use crate::checkpoint::{Hints, SourceDtype, SourceTensor, StatedSize};
use crate::naming::{Dialect, NamedBackbone, NamedTensor, Part};
use crate::position;

const TABLE: &str = "pos_embed";
const REGISTERS: &str = "register_tokens";

/// The expected and the found shape of a table.
pub(crate) struct TableProblem {
    pub(crate) expected: String,
    pub(crate) got: String,
}

/// Converts the table in place and returns its grid.
///
/// # Errors
/// If the shape of the table cannot be determined, or contradicts the configuration.
pub(crate) fn convert_table(
    backbone: &mut NamedBackbone,
    hints: &Hints,
    patch_size: usize,
) -> Result<PatchGrid, TableProblem> {
    let shape = backbone.tensors.get(TABLE).map(|table| table.shape.clone());
    let Some(&[1, rows, dim]) = shape.as_deref() else {
        let got = shape.map_or("nothing".into(), |shape| format!("{shape:?}"));
        return Err(TableProblem { expected: "[1, rows, dim]".into(), got });
    };
    if let Some(grid) = hints.position_table.filter(|grid| grid.len() + 1 == rows) {
        return Ok(grid);
    }
    let registers = backbone.tensors.get(REGISTERS).and_then(|tokens| tokens.shape.get(1)).copied();
    let rows_of_table =
        TableRows { rows, registers: registers.unwrap_or(0), hints, dialect: backbone.dialect };
    let found = rows_of_table
        .table(patch_size)
        .map_err(|expected| TableProblem { expected, got: format!("[1, {rows}, {dim}]") })?;
    let malformed = |problem: String| TableProblem { expected: "rows of one width".into(), got: problem };
    rewrite_table(backbone, &found, [rows, dim]).map_err(malformed)?;
    backbone.notes.extend(found.note);
    Ok(found.loaded.unwrap_or(found.stored))
}

/// How the rows of a table are read.
struct Found {
    /// Rows before the patches.
    prefix: usize,
    /// Grid of the patches.
    stored: PatchGrid,
    /// Grid to which the source resamples the table when it loads it.
    loaded: Option<PatchGrid>,
    note: Option<String>,
}

struct TableRows<'a> {
    rows: usize,
    registers: usize,
    hints: &'a Hints,
    dialect: Dialect,
}

impl TableRows<'_> {
    fn table(&self, patch_size: usize) -> Result<Found, String> {
        let Some(stated) = self.hints.image_size else {
            let (prefix, stored) = self.square().ok_or(
                "[1, 1 + side * side, dim] of a square table, or a config.json beside it that tells the image size",
            )?;
            return Ok(Found { prefix, stored, loaded: None, note: None });
        };
        let grid = grid_of(stated, patch_size);
        let fits =
            |grid: &PatchGrid| self.prefixes().into_iter().find(|prefix| grid.len() + prefix == self.rows);
        match (grid.and_then(|grid| Some((fits(&grid)?, grid))), self.square()) {
            (Some((prefix, grid)), Some((1, square)))
                if self.dialect == Dialect::HuggingFace && square != grid =>
            {
                let note = format!(
                    "positions: transformers takes every table of {} rows for {square}, also that of {} {}; so do we",
                    square.len(),
                    stated.field,
                    stated.size
                );
                Ok(Found { prefix, stored: square, loaded: None, note: Some(note) })
            }
            (Some((prefix, stored)), _) => Ok(Found { prefix, stored, loaded: None, note: None }),
            (None, Some((prefix, stored))) if self.hints.timm && grid.is_some() => {
                let note = format!(
                    "positions: resampled from {stored} to the {} of {} {}, as timm does when it loads them",
                    grid.unwrap_or(stored),
                    stated.field,
                    stated.size
                );
                Ok(Found { prefix, stored, loaded: grid, note: Some(note) })
            }
            _ => Err(format!(
                "a table for {} {} (width x height) in patches of {patch_size}, as config.json says",
                stated.field, stated.size
            )),
        }
    }

    /// Numbers of rows that may precede the patches, the most common first.
    fn prefixes(&self) -> Vec<usize> {
        let with_registers = 1 + self.registers;
        match (self.dialect, self.hints.class_position) {
            (Dialect::HuggingFace, _) => vec![1],
            (Dialect::Official, _) if self.registers > 0 => vec![1],
            (_, Some(true)) => vec![with_registers],
            (_, Some(false)) => vec![0],
            (_, None) => vec![with_registers, 0],
        }
    }

    /// The square table with this number of rows, if there is exactly one.
    fn square(&self) -> Option<(usize, PatchGrid)> {
        let side = |prefix: usize| {
            let patches = self.rows.checked_sub(prefix)?;
            let side = patches.isqrt();
            let whole = side * side == patches && (1..=limits::MAX_TABLE_SIDE).contains(&side);
            whole.then_some((prefix, PatchGrid { rows: side, cols: side }))
        };
        let mut squares = self.prefixes().into_iter().filter_map(side);
        squares.next().filter(|_| squares.next().is_none())
    }
}

/// The grid of a stated size: whole patches, as every source counts them.
fn grid_of(stated: StatedSize, patch_size: usize) -> Option<PatchGrid> {
    let side = |px: u32| {
        let side = usize::try_from(px).ok()?.checked_div(patch_size)?;
        (1..=limits::MAX_TABLE_SIDE).contains(&side).then_some(side)
    };
    Some(PatchGrid { rows: side(stated.size.height_px)?, cols: side(stated.size.width_px)? })
}

/// Rewrites the table, and the registers if their positions are part of it. `shape`: rows and width of the table.
fn rewrite_table(backbone: &mut NamedBackbone, found: &Found, shape: [usize; 2]) -> Result<(), String> {
    let [rows, dim] = shape;
    if found.prefix == 1 && found.loaded.is_none() {
        return Ok(());
    }
    let table = backbone.tensors.get(TABLE).and_then(NamedTensor::sole_part);
    let table = table.ok_or("a table in parts")?.reshaped(vec![rows, dim])?;
    let class = match found.prefix {
        0 => Part::Zeros(dim),
        _ => Part::Source(table.rows(0, 1)?),
    };
    if found.prefix > 1 {
        add_positions_to_registers(backbone, &table.rows(1, found.prefix - 1)?)?;
    }
    let patches = Part::Source(table.rows(found.prefix, found.stored.len())?);
    let mut converted =
        NamedTensor { shape: vec![1, 1 + found.stored.len(), dim], parts: vec![class, patches] };
    if let Some(loaded) = found.loaded {
        let convention = PositionConvention::ExactSizeAntialias;
        let values = position::resample(&converted.to_f32(), found.stored, loaded, convention)?;
        converted = NamedTensor::whole(of_values(vec![1, 1 + loaded.len(), dim], &values)?);
    }
    backbone.tensors.insert(TABLE.into(), converted);
    // Only timm leaves CLS out or gives registers a position.
    if found.prefix != 1 && backbone.dialect == Dialect::Official {
        backbone.dialect = Dialect::Timm;
    }
    Ok(())
}

/// timm without `no_embed_class` adds a position to each register. The sums are the registers of an equal model without
/// such positions.
fn add_positions_to_registers(backbone: &mut NamedBackbone, positions: &SourceTensor) -> Result<(), String> {
    let Some(registers) = backbone.tensors.get(REGISTERS) else { return Ok(()) };
    let positions = positions.to_f32();
    let mut values = registers.to_f32();
    if values.len() != positions.len() {
        return Err(format!("registers of {:?} for {} positions", registers.shape, positions.len()));
    }
    values.iter_mut().zip(&positions).for_each(|(value, position)| *value += position);
    let converted = of_values(registers.shape.clone(), &values)?;
    backbone.tensors.insert(REGISTERS.into(), NamedTensor::whole(converted));
    Ok(())
}

fn of_values(shape: Vec<usize>, values: &[f32]) -> Result<SourceTensor, String> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    SourceTensor::contiguous(SourceDtype::F32, shape, bytes.into())
}
