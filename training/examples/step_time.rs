//! Time of one training step without loading images and without a teacher: `step_time DEPTH BATCH STEPS [cuda] [rounded]`: on a GPU
//! instead of the CPU, with the roundings of the int8 engine. Its peer, without them, is `benches/peers/training_step.py`.

use std::time::Instant;

use candle_core::{Device, Tensor};
use dinov2_core::{MlpKind, PatchGrid, PositionConvention, VitSpec};
use rand::Rng;
use training::allocator::keep_pages;
use training::data::{Batch, Pixels};
use training::distill::{Learner, Student};
use training::loss::{Objective, Standardiser, Targets};
use training::parallel::Group;
use training::recipe::{QuantizeRecipe, Recipe};
use training::vit::Parameters;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DIM: usize = 384;
const SIDE_PX: usize = 224;

const RECIPE: &str = r#"
student = { start = "scratch" }
loss = { head = "identity", masked = 0.0 }
[[stages]]
steps = 1000
batch = 8
views = { sizes_px = [224], scale = [1.0, 1.0], ratio = [1.0, 1.0], flip = 0.0, grey = 0.0, mixup = 0.0 }
"#;

fn spec(depth: usize) -> VitSpec {
    VitSpec {
        dim: DIM,
        depth,
        heads: 6,
        patch_size: 14,
        registers: 0,
        mlp: MlpKind::Gelu,
        mlp_hidden: 4 * DIM,
        layer_scale: true,
        norm_eps: 1e-6,
        position_table: PatchGrid { rows: 16, cols: 16 },
        position_convention: PositionConvention::ExactSizeAntialias,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    keep_pages();
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut recipe: Recipe = toml::from_str(RECIPE)?;
    if words.pop_if(|word| word == "rounded").is_some() {
        recipe.quantize = Some(QuantizeRecipe::default());
    }
    let device =
        if words.pop_if(|word| word == "cuda").is_some() { Device::new_cuda(0)? } else { Device::Cpu };
    let numbers: Vec<usize> = words.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
    let &[depth, batch, steps] = numbers.as_slice() else {
        return Err("usage: step_time DEPTH BATCH STEPS [cuda] [rounded]".into());
    };
    let mut random = training::random::stream(1, "step time", 0);
    let mut tensor = |shape: &[usize]| {
        let count: usize = shape.iter().product();
        let numbers: Vec<f32> = (0..count).map(|_| random.random_range(-1.7..1.7)).collect();
        Tensor::from_vec(numbers, shape, &device)
    };
    let targets = Targets {
        cls: tensor(&[batch, DIM])?,
        patches: tensor(&[batch, 256, DIM])?,
        taps: Vec::new(),
        grid: PatchGrid { rows: 16, cols: 16 },
    };
    let identity = || -> Result<Standardiser, candle_core::Error> {
        let zeros = Tensor::zeros(DIM, candle_core::DType::F32, &device)?;
        Ok(Standardiser { matrix: (&zeros + 1.0)?, mean: zeros })
    };
    let objective = Objective::new(recipe.loss.clone(), identity()?, identity()?, Vec::new());
    let student =
        Student::new(spec(depth), &Parameters::default(), &Parameters::default(), &recipe, &device)?;
    let mut learner =
        Learner::new(student, objective, &recipe, dinov2_weights::IMAGENET, (&device, Group::alone()))?;
    let data = (0..batch * SIDE_PX * SIDE_PX * 3).map(|at| (at * 31 % 251) as u8).collect();
    let views = Pixels { side_px: SIDE_PX, data };
    let batch = Batch { step: 0, samples: vec![0; batch], student: views, teacher: None };
    let mut times = Vec::new();
    for step in 0..steps as u64 + 2 {
        let begun = Instant::now();
        let report = learner.step(step, &batch, &targets, 1)?;
        if step >= 2 {
            times.push(begun.elapsed().as_secs_f64());
        }
        eprintln!("step {step}: loss {:.4}", report.loss);
    }
    times.sort_by(f64::total_cmp);
    println!("training: {:.3} s median, {:.3} least", times[times.len() / 2], times[0]);
    Ok(())
}
