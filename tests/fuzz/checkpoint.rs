//! What `convert` does to a checkpoint before it writes anything.

use dinov2_weights::infer::{Overrides, infer};
use dinov2_weights::naming::canonical;
use dinov2_weights::{checkpoint_from_bytes, layout::slots};

pub fn read(bytes: &[u8], label: &str) {
    let Ok(checkpoint) = checkpoint_from_bytes(bytes.to_vec(), label) else { return };
    let Ok(mut backbone) = canonical(&checkpoint) else { return };
    let Ok((spec, _)) = infer(&checkpoint, &mut backbone, Overrides::default()) else { return };
    for slot in slots(&spec) {
        if let Some(tensor) = backbone.tensors.get(&slot.name) {
            assert_eq!(tensor.to_f32().len(), slot.len(), "{}", slot.name);
        }
    }
}
