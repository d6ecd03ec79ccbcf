//! Reads `.pth` files: the zip archive of `torch.save` with a pickle of tensor descriptions and one member per
//! storage.
//!
//! Nothing in the file is executed (see the pickle machine). Tensors stay in the file's pages; strided ones are made
//! contiguous when they are read.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use crate::ConvertError;
use crate::checkpoint::{Checkpoint, Hints, SourceDtype, SourceKind, SourceTensor};
use crate::header::MAX_TENSORS;
use crate::pickle::{self, TensorRecipe};
use crate::zip;

/// First bytes of a zip archive.
pub(crate) const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
/// First byte of a bare pickle: the format of PyTorch before 1.6.
pub(crate) const PICKLE_MAGIC: u8 = 0x80;
/// What to do about a bare pickle.
pub(crate) const LEGACY_ADVICE: &str = "checkpoint: expected a zip archive of torch.save, got the format of PyTorch \
    before 1.6 or a bare pickle (save it again with torch.save(torch.load(FILE), NEW))";

/// Reads the tensors of an archive.
///
/// # Errors
/// A malformed or compressed archive, a pickle that is no dict of tensors, or a tensor outside of its storage.
pub(crate) fn parse(archive: &Bytes, label: String) -> Result<Checkpoint, ConvertError> {
    let tensors = tensors(archive).map_err(|problem| ConvertError::invalid(problem, &label))?;
    Ok(Checkpoint { label, kind: SourceKind::Pth, tensors, hints: Hints::default() })
}

fn tensors(archive: &Bytes) -> Result<BTreeMap<String, SourceTensor>, String> {
    let members = zip::members(archive)?;
    let pickle = members.keys().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let Some(pickle) = pickle else {
        return Err("checkpoint: expected data.pkl in the archive, got none".into());
    };
    let folder = pickle.trim_end_matches("data.pkl");
    if let Some(order) = members.get(&format!("{folder}byteorder"))
        && &archive[order.clone()] != b"little"
    {
        let got = String::from_utf8_lossy(&archive[order.clone()]).chars().take(16).collect::<String>();
        return Err(format!("byte order: expected little, got {got:?}"));
    }
    let recipes = pickle::tensors(&archive[members[pickle].clone()])?;
    if recipes.len() > MAX_TENSORS {
        return Err(format!("checkpoint: expected at most {MAX_TENSORS} tensors, got {}", recipes.len()));
    }
    let mut tensors = BTreeMap::new();
    for (name, recipe) in recipes {
        let tensor = tensor(archive, &members, folder, &recipe);
        if let Some(tensor) = tensor.map_err(|problem| format!("tensor {name:?}: {problem}"))? {
            tensors.insert(name, tensor);
        }
    }
    Ok(tensors)
}

/// The tensor of a recipe; `None` for types that no backbone holds, such as integers.
fn tensor(
    archive: &Bytes,
    members: &BTreeMap<String, Range<usize>>,
    folder: &str,
    recipe: &TensorRecipe,
) -> Result<Option<SourceTensor>, String> {
    let dtype = match &*recipe.storage {
        "DoubleStorage" => SourceDtype::F64,
        "FloatStorage" => SourceDtype::F32,
        "HalfStorage" => SourceDtype::F16,
        "BFloat16Storage" => SourceDtype::Bf16,
        _ => return Ok(None),
    };
    let member = format!("{folder}data/{}", recipe.key);
    let range =
        members.get(&member).ok_or_else(|| format!("expected {member:?} in the archive, got none"))?;
    let sizes =
        |numbers: &[i64]| numbers.iter().map(|&number| usize::try_from(number).ok()).collect::<Option<_>>();
    let (Some(shape), Some(strides), Ok(offset)) =
        (sizes(&recipe.shape), sizes(&recipe.strides), usize::try_from(recipe.offset))
    else {
        return Err(format!("expected no negative sizes, got {:?} by {:?}", recipe.shape, recipe.strides));
    };
    SourceTensor::strided(dtype, shape, strides, &archive.slice(range.clone()), offset).map(Some)
}
