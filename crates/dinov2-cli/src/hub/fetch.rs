//! Downloads one file of a repository into the cache and checks it.
//!
//! Commit, size and hash of a file come from one response and are checked; the download must match them. Later responses change neither
//! the paths nor the number of bytes written.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ureq::http::HeaderMap;

use super::cache::{Cache, Commit, Hashes, is_hex};
use super::http::{Client, HttpError, Timeouts, content_length};
use super::{HubConfig, HubError};

/// Number of attempts without progress before a download fails.
const ATTEMPTS: u32 = 4;
/// Pause before the second attempt; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bytes after which an attempt counts as progress.
const WORTH_BYTES: u64 = 1 << 20;
/// Bytes read at a time.
const CHUNK: usize = 1 << 16;

/// Downloads of one repository.
pub(super) struct Fetcher<'a> {
    config: &'a HubConfig,
    repository: &'a str,
    client: Client,
    cache: &'a Cache,
}

/// A requested file.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Name in the repository, without folders.
    pub(super) file: &'a str,
    /// Maximum size in bytes.
    pub(super) limit: u64,
    /// Expected hash, if known.
    pub(super) sha256: Option<&'a str>,
}

/// Progress of a download.
pub(super) struct Transfer<'a> {
    pub(super) file: &'a str,
    pub(super) done_bytes: u64,
    pub(super) total_bytes: u64,
}

/// Checked metadata of a file, as announced by the hub.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    /// The commit of the revision.
    pub(super) commit: Commit,
    size: u64,
    etag: Etag,
}

/// The entity tag of a file, by which a hub identifies its content.
#[derive(Clone, Debug)]
enum Etag {
    /// Large files.
    Sha256(String),
    /// Small files.
    GitSha1(String),
    /// A tag of another form, which cannot be checked.
    Opaque(String),
}

impl Etag {
    fn parse(header: &str) -> Option<Self> {
        let text = header.trim().trim_start_matches("W/").trim_matches('"');
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && text.len() <= 128;
        match text {
            text if is_hex(text, 64) => Some(Self::Sha256(text.to_owned())),
            text if is_hex(text, 40) => Some(Self::GitSha1(text.to_owned())),
            text if is_plain && !text.is_empty() => Some(Self::Opaque(text.to_owned())),
            _ => None,
        }
    }

    fn as_str(&self) -> &str {
        let (Self::Sha256(text) | Self::GitSha1(text) | Self::Opaque(text)) = self;
        text
    }
}

/// A file in the cache.
pub(super) struct Fetched {
    pub(super) path: PathBuf,
    /// True if its hash was checked against an announced or known one.
    pub(super) is_verified: bool,
}

/// Why one attempt of a download failed.
enum Broken {
    /// Another attempt may succeed.
    Connection(String),
    Final(HubError),
}

impl<'a> Fetcher<'a> {
    pub(super) fn new(
        config: &'a HubConfig,
        repository: &'a str,
        cache: &'a Cache,
        timeouts: Timeouts,
    ) -> Result<Self, HubError> {
        let client = Client::new(&config.endpoint, config.token.as_deref(), timeouts)
            .ok_or_else(|| HubError::Endpoint(config.endpoint.clone()))?;
        Ok(Self { config, repository, client, cache })
    }

    /// Requests the metadata of a file. Nothing is written.
    pub(super) fn announced(&self, wanted: Wanted<'_>, revision: &str) -> Result<Announced, HubError> {
        let address = self.address(wanted.file, revision);
        let is_final = |headers: &HeaderMap| {
            headers.contains_key("x-linked-etag") && headers.contains_key("x-repo-commit")
        };
        let (mut attempt, mut pause) = (1, FIRST_PAUSE);
        let headers = loop {
            match self.client.head(&address, is_final) {
                Ok(headers) => break headers,
                Err(error) if attempt == ATTEMPTS || !is_transient(&error) => {
                    return Err(self.explain(wanted.file, revision, error));
                }
                Err(_) => thread::sleep(pause),
            }
            attempt += 1;
            pause *= 2;
        };
        self.check(wanted, revision, &headers)
    }

    fn check(&self, wanted: Wanted<'_>, revision: &str, headers: &HeaderMap) -> Result<Announced, HubError> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let refuse = |reason: &str| self.protocol(wanted.file, reason.to_owned());
        let commit = text("x-repo-commit").and_then(Commit::parse);
        let commit = commit.ok_or_else(|| refuse("expected a commit hash in X-Repo-Commit"))?;
        if Commit::parse(revision).is_some_and(|asked| asked != commit) {
            return Err(refuse(&format!("expected commit {revision}, got {}", commit.as_str())));
        }
        let etag = text("x-linked-etag").or_else(|| text("etag")).and_then(Etag::parse);
        let etag = etag.ok_or_else(|| refuse("expected a hash in ETag"))?;
        let size = match text("x-linked-size") {
            Some(size) => size.trim().parse().ok(),
            None => content_length(headers),
        };
        let size = size.ok_or_else(|| refuse("expected the size in Content-Length"))?;
        if size > wanted.limit {
            let (file, limit_bytes) = (wanted.file.to_owned(), wanted.limit);
            return Err(HubError::TooLarge { file, limit_bytes, announced_bytes: size });
        }
        match (&etag, wanted.sha256) {
            (Etag::Sha256(got), Some(expected)) if got != expected => {
                Err(corrupt(wanted.file, format!("sha256 {expected}"), format!("sha256 {got}")))
            }
            _ => Ok(Announced { commit, size, etag }),
        }
    }

    /// Returns the announced file: from the cache if its content is right, otherwise from the hub.
    pub(super) fn file(
        &self,
        wanted: Wanted<'_>,
        announced: &Announced,
        progress: &mut dyn FnMut(Transfer<'_>),
    ) -> Result<Fetched, HubError> {
        if let Some(path) = self.cache.file(&announced.commit, wanted.file) {
            let size = fs::metadata(&path).map_err(|error| HubError::io("stat", &path, error))?.len();
            let is_expected = size == announced.size && {
                let hashes = Hashes::of(&path)?;
                let is_pinned = wanted.sha256.is_none_or(|expected| hashes.sha256 == expected);
                is_pinned && announced.is_met_by(&hashes)
            };
            if is_expected {
                return Ok(Fetched { path, is_verified: announced.is_verifiable() });
            }
            self.cache.remove(&path);
        }
        check_room(self.cache.folder(), announced.size)?;
        self.download(wanted, announced, progress)
    }

    fn download(
        &self,
        wanted: Wanted<'_>,
        announced: &Announced,
        progress: &mut dyn FnMut(Transfer<'_>),
    ) -> Result<Fetched, HubError> {
        let (mut part, part_path) = self.cache.part(announced.etag.as_str())?;
        let stat = |part: &File| part.metadata().map_err(|error| HubError::io("stat", &part_path, error));
        let mut was_resumed = stat(&part)?.len() > 0;
        loop {
            self.complete(&mut part, &part_path, wanted.file, announced, progress)?;
            let hashes = Hashes::of(&part_path)?;
            match self.verify(wanted, announced, &hashes) {
                Ok(()) => {
                    let path = self.cache.keep(&part_path, &hashes.sha256, &announced.commit, wanted.file)?;
                    return Ok(Fetched { path, is_verified: announced.is_verifiable() });
                }
                // An earlier part may have come from another server: download the whole file once more.
                Err(_) if was_resumed => {
                    was_resumed = false;
                    part.set_len(0).map_err(|error| HubError::io("truncate", &part_path, error))?;
                }
                Err(error) => {
                    // What cannot be removed is refused again.
                    let _ = fs::remove_file(&part_path);
                    return Err(error);
                }
            }
        }
    }

    fn verify(&self, wanted: Wanted<'_>, announced: &Announced, got: &Hashes) -> Result<(), HubError> {
        let announced = match &announced.etag {
            Etag::Sha256(expected) => Some(expected.as_str()),
            // The sizes agree; that a mirror's 40 digits are git's hash is not sure enough to refuse a file.
            Etag::GitSha1(_) | Etag::Opaque(_) => None,
        };
        for expected in [announced, wanted.sha256].into_iter().flatten() {
            if got.sha256 != expected {
                let (expected, got) = (format!("sha256 {expected}"), format!("sha256 {}", got.sha256));
                return Err(corrupt(wanted.file, expected, got));
            }
        }
        Ok(())
    }

    /// Downloads the rest of a file, with any number of broken connections as long as each attempt makes progress.
    fn complete(
        &self,
        part: &mut File,
        part_path: &Path,
        file: &str,
        announced: &Announced,
        progress: &mut dyn FnMut(Transfer<'_>),
    ) -> Result<(), HubError> {
        let length = |part: &File| part.metadata().map_err(|error| HubError::io("stat", part_path, error));
        let (mut failures, mut pause) = (0, FIRST_PAUSE);
        loop {
            let before = length(part)?.len();
            match self.attempt(part, part_path, file, announced, progress) {
                Ok(()) => return Ok(()),
                Err(Broken::Final(error)) => {
                    // A file that is longer than announced is removed; after a full disk, the part so far is kept.
                    if matches!(error, HubError::Corrupt { .. }) {
                        let _ = fs::remove_file(part_path);
                    }
                    return Err(error);
                }
                Err(Broken::Connection(reason)) => {
                    let is_worth_it = length(part)?.len() >= before.saturating_add(WORTH_BYTES);
                    (failures, pause) = if is_worth_it { (0, FIRST_PAUSE) } else { (failures + 1, pause) };
                    if failures == ATTEMPTS {
                        let endpoint = self.config.endpoint.clone();
                        return Err(HubError::Unreachable { endpoint, reason });
                    }
                }
            }
            thread::sleep(pause);
            pause *= 2;
        }
    }

    fn attempt(
        &self,
        part: &mut File,
        part_path: &Path,
        file: &str,
        announced: &Announced,
        progress: &mut dyn FnMut(Transfer<'_>),
    ) -> Result<(), Broken> {
        let local = |action| move |error| Broken::Final(HubError::io(action, part_path, error));
        let total_bytes = announced.size;
        let mut done_bytes = part.metadata().map_err(local("stat"))?.len();
        if done_bytes > total_bytes {
            part.set_len(0).map_err(local("truncate"))?;
            done_bytes = 0;
        }
        if done_bytes == total_bytes {
            return Ok(());
        }
        let address = self.address(file, announced.commit.as_str());
        let mut download = match self.client.get(&address, done_bytes) {
            Ok(download) => download,
            Err(HttpError::Status(416)) => {
                part.set_len(0).map_err(local("truncate"))?;
                return Err(Broken::Connection("the server cannot continue the download".to_owned()));
            }
            Err(error) => return Err(self.broken(file, announced.commit.as_str(), error)),
        };
        if download.start < done_bytes {
            part.set_len(download.start).map_err(local("truncate"))?;
            done_bytes = download.start;
        }
        part.seek(SeekFrom::Start(done_bytes)).map_err(local("seek"))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match download.body.read(&mut chunk) {
                Ok(read) => read,
                Err(error) => return Err(Broken::Connection(error.to_string())),
            };
            if read == 0 && done_bytes < total_bytes {
                let reason = format!("the connection ended after {done_bytes} of {total_bytes} bytes");
                return Err(Broken::Connection(reason));
            }
            if read == 0 {
                return Ok(());
            }
            if done_bytes + read as u64 > total_bytes {
                let (expected, got) = (format!("{total_bytes} bytes"), "more".to_owned());
                return Err(Broken::Final(corrupt(file, expected, got)));
            }
            part.write_all(&chunk[..read]).map_err(local("write"))?;
            done_bytes += read as u64;
            progress(Transfer { file, done_bytes, total_bytes });
        }
    }

    fn address(&self, file: &str, revision: &str) -> String {
        let Self { config, repository, .. } = self;
        // A revision with slashes is a single path segment of the URL.
        format!("{}/{repository}/resolve/{}/{file}", config.endpoint, revision.replace('/', "%2F"))
    }

    fn broken(&self, file: &str, revision: &str, error: HttpError) -> Broken {
        match error {
            error if !is_transient(&error) => Broken::Final(self.explain(file, revision, error)),
            HttpError::Connection(reason) => Broken::Connection(reason),
            HttpError::Status(status) => Broken::Connection(format!("status {status}")),
            HttpError::Protocol(reason) => Broken::Final(self.protocol(file, reason)),
        }
    }

    fn explain(&self, file: &str, revision: &str, error: HttpError) -> HubError {
        let (endpoint, repository) = (self.config.endpoint.clone(), self.repository.to_owned());
        match error {
            HttpError::Status(404) => {
                let (file, revision) = (file.to_owned(), revision.to_owned());
                HubError::NotFound { file, repository, revision, endpoint }
            }
            HttpError::Status(status @ (401 | 403)) => {
                HubError::Denied { repository, endpoint, status, had_token: self.config.token.is_some() }
            }
            HttpError::Status(status) => self.protocol(file, format!("status {status}")),
            HttpError::Connection(reason) => HubError::Unreachable { endpoint, reason },
            HttpError::Protocol(reason) => self.protocol(file, reason),
        }
    }

    /// The error of a file that the repository lacks.
    pub(super) fn missing(&self, file: &str, revision: &str) -> HubError {
        self.explain(file, revision, HttpError::Status(404))
    }

    fn protocol(&self, file: &str, reason: String) -> HubError {
        HubError::Protocol { file: file.to_owned(), endpoint: self.config.endpoint.clone(), reason }
    }
}

impl Announced {
    fn is_met_by(&self, hashes: &Hashes) -> bool {
        match &self.etag {
            Etag::Sha256(expected) => hashes.sha256 == *expected,
            Etag::GitSha1(expected) => hashes.git_sha1 == *expected,
            Etag::Opaque(_) => true,
        }
    }

    fn is_verifiable(&self) -> bool {
        matches!(self.etag, Etag::Sha256(_))
    }
}

fn is_transient(error: &HttpError) -> bool {
    match error {
        HttpError::Connection(_) => true,
        HttpError::Status(status) => *status == 429 || *status >= 500,
        HttpError::Protocol(_) => false,
    }
}

pub(super) fn corrupt(file: &str, expected: String, got: String) -> HubError {
    HubError::Corrupt { file: file.to_owned(), expected, got }
}

/// Checks the free space of the disk of `folder`, if the system reports it.
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
