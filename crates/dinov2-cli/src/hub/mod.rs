//! Official weights: the known models, what is on disk, and `pull` from the Hugging Face hub.
//!
//! Way of the data: name → repository and commit → `config.json`, `preprocessor_config.json` and `.safetensors` in the
//! hub's own cache (shared with other tools) → checked against the hub's sha256 and ours → converted into the model
//! folder → opened once.
//!
//! The cargo feature `hub` adds the network; without it the lists still work. Datasets, spaces and uploads are not
//! its business, nor are checkpoints in any other format than safetensors.

#[cfg(all(test, feature = "hub"))]
mod attack_tests;
#[cfg(feature = "hub")]
mod cache;
#[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "what only `pull` needs"))]
mod config;
#[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "what only `pull` needs"))]
mod error;
#[cfg(feature = "hub")]
mod fetch;
#[cfg(feature = "hub")]
mod http;
mod known;
mod on_disk;
#[cfg(feature = "hub")]
mod pull;
#[cfg(all(test, feature = "hub"))]
mod test_server;
#[cfg(all(test, feature = "hub"))]
mod tests;

pub(crate) use config::HubConfig;
pub(crate) use error::HubError;
pub(crate) use known::{KNOWN, KnownModel, repository};
pub(crate) use on_disk::{LocalModel, find_local, local_models};
#[cfg(feature = "hub")]
pub(crate) use pull::{PullProgress, PullRequest, pull};
