//! What reads dense features: principal components of the patch features ([`Pca`]) and the colours made from them
//! ([`PcaView`]); a linear classifier of patches ([`LinearProbe`]) and its score against label maps ([`LabelMap`],
//! [`Confusion`]); a linear regression of patches ([`RidgeProbe`]); labels carried through a video ([`LabelPropagation`]); how
//! similar every patch is to one ([`similarity_map`]); maps of patches interpolated to pixels ([`upsample()`]).
//!
//! Features come in as plain slices `[n, dim]`; no engine, file or picture format is known here.

mod label_propagation;
mod lbfgs;
mod linear_probe;
mod pca;
mod pca_view;
mod ridge;
mod segmentation;
mod similarity;
mod upsample;

pub use label_propagation::{LabelPropagation, PropagationConfig, PropagationError};
pub use linear_probe::{LinearProbe, ProbeConfig, ProbeError, ProbeFit};
pub use pca::{MAX_FIT_PATCHES, Pca, PcaError};
pub use pca_view::PcaView;
pub use ridge::{RidgeError, RidgeProbe, RidgeSums};
pub use segmentation::{Confusion, LabelError, LabelMap};
pub use similarity::{SimilarityError, similarity_map};
pub use upsample::{UpsampleError, upsample};
