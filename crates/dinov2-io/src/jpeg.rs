//! JPEG: encoding, and the Huffman tables that cameras leave out.

use std::borrow::Cow;

use dinov2_core::ImageView;
use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};

use crate::FormatError;

/// Encodes RGB images as baseline JPEG with 4:2:0 chroma. Keeps its buffer.
#[derive(Clone, Debug)]
pub struct JpegEncoder {
    quality: u8,
    bytes: Vec<u8>,
}

impl JpegEncoder {
    /// quality: 1..=100, on the scale of the Independent JPEG Group.
    pub fn new(quality: u8) -> Self {
        Self { quality: quality.clamp(1, 100), bytes: Vec::new() }
    }

    /// Encodes `image`; the bytes are valid until the next call. None if a side exceeds the format's limit (65,535 px).
    pub fn encode(&mut self, image: ImageView<'_>) -> Option<&[u8]> {
        self.bytes.clear();
        let (width, height) = (u16::try_from(image.width_px()).ok()?, u16::try_from(image.height_px()).ok()?);
        let mut encoder = Encoder::new(&mut self.bytes, self.quality);
        encoder.set_sampling_factor(SamplingFactor::F_2_2);
        match encoder.encode(image.pixels(), width, height, ColorType::Rgb) {
            Ok(()) => Some(&self.bytes),
            // Writing into memory does not fail and the pixels have the size that they state.
            Err(EncodingError::ZeroImageDimensions { .. }) => None,
            Err(error) => unreachable!("{error}"),
        }
    }
}

/// Marker codes of ITU-T T.81, table B.1.
mod marker {
    /// Baseline and extended sequential frames: Huffman coding.
    pub(super) const SEQUENTIAL: [u8; 2] = [0xC0, 0xC1];
    pub(super) const PROGRESSIVE: u8 = 0xC2;
    pub(super) const TABLES: u8 = 0xC4;
    pub(super) const START: u8 = 0xD8;
    pub(super) const END: u8 = 0xD9;
    pub(super) const SCAN: u8 = 0xDA;
}

/// A segment that defines the four typical Huffman tables of ITU-T T.81, K.3: DC and AC of luminance (destination 0) and of
/// chrominance (1). Per table: class and destination, number of codes of each length of 1..=16 bits, values.
#[rustfmt::skip]
const STANDARD_TABLES: [u8; 4 + 29 + 179 + 29 + 179] = [
    0xFF, marker::TABLES, 0x01, 0xA2,
    0x00, 0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
    0x10, 0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125,
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
    0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52, 0xD1, 0xF0, 0x24, 0x33, 0x62, 0x72,
    0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x34, 0x35, 0x36, 0x37,
    0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
    0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x83,
    0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3,
    0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3,
    0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2,
    0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA,
    0x01, 0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
    0x11, 0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119,
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
    0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xA1, 0xB1, 0xC1, 0x09, 0x23, 0x33, 0x52, 0xF0, 0x15, 0x62, 0x72, 0xD1,
    0x0A, 0x16, 0x24, 0x34, 0xE1, 0x25, 0xF1, 0x17, 0x18, 0x19, 0x1A, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x35, 0x36,
    0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
    0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A,
    0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A,
    0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA,
    0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA,
    0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA,
];

/// Adds missing Huffman tables. USB Video Class lets cameras leave out the typical tables of ITU-T T.81, K.3. Tables in the
/// image are kept. Bytes that are not a JPEG are returned unchanged.
///
/// # Errors
/// A progressive image without tables: its tables are never the typical ones.
pub(crate) fn with_huffman_tables(encoded: &[u8]) -> Result<Cow<'_, [u8]>, FormatError> {
    match tables_missing_before_first_scan(encoded) {
        MissingTables::Nothing => Ok(Cow::Borrowed(encoded)),
        MissingTables::Tables => {
            let (start, rest) = encoded.split_at(2);
            Ok(Cow::Owned([start, &STANDARD_TABLES, rest].concat()))
        }
        MissingTables::ProgressiveTables => Err(FormatError::Field {
            what: "progressive JPEG",
            expected: "Huffman tables before its first scan".into(),
            got: "none".into(),
        }),
    }
}

/// What the first scan of a JPEG needs but is not defined before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MissingTables {
    Nothing,
    Tables,
    ProgressiveTables,
}

fn tables_missing_before_first_scan(encoded: &[u8]) -> MissingTables {
    if !encoded.starts_with(&[0xFF, marker::START]) {
        return MissingTables::Nothing;
    }
    // Bit 2 * class + destination, for the destinations 0 and 1.
    let (mut defined, mut frame, mut rest) = (0_u8, None, &encoded[2..]);
    while let Some((code, segment, after)) = next_segment(rest) {
        match code {
            marker::TABLES => defined |= tables_of(segment),
            marker::PROGRESSIVE => frame = Some((code, segment)),
            _ if marker::SEQUENTIAL.contains(&code) => frame = Some((code, segment)),
            marker::SCAN => {
                let Some((kind, frame)) = frame else { return MissingTables::Nothing };
                let needed = needed_by(segment, frame, kind == marker::PROGRESSIVE);
                return match needed & !defined {
                    0 => MissingTables::Nothing,
                    _ if kind == marker::PROGRESSIVE => MissingTables::ProgressiveTables,
                    _ => MissingTables::Tables,
                };
            }
            _ => {}
        }
        rest = after;
    }
    MissingTables::Nothing
}

/// Marker and content of the next segment, and the bytes after it. None at the end marker or if the segment is incomplete.
fn next_segment(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (_, rest) = bytes.split_at_checked(1).filter(|(start, _)| start == b"\xFF")?;
    let fill = rest.iter().position(|byte| *byte != 0xFF)?;
    let (&code, rest) = rest[fill..].split_first()?;
    match code {
        0x00 | marker::END => None,
        // Restarts and the marker for temporary use have no content.
        0x01 | 0xD0..=0xD8 => Some((code, &[], rest)),
        _ => {
            let length = u16::from_be_bytes(*rest.first_chunk()?);
            let (segment, after) = rest.split_at_checked(usize::from(length))?;
            Some((code, segment.get(2..)?, after))
        }
    }
}

/// The tables that a segment defines.
fn tables_of(mut segment: &[u8]) -> u8 {
    let mut defined = 0;
    while let Some((head, rest)) = segment.split_first_chunk::<17>() {
        let [class_and_destination, counts @ ..] = *head;
        defined |= table_bit(class_and_destination >> 4, class_and_destination & 15);
        let values: usize = counts.iter().map(|count| usize::from(*count)).sum();
        segment = rest.get(values..).unwrap_or_default();
    }
    defined
}

fn table_bit(class: u8, destination: u8) -> u8 {
    if class < 2 && destination < 2 { 1 << (2 * class + destination) } else { 0 }
}

/// The tables that a scan refers to. Where it has not all components of its frame, more scans follow: all tables.
fn needed_by(scan: &[u8], frame: &[u8], progressive: bool) -> u8 {
    let count = scan.first().map_or(0, |count| usize::from(*count));
    // Components of a frame: behind precision, height and width.
    if !progressive && frame.get(5).is_some_and(|all| usize::from(*all) > count) {
        return 0b1111;
    }
    let components = scan.get(1..).unwrap_or_default().chunks_exact(2).take(count);
    components.fold(0, |needed, pair| {
        let (dc, ac) = (table_bit(0, pair[1] >> 4), table_bit(1, pair[1] & 15));
        // The first scan of a progressive image has DC coefficients only.
        needed | if progressive { dc } else { dc | ac }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, decode_still};

    #[test]
    fn decodes_to_what_was_encoded() {
        // Gradients: what chroma at half the size keeps.
        let (width, height) = (70, 41);
        let pixels: Vec<u8> = (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| [3 * x as u8, 5 * y as u8, 200 - 2 * x as u8]))
            .collect();
        let image = ImageView::new(&pixels, width, height).unwrap();
        let mut encoder = JpegEncoder::new(95);
        let first = encoder.encode(image).unwrap().to_vec();
        assert_eq!(encoder.encode(image).unwrap(), first);
        let mut frame = Frame::new();
        decode_still(&first, &mut frame).unwrap();
        assert_eq!((frame.width_px, frame.height_px), (width, height));
        let worst = frame.pixels.iter().zip(&pixels).map(|(got, want)| got.abs_diff(*want)).max().unwrap();
        assert!(worst <= 8, "{worst}");
    }
}
