//! Errors of pulling and listing models.

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
        /// Name of the folder.
        what: &'static str,
        /// The variable that would set it.
        variable: &'static str,
    },
    /// The hub has no such file, repository or revision.
    #[error(
        "{file}: not found (404) in {repository} at revision {revision} on {endpoint}; check the name and the revision"
    )]
    NotFound {
        /// Requested file.
        file: String,
        /// Requested repository.
        repository: String,
        /// Requested revision.
        revision: String,
        /// Address of the hub.
        endpoint: String,
    },
    /// The hub requires a login or access to the repository.
    #[error(
        "{repository}: {endpoint} refused access ({status}); if the repository is private or gated, request access there and set HF_TOKEN{}", if *.had_token { " to a token with access" } else { "" }
    )]
    Denied {
        /// Requested repository.
        repository: String,
        /// Address of the hub.
        endpoint: String,
        /// HTTP status, 401 or 403.
        status: u16,
        /// True if a token was sent.
        had_token: bool,
    },
    /// No usable response from the hub.
    #[error(
        "{endpoint} cannot be reached: {reason}; check the network (or HF_ENDPOINT) and pull again; the download resumes"
    )]
    Unreachable {
        /// Address of the hub.
        endpoint: String,
        /// The error of the connection.
        reason: String,
    },
    /// A response that violates the hub's protocol.
    #[error("{file}: unexpected response from {endpoint}: {reason}")]
    Protocol {
        /// Requested file.
        file: String,
        /// Address of the hub.
        endpoint: String,
        /// The problem.
        reason: String,
    },
    /// Offline, and the cache is incomplete.
    #[error("HF_HUB_OFFLINE is set, and the cache does not hold all files of revision {revision}")]
    Offline {
        /// Requested revision.
        revision: String,
    },
    /// A file exceeds the size limit of its kind.
    #[error("{file}: expected at most {limit_bytes} bytes, the hub announces {announced_bytes}")]
    TooLarge {
        /// Requested file.
        file: String,
        /// Maximum size of such a file.
        limit_bytes: u64,
        /// Bytes announced.
        announced_bytes: u64,
    },
    /// Too little space on the disk.
    #[error("{path}: expected {needed_bytes} free bytes, got {free_bytes}")]
    DiskFull {
        /// The folder.
        path: String,
        /// Bytes still to be written.
        needed_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
    /// The file differs from what the hub announced or from the known hash. It is removed from the cache.
    #[error("{file}: expected {expected}, got {got}; the file was discarded, pull again")]
    Corrupt {
        /// The file.
        file: String,
        /// Announced size or sha256.
        expected: String,
        /// Size or sha256 on disk.
        got: String,
    },
    /// An error of the operating system.
    #[error("cannot {action} {path}")]
    Io {
        /// The failed action.
        action: &'static str,
        /// The path.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The output would replace a protected file.
    #[error(transparent)]
    Output(#[from] dinov2_files::FileError),
    /// The download is not a supported DINOv2 checkpoint.
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
