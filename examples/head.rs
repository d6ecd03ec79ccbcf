//! A head of your own in a pipeline: how much each patch is like the whole image.
//!
//!     cargo run --release -p dinov2-edge --example head [INPUT...]
//!
//! Heads that come with the library, by name: `"pca".parse::<HeadChoice>()?.open(spec)?` makes one.

use dinov2_edge::heads::{Head, HeadError, HeadInput, similarity_map};
use dinov2_edge::io::{Size, SourceOptions, open};
use dinov2_edge::pipeline::{FeatureFrame, NamedHead, Pipeline, PipelineConfig, Sink, SinkFailure, Wants};
use dinov2_edge::{EngineConfig, HeadOutput, HeadOutputs, SelectedEngine};

const NAME: &str = "likeness";

/// `likeness`: map `[rows, cols]` of each patch's cosine to the CLS token. `likeness.mean`: their mean.
struct Likeness;

impl Head for Likeness {
    fn run(&mut self, input: HeadInput<'_>, out: &mut HeadOutputs) -> Result<(), HeadError> {
        let features = input.features;
        let map = out.map(NAME, features.grid());
        similarity_map(features.patches(), features.cls(), map).map_err(|e| HeadError::features(NAME, e))?;
        let mean = map.iter().sum::<f32>() / map.len() as f32;
        out.score("likeness.mean", mean);
        Ok(())
    }
}

/// Prints what the head made of each frame. Files, recordings and the live page take the outputs of any head, too.
struct Print;

impl Sink for Print {
    fn name(&self) -> &'static str {
        "print"
    }

    fn wants(&self) -> Wants {
        Wants::heads([NAME]) // a head that no sink wants is not computed
    }

    fn take(&mut self, frame: &FeatureFrame) -> Result<(), SinkFailure> {
        if let Some(HeadOutput::Score(mean)) = frame.outputs.get("likeness.mean") {
            println!("{}: mean cosine of patches to the CLS token {mean:.3}", frame.frame.name);
        }
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let mut inputs: Vec<String> = std::env::args().skip(1).collect();
    if inputs.is_empty() {
        inputs.push("examples/media".into());
    }
    let source = open(&inputs, &SourceOptions::default())?;
    let engine = SelectedEngine::open(&dinov2_bundled::bundled_model()?.into(), EngineConfig::default())?;
    let heads = vec![NamedHead { name: NAME.into(), head: Box::new(Likeness) }];
    let config = PipelineConfig::new(Size::Short(224));
    Pipeline::new(vec![source], Box::new(engine), heads, vec![Box::new(Print)], config).run(&mut |_| {})?;
    Ok(())
}
