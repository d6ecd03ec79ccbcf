//! Compute kernels: per kernel one WGSL file and one Rust file of the same name. What several shaders share lies in
//! `parts/`; a shader is the concatenation of its parts, which WGSL allows in any order (only `enable` must come first).
//! Everything that a model's shape determines is an `override` constant, what a grid determines is in `Frame`.
//!
//! Matrices are row-major; rows are padded with zeros to whole vectors (see [`crate::layout`]).

pub(crate) mod attention;
pub(crate) mod cls_attention;
pub(crate) mod columns;
pub(crate) mod gemm_cooperative;
pub(crate) mod gemm_float;
pub(crate) mod gemm_i8;
pub(crate) mod layer_norm;
pub(crate) mod layer_norm_quantized;
pub(crate) mod patch_rows;
pub(crate) mod peak_cooperative;
pub(crate) mod peak_float;
pub(crate) mod peak_i8;
pub(crate) mod product;
#[cfg(test)]
mod product_case;
pub(crate) mod quantize;
#[cfg(test)]
mod validation;

/// Number type of activations between kernels and of float weights: `Real` in the shaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Real {
    F32,
    F16,
}

impl Real {
    /// Bytes of a number.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    fn part(self) -> &'static str {
        match self {
            Self::F32 => include_str!("parts/real_f32.wgsl"),
            Self::F16 => include_str!("parts/real_f16.wgsl"),
        }
    }
}

const FRAME: &str = include_str!("parts/frame.wgsl");
const ROW: &str = include_str!("parts/row.wgsl");
const NORM: &str = include_str!("parts/norm.wgsl");
const QUANTIZED: &str = include_str!("parts/quantized.wgsl");
const EPILOGUE: &str = include_str!("parts/epilogue.wgsl");
const CHANNELS: &str = include_str!("parts/channels.wgsl");
const GEMM_TILE: &str = include_str!("parts/gemm_tile.wgsl");

/// How a shader uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(test, derive(PartialOrd, Ord))]
pub(crate) enum Access {
    Uniform,
    Read,
    ReadWrite,
}

/// A compute shader: its text and the bindings of its only group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shader {
    /// Entry point, and stem of its file.
    pub(crate) name: &'static str,
    pub(crate) parts: Vec<&'static str>,
    pub(crate) bindings: &'static [(u32, Access)],
}

impl Shader {
    pub(crate) fn source(&self) -> String {
        self.parts.join("\n")
    }
}

/// An override constant.
pub(crate) type Constant = (&'static str, f64);

/// Workgroups for `count` items of one dimension: x within every device's limit, the rest in y.
pub(crate) fn linear(count: usize) -> [u32; 3] {
    /// WebGPU's default limit is 65535.
    const MOST: usize = 32_768;
    let x = count.clamp(1, MOST);
    [narrow(x), narrow(count.div_ceil(x).max(1)), 1]
}

/// Sizes fit 32 bits: they are bounded by what a buffer may hold.
pub(crate) fn narrow(size: usize) -> u32 {
    u32::try_from(size).expect("a size that a buffer of the device can have")
}

#[cfg(test)]
mod tests {
    use super::linear;

    #[test]
    fn workgroups_keep_within_a_dimension() {
        assert_eq!(linear(0), [1, 1, 1]);
        assert_eq!(linear(32_768), [32_768, 1, 1]);
        assert_eq!(linear(32_769), [32_768, 2, 1]);
    }
}
