use super::{Access, Real, Shader};

/// Operations of a round of an invocation: eight multiplications and additions of four numbers.
pub(crate) const OPERATIONS: u64 = 8 * 4 * 2;

pub(crate) fn shader(real: Real) -> Shader {
    Shader {
        name: "peak_float",
        parts: vec![real.part(), include_str!("peak_float.wgsl")],
        bindings: &[(1, Access::ReadWrite)],
    }
}
