//! Writes a model file tensor by tensor, under a temporary name until it is whole.

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};

use dinov2_files::{Kind, Target, WholeFile};

use crate::header::{TensorEntry, encode};
use crate::layout::{Part, Slot};
use crate::metadata::METADATA_KEY;
use crate::storage::StoredDtype;
use crate::{ConvertError, Metadata};

/// A model file in the making. Dropped before [`ModelWriter::finish`], it leaves nothing behind.
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

    /// Bytes of the whole file.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Writes the bytes of one planned tensor, whose length they must have.
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), ConvertError> {
        let (start, end) = self.ranges[name];
        assert_eq!(bytes.len() as u64, end - start, "bytes of {name}");
        let written = self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.write_all(bytes));
        written.map_err(|source| ConvertError::io("write", self.file.target().path(), source))
    }

    /// Makes the file durable and gives it its name.
    pub(crate) fn finish(self) -> Result<(), ConvertError> {
        self.file.finish()?;
        Ok(())
    }
}
