//! What reads dense features. One head so far: principal components of the patch features ([`Pca`]) and the colours
//! made from them ([`PcaView`]).
//!
//! Features come in as plain slices `[n, dim]`; no engine, file or picture format is known here.

mod pca;
mod pca_view;

pub use pca::{MAX_FIT_PATCHES, Pca, PcaError};
pub use pca_view::PcaView;
