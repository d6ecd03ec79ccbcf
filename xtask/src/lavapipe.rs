//! `cargo xtask lavapipe`: the GPU engine's tests on a newer software driver than the system's, which has cooperative
//! matrices. `.ci/lavapipe` fetches it.

use anyhow::Result;

use crate::steps::{cargo_command, root, run};

/// Runs the tests on it; says so loudly where it is missing.
pub(crate) fn lavapipe() -> Result<()> {
    let runner = root().join("target/lavapipe/run");
    if !runner.is_file() {
        eprintln!(
            "==> SKIPPED: kernels for cooperative matrices: no driver that has them (.ci/lavapipe fetches one)"
        );
        return Ok(());
    }
    let mut command = cargo_command();
    command.args(["test", "--locked", "-p", "dinov2-wgpu", "-p", "dinov2-tests", "--lib", "--test", "gpu"]);
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    run(command.env("DINOV2_TEST_GPU", "cooperative"))
}
