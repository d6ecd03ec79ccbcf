//! Reading the fixtures of `fixtures/make_golden.py`, and comparing with them.
#![allow(dead_code, reason = "each test binary uses its own part")]

#[cfg(not(emulated))]
pub(crate) mod gpu;

use std::fs;
use std::path::{Path, PathBuf};

use dinov2_core::{ImageView, MlpKind, PatchGrid, PositionConvention, VitSpec};
use dinov2_weights::{ConvertOptions, Model, Storage, convert};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

/// One case: a checkpoint in its source's own format and what the source computed from it.
pub(crate) struct Case {
    pub(crate) name: String,
    folder: PathBuf,
    expected: Vec<u8>,
    metadata: Value,
}

/// A converted checkpoint; the folder lives as long as the model that maps a file in it.
pub(crate) struct Converted {
    pub(crate) model: Model,
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

/// RGB u8 pixels that own their memory. `pixels: [height_px, width_px, 3]`.
pub(crate) struct Picture {
    pub(crate) pixels: Vec<u8>,
    pub(crate) width_px: usize,
    pub(crate) height_px: usize,
}

/// Every case in `fixtures/KIND`, by name.
pub(crate) fn cases(kind: &str) -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(kind);
    let mut folders: Vec<PathBuf> =
        fs::read_dir(&root).expect("fixtures").map(|entry| entry.expect("entry").path()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "no fixtures in {}", root.display());
    folders.into_iter().map(Case::read).collect()
}

impl Case {
    fn read(folder: PathBuf) -> Self {
        let expected = fs::read(folder.join("expected.safetensors")).expect("expected.safetensors");
        let (_, header) = SafeTensors::read_metadata(&expected).expect("a safetensors file");
        let entries = header.metadata().as_ref().expect("metadata");
        let metadata: Value = serde_json::from_str(&entries["case"]).expect("case");
        let name = metadata["name"].as_str().expect("name").to_owned();
        Self { name, folder, expected, metadata }
    }

    /// A whole number of the case's metadata.
    pub(crate) fn number(&self, key: &str) -> usize {
        number(&self.metadata[key])
    }

    /// The shape that `convert` has to find out.
    pub(crate) fn spec(&self) -> VitSpec {
        let spec = &self.metadata["spec"];
        VitSpec {
            dim: number(&spec["dim"]),
            depth: number(&spec["depth"]),
            heads: number(&spec["heads"]),
            patch_size: number(&spec["patch_size"]),
            registers: number(&spec["registers"]),
            mlp: match spec["mlp"].as_str() {
                Some("gelu") => MlpKind::Gelu,
                Some("swiglu") => MlpKind::SwiGlu,
                other => panic!("mlp {other:?}"),
            },
            mlp_hidden: number(&spec["mlp_hidden"]),
            layer_scale: spec["layer_scale"].as_bool().expect("layer_scale"),
            norm_eps: spec["norm_eps"].as_f64().expect("norm_eps") as f32,
            position_table: PatchGrid {
                rows: number(&spec["position_table"]["rows"]),
                cols: number(&spec["position_table"]["cols"]),
            },
            position_convention: match spec["position_convention"].as_str() {
                Some("official_scale_factor") => PositionConvention::OfficialScaleFactor,
                Some("exact_size") => PositionConvention::ExactSize,
                Some("exact_size_antialias") => PositionConvention::ExactSizeAntialias,
                other => panic!("position_convention {other:?}"),
            },
        }
    }

    /// Converts the checkpoint and opens the result. The number of heads is given only where the source does not
    /// record it: a bare state dict.
    pub(crate) fn convert(&self) -> Converted {
        let input = self.folder.join(self.metadata["input"].as_str().expect("input"));
        let options = ConvertOptions {
            heads: input.is_file().then(|| self.spec().heads),
            ..ConvertOptions::new(Storage::F32)
        };
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("model.safetensors");
        convert(&input, &path, &options, &mut |_| {})
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let model = Model::open(&path).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        Converted { model, path, _folder: folder }
    }

    /// Names of the expected tensors, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.expected).expect("a safetensors file");
        let mut names: Vec<String> = tensors.names().into_iter().map(|name| name.to_string()).collect();
        names.sort();
        names
    }

    /// An expected f32 tensor, row-major; `None` if this case has none of that name.
    pub(crate) fn tensor(&self, name: &str) -> Option<Vec<f32>> {
        let tensors = SafeTensors::deserialize(&self.expected).expect("a safetensors file");
        let tensor = tensors.tensor(name).ok()?;
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        let values = tensor.data().chunks_exact(4);
        Some(values.map(|bytes| f32::from_le_bytes(bytes.try_into().expect("4 bytes"))).collect())
    }

    /// Picture `index` of the case.
    pub(crate) fn picture(&self, index: usize) -> Picture {
        let tensors = SafeTensors::deserialize(&self.expected).expect("a safetensors file");
        let tensor = tensors.tensor(&format!("image{index}")).expect("image");
        assert_eq!(tensor.dtype(), Dtype::U8);
        let &[height_px, width_px, 3] = tensor.shape() else { panic!("image of shape {:?}", tensor.shape()) };
        Picture { pixels: tensor.data().to_vec(), width_px, height_px }
    }
}

impl Picture {
    /// The picture that `make_golden.py` calls `pattern`: (3x + 5y + 40c + xy/64) mod 256.
    pub(crate) fn pattern(width_px: usize, height_px: usize) -> Self {
        let mut pixels = Vec::with_capacity(width_px * height_px * 3);
        for y in 0..height_px {
            for x in 0..width_px {
                pixels.extend((0..3).map(|c| ((3 * x + 5 * y + 40 * c + x * y / 64) % 256) as u8));
            }
        }
        Self { pixels, width_px, height_px }
    }

    /// Borrows the pixels.
    pub(crate) fn view(&self) -> ImageView<'_> {
        ImageView::new(&self.pixels, self.width_px, self.height_px).expect("consistent size")
    }
}

/// Relative L2 distance `|got - expected| / |expected|`, in f64; infinite where lengths differ or anything is not
/// finite, so that no comparison passes by accident.
pub(crate) fn relative_l2(got: &[f32], expected: &[f32]) -> f64 {
    if got.len() != expected.len() || expected.is_empty() {
        return f64::INFINITY;
    }
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let pairs = got.iter().zip(expected);
    let error = squares(&mut pairs.map(|(&got, &expected)| f64::from(got) - f64::from(expected)));
    let norm = squares(&mut expected.iter().map(|&value| f64::from(value)));
    let distance = (error / norm).sqrt();
    if distance.is_finite() { distance } else { f64::INFINITY }
}

/// Cosine of the angle between two vectors.
pub(crate) fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()
}

/// The worst of many distances, and everything beyond a limit. Prints and fails at the end, so that one run shows
/// every case.
pub(crate) struct Verdict {
    limit: f64,
    worst: f64,
    compared: usize,
    wrong: Vec<String>,
}

impl Verdict {
    pub(crate) fn new(limit: f64) -> Self {
        Self { limit, worst: 0.0, compared: 0, wrong: Vec::new() }
    }

    /// Compares one tensor.
    pub(crate) fn compare(&mut self, what: &str, got: &[f32], expected: &[f32]) {
        let distance = relative_l2(got, expected);
        self.compared += 1;
        self.worst = self.worst.max(distance);
        if distance > self.limit {
            let lengths = format!("{} of {} values", got.len(), expected.len());
            self.wrong.push(format!("{what}: relative L2 {distance:.2e} > {:.0e} ({lengths})", self.limit));
        }
    }

    /// Counts a comparison that could not be made.
    pub(crate) fn fail(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// Prints the summary of one case.
    pub(crate) fn print(&self, name: &str) {
        println!("{name:24} {:3} tensors, worst relative L2 {:.2e}", self.compared, self.worst);
    }

    /// Takes over what another found.
    pub(crate) fn absorb(&mut self, other: Verdict) {
        self.worst = self.worst.max(other.worst);
        self.compared += other.compared;
        self.wrong.extend(other.wrong);
    }

    /// Fails with everything that was wrong, and if nothing was compared at all.
    pub(crate) fn finish(self) {
        assert!(self.wrong.is_empty(), "{} wrong:\n{}", self.wrong.len(), self.wrong.join("\n"));
        assert!(self.compared > 0, "nothing was compared");
    }
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap_or_else(|| panic!("expected a whole number, got {value}")) as usize
}
