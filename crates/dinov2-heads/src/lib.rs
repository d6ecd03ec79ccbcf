//! What reads dense features: principal components of the patch features ([`Pca`]) and the colours made from them
//! ([`PcaView`]); a linear classifier of patches ([`LinearProbe`]) and its score against label maps ([`LabelMap`],
//! [`Confusion`]); how similar every patch is to one ([`similarity_map`]).
//!
//! Features come in as plain slices `[n, dim]`; no engine, file or picture format is known here.

mod lbfgs;
mod linear_probe;
mod pca;
mod pca_view;
mod segmentation;
mod similarity;

pub use linear_probe::{LinearProbe, ProbeConfig, ProbeError, ProbeFit};
pub use pca::{MAX_FIT_PATCHES, Pca, PcaError};
pub use pca_view::PcaView;
pub use segmentation::{Confusion, LabelError, LabelMap};
pub use similarity::{SimilarityError, similarity_map};
