//! `cargo xtask wasm`: whether the GPU engine compiles for wasm32. `.ci/wasm` fetches the standard library's sources, which
//! cargo then builds.

use anyhow::Result;

use crate::steps::{cargo_command, root, run};

/// Checks the crate; says so loudly where the sources are missing.
pub(crate) fn wasm() -> Result<()> {
    let folder = root().join("target/wasm");
    let rustc = folder.join("rustc");
    if !rustc.is_file() {
        eprintln!("==> SKIPPED: wasm32: no sources of the standard library (.ci/wasm fetches them)");
        return Ok(());
    }
    let mut command = cargo_command();
    command.args(["check", "--locked", "-p", "dinov2-wgpu", "--target", "wasm32-unknown-unknown"]);
    command.args(["-Zbuild-std=std,panic_abort", "--target-dir"]).arg(folder.join("target"));
    // Building the standard library is for nightly compilers otherwise.
    run(command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1"))
}
