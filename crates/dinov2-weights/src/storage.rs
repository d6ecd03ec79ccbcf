//! Encoding of numbers in a model file: f32, f16, bf16, or int8 with one scale per output channel. int4: [`crate::int4`].
//!
//! int8: for a row `w` of a weight matrix `[out, …]`, `scale = max|w| / 127` and `q = round(w / scale)`, ties away from
//! zero, so that `|w - q·scale| <= scale / 2` for every weight and nothing is clipped. A row of zeros has scale 0.
//! Bytes are little endian.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// How the matrices of a model file are stored. Biases, norms, LayerScale, tokens and the position table stay f32:
/// together they are under 3 % of a model, and every token passes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// 4 bytes per weight, exact.
    F32,
    /// 2 bytes per weight, 11 bits of precision.
    F16,
    /// 2 bytes per weight, 8 bits of precision, the range of f32.
    Bf16,
    /// 1 byte per weight, symmetric per output channel.
    Int8,
    /// Half a byte per weight and a scale per group of weights; single matrices may be int8. Only quantization with
    /// calibration images writes it (`dinov2-edge quantize --precision int4`).
    Int4,
}

impl Storage {
    /// Number type of the matrices; `None` for int4, where each matrix is int4 or int8.
    pub(crate) fn matrix_dtype(self) -> Option<StoredDtype> {
        match self {
            Self::F32 => Some(StoredDtype::F32),
            Self::F16 => Some(StoredDtype::F16),
            Self::Bf16 => Some(StoredDtype::Bf16),
            Self::Int8 => Some(StoredDtype::I8),
            Self::Int4 => None,
        }
    }
}

/// Number type of one tensor in a model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoredDtype {
    /// f32.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Signed bytes with a scale per output channel.
    I8,
    /// Two weights a byte, with a scale and a zero point per group.
    Int4 {
        /// Weights of a group.
        group: usize,
    },
}

impl std::fmt::Display for StoredDtype {
    /// The word of the safetensors format; for int4, which has none, `int4`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::I8 => "I8",
            Self::Int4 { .. } => "int4",
        })
    }
}

impl std::fmt::Display for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        })
    }
}

/// Message for conversions to int4.
pub(crate) const INT4_ADVICE: &str =
    "storage: expected f32, f16, bf16 or int8, got int4 (dinov2-edge quantize --precision int4 writes it)";

impl std::str::FromStr for Storage {
    type Err = String;

    /// The words of [`Storage`]'s `Display`, less int4: a file cannot be converted to it.
    fn from_str(word: &str) -> Result<Self, String> {
        if word == "int4" {
            return Err(INT4_ADVICE.into());
        }
        [Self::F32, Self::F16, Self::Bf16, Self::Int8]
            .into_iter()
            .find(|storage| storage.to_string() == word)
            .ok_or_else(|| format!("storage: expected f32, f16, bf16 or int8, got {word:?}"))
    }
}

/// Halves converted at a time: the CPU's conversion instructions work on slices.
const HALF_BLOCK: usize = 256;

/// Little-endian bytes of f32 values.
pub(crate) fn encode_f32(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * 4];
    for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
    bytes
}

/// Rounds to nearest even; values beyond the range of f16 become infinite, which [`first_not_finite`] finds.
pub(crate) fn encode_f16(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * 2];
    let mut halves = [f16::ZERO; HALF_BLOCK];
    for (bytes, values) in bytes.chunks_mut(2 * HALF_BLOCK).zip(values.chunks(HALF_BLOCK)) {
        let halves = &mut halves[..values.len()];
        halves.convert_from_f32_slice(values);
        for (bytes, half) in bytes.as_chunks_mut().0.iter_mut().zip(halves) {
            *bytes = half.to_le_bytes();
        }
    }
    bytes
}

/// Rounds to nearest even.
pub(crate) fn encode_bf16(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * 2];
    for (bytes, &value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
        *bytes = bf16::from_f32(value).to_le_bytes();
    }
    bytes
}

/// A matrix in int8 with a scale per row (output channel).
#[derive(Clone, Debug, PartialEq)]
pub struct Int8Rows {
    /// `[rows, …]`.
    pub values: Vec<i8>,
    /// `[rows]`.
    pub scale: Vec<f32>,
}

impl Int8Rows {
    /// Rounds a matrix of `rows` rows to nearest, ties away from zero, with `scale = max|row| / limit`.
    ///
    /// # Panics
    /// When `values` is no whole number of rows, `rows` is zero, or `limit` beyond 1..=127.
    pub fn round(values: &[f32], rows: usize, limit: u8) -> Self {
        assert!(rows > 0 && values.len().is_multiple_of(rows), "Int8Rows::round: values [{rows}, ...]");
        assert!((1..=127).contains(&limit), "Int8Rows::round: limit {limit}");
        let (bytes, scale) = quantize_i8(values, rows, limit);
        Self { values: bytes.into_iter().map(|byte| byte as i8).collect(), scale }
    }

    /// The weights, `[rows, …]`.
    pub fn to_f32(&self) -> Vec<f32> {
        let columns = self.values.len() / self.scale.len().max(1);
        let rows = self.values.chunks_exact(columns.max(1)).zip(&self.scale);
        rows.flat_map(|(row, &scale)| row.iter().map(move |&value| f32::from(value) * scale)).collect()
    }
}

/// Default for the largest magnitude of an int8 weight, in units of its scale.
pub(crate) const INT8_LIMIT: u8 = 127;

/// Quantizes a matrix of `rows` rows: `(q: [rows, …] as bytes, scale: [rows])`. `values` must be finite.
pub(crate) fn quantize_i8(values: &[f32], rows: usize, limit: u8) -> (Vec<u8>, Vec<f32>) {
    let limit = f32::from(limit);
    let mut quantized = vec![0; values.len()];
    let mut scales = Vec::with_capacity(rows);
    let columns = values.len() / rows;
    for (row, quantized) in values.chunks_exact(columns).zip(quantized.chunks_exact_mut(columns)) {
        let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        // A subnormal scale would lose precision and its inverse overflow; such a row is zero for all purposes.
        let scale = if largest / limit < f32::MIN_POSITIVE { 0.0 } else { largest / limit };
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        for (byte, &value) in quantized.iter_mut().zip(row) {
            *byte = (value * inverse).round().clamp(-limit, limit) as i8 as u8;
        }
        scales.push(scale);
    }
    (quantized, scales)
}

/// Decodes little-endian f32 into `out`, of as many numbers.
pub(crate) fn decode_f32(bytes: &[u8], out: &mut [f32]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = f32::from_le_bytes(*bytes);
    }
}

/// Decodes little-endian f16 into `out`, of as many numbers.
pub(crate) fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    let mut halves = [f16::ZERO; HALF_BLOCK];
    for (out, bytes) in out.chunks_mut(HALF_BLOCK).zip(bytes.chunks(2 * HALF_BLOCK)) {
        let halves = &mut halves[..out.len()];
        for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(*bytes);
        }
        halves.convert_to_f32_slice(out);
    }
}

/// Decodes little-endian bf16 into `out`, of as many numbers.
pub(crate) fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

/// Decodes rows of signed bytes into `out`, of as many numbers. `scale`: f32 bytes, one per row.
pub(crate) fn decode_i8(bytes: &[u8], scale: &[u8], out: &mut [f32]) {
    let scales = scale.as_chunks().0;
    let columns = out.len() / scales.len().max(1);
    let rows = out.chunks_exact_mut(columns.max(1)).zip(bytes.chunks_exact(columns.max(1)));
    for ((out, bytes), scale) in rows.zip(scales) {
        let scale = f32::from_le_bytes(*scale);
        for (out, &byte) in out.iter_mut().zip(bytes) {
            *out = f32::from(byte as i8) * scale;
        }
    }
}

/// Position and value of the first NaN or infinity.
pub(crate) fn first_not_finite(values: &[f32]) -> Option<(usize, f32)> {
    // Without a branch per element this is vectorised; only a block that holds one is searched.
    const BLOCK: usize = 4096;
    let tainted = |block: &[f32]| block.iter().fold(false, |tainted, value| tainted | !value.is_finite());
    let (at, block) = values.chunks(BLOCK).enumerate().find(|(_, block)| tainted(block))?;
    let within = block.iter().position(|value| !value.is_finite())?;
    Some((at * BLOCK + within, block[within]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int8_error_is_at_most_half_a_step() {
        let rows = 5;
        let mut state = 1u32;
        let mut values: Vec<f32> = (0..rows * 67)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect();
        values[..67].fill(0.0);
        values[67..134].iter_mut().for_each(|value| *value *= 1e-6);
        values[150] = 900.0;
        values[201..268].fill(1e-40);
        let (bytes, scales) = quantize_i8(&values, rows, INT8_LIMIT);
        assert_eq!((scales[0], scales[3]), (0.0, 0.0));
        let mut decoded = vec![f32::NAN; values.len()];
        decode_i8(&bytes, &encode_f32(&scales), &mut decoded);
        for (index, (value, back)) in values.iter().zip(&decoded).enumerate() {
            let step = scales[index / 67];
            assert!(
                (value - back).abs() <= step * 0.5 * (1.0 + 1e-5) + 1e-39,
                "{index}: {value} {back} {step}"
            );
        }
    }

    #[test]
    fn halves_round_to_nearest() {
        let values = [1.0, 257.0 / 256.0, -3.3, 65504.0, 1e-8];
        let mut back = [0.0; 5];
        decode_f16(&encode_f16(&values), &mut back);
        assert_eq!(back, [1.0, 257.0 / 256.0, -3.3007813, 65504.0, 0.0]);
        decode_bf16(&encode_bf16(&values), &mut back);
        assert_eq!(back, [1.0, 1.0, -3.296875, 65536.0, 1.0011718e-8]);
        decode_f32(&encode_f32(&values), &mut back);
        assert_eq!(back, values);
    }

    #[test]
    fn not_finite_is_found_wherever_it_is() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 1, 4095, 4096, 9000] {
                let mut values = vec![f32::MAX; 9001];
                values[at] = wrong;
                assert_eq!(first_not_finite(&values).map(|(index, _)| index), Some(at));
            }
        }
        assert!(first_not_finite(&[f32::MAX, f32::MIN, -0.0]).is_none());
    }
}
