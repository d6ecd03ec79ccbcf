use super::gemm_cooperative::sides;
use super::{Access, Real, Shader};

/// Operations of a round of a subgroup: four products of matrices.
pub(crate) fn operations(side: usize) -> u64 {
    4 * 2 * (side as u64).pow(3)
}

pub(crate) fn shader(side: usize) -> Shader {
    let parts = vec![
        include_str!("parts/cooperative_enable.wgsl"),
        Real::F16.part(),
        sides(side),
        include_str!("peak_cooperative.wgsl"),
    ];
    Shader { name: "peak_cooperative", parts, bindings: &[(1, Access::ReadWrite)] }
}
