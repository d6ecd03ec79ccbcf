//! The model that embeds images: the bundled one or a file, with its common part if that is known.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use dinov2_weights::Model;
use sha2::{Digest, Sha256};

use super::CurateError;
use super::common::Common;

/// The bundled model, `models/vits14-focus-int8.safetensors`; its card is beside it.
static BUNDLED: &[u8] = include_bytes!("../../../models/vits14-focus-int8.safetensors");
/// The common part of its class tokens.
const BUNDLED_COMMON: &[u8] = include_bytes!("../../../models/vits14-focus-int8.common.json");
const BUNDLED_NAME: &str = "the bundled model vits14-focus-int8";
const BUNDLED_COMMON_NAME: &str = "the bundled vits14-focus-int8.common.json";

/// The model whose class tokens are the embeddings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CurateModel {
    /// The one that is part of the program.
    #[default]
    Bundled,
    /// A model file.
    File(PathBuf),
}

impl CurateModel {
    /// The model and the SHA-256 of its file; the bundled model has that of the file it was made from.
    pub(super) fn open(&self) -> Result<(Model, [u8; 32]), CurateError> {
        match self {
            Self::Bundled => {
                let model = Model::from_static(BUNDLED, BUNDLED_NAME)?;
                Ok((model, Sha256::digest(BUNDLED).into()))
            }
            Self::File(path) => {
                let model = Model::open(path)?;
                let mut hash = HashWriter(Sha256::new());
                let mut file = File::open(path).map_err(CurateError::file(path))?;
                std::io::copy(&mut file, &mut hash).map_err(CurateError::file(path))?;
                Ok((model, hash.0.finalize().into()))
            }
        }
    }

    /// The common part of this model's class tokens, if it is known, and its place: in the program or in
    /// `MODEL.common.json`.
    ///
    /// # Errors
    /// A file that cannot be read, or is none.
    pub(super) fn common(&self) -> Result<Option<(Common, String)>, CurateError> {
        let read = |what: &mut dyn Read, place: PathBuf| {
            let common = Common::from_reader(what, &place)?;
            Ok(Some((common, place.display().to_string())))
        };
        match self {
            Self::Bundled => read(&mut &*BUNDLED_COMMON, BUNDLED_COMMON_NAME.into()),
            Self::File(model) => {
                let path = Common::path_for(model);
                if !path.exists() {
                    return Ok(None);
                }
                let mut file = File::open(&path).map_err(CurateError::file(&path))?;
                read(&mut file, path)
            }
        }
    }
}

impl fmt::Display for CurateModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundled => f.write_str(BUNDLED_NAME),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

struct HashWriter(Sha256);

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
