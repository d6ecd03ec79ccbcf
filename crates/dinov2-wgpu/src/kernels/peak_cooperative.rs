use super::gemm_cooperative::Units;
use super::{Access, Real, Shader};

/// Operations of a round of a subgroup: four products of matrices.
pub(crate) fn operations(units: Units) -> u64 {
    4 * 2 * (units.side as u64).pow(3)
}

pub(crate) fn shader(units: Units) -> Shader {
    let parts = vec![
        include_str!("parts/cooperative_enable.wgsl"),
        Real::F16.part(),
        units.part(),
        include_str!("peak_cooperative.wgsl"),
    ];
    Shader { name: "peak_cooperative", parts, bindings: &[(1, Access::ReadWrite)] }
}
