//! What reads dense features.
//!
//! ```
//! use dinov2_heads::{Pca, PcaView, similarity_map};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Patches of an engine, [rows, cols, dim]; here 2 x 3 patches of 4 values that differ in two directions.
//! let patches: Vec<f32> = (0..6).flat_map(|patch| [1.0, (patch / 3) as f32, (patch % 3) as f32, 0.5]).collect();
//!
//! let pca = Pca::fit(&patches, 4, 2)?;
//! assert!(pca.variances()[0] >= pca.variances()[1]);
//!
//! let mut rgb = Vec::new(); // [rows, cols, 3]
//! PcaView::fit(&patches, 4)?.rgb_into(&patches, &mut rgb)?;
//! assert_eq!(rgb.len(), 2 * 3 * 3);
//!
//! let mut cosines = Vec::new(); // [rows, cols]
//! similarity_map(&patches, &patches[..4], &mut cosines)?;
//! assert!(cosines[0] > 0.999 && cosines[5] < cosines[0]);
//! # Ok(())
//! # }
//! ```
//!
//! Principal components of the patch features ([`Pca`]) and the colours made from them
//! ([`PcaView`]); a linear classifier of patches ([`LinearProbe`]) and its score against label maps ([`LabelMap`],
//! [`Confusion`]); a linear regression of patches ([`RidgeProbe`]); labels carried through a video ([`LabelPropagation`]); how
//! similar every patch is to one ([`similarity_map`]); maps of patches interpolated to pixels ([`upsample()`]).
//!
//! A [`Head`] turns the features of a frame into named outputs; [`HEADS`] lists them. What they are built of takes plain slices
//! `[n, dim]`. No engine, file or picture format is known here.

mod head;
mod label_propagation;
mod lbfgs;
mod linear_probe;
mod norm;
mod pca;
mod pca_head;
mod pca_view;
mod registry;
mod ridge;
mod segmentation;
mod similarity;
mod upsample;

pub use head::{Head, HeadError, HeadInput, HeadKind, OpenHead, config_of};
pub use label_propagation::{LabelPropagation, PropagationConfig, PropagationError};
pub use linear_probe::{LinearProbe, ProbeConfig, ProbeError, ProbeFit};
pub use pca::{MAX_FIT_PATCHES, Pca, PcaError};
pub use pca_head::{PcaCommand, PcaFit};
pub use pca_view::PcaView;
pub use registry::{HEADS, HeadChoice};
pub use ridge::{RidgeError, RidgeProbe, RidgeSums};
pub use segmentation::{Confusion, LabelError, LabelMap};
pub use similarity::{Point, SimilarityError, similarity_map};
pub use upsample::{UpsampleError, upsample};
