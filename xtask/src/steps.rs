//! The steps of `ci`, in the order of how fast they fail.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use crate::{arm, asan, avx512, camera_vm, fuzz, lavapipe, loom, wasm};

/// All features but `training/cuda`, which needs NVIDIA's compiler.
const FEATURES: [&str; 2] = ["--features", "dinov2-cli/tract,training/object-store"];

/// Crates that are not for others: the program with its model, and what tests, trains or checks.
const UNPUBLISHED: [&str; 5] = ["dinov2-bundled", "dinov2-cli", "dinov2-tests", "training", "xtask"];

/// Runs every step; stops at the first that fails. `skip_tests` for a caller that has run them.
pub(crate) fn ci(skip_tests: bool, fuzz_seconds: u32) -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["fmt", "--manifest-path", "tests/fuzz/Cargo.toml", "--check"])?;
    let lint = ["clippy", "--workspace", "--all-targets", "--locked"];
    cargo(&[&lint[..], &FEATURES, &["--", "-D", "warnings"]].concat())?;
    // Without features other code is compiled.
    cargo(&["clippy", "-p", "dinov2-cli", "--no-default-features", "--locked", "--", "-D", "warnings"])?;
    if !skip_tests {
        cargo(&[&["test", "--workspace", "--locked"][..], &FEATURES].concat())?;
    }
    rustdoc()?;
    package()?;
    deny()?;
    wasm::wasm()?;
    lavapipe::lavapipe()?;
    asan::asan()?;
    loom::loom()?;
    emulated()?;
    camera_vm::camera_vm()?;
    fuzz::fuzz(fuzz_seconds, &[])
}

/// The emulated CPUs, in parallel: the emulator of x86 uses one thread.
fn emulated() -> Result<()> {
    std::thread::scope(|scope| {
        let avx512 = scope.spawn(avx512::avx512);
        let arm = arm::arm();
        avx512.join().map_err(|_| anyhow!("xtask avx512: a panic"))??;
        arm
    })
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_owned()
}

/// Runs a command in the repository's root; its output is passed through.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    eprintln!("==> {line}");
    let status =
        command.current_dir(root()).status().with_context(|| format!("{line}: cannot be started"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// The cargo that runs this program, without the variables that describe this package: dependencies whose build scripts read them
/// would be rebuilt.
pub(crate) fn cargo_command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_cargo = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_cargo)) {
        command.env_remove(name);
    }
    command
}

/// Runs a cargo command that builds; returns the executable of its target of that name.
pub(crate) fn executable(command: &mut Command, target: &str) -> Result<PathBuf> {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let line = format!("cargo {}", words.join(" "));
    eprintln!("==> {line}");
    command.arg("--message-format=json-render-diagnostics").current_dir(root()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| line.clone())?;
    if !output.status.success() {
        bail!("{line}: {}", output.status);
    }
    let messages = String::from_utf8(output.stdout).context("cargo's messages")?;
    executable_in(&messages, target).with_context(|| format!("{line}: expected an executable, got none"))
}

fn executable_in(messages: &str, target: &str) -> Option<PathBuf> {
    let mark = format!("\"name\":\"{target}\"");
    let mut of_target = messages.lines().filter(|line| line.contains(&mark));
    let path = of_target.find_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next());
    path.map(PathBuf::from)
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run(cargo_command().args(arguments))
}

fn rustdoc() -> Result<()> {
    let arguments = ["doc", "--workspace", "--no-deps", "--locked"];
    run(cargo_command().args(arguments).args(FEATURES).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Packages of every crate that can be published, without building them: a dependency without a version, a missing readme or a
/// file outside of its crate is found here.
fn package() -> Result<()> {
    let unpublished = UNPUBLISHED.iter().flat_map(|name| ["--exclude", name]);
    let arguments =
        ["package", "--workspace", "--no-verify", "--locked", "--offline", "--allow-dirty", "--quiet"];
    cargo(&arguments.into_iter().chain(unpublished).collect::<Vec<_>>())
}

/// Bans, licences and sources; the advisory database is not reachable everywhere.
fn deny() -> Result<()> {
    let installed =
        Command::new("cargo-deny").arg("--version").output().is_ok_and(|out| out.status.success());
    if !installed {
        eprintln!("==> SKIPPED: cargo-deny is not installed (cargo install --locked cargo-deny)");
        return Ok(());
    }
    cargo(&["deny", "--workspace", "check", "bans", "licenses", "sources"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_that_of_the_target() {
        let messages = r#"{"target":{"name":"other"},"executable":"/t/other"}
{"target":{"name":"vivid"},"executable":null}
{"target":{"name":"vivid"},"executable":"/t/vivid-1"}
{"target":{"name":"last"},"executable":"/t/last"}"#;
        assert_eq!(executable_in(messages, "vivid"), Some(PathBuf::from("/t/vivid-1")));
        assert_eq!(executable_in(messages, "none"), None);
    }
}
