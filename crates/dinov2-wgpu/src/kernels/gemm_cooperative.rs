use wgpu::{Adapter, CooperativeScalarType, Features};

use super::product::Product;
use super::{Access, Real, Shader};
use crate::step::{Slice, Step};
use crate::{Gpu, GpuError};

/// Matrix units of a device: f16 factors, f32 sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Units {
    /// Rows and columns of a matrix: 8 or 16.
    pub(crate) side: usize,
    /// Least invocations of a subgroup.
    pub(crate) least_lanes: usize,
}

/// A workgroup's tile, in squares of 2 x 2 matrices, and its invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Squares {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) threads: usize,
}

/// What is tried on a device.
pub(crate) const SQUARES: [Squares; 4] = [
    Squares { rows: 2, cols: 2, threads: 128 },
    Squares { rows: 1, cols: 2, threads: 64 },
    Squares { rows: 2, cols: 1, threads: 64 },
    Squares { rows: 1, cols: 1, threads: 64 },
];

/// The adapter's matrix units, the larger where it offers several.
pub(crate) fn offered(adapter: &Adapter) -> Option<Units> {
    let needed = Features::EXPERIMENTAL_COOPERATIVE_MATRIX | Features::SHADER_F16 | Features::SUBGROUP;
    if !adapter.features().contains(needed) {
        return None;
    }
    let offers = adapter.cooperative_matrix_properties();
    let has = |side: u32| {
        offers.iter().any(|offer| {
            (offer.m_size, offer.n_size, offer.k_size) == (side, side, side)
                && (offer.ab_type, offer.cr_type) == (CooperativeScalarType::F16, CooperativeScalarType::F32)
        })
    };
    let side = [16, 8].into_iter().find(|&side| has(side))?;
    Some(Units { side: side as usize, least_lanes: adapter.get_info().subgroup_min_size.max(1) as usize })
}

impl Units {
    pub(super) fn part(self) -> &'static str {
        match self.side {
            16 => include_str!("parts/cooperative_16.wgsl"),
            _ => include_str!("parts/cooperative_8.wgsl"),
        }
    }
}

impl Squares {
    fn slots(self, units: Units) -> usize {
        self.threads.div_ceil(units.least_lanes)
    }

    /// Bytes of workgroup memory.
    pub(crate) fn bytes(self, units: Units) -> usize {
        self.slots(units) * 4 * units.side * units.side * 4
    }

    pub(crate) fn width(self, units: Units) -> usize {
        2 * units.side * self.cols
    }

    fn height(self, units: Units) -> usize {
        2 * units.side * self.rows
    }
}

pub(crate) fn shader(units: Units, product: &Product<'_>) -> Shader {
    let mut parts = vec![include_str!("parts/cooperative_enable.wgsl"), Real::F16.part(), units.part()];
    parts.extend(product.parts());
    parts.push(include_str!("gemm_cooperative.wgsl"));
    Shader {
        name: "gemm_cooperative",
        parts,
        bindings: &[(1, Access::Read), (2, Access::Read), (3, Access::Read), (4, Access::ReadWrite)],
    }
}

/// `input: [rows, k]`, f16; the matrix in f16.
pub(crate) fn step(
    gpu: &Gpu,
    product: Product<'_>,
    units: Units,
    squares: Squares,
    input: Slice<'_>,
    output: Slice<'_>,
) -> Result<Step, GpuError> {
    let matrix = product.matrix;
    let mut constants = product.constants();
    constants.extend([
        ("K", matrix.k as f64),
        ("SQUARE_ROWS", squares.rows as f64),
        ("SQUARE_COLS", squares.cols as f64),
        ("THREADS", squares.threads as f64),
        ("SLOTS", squares.slots(units) as f64),
    ]);
    let buffers = [(&matrix.weights).into(), (&matrix.channels).into(), input, output];
    let shader = shader(units, &product);
    let workgroups = product.workgroups(squares.height(units), squares.width(units));
    Step::new(gpu, product.stage, &shader, &constants, &buffers, workgroups)
}
