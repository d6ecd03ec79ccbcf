//! A graph made ready by tract for frames of one size.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dinov2_weights::onnx::proto::ModelProto;
use prost::Message;
use tract::prelude::*;
use tract_linalg::multithread::{Executor, multithread_tract_scope};

/// Longest message of tract that is passed on.
const MAX_PROBLEM_CHARS: usize = 300;
/// Most threads of an engine: more than any machine has cores, and few enough to be created.
const MAX_THREADS: usize = 512;

/// The threads that tract computes on.
#[derive(Clone)]
pub(crate) struct Threads(Executor);

impl Threads {
    pub(crate) fn new(count: usize) -> Self {
        match count {
            0 | 1 => Self(Executor::SingleThread),
            count => Self(Executor::multithread_with_name(count.min(MAX_THREADS), "dinov2-onnx")),
        }
    }

    fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        multithread_tract_scope(self.0.clone(), work)
    }
}

/// An input of a plan.
pub(crate) struct PlanInput {
    pub(crate) shape: Vec<usize>,
    pub(crate) datum_type: DatumType,
}

/// A runnable graph. Inputs and outputs are in the graph's order.
pub(crate) struct Plan {
    runnable: Runnable,
    inputs: Vec<PlanInput>,
}

impl Plan {
    /// Loads and optimises a graph whose inputs have these shapes.
    ///
    /// # Errors
    /// tract's reason, on one line.
    pub(crate) fn new(model: &ModelProto, inputs: Vec<PlanInput>, threads: &Threads) -> Result<Self, String> {
        let bytes = model.encode_to_vec();
        let prepare = || -> Result<Runnable, String> {
            let options = OnnxOptions::new().ignore_value_info(true);
            let mut loaded =
                onnx().map_err(words)?.load_buffer_with_options(&bytes, options).map_err(words)?;
            for (index, input) in inputs.iter().enumerate() {
                loaded.set_input_fact(index, input.fact().as_str()).map_err(words)?;
            }
            loaded.into_model().map_err(words)?.into_runnable().map_err(words)
        };
        let runnable = guarded(|| threads.run(prepare))?;
        Ok(Self { runnable, inputs })
    }

    /// Runs the graph. `inputs`: the numbers of each input, row-major; `outputs` receives shape and numbers of each.
    ///
    /// # Errors
    /// tract's reason, on one line.
    pub(crate) fn run(
        &self,
        inputs: &[&[f32]],
        threads: &Threads,
        mut output: impl FnMut(usize, &[f32]) -> Result<(), String>,
    ) -> Result<(), String> {
        let run = || -> Result<Vec<Tensor>, String> {
            let tensors = self.inputs.iter().zip(inputs).map(|(input, values)| {
                Tensor::from_slice(&input.shape, values)
                    .and_then(|tensor| tensor.convert_to(input.datum_type))
            });
            let tensors = tensors.collect::<Result<Vec<Tensor>, _>>().map_err(words)?;
            let outputs = self.runnable.run(tensors).map_err(words)?;
            outputs.iter().map(|tensor| tensor.convert_to(DatumType::F32).map_err(words)).collect()
        };
        for (index, tensor) in guarded(|| threads.run(run))?.iter().enumerate() {
            output(index, tensor.as_slice::<f32>().map_err(words)?)?;
        }
        Ok(())
    }
}

/// Runs tract. It may panic on unusual graphs; such a panic becomes an error of the file.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("panicked on this graph".into()))
}

/// An error with its causes, on one line of bounded length.
fn words(error: impl Display) -> String {
    let words = format!("{error:#}");
    words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_PROBLEM_CHARS).collect()
}

impl PlanInput {
    /// tract's notation: `1,3,224,224,f32`.
    fn fact(&self) -> String {
        let sides: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        let word = if self.datum_type == DatumType::F16 { "f16" } else { "f32" };
        format!("{},{word}", sides.join(","))
    }
}
