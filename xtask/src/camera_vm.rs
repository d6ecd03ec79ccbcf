//! The program and the V4L2 source on a real driver: Linux with its virtual cameras, in an emulated machine (qemu, no KVM).
//!
//! `tests/camera-vm/boot` is the machine, `tests/camera-vm/guest.py` what runs in it; `.ci/camera-vm` fetches the kernel.

use std::process::Command;

use anyhow::Result;

use crate::steps::{cargo_command, executable, root, run};

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
    // What `cargo test --workspace` has built: other features would build everything anew.
    let built = |target: &str| {
        let mut build = cargo_command();
        build.args([
            "test",
            "--workspace",
            "--test",
            "vivid",
            "--test",
            "live_command",
            "--no-run",
            "--locked",
        ]);
        executable(&mut build, target)
    };
    let (program, test) = (built("dinov2-edge")?, built("vivid")?);
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
