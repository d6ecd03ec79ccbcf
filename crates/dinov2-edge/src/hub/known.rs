use super::HubError;

/// A published DINOv2 checkpoint on the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownModel {
    /// Short name, as in `pull dinov2-small`.
    pub name: &'static str,
    /// Repository on the hub.
    pub repository: &'static str,
    /// Licence of the weights (SPDX).
    pub licence: &'static str,
    /// Parameters, as PyTorch counts them (mask token included).
    pub parameters: u64,
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Register tokens.
    pub registers: usize,
}

impl KnownModel {
    /// Bytes of the f32 weights to download; the file adds a header of some kilobytes.
    pub const fn download_bytes(&self) -> u64 {
        4 * self.parameters
    }
}

/// The released models. Shapes and licence: the DINOv2 model card; parameters: counted by transformers.
pub const KNOWN: &[KnownModel] = &[
    plain("dinov2-small", "facebook/dinov2-small", 22_056_576, 384, 12),
    plain("dinov2-base", "facebook/dinov2-base", 86_580_480, 768, 12),
    plain("dinov2-large", "facebook/dinov2-large", 304_368_640, 1024, 24),
    plain("dinov2-giant", "facebook/dinov2-giant", 1_136_480_768, 1536, 40),
    with_registers(
        "dinov2-with-registers-small",
        "facebook/dinov2-with-registers-small",
        22_058_112,
        384,
        12,
    ),
    with_registers("dinov2-with-registers-base", "facebook/dinov2-with-registers-base", 86_583_552, 768, 12),
    with_registers(
        "dinov2-with-registers-large",
        "facebook/dinov2-with-registers-large",
        304_372_736,
        1024,
        24,
    ),
    with_registers(
        "dinov2-with-registers-giant",
        "facebook/dinov2-with-registers-giant",
        1_136_486_912,
        1536,
        40,
    ),
];

const fn plain(
    name: &'static str,
    repository: &'static str,
    parameters: u64,
    dim: usize,
    depth: usize,
) -> KnownModel {
    KnownModel { name, repository, licence: "Apache-2.0", parameters, dim, depth, registers: 0 }
}

const fn with_registers(
    name: &'static str,
    repository: &'static str,
    parameters: u64,
    dim: usize,
    depth: usize,
) -> KnownModel {
    KnownModel { registers: 4, ..plain(name, repository, parameters, dim, depth) }
}

/// The known model that `name` means: `small`, `dinov2-small`, `facebook/dinov2-small`, `small-reg`,
/// `dinov2-with-registers-small`.
pub(super) fn known(name: &str) -> Option<&'static KnownModel> {
    let short = |model: &KnownModel| match model.name.strip_prefix("dinov2-with-registers-") {
        Some(size) => format!("{size}-reg"),
        None => model.name.trim_start_matches("dinov2-").to_owned(),
    };
    KNOWN.iter().find(|model| name == model.name || name == model.repository || name == short(model))
}

/// The repository that `name` means: a known model's, or `name` itself if it has the form `OWNER/NAME`.
///
/// # Errors
/// Neither.
pub fn repository(name: &str) -> Result<String, HubError> {
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
