//! `gemm_cooperative.wgsl`: matrix products on the device's matrix units, f16 factors and f32 sums.
//!
//! The extension is experimental: units are used only after `self_check.rs` has compared a product with the CPU's.

use wgpu::{Adapter, CooperativeScalarType, Features};

use super::product::{Output, Product};
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

/// The types of matrices of `side` rows and columns.
pub(super) fn sides(side: usize) -> &'static str {
    match side {
        16 => include_str!("parts/cooperative_16.wgsl"),
        _ => include_str!("parts/cooperative_8.wgsl"),
    }
}

/// `side`: rows and columns of a matrix.
pub(crate) fn shader(side: usize, output: Output) -> Shader {
    let mut parts = vec![include_str!("parts/cooperative_enable.wgsl"), Real::F16.part(), sides(side)];
    parts.extend(output.parts());
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
    let shader = shader(units.side, product.output);
    let workgroups = product.workgroups(squares.height(units), squares.width(units));
    Step::new(gpu, product.stage, &shader, &constants, &buffers, workgroups)
}

#[cfg(test)]
mod tests {
    use super::super::product_case::Case;
    use super::*;
    use crate::matrix::Form;
    use crate::test_util::gpu;

    /// Products and sums are f32; outputs that are stored are rounded to f16.
    const TOLERANCE: f64 = 5e-4;

    #[test]
    fn every_tile_multiplies_on_matrix_units() {
        let Some(gpu) = gpu() else { return };
        let Some(units) = gpu.units() else {
            eprintln!("SKIPPED: no cooperative matrices on {}", gpu.facts().name);
            return;
        };
        // Integer weights become f16 on such devices.
        let (floats, integers) = (Form::Float(Real::F16), Form::Int8AsFloat);
        let cases = [
            Case::shared_out(floats, 0, &SQUARES),
            Case::shared_out(floats, 3, &SQUARES),
            Case::shared_out(integers, 4, &SQUARES),
        ];
        for (squares, case) in cases.concat() {
            let known = case.matrix(gpu, Real::F16);
            assert_eq!(known.matrix.form, Form::Float(Real::F16));
            let (values, input) = case.float_input(gpu, Real::F16, known.matrix.k);
            case.check(gpu, Real::F16, &known, &values, TOLERANCE, |product, output| {
                step(gpu, product, units, squares, (&input).into(), output.into())
            });
        }
    }
}
