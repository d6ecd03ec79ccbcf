//! `doctor`: facts about the machine, and the engine that `run` would select.

use std::io::Write;
use std::process::Command;

use crate::machine;
use dinov2_edge::{CpuGrant, Engine, EngineConfig, Extractor, Isa, ModelSource, SelectedEngine};
use dinov2_files::chain;
use serde_json::{Value, json};

use crate::args::{EngineArgs, open_weights};

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// One line of the report, and one field of the JSON.
struct Finding {
    key: &'static str,
    value: Value,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let mut findings = machine_findings();
    findings.extend(engine_findings(&args.engine));
    let mut stdout = std::io::stdout().lock();
    if args.json {
        let object = findings.into_iter().map(|finding| (finding.key.to_string(), finding.value)).collect();
        writeln!(stdout, "{}", Value::Object(object))?;
        return Ok(());
    }
    for Finding { key, value } in findings {
        writeln!(stdout, "{:<9} {}", key, describe(&value))?;
    }
    Ok(())
}

fn machine_findings() -> Vec<Finding> {
    let cpu = machine::cpu_model().unwrap_or_else(|| "unknown".into());
    let memory = machine::available_memory_bytes().map(|bytes| format!("{} MiB available", bytes >> 20));
    let cameras = machine::cameras().into_iter().map(|camera| format!("{} ({})", camera.device, camera.name));
    vec![
        Finding { key: "version", value: json!(env!("CARGO_PKG_VERSION")) },
        Finding { key: "cpu", value: json!(cpu) },
        Finding { key: "threads", value: json!(CpuGrant::of_this_process().to_string()) },
        Finding { key: "features", value: json!(machine::cpu_features()) },
        Finding { key: "memory", value: json!(memory) },
        Finding { key: "gpus", value: json!(machine::gpus()) },
        Finding { key: "adapters", value: json!(adapters()) },
        Finding { key: "cameras", value: json!(cameras.collect::<Vec<_>>()) },
        Finding { key: "ffmpeg", value: json!(ffmpeg()) },
    ]
}

/// Adapters that the GPU engine can run on.
#[cfg(feature = "wgpu")]
fn adapters() -> Vec<String> {
    let describe = |adapter: dinov2_edge::gpu::AdapterFacts| {
        let mut words = vec![adapter.api.to_string()];
        words.extend(adapter.f16.then(|| "f16".into()));
        words.extend(adapter.cooperative_matrix.then(|| "cooperative matrices".into()));
        words.extend(adapter.software.then(|| "software GPU".into()));
        format!("{} [{}; {}]", adapter.name, adapter.driver, words.join(", "))
    };
    dinov2_edge::gpu::adapters().into_iter().map(describe).collect()
}

#[cfg(not(feature = "wgpu"))]
fn adapters() -> Vec<String> {
    Vec::new()
}

/// First line of `ffmpeg -version`.
fn ffmpeg() -> Option<String> {
    let output = Command::new("ffmpeg").arg("-version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_string)
}

/// The model and the engine that `run` would use with these arguments, and the reason.
fn engine_findings(args: &EngineArgs) -> Vec<Finding> {
    let weights = match open_weights(args.model.as_deref()) {
        Ok(weights) => weights,
        Err(error) => return vec![Finding { key: "model", value: json!(format!("none: {error:#}")) }],
    };
    let model = Finding { key: "model", value: json!(weights.label()) };
    let mut engine = match SelectedEngine::open(&weights, EngineConfig { ..args.config() }) {
        Ok(engine) => engine,
        Err(error) => {
            return vec![model, Finding { key: "engine", value: json!(format!("none: {}", chain(&error))) }];
        }
    };
    let notes = engine.take_notes();
    let isas: Vec<&str> = Isa::available().map(Isa::name).collect();
    let mut findings = vec![
        model,
        Finding { key: "shape", value: json!(engine.spec().name()) },
        Finding { key: "isas", value: json!(isas) },
        Finding { key: "engine", value: json!(engine.to_string()) },
        Finding { key: "reason", value: json!(engine.reason()) },
    ];
    findings.extend(gpu_findings(&weights, &args.config()));
    findings.extend((!notes.is_empty()).then(|| Finding { key: "notes", value: json!(notes) }));
    findings
}

/// Stored measurements of the selected GPU: comparison with the CPU, and the fastest kernels.
#[cfg(feature = "wgpu")]
fn gpu_findings(weights: &ModelSource, config: &EngineConfig) -> Vec<Finding> {
    let (ModelSource::Model(model), Ok(gpu)) = (weights, dinov2_edge::open_gpu(config)) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if let Some(known) = dinov2_edge::last_comparison(&gpu, model, config) {
        let times = format!("{:.1} ms a frame, {:.1} ms on the CPU", known.gpu_ms, known.cpu_ms);
        findings.push(Finding { key: "gpu", value: json!(times) });
    }
    let kernels: Vec<String> =
        gpu.products().into_iter().map(|(product, kernel)| format!("{product}: {kernel}")).collect();
    if !kernels.is_empty() {
        findings.push(Finding { key: "kernels", value: json!(kernels) });
    }
    findings
}

#[cfg(not(feature = "wgpu"))]
fn gpu_findings(_weights: &ModelSource, _config: &EngineConfig) -> Vec<Finding> {
    Vec::new()
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".into(),
        Value::Array(items) => items.iter().map(describe).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
