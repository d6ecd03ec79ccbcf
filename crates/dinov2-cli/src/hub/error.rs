use std::io;

/// Why a model cannot be pulled or found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    /// Neither a known model nor the name of a repository.
    #[error(
        "model {0:?}: expected a known name (see `dinov2-edge models`), such as `small` or `base-reg`, or a repository OWNER/NAME"
    )]
    UnknownModel(String),
    /// The revision cannot be part of an address or of a path.
    #[error("revision {0:?}: expected a branch, tag or commit of letters, digits and `._-/`")]
    Revision(String),
    /// `HF_ENDPOINT` is not the address of a hub.
    #[error("HF_ENDPOINT: expected http://HOST or https://HOST, got {0:?}")]
    Endpoint(String),
    /// No place to keep models or downloads in.
    #[error("{what}: expected {variable} or HOME to be set")]
    NoFolder {
        /// Which folder.
        what: &'static str,
        /// The variable that would set it.
        variable: &'static str,
    },
    /// The hub has no such file, repository or revision.
    #[error(
        "{file}: not found (404) in {repository} at revision {revision} on {endpoint}; check the name and the revision"
    )]
    NotFound {
        /// File asked for.
        file: String,
        /// Repository asked for.
        repository: String,
        /// Revision asked for.
        revision: String,
        /// Hub asked.
        endpoint: String,
    },
    /// The hub wants a login or has not been asked for access.
    #[error(
        "{repository}: {endpoint} refused access ({status}); if the repository is private or gated, ask for access there and set HF_TOKEN{}", if *.had_token { " to a token that has it" } else { "" }
    )]
    Denied {
        /// Repository asked for.
        repository: String,
        /// Hub asked.
        endpoint: String,
        /// HTTP status, 401 or 403.
        status: u16,
        /// Whether a token was sent.
        had_token: bool,
    },
    /// No usable answer from the hub.
    #[error(
        "{endpoint} cannot be reached: {reason}; check the network (or HF_ENDPOINT) and pull again, a download resumes"
    )]
    Unreachable {
        /// Hub asked.
        endpoint: String,
        /// What the connection said.
        reason: String,
    },
    /// An answer that is not in the hub's protocol.
    #[error("{file}: {endpoint} does not answer as a hub does: {reason}")]
    Protocol {
        /// File asked for.
        file: String,
        /// Hub asked.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
    /// Offline, and the cache lacks something.
    #[error("HF_HUB_OFFLINE is set, and the cache does not hold all files of revision {revision}")]
    Offline {
        /// Revision asked for.
        revision: String,
    },
    /// A file is larger than any of its kind.
    #[error("{file}: expected at most {limit_bytes} bytes, the hub announces {announced_bytes}")]
    TooLarge {
        /// File asked for.
        file: String,
        /// Most bytes that such a file may have.
        limit_bytes: u64,
        /// Bytes announced.
        announced_bytes: u64,
    },
    /// The disk has too little room.
    #[error("{path}: expected {needed_bytes} free bytes, got {free_bytes}")]
    DiskFull {
        /// The folder.
        path: String,
        /// Bytes still to be written.
        needed_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
    /// The bytes are not what the hub announced, or not the known ones. Nothing of them stays in the cache.
    #[error("{file}: expected {expected}, got {got}; nothing of it was kept, pull again")]
    Corrupt {
        /// The file.
        file: String,
        /// Announced size or sha256.
        expected: String,
        /// Size or sha256 on disk.
        got: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Where.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The output would take the place of what must not be replaced.
    #[error(transparent)]
    Output(#[from] dinov2_files::FileError),
    /// The download is no DINOv2 checkpoint that we read.
    #[error(transparent)]
    Convert(#[from] dinov2_weights::ConvertError),
    /// The converted model cannot be opened.
    #[error(transparent)]
    Model(#[from] dinov2_weights::ModelError),
}

impl HubError {
    pub(super) fn io(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::Io { action, path: path.display().to_string(), source }
    }
}
