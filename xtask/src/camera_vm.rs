//! The program and the V4L2 source on a real driver: Linux with its virtual cameras, in an emulated machine (qemu, no KVM).
//!
//! `tests/camera-vm/boot` is the machine, `tests/camera-vm/guest.py` what runs in it; `.ci/camera-vm` fetches the kernel.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::steps::{cargo_command, root, run};

/// Boot and all scenarios; several times what an idle machine of two cores takes.
const MOST_SECONDS: &str = "900";

/// Builds what is to run, boots the guest, and judges by the status with which its command ended.
pub(crate) fn camera_vm() -> Result<()> {
    let folder = root().join("target/camera-vm");
    if !folder.join("complete").exists() {
        return skipped("target/camera-vm is absent (.ci/camera-vm makes it)");
    }
    if !Command::new("qemu-system-x86_64").arg("--version").output().is_ok_and(|out| out.status.success()) {
        return skipped("qemu-system-x86_64 is not installed");
    }
    let program =
        build(&["build", "--package", "dinov2-edge", "--no-default-features"], "\"name\":\"dinov2-edge\"")?;
    let test =
        build(&["test", "--package", "dinov2-io", "--test", "vivid", "--no-run"], "\"name\":\"vivid\"")?;
    // Emulated, even the smallest published model takes seconds a frame.
    let model = folder.join("tiny.safetensors");
    run(Command::new(&program).args(["convert", "tests/fixtures/golden/hf_mlp", "--output"]).arg(&model))?;
    let mut guest = Command::new("tests/camera-vm/boot");
    guest.env("DINOV2_VM_SECONDS", MOST_SECONDS).env("SHARE", folder.join("share"));
    guest.args(["python3", "tests/camera-vm/guest.py"]).args([program, test, model]);
    run(&mut guest)
}

fn skipped(why: &str) -> Result<()> {
    eprintln!("==> SKIPPED: nothing has run on a V4L2 driver: {why}");
    Ok(())
}

/// Runs cargo; returns the executable of the target in whose message `mark` is.
fn build(arguments: &[&str], mark: &str) -> Result<PathBuf> {
    let mut command = cargo_command();
    command.args(arguments).args(["--locked", "--message-format=json-render-diagnostics"]);
    let line = arguments.join(" ");
    eprintln!("==> cargo {line}");
    let output =
        command.current_dir(root()).stderr(Stdio::inherit()).output().with_context(|| line.clone())?;
    if !output.status.success() {
        bail!("cargo {line}: {}", output.status);
    }
    let messages = String::from_utf8(output.stdout).context("cargo's messages")?;
    executable(&messages, mark)
        .map(Path::to_owned)
        .with_context(|| format!("cargo {line}: expected an executable, got none"))
}

fn executable<'a>(messages: &'a str, mark: &str) -> Option<&'a Path> {
    let of_target = messages.lines().filter(|line| line.contains(mark));
    let names = of_target.filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next());
    names.last().map(Path::new)
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
        assert_eq!(executable(messages, "\"name\":\"vivid\""), Some(Path::new("/t/vivid-1")));
        assert_eq!(executable(messages, "\"name\":\"none\""), None);
    }
}
