//! Shards in object stores. Which stores there are is decided by the features of `object_store`; credentials and regions come
//! from the environment, under the names that it documents (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
//!
//! A shard is indexed by reading ranges of it, and its images are read as ranges, too: nothing is kept on disk.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, OnceLock};

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::{Builder, Runtime};

use super::{DataError, shard};

/// Bytes per request while a shard is indexed: several headers where images are small, not much for nothing where they are
/// large.
const WINDOW_BYTES: u64 = 1 << 18;

/// A shard in an object store.
#[derive(Clone)]
pub(super) struct RemoteObject {
    address: Arc<str>,
    store: Arc<dyn ObjectStore>,
    path: Path,
}

impl fmt::Debug for RemoteObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteObject").field(&self.address).finish()
    }
}

/// The shard at an address, and its images.
pub(super) fn find(address: &str) -> Result<(RemoteObject, Vec<shard::Located>), DataError> {
    if !address.to_ascii_lowercase().ends_with(".tar") {
        let expected = "the address of a .tar shard in an object store".into();
        return Err(DataError::Source { expected, got: address.to_string() });
    }
    let refused = |reason: String| DataError::Remote { reason, path: address.to_string() };
    let url = address.parse().map_err(|error| refused(format!("{error}")))?;
    let (store, path) =
        object_store::parse_url_opts(&url, std::env::vars()).map_err(|error| refused(error.to_string()))?;
    let object = RemoteObject { address: address.into(), store: store.into(), path };
    let end = runtime(address)?
        .block_on(object.store.head(&object.path))
        .map_err(|error| refused(error.to_string()))?
        .size;
    let mut reader = Ranges { object: object.clone(), end, at: 0, window_start: 0, window: Vec::new() };
    let located = shard::images(&mut reader, address)?;
    Ok((object, located))
}

impl RemoteObject {
    /// `bytes` bytes from `offset` on.
    pub(super) fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, DataError> {
        let range = offset..offset.saturating_add(bytes);
        let read = runtime(&self.address)?.block_on(self.store.get_range(&self.path, range));
        let path = || self.address.to_string();
        let read = read.map_err(|error| DataError::Remote { reason: error.to_string(), path: path() })?;
        if read.len() as u64 == bytes {
            return Ok(read.into());
        }
        let reason = format!("expected {bytes} bytes, got {}", read.len());
        Err(DataError::Remote { reason, path: path() })
    }
}

/// What waits for answers, one for all threads.
fn runtime(address: &str) -> Result<&'static Runtime, DataError> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread().worker_threads(1).thread_name("object-store").enable_all().build()
    });
    runtime
        .as_ref()
        .map_err(|error| DataError::Remote { reason: error.to_string(), path: address.to_string() })
}

/// Reads an object window by window.
struct Ranges {
    object: RemoteObject,
    end: u64,
    at: u64,
    window_start: u64,
    window: Vec<u8>,
}

impl Read for Ranges {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.end {
            return Ok(0);
        }
        let held = self.window_start..self.window_start + self.window.len() as u64;
        if !held.contains(&self.at) {
            let bytes = WINDOW_BYTES.min(self.end - self.at);
            self.window = self.object.read(self.at, bytes).map_err(io::Error::other)?;
            self.window_start = self.at;
        }
        let rest = &self.window[(self.at - self.window_start) as usize..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Ranges {
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
mod tests {
    use crate::data::Dataset;

    #[test]
    fn shards_behind_an_address_hold_what_they_hold_on_disk() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/gnu.tar");
        let local = Dataset::open(&[path.to_string()]).unwrap();
        let remote = Dataset::open(&[format!("file://{path}")]).unwrap();
        assert_eq!(remote.len(), 5);
        for sample in 0..5 {
            assert_eq!(remote.decode(sample).unwrap(), local.decode(sample).unwrap());
            assert_eq!(remote.name(sample), format!("file://{}", local.name(sample)));
        }
        let absent = Dataset::open(&[format!("file://{path}.absent.tar")]).unwrap_err().to_string();
        assert!(absent.starts_with("object store: "), "{absent}");
    }
}
