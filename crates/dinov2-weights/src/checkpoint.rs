//! The common result of all checkpoint readers: named tensors in the file's mapped pages, and hints about the model.
//!
//! Data shape: a [`SourceTensor`] is a typed, possibly strided window into a mapped file. Code after the readers does not
//! depend on the kind of the file. Names are the source's own; [`crate::naming`] makes them canonical.
//!
//! ```
//! use bytes::Bytes;
//! use dinov2_weights::checkpoint::{SourceDtype, SourceTensor};
//!
//! let data: Vec<u8> = (0..6).flat_map(|value| (value as f32).to_le_bytes()).collect();
//! // A MatMul initialiser of ONNX, stored as [columns, rows].
//! let weight = SourceTensor::transposed(SourceDtype::F32, [2, 3], Bytes::from(data)).unwrap();
//! assert_eq!(weight.shape(), [3, 2]);
//! assert_eq!(weight.to_f32(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use dinov2_core::{PatchGrid, PositionConvention};
use half::{bf16, f16};

use crate::ConvertError;
use crate::metadata::{Normalisation, PixelSize, SourceFit};
use crate::pages::Pages;

/// Most dimensions of a tensor; DINOv2 has at most four.
pub const MAX_RANK: usize = 8;

/// Number type of a stored tensor, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceDtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl SourceDtype {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A tensor of a checkpoint, not yet read. Cloning it copies no data.
#[derive(Clone, Debug)]
pub struct SourceTensor {
    dtype: SourceDtype,
    shape: Vec<usize>,
    /// Distance in elements per dimension; `None` for row-major contiguous data.
    strides: Option<Vec<usize>>,
    data: Bytes,
}

impl SourceTensor {
    /// Row-major `shape` over exactly `data`.
    ///
    /// # Errors
    /// What was expected and got, if the length of `data` contradicts the shape.
    pub fn contiguous(dtype: SourceDtype, shape: Vec<usize>, data: Bytes) -> Result<Self, String> {
        let bytes = byte_len(dtype, &shape)?;
        if data.len() != bytes {
            return Err(format!("{shape:?}: expected {bytes} bytes, got {}", data.len()));
        }
        Ok(Self { dtype, shape, strides: None, data })
    }

    /// A matrix stored as `[columns, rows]`, seen as `[rows, columns]` (MatMul initialisers of ONNX).
    ///
    /// # Errors
    /// A stored shape that is no matrix, or contradicts the length of `data`.
    pub fn transposed(dtype: SourceDtype, stored: [usize; 2], data: Bytes) -> Result<Self, String> {
        let [columns, rows] = stored;
        let bytes = byte_len(dtype, &stored)?;
        if data.len() != bytes {
            return Err(format!("{stored:?}: expected {bytes} bytes, got {}", data.len()));
        }
        Ok(Self { dtype, shape: vec![rows, columns], strides: Some(vec![1, rows]), data })
    }

    /// `shape` over `storage`, beginning `offset` elements into it, with `strides` in elements.
    ///
    /// # Errors
    /// A window that leaves the storage, or that repeats it (more elements than the storage holds).
    pub fn strided(
        dtype: SourceDtype,
        shape: Vec<usize>,
        strides: Vec<usize>,
        storage: &Bytes,
        offset: usize,
    ) -> Result<Self, String> {
        let bytes = byte_len(dtype, &shape)?;
        if strides.len() != shape.len() {
            return Err(format!("strides: expected {} of them, got {}", shape.len(), strides.len()));
        }
        let outside = || format!("{shape:?} at {offset}: expected within {} bytes of storage", storage.len());
        let start = offset.checked_mul(dtype.size()).filter(|&start| start <= storage.len());
        let data = storage.slice(start.ok_or_else(outside)?..);
        if bytes == 0 {
            return Ok(Self { dtype, shape, strides: None, data: Bytes::new() });
        }
        let last = shape.iter().zip(&strides).try_fold(0usize, |sum, (&side, &stride)| {
            (side - 1).checked_mul(stride).and_then(|step| sum.checked_add(step))
        });
        let end = last.and_then(|last| last.checked_add(1)?.checked_mul(dtype.size()));
        let end = end.filter(|&end| end <= data.len()).ok_or_else(outside)?;
        if is_row_major(&shape, &strides) {
            return Ok(Self { dtype, shape, strides: None, data: data.slice(..bytes) });
        }
        if bytes > data.len() {
            return Err(format!(
                "{shape:?}: expected distinct elements, got overlapping strides {strides:?}"
            ));
        }
        Ok(Self { dtype, shape, strides: Some(strides), data: data.slice(..end) })
    }

    /// Number type in the file.
    pub fn dtype(&self) -> SourceDtype {
        self.dtype
    }

    /// Shape, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same elements under another shape; a strided tensor is made contiguous first.
    ///
    /// # Errors
    /// A shape with another number of elements.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self, String> {
        let bytes = byte_len(self.dtype, &shape)?;
        if bytes != self.len() * self.dtype.size() {
            return Err(format!("expected the elements of {:?}, got {shape:?}", self.shape));
        }
        let data = if self.strides.is_none() { self.data.clone() } else { self.gather() };
        Ok(Self { dtype: self.dtype, shape, strides: None, data })
    }

    /// Rows `first..first + count` of the outermost dimension.
    ///
    /// # Errors
    /// Rows that are not there.
    pub fn rows(&self, first: usize, count: usize) -> Result<Self, String> {
        let Some((&side, inner)) = self.shape.split_first() else {
            return Err("expected rows, got a scalar".into());
        };
        if first.checked_add(count).is_none_or(|end| end > side) {
            return Err(format!("expected rows {first}..+{count}, got {:?}", self.shape));
        }
        let row = inner.iter().product::<usize>();
        let strides = self.strides.clone().unwrap_or_else(|| row_major_strides(&self.shape));
        let shape = std::iter::once(count).chain(inner.iter().copied()).collect();
        let offset = if row == 0 || count == 0 { 0 } else { first * strides[0] };
        Self::strided(self.dtype, shape, strides, &self.data, offset)
    }

    /// Every element as f32, row-major.
    pub fn to_f32(&self) -> Vec<f32> {
        let gathered;
        let data: &[u8] = if self.strides.is_none() {
            &self.data
        } else {
            gathered = self.gather();
            &gathered
        };
        match self.dtype {
            SourceDtype::F64 => numbers(data, |bytes| f64::from_le_bytes(bytes) as f32),
            SourceDtype::F32 => numbers(data, f32::from_le_bytes),
            SourceDtype::F16 => numbers(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
            SourceDtype::Bf16 => numbers(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        }
    }

    /// The bytes of every element in row-major order.
    fn gather(&self) -> Bytes {
        let Some(strides) = &self.strides else { return self.data.clone() };
        let size = self.dtype.size();
        let mut gathered = Vec::with_capacity(self.len() * size);
        let (&inner_side, outer) = self.shape.split_last().expect("strided tensors have a dimension");
        let inner_stride = strides[outer.len()];
        let mut index = vec![0usize; outer.len()];
        loop {
            let start: usize = index.iter().zip(strides).map(|(place, stride)| place * stride).sum();
            for step in 0..inner_side {
                let at = (start + step * inner_stride) * size;
                gathered.extend_from_slice(&self.data[at..at + size]);
            }
            let Some(turning) = (0..outer.len()).rev().find(|&axis| index[axis] + 1 < outer[axis]) else {
                return gathered.into();
            };
            index[turning] += 1;
            index[turning + 1..].fill(0);
        }
    }
}

/// Kind of the file that the tensors come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceKind {
    /// A safetensors file or a sharded folder of them: Hugging Face or timm.
    Safetensors,
    /// A zip archive written by `torch.save`.
    Pth,
    /// An ONNX graph.
    Onnx,
}

/// A number in a configuration that the shapes of the tensors determine too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatedNumber {
    /// Width of a token.
    Dim,
    /// Number of blocks.
    Depth,
    /// Side of a patch.
    PatchSize,
    /// Register tokens.
    Registers,
}

/// Image size of the position table, as a configuration gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatedSize {
    /// Name of the field, for messages.
    pub field: &'static str,
    /// The size.
    pub size: PixelSize,
}

/// Facts about the model that the shapes of the tensors do not contain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hints {
    /// Attention heads.
    pub heads: Option<usize>,
    /// Epsilon of every LayerNorm.
    pub norm_eps: Option<f32>,
    /// How the source resamples its position table.
    pub convention: Option<PositionConvention>,
    /// Grid of the position table, if the source contains it (ONNX).
    pub position_table: Option<PatchGrid>,
    /// Image size of the position table, if a configuration gives it.
    pub image_size: Option<StatedSize>,
    /// Whether the position table has rows for CLS and registers, if a configuration says so.
    pub class_position: Option<bool>,
    /// The source says that it is a timm model.
    pub timm: bool,
    /// Numbers of the configuration, with which the shapes of the tensors must agree.
    pub stated: Vec<(StatedNumber, usize)>,
    /// Channel mean and standard deviation that the source's preprocessing takes from pixels in 0..=1, if it says.
    pub normalisation: Option<Normalisation>,
    /// How the source resizes images, if it says.
    pub source_fit: Option<SourceFit>,
    /// Licence as the source states it.
    pub licence: Option<String>,
}

/// The tensors of a source, read on demand, and its hints.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Path, for messages.
    pub label: String,
    /// Kind of the file.
    pub kind: SourceKind,
    /// Tensors under the source's own names.
    pub tensors: BTreeMap<String, SourceTensor>,
    /// Tensors that are not read because of their number type (integers, 8-bit floats): name and number type.
    pub unread: BTreeMap<String, String>,
    /// Hints about the model.
    pub hints: Hints,
    /// Remarks for the user on how the source was read.
    pub notes: Vec<String>,
}

/// Maps a file; slices of the result are zero-copy.
///
/// # Errors
/// A file that cannot be opened or mapped.
pub fn map_file(path: &Path) -> Result<Bytes, ConvertError> {
    let file = File::open(path).map_err(|source| ConvertError::io("open", path, source))?;
    let pages = Pages::map(&file, None).map_err(|source| ConvertError::io("map", path, source))?;
    Ok(pages.bytes())
}

/// Bytes of a row-major tensor. Refuses ranks above [`MAX_RANK`] and products that overflow, also for empty tensors, so that
/// no later product over the shape can overflow.
fn byte_len(dtype: SourceDtype, shape: &[usize]) -> Result<usize, String> {
    if shape.len() > MAX_RANK {
        return Err(format!("expected at most {MAX_RANK} dimensions, got {}", shape.len()));
    }
    let span = shape.iter().try_fold(dtype.size(), |product, &side| product.checked_mul(side.max(1)));
    match span {
        Some(span) if span <= isize::MAX as usize => Ok(if shape.contains(&0) { 0 } else { span }),
        _ => Err(format!("{shape:?}: expected fewer elements")),
    }
}

fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Whether the strides are those of contiguous data; the stride of a dimension of one element does not matter.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let expected = row_major_strides(shape);
    shape.iter().zip(strides.iter().zip(expected)).all(|(&side, (&stride, row))| side == 1 || stride == row)
}

fn numbers<const SIZE: usize>(data: &[u8], number: impl Fn([u8; SIZE]) -> f32) -> Vec<f32> {
    data.as_chunks::<SIZE>().0.iter().map(|&bytes| number(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: impl IntoIterator<Item = f32>) -> Bytes {
        values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into()
    }

    #[test]
    fn strides_are_followed_and_bounded() {
        let storage = f32s((0..12).map(|value| value as f32));
        let strided = |shape: &[usize], strides: &[usize], offset| {
            SourceTensor::strided(SourceDtype::F32, shape.to_vec(), strides.to_vec(), &storage, offset)
        };
        assert_eq!(strided(&[2, 3], &[3, 1], 6).unwrap().to_f32(), [6., 7., 8., 9., 10., 11.]);
        assert_eq!(strided(&[2, 3], &[1, 4], 1).unwrap().to_f32(), [1., 5., 9., 2., 6., 10.]);
        assert_eq!(strided(&[2, 1, 2], &[6, 99, 2], 0).unwrap().to_f32(), [0., 2., 6., 8.]);
        assert!(strided(&[], &[], 3).unwrap().to_f32() == [3.]);
        for (shape, strides, offset) in [
            (&[2, 3][..], &[3, 1][..], 7),
            (&[13], &[0], 0),
            (&[2, usize::MAX], &[1, 1], 0),
            (&[2, 2], &[usize::MAX, 1], 0),
            (&[1], &[1], usize::MAX),
            (&[2], &[1, 1], 0),
            (&[1; MAX_RANK + 1], &[1; MAX_RANK + 1], 0),
        ] {
            assert!(strided(shape, strides, offset).is_err(), "{shape:?} {strides:?} {offset}");
        }
        assert!(strided(&[0, 3], &[3, 1], 0).unwrap().to_f32().is_empty());
    }

    #[test]
    fn transposed_rows_and_reshape() {
        let matrix =
            SourceTensor::transposed(SourceDtype::F32, [2, 3], f32s((0..6).map(|v| v as f32))).unwrap();
        assert_eq!(matrix.shape(), [3, 2]);
        assert_eq!(matrix.to_f32(), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(matrix.rows(1, 2).unwrap().to_f32(), [1., 4., 2., 5.]);
        assert_eq!(matrix.reshaped(vec![1, 6]).unwrap().to_f32(), [0., 3., 1., 4., 2., 5.]);
        assert!(matrix.rows(2, 2).is_err() && matrix.reshaped(vec![5]).is_err());
    }
}
