use wgpu::{Adapter, CooperativeScalarType, Features};

/// Whether the adapter multiplies f16 matrices of 16 x 16 into f32 sums.
pub(crate) fn is_offered(adapter: &Adapter) -> bool {
    adapter.features().contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
        && adapter.features().contains(Features::SHADER_F16)
        && adapter.cooperative_matrix_properties().iter().any(|offer| {
            (offer.m_size, offer.n_size, offer.k_size) == (16, 16, 16)
                && offer.ab_type == CooperativeScalarType::F16
                && offer.cr_type == CooperativeScalarType::F32
        })
}
