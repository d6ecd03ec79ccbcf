//! Every kind of checkpoint, converted, holds the weights of the reference's own state dict.

use std::path::{Path, PathBuf};

use dinov2_core::{MlpKind, PatchGrid, PositionConvention};
use dinov2_weights::{
    ConvertOptions, Converted, Model, SourceFormat, Storage, StoredDtype, convert, inspect, layout,
};
use safetensors::SafeTensors;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Converts into a folder that is removed afterwards; the model lives in memory.
fn converted(input: &Path, options: &ConvertOptions) -> (Model, Converted) {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.safetensors");
    let mut last = 0;
    let report = convert(input, &output, options, &mut |progress| {
        assert_eq!(progress.done, last + 1);
        last = progress.done;
    })
    .unwrap();
    assert_eq!(last, report.tensors);
    let bytes = std::fs::read(&output).unwrap();
    assert_eq!(bytes.len() as u64, report.file_bytes);
    SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");
    (Model::from_bytes(bytes, "model.safetensors").unwrap(), report)
}

/// The expected weights, `(name, shape, values)`.
fn expected(name: &str) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(fixture(&format!("{name}.expected.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| -> Vec<f32> {
        data.as_chunks().0.iter().map(|half| half::f16::from_le_bytes(*half).to_f32()).collect()
    };
    tensors
        .tensors()
        .into_iter()
        .map(|(name, tensor)| (name, tensor.shape().to_vec(), values(tensor.data())))
        .collect()
}

/// Asserts that the model holds exactly the expected weights.
fn assert_holds(model: &Model, name: &str) {
    let expected = expected(name);
    for (tensor, shape, values) in &expected {
        assert_eq!(model.tensor(tensor).unwrap().shape, shape, "{tensor}");
        assert_eq!(&model.f32(tensor).unwrap(), values, "{tensor}");
    }
    assert_eq!(model.names().count(), expected.len());
}

fn plain() -> ConvertOptions {
    ConvertOptions::new(Storage::F32)
}

#[test]
fn official_state_dict() {
    let refused = convert(&fixture("official.pth"), Path::new("unused"), &plain(), &mut |_| {}).unwrap_err();
    let told = refused.to_string();
    assert!(told.contains("expected --heads N") && told.ends_with("official.pth"), "{told}");
    let (model, report) = converted(&fixture("official.pth"), &ConvertOptions { heads: Some(3), ..plain() });
    assert_holds(&model, "official");
    let spec = model.spec();
    assert_eq!((spec.dim, spec.depth, spec.heads, spec.patch_size, spec.registers), (24, 2, 3, 2, 0));
    assert_eq!((spec.mlp, spec.mlp_hidden, spec.layer_scale), (MlpKind::Gelu, 48, true));
    assert_eq!((spec.norm_eps, spec.position_table), (1e-6, PatchGrid { rows: 3, cols: 3 }));
    assert_eq!(spec.position_convention, PositionConvention::OfficialScaleFactor);
    assert_eq!(report.metadata.provenance.source_format, SourceFormat::Official);
    assert_eq!(report.metadata.provenance.source, "official.pth");
    assert_eq!(report.ignored, 0);
}

#[test]
fn official_training_checkpoint() {
    let (model, report) = converted(&fixture("official_training.pth"), &plain());
    assert_holds(&model, "official_training");
    let spec = model.spec();
    assert_eq!((spec.dim, spec.heads, spec.registers, spec.layer_scale), (64, 1, 4, false));
    assert_eq!((spec.mlp, spec.mlp_hidden), (MlpKind::SwiGlu, 24));
    assert_eq!(spec.position_convention, PositionConvention::ExactSizeAntialias);
    assert_eq!(report.metadata.provenance.source_format, SourceFormat::Official);
    assert_eq!(report.ignored, 2, "the student's patch embedding and the teacher's head");
}

#[test]
fn hugging_face_folder_and_both_spellings() {
    let by_heads = ConvertOptions { heads: Some(2), ..plain() };
    for (input, options, eps) in [
        ("hugging_face", plain(), 1e-5),
        ("hugging_face/model.safetensors", plain(), 1e-5),
        ("hugging_face_newer_names.safetensors", by_heads, 1e-6),
    ] {
        let (model, report) = converted(&fixture(input), &options);
        assert_holds(&model, "hugging_face");
        let spec = model.spec();
        assert_eq!((spec.heads, spec.norm_eps), (2, eps), "{input}");
        assert_eq!(spec.position_convention, PositionConvention::ExactSize);
        assert_eq!(report.metadata.provenance.source_format, SourceFormat::HuggingFace);
    }
}

#[test]
fn hugging_face_shards_with_registers_and_no_qkv_bias() {
    let by_heads = ConvertOptions { heads: Some(2), ..plain() };
    for (input, options) in
        [("hugging_face_shards", plain()), ("hugging_face_shards_newer_names.safetensors", by_heads)]
    {
        let (model, _) = converted(&fixture(input), &options);
        assert_holds(&model, "hugging_face_shards");
        let spec = model.spec();
        assert_eq!((spec.registers, spec.mlp, spec.mlp_hidden), (3, MlpKind::SwiGlu, 32));
        assert_eq!(spec.position_convention, PositionConvention::ExactSizeAntialias);
    }
}

#[test]
fn timm_with_and_without_registers() {
    let (model, report) = converted(&fixture("timm.safetensors"), &plain());
    assert_holds(&model, "timm");
    assert_eq!(model.spec().heads, 1);
    assert_eq!(model.spec().position_convention, PositionConvention::ExactSizeAntialias);
    assert_eq!(report.metadata.provenance.source_format, SourceFormat::Timm);

    let (model, report) = converted(&fixture("timm_registers"), &plain());
    assert_holds(&model, "timm_registers");
    let spec = model.spec();
    assert_eq!((spec.heads, spec.registers, spec.mlp, spec.mlp_hidden), (3, 2, MlpKind::SwiGlu, 24));
    assert_eq!(report.metadata.provenance.source_format, SourceFormat::Timm);
    assert_eq!(report.metadata.provenance.licence.as_deref(), Some("apache-2.0"));
    assert_eq!(report.metadata.preprocessing.mean, [0.0, 0.25, 0.5]);
}

#[test]
fn options_win_over_the_source() {
    let options = ConvertOptions {
        heads: Some(4),
        convention: Some(PositionConvention::ExactSize),
        source: Some("me".into()),
        licence: Some("CC0-1.0".into()),
        notes: Some("note".into()),
        ..plain()
    };
    let (model, _) = converted(&fixture("timm_registers"), &options);
    assert_eq!((model.spec().heads, model.spec().position_convention), (4, PositionConvention::ExactSize));
    let provenance = &model.metadata().provenance;
    assert_eq!(
        (provenance.source.as_str(), provenance.licence.as_deref(), provenance.notes.as_deref()),
        ("me", Some("CC0-1.0"), Some("note"))
    );
    let wrong = ConvertOptions { heads: Some(5), ..plain() };
    let told = convert(&fixture("timm_registers"), Path::new("unused"), &wrong, &mut |_| {}).unwrap_err();
    let told = dinov2_files::chain(&told);
    assert!(told.ends_with("dim: expected a multiple of heads (5), got 48"), "{told}");
}

#[test]
fn reduced_storage_keeps_within_its_rounding() {
    for (storage, dtype) in [
        (Storage::F16, StoredDtype::F16),
        (Storage::Bf16, StoredDtype::Bf16),
        (Storage::Int8, StoredDtype::I8),
    ] {
        let (model, _) = converted(&fixture("official_training.pth"), &ConvertOptions::new(storage));
        for slot in layout::slots(model.spec()) {
            let (_, _, exact) =
                expected("official_training").into_iter().find(|(name, ..)| *name == slot.name).unwrap();
            let stored = model.tensor(&slot.name).unwrap();
            assert_eq!(stored.dtype, if slot.matrix { dtype } else { StoredDtype::F32 }, "{}", slot.name);
            let scales: Vec<f32> = stored
                .scale
                .unwrap_or_default()
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect();
            let row = exact.len() / slot.shape[0];
            for (index, (exact, got)) in exact.iter().zip(model.f32(&slot.name).unwrap()).enumerate() {
                let allowed = match stored.dtype {
                    StoredDtype::F32 | StoredDtype::F16 => 0.0,
                    StoredDtype::Bf16 => exact.abs() / 256.0,
                    StoredDtype::I8 => scales[index / row] * 0.50001,
                    StoredDtype::Int4 { .. } => panic!("no conversion writes int4"),
                };
                assert!((exact - got).abs() <= allowed, "{} {index}: {exact} {got}", slot.name);
            }
        }
    }
}

#[test]
fn a_model_file_is_stored_anew_with_its_provenance() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let first = ConvertOptions {
        convention: Some(PositionConvention::ExactSize),
        licence: Some("MIT".into()),
        ..plain()
    };
    convert(&fixture("official_training.pth"), &path, &first, &mut |_| {}).unwrap();
    let exact = Model::open(&path).unwrap();
    convert(&path, &path, &ConvertOptions::new(Storage::Int8), &mut |_| {}).unwrap();
    let small = Model::open(&path).unwrap();
    assert_eq!(small.metadata().storage, Storage::Int8);
    assert_eq!(small.metadata().provenance, exact.metadata().provenance);
    assert_eq!(small.spec(), exact.spec());
    assert!(small.file_bytes() * 2 < exact.file_bytes());
    let (widened, _) = converted(&path, &plain());
    for name in small.names() {
        assert_eq!(small.f32(name).unwrap(), widened.f32(name).unwrap(), "{name}");
    }
}

#[test]
fn inspection_tells_the_shape_and_where_it_comes_from() {
    let (model, _) = converted(&fixture("hugging_face"), &ConvertOptions::new(Storage::Int8));
    let text = inspect(&model);
    for told in [
        "ViT-24x2/2",
        "24 in 2 heads of 12",
        "int8",
        "Hugging Face",
        "blocks.0.attn.qkv.weight",
        "blocks.1 … blocks.1: the same",
        "[72, 24]",
    ] {
        assert!(text.contains(told), "{told} in\n{text}");
    }
}

/// CLS, registers and patches as timm adds positions to them, of several grids.
#[test]
fn tables_that_are_not_square_are_those_of_timm() {
    for (name, grid, registers) in [
        ("rectangular_with_class", PatchGrid { rows: 2, cols: 8 }, 0),
        ("rectangular_without_class", PatchGrid { rows: 3, cols: 4 }, 2),
        ("rectangular_with_registers", PatchGrid { rows: 3, cols: 5 }, 3),
    ] {
        let (model, report) = converted(&fixture(name), &plain());
        assert_eq!((model.spec().position_table, model.spec().registers), (grid, registers), "{name}");
        assert_eq!(report.metadata.preprocessing.mean, [0.5; 3]);
        let bytes = std::fs::read(fixture(&format!("{name}.expected.safetensors"))).unwrap();
        for (target, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let (rows, cols) = target.split_once('x').unwrap();
            let target = PatchGrid { rows: rows.parse().unwrap(), cols: cols.parse().unwrap() };
            let theirs: Vec<f32> = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let table = model.position_embedding(target).unwrap();
            let mut ours = model.f32("cls_token").unwrap();
            ours.iter_mut().zip(&table).for_each(|(class, position)| *class += position);
            if registers > 0 {
                ours.extend(model.f32("register_tokens").unwrap());
            }
            ours.extend(&table[model.spec().dim..]);
            assert_eq!(ours.len(), theirs.len(), "{name} {target}");
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!((ours - theirs).abs() < 2e-6, "{name} {target}: {ours} {theirs}");
            }
        }
    }
}

#[test]
fn blocks_in_chunks_that_count_from_0_keep_their_order() {
    let (model, _) = converted(&fixture("chunks.safetensors"), &ConvertOptions { heads: Some(1), ..plain() });
    assert_holds(&model, "chunks");
}

#[test]
fn backbones_of_larger_models() {
    for name in ["depth_dpt", "depth_anything", "classifier"] {
        let (model, _) = converted(&fixture(name), &plain());
        assert_holds(&model, name);
        assert_eq!(model.spec().heads, 1, "{name}");
    }
}
