//! Bytes as a model file: opened, described and read as the engines do.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dinov2_core::PatchGrid;
use dinov2_weights::quantize::round_to_nearest_int4;
use dinov2_weights::{
    ConvertOptions, Model, Numbers, Quantization, Storage, convert, fits_int4, inspect, layout,
    write_quantized,
};
use libfuzzer_sys::fuzz_target;

/// Where libFuzzer's first argument, the corpus, lies; model files are made, not committed.
const CORPUS_VARIABLE: &str = "DINOV2_FUZZ_CORPUS";

/// Longest body put under a header: holds the tensors of the seeds.
const MOST_BODY_BYTES: u64 = 1 << 17;

fn write_seeds() {
    let Some(corpus) = std::env::var_os(CORPUS_VARIABLE) else { return };
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/hard_sizes/hf");
    for storage in [Storage::F32, Storage::F16, Storage::Bf16, Storage::Int8] {
        let seed = Path::new(&corpus).join(format!("seed-{storage:?}"));
        let converted =
            convert(&checkpoint, &seed, &ConvertOptions::new(storage), &mut |_| {}).expect("fixture");
        assert_eq!(write_header(&seed), converted.file_bytes);
    }
    write_int4_seed(Path::new(&corpus));
}

/// The header of a seed beside it; returns the length of the seed.
fn write_header(seed: &Path) -> u64 {
    let file = fs::read(seed).expect("just written");
    let header = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
    fs::write(seed.with_extension("header"), file[8..8 + header].trim_ascii_end()).expect("corpus");
    file.len() as u64
}

fn write_int4_seed(corpus: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden/hf_registers");
    let seed = corpus.join("seed-Int4");
    convert(&source, &seed, &ConvertOptions::new(Storage::F32), &mut |_| {}).expect("fixture");
    let model = Model::open(&seed).expect("just written");
    let matrices =
        layout::slots(model.spec()).into_iter().filter(|slot| slot.matrix && fits_int4(&slot.shape, 32));
    let replacements: BTreeMap<_, _> = matrices
        .map(|slot| {
            let weight = model.f32(&slot.name).expect("a tensor of the model");
            let groups = round_to_nearest_int4(&weight, &vec![1.0; slot.shape[1]], 32);
            (slot.name, Numbers::Int4(groups))
        })
        .collect();
    let quantization = Quantization {
        weight_limit: 64,
        int4_group: Some(32),
        calibration_images: 0,
        trained: false,
        fidelity: Vec::new(),
    };
    write_quantized(&model, &replacements, quantization, &seed).expect("corpus");
    write_header(&seed);
}

/// What goes wrong in a model file is its header, weights are only weights: a header alone gets a body of zeros of the
/// length that its byte ranges call for.
fn with_body(header: &[u8]) -> Vec<u8> {
    let tensors: serde_json::Value = serde_json::from_slice(header).unwrap_or_default();
    let ends = tensors.as_object().into_iter().flatten();
    let end = ends.filter_map(|(_, tensor)| tensor["data_offsets"][1].as_u64()).max().unwrap_or(0);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(file.len() + end.min(MOST_BODY_BYTES) as usize, 0);
    file
}

fuzz_target!(init: write_seeds(), |bytes: &[u8]| {
    read(bytes.to_vec());
    if bytes.starts_with(b"{") {
        read(with_body(bytes));
    }
});

fn read(file: Vec<u8>) {
    let Ok(model) = Model::from_bytes(file, "fuzz") else { return };
    let names: Vec<String> = model.names().map(str::to_owned).collect();
    for name in &names {
        let _ = model.f32(name);
        if model.tensor(name).is_ok_and(|tensor| tensor.shape.len() == 2) {
            let _ = model.int8(name);
        }
    }
    let _ = inspect(&model);
    let _ = model.position_embedding(PatchGrid { rows: 2, cols: 3 });
}
