//! `cargo xtask lavapipe`: the GPU engine's tests of cooperative matrices, on a newer software driver than the system's.
//! `.ci/lavapipe` fetches it.

use anyhow::Result;

use crate::steps::{cargo_command, root, run};

/// Tests that run kernels for cooperative matrices, where there are some. The driver compiles such a kernel for seconds, so not
/// everything is run again.
const TESTS: [&str; 4] =
    ["gemm_cooperative", "matrix_units_in_use", "less_precision_stays_close", "the_bundled_model_equals"];

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
    // Of the whole workspace, as `cargo test --workspace` has built it: other features would build everything anew.
    command.args(["test", "--locked", "--workspace", "--lib", "--test", "gpu", "--"]);
    command.args(TESTS);
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    run(command.env("DINOV2_TEST_GPU", "cooperative"))
}
