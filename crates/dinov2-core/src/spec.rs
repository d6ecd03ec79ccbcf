//! The shape of a DINOv2 vision transformer, and the limits of shapes that are read from files.

use alloc::string::String;
use core::fmt;

use crate::PatchGrid;

/// Limits of sizes that are read from files, far above any published model (ViT-g: dim 1536, depth 40).
///
/// ```
/// use dinov2_core::{PatchGrid, limits::MAX_PATCHES};
///
/// let grid = PatchGrid::of_image(3584, 2688, 14)?; // 9.6 megapixels
/// assert!(grid.len() <= MAX_PATCHES);
/// # Ok::<(), dinov2_core::GridError>(())
/// ```
pub mod limits {
    /// Largest `dim`.
    pub const MAX_DIM: usize = 16_384;
    /// Largest `depth`.
    pub const MAX_DEPTH: usize = 512;
    /// Largest `patch_size`.
    pub const MAX_PATCH_SIZE: usize = 256;
    /// Largest number of registers.
    pub const MAX_REGISTERS: usize = 1_024;
    /// Largest MLP width.
    pub const MAX_MLP_HIDDEN: usize = 65_536;
    /// Largest side of the stored position table.
    pub const MAX_TABLE_SIDE: usize = 4_096;
    /// Maximum number of patches in one frame: 2^20, an image of about 14,300 x 14,300 pixels at patch size 14.
    pub const MAX_PATCHES: usize = 1 << 20;
}

/// The MLP of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum MlpKind {
    /// `fc2(gelu(fc1(x)))` with the exact (erf) GELU.
    Gelu,
    /// `w3(silu(a) * b)` where `[a, b] = w12(x)`.
    #[cfg_attr(feature = "serde", serde(rename = "swiglu"))]
    SwiGlu,
}

/// How the stored position table is resampled to another grid. The sources of checkpoints resample differently, and features are exact
/// only with the convention of the checkpoint's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum PositionConvention {
    /// Official code without registers: bicubic (a = -0.75), scale factor `(side + 0.1) / table_side`.
    OfficialScaleFactor,
    /// Hugging Face without registers: bicubic (a = -0.75) to the exact size, no antialias.
    ExactSize,
    /// Models with registers (official, Hugging Face) and timm: antialiased bicubic (a = -0.5) to the exact size.
    ExactSizeAntialias,
}

/// The shape of a DINOv2 vision transformer. It determines all tensor shapes.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct VitSpec {
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Number of attention heads; `dim` is a multiple of it.
    pub heads: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Number of register tokens between CLS and the patches.
    pub registers: usize,
    /// Kind of MLP.
    pub mlp: MlpKind,
    /// Hidden width of the MLP: rows of `fc1` (GELU), or half the rows of `w12` (SwiGLU).
    pub mlp_hidden: usize,
    /// Whether blocks scale their two branches by `ls1.gamma` and `ls2.gamma`.
    pub layer_scale: bool,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f32,
    /// Grid of the stored position table.
    pub position_table: PatchGrid,
    /// How that table is resampled.
    pub position_convention: PositionConvention,
}

/// An invalid [`VitSpec`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("model shape: {0}")]
pub struct SpecError(pub String);

impl VitSpec {
    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Number of tokens before the patches: CLS and registers.
    pub fn prefix_tokens(&self) -> usize {
        1 + self.registers
    }

    /// Number of tokens of a frame with this grid.
    pub fn tokens(&self, grid: PatchGrid) -> usize {
        self.prefix_tokens() + grid.len()
    }

    /// Number of parameters of the backbone, without the mask token.
    pub fn parameters(&self) -> usize {
        let (dim, hidden) = (self.dim, self.mlp_hidden);
        let mlp_in = match self.mlp {
            MlpKind::Gelu => hidden,
            MlpKind::SwiGlu => 2 * hidden,
        };
        let attention = dim * 3 * dim + 3 * dim + dim * dim + dim;
        let mlp = dim * mlp_in + mlp_in + hidden * dim + dim;
        let block = attention + mlp + 4 * dim + if self.layer_scale { 2 * dim } else { 0 };
        let patch_embed = 3 * self.patch_size * self.patch_size * dim + dim;
        let tables = (1 + self.registers + 1 + self.position_table.len()) * dim;
        patch_embed + tables + self.depth * block + 2 * dim
    }

    /// Checks that sizes are positive, within [`limits`] and consistent.
    ///
    /// # Errors
    /// Names the first invalid field and the expected range.
    pub fn validate(&self) -> Result<(), SpecError> {
        let within = |name: &str, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(SpecError(alloc::format!("{name}: expected {least}..={most}, got {value}")))
            }
        };
        within("dim", self.dim, 1, limits::MAX_DIM)?;
        within("depth", self.depth, 1, limits::MAX_DEPTH)?;
        within("heads", self.heads, 1, self.dim)?;
        within("patch_size", self.patch_size, 1, limits::MAX_PATCH_SIZE)?;
        within("registers", self.registers, 0, limits::MAX_REGISTERS)?;
        within("mlp_hidden", self.mlp_hidden, 1, limits::MAX_MLP_HIDDEN)?;
        within("position_table.rows", self.position_table.rows, 1, limits::MAX_TABLE_SIDE)?;
        within("position_table.cols", self.position_table.cols, 1, limits::MAX_TABLE_SIDE)?;
        if !self.dim.is_multiple_of(self.heads) {
            let message =
                alloc::format!("dim: expected a multiple of heads ({}), got {}", self.heads, self.dim);
            return Err(SpecError(message));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return Err(SpecError(alloc::format!("norm_eps: expected within 0..1, got {}", self.norm_eps)));
        }
        Ok(())
    }

    /// The usual name of this shape: `ViT-S/14`, `ViT-g/14`, with `+reg4` for registers; otherwise `ViT-dim/patch`.
    pub fn name(&self) -> String {
        let size = match (self.dim, self.depth) {
            (192, 12) => "Ti".into(),
            (384, 12) => "S".into(),
            (768, 12) => "B".into(),
            (1024, 24) => "L".into(),
            (1536, 40) => "g".into(),
            (dim, depth) => alloc::format!("{dim}x{depth}"),
        };
        let registers = match self.registers {
            0 => String::new(),
            count => alloc::format!("+reg{count}"),
        };
        alloc::format!("ViT-{size}/{}{registers}", self.patch_size)
    }
}

impl fmt::Display for PositionConvention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OfficialScaleFactor => "bicubic, scale factor with offset 0.1 (official, no registers)",
            Self::ExactSize => "bicubic, exact size (Hugging Face, no registers)",
            Self::ExactSizeAntialias => "antialiased bicubic, exact size (registers, timm)",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn vits14() -> VitSpec {
        VitSpec {
            dim: 384,
            depth: 12,
            heads: 6,
            patch_size: 14,
            registers: 0,
            mlp: MlpKind::Gelu,
            mlp_hidden: 1536,
            layer_scale: true,
            norm_eps: 1e-6,
            position_table: PatchGrid { rows: 37, cols: 37 },
            position_convention: PositionConvention::OfficialScaleFactor,
        }
    }

    #[test]
    fn parameters_of_the_released_small_model() {
        // PyTorch counts 22,056,576 for the released ViT-S/14, 384 of them in the mask token.
        assert_eq!(vits14().parameters(), 22_056_576 - 384);
    }

    #[test]
    fn impossible_shapes_are_named() {
        let wrong = VitSpec { heads: 5, ..vits14() };
        assert_eq!(wrong.validate().unwrap_err().0, "dim: expected a multiple of heads (5), got 384");
        let wrong = VitSpec { depth: 0, ..vits14() };
        assert_eq!(wrong.validate().unwrap_err().0, "depth: expected 1..=512, got 0");
        assert!(VitSpec { norm_eps: f32::NAN, ..vits14() }.validate().is_err());
    }

    #[test]
    fn names() {
        assert_eq!(vits14().name(), "ViT-S/14");
        assert_eq!(VitSpec { registers: 4, depth: 6, ..vits14() }.name(), "ViT-384x6/14+reg4");
    }
}
