//! `cargo xtask arm`: the CPU engine, built for aarch64 and tested under qemu's user emulation: its crates' own tests,
//! golden parity and the count of allocations.
//!
//! For correctness only: nothing is to be timed under emulation. It has a target folder of its own, because the
//! compiler may be another one (Debian's, where rustup's has no library for aarch64) and two compilers that share a
//! folder rebuild everything in turns.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::steps::{cargo_command, root, run};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64-static";
/// Where Debian's `rustc` lies, hidden by rustup's in the search path.
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";
/// What Debian's `libc6:arm64` installs. Next to it, programs must not be given the cross compiler's older loader
/// (`-L`): it would pair with the newer libc and loop for ever at the first thread.
const ARM_LOADER: &str = "/lib/ld-linux-aarch64.so.1";
/// The cross compiler's libraries.
const CROSS_ROOT: &str = "/usr/aarch64-linux-gnu";
const CRATES: &[&str] = &["dinov2-core", "dinov2-kernels", "dinov2-cpu", "dinov2-tests"];
/// `emulated` leaves out what would only cost time here: the ONNX engine.
const RUSTFLAGS: &str = "-D warnings --cfg emulated";

/// Builds and runs the tests; says so loudly where a tool is missing.
pub(crate) fn arm() -> Result<()> {
    for (tool, package) in [(LINKER, "gcc-aarch64-linux-gnu"), (EMULATOR, "qemu-user-static")] {
        if !answers(tool) {
            eprintln!("==> SKIPPED: tests on ARM: {tool} is not installed (Debian package {package})");
            return Ok(());
        }
    }
    let Some(rustc) = rustc_for_arm() else {
        eprintln!(
            "==> SKIPPED: tests on ARM: no rustc has the library for {TARGET} \
             (Debian packages rustc-web, libstd-rust-web-dev:arm64)"
        );
        return Ok(());
    };
    // Without documentation tests: rustdoc would be the other compiler's.
    let mut command = cargo_command();
    command.args(["test", "--locked", "--target", TARGET]);
    command.args(["--lib", "--test", "golden", "--test", "no_alloc"]);
    command.args(CRATES.iter().flat_map(|name| ["-p", name]));
    command.arg("--target-dir").arg(target_folder()).env("RUSTC", rustc).env("RUSTFLAGS", RUSTFLAGS);
    for (key, value) in [("LINKER", LINKER), ("RUNNER", &runner())] {
        command.env(format!("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_{key}"), value);
    }
    run(&mut command)
}

fn answers(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|out| out.status.success())
}

/// The first compiler that has the standard library for ARM.
fn rustc_for_arm() -> Option<PathBuf> {
    let usual = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    [PathBuf::from(usual), SYSTEM_RUSTC.into()].into_iter().find(|rustc| {
        let output = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
        output.is_ok_and(|out| Path::new(String::from_utf8_lossy(&out.stdout).trim()).is_dir())
    })
}

/// Every feature that the emulator knows: `dotprod` and `i8mm` among them.
fn runner() -> String {
    let libraries = if Path::new(ARM_LOADER).exists() { String::new() } else { format!(" -L {CROSS_ROOT}") };
    format!("{EMULATOR} -cpu max{libraries}")
}

fn target_folder() -> PathBuf {
    let shared = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root().join(shared).join("arm")
}
