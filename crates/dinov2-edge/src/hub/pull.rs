use std::fs;
use std::path::{Path, PathBuf};

use dinov2_core::VitSpec;
use dinov2_weights::{ConvertOptions, Model, Storage, convert};
use serde::Deserialize;

use super::config::DEFAULT_REVISION;
use super::fetch::{Fetcher, Transfer, check_room};
use super::known::known;
use super::{HubConfig, HubError, model_path, repository};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Most files that a checkpoint may be split into (ViT-g comes in one).
const MAX_SHARDS: usize = 256;
/// Largest index file.
const MAX_INDEX_BYTES: u64 = 16 << 20;

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// A known name or a repository.
    pub name: String,
    /// Branch, tag or commit; `None` for the main branch.
    pub revision: Option<String>,
    /// How the model file stores its weights.
    pub storage: Storage,
    /// Where to write the model file; `None` for the model folder.
    pub output: Option<PathBuf>,
}

/// Where a pull stands.
#[derive(Clone, Copy, Debug)]
pub enum PullProgress<'a> {
    /// A file is on its way. Not reported for files that the cache holds.
    Download {
        /// Name of the file in the repository.
        file: &'a str,
        /// Bytes on disk, those of an earlier attempt included.
        done_bytes: u64,
        /// Bytes of the file.
        total_bytes: u64,
    },
    /// The checkpoint is being converted.
    Convert(dinov2_weights::Progress<'a>),
}

/// A model that is ready for use.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The model file.
    pub path: PathBuf,
    /// Repository that it came from.
    pub repository: String,
    /// Its shape.
    pub spec: VitSpec,
    /// Size of the model file.
    pub bytes: u64,
    /// Whether the hub's cache held everything already.
    pub from_cache: bool,
}

/// Downloads a checkpoint (or finds it in the hub's cache), checks it, converts it and opens the result. The model
/// file appears under its final name only when all of that went well.
///
/// # Errors
/// An unknown name, no network, no such repository, no access, a full disk, bytes that differ from what the hub
/// announced, or a checkpoint that is no DINOv2.
pub fn pull(
    config: &HubConfig,
    request: &PullRequest,
    progress: &mut dyn FnMut(PullProgress<'_>),
) -> Result<Pulled, HubError> {
    let repository = repository(&request.name)?;
    let revision = checked_revision(request.revision.as_deref().unwrap_or(DEFAULT_REVISION))?;
    let output = match &request.output {
        Some(path) => path.clone(),
        None => model_path(&config.models, &repository, revision, request.storage),
    };
    let fetcher = Fetcher::new(config, &repository, revision)?;
    let mut from_cache = true;
    let snapshot = download(&fetcher, &mut |transfer| {
        from_cache = false;
        let Transfer { file, done_bytes, total_bytes } = transfer;
        progress(PullProgress::Download { file, done_bytes, total_bytes });
    })?;
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| HubError::io("create", folder, error))?;
    check_room(folder, weight_bytes(&snapshot)? / stored_share(request.storage))?;
    let options = ConvertOptions {
        source: Some(format!("{}/{repository} at revision {revision}", config.endpoint)),
        licence: known(&repository).map(|model| model.licence.to_owned()),
        ..ConvertOptions::new(request.storage)
    };
    convert(&snapshot, &output, &options, &mut |step| progress(PullProgress::Convert(step)))?;
    let spec = Model::open(&output)?.spec().clone();
    let bytes = fs::metadata(&output).map_err(|error| HubError::io("stat", &output, error))?.len();
    Ok(Pulled { path: output, repository, spec, bytes, from_cache })
}

/// Brings `config.json` and the weights into the cache: the folder that holds both.
fn download(fetcher: &Fetcher<'_>, progress: &mut dyn FnMut(Transfer<'_>)) -> Result<PathBuf, HubError> {
    // The small file first: a wrong name fails before gigabytes move.
    fetcher.file(CONFIG, progress)?;
    match fetcher.file(WEIGHTS, progress) {
        Ok(_) => {}
        Err(missing @ HubError::NotFound { .. }) => {
            let index = match fetcher.file(INDEX, progress) {
                Ok(index) => index,
                Err(HubError::NotFound { .. }) => return Err(missing),
                Err(error) => return Err(error),
            };
            for shard in shards(&index)? {
                fetcher.file(&shard, progress)?;
            }
        }
        Err(error) => return Err(error),
    }
    // A branch that moved in between has a folder of its own, which needs its own config.
    let config = fetcher.file(CONFIG, progress)?;
    Ok(config.parent().unwrap_or(Path::new(".")).to_owned())
}

/// The files that an index names, each once.
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

/// How many times smaller than a f32 checkpoint a model file is, at least.
fn stored_share(storage: Storage) -> u64 {
    match storage {
        Storage::F32 => 1,
        Storage::F16 | Storage::Bf16 => 2,
        Storage::Int8 => 4,
        Storage::Int4 => 7,
    }
}

/// Bytes of the checkpoint's weights.
fn weight_bytes(snapshot: &Path) -> Result<u64, HubError> {
    let list = |error| HubError::io("list", snapshot, error);
    let mut total = 0;
    for entry in fs::read_dir(snapshot).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            // The links lead to the blobs.
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
