//! Copies of intermediate results that taps ask for.

use dinov2_core::{Facet, Features, Tap, Taps};
use dinov2_kernels::attention::cls_attention;
use dinov2_kernels::layer_norm::layer_norm;

use crate::block::Cpu;
use crate::load::Norm;

/// Writes facets of block `layer` of one frame, and the attention of CLS if it is the last. `qkv: [n, 3 * dim]`.
pub(crate) fn write_attention_taps(cpu: Cpu<'_>, layer: usize, qkv: &[f32], taps: &Taps, out: &mut Features) {
    let dim = cpu.spec.dim;
    for tap in taps.iter() {
        let Some(values) = out.tap_mut(tap) else { continue };
        match tap {
            Tap::Facet { layer: wanted, facet } if wanted == layer => {
                let part = match facet {
                    Facet::Query => 0,
                    Facet::Key => 1,
                    Facet::Value => 2,
                };
                let tokens = qkv.chunks_exact(3 * dim).zip(values.chunks_exact_mut(dim));
                tokens.for_each(|(token, value)| value.copy_from_slice(&token[part * dim..][..dim]));
            }
            Tap::ClsAttention if layer + 1 == cpu.spec.depth => {
                cls_attention(cpu.attention_shape(qkv.len() / (3 * dim)), qkv, values);
            }
            _ => {}
        }
    }
}

/// Writes one frame's tokens after block `layer` where a tap asks for them. `tokens: [n, dim]`.
pub(crate) fn write_layer_taps(cpu: Cpu<'_>, norm: &Norm, layer: usize, tokens: &[f32], out: &mut Features) {
    if let Some(values) = out.tap_mut(Tap::Layer { layer, norm: false }) {
        values.copy_from_slice(tokens);
    }
    if let Some(values) = out.tap_mut(Tap::Layer { layer, norm: true }) {
        layer_norm(cpu.isa, cpu.pool, &norm.params(), tokens, values);
    }
}
