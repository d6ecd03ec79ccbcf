//! Taps: intermediate results that an engine returns besides the final tokens, and their names.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::VitSpec;

/// One of the three projections of a block's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Facet {
    /// Before the scaling by `head_dim^-1/2`.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
}

/// An intermediate result that an engine can return besides the final tokens. Layers count from 0; layer `i` is the output of block `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tap {
    /// Tokens after block `layer`: `[n, dim]`; with `norm`, the model's final LayerNorm is applied to them.
    Layer {
        /// Block index, from 0.
        layer: usize,
        /// Whether the final LayerNorm is applied.
        norm: bool,
    },
    /// A facet of block `layer`: `[n, dim]`, heads side by side, bias included.
    Facet {
        /// Block index, from 0.
        layer: usize,
        /// The projection.
        facet: Facet,
    },
    /// Attention of the CLS token in the last block, after softmax: `[heads, n]`.
    ClsAttention,
}

/// The taps of a request. The final normed tokens are always returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taps {
    taps: Vec<Tap>,
}

/// A tap that cannot be parsed or does not exist in the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// Not in the language of [`Tap::from_str`].
    #[error(
        "tap {0:?}: expected LAYER, LAYER:norm, LAYER:query, LAYER:key, LAYER:value or cls-attention (layers from 0, or -1 for the last)"
    )]
    Syntax(String),
    /// The layer is beyond the depth of the model.
    #[error("tap layer: expected less than {depth}, got {layer}")]
    Layer {
        /// The requested layer.
        layer: usize,
        /// Number of blocks of the model.
        depth: usize,
    },
}

impl Taps {
    /// No taps: only the final tokens.
    pub fn none() -> Self {
        Self::default()
    }

    /// These taps. Repeated taps are kept once, in the order of their first appearance.
    pub fn new(wanted: impl IntoIterator<Item = Tap>) -> Self {
        let mut taps = Vec::new();
        for tap in wanted {
            if !taps.contains(&tap) {
                taps.push(tap);
            }
        }
        Self { taps }
    }

    /// Parses a comma-separated list such as `3,-1:norm,10:value,cls-attention` for a model of `depth` blocks.
    /// Negative layers count from the end.
    ///
    /// # Errors
    /// An unknown word, or a layer that the model does not have.
    pub fn parse(list: &str, depth: usize) -> Result<Self, TapError> {
        let parse_one = |word: &str| -> Result<Tap, TapError> {
            let syntax = || TapError::Syntax(word.to_string());
            let Some(from_end) = word.strip_prefix('-') else { return word.parse() };
            let (back, suffix) = from_end.split_at(from_end.find(':').unwrap_or(from_end.len()));
            let back: usize = back.parse().map_err(|_| syntax())?;
            let layer = depth.checked_sub(back).filter(|&layer| layer < depth).ok_or_else(syntax)?;
            alloc::format!("{layer}{suffix}").parse()
        };
        let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
        let taps = Self::new(words.map(parse_one).collect::<Result<Vec<_>, _>>()?);
        taps.check_depth(depth)?;
        Ok(taps)
    }

    /// The taps, in order.
    pub fn iter(&self) -> impl Iterator<Item = Tap> + '_ {
        self.taps.iter().copied()
    }

    /// The taps, in order.
    pub fn as_slice(&self) -> &[Tap] {
        &self.taps
    }

    /// Checks every layer against the model.
    ///
    /// # Errors
    /// The first layer that the model does not have.
    pub fn check(&self, spec: &VitSpec) -> Result<(), TapError> {
        self.check_depth(spec.depth)
    }

    fn check_depth(&self, depth: usize) -> Result<(), TapError> {
        for tap in &self.taps {
            match *tap {
                Tap::Layer { layer, .. } | Tap::Facet { layer, .. } if layer >= depth => {
                    return Err(TapError::Layer { layer, depth });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Tap {
    /// Number of values of this tap for `n` tokens.
    pub fn len(self, spec: &VitSpec, tokens: usize) -> usize {
        match self {
            Tap::Layer { .. } | Tap::Facet { .. } => tokens * spec.dim,
            Tap::ClsAttention => tokens * spec.heads,
        }
    }
}

impl FromStr for Tap {
    type Err = TapError;

    fn from_str(word: &str) -> Result<Self, TapError> {
        let syntax = || TapError::Syntax(word.to_string());
        if word == "cls-attention" {
            return Ok(Tap::ClsAttention);
        }
        let (number, suffix) = match word.split_once(':') {
            Some((number, suffix)) => (number, Some(suffix)),
            None => (word, None),
        };
        let layer: usize = number.parse().map_err(|_| syntax())?;
        match suffix {
            None => Ok(Tap::Layer { layer, norm: false }),
            Some("norm") => Ok(Tap::Layer { layer, norm: true }),
            Some("query") => Ok(Tap::Facet { layer, facet: Facet::Query }),
            Some("key") => Ok(Tap::Facet { layer, facet: Facet::Key }),
            Some("value") => Ok(Tap::Facet { layer, facet: Facet::Value }),
            Some(_) => Err(syntax()),
        }
    }
}

impl fmt::Display for Tap {
    /// The name under which a tap is stored in feature files: `layer3`, `layer3_norm`, `layer3_key`, `cls_attention`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Tap::Layer { layer, norm: false } => write!(f, "layer{layer}"),
            Tap::Layer { layer, norm: true } => write!(f, "layer{layer}_norm"),
            Tap::Facet { layer, facet } => {
                let facet = match facet {
                    Facet::Query => "query",
                    Facet::Key => "key",
                    Facet::Value => "value",
                };
                write!(f, "layer{layer}_{facet}")
            }
            Tap::ClsAttention => f.write_str("cls_attention"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_parsed_checked_and_deduplicated() {
        let taps = Taps::parse("3, -1:norm,11:norm,10:value,cls-attention", 12).unwrap();
        let names: Vec<String> = taps.iter().map(|tap| tap.to_string()).collect();
        assert_eq!(names, ["layer3", "layer11_norm", "layer10_value", "cls_attention"]);
        assert_eq!(Taps::parse("12", 12), Err(TapError::Layer { layer: 12, depth: 12 }));
        for wrong in ["x", "1:", "1:q", "-0", "-13", "--1", "1:norm:norm", "18446744073709551616"] {
            assert!(matches!(Taps::parse(wrong, 12), Err(TapError::Syntax(_))), "{wrong}");
        }
    }
}
