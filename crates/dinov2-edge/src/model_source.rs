//! Model files and ONNX files, opened but not yet loaded into an engine.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use dinov2_weights::{Model, ModelError};

/// What an engine runs: an open model file, or an ONNX file.
#[derive(Debug)]
#[non_exhaustive]
pub enum ModelSource {
    /// An open model file.
    Model(Box<Model>),
    /// An ONNX file, ours or a third party's.
    Onnx(PathBuf),
}

impl ModelSource {
    /// Opens a path: `.onnx` as an ONNX file, anything else as a model file.
    ///
    /// # Errors
    /// A file that cannot be opened, or is not a model file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) {
            return Ok(Self::Onnx(path.to_path_buf()));
        }
        Model::open(path).map(Self::from)
    }

    /// Path or label, for messages and metadata.
    pub fn label(&self) -> String {
        match self {
            Self::Model(model) => model.label().to_string(),
            Self::Onnx(path) => path.display().to_string(),
        }
    }

    /// Identifies models whose features can be compared. For a model file: its name, and a hash of the file's header and smallest
    /// tensors. For an ONNX file: a hash of path, length and modification time. The same file has the same identity in every run.
    pub fn identity(&self) -> String {
        let mut hasher = DefaultHasher::new();
        match self {
            Self::Model(model) => {
                model.header_bytes().hash(&mut hasher);
                for name in ["cls_token", "norm.weight", "norm.bias"] {
                    let values = model.f32(name).unwrap_or_default();
                    values.iter().for_each(|value| value.to_bits().hash(&mut hasher));
                }
                format!("{} {:016x}", model.spec().name(), hasher.finish())
            }
            Self::Onnx(path) => {
                path.hash(&mut hasher);
                if let Ok(facts) = path.metadata() {
                    (facts.len(), facts.modified().ok()).hash(&mut hasher);
                }
                format!("ONNX {:016x}", hasher.finish())
            }
        }
    }
}

impl From<Model> for ModelSource {
    fn from(model: Model) -> Self {
        Self::Model(Box::new(model))
    }
}
