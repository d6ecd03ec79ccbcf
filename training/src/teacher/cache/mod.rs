//! A teacher's features of all views of a run, computed once and stored on disk.
//!
//! Views are functions of the recipe's seed and the step, so a run with a cache sees the same pixels as the teacher did. A
//! folder holds `cache.json`, `held-out.safetensors` and shards of some steps each; a shard holds per step CLS, patches and taps
//! as 16-bit floats, or patches and taps in 8 bits with a scale per token, as at most 384 principal components.

mod compress;
mod format;
mod read;
mod write;

pub use compress::Compression;
pub use format::{CacheError, CacheManifest};
pub use read::CachedTeacher;
pub use write::{CacheConfig, CacheProgress, write_cache};
