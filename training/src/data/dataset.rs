//! A list of encoded images, each read when it is asked for. Nothing is cached.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use dinov2_io::FormatError;
use dinov2_io::limits::MAX_IMAGE_FILE_BYTES;
use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};

use super::listing::{Entry, Listing, Place, Shard};
use super::sources::find;
use super::{DataError, Image, Member};

/// Encoded images, listed; each is read when it is asked for.
#[derive(Debug)]
pub struct Dataset {
    entries: Vec<Entry>,
    shards: Arc<[Shard]>,
}

impl Dataset {
    /// Lists images: files; folders, with those within, in natural order; globs; `.tar` shards (WebDataset), also as ranges
    /// like `shard-{000..012}.tar`; `.jsonl` manifests of `training curate`; with the feature `object-store` also addresses of
    /// shards in object stores, and of folders there (`s3://bucket/photos/`).
    ///
    /// # Errors
    /// A source that cannot be read, an invalid shard, or no image at all.
    pub fn open(sources: &[String]) -> Result<Self, DataError> {
        let Listing { entries, shards, .. } = find(sources)?;
        Ok(Self { entries, shards: shards.into() })
    }

    /// These images, then the others.
    #[must_use]
    pub fn followed_by(self, other: Self) -> Self {
        let (mut entries, mut shards) = (self.entries, self.shards.to_vec());
        let first = shards.len() as u32;
        entries.extend(other.entries.into_iter().map(|entry| match entry.place {
            Place::Member { shard, offset } => {
                Entry { place: Place::Member { shard: first + shard, offset }, ..entry }
            }
            Place::Named | Place::Path(_) => entry,
        }));
        shards.extend(other.shards.iter().cloned());
        Self { entries, shards: shards.into() }
    }

    /// Splits off `held_out` images, drawn by `seed`; at least one stays. Both parts keep their order.
    #[must_use]
    pub fn split(self, held_out: usize, seed: u64) -> (Self, Self) {
        let mut places: Vec<usize> = (0..self.entries.len()).collect();
        places.shuffle(&mut crate::random::stream(seed, "held out", 0));
        places.truncate(held_out.min(self.entries.len() - 1));
        let chosen: BTreeSet<usize> = places.into_iter().collect();
        let (mut rest, mut held_out) = (Vec::new(), Vec::new());
        for (place, entry) in self.entries.into_iter().enumerate() {
            let part = if chosen.contains(&place) { &mut held_out } else { &mut rest };
            part.push(entry);
        }
        let part = |entries| Self { entries, shards: Arc::clone(&self.shards) };
        (part(rest), part(held_out))
    }

    /// Number of images; positive, except for a held-out part.
    #[expect(clippy::len_without_is_empty, reason = "a dataset is never empty")]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Path of an image, or `shard.tar!member`.
    ///
    /// # Panics
    /// If there is no such sample, as all methods do that take one.
    pub fn name(&self, sample: usize) -> &str {
        &self.entries[sample].name
    }

    /// Bytes of the encoded image when it was listed.
    pub fn encoded_bytes(&self, sample: usize) -> u64 {
        self.entries[sample].bytes
    }

    /// Reads the encoded image.
    ///
    /// # Errors
    /// A file that cannot be read, or has more bytes than [`MAX_IMAGE_FILE_BYTES`]. [`DataError::Remote`] is no fault of this
    /// image: its store, or its shard there, is out of reach.
    pub fn read(&self, sample: usize) -> Result<Vec<u8>, DataError> {
        let entry = &self.entries[sample];
        if entry.bytes > MAX_IMAGE_FILE_BYTES {
            return Err(too_large(entry));
        }
        match &entry.place {
            Place::Named => read_file(Path::new(&*entry.name), entry),
            Place::Path(path) => read_file(path, entry),
            Place::Member { shard, offset } => match &self.shards[*shard as usize] {
                Shard::File(path) => read_part(path, *offset, entry),
                #[cfg(feature = "object-store")]
                Shard::Remote(object) => whole(object.read(*offset, entry.bytes)?, entry),
            },
        }
    }

    /// Reads and decodes an image: RGB u8, its EXIF orientation applied.
    ///
    /// # Errors
    /// A file that cannot be read, is no image, or a larger one than [`dinov2_io::limits`] allow.
    pub fn decode(&self, sample: usize) -> Result<Image, DataError> {
        let encoded = self.read(sample)?;
        Image::decode(&encoded)
            .map_err(|source| DataError::Image { source, path: self.name(sample).to_string() })
    }

    /// SHA-256 of all names and sizes in their order: changes when images come, go, are renamed or change their size.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for entry in &self.entries {
            hash.update((entry.name.len() as u64).to_le_bytes());
            hash.update(entry.name.as_bytes());
            hash.update(entry.bytes.to_le_bytes());
        }
        hash.finalize().into()
    }

    /// [`Self::fingerprint`] in hexadecimal digits.
    pub fn fingerprint_hex(&self) -> String {
        self.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The archive and offset of an image; `None` for a plain file.
    pub(crate) fn member(&self, sample: usize) -> Option<Member> {
        match &self.entries[sample].place {
            Place::Member { shard, offset } => match &self.shards[*shard as usize] {
                Shard::File(path) => Some(Member { shard: path.clone(), offset: *offset }),
                #[cfg(feature = "object-store")]
                Shard::Remote(object) => Some(Member { shard: object.address().into(), offset: *offset }),
            },
            _ => None,
        }
    }
}

fn too_large(entry: &Entry) -> DataError {
    let (what, expected) = ("image file", format!("at most {MAX_IMAGE_FILE_BYTES} bytes"));
    let source = FormatError::Field { what, expected, got: "more".into() };
    DataError::Image { source, path: entry.name.to_string() }
}

fn read_file(path: &Path, entry: &Entry) -> Result<Vec<u8>, DataError> {
    let file = File::open(path).map_err(DataError::read(&entry.name))?;
    let mut encoded = Vec::new();
    file.take(MAX_IMAGE_FILE_BYTES + 1).read_to_end(&mut encoded).map_err(DataError::read(&entry.name))?;
    if encoded.len() as u64 > MAX_IMAGE_FILE_BYTES { Err(too_large(entry)) } else { Ok(encoded) }
}

fn read_part(path: &Path, offset: u64, entry: &Entry) -> Result<Vec<u8>, DataError> {
    let mut file = File::open(path).map_err(DataError::read(path.display()))?;
    file.seek(SeekFrom::Start(offset)).map_err(DataError::read(&entry.name))?;
    // Sizes in a manifest are not trusted: the buffer grows with the archive's content.
    let mut encoded = Vec::new();
    file.take(entry.bytes).read_to_end(&mut encoded).map_err(DataError::read(&entry.name))?;
    whole(encoded, entry)
}

/// The bytes of an image, unless the archive ends within it.
fn whole(encoded: Vec<u8>, entry: &Entry) -> Result<Vec<u8>, DataError> {
    if encoded.len() as u64 == entry.bytes {
        return Ok(encoded);
    }
    let source =
        FormatError::Truncated { what: "archive", expected: entry.bytes as usize, got: encoded.len() };
    Err(DataError::Image { source, path: entry.name.to_string() })
}
