//! Bounded fuzzing of everything that reads bytes from outside (`tests/fuzz`), without cargo-fuzz.
//!
//! Coverage instrumentation and libFuzzer work on stable; only the address sanitizer would need nightly, and the readers
//! under test are safe Rust. Overflow checks and debug assertions are on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::steps::{cargo_command, root, run};

/// What cargo-fuzz passes to rustc, less the sanitizer.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";
/// Resident memory at which a run counts as a failure: a reader of a small file has no use for more.
const MOST_MEMORY_MIB: u32 = 1024;
/// Seconds for one input at which a run counts as a failure.
const MOST_SECONDS_PER_INPUT: u32 = 10;

/// A fuzz target and where its seeds come from.
struct Target {
    name: &'static str,
    /// Files with this end, anywhere below these folders, are seeds.
    seeds: &'static [(&'static str, &'static str)],
    /// Longest input.
    longest: usize,
}

const TARGETS: &[Target] = &[
    // Model files are not committed; the target makes its own seed out of a checkpoint.
    Target { name: "model_file", seeds: &[], longest: 1 << 17 },
    Target {
        name: "safetensors",
        seeds: &[("crates/dinov2-weights/tests", ".safetensors")],
        longest: 1 << 17,
    },
    Target { name: "pth", seeds: &[("crates/dinov2-weights/tests", ".pth")], longest: 1 << 17 },
    Target { name: "onnx", seeds: &[("crates", ".onnx")], longest: 1 << 17 },
    Target { name: "y4m", seeds: &[("crates/dinov2-io/tests", ".y4m")], longest: 1 << 14 },
    Target { name: "mjpeg", seeds: &[("crates/dinov2-io/tests", ".mjpeg")], longest: 1 << 14 },
    Target { name: "recording", seeds: &[("crates/dinov2-io/tests", ".mcap")], longest: 1 << 15 },
];

/// Builds the targets and runs each for `seconds`; `wanted` empty means all.
pub(crate) fn fuzz(seconds: u32, wanted: &[String]) -> Result<()> {
    if let Some(unknown) = wanted.iter().find(|name| !TARGETS.iter().any(|target| target.name == *name)) {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        bail!("fuzz target {unknown:?}: expected one of {}", names.join(", "));
    }
    let folder = root().join("tests/fuzz");
    let binaries = build(&folder)?;
    let is_wanted = |target: &&Target| wanted.is_empty() || wanted.iter().any(|name| name == target.name);
    let targets: Vec<_> = TARGETS.iter().filter(is_wanted).collect();
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    targets.chunks(at_once).try_for_each(|targets| {
        std::thread::scope(|scope| {
            let runs = targets.iter().map(|target| {
                let (folder, binary) = (&folder, binaries.join(target.name));
                scope.spawn(move || run_target(folder, &binary, target, seconds))
            });
            // All are started before the first is waited for.
            let runs: Vec<_> = runs.collect();
            let ended = runs.into_iter().map(|run| run.join().map_err(|_| anyhow!("xtask fuzz: a panic"))?);
            ended.collect::<Vec<_>>().into_iter().collect()
        })
    })
}

/// Builds with instrumentation; returns the folder of the binaries.
fn build(folder: &Path) -> Result<PathBuf> {
    let target_folder = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(shared) => root().join(shared).join("fuzz"),
        None => folder.join("target"),
    };
    // An explicit target keeps the instrumentation off build scripts and procedural macros.
    let host = host()?;
    let manifest = folder.join("Cargo.toml");
    let mut command = cargo_command();
    command.args(["build", "--release", "--target", &host, "--manifest-path"]).arg(manifest);
    run(command.arg("--target-dir").arg(&target_folder).env("RUSTFLAGS", RUSTFLAGS))?;
    Ok(target_folder.join(host).join("release"))
}

fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("rustc -vV")?;
    let text = String::from_utf8(output.stdout).context("rustc -vV")?;
    match text.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(host) => Ok(host.to_owned()),
        None => bail!("rustc -vV: expected a line `host: …`, got {text:?}"),
    }
}

fn run_target(folder: &Path, binary: &Path, target: &Target, seconds: u32) -> Result<()> {
    let corpus = folder.join("corpus").join(target.name);
    let artifacts = folder.join("artifacts").join(target.name);
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    copy_seeds(target, &corpus)?;
    let mut command = Command::new(binary);
    command.env("DINOV2_FUZZ_CORPUS", &corpus).arg(&corpus).args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={}", target.longest),
        format!("-rss_limit_mb={MOST_MEMORY_MIB}"),
        format!("-timeout={MOST_SECONDS_PER_INPUT}"),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".to_owned(),
        "-verbosity=0".to_owned(),
    ]);
    eprintln!("==> fuzz target {}: {seconds} s", target.name);
    let output = command.current_dir(root()).output().with_context(|| binary.display().to_string())?;
    // At once, because others run beside it.
    eprintln!("==> fuzz target {}:\n{}", target.name, String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        let (name, status, inputs) = (target.name, output.status, artifacts.display());
        bail!("fuzz target {name}: {status}; the input lies in {inputs}");
    }
    Ok(())
}

/// Brings the committed fixtures of the target's format into its corpus.
fn copy_seeds(target: &Target, corpus: &Path) -> Result<()> {
    for (below, end) in target.seeds {
        for seed in files_ending(&root().join(below), end)? {
            let length = fs::metadata(&seed).with_context(|| seed.display().to_string())?.len();
            if length <= target.longest as u64 {
                // Fixtures in different folders share names; the length tells them apart well enough for seeds.
                let stem = seed.file_name().unwrap_or_default().to_string_lossy().into_owned();
                fs::copy(&seed, corpus.join(format!("seed-{length}-{stem}")))
                    .with_context(|| seed.display().to_string())?;
            }
        }
    }
    Ok(())
}

fn files_ending(folder: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.is_dir() {
            found.extend(files_ending(&path, end)?);
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
