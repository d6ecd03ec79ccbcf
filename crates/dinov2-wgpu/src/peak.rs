//! What a device can do at most, and what the stages of a frame ask of it.

use std::time::Duration;

use dinov2_core::{Extractor, PatchGrid};
use wgpu::{BufferUsages, ComputePassDescriptor};

use crate::engine::{GpuPrecision, WgpuEngine};
use crate::kernels::gemm_cooperative::Units;
use crate::kernels::{Real, Shader, peak_cooperative, peak_float, peak_i8};
use crate::layout::Layout;
use crate::step::{Stage, Step};
use crate::{Gpu, GpuError};

/// Bytes that are copied: several times the caches of most devices, within WebGPU's limits.
const COPIED_BYTES: u64 = 64 << 20;
/// Workgroups of an arithmetic kernel: some for every core of a large device.
const WORKGROUPS: u32 = 4096;
const LANES: u64 = 64;
/// Rounds of the first try; adapted so that one dispatch takes long enough to be timed.
const FIRST_ROUNDS: u32 = 16;
const MOST_ROUNDS: u32 = 1 << 16;
const TIMED: Duration = Duration::from_millis(30);
/// Timed submissions; the fastest counts.
const REPEATS: usize = 5;

/// Most operations and bytes per second of a device, measured.
#[derive(Clone, Copy, Debug)]
pub struct GpuPeaks {
    /// f32 multiplications and additions.
    pub f32: f64,
    /// Those of f16 vectors; `None` where the device has none.
    pub f16: Option<f64>,
    /// 8-bit multiplications and additions of packed dot products.
    pub int8: f64,
    /// f16 multiplications and f32 additions of matrix units; `None` where there are none.
    pub cooperative: Option<f64>,
    /// Bytes read and written by a copy within the device's memory.
    pub copy_bytes: f64,
}

impl GpuPeaks {
    /// Measures them; takes about a second.
    ///
    /// # Errors
    /// A device that fails.
    pub fn measure(gpu: &Gpu) -> Result<Self, GpuError> {
        let invocations = u64::from(WORKGROUPS) * LANES;
        let floats = |real| rate(gpu, &peak_float::shader(real), invocations * peak_float::OPERATIONS);
        let cooperative = |units: Units| {
            let subgroups = u64::from(WORKGROUPS) * LANES / gpu.subgroup_lanes();
            rate(
                gpu,
                &peak_cooperative::shader(units.side),
                subgroups * peak_cooperative::operations(units.side),
            )
        };
        Ok(Self {
            f32: floats(Real::F32)?,
            f16: gpu.facts().f16.then(|| floats(Real::F16)).transpose()?,
            int8: rate(gpu, &peak_i8::shader(), invocations * peak_i8::OPERATIONS)?,
            cooperative: gpu.units().map(cooperative).transpose()?,
            copy_bytes: copy_rate(gpu)?,
        })
    }
}

/// Operations per second of a kernel that does `operations` per round.
fn rate(gpu: &Gpu, shader: &Shader, operations: u64) -> Result<f64, GpuError> {
    let buffer = gpu.buffer("peak", u64::from(WORKGROUPS) * LANES * 16, BufferUsages::STORAGE)?;
    let time = |rounds: u32| -> Result<Duration, GpuError> {
        let constants = [("ROUNDS", f64::from(rounds))];
        let step = Step::new(gpu, Stage::Taps, shader, &constants, &[(&buffer).into()], [WORKGROUPS, 1, 1])?;
        fastest(gpu, &|encoder| {
            step.encode(&mut encoder.begin_compute_pass(&ComputePassDescriptor::default()));
        })
    };
    let mut rounds = FIRST_ROUNDS;
    let mut spent = time(rounds)?;
    while spent < TIMED && rounds < MOST_ROUNDS {
        let missing = TIMED.as_secs_f64() / spent.as_secs_f64().max(1e-6);
        rounds = (f64::from(rounds) * missing.clamp(2.0, 64.0)).min(f64::from(MOST_ROUNDS)) as u32;
        spent = time(rounds)?;
    }
    Ok((operations * u64::from(rounds)) as f64 / spent.as_secs_f64())
}

fn copy_rate(gpu: &Gpu) -> Result<f64, GpuError> {
    const COPIES: u64 = 4;
    let from = gpu.buffer("copied from", COPIED_BYTES, BufferUsages::COPY_SRC)?;
    let to = gpu.buffer("copied to", COPIED_BYTES, BufferUsages::COPY_DST)?;
    let spent = fastest(gpu, &|encoder| {
        (0..COPIES).for_each(|_| encoder.copy_buffer_to_buffer(&from, 0, &to, 0, COPIED_BYTES));
    })?;
    Ok((2 * COPIES * COPIED_BYTES) as f64 / spent.as_secs_f64())
}

fn fastest(gpu: &Gpu, encode: &dyn Fn(&mut wgpu::CommandEncoder)) -> Result<Duration, GpuError> {
    let mut least = Duration::MAX;
    for _ in 0..=REPEATS {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        encode(&mut encoder);
        least = least.min(gpu.time([encoder.finish()])?);
    }
    Ok(least)
}

/// What a stage asks of the device in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageWork {
    /// The stage.
    pub stage: Stage,
    /// Multiplications and additions of its matrix products; 0 for a stage that has none.
    pub operations: f64,
    /// Bytes that it reads and writes at least: weights, inputs and outputs once each.
    pub bytes: f64,
}

impl WgpuEngine {
    /// What every stage asks of the device in one frame of this grid.
    pub fn stage_work(&self, grid: PatchGrid) -> Vec<StageWork> {
        let (layout, depth) = (self.layout(), self.spec().depth);
        let counts = Counts::new(layout, self.precision(), self.gpu().facts().f16, depth, grid);
        Stage::ALL.iter().filter_map(|&stage| counts.work(stage)).collect()
    }
}

struct Counts<'a> {
    layout: &'a Layout,
    depth: f64,
    tokens: f64,
    patches: f64,
    /// Bytes of an activation between kernels, of a weight, and of an input of a product.
    real: f64,
    weight: f64,
    input: f64,
    int8: bool,
}

impl<'a> Counts<'a> {
    fn new(layout: &'a Layout, precision: GpuPrecision, f16: bool, depth: usize, grid: PatchGrid) -> Self {
        let (real, weight, input) = match precision {
            GpuPrecision::F32 => (4.0, 4.0, 4.0),
            GpuPrecision::F16 => (2.0, 2.0, 2.0),
            GpuPrecision::Int8 => (if f16 { 2.0 } else { 4.0 }, 1.0, 1.0),
        };
        Self {
            layout,
            depth: depth as f64,
            tokens: (layout.prefix + grid.len()) as f64,
            patches: grid.len() as f64,
            real,
            weight,
            input,
            int8: precision == GpuPrecision::Int8,
        }
    }

    fn work(&self, stage: Stage) -> Option<StageWork> {
        let layout = self.layout;
        let gates = if layout.mlp == dinov2_core::MlpKind::SwiGlu { 2 } else { 1 };
        let (operations, bytes) = match stage {
            Stage::PatchRows => (0.0, self.patches * layout.pixels as f64 * 5.0),
            Stage::PatchEmbed => {
                let (k, n) = (layout.pixels as f64, layout.dim as f64);
                (2.0 * self.patches * k * n, 4.0 * (k * n + self.patches * (k + 2.0 * n)))
            }
            // Two per block and the final one.
            Stage::LayerNorm => {
                let values = self.tokens * layout.dim as f64;
                (0.0, values * (self.depth * 2.0 * (4.0 + self.input) + 8.0))
            }
            Stage::Qkv => self.product(layout.dim, layout.qkv, self.real),
            Stage::Attention => {
                let (values, width) = (self.tokens * layout.attended as f64, layout.attended as f64);
                (self.depth * 4.0 * self.tokens * self.tokens * width, self.depth * 4.0 * values * self.real)
            }
            Stage::Quantize if self.int8 => {
                let values = self.tokens * (layout.attended + layout.hidden) as f64;
                (0.0, self.depth * values * (self.real + 1.0))
            }
            // The stream is read and written.
            Stage::Projection => self.product(layout.attended, layout.dim, 8.0),
            Stage::MlpIn => {
                let (operations, bytes) = self.product(layout.dim, gates * layout.hidden, self.real);
                let spared = (gates - 1) as f64 * layout.hidden as f64 * self.tokens * self.real * self.depth;
                (operations, bytes - spared)
            }
            Stage::MlpOut => self.product(layout.hidden, layout.dim, 8.0),
            Stage::Quantize | Stage::Taps => return None,
        };
        Some(StageWork { stage, operations, bytes })
    }

    /// Operations and bytes of a `[k, n]` matrix in every block, `out` bytes per output.
    fn product(&self, k: usize, n: usize, out: f64) -> (f64, f64) {
        let (k, n) = (k as f64, n as f64);
        let operations = self.depth * 2.0 * self.tokens * k * n;
        (operations, self.depth * (k * n * self.weight + self.tokens * (k * self.input + n * out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinov2_core::{MlpKind, PositionConvention, VitSpec};

    #[test]
    fn operations_add_up_to_the_published_count() {
        // DeiT-S/16 has these blocks and 197 tokens: 4.6 G multiplications (Touvron et al. 2021, "FLOPs"). Patches here are
        // of 14 pixels; theirs of 16 take 0.06 G.
        let spec = VitSpec {
            dim: 384,
            depth: 12,
            heads: 6,
            patch_size: 14,
            registers: 0,
            mlp: MlpKind::Gelu,
            mlp_hidden: 1536,
            layer_scale: true,
            norm_eps: 1e-6,
            position_table: PatchGrid { rows: 37, cols: 37 },
            position_convention: PositionConvention::OfficialScaleFactor,
        };
        let layout = Layout::new(&spec);
        let counts = Counts::new(&layout, GpuPrecision::F16, true, 12, PatchGrid { rows: 14, cols: 14 });
        let total: f64 =
            Stage::ALL.iter().filter_map(|&stage| counts.work(stage)).map(|work| work.operations).sum();
        assert!((total / 2.0 - 4.59e9).abs() < 0.05e9, "{total:e}");
        assert!(counts.work(Stage::Quantize).is_none());
    }
}
