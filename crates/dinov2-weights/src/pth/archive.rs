//! The zip archive of `torch.save` since PyTorch 1.6: `data.pkl`, and a member per storage.

use bytes::Bytes;

use super::{Tensors, over_storages};
use crate::{pickle, zip};

/// First bytes of a zip archive.
const MAGIC: &[u8] = b"PK\x03\x04";

pub(super) fn is_one(file: &[u8]) -> bool {
    file.starts_with(MAGIC)
}

pub(super) fn tensors(archive: &Bytes) -> Result<Tensors, String> {
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
    over_storages(pickle::tensors(&archive[members[pickle].clone()])?, |recipe| {
        let member = format!("{folder}data/{}", recipe.key);
        let range =
            members.get(&member).ok_or_else(|| format!("expected {member:?} in the archive, got none"))?;
        Ok(archive.slice(range.clone()))
    })
}
