//! The fixtures of `make_fixtures.py`.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dinov2_core::{Extractor, Features, ImageView, PatchGrid, Taps};
use dinov2_onnx::OnnxConfig;
use dinov2_weights::{ConvertOptions, Model, Storage, convert};
use safetensors::SafeTensors;

/// Every fixture, and how far arithmetic in its precision may be from torch's.
pub(crate) const FIXTURES: [(&str, f64); 4] =
    [("hugging_face", 1e-4), ("registers_swiglu", 1e-4), ("timm_registers", 1e-4), ("half_decoder", 5e-3)];

/// What torch says about one fixture.
pub(crate) struct Fixture {
    pub(crate) onnx: PathBuf,
    pub(crate) weights: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    pub(crate) taps: BTreeMap<String, Vec<f32>>,
    pub(crate) tokens: Vec<f32>,
    pub(crate) pixels: Vec<u8>,
    pub width_px: usize,
    pub height_px: usize,
}

impl Fixture {
    pub(crate) fn load(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let bytes = std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let image = tensors.tensor("image").unwrap();
        let numbers = |name: &str| {
            let tensor = tensors.tensor(name).unwrap();
            let values = tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
            (tensor.shape().to_vec(), values.collect::<Vec<f32>>())
        };
        let under = |prefix: &'static str| {
            let names = tensors.names().into_iter().filter_map(move |name| name.strip_prefix(prefix));
            names.map(move |name| (name.to_string(), format!("{prefix}{name}")))
        };
        Self {
            onnx: folder.join(format!("{name}.onnx")),
            weights: under("weight/").map(|(name, full)| (name, numbers(&full))).collect(),
            taps: under("tap/").map(|(name, full)| (name, numbers(&full).1)).collect(),
            tokens: numbers("tokens").1,
            pixels: image.data().to_vec(),
            width_px: image.shape()[1],
            height_px: image.shape()[0],
        }
    }

    pub(crate) fn image(&self) -> ImageView<'_> {
        ImageView::new(&self.pixels, self.width_px, self.height_px).unwrap()
    }

    pub(crate) fn grid(&self) -> PatchGrid {
        self.image().grid(4).unwrap()
    }

    /// The ONNX file converted to a model file.
    pub(crate) fn model(&self) -> Model {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        convert(&self.onnx, &path, &ConvertOptions::new(Storage::F32), &mut |_| {}).unwrap();
        Model::from_bytes(std::fs::read(&path).unwrap(), "model.safetensors").unwrap()
    }
}

pub(crate) fn two_threads() -> OnnxConfig {
    OnnxConfig { threads: 2.try_into().unwrap() }
}

pub(crate) fn features(engine: &mut impl Extractor, image: ImageView<'_>, taps: &Taps) -> Features {
    let mut features = Features::new();
    engine.extract(image, taps, &mut features).unwrap();
    features
}

/// Relative L2 distance.
pub(crate) fn distance(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let square = |value: f64| value * value;
    let wrong: f64 = got.iter().zip(expected).map(|(got, want)| square(f64::from(got - want))).sum();
    let size: f64 = expected.iter().map(|&want| square(f64::from(want))).sum();
    (wrong / size).sqrt()
}
