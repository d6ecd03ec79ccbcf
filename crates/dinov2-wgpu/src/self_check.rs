//! Whether a device's matrix units compute what they should, before features depend on it: the extension is experimental, no
//! layer below checks its use, and drivers differ.

use half::f16;
use wgpu::{BufferUsages, ComputePassDescriptor};

use crate::kernels::Real;
use crate::kernels::gemm_cooperative::{self, SQUARES, Units};
use crate::kernels::product::{Activation, Output, Product};
use crate::layout::{CHANNEL_ALIGN, ROW_ALIGN};
use crate::matrix::Layer;
use crate::step::Stage;
use crate::{Gpu, GpuError};

/// Name under which the outcome is kept.
const FILE: &str = "matrix-units";
/// Columns of the input: a few steps of the kernel.
const K: usize = 96;
/// Largest difference as a share of the largest value: the outputs are f16.
const TOLERANCE: f64 = 2e-3;

/// Whether a small product comes out right; computed once per device and driver where outcomes are kept.
pub(crate) fn units_compute_right(gpu: &Gpu, units: Units) -> bool {
    match gpu.kept(FILE).as_deref() {
        Some(b"right") => true,
        Some(b"wrong") => false,
        _ => {
            let right = product(gpu, units).is_ok_and(|(got, want)| agree(&got, &want));
            gpu.keep(FILE, if right { b"right" } else { b"wrong" });
            right
        }
    }
}

/// Whole numbers, the same on every machine, in no symmetric pattern.
fn numbers(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * step + at / 7) % 17) as f32 - 8.0).collect()
}

fn agree(got: &[f32], want: &[f32]) -> bool {
    let most = want.iter().fold(0.0, |most, want| f64::max(most, f64::from(want.abs())));
    let errors = got.iter().zip(want).map(|(got, want)| (f64::from(*got) - f64::from(*want)).abs());
    // `<=` is false for NaN, so NaN does not agree.
    got.len() == want.len() && errors.into_iter().all(|error| error <= TOLERANCE * most)
}

/// `[ROW_ALIGN, CHANNEL_ALIGN]` by the device and by the CPU.
fn product(gpu: &Gpu, units: Units) -> Result<(Vec<f32>, Vec<f32>), GpuError> {
    let (rows, n) = (ROW_ALIGN, CHANNEL_ALIGN);
    let (input, weight) = (numbers(rows * K, 5), numbers(n * K, 11));
    let want = input.chunks_exact(K).flat_map(|row| {
        let dot = move |channel: &[f32]| row.iter().zip(channel).map(|(x, w)| x * w).sum();
        weight.chunks_exact(K).map(dot)
    });
    let want: Vec<f32> = want.collect();
    let halves: Vec<f16> = input.iter().map(|&value| f16::from_f32(value)).collect();
    let input = gpu.upload("check", bytemuck::cast_slice(&halves))?;
    let output =
        gpu.buffer("check", (rows * n * 2) as u64, BufferUsages::STORAGE | BufferUsages::COPY_SRC)?;
    let matrix = Layer::of_floats(weight, vec![0.0; n]).upload(gpu, "check", Real::F16, false)?;
    let product = Product {
        stage: Stage::Qkv,
        matrix: &matrix,
        activation: Activation::None,
        output: Output::Store,
        out_stride: n,
        first_row: 0,
        rows,
    };
    let step = gemm_cooperative::step(gpu, product, units, SQUARES[0], (&input).into(), (&output).into())?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    step.encode(&mut encoder.begin_compute_pass(&ComputePassDescriptor::default()));
    gpu.queue().submit([encoder.finish()]);
    let got: Vec<f16> = bytemuck::pod_collect_to_vec(&gpu.read(&output)?);
    Ok((got.into_iter().map(f16::to_f32).collect(), want))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::gpu;

    #[test]
    fn one_wrong_number_is_found() {
        let right = numbers(64, 5);
        assert!(agree(&right, &right));
        for wrong in [f32::NAN, f32::INFINITY, 8.5] {
            let mut got = right.clone();
            got[33] = wrong;
            assert!(!agree(&got, &right), "{wrong}");
        }
        assert!(!agree(&right[1..], &right));
    }

    #[test]
    fn matrix_units_in_use_are_right() {
        let Some(gpu) = gpu() else { return };
        let Some(units) = gpu.units() else {
            eprintln!("SKIPPED: no cooperative matrices");
            return;
        };
        let (mut got, want) = product(gpu, units).unwrap();
        assert!(agree(&got, &want));
        // Transposed it is another matrix.
        got.swap(1, CHANNEL_ALIGN);
        assert!(!agree(&got, &want));
    }
}
