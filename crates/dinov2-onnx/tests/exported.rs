//! Our own exports: run by tract against torch's numbers, and read back.

mod common;

use std::path::Path;

use common::{FIXTURES, Fixture, distance, features, two_threads};
use dinov2_core::{PatchGrid, Tap, Taps};
use dinov2_onnx::{ExportConfig, OnnxEngine, OnnxError, Precision, Resolution, export, export_to_bytes};
use dinov2_weights::{naming, onnx};

/// Tokens of the fixture's image by tract from an exported file.
fn run_exported(fixture: &Fixture, config: &ExportConfig) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exported.onnx");
    let exported = export(&fixture.model(), config, &path).unwrap();
    assert_eq!(exported.model, path);
    let mut files: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files, [Some(exported.model), exported.data].into_iter().flatten().collect::<Vec<_>>());
    let mut engine = OnnxEngine::open(&path, two_threads()).unwrap();
    features(&mut engine, fixture.image(), &Taps::none()).tokens().to_vec()
}

#[test]
fn static_dynamic_and_external_exports_agree_with_torch() {
    for (name, most) in FIXTURES {
        let fixture = Fixture::load(name);
        let fixed = ExportConfig::new(Resolution::Static(fixture.grid()));
        let dynamic = ExportConfig::new(Resolution::Dynamic);
        let external = ExportConfig { max_embedded_bytes: 0, ..fixed.clone() };
        for config in [fixed, dynamic, external] {
            let distance = distance(&run_exported(&fixture, &config), &fixture.tokens);
            assert!(distance <= most, "{name}: {distance:e} with {config:?}");
        }
    }
}

#[test]
fn f16_exports_stay_near() {
    for (name, _) in FIXTURES {
        let fixture = Fixture::load(name);
        let config = ExportConfig {
            precision: Precision::F16,
            ..ExportConfig::new(Resolution::Static(fixture.grid()))
        };
        let distance = distance(&run_exported(&fixture, &config), &fixture.tokens);
        assert!(distance <= 5e-3, "{name}: {distance:e}");
    }
}

#[test]
fn model_files_give_every_tap() {
    let fixture = Fixture::load("hugging_face");
    let model = fixture.model();
    let mut engine = OnnxEngine::from_model(&model, two_threads()).unwrap();
    let words = "0,1,0:norm,1:norm,0:query,0:key,0:value,1:query,1:key,1:value,cls-attention";
    let taps = Taps::parse(words, 2).unwrap();
    let got = features(&mut engine, fixture.image(), &taps);
    assert!(distance(got.tokens(), &fixture.tokens) <= 1e-4);
    assert_eq!(got.taps().count(), fixture.taps.len());
    for (tap, values) in got.taps() {
        let distance = distance(values, &fixture.taps[&tap.to_string()]);
        assert!(distance <= 1e-4, "{tap}: {distance:e}");
    }
    // Another set of taps, then another grid, then the first again.
    let plain = features(&mut engine, fixture.image(), &Taps::none());
    assert!(distance(plain.tokens(), &fixture.tokens) <= 1e-4 && plain.taps().count() == 0);
    let pixels = vec![7; 8 * 12 * 3];
    let image = dinov2_core::ImageView::new(&pixels, 12, 8).unwrap();
    assert_eq!(features(&mut engine, image, &Taps::none()).tokens().len(), (1 + 6) * 24);
    assert_eq!(features(&mut engine, fixture.image(), &taps).tokens(), got.tokens());
}

#[test]
fn exports_are_read_back_without_loss() {
    for (name, _) in FIXTURES {
        let fixture = Fixture::load(name);
        let model = fixture.model();
        let elsewhere = PatchGrid { rows: 3, cols: 5 };
        for resolution in
            [Resolution::Static(elsewhere), Resolution::Static(fixture.grid()), Resolution::Dynamic]
        {
            let mut config = ExportConfig::new(resolution);
            config.taps = Taps::new([Tap::Layer { layer: 1, norm: true }, Tap::ClsAttention]);
            let bytes = export_to_bytes(&model, &config).unwrap();
            let decoded = onnx::decode(bytes.into(), "exported.onnx").unwrap();
            let checkpoint = onnx::backbone(&decoded, None, "exported.onnx").unwrap().checkpoint;
            assert_eq!(checkpoint.hints.heads, Some(model.spec().heads), "{name}");
            assert_eq!(checkpoint.hints.norm_eps, Some(model.spec().norm_eps), "{name}");
            assert_eq!(checkpoint.hints.position_table, Some(model.spec().position_table), "{name}");
            let named = naming::canonical(&checkpoint).unwrap();
            for key in model.names() {
                assert_eq!(
                    named.tensors[key].to_f32(),
                    model.f32(key).unwrap(),
                    "{name}: {key} {resolution:?}"
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_exported_is_said() {
    let model = Fixture::load("hugging_face").model();
    let mut config = ExportConfig::new(Resolution::Dynamic);
    let error = export(&model, &config, Path::new("/nowhere/model.onnx")).unwrap_err();
    assert_eq!(dinov2_files::chain(&error), "cannot write /nowhere: no such folder");
    config.taps = Taps::new([Tap::Layer { layer: 2, norm: false }]);
    assert!(matches!(export_to_bytes(&model, &config), Err(OnnxError::Tap(_))));
    let config = ExportConfig::new(Resolution::Static(PatchGrid { rows: 0, cols: 4 }));
    assert!(matches!(export_to_bytes(&model, &config), Err(OnnxError::Model(_))));
}
