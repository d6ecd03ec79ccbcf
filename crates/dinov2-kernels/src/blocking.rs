//! How a GEMM is cut into tasks, in every precision.

use core::ops::Range;

/// Bytes of packed weight that one task works on: about half of a small second-level cache (512 KiB on Zen 3).
const TASK_WEIGHT_BYTES: usize = 192 * 1024;

/// Most tiles of rows in one task: they share the weights that the task has in its cache.
const MOST_ROW_TILES: usize = 8;

/// Tasks per thread below which rows are cut finer, so that threads end at nearly the same time.
const TASKS_PER_THREAD: usize = 12;

/// A matrix of rows times panels, cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocking {
    rows: usize,
    panels: usize,
    task_rows: usize,
    task_panels: usize,
}

impl Blocking {
    pub(crate) fn new(
        rows: usize,
        tile_rows: usize,
        panels: usize,
        panel_bytes: usize,
        threads: usize,
    ) -> Self {
        let task_panels = (TASK_WEIGHT_BYTES / panel_bytes).clamp(1, panels.max(1));
        let mut blocking = Self { rows, panels, task_rows: MOST_ROW_TILES * tile_rows, task_panels };
        while threads > 1 && blocking.task_rows > tile_rows && blocking.tasks() < TASKS_PER_THREAD * threads {
            blocking.task_rows = (blocking.task_rows / tile_rows).div_ceil(2) * tile_rows;
        }
        blocking
    }

    fn row_tasks(&self) -> usize {
        self.rows.div_ceil(self.task_rows)
    }

    pub(crate) fn tasks(&self) -> usize {
        self.row_tasks() * self.panels.div_ceil(self.task_panels)
    }

    /// Rows and panels of a task. Rows vary fastest, so that threads share a block of the weight.
    pub(crate) fn block(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let (first_row, first_panel) =
            (task % self.row_tasks() * self.task_rows, task / self.row_tasks() * self.task_panels);
        let rows = first_row..(first_row + self.task_rows).min(self.rows);
        (rows, first_panel..(first_panel + self.task_panels).min(self.panels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn blocks_cover_everything_once() {
        for (rows, panels, panel_bytes, threads) in
            [(1, 1, 8, 1), (257, 24, 6144, 2), (1370, 72, 6144, 2), (50, 24, 300_000, 16), (0, 3, 64, 4)]
        {
            let blocking = Blocking::new(rows, 6, panels, panel_bytes, threads);
            let mut seen = vec![0; rows * panels];
            for task in 0..blocking.tasks() {
                let (rows, block_panels) = blocking.block(task);
                assert!(!rows.is_empty() && !block_panels.is_empty());
                for row in rows {
                    block_panels.clone().for_each(|panel| seen[row * panels + panel] += 1);
                }
            }
            assert!(seen.iter().all(|&count| count == 1), "{blocking:?}");
        }
    }

    #[test]
    fn a_small_matrix_is_shared_evenly() {
        let blocking = Blocking::new(257, 6, 24, 6144, 2);
        assert!(blocking.tasks() >= 24, "{blocking:?}");
    }
}
