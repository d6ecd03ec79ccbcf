//! ONNX files that torch wrote: their weights, and their features by tract.

mod common;

use common::{FIXTURES, Fixture, distance, features, two_threads};
use dinov2_core::{ImageView, MlpKind, PatchGrid, PositionConvention, Tap, Taps, VitSpec};
use dinov2_onnx::OnnxEngine;
use dinov2_weights::{infer, naming, onnx};

#[test]
fn imported_weights_are_the_state_dict() {
    for (name, _) in FIXTURES {
        let fixture = Fixture::load(name);
        let checkpoint = onnx::read(&fixture.onnx).unwrap();
        let named = naming::canonical(&checkpoint).unwrap();
        let names: Vec<&String> = named.tensors.keys().collect();
        assert_eq!(names, fixture.weights.keys().collect::<Vec<_>>(), "{name}");
        for (key, (shape, expected)) in &fixture.weights {
            assert_eq!(&named.tensors[key].shape, shape, "{name}: {key}");
            let got = named.tensors[key].to_f32();
            if key == "pos_embed" {
                assert!(distance(&got, expected) < 1e-6, "{name}: {key}");
            } else {
                assert_eq!(&got, expected, "{name}: {key}");
            }
        }
    }
}

#[test]
fn inferred_shapes_are_those_of_the_script() {
    let spec = |name: &str| {
        let checkpoint = onnx::read(&Fixture::load(name).onnx).unwrap();
        let mut named = naming::canonical(&checkpoint).unwrap();
        infer::infer(&checkpoint, &mut named, infer::Overrides::default()).unwrap().0
    };
    let hugging_face = VitSpec {
        dim: 24,
        depth: 2,
        heads: 2,
        patch_size: 4,
        registers: 0,
        mlp: MlpKind::Gelu,
        mlp_hidden: 48,
        layer_scale: true,
        norm_eps: 1e-6,
        position_table: PatchGrid { rows: 4, cols: 4 },
        position_convention: PositionConvention::ExactSize,
    };
    assert_eq!(spec("hugging_face"), hugging_face);
    assert_eq!(spec("half_decoder"), hugging_face);
    let registers = VitSpec {
        registers: 3,
        mlp: MlpKind::SwiGlu,
        position_table: PatchGrid { rows: 4, cols: 6 },
        position_convention: PositionConvention::ExactSizeAntialias,
        ..hugging_face.clone()
    };
    let got = spec("registers_swiglu");
    assert_eq!(got, VitSpec { mlp_hidden: got.mlp_hidden, ..registers });
    let timm = VitSpec {
        heads: 3,
        registers: 4,
        mlp_hidden: 96,
        position_convention: PositionConvention::ExactSizeAntialias,
        ..hugging_face
    };
    assert_eq!(spec("timm_registers"), timm);
}

#[test]
fn tract_agrees_with_torch() {
    for (name, most) in FIXTURES {
        let fixture = Fixture::load(name);
        let mut engine = OnnxEngine::open(&fixture.onnx, two_threads()).unwrap();
        let got = features(&mut engine, fixture.image(), &Taps::none());
        let distance = distance(got.tokens(), &fixture.tokens);
        assert!(distance <= most, "{name}: {distance:e}");
    }
}

#[test]
fn what_a_file_cannot_do_is_said() {
    let fixture = Fixture::load("timm_registers");
    let mut engine = OnnxEngine::open(&fixture.onnx, two_threads()).unwrap();
    let mut out = dinov2_core::Features::new();
    let mut fails = |image, taps: &Taps| {
        use dinov2_core::Extractor;
        engine.extract(image, taps, &mut out).unwrap_err().to_string()
    };
    let larger = vec![0; 20 * 16 * 3];
    let message = fails(ImageView::new(&larger, 20, 16).unwrap(), &Taps::none());
    assert!(
        message.starts_with("image size: expected 16x16, for which the graph was exported, got 20x16 in "),
        "{message}"
    );
    let message = fails(fixture.image(), &Taps::new([Tap::ClsAttention]));
    assert!(
        message.starts_with("tap cls_attention: expected only the final tokens of an ONNX file"),
        "{message}"
    );
}
