//! The known models: names, repositories, pinned commits and hashes.

use super::HubError;

/// A published DINOv2 checkpoint on the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownModel {
    /// Short name, as in `pull dinov2-small`.
    pub(crate) name: &'static str,
    /// Repository on the hub.
    pub(crate) repository: &'static str,
    /// Licence of the weights (SPDX).
    pub(crate) licence: &'static str,
    /// Parameters, as PyTorch counts them (mask token included).
    pub(crate) parameters: u64,
    /// Width of a token.
    pub(crate) dim: usize,
    /// Number of blocks.
    pub(crate) depth: usize,
    /// Register tokens.
    pub(crate) registers: usize,
    /// The commit that is pulled unless another revision is requested.
    pub(crate) commit: &'static str,
    /// SHA-256 of `model.safetensors` at that commit, if known.
    pub sha256: Option<&'static str>,
}

impl KnownModel {
    /// Bytes of the f32 weights to download; the file adds a header of some kilobytes.
    pub(crate) const fn download_bytes(&self) -> u64 {
        4 * self.parameters
    }
}

/// The released models. Sources: shapes and licence, the DINOv2 model card; parameters, counted by transformers; commits and hashes,
/// pinned identically by several independent public projects.
pub(crate) const KNOWN: &[KnownModel] = &[
    KnownModel {
        commit: "ed25f3a31f01632728cabb09d1542f84ab7b0056",
        sha256: Some("ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1"),
        ..plain("dinov2-small", "facebook/dinov2-small", 22_056_576, 384, 12)
    },
    KnownModel {
        commit: "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
        sha256: Some("d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841"),
        ..plain("dinov2-base", "facebook/dinov2-base", 86_580_480, 768, 12)
    },
    KnownModel {
        commit: "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
        sha256: Some("399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23"),
        ..plain("dinov2-large", "facebook/dinov2-large", 304_368_640, 1024, 24)
    },
    KnownModel {
        commit: "611a9d42f2335e0f921f1e313ad3c1b7178d206d",
        sha256: Some("917d3c470db999d32a312f8542149be91c7cbac61ee8fb4b67ae3d82b79ce21f"),
        ..plain("dinov2-giant", "facebook/dinov2-giant", 1_136_480_768, 1536, 40)
    },
    KnownModel {
        commit: "0d9846e56b43a21fa46d7f3f5070f0506a5795a9",
        registers: 4,
        ..plain("dinov2-with-registers-small", "facebook/dinov2-with-registers-small", 22_058_112, 384, 12)
    },
    KnownModel {
        commit: "a1d738ccfa7ae170945f210395d99dde8adb1805",
        sha256: Some("7a6f7b3b9fa4b8732e707476a03cd6cdce210048582f21aafb7991c17d98e362"),
        registers: 4,
        ..plain("dinov2-with-registers-base", "facebook/dinov2-with-registers-base", 86_583_552, 768, 12)
    },
    KnownModel {
        commit: "e4c89a4e05589de9b3e188688a303d0f3c04d0f3",
        registers: 4,
        ..plain("dinov2-with-registers-large", "facebook/dinov2-with-registers-large", 304_372_736, 1024, 24)
    },
    KnownModel {
        commit: "8d0d49f77fb8b5dd78842496ff14afe7dd4d85cb",
        registers: 4,
        ..plain(
            "dinov2-with-registers-giant",
            "facebook/dinov2-with-registers-giant",
            1_136_486_912,
            1536,
            40,
        )
    },
];

const fn plain(
    name: &'static str,
    repository: &'static str,
    parameters: u64,
    dim: usize,
    depth: usize,
) -> KnownModel {
    let (commit, sha256) = ("", None);
    KnownModel {
        name,
        repository,
        licence: "Apache-2.0",
        parameters,
        dim,
        depth,
        registers: 0,
        commit,
        sha256,
    }
}

/// The known model called `name`: `small`, `dinov2-small`, `facebook/dinov2-small`, `small-reg`,
/// `dinov2-with-registers-small`.
pub(super) fn known(name: &str) -> Option<&'static KnownModel> {
    let short = |model: &KnownModel| match model.name.strip_prefix("dinov2-with-registers-") {
        Some(size) => format!("{size}-reg"),
        None => model.name.trim_start_matches("dinov2-").to_owned(),
    };
    KNOWN.iter().find(|model| name == model.name || name == model.repository || name == short(model))
}

/// The repository of the known model `name`, or `name` itself if it has the form `OWNER/NAME`.
///
/// # Errors
/// [`HubError::UnknownModel`].
pub(crate) fn repository(name: &str) -> Result<String, HubError> {
    if let Some(model) = known(name) {
        return Ok(model.repository.to_owned());
    }
    let is_part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && !part.contains("--")
            && !part.contains("..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match name.split_once('/') {
        Some((owner, repository)) if is_part(owner) && is_part(repository) => Ok(name.to_owned()),
        _ => Err(HubError::UnknownModel(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_repositories() {
        for (name, expected) in [
            ("small", "facebook/dinov2-small"),
            ("dinov2-giant", "facebook/dinov2-giant"),
            ("facebook/dinov2-base", "facebook/dinov2-base"),
            ("large-reg", "facebook/dinov2-with-registers-large"),
            ("dinov2-with-registers-small", "facebook/dinov2-with-registers-small"),
            ("someone/their.model_2", "someone/their.model_2"),
        ] {
            assert_eq!(repository(name).unwrap(), expected);
        }
        for wrong in
            ["", "tiny", "/", "a/", "/b", "a/b/c", "../x", "a/..", "a/b?c", "a b/c", "a/b--c", "-a/b"]
        {
            assert!(matches!(repository(wrong), Err(HubError::UnknownModel(_))), "{wrong}");
        }
    }
}
