//! The kernel family and tile size of each matrix product: every candidate is timed once per device and shape, the fastest is kept
//! ([`MeasuredProducts`](crate::measured::MeasuredProducts)).
//!
//! What it does not do: choose anything that changes results beyond rounding. Candidates compute the same product.

use std::time::Duration;

use wgpu::ComputePassDescriptor;

use crate::kernels::gemm_cooperative::{SQUARES, Squares};
use crate::kernels::product::{Product, Tile};
use crate::kernels::quantize::Quantized;
use crate::kernels::{Real, gemm_cooperative, gemm_float, gemm_i8};
use crate::matrix::Form;
use crate::step::{Slice, Step};
use crate::{Gpu, GpuError};

/// Work that one timed submission should hold, so that submitting it costs little beside.
const TIMED: Duration = Duration::from_millis(2);
/// Most dispatches of one timed submission.
const MOST_REPEATS: u32 = 64;
/// Timed submissions per candidate; the fastest counts.
const ROUNDS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Candidate {
    Float(Tile),
    Int8(Tile),
    Cooperative(Squares),
}

impl Candidate {
    fn name(self) -> String {
        let of_tile = |family: &str, tile: Tile| {
            format!("{family} {}x{} in steps of {}", tile.height(), tile.width(), tile.block)
        };
        match self {
            Self::Float(tile) => of_tile("registers", tile),
            Self::Int8(tile) => of_tile("int8", tile),
            Self::Cooperative(Squares { rows, cols, threads }) => {
                format!("cooperative {rows}x{cols} squares on {threads} invocations")
            }
        }
    }
}

/// Input of a product, in the form that its matrix takes.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    /// In this number type.
    Floats(Real, Slice<'a>),
    /// The output, where it is stored, in this number type.
    Integers(Real, &'a Quantized),
}

/// The product in the kernel family and tile size that are the fastest on the device.
pub(crate) fn step(
    gpu: &Gpu,
    product: Product<'_>,
    input: Input<'_>,
    output: Slice<'_>,
) -> Result<Step, GpuError> {
    let build = |candidate: Candidate| match (candidate, input) {
        (Candidate::Float(tile), Input::Floats(real, input)) => {
            gemm_float::step(gpu, product, tile, real, input, output)
        }
        (Candidate::Int8(tile), Input::Integers(real, input)) => {
            gemm_i8::step(gpu, product, tile, real, input, output)
        }
        (Candidate::Cooperative(squares), Input::Floats(Real::F16, input)) => {
            let units = gpu.units().ok_or_else(|| GpuError::Driver("no matrix units".into()))?;
            gemm_cooperative::step(gpu, product, units, squares, input, output)
        }
        _ => Err(GpuError::Driver(format!("{candidate:?} does not take this input"))),
    };
    let candidates = candidates(gpu, &product, input);
    let first = *candidates.first().expect("the first tile is within WebGPU's default limits");
    if !gpu.tunes() {
        return build(first);
    }
    let key = key(&product, input);
    let measured = gpu.measured_products().get(&key);
    if let Some(candidate) = candidates.iter().find(|candidate| Some(candidate.name()) == measured) {
        return build(*candidate);
    }
    let mut best: Option<(Duration, Candidate)> = None;
    for &candidate in &candidates {
        match build(candidate).and_then(|step| time(gpu, &step)) {
            Ok(time) if best.is_none_or(|(least, _)| time < least) => best = Some((time, candidate)),
            Ok(_) => {}
            Err(error @ (GpuError::Lost(_) | GpuError::OutOfMemory(_))) => return Err(error),
            // A driver that rejects one kernel may still run the others.
            Err(_) => {}
        }
    }
    let best = best.map_or(first, |(_, candidate)| candidate);
    gpu.keep_product(key, best.name());
    build(best)
}

/// Everything about a product that affects its time; rows are rounded up to whole tiles.
fn key(product: &Product<'_>, input: Input<'_>) -> String {
    let matrix = product.matrix;
    let numbers = match (input, matrix.form) {
        (Input::Floats(real, _), Form::Int8AsFloat) => format!("{real:?} of int8"),
        (Input::Floats(real, _), _) => format!("{real:?}"),
        (Input::Integers(real, _), _) => format!("int8 to {real:?}"),
    };
    let rows = product.rows.next_multiple_of(crate::layout::ROW_ALIGN);
    let (k, n) = (matrix.k, matrix.n);
    format!("{numbers} {rows}x{k}x{n} {:?} {:?}", product.activation, product.output).to_lowercase()
}

/// What the device can run, the safest first.
fn candidates(gpu: &Gpu, product: &Product<'_>, input: Input<'_>) -> Vec<Candidate> {
    let limits = gpu.device().limits();
    let (bytes, threads) = (
        limits.max_compute_workgroup_storage_size as usize,
        limits.max_compute_invocations_per_workgroup as usize,
    );
    let fits = |tile: &Tile, needed: usize| needed <= bytes && tile.threads() <= threads;
    match input {
        Input::Integers(..) => {
            let tiles = gemm_i8::TILES.into_iter().filter(|tile| fits(tile, gemm_i8::tile_bytes(*tile)));
            tiles.map(Candidate::Int8).collect()
        }
        Input::Floats(real, _) => {
            let fits = |tile: &Tile| fits(tile, gemm_float::tile_bytes(*tile, real));
            let floats = gemm_float::TILES.into_iter().filter(fits).map(Candidate::Float);
            let units = gpu.units().filter(|_| product.matrix.form == Form::Float(Real::F16));
            let squares = units.into_iter().flat_map(|units| {
                let fits = move |squares: &Squares| {
                    squares.bytes(units) <= bytes && product.matrix.n.is_multiple_of(squares.width(units))
                };
                SQUARES.into_iter().filter(fits).map(Candidate::Cooperative)
            });
            // Matrix units come first: without measuring, the first candidate is used.
            let mut candidates: Vec<Candidate> = squares.collect();
            candidates.extend(floats);
            candidates
        }
    }
}

/// Time of one dispatch: of the fastest of a few submissions of many.
fn time(gpu: &Gpu, step: &Step) -> Result<Duration, GpuError> {
    // The first one compiles.
    run(gpu, step, 1)?;
    let once = run(gpu, step, 1)?;
    let repeats =
        (TIMED.as_secs_f64() / once.as_secs_f64().max(1e-6)).clamp(1.0, f64::from(MOST_REPEATS)) as u32;
    let mut least = once;
    for _ in 0..ROUNDS {
        least = least.min(run(gpu, step, repeats)? / repeats);
        if once > 5 * TIMED {
            // On a device this slow, more rounds would delay the first frame.
            break;
        }
    }
    Ok(least)
}

fn run(gpu: &Gpu, step: &Step, repeats: u32) -> Result<Duration, GpuError> {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
        (0..repeats).for_each(|_| step.encode(&mut pass));
    }
    gpu.time([encoder.finish()])
}
