//! Whether a step will fit into memory, before Linux ends the process for it without a word. On a GPU a driver that has none left says
//! so, which ends the run in one line.

use candle_core::Device;
use dinov2_core::MlpKind;
use dinov2_core::VitSpec;
use dinov2_weights::layout::{Slot, slots};

use super::{DistilError, RunConfig};
use crate::recipe::{ComputePrecision, LossRecipe, Recipe, Stage};

/// Bytes of a number.
const F32: u64 = 4;

/// Refuses a run with a stage that does not fit into the memory that is free now, with what would fit. `student` and `teacher`: their
/// shapes; `world`: processes that share every batch.
pub(super) fn check(
    config: &RunConfig,
    student: &VitSpec,
    teacher: &VitSpec,
    world: usize,
) -> Result<(), DistilError> {
    let recipe = &config.recipe;
    if !matches!(config.device, Device::Cpu) || recipe.precision != ComputePrecision::F32 {
        return Ok(());
    }
    let Some(free) = free_bytes() else { return Ok(()) };
    let bytes = |recipe: &Recipe, stage: &Stage| {
        step_bytes(student, teacher.dim, recipe, stage, world) + target_bytes(teacher, recipe, stage, world)
    };
    for stage in &recipe.stages {
        let needed = bytes(recipe, stage);
        if needed > free {
            return Err(DistilError::Memory {
                needed,
                free,
                advice: advice(recipe, stage, world, |recipe, stage| bytes(recipe, stage) <= free),
            });
        }
    }
    Ok(())
}

/// What to change for a stage to fit.
fn advice(recipe: &Recipe, stage: &Stage, world: usize, fits: impl Fn(&Recipe, &Stage) -> bool) -> String {
    for recompute in [recipe.recompute, true] {
        let recipe = Recipe { recompute, ..recipe.clone() };
        let images = stage.batch / world;
        for accumulate in (stage.accumulate..=images).filter(|parts| images.is_multiple_of(*parts)) {
            if fits(&recipe, &Stage { accumulate, ..stage.clone() }) {
                let recompute = if recompute { " with recompute = true" } else { "" };
                return format!("accumulate = {accumulate}{recompute} would fit");
            }
        }
    }
    "not even single images would fit".into()
}

/// Bytes that this process can still have, by the machine and by its control group; pages of files that Linux would drop are free.
fn free_bytes() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let of_group = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
    let of_machine = Some(system.available_memory()).filter(|bytes| *bytes > 0);
    of_machine.map(|bytes| bytes.min(of_group.unwrap_or(u64::MAX)))
}

/// Bytes of what a teacher says of a batch.
fn target_bytes(teacher: &VitSpec, recipe: &Recipe, stage: &Stage, world: usize) -> u64 {
    let sides = stage.views.teacher_sizes_px.as_ref().unwrap_or(&stage.views.sizes_px);
    let tokens =
        teacher.prefix_tokens() + (sides.iter().copied().max().unwrap_or(0) / teacher.patch_size).pow(2);
    // As the engine gives them and as tensors.
    F32 * (2 * stage.batch / world * tokens * teacher.dim * (1 + recipe.loss.taps.len())) as u64
}

/// Bytes that training takes beyond weights and their average, in f32 on a CPU, for steps of this stage in one of `world` processes:
/// moments of the optimiser, gradients, whatever the backward pass needs of the forward pass, and what it works in. `targets`: width
/// of the teacher's tokens. Within a fifth of what an allocator counts (tests/memory.rs).
pub fn step_bytes(spec: &VitSpec, targets: usize, recipe: &Recipe, stage: &Stage, world: usize) -> u64 {
    let side = stage.views.sizes_px.iter().copied().max().unwrap_or(0) / spec.patch_size;
    let images = stage.batch / (stage.accumulate * world);
    let (patches, rows) = (images * side * side, images * (side * side + spec.prefix_tokens()));
    let is_rounded = recipe.quantise.is_some();
    let block = rows * block_numbers(spec, is_rounded);
    let blocks =
        if recipe.recompute { (spec.depth + 1) * rows * spec.dim + block } else { spec.depth * block };
    let embedding = patches * (3 * spec.patch_size * spec.patch_size + 3 * spec.dim) + rows * spec.dim;
    let passes = if recipe.loss.masked > 0.0 && recipe.loss.masked_steps > 0.0 { 2 } else { 1 };
    let working = rows * (3 * spec.dim + if spec.mlp == MlpKind::Gelu { 3 } else { 14 } * spec.mlp_hidden);
    let numbers = parameter_numbers(spec, is_rounded, stage.accumulate)
        + passes * (blocks + embedding)
        + working
        + patches * loss_numbers(&recipe.loss, targets, side * side);
    F32 * numbers as u64
}

/// Two moments and a gradient of every parameter, another where parts of a batch are added up, and the rounded matrices.
fn parameter_numbers(spec: &VitSpec, is_rounded: bool, accumulate: usize) -> usize {
    let copies = if accumulate > 1 { 4 } else { 3 };
    let of_slot = |slot: &Slot| slot.len() * (copies + usize::from(is_rounded && slot.matrix));
    slots(spec).iter().map(of_slot).sum()
}

/// Numbers per token that a block keeps for its backward pass, its output included.
fn block_numbers(spec: &VitSpec, is_rounded: bool) -> usize {
    let (dim, hidden) = (spec.dim, spec.mlp_hidden);
    // Two norms, queries with keys and values, what attention mixes, two branches and two sums.
    let own = 10 * dim + if spec.mlp == MlpKind::Gelu { 2 } else { 6 } * hidden;
    // What goes into four matrices, and into attention as a difference and a sum.
    own + if is_rounded { 9 * dim + hidden } else { 0 }
}

/// Numbers per patch of the terms that look at patches, backward passes included: measured, they are made of many small operations.
fn loss_numbers(recipe: &LossRecipe, targets: usize, patches: usize) -> usize {
    let gram = if recipe.gram > 0.0 { 15 * targets + 7 * patches } else { 0 };
    let tokens = if recipe.patch_cosine + recipe.patch_smooth_l1 > 0.0 { 25 } else { 0 };
    let masked = if recipe.masked > 0.0 { 20 } else { 0 };
    gram + (tokens + masked + 10 * recipe.taps.len()) * targets
}
