//! int4 in a model file: two weights a byte, with a scale and a zero point for every group of weights in a row.
//!
//! Weight `j` of a row is `scale · (q_j - zero)` with the scale and the zero point of its group, `j / group`; q and zero
//! are 0..=15, so zero is always exact. A matrix `[n, k]` lies in the file as `NAME`: U8 `[n, k / 2]`, the first of two
//! weights in the low bits, `NAME.scale`: F16 `[n, k / group]` and `NAME.zero`: U8 `[n, k / group]`.
//!
//! This is a form of storage only: engines widen it to int8 rows or to f32 when they load a model.

use half::f16;

use crate::storage::decode_f16;

/// Largest integer of a weight and of a zero point.
pub(crate) const LARGEST: u8 = 15;

/// Allowed group sizes.
pub const INT4_GROUPS: [usize; 2] = [32, 64];

/// Whether a tensor can be int4: a matrix `[n, k]` whose rows are whole groups. Others stay int8.
///
/// ```
/// assert!(dinov2_weights::fits_int4(&[1536, 384], 64));
/// assert!(!dinov2_weights::fits_int4(&[384, 3, 14, 14], 64));
/// ```
pub fn fits_int4(shape: &[usize], group: usize) -> bool {
    matches!(shape, &[_, k] if k.is_multiple_of(group))
}

/// A matrix `[n, k]` in int4.
#[derive(Clone, Debug, PartialEq)]
pub struct Int4Groups {
    /// Weights of a group.
    pub group: usize,
    /// Integers, `[n, k]`, 0..=15.
    pub values: Vec<u8>,
    /// `[n, k / group]`, finite and at least 0.
    pub scale: Vec<f16>,
    /// `[n, k / group]`, 0..=15.
    pub zero: Vec<u8>,
}

impl Int4Groups {
    /// The weights, `[n, k]`.
    pub fn to_f32(&self) -> Vec<f32> {
        let groups = self.values.chunks_exact(self.group).zip(self.scale.iter().zip(&self.zero));
        let weights = groups.flat_map(|(values, (scale, &zero))| {
            values.iter().map(move |&value| scale.to_f32() * (f32::from(value) - f32::from(zero)))
        });
        weights.collect()
    }

    /// The integers in the form of a file, `[n, k / 2]`.
    pub(crate) fn packed(&self) -> Vec<u8> {
        self.values.as_chunks().0.iter().map(|[low, high]| low | high << 4).collect()
    }

    /// The scales in the form of a file.
    pub(crate) fn scale_bytes(&self) -> Vec<u8> {
        self.scale.iter().flat_map(|scale| scale.to_le_bytes()).collect()
    }
}

/// Decodes what a file holds into `out: [n, k]`. `scale`: f16 bytes. Lengths are checked by the caller.
pub(crate) fn decode(group: usize, packed: &[u8], scale: &[u8], zero: &[u8], out: &mut [f32]) {
    let mut scales = vec![0.0; zero.len()];
    decode_f16(scale, &mut scales);
    let groups = out.chunks_exact_mut(group).zip(packed.chunks_exact(group / 2));
    for ((out, packed), (scale, &zero)) in groups.zip(scales.iter().zip(zero)) {
        for (out, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(packed) {
            *out = [byte & LARGEST, byte >> 4].map(|value| scale * (f32::from(value) - f32::from(zero)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_back() {
        let group = 32;
        let matrix = Int4Groups {
            group,
            values: (0..3 * 64).map(|at| (at * 7 % 16) as u8).collect(),
            scale: (0..6).map(|at| f16::from_f32(0.25 * at as f32)).collect(),
            zero: vec![0, 3, 15, 8, 1, 7],
        };
        let packed = matrix.packed();
        // Weights 0, 7, 14 and 5 (21 modulo 16): the low bits come first.
        assert_eq!((packed.len(), &packed[..2]), (3 * 32, &[0x70, 0x5e][..]));
        let mut back = vec![f32::NAN; 3 * 64];
        decode(group, &packed, &matrix.scale_bytes(), &matrix.zero, &mut back);
        for (at, got) in back.iter().enumerate() {
            let zero = [0.0, 3.0, 15.0, 8.0, 1.0, 7.0][at / group];
            assert_eq!(*got, 0.25 * (at / group) as f32 * ((at * 7 % 16) as f32 - zero), "{at}");
        }
        assert_eq!(matrix.to_f32(), back);
    }

    #[test]
    fn only_matrices_of_whole_groups_fit() {
        assert!(fits_int4(&[5, 64], 32) && fits_int4(&[5, 64], 64) && fits_int4(&[5, 96], 32));
        assert!(!fits_int4(&[5, 96], 64) && !fits_int4(&[64], 32) && !fits_int4(&[64, 3, 8, 8], 64));
    }
}
