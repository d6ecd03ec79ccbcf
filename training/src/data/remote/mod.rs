//! Shards in object stores: Amazon S3 and what speaks its protocol (`s3://`), Google Cloud Storage (`gs://`), Azure (`az://`),
//! web servers (`https://`) and the disk (`file://`).
//!
//! A shard is indexed by reading ranges of it, and its images are read as ranges, too: nothing is kept on disk. Indexing costs
//! a request for each 256 KiB or each image, whichever are fewer; a manifest of `training curate` knows the places already.
//!
//! Single images in a store are not supported.

mod connect;
mod reason;
mod store;

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, future};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use self::reason::reason;
use self::store::{Store, runtime};
use super::names::MAX_SHARDS;
use super::{DataError, shard};

pub(super) use self::store::Stores;

/// Bytes per request while a shard is indexed: several headers where images are small, little waste where they are
/// large.
const WINDOW_BYTES: u64 = 1 << 18;

/// A shard in an object store.
#[derive(Clone)]
pub(super) struct RemoteObject {
    address: Arc<str>,
    store: Arc<Store>,
    path: Path,
}

impl fmt::Debug for RemoteObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteObject").field(&self.address).finish()
    }
}

/// The shard at an address; of an address that ends with a slash all shards below it, by their names.
///
/// # Errors
/// An address of neither, a store that cannot be reached, or a folder without shards.
pub(super) fn shards(stores: &mut Stores, address: &str) -> Result<Vec<RemoteObject>, DataError> {
    if address.ends_with('/') { list(stores, address) } else { Ok(vec![shard(stores, address)?]) }
}

/// The shard at an address; the store is not asked for it yet.
///
/// # Errors
/// An address of something else.
pub(super) fn shard(stores: &mut Stores, address: &str) -> Result<RemoteObject, DataError> {
    if !is_shard(address) {
        let expected = "the address of a .tar shard, or one of a folder, which ends with /".into();
        return Err(DataError::Input { expected, got: address.to_string() });
    }
    let (store, path) = stores.at(address)?;
    Ok(RemoteObject { address: address.into(), store, path })
}

fn is_shard(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".tar")
}

/// All shards below an address. As on disk, what is hidden is left out.
fn list(stores: &mut Stores, address: &str) -> Result<Vec<RemoteObject>, DataError> {
    let (store, folder) = stores.at(address)?;
    let hidden = |path: &Path| path.prefix_match(&folder).is_some_and(|mut parts| parts.any(is_hidden));
    let wanted = |path: &Path| is_shard(path.as_ref()) && !hidden(path);
    let found = store.startup.list(Some(&folder)).map_ok(|object| object.location);
    let found = found.try_filter(|path| future::ready(wanted(path))).take(MAX_SHARDS as usize + 1);
    let mut paths: Vec<Path> = runtime(address)?
        .block_on(found.try_collect())
        .map_err(|error| DataError::Remote { reason: reason(&error), path: address.to_string() })?;
    if paths.is_empty() || paths.len() as u64 > MAX_SHARDS {
        let got = if paths.is_empty() { "none" } else { "more" };
        let expected = format!("1 to {MAX_SHARDS} .tar shards below an address");
        return Err(DataError::Input { expected, got: format!("{got} in {address}") });
    }
    paths.sort_by(|left, right| dinov2_io::natural_order(left.as_ref(), right.as_ref()));
    let object = |path: Path| {
        let below = path.as_ref().strip_prefix(folder.as_ref()).unwrap_or(path.as_ref());
        let name = format!("{address}{}", encoded(below.trim_start_matches('/')));
        RemoteObject { address: name.into(), store: Arc::clone(&store), path }
    };
    Ok(paths.into_iter().map(object).collect())
}

fn is_hidden(part: object_store::path::PathPart<'_>) -> bool {
    part.as_ref().starts_with('.')
}

/// A name as a part of an address: without the signs that mean something there.
fn encoded(name: &str) -> String {
    name.replace('%', "%25").replace('?', "%3F").replace('#', "%23")
}

impl RemoteObject {
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The shard's images.
    ///
    /// # Errors
    /// As [`shard::images`], and errors of the store.
    pub(super) fn images(&self) -> Result<Vec<shard::Located>, DataError> {
        let options = GetOptions { range: Some(GetRange::Bounded(0..WINDOW_BYTES)), ..GetOptions::default() };
        let first = async {
            let got = self.store.startup.get_opts(&self.path, options).await?;
            Ok::<_, object_store::Error>((got.meta.size, got.bytes().await?.into()))
        };
        let (end, window) = runtime(&self.address)?.block_on(first).map_err(|error| self.refused(&error))?;
        let mut reader = Ranges { object: self, end, at: 0, window_start: 0, window };
        shard::images(&mut reader, &self.address).map_err(|error| match error {
            // [`Ranges`] wraps errors of the store in errors of the system.
            DataError::Read { source, path } => {
                source.downcast().unwrap_or_else(|source| DataError::Read { source, path })
            }
            error => error,
        })
    }

    /// At most `bytes` bytes from `offset` on: fewer where the shard ends before.
    ///
    /// # Errors
    /// Errors of the store after all retries.
    pub(super) fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, DataError> {
        // A request for nothing is an error to stores.
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let read = self.store.read(&self.path, offset..offset.saturating_add(bytes));
        runtime(&self.address)?.block_on(read).map_err(|error| self.refused(&error))
    }

    fn refused(&self, error: &object_store::Error) -> DataError {
        DataError::Remote { reason: reason(error), path: self.address.to_string() }
    }
}

/// Reads an object window by window.
struct Ranges<'a> {
    object: &'a RemoteObject,
    end: u64,
    at: u64,
    window_start: u64,
    window: Vec<u8>,
}

impl Ranges<'_> {
    /// Moves the window to the reading position if it lies outside.
    fn fill(&mut self) -> Result<(), DataError> {
        let held = self.window_start..self.window_start + self.window.len() as u64;
        if held.contains(&self.at) {
            return Ok(());
        }
        let RemoteObject { store, path, address } = self.object;
        let range = self.at..self.end.min(self.at.saturating_add(WINDOW_BYTES));
        let read = store.startup.get_range(path, range);
        let window = runtime(address)?.block_on(read).map_err(|error| self.object.refused(&error))?;
        (self.window, self.window_start) = (window.into(), self.at);
        Ok(())
    }
}

impl Read for Ranges<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.end {
            return Ok(0);
        }
        self.fill().map_err(io::Error::other)?;
        // Shorter than requested if the object shrank since it was indexed.
        let rest = self.window.get((self.at - self.window_start) as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Ranges<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests;
