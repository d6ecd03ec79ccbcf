//! The sequence of pickles that `torch.save` wrote before PyTorch 1.6, and still writes on demand.
//!
//! Data shape: a magic number, a version, facts about the writer, the described object and the keys of the storages, each
//! a pickle of its own; then per key an i64 count of elements and the elements (`torch/serialization.py`,
//! `_legacy_load`).

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use super::{Tensors, over_storages};
use crate::header::MAX_TENSORS;
use crate::pickle;

/// The magic number 0x1950a86a20f9469cfc6c as a pickle holds it, after its length.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The magic number lies within so many bytes, whatever the protocol of the pickle.
const MAGIC_WITHIN: usize = 32;

pub(super) fn is_one(file: &[u8]) -> bool {
    let start = &file[..file.len().min(MAGIC_WITHIN)];
    start.first() == Some(&super::PICKLE_MAGIC) && start.windows(MAGIC.len()).any(|window| window == MAGIC)
}

pub(super) fn tensors(file: &Bytes) -> Result<Tensors, String> {
    let pickle::Sequence { described, classes, keys, end } = pickle::sequence(file)?;
    if keys.len() > MAX_TENSORS {
        return Err(format!("checkpoint: expected at most {MAX_TENSORS} storages, got {}", keys.len()));
    }
    let mut storages: BTreeMap<Rc<str>, Range<usize>> = BTreeMap::new();
    let mut at = end;
    for key in keys {
        let range = storage(file, at, &key, classes.get(&key).map(|class| &**class))?;
        at = range.end;
        storages.insert(key, range);
    }
    over_storages(described, |recipe| {
        let range = storages.get(&recipe.key);
        let range = range.ok_or_else(|| format!("expected a storage {:?}, got none", recipe.key))?;
        Ok(file.slice(range.clone()))
    })
}

/// Where the elements of the storage lie whose count is at `at`.
fn storage(file: &[u8], at: usize, key: &str, class: Option<&str>) -> Result<Range<usize>, String> {
    let size = class.and_then(element_size).ok_or_else(|| {
        format!("storage {key:?}: expected a class of PyTorch, got {}", class.unwrap_or("none"))
    })?;
    let count = file.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| i64::from_le_bytes(*bytes));
    let start = at + size_of::<i64>();
    let bytes = count.and_then(|count| usize::try_from(count).ok()?.checked_mul(size));
    let end = bytes.and_then(|bytes| start.checked_add(bytes)).filter(|&end| end <= file.len());
    end.map(|end| start..end).ok_or_else(|| {
        let got =
            count.map_or("the end of the file".into(), |count| format!("{count} elements of {size} bytes"));
        format!("storage {key:?}: expected it within {} bytes, got {got}", file.len())
    })
}

/// Bytes of one element of a storage class.
fn element_size(class: &str) -> Option<usize> {
    Some(match class {
        "ComplexDoubleStorage" => 16,
        "DoubleStorage" | "LongStorage" | "ComplexFloatStorage" => 8,
        "FloatStorage" | "IntStorage" | "QInt32Storage" => 4,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        "CharStorage" | "ByteStorage" | "BoolStorage" | "QInt8Storage" | "QUInt8Storage"
        | "QUInt4x2Storage" | "QUInt2x4Storage" | "UntypedStorage" => 1,
        _ => return None,
    })
}
