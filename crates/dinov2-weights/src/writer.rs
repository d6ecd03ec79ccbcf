//! Writes a model file tensor by tensor, under a temporary name until it is complete.
//!
//! This is the only place that turns numbers into the bytes of each storage form. The header is written first, so the
//! number type of every tensor is planned before its numbers are known.

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};

use dinov2_files::{Kind, Target, WholeFile};

use crate::header::{TensorEntry, encode};
use crate::layout::{Part, SCALE_SUFFIX, Slot, ZERO_SUFFIX};
use crate::metadata::METADATA_KEY;
use crate::storage::{INT8_LIMIT, encode_bf16, encode_f16, encode_f32, quantize_i8};
use crate::{ConvertError, Int4Groups, Int8Rows, Metadata, StoredDtype};

/// The numbers of one tensor, in the form in which a model file stores them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Numbers {
    /// Row-major, in the shape of the tensor.
    F32(Vec<f32>),
    /// A matrix `[n, k]` with a scale per row.
    Int8(Int8Rows),
    /// A matrix `[n, k]` with a scale and a zero point per group of weights.
    Int4(Int4Groups),
}

impl Numbers {
    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Int8(rows) => rows.values.len(),
            Self::Int4(groups) => groups.values.len(),
        }
    }

    pub(crate) fn dtype(&self) -> StoredDtype {
        match self {
            Self::F32(_) => StoredDtype::F32,
            Self::Int8(_) => StoredDtype::I8,
            Self::Int4(groups) => StoredDtype::Int4 { group: groups.group },
        }
    }
}

/// A model file that is being written. If it is dropped before [`ModelWriter::finish`], nothing is left behind.
pub(crate) struct ModelWriter {
    file: WholeFile,
    /// Byte range of each tensor in the file.
    ranges: BTreeMap<String, (u64, u64)>,
    total: u64,
}

impl ModelWriter {
    /// Writes the header for these slots. Wider types come first, so that every tensor is aligned to its type.
    pub(crate) fn create(
        target: &Target,
        metadata: &Metadata,
        slots: &[(Slot, StoredDtype)],
    ) -> Result<Self, ConvertError> {
        let mut planned: Vec<Part> = slots.iter().flat_map(|(slot, dtype)| slot.parts(*dtype)).collect();
        planned.sort_by_key(|part| std::cmp::Reverse(part.size));
        let mut end = 0;
        let mut entries = Vec::with_capacity(planned.len());
        for Part { name, word, size, shape } in planned {
            let start = end;
            end += shape.iter().product::<usize>() * size;
            let entry = TensorEntry { dtype: word.into(), shape, data_offsets: [start, end] };
            entries.push((name, entry));
        }
        let strings = BTreeMap::from([(METADATA_KEY.to_string(), metadata.to_json())]);
        let header = encode(&strings, &entries);
        let data_start = header.len() as u64;
        let ranges = entries.into_iter().map(|(name, entry)| {
            let [start, end] = entry.data_offsets;
            (name, (data_start + start as u64, data_start + end as u64))
        });
        let ranges = ranges.collect();
        let mut file = WholeFile::create(target, Kind::Model)?;
        file.write_all(&header).map_err(|source| ConvertError::io("write", target.path(), source))?;
        Ok(Self { file, ranges, total: data_start + end as u64 })
    }

    /// Size of the whole file in bytes.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Writes a planned tensor.
    ///
    /// # Panics
    /// If the numbers are not of the planned type and length.
    pub(crate) fn write_numbers(&mut self, name: &str, numbers: &Numbers) -> Result<(), ConvertError> {
        match numbers {
            Numbers::F32(values) => self.write(name, &encode_f32(values)),
            Numbers::Int8(rows) => {
                let bytes: Vec<u8> = rows.values.iter().map(|&value| value as u8).collect();
                self.write_rows(name, &bytes, &rows.scale)
            }
            Numbers::Int4(groups) => {
                self.write(name, &groups.packed())?;
                self.write(&format!("{name}{SCALE_SUFFIX}"), &groups.scale_bytes())?;
                self.write(&format!("{name}{ZERO_SUFFIX}"), &groups.zero)
            }
        }
    }

    /// Rounds finite `values` to the planned type of a tensor, int8 to nearest with one scale per row, and writes them.
    ///
    /// # Panics
    /// For int4, which needs calibration, and if the values are not of the planned length.
    pub(crate) fn write_rounded(
        &mut self,
        (slot, dtype): &(Slot, StoredDtype),
        values: &[f32],
    ) -> Result<(), ConvertError> {
        match dtype {
            StoredDtype::F32 => self.write(&slot.name, &encode_f32(values)),
            StoredDtype::F16 => self.write(&slot.name, &encode_f16(values)),
            StoredDtype::Bf16 => self.write(&slot.name, &encode_bf16(values)),
            StoredDtype::I8 => {
                let (bytes, scale) = quantize_i8(values, slot.shape[0], INT8_LIMIT);
                self.write_rows(&slot.name, &bytes, &scale)
            }
            StoredDtype::Int4 { .. } => panic!("{}: int4 is not written without calibration", slot.name),
        }
    }

    fn write_rows(&mut self, name: &str, bytes: &[u8], scale: &[f32]) -> Result<(), ConvertError> {
        self.write(name, bytes)?;
        self.write(&format!("{name}{SCALE_SUFFIX}"), &encode_f32(scale))
    }

    /// Writes the bytes of one part of a planned tensor, whose length they must have.
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), ConvertError> {
        let (start, end) = self.ranges[name];
        assert_eq!(bytes.len() as u64, end - start, "bytes of {name}");
        let written = self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.write_all(bytes));
        written.map_err(|source| ConvertError::io("write", self.file.target().path(), source))
    }

    /// Syncs the file and gives it its name.
    pub(crate) fn finish(self) -> Result<(), ConvertError> {
        self.file.finish()?;
        Ok(())
    }
}
