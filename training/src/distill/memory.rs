//! Checks before the first step that a step fits into memory: Linux would kill the process without a message. On a GPU the driver reports
//! the failure, which ends the run with an error.

use std::ops::Range;

use candle_core::Device;
use dinov2_core::{MlpKind, VitSpec};
use dinov2_weights::layout::{Slot, slots};
use sysinfo::{Process, ProcessesToUpdate, System};

use super::DistillError;
use crate::parallel::Launch;
use crate::recipe::{ComputePrecision, LossRecipe, Recipe, Stage};

/// Bytes of a number.
const F32: u64 = 4;

/// The run to check.
pub(super) struct MemoryCheck<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) student: &'a VitSpec,
    pub(super) teacher: &'a VitSpec,
    /// The processes that share every batch, where there are several.
    pub(super) launch: Option<&'a Launch>,
    /// Remaining steps. If they do not begin at 0, a checkpoint is in memory already.
    pub(super) steps: Range<u64>,
}

impl MemoryCheck<'_> {
    /// Refuses a stage that does not fit into free memory, with advice.
    pub(super) fn check(&self, device: &Device) -> Result<(), DistillError> {
        if !matches!(device, Device::Cpu) || self.recipe.precision != ComputePrecision::F32 {
            return Ok(());
        }
        let Some(free) = free_bytes() else { return Ok(()) };
        let free = free / self.launch.map_or(1, |launch| launch.local_world as u64);
        let mut first = 0;
        for (index, stage) in self.recipe.stages.iter().enumerate() {
            let steps = first..first + stage.steps;
            first = steps.end;
            let is_ahead = steps.start < self.steps.end && self.steps.start < steps.end;
            let needed = self.bytes(self.recipe, stage);
            if is_ahead && needed > free {
                let advice = self.advice(stage, free);
                return Err(DistillError::Memory { stage: index + 1, needed, free, advice });
            }
        }
        Ok(())
    }

    /// Additional bytes that a stage takes.
    fn bytes(&self, recipe: &Recipe, stage: &Stage) -> u64 {
        // Weights, their initial values and their average. A checkpoint holds as many numbers, moments included, and is freed.
        let copies = if self.steps.start > 0 { 0 } else { 3 };
        let model = copies * F32 * slots(self.student).iter().map(|slot| slot.len() as u64).sum::<u64>();
        let world = self.launch.map_or(1, |launch| launch.world);
        step_bytes(self.student, self.teacher.dim, recipe, stage, world)
            .saturating_add(target_bytes(self.teacher, recipe, stage, world))
            .saturating_add(model)
    }

    /// Changes with which a stage would fit.
    fn advice(&self, stage: &Stage, free: u64) -> String {
        if self.steps.start > 0 {
            return "a resumed run keeps its recipe: free some memory, or continue on a machine with more"
                .into();
        }
        let images = stage.batch / self.launch.map_or(1, |launch| launch.world);
        let parts = || (stage.accumulate..=images).filter(|parts| images.is_multiple_of(*parts));
        let would = |recompute: bool, accumulate: usize| {
            let recipe = Recipe { recompute, ..self.recipe.clone() };
            self.bytes(&recipe, &Stage { accumulate, ..stage.clone() }) <= free
        };
        if let Some(parts) = parts().find(|parts| would(self.recipe.recompute, *parts)) {
            return format!("accumulate = {parts} would fit");
        }
        if let Some(parts) = parts().find(|parts| would(true, *parts)) {
            return format!("recompute = true and accumulate = {parts} would fit");
        }
        "a smaller batch, smaller views or a smaller student would take less".into()
    }
}

/// Bytes that this process can still allocate before Linux kills one: droppable pages of files and swap count as free. A
/// control group has its own limit, against which pages of files do not count. `None` on systems other than Linux.
fn free_bytes() -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let (mut system, own) = (System::new().ok()?, sysinfo::get_current_pid().ok()?);
    system.refresh_memory();
    system.refresh_processes(ProcessesToUpdate::Some(&[own]), false);
    let of_machine = system.available_memory().saturating_add(system.free_swap());
    let limits = system.process(own).and_then(Process::cgroup_limits);
    // A group without a limit reports that of the machine.
    let limits = limits.filter(|limits| limits.total_memory < system.total_memory());
    let of_group = limits.map_or(u64::MAX, |limits| limits.total_memory.saturating_sub(limits.rss));
    Some(of_machine.min(of_group)).filter(|bytes| *bytes > 0)
}

/// Bytes of a teacher's targets for a batch.
fn target_bytes(teacher: &VitSpec, recipe: &Recipe, stage: &Stage, world: usize) -> u64 {
    let sides = stage.views.teacher_sizes_px.as_ref().unwrap_or(&stage.views.sizes_px);
    let tokens =
        teacher.prefix_tokens() + (sides.iter().copied().max().unwrap_or(0) / teacher.patch_size).pow(2);
    let numbers = (stage.batch / world * tokens) as f64 * (teacher.dim * (1 + recipe.loss.taps.len())) as f64;
    // Once in the engine's buffers and once as tensors.
    (2.0 * F32 as f64 * numbers) as u64
}

/// Bytes of training beyond weights and their average, in f32 on a CPU, for steps of this stage in one of `world` processes:
/// moments of the optimiser, gradients, activations kept for the backward pass, and working memory. `targets`: width
/// of the teacher's tokens. Within 10 % of what a counting allocator measures (tests/memory.rs).
pub fn step_bytes(spec: &VitSpec, targets: usize, recipe: &Recipe, stage: &Stage, world: usize) -> u64 {
    let side = stage.views.sizes_px.iter().copied().max().unwrap_or(0) / spec.patch_size;
    let places = side * side;
    // Floats, because the largest batch of the largest views overflows 64 bits.
    let images = (stage.batch / (stage.accumulate * world)) as f64;
    let (patches, rows) = (images * places as f64, images * (places + spec.prefix_tokens()) as f64);
    let is_rounded = recipe.quantize.is_some();
    let block = rows * block_numbers(spec, is_rounded) as f64;
    let blocks = if recipe.recompute {
        (spec.depth + 1) as f64 * rows * spec.dim as f64 + block
    } else {
        spec.depth as f64 * block
    };
    let pixels = 3 * spec.patch_size * spec.patch_size;
    let embedding = patches * (pixels + 3 * spec.dim) as f64 + rows * spec.dim as f64;
    let passes = if recipe.loss.masked > 0.0 && recipe.loss.masked_steps > 0.0 { 2.0 } else { 1.0 };
    let inner = if spec.mlp == MlpKind::Gelu { 3 } else { 14 } * spec.mlp_hidden;
    let working = rows * (3 * spec.dim + inner) as f64;
    let numbers = parameter_numbers(spec, is_rounded, stage.accumulate) as f64
        + passes * (blocks + embedding)
        + working
        + patches * loss_numbers(&recipe.loss, targets, places) as f64;
    (F32 as f64 * numbers) as u64
}

/// Two moments and a gradient per parameter, another gradient with accumulation, and the rounded matrices.
fn parameter_numbers(spec: &VitSpec, is_rounded: bool, accumulate: usize) -> usize {
    let copies = if accumulate > 1 { 4 } else { 3 };
    let of_slot = |slot: &Slot| slot.len() * (copies + usize::from(is_rounded && slot.matrix));
    slots(spec).iter().map(of_slot).sum()
}

/// Numbers per token that a block keeps for its backward pass, its output included.
fn block_numbers(spec: &VitSpec, is_rounded: bool) -> usize {
    let (dim, hidden) = (spec.dim, spec.mlp_hidden);
    // Two norms, queries, keys and values, the output of attention, two branches and two sums.
    let own = 10 * dim + if spec.mlp == MlpKind::Gelu { 2 } else { 6 } * hidden;
    // Rounded inputs of four matrices, and of attention a difference and a sum.
    own + if is_rounded { 9 * dim + hidden } else { 0 }
}

/// Numbers per patch of the patch terms, backward passes included. Measured values, because the terms consist of many small operations.
fn loss_numbers(recipe: &LossRecipe, targets: usize, patches: usize) -> usize {
    let gram = if recipe.gram > 0.0 { 15 * targets + 7 * patches } else { 0 };
    let tokens = if recipe.patch_cosine + recipe.patch_smooth_l1 > 0.0 { 25 } else { 0 };
    let masked = if recipe.masked > 0.0 { 20 } else { 0 };
    gram + (tokens + masked + 10 * recipe.taps.len()) * targets
}
