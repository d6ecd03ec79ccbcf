//! Distillation: a student learns to reproduce its teacher's features.
//!
//! One step: the loader's batch goes through the teacher and, in parts where memory is short, through the student; gradients are
//! clipped, AdamW updates the weights, then their average is updated. All randomness is a function of the recipe's seed and the
//! step, so a killed run continues from its last checkpoint to the same result: on a CPU bit for bit.

mod checkpoint;
mod config;
mod error;
mod event;
mod export;
mod fit_objective;
mod mask;
mod memory;
mod prepare;
mod run;
mod step;
mod student;
mod validate;

pub use checkpoint::{Checkpoint, checkpoint_folder, latest_checkpoint, steps_done};
pub use config::{CheckpointEvery, RunConfig};
pub use error::DistillError;
pub use event::{Event, Outcome};
pub use export::{StudentCard, write_int8_student, write_student};
pub use fit_objective::fit_objective;
pub use memory::step_bytes;
pub use run::{STUDENT_FILE, distill};
pub use step::{Learner, StepReport};
pub use student::{Student, student_spec};
pub use validate::{Agreement, agreements, tokens as held_out_tokens};
