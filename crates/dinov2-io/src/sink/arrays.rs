//! Outputs of heads as arrays of numbers, for files that hold arrays.

use std::borrow::Cow;
use std::io::{self, Write};

use dinov2_core::{HeadOutput, ScoredBox};

/// Numbers of an array, row-major.
pub(super) enum Values<'a> {
    F32(Cow<'a, [f32]>),
    U8(&'a [u8]),
}

impl Values<'_> {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => 4 * values.len(),
            Self::U8(values) => values.len(),
        }
    }

    /// Little-endian bytes.
    pub(super) fn write(&self, file: &mut impl Write) -> io::Result<()> {
        let values = match self {
            Self::U8(values) => return file.write_all(values),
            Self::F32(values) => values,
        };
        let mut bytes = [0; 4096];
        for chunk in values.chunks(bytes.len() / 4) {
            for (target, value) in bytes.chunks_exact_mut(4).zip(chunk) {
                target.copy_from_slice(&value.to_le_bytes());
            }
            file.write_all(&bytes[..chunk.len() * 4])?;
        }
        Ok(())
    }
}

/// Shape and values: a map `[rows, cols]` f32, a mask `[rows, cols]` u8, colours `[rows, cols, 3]` u8, a vector `[n]` f32, a score `[]` f32,
/// boxes `[n, 6]` f32: left, top, width, height in pixels, score, class.
pub(super) fn array_of(output: &HeadOutput) -> (Vec<usize>, Values<'_>) {
    match output {
        HeadOutput::Map { grid, values } => (vec![grid.rows, grid.cols], Values::F32(values.into())),
        HeadOutput::Mask { grid, classes } => (vec![grid.rows, grid.cols], Values::U8(classes)),
        HeadOutput::Colours { grid, rgb } => (vec![grid.rows, grid.cols, 3], Values::U8(rgb)),
        HeadOutput::Vector(values) => (vec![values.len()], Values::F32(values.into())),
        HeadOutput::Score(value) => (Vec::new(), Values::F32(vec![*value].into())),
        HeadOutput::Boxes(boxes) => {
            let rows = boxes.iter().flat_map(|ScoredBox { rect, score, class }| {
                let sides =
                    [rect.left_px, rect.top_px, rect.width_px, rect.height_px].map(|side| side as f32);
                sides.into_iter().chain([*score, *class as f32])
            });
            (vec![boxes.len(), 6], Values::F32(rows.collect()))
        }
    }
}
