//! The steps of `ci`, in the order of how fast they fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::{arm, asan, avx512, camera_vm, fuzz, lavapipe, wasm};

/// Runs every step; stops at the first that fails. `skip_tests` for a caller that has run them.
pub(crate) fn ci(skip_tests: bool, fuzz_seconds: u32) -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["fmt", "--manifest-path", "tests/fuzz/Cargo.toml", "--check"])?;
    let lint =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"];
    cargo(&lint)?;
    // The smallest and the default binary are other programs than the one with everything.
    for features in [&["--no-default-features"][..], &[]] {
        cargo(&[&["clippy", "-p", "dinov2-edge", "--locked"], features, &["--", "-D", "warnings"]].concat())?;
    }
    if !skip_tests {
        cargo(&["test", "--workspace", "--all-features", "--locked"])?;
    }
    rustdoc()?;
    deny()?;
    wasm::wasm()?;
    lavapipe::lavapipe()?;
    asan::asan()?;
    emulated()?;
    camera_vm::camera_vm()?;
    fuzz::fuzz(fuzz_seconds, &[])
}

/// The emulated CPUs, at the same time: one thread is all that the emulator of x86 uses.
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

/// Runs a command in the repository's root; its output is ours.
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

/// The cargo that runs us.
pub(crate) fn cargo_command() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run(cargo_command().args(arguments))
}

fn rustdoc() -> Result<()> {
    let arguments = ["doc", "--workspace", "--all-features", "--no-deps", "--locked"];
    run(cargo_command().args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
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
