//! The kernels' unit tests under AddressSanitizer: raw loads and stores stay within their buffers.

use std::process::Command;

use anyhow::Result;

use crate::steps::{root, run};

/// The sanitizer needs a nightly compiler, and an explicit target keeps it off build scripts and procedural macros.
pub(crate) fn asan() -> Result<()> {
    let installed = nightly(&["rustc", "--version"]).output().is_ok_and(|out| out.status.success());
    if !installed {
        eprintln!("==> SKIPPED: AddressSanitizer has not run: rustup has no nightly toolchain here");
        return Ok(());
    }
    let test = ["cargo", "test", "--package", "dinov2-kernels", "--lib", "--locked"];
    let mut command =
        nightly(&[&test[..], &["--target", "x86_64-unknown-linux-gnu", "--target-dir"]].concat());
    run(command.arg(root().join("target/asan")).env("RUSTFLAGS", "-Zsanitizer=address"))
}

/// A command of the nightly toolchain, without the variables of the toolchain that runs this program.
fn nightly(words: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly"]).args(words);
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}
