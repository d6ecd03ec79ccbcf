//! Time of a teacher's forward pass with random weights, and its share of what the device's own matrix product reaches:
//!
//!     cargo run --release -p training --features cuda --example teacher_time -- g cuda 224 16 20
//!
//! Arguments: size (s, b, l or g), device, side of the images, images at once, passes. On GPUs in bf16, on a CPU in f32. For memory, see the
//! driver's own tool.

use std::error::Error;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use dinov2_core::{MlpKind, PatchGrid, PositionConvention, VitSpec};
use dinov2_weights::IMAGENET;
use dinov2_weights::layout::slots;
use training::vit::{Images, Parameters, Request, Vit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The released sizes (Oquab et al. 2023, arXiv 2304.07193, table 17).
fn spec(size: &str) -> Result<VitSpec, Box<dyn Error>> {
    let (dim, depth, heads) = match size {
        "s" => (384, 12, 6),
        "b" => (768, 12, 12),
        "l" => (1024, 24, 16),
        "g" => (1536, 40, 24),
        _ => return Err(format!("size: expected s, b, l or g, got {size:?}").into()),
    };
    let (mlp, mlp_hidden) = if size == "g" { (MlpKind::SwiGlu, 4096) } else { (MlpKind::Gelu, 4 * dim) };
    Ok(VitSpec {
        dim,
        depth,
        heads,
        patch_size: 14,
        registers: 0,
        mlp,
        mlp_hidden,
        layer_scale: true,
        norm_eps: 1e-6,
        position_table: PatchGrid { rows: 37, cols: 37 },
        position_convention: PositionConvention::ExactSize,
    })
}

/// Operations of one image's matrix products, two per multiplication and addition.
fn operations(spec: &VitSpec, grid: PatchGrid) -> f64 {
    let (tokens, dim) = (spec.tokens(grid) as f64, spec.dim as f64);
    let matrices = if spec.mlp == MlpKind::SwiGlu { 3.0 } else { 2.0 };
    let linear = 4.0 * dim * dim + matrices * dim * spec.mlp_hidden as f64;
    let block = 2.0 * tokens * linear + 4.0 * tokens * tokens * dim;
    let embedding = 2.0 * grid.len() as f64 * (3 * spec.patch_size * spec.patch_size) as f64 * dim;
    spec.depth as f64 * block + embedding
}

/// Median seconds of `work` over `times` runs, after one that is not counted.
fn median(
    times: usize,
    device: &Device,
    mut work: impl FnMut() -> candle_core::Result<()>,
) -> candle_core::Result<f64> {
    let mut seconds = Vec::new();
    for time in 0..=times.max(1) {
        let begun = Instant::now();
        work()?;
        device.synchronize()?;
        if time > 0 {
            seconds.push(begun.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: teacher_time SIZE DEVICE SIDE BATCH PASSES";
    let [size, device, numbers @ ..] = words.as_slice() else { return Err(usage.into()) };
    let numbers: Vec<usize> = numbers.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
    let &[side_px, batch, passes] = numbers.as_slice() else { return Err(usage.into()) };
    let spec = spec(size)?;
    let (device, dtype, side) = match device.as_str() {
        "cpu" => (Device::Cpu, DType::F32, 1_024),
        _ => (Device::new_cuda(0)?, DType::BF16, 8_192),
    };
    let square = Tensor::randn(0.0_f32, 1.0, (side, side), &device)?.to_dtype(dtype)?;
    let seconds = median(passes, &device, || square.matmul(&square).map(drop))?;
    let peak = 2.0 * (side as f64).powi(3) / seconds;
    println!("{side}x{side} product in {dtype:?}: {:.2} TFLOP/s", peak / 1e12);

    let grid = PatchGrid { rows: side_px / spec.patch_size, cols: side_px / spec.patch_size };
    let mut parameters = Parameters::default();
    for slot in slots(&spec) {
        let numbers = Tensor::randn(0.0_f32, 0.02, slot.shape.as_slice(), &device)?;
        parameters.set(slot.name, numbers.to_dtype(dtype)?);
    }
    let vit = Vit::new(spec.clone(), parameters);
    let pixels: Vec<u8> = (0..batch * side_px * side_px * 3).map(|at| (at * 31 % 251) as u8).collect();
    let images = Images::new(&pixels, grid, spec.patch_size, IMAGENET, &device)?;
    let request = Request { taps: &[], mask: None };
    let seconds = median(passes, &device, || vit.forward(&images, request).map(drop))?;
    let reached = batch as f64 * operations(&spec, grid) / seconds;
    println!(
        "ViT-{size}/14, {batch} images of {side_px} pixels: {:.1} images/s, {:.2} TFLOP/s, {:.0} % of that",
        batch as f64 / seconds,
        reached / 1e12,
        100.0 * reached / peak
    );
    Ok(())
}
