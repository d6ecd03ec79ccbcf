//! Pruning: which blocks, heads, MLP units and channels of a model matter is measured on images, not derived from
//! their positions.
//!
//! Blocks are removed one by one, each time the one whose removal changes the tokens least. In the rest, heads and units are kept
//! by the energy that they add to the residual stream, channels by the energy of the matrices that read them. The patch embedding
//! is resized for another patch size.

mod blocks;
mod error;
mod importance;
mod patches;
mod slice;

use dinov2_core::VitSpec;
use dinov2_cpu::CpuConfig;
use dinov2_weights::Model;

use crate::data::Pixels;
use crate::vit::Parameters;

pub use error::PruneError;
pub use slice::Kept;

/// Name of the patch embedding.
const PATCH_EMBEDDING: &str = "patch_embed.proj.weight";

/// Prunes a model to `spec`, measured on `images`. Registers beyond the model's are missing in the result.
///
/// # Errors
/// A shape larger than the model's, images of a wrong size.
pub fn prune(
    model: &Model,
    spec: &VitSpec,
    images: &Pixels,
    progress: &mut dyn FnMut(String),
) -> Result<(Parameters, Kept), PruneError> {
    check(model.spec(), spec)?;
    let blocks = blocks::choose(model, spec.depth, images, progress)?;
    let source = model.spec();
    let same_width =
        source.dim == spec.dim && source.heads == spec.heads && source.mlp_hidden == spec.mlp_hidden;
    let mut kept = if same_width {
        Kept::whole(source, blocks)
    } else {
        progress("energies of heads, units and channels".into());
        importance::choose(model, spec, blocks, images, CpuConfig::default())?
    };
    kept.spec.patch_size = spec.patch_size;
    let mut parameters = slice::slice(model, &kept)?;
    if spec.patch_size != source.patch_size {
        let resized = patches::resize(parameters.get(PATCH_EMBEDDING)?, spec.patch_size)?;
        parameters.set(PATCH_EMBEDDING, resized);
    }
    Ok((parameters, kept))
}

/// Sizes may not exceed the model's, and heads keep their width.
fn check(source: &VitSpec, spec: &VitSpec) -> Result<(), PruneError> {
    let sizes = [
        ("depth", spec.depth, source.depth),
        ("dim", spec.dim, source.dim),
        ("heads", spec.heads, source.heads),
        ("mlp_hidden", spec.mlp_hidden, source.mlp_hidden),
    ];
    if let Some((key, got, most)) = sizes.into_iter().find(|(_, got, most)| got > most) {
        return Err(PruneError::Shape(format!("{key}: expected at most the model's {most}, got {got}")));
    }
    let (got, want) = (spec.head_dim(), source.head_dim());
    if got != want {
        return Err(PruneError::Shape(format!("dim / heads: expected the model's {want}, got {got}")));
    }
    Ok(())
}
