use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};

use super::{HubConfig, HubError};

/// Attempts per file; each resumes where the one before broke off.
const ATTEMPTS: u32 = 4;
/// Pause before the second attempt; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bytes hashed at a time.
const HASH_CHUNK: usize = 1 << 20;

/// Downloads of one repository at one revision.
pub(super) struct Fetcher<'a> {
    config: &'a HubConfig,
    repository: &'a str,
    revision: &'a str,
    api: Api,
    hub: ApiRepo,
    repo: Repo,
}

/// Where a download stands.
pub(super) struct Transfer<'a> {
    pub(super) file: &'a str,
    pub(super) done_bytes: u64,
    pub(super) total_bytes: u64,
}

impl<'a> Fetcher<'a> {
    pub(super) fn new(
        config: &'a HubConfig,
        repository: &'a str,
        revision: &'a str,
    ) -> Result<Self, HubError> {
        let builder = ApiBuilder::from_cache(Cache::new(config.cache.clone()))
            .with_endpoint(config.endpoint.clone())
            .with_token(config.token.clone())
            .with_user_agent("dinov2-edge", env!("CARGO_PKG_VERSION"))
            .with_progress(false);
        let api = builder.build().map_err(|error| HubError::Unreachable {
            endpoint: config.endpoint.clone(),
            reason: error.to_string(),
        })?;
        let repo = Repo::with_revision(repository.to_owned(), RepoType::Model, revision.to_owned());
        Ok(Self { config, repository, revision, hub: api.repo(repo.clone()), api, repo })
    }

    /// A file of the repository, from the cache or from the hub; its bytes are checked either way.
    pub(super) fn file(
        &self,
        file: &str,
        progress: &mut dyn FnMut(Transfer<'_>),
    ) -> Result<PathBuf, HubError> {
        if let Some(path) = Cache::new(self.config.cache.clone()).repo(self.repo.clone()).get(file) {
            verify(&path, file)?;
            return Ok(path);
        }
        let size = self.announced(file)?;
        check_room(&self.config.cache, size)?;
        let path = self.download(file, progress)?;
        let got = fs::metadata(&path).map_err(|error| HubError::io("stat", &path, error))?.len();
        if got != size {
            remove_download(&path);
            let (expected, got) = (format!("{size} bytes"), format!("{got} bytes"));
            return Err(HubError::Corrupt { file: file.to_owned(), expected, got });
        }
        verify(&path, file)?;
        Ok(path)
    }

    /// Asks the hub about a file before anything is written: its size in bytes.
    fn announced(&self, file: &str) -> Result<u64, HubError> {
        let metadata = self.api.metadata(&self.hub.url(file)).map_err(|error| self.explain(file, error))?;
        // Both become names in the cache folder.
        for name in [metadata.etag(), metadata.commit_hash()] {
            let is_plain = name.len() <= 128
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            if !is_plain || name.is_empty() {
                return Err(self.protocol(file, format!("etag or commit {name:?} is no file name")));
            }
        }
        Ok(metadata.size() as u64)
    }

    /// Downloads with resumption. hf-hub's own retry restarts at byte 0 of a file it appends to when an attempt dies
    /// before its first byte, hence this loop around single attempts.
    fn download(&self, file: &str, progress: &mut dyn FnMut(Transfer<'_>)) -> Result<PathBuf, HubError> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let watch = Watch { file: file.to_owned(), done_bytes: 0, total_bytes: 0, progress };
            let error = match self.hub.download_with_progress(file, watch) {
                Ok(path) => return Ok(path),
                Err(error) => error,
            };
            let complete_part = status(&error) == Some(416) || matches!(error, ApiError::InvalidResume);
            if complete_part {
                self.remove_parts();
            }
            if attempt == ATTEMPTS || !(complete_part || is_transient(&error)) {
                return Err(self.explain(file, error));
            }
            thread::sleep(pause);
            pause *= 2;
        }
        unreachable!("the loop returns at the last attempt")
    }

    /// Removes partial downloads that the hub cannot continue: as long as the file, or longer.
    fn remove_parts(&self) {
        let blobs = self.config.cache.join(self.repo.folder_name()).join("blobs");
        for entry in fs::read_dir(blobs).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "part") {
                // The next attempt reports what still stands in its way.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn explain(&self, file: &str, error: ApiError) -> HubError {
        let endpoint = self.config.endpoint.clone();
        match (status(&error), error) {
            (Some(404), _) => HubError::NotFound {
                file: file.to_owned(),
                repository: self.repository.to_owned(),
                revision: self.revision.to_owned(),
                endpoint,
            },
            (Some(status @ (401 | 403)), _) => HubError::Denied {
                repository: self.repository.to_owned(),
                endpoint,
                status,
                had_token: self.config.token.is_some(),
            },
            (None, ApiError::IoError(source)) if is_local(&source) => {
                HubError::io("download", &self.config.cache, source)
            }
            (None, ApiError::LockAcquisition(path)) => {
                let source = std::io::Error::other("another download holds the lock");
                HubError::io("download", &path, source)
            }
            (_, ApiError::RequestError(error)) => {
                HubError::Unreachable { endpoint, reason: error.to_string() }
            }
            (_, ApiError::IoError(error)) => HubError::Unreachable { endpoint, reason: error.to_string() },
            (_, error) => self.protocol(file, error.to_string()),
        }
    }

    fn protocol(&self, file: &str, reason: String) -> HubError {
        HubError::Protocol { file: file.to_owned(), endpoint: self.config.endpoint.clone(), reason }
    }
}

/// Passes hf-hub's increments on as totals.
struct Watch<'a> {
    file: String,
    done_bytes: u64,
    total_bytes: u64,
    progress: &'a mut dyn FnMut(Transfer<'_>),
}

impl hf_hub::api::Progress for Watch<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        self.done_bytes = 0;
        self.total_bytes = size as u64;
    }

    fn update(&mut self, size: usize) {
        self.done_bytes += size as u64;
        let (done_bytes, total_bytes) = (self.done_bytes, self.total_bytes);
        (self.progress)(Transfer { file: &self.file, done_bytes, total_bytes });
    }

    fn finish(&mut self) {}
}

/// HTTP status of a refusal.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    }
}

/// Errors of this machine's disk, as opposed to a broken connection.
fn is_local(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::StorageFull
            | Kind::QuotaExceeded
            | Kind::PermissionDenied
            | Kind::NotFound
            | Kind::ReadOnlyFilesystem
            | Kind::NotADirectory
            | Kind::FileTooLarge
            | Kind::AlreadyExists
    )
}

fn is_transient(error: &ApiError) -> bool {
    match error {
        ApiError::IoError(error) => !is_local(error),
        ApiError::RequestError(inner) => match **inner {
            ureq::Error::StatusCode(status) => status == 429 || status >= 500,
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
            _ => false,
        },
        _ => false,
    }
}

/// Compares a cached file with its name in the cache: large files are named by their sha256 (64 hex digits). Small
/// ones are named by git's hash of them, which adds nothing to the check of their size.
fn verify(path: &Path, file: &str) -> Result<(), HubError> {
    let blob = fs::canonicalize(path).map_err(|error| HubError::io("open", path, error))?;
    let Some(expected) = blob.file_name().and_then(|name| name.to_str()).filter(|name| is_sha256(name))
    else {
        return Ok(());
    };
    let got = sha256(&blob).map_err(|error| HubError::io("read", &blob, error))?;
    if got.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let expected = format!("sha256 {expected}");
    remove_download(path);
    Err(HubError::Corrupt { file: file.to_owned(), expected, got: format!("sha256 {got}") })
}

fn is_sha256(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; HASH_CHUNK]);
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => hash.update(&chunk[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes a wrong file and the link to it, so that the next pull starts afresh.
fn remove_download(path: &Path) {
    let blob = fs::canonicalize(path);
    // Whatever cannot be removed is found and refused again.
    let _ = fs::remove_file(path);
    if let Ok(blob) = blob {
        let _ = fs::remove_file(blob);
    }
}

/// Checks the room on the disk that will hold `folder`, as far as the system tells.
pub(super) fn check_room(folder: &Path, needed_bytes: u64) -> Result<(), HubError> {
    let existing = folder.ancestors().find(|ancestor| ancestor.exists());
    let Some(free_bytes) = existing.and_then(|folder| fs4::available_space(folder).ok()) else {
        return Ok(());
    };
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(HubError::DiskFull { path: folder.display().to_string(), needed_bytes, free_bytes })
}
