//! The GPU engine as users of the program meet it.
#![cfg(feature = "wgpu")]

mod common;

use common::{fails, media, succeeds};
use serde_json::Value;

/// What `doctor` knows of GPUs. Without any the test is skipped, loudly; where DINOV2_TEST_GPU is set that is a failure.
fn adapters() -> Option<Vec<Value>> {
    let facts: Value = serde_json::from_str(&succeeds(&["doctor", "--json"])).unwrap();
    let adapters = facts["adapters"].as_array().expect("a list").clone();
    if adapters.is_empty() {
        assert!(std::env::var_os("DINOV2_TEST_GPU").is_none(), "no GPU driver");
        eprintln!("SKIPPED: no GPU driver here (Debian: apt install mesa-vulkan-drivers for a software one)");
        return None;
    }
    Some(adapters)
}

#[test]
fn features_equal_those_of_the_cpu() {
    if adapters().is_none() {
        return;
    }
    let photo = media("cat.jpg");
    let words =
        ["compare", &photo, "--candidate", "wgpu:f32", "--reference", "cpu:f32", "--size", "56x42", "--json"];
    let report: Value = serde_json::from_str(&succeeds(&words)).unwrap();
    assert!(report["relative_l2"].as_f64().unwrap() <= 1e-4, "{report}");
}

#[test]
fn bench_tells_where_the_time_goes() {
    if adapters().is_none() {
        return;
    }
    let words =
        ["bench", "--backend", "wgpu", "--precision", "int8", "--size", "28", "--iterations", "2", "--json"];
    let report: Value = serde_json::from_str(succeeds(&words).lines().last().unwrap()).unwrap();
    assert_eq!((report["backend"].as_str(), report["precision"].as_str()), (Some("wgpu"), Some("int8")));
    for stage in ["qkv", "attention", "mlp_in", "host"] {
        assert!(report["stage_ms"][stage]["median"].as_f64().unwrap() > 0.0, "{stage}: {report}");
    }
}

#[test]
fn auto_takes_no_program_that_imitates_a_gpu() {
    let Some(adapters) = adapters() else { return };
    if !adapters.iter().all(|adapter| adapter.as_str().unwrap().contains("software GPU")) {
        eprintln!("SKIPPED: this machine has a real GPU");
        return;
    }
    let facts: Value = serde_json::from_str(&succeeds(&["doctor", "--json"])).unwrap();
    assert!(facts["engine"].as_str().unwrap().starts_with("cpu "), "{facts}");
    // Asked for by name, it is told why not.
    let facts: Value = serde_json::from_str(&succeeds(&["doctor", "--gpu", "l", "--json"])).unwrap();
    assert!(facts["engine"].as_str().unwrap().starts_with("cpu "), "{facts}");
    assert!(facts["notes"][0].as_str().unwrap().contains("is a software GPU; using the CPU"), "{facts}");
}

#[test]
fn mistakes_get_one_clear_line() {
    let on_gpu = ["run", "--input", "test:", "--frames", "1", "--size", "28", "--backend", "wgpu"];
    let with = |more: &[&'static str]| [&on_gpu[..], more].concat();
    fails(&with(&["--gpu", "no such gpu"]), 1, "gpu: expected one named \"no such gpu\", got ");
    fails(&with(&["--incremental", "0"]), 1, "incremental: expected backend cpu, got wgpu");
    fails(&with(&["--isa", "portable"]), 1, "isa: expected backend cpu, got wgpu");
    fails(&with(&["--model", "graph.onnx"]), 1, "expected a file or the name of a pulled model");
    if adapters().is_some() {
        fails(
            &with(&["--precision", "bf16"]),
            1,
            "expected auto, f32, f16 or int8 for backend wgpu, got bf16",
        );
    }
}
