//! The cache folder that Hugging Face's tools share: `models--OWNER--NAME/{blobs,snapshots/COMMIT,refs,.no_exist/COMMIT}`.
//!
//! Paths are built only from file names that are requested, revisions of the user, commits that were checked to be hashes, and hashes
//! that were computed here. No text of a server becomes a path.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use dinov2_files::{Kind, write_whole};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::HubError;

/// Bytes hashed at a time.
const HASH_CHUNK: usize = 1 << 20;
/// Attempts to get the lock of another download, and the pause between them.
const LOCK_ATTEMPTS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// A git commit: 40 hexadecimal digits, or 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit(String);

impl Commit {
    pub(super) fn parse(text: &str) -> Option<Self> {
        (is_hex(text, 40) || is_hex(text, 64)).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// True if `text` consists of `digits` lower-case hexadecimal digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// One repository's part of the cache.
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// `repository`: OWNER/NAME, checked by [`super::repository`].
    pub(super) fn new(cache: &Path, repository: &str) -> Self {
        Self { folder: cache.join(format!("models--{}", repository.replace('/', "--"))) }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The commit of a revision at the last contact with the hub.
    pub(super) fn commit_of(&self, revision: &str) -> Option<Commit> {
        let noted = fs::read_to_string(self.folder.join("refs").join(revision)).ok();
        Commit::parse(revision).or_else(|| Commit::parse(noted?.trim()))
    }

    pub(super) fn note_commit(&self, revision: &str, commit: &Commit) -> Result<(), HubError> {
        if Commit::parse(revision).is_some() {
            return Ok(());
        }
        write_small(&self.folder.join("refs").join(revision), commit.as_str())
    }

    /// The folder with a commit's files.
    pub(super) fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.folder.join("snapshots").join(commit.as_str())
    }

    /// A file of a commit, if it is cached.
    pub(super) fn file(&self, commit: &Commit, file: &str) -> Option<PathBuf> {
        Some(self.snapshot(commit).join(file)).filter(|path| path.is_file())
    }

    /// True if the hub reported that the commit has no such file.
    pub(super) fn is_absent(&self, commit: &Commit, file: &str) -> bool {
        self.folder.join(".no_exist").join(commit.as_str()).join(file).is_file()
    }

    pub(super) fn note_absent(&self, commit: &Commit, file: &str) -> Result<(), HubError> {
        write_small(&self.folder.join(".no_exist").join(commit.as_str()).join(file), "")
    }

    /// Opens and locks the partial download of the content identified by `identity`.
    pub(super) fn part(&self, identity: &str) -> Result<(File, PathBuf), HubError> {
        let name = format!("{}.part", hex(&Sha256::digest(identity.as_bytes())));
        let path = self.folder.join("blobs").join(name);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(|error| HubError::io("create", folder, error))?;
        for _ in 0..LOCK_ATTEMPTS {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(|error| HubError::io("create", &path, error))?;
            match file.try_lock() {
                // The previous holder may have renamed the file to its final name.
                Ok(()) if path.exists() => return Ok((file, path)),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(HubError::io("lock", &path, error)),
            }
        }
        let held = io::Error::new(io::ErrorKind::WouldBlock, "another download holds it");
        Err(HubError::io("lock", &path, held))
    }

    /// Stores a complete download: as a blob named by its hash, and under its name in the commit's snapshot.
    pub(super) fn keep(
        &self,
        part: &Path,
        sha256: &str,
        commit: &Commit,
        file: &str,
    ) -> Result<PathBuf, HubError> {
        let blob = self.folder.join("blobs").join(sha256);
        dinov2_files::sync_and_rename(part, &blob).map_err(|error| HubError::io("rename", part, error))?;
        let path = self.snapshot(commit).join(file);
        let folder = self.snapshot(commit);
        fs::create_dir_all(&folder).map_err(|error| HubError::io("create", &folder, error))?;
        let temporary = folder.join(format!(".{file}.link"));
        // Left by a process that ended early.
        let _ = fs::remove_file(&temporary);
        link(&blob, &temporary, sha256).map_err(|error| HubError::io("link", &temporary, error))?;
        fs::rename(&temporary, &path).map_err(|error| HubError::io("rename", &temporary, error))?;
        Ok(path)
    }

    /// Removes a wrong file and its blob, so that the next pull downloads it again.
    pub(super) fn remove(&self, path: &Path) {
        let blob = fs::canonicalize(path);
        // A file that cannot be removed is refused again by the next pull.
        let _ = fs::remove_file(path);
        if let Ok(blob) = blob {
            let _ = fs::remove_file(blob);
        }
    }
}

/// Relative links, as in Hugging Face's tools, so that a cache can be moved.
#[cfg(unix)]
fn link(_blob: &Path, at: &Path, sha256: &str) -> io::Result<()> {
    std::os::unix::fs::symlink(Path::new("../../blobs").join(sha256), at)
}

/// Copies the file, because symbolic links need special rights on Windows.
#[cfg(not(unix))]
fn link(blob: &Path, at: &Path, _sha256: &str) -> io::Result<()> {
    fs::copy(blob, at).map(|_| ())
}

fn write_small(path: &Path, text: &str) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| HubError::io("create", folder, error))?;
    write_whole(path, Kind::Any, |file| file.write_all(text.as_bytes()))
        .map_err(|error| HubError::io("write", path, error.into()))?;
    Ok(())
}

/// The hashes that hubs use as names of files.
pub(super) struct Hashes {
    /// SHA-256 of the content: the name of large files.
    pub(super) sha256: String,
    /// SHA-1 of the git blob, `blob LENGTH\0` and the content: the name of small files.
    pub(super) git_sha1: String,
}

impl Hashes {
    pub(super) fn of(path: &Path) -> Result<Self, HubError> {
        let read = |error| HubError::io("read", path, error);
        let mut file = File::open(path).map_err(read)?;
        let bytes = file.metadata().map_err(read)?.len();
        let (mut sha256, mut sha1) = (Sha256::new(), Sha1::new());
        sha1.update(format!("blob {bytes}\0"));
        let mut chunk = vec![0; HASH_CHUNK];
        loop {
            match file.read(&mut chunk).map_err(read)? {
                0 => break,
                count => {
                    sha256.update(&chunk[..count]);
                    sha1.update(&chunk[..count]);
                }
            }
        }
        Ok(Self { sha256: hex(&sha256.finalize()), git_sha1: hex(&sha1.finalize()) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
