//! `pull`: brings the files of a checkpoint into the cache, checks them, and converts them to a model file.

use std::fs;
use std::path::{Path, PathBuf};

use dinov2_core::VitSpec;
use dinov2_files::{Kind, Target, folder_of};
use dinov2_weights::{ConvertOptions, Model, SIDE_FILES, SideFile, Storage, convert};
use serde::Deserialize;

use super::cache::{Cache, Commit, Hashes, is_hex};
use super::config::DEFAULT_REVISION;
use super::fetch::{Announced, Fetcher, Transfer, Wanted, check_room, corrupt};
use super::http::Timeouts;
use super::known::known;
use super::on_disk::model_path;
use super::{HubConfig, HubError, repository};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Maximum number of files of a checkpoint (ViT-g has one).
const MAX_SHARDS: usize = 256;
/// Maximum size of a file of weights; the largest model of the family, a ViT-7B in f32, has 27 GB.
const MAX_WEIGHT_BYTES: u64 = 64 << 30;
/// Maximum size of a configuration file.
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// Maximum size of an index file.
const MAX_INDEX_BYTES: u64 = 16 << 20;

/// The model to pull.
#[derive(Clone, Debug)]
pub(crate) struct PullRequest {
    /// A known name or a repository.
    pub(crate) name: String,
    /// Branch, tag or commit; `None` for the pinned commit of a known model, or the main branch.
    pub(crate) revision: Option<String>,
    /// How the model file stores its weights.
    pub(crate) storage: Storage,
    /// Where to write the model file; `None` for the model folder.
    pub(crate) output: Option<Target>,
}

/// Progress of a pull.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PullProgress<'a> {
    /// A file is being downloaded. Not reported for cached files.
    Download {
        /// Name of the file in the repository.
        file: &'a str,
        /// Bytes on disk, including those of an earlier attempt.
        done_bytes: u64,
        /// Bytes of the file.
        total_bytes: u64,
    },
    /// The checkpoint is being converted.
    Convert(dinov2_weights::Progress<'a>),
}

/// A pulled model.
#[derive(Clone, Debug)]
pub(crate) struct Pulled {
    /// The model file.
    pub(crate) path: PathBuf,
    /// Repository that it came from.
    pub(crate) repository: String,
    /// Its shape.
    pub(crate) spec: VitSpec,
    /// Size of the model file.
    pub(crate) bytes: u64,
    /// True if nothing had to be downloaded.
    pub(crate) from_cache: bool,
    /// Messages for the user: how the source was read, and why the hub was not contacted.
    pub(crate) notes: Vec<String>,
}

/// Downloads a checkpoint (or finds it in the hub's cache), checks it, converts it and opens the result. The model
/// file appears under its final name only if all steps succeed.
///
/// The hub is contacted even for cached files, so that wrong files are replaced. If it cannot be reached, or
/// [`HubConfig::offline`] is set, a complete checkpoint in the cache is used.
///
/// # Errors
/// An unknown name, no network, no such repository, no access, a full disk, bytes that differ from what the hub
/// announced or from the known hash, or a checkpoint that is not DINOv2.
pub(crate) fn pull(
    config: &HubConfig,
    request: &PullRequest,
    progress: &mut dyn FnMut(PullProgress<'_>),
) -> Result<Pulled, HubError> {
    pull_with(config, request, Timeouts::USUAL, progress)
}

pub(super) fn pull_with(
    config: &HubConfig,
    request: &PullRequest,
    timeouts: Timeouts,
    progress: &mut dyn FnMut(PullProgress<'_>),
) -> Result<Pulled, HubError> {
    let repository = repository(&request.name)?;
    let source = source(&repository, request.revision.as_deref())?;
    let output = match &request.output {
        Some(target) => target.clone(),
        None => {
            let revision = request.revision.as_deref().unwrap_or(DEFAULT_REVISION);
            Target::new(model_path(&config.models, &repository, revision, request.storage))
        }
    };
    let folder = folder_of(output.path());
    fs::create_dir_all(folder).map_err(|error| HubError::io("create", folder, error))?;
    // Checks the output before gigabytes are downloaded.
    output.check(Kind::Model)?;
    let cache = Cache::new(&config.cache, &repository);
    let fetcher = Fetcher::new(config, &repository, &cache, timeouts)?;
    let mut from_cache = true;
    let snapshot = snapshot(&fetcher, &cache, &source, config.offline, &mut |transfer| {
        let Transfer { file, done_bytes, total_bytes } = transfer;
        from_cache = false;
        progress(PullProgress::Download { file, done_bytes, total_bytes });
    })?;
    check_room(folder, weight_bytes(&snapshot.folder)? / stored_share(request.storage))?;
    let options = ConvertOptions {
        source: Some(format!("{}/{repository} at commit {}", config.endpoint, snapshot.commit.as_str())),
        licence: known(&repository).map(|model| model.licence.to_owned()),
        ..ConvertOptions::new(request.storage)
    };
    let converted =
        convert(&snapshot.folder, &output, &options, &mut |step| progress(PullProgress::Convert(step)));
    let converted = converted.inspect_err(|_| {
        // The files have no hash and cannot be converted; the next pull downloads them again.
        snapshot.unverified.iter().for_each(|path| cache.remove(path));
    })?;
    let path = output.path().to_owned();
    let spec = Model::open(&path)?.spec().clone();
    let mut notes = converted.notes;
    notes.extend(snapshot.note.map(|why| format!("from the cache, which may be out of date: {why}")));
    Ok(Pulled { path, repository, spec, bytes: converted.file_bytes, from_cache, notes })
}

/// The revision to request, and the expected hash of the weights.
struct Source<'a> {
    revision: &'a str,
    weights_sha256: Option<&'static str>,
}

/// Known models are pulled at the pinned commit, unless another revision is requested.
fn source<'a>(repository: &str, revision: Option<&'a str>) -> Result<Source<'a>, HubError> {
    let known = known(repository);
    match (revision, known) {
        (None, Some(model)) => Ok(Source { revision: model.commit, weights_sha256: model.sha256 }),
        (None, None) => Ok(Source { revision: DEFAULT_REVISION, weights_sha256: None }),
        (Some(revision), known) => {
            let revision = checked_revision(revision)?;
            let pinned = known.filter(|model| model.commit == revision);
            Ok(Source { revision, weights_sha256: pinned.and_then(|model| model.sha256) })
        }
    }
}

/// A commit's files in the cache.
struct Snapshot {
    folder: PathBuf,
    commit: Commit,
    /// Files without a hash to check.
    unverified: Vec<PathBuf>,
    /// Why the hub was not contacted.
    note: Option<String>,
}

/// Brings a commit's files into the cache. Without a hub, the cache must be complete.
fn snapshot(
    fetcher: &Fetcher<'_>,
    cache: &Cache,
    source: &Source<'_>,
    offline: bool,
    progress: &mut dyn FnMut(Transfer<'_>),
) -> Result<Snapshot, HubError> {
    if offline {
        let found = cached(cache, source, "HF_HUB_OFFLINE is set".to_owned())?;
        return found.ok_or(HubError::Offline { revision: source.revision.to_owned() });
    }
    let config = Wanted { file: CONFIG, limit: MAX_TEXT_BYTES, sha256: None };
    // The small file first, so that a wrong name fails before gigabytes are downloaded.
    let announced = match fetcher.announced(config, source.revision) {
        Err(HubError::Unreachable { endpoint, reason }) => {
            let why = format!("{endpoint} cannot be reached: {reason}");
            return cached(cache, source, why)?.ok_or(HubError::Unreachable { endpoint, reason });
        }
        other => other?,
    };
    // All further files come from this commit, even if the branch moves.
    let commit = announced.commit.clone();
    let mut files = Files { fetcher, cache, commit: &commit, unverified: Vec::new() };
    files.announced(config, &announced, progress)?;
    for side in SIDE_FILES.iter().filter(|side| side.optional) {
        files.optional(Wanted { file: side.name, ..config }, progress)?;
    }
    let weights = Wanted { file: WEIGHTS, limit: MAX_WEIGHT_BYTES, sha256: source.weights_sha256 };
    if files.optional(weights, progress)?.is_none() {
        let index = Wanted { file: INDEX, limit: MAX_INDEX_BYTES, sha256: None };
        let Some(index) = files.optional(index, progress)? else {
            return Err(fetcher.missing(WEIGHTS, source.revision));
        };
        for shard in shards(&index)? {
            let shard = Wanted { file: &shard, limit: MAX_WEIGHT_BYTES, sha256: None };
            files.required(shard, progress)?;
        }
    }
    let unverified = files.unverified;
    cache.note_commit(source.revision, &commit)?;
    Ok(Snapshot { folder: cache.snapshot(&commit), commit, unverified, note: None })
}

/// Files of one commit.
struct Files<'a> {
    fetcher: &'a Fetcher<'a>,
    cache: &'a Cache,
    commit: &'a Commit,
    unverified: Vec<PathBuf>,
}

impl Files<'_> {
    fn announced(
        &mut self,
        wanted: Wanted<'_>,
        announced: &Announced,
        progress: &mut dyn FnMut(Transfer<'_>),
    ) -> Result<PathBuf, HubError> {
        let fetched = self.fetcher.file(wanted, announced, progress)?;
        if !fetched.is_verified {
            self.unverified.push(fetched.path.clone());
        }
        Ok(fetched.path)
    }

    fn required(
        &mut self,
        wanted: Wanted<'_>,
        progress: &mut dyn FnMut(Transfer<'_>),
    ) -> Result<PathBuf, HubError> {
        let announced = self.fetcher.announced(wanted, self.commit.as_str())?;
        self.announced(wanted, &announced, progress)
    }

    /// `None` if the commit has no such file; the cache records that.
    fn optional(
        &mut self,
        wanted: Wanted<'_>,
        progress: &mut dyn FnMut(Transfer<'_>),
    ) -> Result<Option<PathBuf>, HubError> {
        match self.required(wanted, progress) {
            Err(HubError::NotFound { .. }) => {
                self.cache.note_absent(self.commit, wanted.file)?;
                Ok(None)
            }
            other => other.map(Some),
        }
    }
}

/// The cached files of a revision, if they are complete. `why`: the reason why the hub was not contacted.
fn cached(cache: &Cache, source: &Source<'_>, why: String) -> Result<Option<Snapshot>, HubError> {
    let Some(commit) = cache.commit_of(source.revision) else { return Ok(None) };
    let is_known = |side: &SideFile| {
        cache.file(&commit, side.name).is_some() || (side.optional && cache.is_absent(&commit, side.name))
    };
    if !SIDE_FILES.iter().all(is_known) {
        return Ok(None);
    }
    let weights = match cache.file(&commit, WEIGHTS) {
        Some(weights) => vec![weights],
        None => {
            let Some(index) = cache.file(&commit, INDEX) else { return Ok(None) };
            let shards = shards(&index)?.into_iter().map(|shard| cache.file(&commit, &shard));
            let Some(shards) = shards.collect::<Option<Vec<_>>>() else { return Ok(None) };
            shards
        }
    };
    for path in weights {
        verify_cached(cache, &path, source.weights_sha256)?;
    }
    let folder = cache.snapshot(&commit);
    Ok(Some(Snapshot { folder, commit, unverified: Vec::new(), note: Some(why) }))
}

/// Checks a cached file against its name in the cache, if that is a sha256, and against the known hash.
fn verify_cached(cache: &Cache, path: &Path, known: Option<&str>) -> Result<(), HubError> {
    let blob = fs::canonicalize(path).map_err(|error| HubError::io("open", path, error))?;
    let name = blob.file_name().and_then(|name| name.to_str()).filter(|name| is_hex(name, 64));
    let got = Hashes::of(&blob)?.sha256;
    for expected in [name, known].into_iter().flatten() {
        if got != expected {
            let error =
                corrupt(&path.display().to_string(), format!("sha256 {expected}"), format!("sha256 {got}"));
            cache.remove(path);
            return Err(error);
        }
    }
    Ok(())
}

/// The distinct files that an index names.
fn shards(index: &Path) -> Result<Vec<String>, HubError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let invalid = |problem: String| {
        HubError::Convert(dinov2_weights::ConvertError::invalid(problem, index.display().to_string()))
    };
    let size = fs::metadata(index).map_err(|error| HubError::io("stat", index, error))?.len();
    if size > MAX_INDEX_BYTES {
        return Err(invalid(format!("index: expected at most {MAX_INDEX_BYTES} bytes, got {size}")));
    }
    let text = fs::read(index).map_err(|error| HubError::io("read", index, error))?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|error| invalid(format!("index: {error}")))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    if names.len() > MAX_SHARDS {
        return Err(invalid(format!("index: expected at most {MAX_SHARDS} files, got {}", names.len())));
    }
    let is_plain = |name: &str| {
        name.ends_with(".safetensors")
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match names.iter().find(|name| !is_plain(name)) {
        Some(name) => Err(invalid(format!("index: expected names of .safetensors files, got {name:?}"))),
        None => Ok(names),
    }
}

/// Minimum ratio of the size of an f32 checkpoint to that of the model file.
fn stored_share(storage: Storage) -> u64 {
    match storage {
        Storage::F32 => 1,
        Storage::F16 | Storage::Bf16 => 2,
        Storage::Int8 => 4,
        Storage::Int4 => 7,
    }
}

/// Size of the checkpoint's weights in bytes.
fn weight_bytes(snapshot: &Path) -> Result<u64, HubError> {
    let list = |error| HubError::io("list", snapshot, error);
    let mut total = 0;
    for entry in fs::read_dir(snapshot).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            // Follows the links to the blobs.
            total += fs::metadata(&path).map_err(|error| HubError::io("stat", &path, error))?.len();
        }
    }
    Ok(total)
}

fn checked_revision(revision: &str) -> Result<&str, HubError> {
    let plain = revision.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
    let parts = revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    if plain && parts && revision.len() <= 128 {
        Ok(revision)
    } else {
        Err(HubError::Revision(revision.to_owned()))
    }
}
