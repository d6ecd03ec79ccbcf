//! Reads files of `torch.save`: a pickle of tensor descriptions, and the storages that it refers to.
//!
//! Two containers: the zip archive of PyTorch since 1.6, and the bare sequence of pickles before. Nothing in the file is
//! executed (see the pickle machine). Tensors stay in the file's pages; strided ones are made contiguous when they are
//! read.

mod archive;
mod sequence;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ConvertError;
use crate::checkpoint::{Checkpoint, Hints, SourceDtype, SourceKind, SourceTensor};
use crate::header::MAX_TENSORS;
use crate::pickle::{Described, TensorRecipe};

/// First byte of a pickle.
const PICKLE_MAGIC: u8 = 0x80;
/// Magic of a tar archive and its offset.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");
/// Advice for containers that are not read.
const ADVICE: &str = "save it again with torch.save(torch.load(FILE), NEW)";

/// Whether a file is one of `torch.save`, or looks like one.
pub(crate) fn looks_like_pth(bytes: &[u8]) -> bool {
    archive::is_one(bytes) || bytes.first() == Some(&PICKLE_MAGIC) || is_tar(bytes)
}

fn is_tar(bytes: &[u8]) -> bool {
    let (at, magic) = TAR_MAGIC;
    bytes.get(at..at + magic.len()) == Some(magic)
}

/// Reads the tensors of a file.
///
/// # Errors
/// A malformed or compressed container, a pickle that is no dict of tensors, or a tensor outside of its storage.
pub(crate) fn parse(file: &Bytes, label: String) -> Result<Checkpoint, ConvertError> {
    let read = if archive::is_one(file) {
        archive::tensors(file)
    } else if sequence::is_one(file) {
        sequence::tensors(file)
    } else if is_tar(file) {
        Err(format!("checkpoint: expected a file of torch.save, got a tar archive ({ADVICE}, or unpack it)"))
    } else {
        Err(format!("checkpoint: expected a file of torch.save, got a bare pickle ({ADVICE})"))
    };
    let (tensors, unread) = read.map_err(|problem| ConvertError::invalid(problem, &label))?;
    Ok(Checkpoint {
        label,
        kind: SourceKind::Pth,
        tensors,
        unread,
        hints: Hints::default(),
        notes: Vec::new(),
    })
}

/// Tensors by name, and the number types of those that are not read.
type Tensors = (BTreeMap<String, SourceTensor>, BTreeMap<String, String>);

/// Combines the described tensors with their storages, which `storage` looks up.
fn over_storages(
    described: Described,
    storage: impl Fn(&TensorRecipe) -> Result<Bytes, String>,
) -> Result<Tensors, String> {
    let Described { tensors: recipes, others } = described;
    if recipes.len() > MAX_TENSORS {
        return Err(format!("checkpoint: expected at most {MAX_TENSORS} tensors, got {}", recipes.len()));
    }
    let mut tensors = BTreeMap::new();
    let mut unread: BTreeMap<String, String> =
        others.into_iter().map(|(name, class)| (name, class.to_string())).collect();
    for (name, recipe) in recipes {
        let dtype = match &*recipe.storage {
            "DoubleStorage" => SourceDtype::F64,
            "FloatStorage" => SourceDtype::F32,
            "HalfStorage" => SourceDtype::F16,
            "BFloat16Storage" => SourceDtype::Bf16,
            other => {
                unread.insert(name, other.to_string());
                continue;
            }
        };
        let tensor = storage(&recipe).and_then(|storage| tensor(dtype, &recipe, &storage));
        let tensor = tensor.map_err(|problem| format!("tensor {name:?}: {problem}"))?;
        tensors.insert(name, tensor);
    }
    Ok((tensors, unread))
}

fn tensor(dtype: SourceDtype, recipe: &TensorRecipe, storage: &Bytes) -> Result<SourceTensor, String> {
    let sizes =
        |numbers: &[i64]| numbers.iter().map(|&number| usize::try_from(number).ok()).collect::<Option<_>>();
    let (Some(shape), Some(strides), Ok(offset)) =
        (sizes(&recipe.shape), sizes(&recipe.strides), usize::try_from(recipe.offset))
    else {
        return Err(format!("expected no negative sizes, got {:?} by {:?}", recipe.shape, recipe.strides));
    };
    SourceTensor::strided(dtype, shape, strides, storage, offset)
}
