use super::{Access, Shader};

/// Operations of a round of an invocation: eight dot products of four numbers.
pub(crate) const OPERATIONS: u64 = 8 * 4 * 2;

pub(crate) fn shader() -> Shader {
    Shader { name: "peak_i8", parts: vec![include_str!("peak_i8.wgsl")], bindings: &[(1, Access::ReadWrite)] }
}
