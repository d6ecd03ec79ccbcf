use dinov2_weights::{Model, ModelError};

/// Name of the bundled model.
pub const BUNDLED_NAME: &str = "vits14-focus-int8";

/// The model that is part of the binary: a ViT-S/14 with weights stored as int8; its card is in `models/`.
///
/// # Errors
/// Only if the binary was built without the feature `bundled-model`.
pub fn bundled_model() -> Result<Model, ModelError> {
    #[cfg(feature = "bundled-model")]
    return Model::from_static(
        include_bytes!("../../../models/vits14-focus-int8.safetensors"),
        "the bundled model vits14-focus-int8",
    );
    #[cfg(not(feature = "bundled-model"))]
    return Err(ModelError::Invalid {
        problem: "model: expected one to be named, got none (this program was built without a bundled model)"
            .into(),
        path: BUNDLED_NAME.into(),
    });
}
