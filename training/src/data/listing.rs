//! The images of a dataset as they were listed: names, sizes and places. 100 bytes each, because there may be hundreds of millions.

use std::path::{Path, PathBuf};

use super::DataError;
use super::names::is_address;
#[cfg(feature = "object-store")]
use super::remote;

/// Most images of a dataset: batches count them in 32 bits, and each takes some 100 bytes of memory.
pub(super) const MAX_SAMPLES: usize = 1 << 28;

/// An encoded image.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Path, or `shard.tar!member`.
    pub(super) name: Box<str>,
    /// Size when it was listed.
    pub(super) bytes: u64,
    pub(super) place: Place,
}

#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A file whose path is its name.
    Named,
    /// A file whose path is no UTF-8.
    Path(Box<Path>),
    /// A part of a shard: its index in [`Listing::shards`], and where it begins.
    Member { shard: u32, offset: u64 },
}

/// What the sources hold.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    pub(super) shards: Vec<Shard>,
    #[cfg(feature = "object-store")]
    pub(super) stores: remote::Stores,
}

/// An archive.
#[derive(Clone, Debug)]
pub(super) enum Shard {
    File(PathBuf),
    #[cfg(feature = "object-store")]
    Remote(remote::RemoteObject),
}

impl Listing {
    pub(super) fn check_count(&self) -> Result<(), DataError> {
        if self.entries.len() <= MAX_SAMPLES {
            return Ok(());
        }
        Err(DataError::Input { expected: format!("at most {MAX_SAMPLES} images"), got: "more".into() })
    }

    /// A shard by its path or its address; it is not looked into.
    pub(super) fn shard(&mut self, path: &Path) -> Result<Shard, DataError> {
        match path.to_str().filter(|name| is_address(name)) {
            Some(address) => self.remote_shard(address),
            None => Ok(Shard::File(path.to_path_buf())),
        }
    }

    /// The shard's index.
    pub(super) fn add_shard(&mut self, shard: Shard) -> u32 {
        self.shards.push(shard);
        u32::try_from(self.shards.len() - 1).expect("shards are capped")
    }

    #[cfg(feature = "object-store")]
    fn remote_shard(&mut self, address: &str) -> Result<Shard, DataError> {
        Ok(Shard::Remote(remote::shard(&mut self.stores, address)?))
    }

    #[cfg(not(feature = "object-store"))]
    fn remote_shard(&mut self, address: &str) -> Result<Shard, DataError> {
        Err(without_stores(address))
    }
}

impl Entry {
    pub(super) fn of_file(path: &Path, bytes: u64) -> Self {
        let place = if path.to_str().is_some() { Place::Named } else { Place::Path(path.into()) };
        Self { name: path.to_string_lossy().into(), bytes, place }
    }
}

/// Why an address is no source without the feature `object-store`.
#[cfg(not(feature = "object-store"))]
pub(super) fn without_stores(address: &str) -> DataError {
    let expected = "a local path (this program was built without the feature object-store)".into();
    DataError::Input { expected, got: address.to_string() }
}
