//! `cargo xtask gpu-report`: a folder to carry to a machine with a GPU, and what is measured there.
//!
//! The folder holds the program, the sample photographs, this program as `xtask`, and with `--cuda` two measuring programs of
//! training. Its script `run` needs nothing else, no network and no compiler, and writes `report.md` beside itself.

mod child;
mod measure;
mod report;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub(crate) use measure::{Effort, measure};

use crate::steps::{cargo_command, executable, root, run};

/// Most bytes of the folder, so that it can be carried where uploads are small.
const MOST_BYTES: u64 = 60 << 20;
/// The sample photographs.
const PHOTOGRAPHS: [&str; 3] = ["cat.jpg", "coffee.jpg", "rocket.jpg"];
const SCRIPT: &str = "#!/bin/sh
# Measures this machine's GPU in nine minutes at most; the table is report.md in this folder.
cd \"$(dirname \"$0\")\" && exec ./xtask gpu-measure . \"$@\"
";

/// Builds the programs and puts the folder together: `target/gpu-report`.
pub(crate) fn bundle(cuda: bool) -> Result<()> {
    let folder = root().join("target/gpu-report");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder.join("photographs"))?;
    let mut build = cargo_command();
    build.args(["build", "--release", "--locked", "-p", "dinov2-cli"]);
    copy_stripped(&executable(&mut build, "dinov2-edge")?, &folder.join("dinov2-edge"))?;
    copy_stripped(&std::env::current_exe()?, &folder.join("xtask"))?;
    for name in PHOTOGRAPHS {
        fs::copy(root().join("examples/media").join(name), folder.join("photographs").join(name))?;
    }
    if cuda {
        for example in ["step_time", "teacher_time"] {
            let mut build = cargo_command();
            build.args(["build", "--release", "--locked", "-p", "training", "--features", "cuda"]);
            build.args(["--example", example]);
            copy_stripped(&executable(&mut build, example)?, &folder.join(example))?;
        }
    }
    write_script(&folder.join("run"))?;
    let bytes = size_of(&folder)?;
    eprintln!("{} MiB in {}", bytes >> 20, folder.display());
    eprintln!("there: sh target/gpu-report/run; then read target/gpu-report/report.md");
    if bytes > MOST_BYTES && !cuda {
        bail!("gpu-report: expected at most {} MiB, got {}", MOST_BYTES >> 20, bytes >> 20);
    }
    Ok(())
}

/// Symbols are of no use there, and a third of a program.
fn copy_stripped(from: &Path, to: &Path) -> Result<()> {
    run(std::process::Command::new("strip").arg("-o").arg(to).arg(from))
}

fn write_script(path: &PathBuf) -> Result<()> {
    fs::write(path, SCRIPT)?;
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(())
}

fn size_of(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.metadata()?;
        bytes += if kind.is_dir() { size_of(&entry.path())? } else { kind.len() };
    }
    Ok(bytes)
}
