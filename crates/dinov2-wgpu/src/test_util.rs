//! What the kernels' tests share: the device, buffers, numbers, error measures. Expected values are computed in f64 from
//! the numbers as the device holds them.

use std::sync::OnceLock;

use dinov2_core::MlpKind;
use half::f16;
use wgpu::{Buffer, BufferUsages, ComputePassDescriptor};

use crate::frame::Frame;
use crate::kernels::Real;
use crate::layout::{COLUMN_ALIGN, Layout};
use crate::step::Step;
use crate::{Gpu, GpuConfig, GpuError};

/// Set where a missing GPU is a failure: in CI, which installs a software one.
const REQUIRED: &str = "DINOV2_TEST_GPU";

/// The machine's GPU or a software driver, opened once, so that tests share compiled kernels. Without either the test is skipped
/// with a message.
pub(crate) fn gpu() -> Option<&'static Gpu> {
    static SHARED: OnceLock<Option<Gpu>> = OnceLock::new();
    let gpu = SHARED.get_or_init(|| match Gpu::open(&GpuConfig::default()) {
        Ok(gpu) => Some(gpu),
        Err(GpuError::NoAdapter { .. }) if std::env::var_os(REQUIRED).is_none() => None,
        Err(error) => panic!("{error}"),
    });
    if gpu.is_none() {
        eprintln!("SKIPPED: no GPU driver here (Debian: apt install mesa-vulkan-drivers for a software one)");
    }
    gpu.as_ref()
}

/// The number types that the device computes in.
pub(crate) fn reals(gpu: &Gpu) -> Vec<Real> {
    if gpu.facts().f16 {
        return vec![Real::F32, Real::F16];
    }
    eprintln!("SKIPPED: f16, which {} does not have", gpu.facts().name);
    vec![Real::F32]
}

/// Uniform in -1..1 from a linear congruential generator: the same on every machine.
pub(crate) fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // Constants of Knuth's MMIX generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Whole numbers of the whole range of i8, likewise.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<i8> {
    numbers(seed, len).into_iter().map(|value| (value * 128.0).floor() as i8).collect()
}

/// `[rows, stride]` from `values: [rows, cols]`; zeros beyond.
pub(crate) fn padded<T: Copy + Default>(values: &[T], cols: usize, stride: usize) -> Vec<T> {
    let rows = values.chunks_exact(cols);
    rows.flat_map(|row| (0..stride).map(move |at| row.get(at).copied().unwrap_or_default())).collect()
}

/// The first `cols` columns of `values: [rows, stride]`.
pub(crate) fn cropped<T: Copy>(values: &[T], stride: usize, cols: usize) -> Vec<T> {
    values.chunks_exact(stride).flat_map(|row| row[..cols].iter().copied()).collect()
}

/// The nearest numbers of this type.
pub(crate) fn rounded(real: Real, values: &[f32]) -> Vec<f32> {
    match real {
        Real::F32 => values.to_vec(),
        Real::F16 => values.iter().map(|&value| f16::from_f32(value).to_f32()).collect(),
    }
}

fn encoded(real: Real, values: &[f32]) -> Vec<u8> {
    match real {
        Real::F32 => bytemuck::cast_slice(values).to_vec(),
        Real::F16 => {
            let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
            bytemuck::cast_slice(&halves).to_vec()
        }
    }
}

/// A buffer that kernels read and write and tests read.
pub(crate) fn buffer_of_bytes(gpu: &Gpu, bytes: &[u8]) -> Buffer {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
    let buffer = gpu.buffer("test", bytes.len() as u64, usage).expect("room for a test's buffer");
    let mut words = bytes.to_vec();
    // Copies are of whole words.
    words.resize(bytes.len().next_multiple_of(4), 0);
    gpu.queue().write_buffer(&buffer, 0, &words);
    buffer
}

/// The same of numbers, stored as `real`.
pub(crate) fn buffer(gpu: &Gpu, real: Real, values: &[f32]) -> Buffer {
    buffer_of_bytes(gpu, &encoded(real, values))
}

/// A frame of so many tokens, for kernels that ask for nothing else.
pub(crate) fn frame(gpu: &Gpu, tokens: usize) -> Buffer {
    let frame = Frame { tokens: tokens as u32, patches: 0, grid_cols: 0, line_bytes: 0 };
    frame.upload(gpu).expect("room for a frame")
}

/// Layout of a model of these heads; the MLP is as small as can be.
pub(crate) fn layout(heads: usize, head_dim: usize) -> Layout {
    let (dim, head) = (heads * head_dim, head_dim.next_multiple_of(4));
    let columns = |count: usize| count.next_multiple_of(COLUMN_ALIGN);
    Layout {
        dim,
        tokens: columns(dim),
        heads,
        head_dim,
        head,
        qkv: columns(3 * heads * head),
        attended: columns(heads * head),
        mlp: MlpKind::Gelu,
        mlp_hidden: 1,
        hidden: COLUMN_ALIGN,
        patch_size: 1,
        pixels: COLUMN_ALIGN,
        prefix: 1,
    }
}

/// Runs the steps one after another.
pub(crate) fn run(gpu: &Gpu, steps: &[Step]) {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
        steps.iter().for_each(|step| step.encode(&mut pass));
    }
    gpu.queue().submit([encoder.finish()]);
    gpu.check().expect("a driver that runs the steps");
}

/// What [`buffer_of_bytes`] holds by now.
pub(crate) fn read_bytes(gpu: &Gpu, buffer: &Buffer) -> Vec<u8> {
    gpu.read(buffer).expect("a driver that copies")
}

/// `len` numbers, stored as `real`.
pub(crate) fn read(gpu: &Gpu, real: Real, buffer: &Buffer, len: usize) -> Vec<f32> {
    let bytes = read_bytes(gpu, buffer);
    let bytes = &bytes[..len * real.bytes() as usize];
    match real {
        Real::F32 => bytemuck::pod_collect_to_vec(bytes),
        Real::F16 => bytemuck::pod_collect_to_vec::<u8, f16>(bytes).into_iter().map(f16::to_f32).collect(),
    }
}

/// `|got - want| / |want|` in the Euclidean norm.
pub(crate) fn relative_l2(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).powi(2)).sum();
    let norm: f64 = want.iter().map(|want| want.powi(2)).sum();
    if norm == 0.0 { error.sqrt() } else { (error / norm).sqrt() }
}

/// Largest `|got - want|`, as a share of the largest `|want|`.
pub(crate) fn largest_error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error = got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).abs()).fold(0.0, f64::max);
    let most = want.iter().map(|want| want.abs()).fold(0.0, f64::max);
    if most == 0.0 { error } else { error / most }
}

/// Both measures: the second finds the one number among many that is wrong.
pub(crate) fn assert_close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert!(got.iter().all(|value| value.is_finite()), "{what}: not finite");
    let (l2, largest) = (relative_l2(got, want), largest_error(got, want));
    assert!(l2 <= tolerance, "{what}: relative error {l2:e}, tolerance {tolerance:e}");
    assert!(largest <= 4.0 * tolerance, "{what}: largest error {largest:e}, tolerance 4 x {tolerance:e}");
}

mod tests {
    use super::*;

    #[test]
    fn what_is_uploaded_is_read() {
        let Some(gpu) = gpu() else { return };
        let values = numbers(1, 37);
        for real in reals(gpu) {
            let held = buffer(gpu, real, &values);
            assert_eq!(read(gpu, real, &held, 37), rounded(real, &values));
        }
    }

    #[test]
    fn one_wrong_number_is_an_error() {
        let want = vec![1.0; 10_000];
        let mut got = vec![1.0; 10_000];
        assert_close("equal", &got, &want, 0.0);
        got[77] = 1.001;
        assert!(relative_l2(&got, &want) < 1e-4 && largest_error(&got, &want) > 9e-4);
    }
}
