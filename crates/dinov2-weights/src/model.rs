//! An opened model file. Every tensor is checked against the model's shape when the file is opened, and read on demand.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use dinov2_core::{PatchGrid, VitSpec};

use crate::header::Header;
use crate::layout::{Part, Slot, slots};
use crate::metadata::METADATA_KEY;
use crate::pages::Pages;
use crate::storage::{INT8_LIMIT, Int8Rows, StoredDtype, decode_bf16, decode_f16, decode_f32, decode_i8};
use crate::{Metadata, ModelError, fits_int4, int4, position};

/// A model file: safetensors with `dinov2_edge` metadata, in the file's pages or in memory.
///
/// Opening checks the header, the metadata, and that exactly the tensors of the model's shape are there with the right
/// types, shapes and valid scales. Weights are read on demand, and the pages of a tensor are released after it was read, so
/// that they do not add to the memory of the copies that engines make.
///
/// ```no_run
/// use std::path::Path;
///
/// use dinov2_weights::Model;
///
/// # fn main() -> Result<(), dinov2_weights::ModelError> {
/// let model = Model::open(Path::new("vits14.safetensors"))?;
/// for name in model.names() {
///     println!("{name} {:?}", model.tensor(name)?.shape);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    label: String,
    bytes: Bytes,
    /// Absent for bytes in memory.
    pages: Option<Pages>,
    /// Where the tensors begin.
    data_start: usize,
    metadata: Metadata,
    tensors: BTreeMap<String, Placed>,
}

#[derive(Clone, Debug)]
struct Placed {
    dtype: StoredDtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
    scale: Option<Range<usize>>,
    zero: Option<Range<usize>>,
}

/// A tensor as it lies in the file.
#[derive(Clone, Copy, Debug)]
pub struct StoredTensor<'a> {
    /// Number type.
    pub dtype: StoredDtype,
    /// Shape, outermost first.
    pub shape: &'a [usize],
    /// Row-major numbers, little endian; of int4 two in a byte, the first in the low bits. The slice need not be aligned.
    pub bytes: &'a [u8],
    /// For I8: f32 per output channel, `[shape[0]]`; for int4: f16 per group, `[shape[0], shape[1] / group]`. Little endian.
    pub scale: Option<&'a [u8]>,
    /// For int4: a byte per group, `[shape[0], shape[1] / group]`.
    pub zero: Option<&'a [u8]>,
}

impl StoredTensor<'_> {
    /// Decodes it into `out`, of as many numbers.
    fn decode(&self, out: &mut [f32]) {
        let (scale, zero) = (self.scale.unwrap_or_default(), self.zero.unwrap_or_default());
        match self.dtype {
            StoredDtype::F32 => decode_f32(self.bytes, out),
            StoredDtype::F16 => decode_f16(self.bytes, out),
            StoredDtype::Bf16 => decode_bf16(self.bytes, out),
            StoredDtype::I8 => decode_i8(self.bytes, scale, out),
            StoredDtype::Int4 { group } => int4::decode(group, self.bytes, scale, zero, out),
        }
    }
}

impl Model {
    /// Maps a model file.
    ///
    /// # Errors
    /// If the file cannot be opened or is not a valid model file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| ModelError::io("open", path, source))?;
        let pages = Pages::map(&file, None).map_err(|source| ModelError::io("map", path, source))?;
        Self::new(pages.bytes(), Some(pages), path.display().to_string())
    }

    /// Maps a model that is a part of a file, such as the program's own. `label` stands for its path in messages.
    ///
    /// # Errors
    /// As [`Self::open`], and a range that is not within the file.
    pub fn open_within(path: impl AsRef<Path>, range: Range<u64>, label: &str) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| ModelError::io("open", path, source))?;
        let pages = Pages::map(&file, Some(range)).map_err(|source| ModelError::io("map", path, source))?;
        Self::new(pages.bytes(), Some(pages), label.into())
    }

    /// A model that is part of the program. `label` stands for its path in messages.
    ///
    /// # Errors
    /// If the bytes are not a valid model file.
    pub fn from_static(bytes: &'static [u8], label: &str) -> Result<Self, ModelError> {
        Self::new(Bytes::from_static(bytes), None, label.into())
    }

    /// A model in memory. `label` stands for its path in messages.
    ///
    /// # Errors
    /// If the bytes are not a valid model file.
    pub fn from_bytes(bytes: Vec<u8>, label: &str) -> Result<Self, ModelError> {
        Self::new(bytes.into(), None, label.into())
    }

    fn new(bytes: Bytes, pages: Option<Pages>, label: String) -> Result<Self, ModelError> {
        let mut header =
            Header::parse(&bytes).map_err(|problem| ModelError::invalid(problem, label.as_str()))?;
        let metadata = metadata(&header).map_err(|problem| ModelError::invalid(problem, label.as_str()))?;
        let data_start = header.data_start;
        let mut model = Self { label, bytes, pages, data_start, metadata, tensors: BTreeMap::new() };
        for slot in slots(&model.metadata.spec) {
            if slot.optional && !header.tensors.contains_key(&slot.name) {
                continue;
            }
            let placed = model.place_all(&slot, &mut header)?;
            model.tensors.insert(slot.name, placed);
        }
        match header.tensors.into_iter().next() {
            None => Ok(model),
            Some((name, entry)) => {
                Err(model.wrong(&name, "no such tensor", format!("{} {:?}", entry.dtype, entry.shape)))
            }
        }
    }

    /// Number type of a tensor in a file of this storage. In an int4 file a matrix may be int8.
    fn dtype(&self, slot: &Slot, header: &Header) -> StoredDtype {
        if !slot.matrix {
            return StoredDtype::F32;
        }
        match (self.metadata.storage.matrix_dtype(), self.metadata.int4_group()) {
            (Some(dtype), _) => dtype,
            (None, Some(group)) if fits_int4(&slot.shape, group) => match header.tensors.get(&slot.name) {
                Some(entry) if entry.dtype == "I8" => StoredDtype::I8,
                _ => StoredDtype::Int4 { group },
            },
            (None, _) => StoredDtype::I8,
        }
    }

    /// Checks a tensor with its scales and zero points.
    fn place_all(&self, slot: &Slot, header: &mut Header) -> Result<Placed, ModelError> {
        let dtype = self.dtype(slot, header);
        let mut ranges = Vec::new();
        for part in slot.parts(dtype) {
            let range = self.place(&part, header)?;
            self.check_numbers(&part, &range, ranges.len(), dtype)?;
            ranges.push(range);
        }
        let mut ranges = ranges.into_iter();
        let bytes = ranges.next().expect("a slot has a part of its own name");
        Ok(Placed { dtype, shape: slot.shape.clone(), bytes, scale: ranges.next(), zero: ranges.next() })
    }

    /// Checks type and shape; returns where the bytes are.
    fn place(&self, part: &Part, header: &mut Header) -> Result<Range<usize>, ModelError> {
        let Part { name, word, size, shape } = part;
        let expected = format!("{word} {shape:?}");
        let Some(entry) = header.tensors.remove(name) else {
            return Err(self.wrong(name, expected, "nothing"));
        };
        if entry.dtype != *word || entry.shape != *shape {
            return Err(self.wrong(name, expected, format!("{} {:?}", entry.dtype, entry.shape)));
        }
        let [start, end] = entry.data_offsets;
        let bytes = shape.iter().try_fold(*size, |bytes, &side| bytes.checked_mul(side));
        if bytes != Some(end - start) {
            return Err(self.wrong(
                name,
                format!("the bytes of {expected}"),
                format!("{} bytes", end - start),
            ));
        }
        Ok(header.range(&entry))
    }

    /// Checks scales (part 1) and zero points (part 2).
    fn check_numbers(
        &self,
        part: &Part,
        range: &Range<usize>,
        index: usize,
        dtype: StoredDtype,
    ) -> Result<(), ModelError> {
        let bytes = &self.bytes[range.clone()];
        if index == 1 {
            let mut scales = vec![0.0; bytes.len() / part.size];
            match dtype {
                StoredDtype::Int4 { .. } => decode_f16(bytes, &mut scales),
                _ => decode_f32(bytes, &mut scales),
            }
            if let Some(at) = scales.iter().position(|scale| !(scale.is_finite() && *scale >= 0.0)) {
                let got = format!("{} at index {at}", scales[at]);
                return Err(self.wrong(&part.name, "finite scales of at least 0", got));
            }
        }
        if index == 2
            && let Some(at) = bytes.iter().position(|&zero| zero > int4::LARGEST)
        {
            let got = format!("{} at index {at}", bytes[at]);
            return Err(self.wrong(&part.name, "zero points of at most 15", got));
        }
        Ok(())
    }

    fn wrong(&self, tensor: &str, expected: impl Into<String>, got: impl Into<String>) -> ModelError {
        ModelError::Tensor {
            tensor: tensor.into(),
            expected: expected.into(),
            got: got.into(),
            path: self.label.clone(),
        }
    }

    /// Path or label, for messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Shape of the model.
    pub fn spec(&self) -> &VitSpec {
        &self.metadata.spec
    }

    /// What the file says about itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The part of the file before the tensors: their names and positions, and the metadata.
    pub fn header_bytes(&self) -> &[u8] {
        &self.bytes[..self.data_start]
    }

    /// Size of the file.
    pub fn file_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Names of the tensors, sorted. Scales and zero points have no name of their own here.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor as it lies in the file.
    ///
    /// # Errors
    /// A name that the model does not have.
    pub fn tensor(&self, name: &str) -> Result<StoredTensor<'_>, ModelError> {
        let placed = self.tensors.get(name);
        let placed = placed.ok_or_else(|| self.wrong(name, "a tensor of this model", "nothing"))?;
        Ok(StoredTensor {
            dtype: placed.dtype,
            shape: &placed.shape,
            bytes: &self.bytes[placed.bytes.clone()],
            scale: placed.scale.clone().map(|range| &self.bytes[range]),
            zero: placed.zero.clone().map(|range| &self.bytes[range]),
        })
    }

    /// Decodes a tensor, row-major, into `out`; int8 and int4 are multiplied by their scales.
    ///
    /// # Errors
    /// A name that the model does not have, or `out` of another length than the tensor.
    pub fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), ModelError> {
        let tensor = self.tensor(name)?;
        let elements: usize = tensor.shape.iter().product();
        if out.len() != elements {
            return Err(self.wrong(name, format!("a buffer of {elements} numbers"), out.len().to_string()));
        }
        tensor.decode(out);
        self.release(name);
        Ok(())
    }

    /// Releases the pages of a tensor. Reading it again reads the file again.
    fn release(&self, name: &str) {
        if let (Some(pages), Some(placed)) = (&self.pages, self.tensors.get(name)) {
            pages.release(placed.bytes.clone());
        }
    }

    /// A tensor decoded, row-major; int8 and int4 are multiplied by their scales.
    ///
    /// # Errors
    /// A name that the model does not have.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let mut values = vec![0.0; self.tensor(name)?.shape.iter().product()];
        self.read_f32(name, &mut values)?;
        Ok(values)
    }

    /// A matrix in int8 with a scale per output channel: as it lies in the file, or rounded from another storage; from
    /// int4 to the weight limit that the file was measured with.
    ///
    /// # Errors
    /// A name that the model does not have.
    pub fn int8(&self, name: &str) -> Result<Int8Rows, ModelError> {
        let tensor = self.tensor(name)?;
        let rows = tensor.shape[0];
        match (tensor.dtype, tensor.scale) {
            (StoredDtype::I8, Some(scale_bytes)) => {
                let mut scale = vec![0.0; rows];
                decode_f32(scale_bytes, &mut scale);
                let values = tensor.bytes.iter().map(|&byte| byte as i8).collect();
                self.release(name);
                Ok(Int8Rows { values, scale })
            }
            (StoredDtype::Int4 { .. }, _) => {
                let limit = self.metadata.quantization.as_ref().map_or(INT8_LIMIT, |q| q.weight_limit);
                Ok(Int8Rows::round(&self.f32(name)?, rows, limit))
            }
            _ => Ok(Int8Rows::round(&self.f32(name)?, rows, INT8_LIMIT)),
        }
    }

    /// The position table of a grid, `[1 + rows * cols, dim]`: row 0 is the CLS position, then patches row by row.
    /// Resampled by the model's convention; the stored grid gets the stored table.
    ///
    /// # Errors
    /// A grid that is empty or beyond [`dinov2_core::limits::MAX_PATCHES`].
    pub fn position_embedding(&self, grid: PatchGrid) -> Result<Vec<f32>, ModelError> {
        let spec = self.spec();
        let table = self.f32("pos_embed")?;
        position::resample(&table, spec.position_table, grid, spec.position_convention)
            .map_err(|problem| ModelError::invalid(problem, self.label.as_str()))
    }
}

fn metadata(header: &Header) -> Result<Metadata, String> {
    match header.metadata.get(METADATA_KEY) {
        Some(json) => Metadata::parse(json),
        None => Err(format!(
            "metadata: expected the key {METADATA_KEY:?} of a model file (dinov2-edge convert makes one), got none"
        )),
    }
}
