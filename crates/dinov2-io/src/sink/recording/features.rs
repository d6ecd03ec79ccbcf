use half::f16;
use half::slice::HalfFloatSliceExt;

/// How the numbers of a feature are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeatureNumbers {
    /// 32-bit floats: exact.
    F32,
    /// 16-bit floats, rounded to nearest: 11 significant bits. Beyond 65,504 they are infinite.
    #[default]
    F16,
    /// 8-bit integers with one scale per frame, that of its largest number.
    Int8,
}

impl FeatureNumbers {
    /// As it stands in a feature map.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }
}

/// Replaces `bytes` by `values`, little-endian, and returns what the stored numbers must be multiplied by.
pub(super) fn encode(numbers: FeatureNumbers, values: &[f32], bytes: &mut Vec<u8>) -> f32 {
    bytes.clear();
    match numbers {
        FeatureNumbers::F32 => {
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            1.0
        }
        FeatureNumbers::F16 => {
            let mut halves = [f16::ZERO; 1024];
            for values in values.chunks(halves.len()) {
                let halves = &mut halves[..values.len()];
                halves.convert_from_f32_slice(values);
                bytes.extend(halves.iter().flat_map(|value| value.to_le_bytes()));
            }
            1.0
        }
        FeatureNumbers::Int8 => {
            let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
            bytes.extend(values.iter().map(|value| (value / scale).round() as i8 as u8));
            scale
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the buffer of the conversion, both signs, a zero.
    fn values() -> Vec<f32> {
        (0..2500).map(|index| (index as f32 - 700.0) / 33.0).collect()
    }

    #[test]
    fn floats_are_rounded_to_nearest() {
        let (values, mut bytes) = (values(), vec![7; 3]);
        assert_eq!(encode(FeatureNumbers::F32, &values, &mut bytes), 1.0);
        let stored: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(stored, values);
        assert_eq!(encode(FeatureNumbers::F16, &values, &mut bytes), 1.0);
        assert_eq!(bytes.len(), 2 * values.len());
        for (stored, value) in bytes.chunks_exact(2).zip(&values) {
            let stored = f16::from_le_bytes(stored.try_into().unwrap()).to_f32();
            assert!((stored - value).abs() <= value.abs() / 2048.0, "{stored} for {value}");
        }
    }

    #[test]
    fn integers_are_within_half_a_step() {
        let (values, mut bytes) = (values(), Vec::new());
        let scale = encode(FeatureNumbers::Int8, &values, &mut bytes);
        assert_eq!(bytes.len(), values.len());
        for (stored, value) in bytes.iter().zip(&values) {
            assert!((f32::from(*stored as i8) * scale - value).abs() <= scale * 0.5001);
        }
        assert_eq!(encode(FeatureNumbers::Int8, &[0.0; 3], &mut bytes), 1.0);
        assert_eq!(bytes, [0; 3]);
    }
}
