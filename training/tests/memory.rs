//! The predicted memory of a step against a counting allocator. A binary of its own, because the allocator counts the whole process.
#![allow(unsafe_code, reason = "a global allocator is unsafe by its signature; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use candle_core::{Device, Tensor};
use dinov2_core::{MlpKind, PatchGrid, PositionConvention, VitSpec};
use training::data::{Batch, Pixels};
use training::distill::{Learner, Student, step_bytes};
use training::loss::{Objective, Standardiser, Targets};
use training::parallel::Group;
use training::recipe::Recipe;
use training::vit::Parameters;

/// Counts allocated bytes and their peak.
struct Counting;

static HELD: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

fn count(bytes: isize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as isize - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DIM: usize = 128;
const SIDE_PX: usize = 112;
const SIDE: usize = SIDE_PX / 14;

const RECIPE: &str = r#"
student = { start = "scratch" }
loss = { head = "identity", masked = 0.0 }
[[stages]]
steps = 1
batch = 8
views = { sizes_px = [112], scale = [1.0, 1.0], ratio = [1.0, 1.0], flip = 0.0, grey = 0.0, mixup = 0.0 }
"#;

fn spec(depth: usize, mlp: MlpKind) -> VitSpec {
    VitSpec {
        dim: DIM,
        depth,
        heads: 4,
        patch_size: 14,
        registers: 0,
        mlp,
        mlp_hidden: 4 * DIM,
        layer_scale: true,
        norm_eps: 1e-6,
        position_table: PatchGrid { rows: SIDE, cols: SIDE },
        position_convention: PositionConvention::ExactSizeAntialias,
    }
}

fn tensor(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let numbers: Vec<f32> = (0..count).map(|at| (at as f32 * 0.37).sin()).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

/// Peak of additional bytes in the first steps of a fresh learner.
fn measured(spec: &VitSpec, recipe: &Recipe) -> u64 {
    let (device, stage) = (Device::Cpu, &recipe.stages[0]);
    let (batch, patches) = (stage.batch, SIDE * SIDE);
    let targets = Targets {
        cls: tensor(&[batch, DIM]),
        patches: tensor(&[batch, patches, DIM]),
        taps: recipe.loss.taps.iter().map(|_| tensor(&[batch, patches, DIM])).collect(),
        grid: PatchGrid { rows: SIDE, cols: SIDE },
    };
    let identity = || {
        let mean = Tensor::zeros(DIM, candle_core::DType::F32, &device).unwrap();
        Standardiser { matrix: (&mean + 1.0).unwrap(), mean }
    };
    let taps = recipe.loss.taps.iter().map(|_| identity()).collect();
    let objective = Objective::new(recipe.loss.clone(), identity(), identity(), taps);
    let mut random = training::random::stream(1, "heads", 0);
    let heads = objective.head_parameters(DIM, &mut random).unwrap();
    let student = Student::new(spec.clone(), &Parameters::default(), &heads, recipe, &device).unwrap();
    let mut learner =
        Learner::new(student, objective, recipe, dinov2_weights::IMAGENET, (&device, Group::alone()))
            .unwrap();
    let data = (0..batch * SIDE_PX * SIDE_PX * 3).map(|at| (at * 31 % 251) as u8).collect();
    let batch =
        Batch { step: 0, samples: vec![0; batch], student: Pixels { side_px: SIDE_PX, data }, teacher: None };
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    for step in 0..2 {
        assert!(learner.step(step, &batch, &targets, stage.accumulate).unwrap().loss.is_finite());
    }
    (MOST.load(Ordering::Relaxed) - before) as u64
}

#[test]
fn a_step_takes_what_is_foreseen() {
    let recompute = ("[[stages]]", "recompute = true\n[[stages]]");
    let rounded = ("[[stages]]", "quantize = { weight_limit = 64 }\n[[stages]]");
    let masked = ("masked = 0.0", "masked = 0.5, masked_steps = 1.0");
    let taps = "\"mlp\", taps = [{ student_block = 0, teacher_block = 1 }, { student_block = 1, teacher_block = 3 }]";
    for (depth, mlp, changes) in [
        (2, MlpKind::Gelu, vec![]),
        (4, MlpKind::Gelu, vec![]),
        (2, MlpKind::SwiGlu, vec![]),
        (2, MlpKind::Gelu, vec![("batch = 8", "batch = 16")]),
        (2, MlpKind::Gelu, vec![("batch = 8", "batch = 16\naccumulate = 4")]),
        (4, MlpKind::Gelu, vec![recompute]),
        (2, MlpKind::SwiGlu, vec![recompute]),
        (2, MlpKind::Gelu, vec![masked]),
        (2, MlpKind::Gelu, vec![("masked = 0.0", "masked = 0.0, gram = 0.0")]),
        (2, MlpKind::Gelu, vec![("\"identity\"", taps)]),
        (2, MlpKind::Gelu, vec![rounded]),
    ] {
        let text = changes.iter().fold(RECIPE.to_owned(), |text, (from, to)| text.replacen(from, to, 1));
        let recipe: Recipe = toml::from_str(&text).unwrap();
        let spec = spec(depth, mlp);
        let foreseen = step_bytes(&spec, DIM, &recipe, &recipe.stages[0], 1);
        let ratio = measured(&spec, &recipe) as f64 / foreseen as f64;
        println!("{ratio:.3} of {foreseen} bytes: {depth} blocks, {mlp:?}, {changes:?}");
        assert!((0.9..1.1).contains(&ratio), "{ratio}: {depth} blocks, {mlp:?}, {changes:?}");
    }
}
