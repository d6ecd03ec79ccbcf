//! Position tables agree with torch, transformers and timm for every convention.

use std::path::Path;

use dinov2_core::{PatchGrid, PositionConvention};
use dinov2_weights::position::resample;
use safetensors::SafeTensors;

fn numbers(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = tensors.tensor(name).unwrap();
    data.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn every_convention_agrees_with_its_source() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/positions.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for name in tensors.names() {
        let [side, grid, convention] = name.split('.').collect::<Vec<_>>()[..] else { continue };
        let side: usize = side.parse().unwrap();
        let (rows, cols) = grid.split_once('x').unwrap();
        let target = PatchGrid { rows: rows.parse().unwrap(), cols: cols.parse().unwrap() };
        let convention = match convention {
            "official_scale_factor" => PositionConvention::OfficialScaleFactor,
            "exact_size" => PositionConvention::ExactSize,
            _ => PositionConvention::ExactSizeAntialias,
        };
        let table = numbers(&tensors, &format!("{side}.table"));
        let scale = table.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
        let ours = resample(&table, PatchGrid { rows: side, cols: side }, target, convention).unwrap();
        let theirs = numbers(&tensors, name);
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert!((ours - theirs).abs() <= 2e-6 * scale, "{name} {index}: {ours} {theirs}");
        }
        compared += 1;
    }
    assert_eq!(compared, 3 * 19);
}
