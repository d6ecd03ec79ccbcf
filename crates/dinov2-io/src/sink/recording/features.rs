use half::f16;
use half::slice::HalfFloatSliceExt;

/// How the numbers of a feature are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
