//! The head `norm`: the Euclidean norm of each patch feature. Outliers are artefacts of models without registers
//! (Darcet et al., "Vision Transformers Need Registers", 2024, figure 3).

use dinov2_core::{HeadOutputs, VitSpec};
use serde::Deserialize;
use serde_json::Value;

use crate::head::config_of;
use crate::{Head, HeadError, HeadInput, HeadKind};

pub(crate) const KIND: HeadKind =
    HeadKind { name: "norm", summary: "map of the Euclidean norms of the patch features", open };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NormConfig {}

struct NormHead;

fn open(config: &Value, _: &VitSpec) -> Result<Box<dyn Head>, HeadError> {
    config_of::<NormConfig>(KIND.name, config)?;
    Ok(Box::new(NormHead))
}

impl Head for NormHead {
    /// `norm`: map `[rows, cols]` of Euclidean lengths.
    fn run(&mut self, input: HeadInput<'_>, out: &mut HeadOutputs) -> Result<(), HeadError> {
        let patches = input.features.patches().chunks_exact(input.features.dim().max(1));
        out.map(KIND.name, input.features.grid()).extend(patches.map(|patch| {
            let squares: f64 = patch.iter().map(|&value| f64::from(value).powi(2)).sum();
            squares.sqrt() as f32
        }));
        Ok(())
    }
}
