use wgpu::Buffer;

use super::{Access, FRAME, Real, Shader, narrow};
use crate::layout::Layout;
use crate::step::{Stage, Step};
use crate::{Gpu, GpuError};

/// Widest head: what an invocation keeps of the output is bounded.
pub(crate) const MOST_HEAD_DIM: usize = 128;
const SIDE: usize = 8;

/// Queries per invocation and keys per block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    rows: usize,
    keys: usize,
}

impl Tile {
    /// The largest tile whose share of workgroup memory fits.
    pub(crate) fn fitting(layout: &Layout, real: Real, most_bytes: usize) -> Result<Self, GpuError> {
        let candidates = [(4, 32), (4, 16), (2, 16), (1, 16)].map(|(rows, keys)| Self { rows, keys });
        let fits = |tile: &&Self| tile.bytes(layout, real) <= most_bytes;
        candidates.iter().find(fits).copied().ok_or(GpuError::Unsupported {
            what: "head_dim for this device's workgroup memory",
            most: MOST_HEAD_DIM / 2,
            got: layout.head_dim,
        })
    }

    fn bytes(self, layout: &Layout, real: Real) -> usize {
        let (queries, vector) = (SIDE * self.rows, 4 * real.bytes() as usize);
        (queries * layout.head / 4 + self.keys * (layout.head / 4 + 1)) * vector
            + queries * (self.keys + SIDE) * 4
    }
}

pub(crate) fn shader(real: Real) -> Shader {
    Shader {
        name: "attention",
        parts: vec![real.part(), FRAME, include_str!("attention.wgsl")],
        bindings: &[(0, Access::Uniform), (1, Access::Read), (2, Access::ReadWrite)],
    }
}

/// Exponents of 2 instead of e.
pub(crate) fn score_scale(layout: &Layout) -> f64 {
    std::f64::consts::LOG2_E / (layout.head_dim as f64).sqrt()
}

/// `output: [tokens, layout.attended]` from `qkv: [tokens, layout.qkv]`.
pub(crate) fn step(
    gpu: &Gpu,
    layout: &Layout,
    real: Real,
    tokens: usize,
    [frame, qkv, output]: [&Buffer; 3],
) -> Result<Step, GpuError> {
    if layout.head_dim > MOST_HEAD_DIM {
        return Err(GpuError::Unsupported { what: "head_dim", most: MOST_HEAD_DIM, got: layout.head_dim });
    }
    let most_bytes = gpu.device().limits().max_compute_workgroup_storage_size as usize;
    let tile = Tile::fitting(layout, real, most_bytes)?;
    let constants = [
        ("HEADS", layout.heads as f64),
        ("HEAD4", (layout.head / 4) as f64),
        ("QKV4", (layout.qkv / 4) as f64),
        ("OUT4", (layout.attended / 4) as f64),
        ("SCALE", score_scale(layout)),
        ("ROWS", tile.rows as f64),
        ("KEYS", tile.keys as f64),
    ];
    let workgroups = [narrow(tokens.div_ceil(SIDE * tile.rows)), narrow(layout.heads), 1];
    let buffers = [frame, qkv, output].map(Into::into);
    Step::new(gpu, Stage::Attention, &shader(real), &constants, &buffers, workgroups)
}
