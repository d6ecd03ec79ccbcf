//! `cargo xtask loom`: the thread pool's memory orderings under the model checker loom (`dinov2-kernels`, `pool/model.rs`).
//!
//! A target folder of its own, because `--cfg loom` is another build of every dependency. The kernels are compiled too, and left
//! unoptimised: the tests use none of them, and loom's own time is what counts.

use anyhow::Result;

use crate::steps::{cargo_command, root, run};

const KERNELS_UNOPTIMISED: &str = "profile.release.package.dinov2-kernels.opt-level=0";

/// Builds and runs the tests whose names contain `loom`.
pub(crate) fn loom() -> Result<()> {
    let mut command = cargo_command();
    command.args(["test", "-p", "dinov2-kernels", "--lib", "--release", "--locked"]);
    command.args(["--config", KERNELS_UNOPTIMISED, "--target-dir"]).arg(root().join("target/loom"));
    run(command.arg("loom").env("RUSTFLAGS", "--cfg loom"))
}
