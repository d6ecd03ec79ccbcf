//! Curation of images, distillation, quantization-aware training and evaluation of students.
//!
//! Data flow: [`data`] lists encoded images and loads them; [`views`] crops and changes them; a teacher and
//! a student see the same views, and the student learns. [`curate`] selects images before, [`eval`] measures models after.

pub mod allocator;
pub mod curate;
pub mod data;
pub mod distill;
pub mod eval;
mod files;
mod image;
pub mod loss;
pub mod metrics;
pub mod ops;
pub mod optimise;
pub mod parallel;
pub mod progress;
pub mod prune;
pub mod qat;
pub mod random;
pub mod recipe;
mod statistics;
pub mod stop;
pub mod teacher;
pub mod views;
pub mod vit;
