//! The tensors of a model of a given shape: names, shapes, and which of them are matrices.
//!
//! ```
//! use dinov2_core::{MlpKind, PatchGrid, PositionConvention, VitSpec};
//! use dinov2_weights::layout::slots;
//!
//! let spec = VitSpec {
//!     dim: 384,
//!     depth: 12,
//!     heads: 6,
//!     mlp: MlpKind::Gelu,
//!     mlp_hidden: 1536,
//!     patch_size: 14,
//!     registers: 0,
//!     layer_scale: true,
//!     norm_eps: 1e-6,
//!     position_table: PatchGrid { rows: 37, cols: 37 },
//!     position_convention: PositionConvention::OfficialScaleFactor,
//! };
//! let slots = slots(&spec);
//! let qkv = slots.iter().find(|slot| slot.name == "blocks.0.attn.qkv.weight").unwrap();
//! assert_eq!(qkv.shape, [3 * 384, 384]);
//! assert!(qkv.matrix);
//! ```

use dinov2_core::{MlpKind, VitSpec};

use crate::StoredDtype;

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Canonical name.
    pub name: String,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Whether it is a weight matrix, `[out, …]`, which may be stored in fewer bits. Everything else is f32.
    pub matrix: bool,
    /// Whether a model may lack it. Biases are always present: where a source has none, zeros are written.
    pub optional: bool,
}

impl Slot {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True without elements. No slot of a valid shape is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One entry of a file's header. A stored tensor consists of one to three of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    /// Number type, a word of the safetensors format.
    pub(crate) word: &'static str,
    /// Bytes of one number.
    pub(crate) size: usize,
    pub(crate) shape: Vec<usize>,
}

/// Appended to the name of an I8 or int4 tensor to name its scales.
pub(crate) const SCALE_SUFFIX: &str = ".scale";
/// Appended to the name of an int4 tensor to name its zero points.
pub(crate) const ZERO_SUFFIX: &str = ".zero";

impl Slot {
    /// Its entries in a file: numbers, then scales, then zero points. int4 only if [`crate::fits_int4`].
    pub(crate) fn parts(&self, dtype: StoredDtype) -> Vec<Part> {
        let part = |suffix: &str, word, size, shape: &[usize]| Part {
            name: format!("{}{suffix}", self.name),
            word,
            size,
            shape: shape.to_vec(),
        };
        match dtype {
            StoredDtype::F32 => vec![part("", "F32", 4, &self.shape)],
            StoredDtype::F16 => vec![part("", "F16", 2, &self.shape)],
            StoredDtype::Bf16 => vec![part("", "BF16", 2, &self.shape)],
            StoredDtype::I8 => {
                vec![part("", "I8", 1, &self.shape), part(SCALE_SUFFIX, "F32", 4, &self.shape[..1])]
            }
            StoredDtype::Int4 { group } => {
                let (n, k) = (self.shape[0], self.shape[1]);
                vec![
                    part("", "U8", 1, &[n, k / 2]),
                    part(SCALE_SUFFIX, "F16", 2, &[n, k / group]),
                    part(ZERO_SUFFIX, "U8", 1, &[n, k / group]),
                ]
            }
        }
    }
}

/// Every tensor of a model of this shape, in the order of the forward pass.
pub fn slots(spec: &VitSpec) -> Vec<Slot> {
    let dim = spec.dim;
    let mut slots = Slots(Vec::new());
    slots.push("cls_token", &[1, 1, dim]);
    slots.push("pos_embed", &[1, 1 + spec.position_table.len(), dim]);
    if spec.registers > 0 {
        slots.push("register_tokens", &[1, spec.registers, dim]);
    }
    slots.0.push(Slot { name: "mask_token".into(), shape: vec![1, dim], matrix: false, optional: true });
    slots.linear("patch_embed.proj", &[dim, 3, spec.patch_size, spec.patch_size]);
    for block in 0..spec.depth {
        slots.block(&format!("blocks.{block}"), spec);
    }
    slots.norm("norm", dim);
    slots.0
}

struct Slots(Vec<Slot>);

impl Slots {
    fn push(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push(Slot { name: name.into(), shape: shape.to_vec(), matrix: false, optional: false });
    }

    /// `shape`: of the weight, outputs first.
    fn linear(&mut self, name: &str, shape: &[usize]) {
        self.0.push(Slot {
            name: format!("{name}.weight"),
            shape: shape.to_vec(),
            matrix: true,
            optional: false,
        });
        self.push(format!("{name}.bias"), &shape[..1]);
    }

    fn norm(&mut self, name: &str, dim: usize) {
        self.push(format!("{name}.weight"), &[dim]);
        self.push(format!("{name}.bias"), &[dim]);
    }

    fn block(&mut self, name: &str, spec: &VitSpec) {
        let (dim, hidden) = (spec.dim, spec.mlp_hidden);
        self.norm(&format!("{name}.norm1"), dim);
        self.linear(&format!("{name}.attn.qkv"), &[3 * dim, dim]);
        self.linear(&format!("{name}.attn.proj"), &[dim, dim]);
        if spec.layer_scale {
            self.push(format!("{name}.ls1.gamma"), &[dim]);
        }
        self.norm(&format!("{name}.norm2"), dim);
        match spec.mlp {
            MlpKind::Gelu => {
                self.linear(&format!("{name}.mlp.fc1"), &[hidden, dim]);
                self.linear(&format!("{name}.mlp.fc2"), &[dim, hidden]);
            }
            MlpKind::SwiGlu => {
                self.linear(&format!("{name}.mlp.w12"), &[2 * hidden, dim]);
                self.linear(&format!("{name}.mlp.w3"), &[dim, hidden]);
            }
        }
        if spec.layer_scale {
            self.push(format!("{name}.ls2.gamma"), &[dim]);
        }
    }
}
