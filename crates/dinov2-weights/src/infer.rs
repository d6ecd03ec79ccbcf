//! Infers the shape of a model ([`VitSpec`]) from the shapes of its tensors and the hints of its source.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use dinov2_weights::infer::{Overrides, infer};
//! use dinov2_weights::naming::canonical;
//! use dinov2_weights::read_checkpoint;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let checkpoint = read_checkpoint(Path::new("dinov2_vits14_pretrain.pth"))?;
//! let mut backbone = canonical(&checkpoint)?;
//! let (spec, format) = infer(&checkpoint, &mut backbone, Overrides::default())?;
//! println!("{} blocks of width {}, from {format}", spec.depth, spec.dim);
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeSet;

use dinov2_core::{MlpKind, PatchGrid, PositionConvention, VitSpec};

use crate::ConvertError;
use crate::checkpoint::{Checkpoint, SourceKind, StatedNumber};
use crate::layout::slots;
use crate::metadata::SourceFormat;
use crate::naming::{Dialect, NamedBackbone, NamedTensor};
use crate::table::{self, TableProblem};

/// Epsilon of DINOv2's LayerNorms, in the official code and timm.
const NORM_EPS: f32 = 1e-6;
/// Width of a head in every released DINOv2.
const USUAL_HEAD_DIM: usize = 64;

/// Values that replace those of the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Attention heads.
    pub heads: Option<usize>,
    /// How the position table is resampled.
    pub convention: Option<PositionConvention>,
}

/// Brings the position table into the form of a model file, infers the model's shape, then checks every tensor against
/// it and adds the biases that the source lacks.
///
/// # Errors
/// A tensor that is missing, superfluous or of another shape; a configuration that contradicts the tensors; a shape
/// that no model can have.
pub fn infer(
    checkpoint: &Checkpoint,
    backbone: &mut NamedBackbone,
    overrides: Overrides,
) -> Result<(VitSpec, SourceFormat), ConvertError> {
    let shapes = Shapes { backbone, path: &checkpoint.label };
    let [_, _, patch_size, _] = shapes.shape("patch_embed.proj.weight", "[dim, 3, patch, patch]")?;
    let grid = table::convert_table(backbone, &checkpoint.hints, patch_size).map_err(|problem| {
        let TableProblem { expected, got } = problem;
        ConvertError::Tensor { tensor: "pos_embed".into(), expected, got, path: checkpoint.label.clone() }
    })?;
    let shapes = Shapes { backbone, path: &checkpoint.label };
    let (spec, format) = shapes.spec(checkpoint, overrides, grid)?;
    spec.validate().map_err(|source| ConvertError::Spec { source, path: checkpoint.label.clone() })?;
    check_stated(checkpoint, &spec)?;
    complete(backbone, &spec, &checkpoint.label)?;
    Ok((spec, format))
}

struct Shapes<'a> {
    backbone: &'a NamedBackbone,
    path: &'a str,
}

impl Shapes<'_> {
    fn spec(
        &self,
        checkpoint: &Checkpoint,
        overrides: Overrides,
        position_table: PatchGrid,
    ) -> Result<(VitSpec, SourceFormat), ConvertError> {
        let [_, _, dim] = self.shape("cls_token", "[1, 1, dim]")?;
        let [_, _, patch_size, _] = self.shape("patch_embed.proj.weight", "[dim, 3, patch, patch]")?;
        let registers = match self.has("register_tokens") {
            true => self.shape::<3>("register_tokens", "[1, registers, dim]")?[1],
            false => 0,
        };
        let (mlp, mlp_hidden) = self.mlp()?;
        let format = self.format(checkpoint, registers);
        let spec = VitSpec {
            dim,
            depth: self.depth(),
            heads: self.heads(checkpoint, overrides, dim)?,
            patch_size,
            registers,
            mlp,
            mlp_hidden,
            layer_scale: self.has("blocks.0.ls1.gamma"),
            norm_eps: checkpoint.hints.norm_eps.unwrap_or(NORM_EPS),
            position_table,
            position_convention: overrides
                .convention
                .or(checkpoint.hints.convention)
                .unwrap_or_else(|| usual_convention(format, registers)),
        };
        Ok((spec, format))
    }

    fn has(&self, name: &str) -> bool {
        self.backbone.tensors.contains_key(name)
    }

    /// The shape of a tensor that must be there with this many dimensions.
    fn shape<const RANK: usize>(&self, name: &str, expected: &str) -> Result<[usize; RANK], ConvertError> {
        let tensor = self.backbone.tensors.get(name);
        tensor.and_then(|tensor| tensor.shape.as_slice().try_into().ok()).ok_or_else(|| {
            ConvertError::Tensor {
                tensor: name.into(),
                expected: expected.into(),
                got: tensor.map_or("nothing".into(), |tensor| format!("{:?}", tensor.shape)),
                path: self.path.into(),
            }
        })
    }

    fn depth(&self) -> usize {
        let names = self.backbone.tensors.keys();
        let block = |name: &String| name.strip_prefix("blocks.")?.split_once('.')?.0.parse::<usize>().ok();
        names.filter_map(block).max().map_or(0, |last| last + 1)
    }

    fn mlp(&self) -> Result<(MlpKind, usize), ConvertError> {
        if self.has("blocks.0.mlp.w12.weight") {
            let [rows, _] = self.shape("blocks.0.mlp.w12.weight", "[2 * hidden, dim]")?;
            Ok((MlpKind::SwiGlu, rows / 2))
        } else {
            let [rows, _] = self.shape("blocks.0.mlp.fc1.weight", "[hidden, dim]")?;
            Ok((MlpKind::Gelu, rows))
        }
    }

    fn heads(
        &self,
        checkpoint: &Checkpoint,
        overrides: Overrides,
        dim: usize,
    ) -> Result<usize, ConvertError> {
        let usual = || dim.is_multiple_of(USUAL_HEAD_DIM).then_some(dim / USUAL_HEAD_DIM);
        overrides.heads.or(checkpoint.hints.heads).or_else(usual).ok_or_else(|| {
            let problem = format!(
                "attention heads: expected --heads N, because no configuration tells and the width {dim} is no \
                 multiple of {USUAL_HEAD_DIM}, got none"
            );
            ConvertError::invalid(problem, self.path)
        })
    }

    /// timm uses the official names. Only the official code has a mask token; only timm has `reg_token`, a position
    /// table without CLS, or a SwiGLU named `fc1`.
    fn format(&self, checkpoint: &Checkpoint, registers: usize) -> SourceFormat {
        let timm = checkpoint.hints.timm || (!self.has("mask_token") && registers == 0);
        match (checkpoint.kind, self.backbone.dialect) {
            (SourceKind::Onnx, _) => SourceFormat::Onnx,
            (_, Dialect::HuggingFace) => SourceFormat::HuggingFace,
            (_, Dialect::Timm) => SourceFormat::Timm,
            (_, Dialect::Official) if timm => SourceFormat::Timm,
            (_, Dialect::Official) => SourceFormat::Official,
        }
    }
}

fn usual_convention(format: SourceFormat, registers: usize) -> PositionConvention {
    match format {
        SourceFormat::Timm | SourceFormat::Training => PositionConvention::ExactSizeAntialias,
        _ if registers > 0 => PositionConvention::ExactSizeAntialias,
        SourceFormat::Official => PositionConvention::OfficialScaleFactor,
        SourceFormat::HuggingFace | SourceFormat::Onnx => PositionConvention::ExactSize,
    }
}

fn check_stated(checkpoint: &Checkpoint, spec: &VitSpec) -> Result<(), ConvertError> {
    for &(field, stated) in &checkpoint.hints.stated {
        let (name, got) = match field {
            StatedNumber::Dim => ("width", spec.dim),
            StatedNumber::Depth => ("number of blocks", spec.depth),
            StatedNumber::PatchSize => ("patch size", spec.patch_size),
            StatedNumber::Registers => ("number of registers", spec.registers),
        };
        if stated != got {
            let problem =
                format!("{name}: expected {stated} as config.json says, got {got} from the tensors");
            return Err(ConvertError::invalid(problem, &checkpoint.label));
        }
    }
    Ok(())
}

/// Checks names and shapes against the spec; afterwards every slot that is not optional has its tensor.
fn complete(backbone: &mut NamedBackbone, spec: &VitSpec, path: &str) -> Result<(), ConvertError> {
    let slots = slots(spec);
    let wrong = |tensor: &str, expected: String, got: String| {
        Err(ConvertError::Tensor { tensor: tensor.into(), expected, got, path: path.into() })
    };
    for slot in &slots {
        match backbone.tensors.get(&slot.name) {
            Some(tensor) if tensor.shape == slot.shape => {}
            Some(tensor) => {
                return wrong(&slot.name, format!("{:?}", slot.shape), format!("{:?}", tensor.shape));
            }
            None if slot.name.ends_with(".bias") => {
                backbone.tensors.insert(slot.name.clone(), NamedTensor::zeros(&slot.shape));
            }
            None if slot.optional => {}
            None => return wrong(&slot.name, format!("{:?}", slot.shape), "nothing".into()),
        }
    }
    let known: BTreeSet<&String> = slots.iter().map(|slot| &slot.name).collect();
    match backbone.tensors.iter().find(|(name, _)| !known.contains(name)) {
        Some((name, tensor)) => wrong(name, "no such tensor".into(), format!("{:?}", tensor.shape)),
        None => Ok(()),
    }
}
