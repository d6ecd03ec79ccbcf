//! Gradient checkpointing: blocks are computed again in the backward pass.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

use super::{Images, Request, Tokens, Variables, Vit, by_image};
use crate::ops::AttentionShape;

/// A forward pass that keeps only the blocks' inputs. The backward pass computes each block again before it goes through it:
/// a third more arithmetic for memory that hardly grows with depth (Chen et al. 2016, arXiv 1604.06174).
#[derive(Debug)]
pub struct Recomputation<'a> {
    vit: &'a Vit,
    embedded: Tensor,
    /// Variables for the input of every block and the output of the last, `[batch * n, dim]`.
    hidden: Vec<Var>,
    shape: AttentionShape,
}

impl<'a> Recomputation<'a> {
    /// The tokens, whose graph reaches back to the last block only, and the state for [`Self::backward`].
    ///
    /// # Errors
    /// Those of candle.
    pub fn forward(vit: &'a Vit, images: &Images, request: Request<'_>) -> Result<(Tokens, Self)> {
        let shape = vit.attention_shape(images);
        let embedded = vit.embed(images, request.mask)?;
        let untracked = vit.with_parameters(vit.parameters().detached());
        let mut hidden = vec![Var::from_tensor(&embedded.detach())?];
        let mut taps = Vec::new();
        for index in 0..vit.spec().depth {
            let output = untracked.block(index, &hidden[index].as_detached_tensor(), shape)?;
            hidden.push(Var::from_tensor(&output)?);
            if request.taps.contains(&index) {
                taps.push(by_image(hidden[index + 1].as_tensor(), shape)?);
            }
        }
        let tokens = vit.tokens(hidden[vit.spec().depth].as_tensor(), taps, images)?;
        Ok((tokens, Self { vit, embedded, hidden, shape }))
    }

    /// Propagates the gradients of a loss of these tokens through the blocks to the variables of the model's parameters.
    ///
    /// # Errors
    /// Those of candle.
    pub fn backward(self, grads: &mut GradStore, variables: &Variables) -> Result<()> {
        for index in (0..self.vit.spec().depth).rev() {
            let Some(grad) = grads.remove(&self.hidden[index + 1]) else { continue };
            let output = self.vit.block(index, self.hidden[index].as_tensor(), self.shape)?;
            let part = (output * grad.detach())?.sum_all()?.backward()?;
            add(grads, &part, variables.iter().map(|(_, variable)| variable).chain([&self.hidden[index]]))?;
        }
        if let Some(grad) = grads.remove(&self.hidden[0]) {
            let part = (&self.embedded * grad.detach())?.sum_all()?.backward()?;
            add(grads, &part, variables.iter().map(|(_, variable)| variable))?;
        }
        Ok(())
    }
}

/// Adds the gradients of a part to the total. Detached, because gradients of candle's own operations have a
/// graph, which would keep the activations of all blocks.
fn add<'a>(grads: &mut GradStore, part: &GradStore, variables: impl Iterator<Item = &'a Var>) -> Result<()> {
    for variable in variables {
        let Some(grad) = part.get(variable) else { continue };
        let sum = match grads.get(variable) {
            Some(before) => (before + grad)?,
            None => grad.clone(),
        };
        grads.insert(variable, sum.detach());
    }
    Ok(())
}
