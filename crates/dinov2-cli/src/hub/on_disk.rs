//! Model files in the model folder: listing, and lookup by name.

use std::fs;
use std::path::{Path, PathBuf};

use dinov2_core::VitSpec;
use dinov2_weights::{Model, ModelError, Storage};

use super::HubError;
use super::known::known;

/// Maximum number of entries of the model folder that are read.
const MAX_ENTRIES: usize = 4096;

/// A file in the model folder.
#[derive(Debug)]
pub(crate) struct LocalModel {
    /// File name without `.safetensors`, as `--model` takes it.
    pub(crate) name: String,
    /// The file.
    pub(crate) path: PathBuf,
    /// Its size.
    pub(crate) bytes: u64,
    /// Shape and storage, or the error of opening it.
    pub(crate) model: Result<(VitSpec, Storage), ModelError>,
}

/// Every `.safetensors` file in the model folder, by name. A folder that does not exist holds none.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn local_models(folder: &Path) -> Result<Vec<LocalModel>, HubError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(HubError::io("list", folder, error)),
    };
    let mut models = Vec::new();
    for entry in entries.take(MAX_ENTRIES) {
        let path = entry.map_err(|error| HubError::io("list", folder, error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".safetensors")) else {
            continue;
        };
        // Names that begin with a dot are downloads or conversions in progress.
        if name.starts_with('.') || !path.is_file() {
            continue;
        }
        let bytes = fs::metadata(&path).map_err(|error| HubError::io("stat", &path, error))?.len();
        let model = Model::open(&path).map(|model| (model.spec().clone(), model.metadata().storage));
        models.push(LocalModel { name: name.to_owned(), path, bytes, model });
    }
    models.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(models)
}

/// The file that `pull` writes for a repository: `dinov2-small.safetensors`, `dinov2-small-int8.safetensors`,
/// `OWNER--NAME.safetensors`; of a revision other than `main`, `dinov2-small@REVISION.safetensors`.
pub(crate) fn model_path(folder: &Path, repository: &str, revision: &str, storage: Storage) -> PathBuf {
    let mut name = match known(repository) {
        Some(model) => model.name.to_owned(),
        None => repository.replace('/', "--"),
    };
    if revision != super::config::DEFAULT_REVISION {
        name.push('@');
        name.push_str(&revision.replace('/', "--"));
    }
    name.push_str(match storage {
        Storage::F32 => "",
        Storage::F16 => "-f16",
        Storage::Bf16 => "-bf16",
        Storage::Int8 => "-int8",
        Storage::Int4 => "-int4",
    });
    folder.join(name + ".safetensors")
}

/// The file in the model folder for `name`: a file name without extension, or any name of a known model. Of several storages, the
/// widest is used.
pub(crate) fn find_local(folder: &Path, name: &str) -> Option<PathBuf> {
    // Only names are accepted, so that no file outside the folder is opened.
    let is_file_name = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
    let exact = is_file_name.then(|| folder.join(format!("{name}.safetensors")));
    let repository = super::repository(name).ok();
    let stored = repository.into_iter().flat_map(|repository| {
        [Storage::F32, Storage::Bf16, Storage::F16, Storage::Int8, Storage::Int4]
            .map(|storage| model_path(folder, &repository, super::config::DEFAULT_REVISION, storage))
    });
    exact.into_iter().chain(stored).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_their_model() {
        let name = |repository: &str, revision: &str, storage| {
            model_path(Path::new("m"), repository, revision, storage).display().to_string()
        };
        assert_eq!(name("facebook/dinov2-small", "main", Storage::F32), "m/dinov2-small.safetensors");
        assert_eq!(name("facebook/dinov2-base", "main", Storage::Int8), "m/dinov2-base-int8.safetensors");
        assert_eq!(name("ada/vit", "refs/pr/1", Storage::F16), "m/ada--vit@refs--pr--1-f16.safetensors");
    }

    #[test]
    fn what_is_on_disk_is_found_by_any_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["dinov2-small-int8.safetensors", "mine.safetensors", ".part.safetensors", "notes.txt"] {
            fs::write(folder.path().join(name), "no model").unwrap();
        }
        let small = folder.path().join("dinov2-small-int8.safetensors");
        for name in ["small", "dinov2-small", "facebook/dinov2-small", "dinov2-small-int8"] {
            assert_eq!(find_local(folder.path(), name), Some(small.clone()), "{name}");
        }
        assert_eq!(find_local(folder.path(), "mine"), Some(folder.path().join("mine.safetensors")));
        for name in ["", "base", "../mine", ".part", "nobody/nothing"] {
            assert_eq!(find_local(folder.path(), name), None, "{name}");
        }
        let listed = local_models(folder.path()).unwrap();
        let names: Vec<_> = listed.iter().map(|model| (model.name.as_str(), model.model.is_err())).collect();
        assert_eq!(names, [("dinov2-small-int8", true), ("mine", true)]);
        assert!(local_models(&folder.path().join("absent")).unwrap().is_empty());
    }
}
