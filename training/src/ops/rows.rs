//! Rows of f32 tensors on the CPU, as fused operations read and write them.

use candle_core::{CpuStorage, Layout, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;

/// Rows that one task works on. Sums over rows are taken per task and then in the order of the tasks, so that they do not
/// depend on the number of threads.
pub(super) const TASK_ROWS: usize = 64;

/// The numbers of a contiguous argument.
pub(super) fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let numbers: &[f32] = storage.as_slice()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&numbers[start..end]),
        None => bail!("fused operation: expected a contiguous tensor, got strides {:?}", layout.stride()),
    }
}

/// Calls `read` with the numbers of a tensor.
pub(super) fn with_numbers<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(numbers(storage, layout)?),
        _ => bail!("fused operation: expected a tensor on the CPU"),
    }
}

/// Calls `read` with the storage of a contiguous tensor and where its numbers start.
pub(super) fn with_storage<R>(
    tensor: &Tensor,
    read: impl FnOnce(&CpuStorage, usize) -> Result<R>,
) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(storage, layout.start_offset()),
        _ => bail!("fused operation: expected a tensor on the CPU"),
    }
}

/// A tensor of these numbers.
pub(super) fn tensor(numbers: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(numbers, shape.into(), &candle_core::Device::Cpu)
}

/// Sums the results of all tasks in order. `task(first_row, rows of out)` returns sums of length `width`.
pub(super) fn map_rows_with_sums(
    out: &mut [f32],
    dim: usize,
    width: usize,
    task: impl Fn(usize, &mut [f32]) -> Vec<f32> + Sync,
) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = out
        .par_chunks_mut(TASK_ROWS * dim)
        .enumerate()
        .map(|(index, rows)| task(index * TASK_ROWS, rows))
        .collect();
    let mut sums = vec![0.0; width];
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sums
}

/// Sums over rows. `numbers: [rows, dim]`; returns `[dim]`.
pub(super) fn column_sums(numbers: &[f32], dim: usize) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = numbers
        .par_chunks(TASK_ROWS * dim)
        .map(|rows| {
            let mut sums = vec![0.0; dim];
            for row in rows.chunks_exact(dim) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            sums
        })
        .collect();
    let mut sums = vec![0.0; dim];
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sums
}
