//! Configuration of the hub from environment variables: address, cache, token, model folder.

use std::path::{Path, PathBuf};

use super::HubError;

/// Address of the hub unless HF_ENDPOINT says otherwise.
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Default branch.
pub(super) const DEFAULT_REVISION: &str = "main";

/// Addresses and folders of the hub. Hugging Face's variables have the same meaning as in its own tools.
#[derive(Clone, Debug)]
pub(crate) struct HubConfig {
    /// Address of the hub, without a slash at the end.
    pub(crate) endpoint: String,
    /// The hub's cache: downloads stay here, shared with other tools.
    pub(crate) cache: PathBuf,
    /// Access token for private and gated repositories.
    pub(crate) token: Option<String>,
    /// Folder of converted models.
    pub(crate) models: PathBuf,
    /// No network access; only the cache is used.
    pub(crate) offline: bool,
}

impl HubConfig {
    /// Reads the process environment: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN`,
    /// `HUGGING_FACE_HUB_TOKEN`, `DINOV2_EDGE_MODELS`, `XDG_CACHE_HOME`, `XDG_DATA_HOME`, `HOME`; the token also from
    /// the file that `hf auth login` writes.
    ///
    /// # Errors
    /// No home folder and nothing that replaces it.
    pub(crate) fn from_env() -> Result<Self, HubError> {
        Self::from_lookup(&|name| std::env::var(name).ok())
    }

    /// [`Self::from_env`] with another environment. Empty variables count as unset.
    ///
    /// # Errors
    /// As [`Self::from_env`].
    pub(crate) fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let variable = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let folder = |name: &str| variable(name).map(|value| absolute(Path::new(&value)));
        let home = folder("HOME");
        let under_home = |below: &str| home.as_ref().map(|home| home.join(below));

        let hub_home = folder("HF_HOME").or_else(|| {
            let cache = folder("XDG_CACHE_HOME").or_else(|| under_home(".cache"))?;
            Some(cache.join("huggingface"))
        });
        let cache = folder("HF_HUB_CACHE").or_else(|| Some(hub_home.as_ref()?.join("hub")));
        let cache = cache.ok_or(HubError::NoFolder { what: "download cache", variable: "HF_HOME" })?;
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let token = variable("HF_TOKEN")
            .or_else(|| variable("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(hub_home?.join("token")).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        Ok(Self {
            endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
            cache,
            token,
            models: models_folder(lookup)?,
            offline: variable("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
        })
    }
}

/// The folder of converted models: `DINOV2_EDGE_MODELS`, or the user's data folder.
///
/// # Errors
/// No home folder and nothing that replaces it.
fn models_folder(lookup: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, HubError> {
    let folder = |name: &str| lookup(name).filter(|value| !value.trim().is_empty()).map(PathBuf::from);
    let data = || folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local/share")));
    folder("DINOV2_EDGE_MODELS")
        .or_else(|| Some(data()?.join("dinov2-edge/models")))
        .map(|path| absolute(&path))
        .ok_or(HubError::NoFolder { what: "model folder", variable: "DINOV2_EDGE_MODELS" })
}

/// The values that Hugging Face's tools accept as true.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|yes| value.trim().eq_ignore_ascii_case(yes))
}

/// Links in the hub's cache are relative to absolute paths. A path that cannot be made absolute stays as it is and
/// fails where it is used.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<HubConfig, HubError> {
        HubConfig::from_lookup(&|name| {
            variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults_lie_under_home() {
        let got = config(&[("HOME", "/home/ada"), ("HF_TOKEN", "")]).unwrap();
        assert_eq!(got.endpoint, DEFAULT_ENDPOINT);
        assert_eq!(got.cache, Path::new("/home/ada/.cache/huggingface/hub"));
        assert_eq!(got.models, Path::new("/home/ada/.local/share/dinov2-edge/models"));
        assert_eq!(got.token, None);
        assert!(matches!(config(&[]), Err(HubError::NoFolder { .. })));
    }

    #[test]
    fn variables_move_everything() {
        let got = config(&[
            ("HF_ENDPOINT", "http://127.0.0.1:8080/"),
            ("HF_HOME", "/data/hf"),
            ("HF_TOKEN", " secret\n"),
            ("XDG_DATA_HOME", "/data"),
        ])
        .unwrap();
        assert_eq!(got.endpoint, "http://127.0.0.1:8080");
        assert_eq!(got.cache, Path::new("/data/hf/hub"));
        assert_eq!(got.token.as_deref(), Some("secret"));
        assert_eq!(got.models, Path::new("/data/dinov2-edge/models"));
        let got = config(&[("HF_HUB_CACHE", "/c"), ("DINOV2_EDGE_MODELS", "/m"), ("HF_HOME", "/h")]).unwrap();
        assert_eq!((got.cache, got.models), ("/c".into(), "/m".into()));
    }

    #[test]
    fn token_file_of_the_login_is_read() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "from-file\n").unwrap();
        let path = home.path().to_str().unwrap();
        let got = config(&[("HF_HOME", path), ("DINOV2_EDGE_MODELS", "/m")]).unwrap();
        assert_eq!(got.token.as_deref(), Some("from-file"));
    }
}
