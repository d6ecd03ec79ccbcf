//! Bytes as a model file: opened, described and read as the engines do.
#![no_main]

use std::fs;
use std::path::Path;

use dinov2_core::PatchGrid;
use dinov2_weights::{ConvertOptions, Model, Storage, convert, inspect};
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
        let file = fs::read(&seed).expect("just written");
        let header = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
        assert_eq!(file.len() as u64, converted.file_bytes);
        fs::write(seed.with_extension("header"), file[8..8 + header].trim_ascii_end()).expect("corpus");
    }
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
    }
    let _ = inspect(&model);
    let _ = model.position_embedding(PatchGrid { rows: 2, cols: 3 });
}
