//! The kernels' unit tests on an emulated CPU with AVX-512 (VNNI, BF16), which neither CI machines nor qemu have.
//!
//! Bochs boots a Linux kernel from a CD image whose initramfs holds the static test binary and a busybox script as
//! `init`. The guest's serial port is a file here. Correctness only: nothing is timed.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::steps::{cargo_command, executable, root, run};

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Static, because the guest has no libraries; stripped, because the guest reads it from an emulated CD drive.
/// `emulated` leaves out what would only cost time.
const RUSTFLAGS: &str = "-C target-feature=+crt-static -C strip=symbols --cfg emulated";
/// Boot and tests; several times what an idle machine of two cores takes.
const MOST_TIME: Duration = Duration::from_secs(40 * 60);

/// Below `target/bochs`, made by `.ci/bochs`.
const BOCHS: &str = "bochs";
const LINUX: &str = "linux";
const BUSYBOX: &str = "root/bin/busybox";
const ISOLINUX: &str = "root/usr/lib/ISOLINUX/isolinux.bin";
const LDLINUX: &str = "root/usr/lib/syslinux/modules/bios/ldlinux.c32";

/// - `no5lvl`: bochs 3.0 panics at the ACPI switch-over (RSM) with five-level page tables.
/// - `clearcpuid=580`: bochs reports FSRM but no fast strings; Linux 6.1's `memmove` then runs past its end.
const KERNEL_WORDS: &str = "console=ttyS0 quiet mitigations=off tsc=reliable no5lvl clearcpuid=580";

/// The pause lets the serial port send what it has queued; powering off drops it.
const INIT: &str = "/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox grep -m1 ^flags /proc/cpuinfo
# Peaks of an emulated CPU mean nothing, and the loops that measure them take minutes.
/bin/unit-tests --test-threads=1 --nocapture --skip peak::
echo \"guest: exit status $?\"
/bin/busybox sleep 5
/bin/busybox poweroff -f
";
const EXIT_STATUS: &str = "guest: exit status ";
/// How the unit tests begin the line for an instruction set that the CPU lacks; this one has all of x86-64's.
const NOT_COVERED: &str = "SKIPPED: this CPU has no ";

/// Builds the tests, boots the guest and judges what it wrote.
pub(crate) fn avx512() -> Result<()> {
    let tools = root().join("target/bochs");
    if !tools.join("complete").exists() {
        eprintln!(
            "==> SKIPPED: the AVX-512 kernels have not run: target/bochs is absent (.ci/bochs makes it)"
        );
        return Ok(());
    }
    let folder = root().join("target/avx512");
    let tests = build(&folder)?;
    let machine = folder.join("machine");
    boot_image(&tools, &tests, &machine)?;
    let started = Instant::now();
    let serial = boot(&tools, &machine)?;
    eprintln!("{serial}==> the guest ran for {} s", started.elapsed().as_secs());
    judge(&serial)
}

/// Instruction sets that need no emulator: the tests have run on this machine.
fn tested_here() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        return "portable,avx2";
    }
    "portable"
}

/// Builds the unit tests of the kernels; returns their executable.
fn build(target_folder: &Path) -> Result<PathBuf> {
    let mut command = cargo_command();
    command.args([
        "test",
        "--package",
        "dinov2-kernels",
        "--lib",
        "--no-run",
        "--locked",
        "--target",
        TARGET,
    ]);
    command.arg("--target-dir").arg(target_folder).env("RUSTFLAGS", RUSTFLAGS);
    executable(&mut command, "dinov2_kernels")
}

/// Writes `machine/boot.iso`: boot loader, kernel and an initramfs with the tests.
fn boot_image(tools: &Path, tests: &Path, machine: &Path) -> Result<()> {
    let (guest, disc) = (machine.join("guest"), machine.join("disc"));
    for folder in ["bin", "proc", "dev"].map(|name| guest.join(name)).iter().chain([&disc]) {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let copies = [
        (tests.to_owned(), guest.join("bin/unit-tests")),
        (tools.join(BUSYBOX), guest.join("bin/busybox")),
        (tools.join(ISOLINUX), disc.join("isolinux.bin")),
        (tools.join(LDLINUX), disc.join("ldlinux.c32")),
        (tools.join(LINUX), disc.join("linux")),
    ];
    for (from, to) in &copies {
        fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    // A script inherits the mode of the file that it is written over.
    let init = guest.join("init");
    fs::copy(&copies[1].0, &init).with_context(|| init.display().to_string())?;
    let script = format!("#!/bin/busybox sh\nexport DINOV2_ISAS_TESTED={}\n{INIT}", tested_here());
    fs::write(&init, script).with_context(|| init.display().to_string())?;
    initramfs(&tools.join(BUSYBOX), &guest, &disc.join("initrd"))?;
    let menu = format!("default guest\nlabel guest\nkernel linux\ninitrd initrd\nappend {KERNEL_WORDS}\n");
    fs::write(disc.join("isolinux.cfg"), menu).context("isolinux.cfg")?;
    let mut command = Command::new("xorriso");
    command.args(["-as", "mkisofs", "-quiet", "-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot"]);
    command.args(["-boot-load-size", "4", "-boot-info-table", "-o"]);
    run(command.arg(machine.join("boot.iso")).arg(&disc))
}

/// Packs a folder as the kernel unpacks it (a cpio archive).
fn initramfs(busybox: &Path, folder: &Path, archive: &Path) -> Result<()> {
    let output = fs::File::create(archive).with_context(|| archive.display().to_string())?;
    let mut command = Command::new(busybox);
    command.args(["cpio", "-o", "-H", "newc"]).current_dir(folder).stdout(output).stdin(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().context("busybox cpio")?;
    let names = b".\ninit\nbin\nbin/busybox\nbin/unit-tests\nproc\ndev\n";
    child.stdin.take().context("busybox cpio")?.write_all(names).context("busybox cpio")?;
    let status = child.wait().context("busybox cpio")?;
    if !status.success() {
        bail!("busybox cpio: {status}");
    }
    Ok(())
}

/// Boots the image and returns what the guest wrote to its serial port, up to the tests' exit status.
fn boot(tools: &Path, machine: &Path) -> Result<String> {
    let firmware = tools.join("root/usr/share");
    let settings = format!(
        "display_library: nogui\n\
         cpu: model=sapphire_rapids, count=1, ips=50000000, ignore_bad_msrs=1\n\
         clock: sync=none\n\
         memory: guest=512, host=512\n\
         romimage: file=\"{}\", options=fastboot\n\
         vgaromimage: file=\"{}\"\n\
         ata0-master: type=cdrom, path=boot.iso, status=inserted\n\
         boot: cdrom\n\
         com1: enabled=1, mode=file, dev=serial.log\n\
         log: bochs.log\n\
         panic: action=fatal\n\
         error: action=ignore\n",
        firmware.join("bochs/BIOS-bochs-latest").display(),
        firmware.join("vgabios/vgabios.bin").display(),
    );
    fs::write(machine.join("bochsrc"), settings).context("bochsrc")?;
    let serial = machine.join("serial.log");
    fs::write(&serial, "").with_context(|| serial.display().to_string())?;
    let mut command = Command::new(tools.join(BOCHS));
    command.args(["-q", "-f", "bochsrc"]).current_dir(machine).stdin(Stdio::null()).stderr(Stdio::null());
    eprintln!("==> bochs -q -f bochsrc, in {}", machine.display());
    let mut child = command.stdout(Stdio::null()).spawn().context("bochs")?;
    let ended = wait_for_end(&mut child, &serial);
    // The guest may hang or have powered off; the emulator is not needed in either case.
    child.kill().and_then(|()| child.wait()).context("bochs")?;
    ended
}

/// Reads the serial port until it holds the tests' exit status, the guest has died, or the time limit is over.
fn wait_for_end(child: &mut Child, serial: &Path) -> Result<String> {
    let deadline = Instant::now() + MOST_TIME;
    loop {
        let exited = child.try_wait().context("bochs")?.is_some();
        let bytes = fs::read(serial).with_context(|| serial.display().to_string())?;
        let text = String::from_utf8_lossy(&bytes).replace('\r', "");
        if exited
            || exit_status(&text).is_some()
            || text.contains("Kernel panic")
            || Instant::now() > deadline
        {
            return Ok(text);
        }
        sleep(Duration::from_millis(500));
    }
}

/// The tests' exit status, as the guest prints it.
fn exit_status(serial: &str) -> Option<&str> {
    let (status, _) = serial.split_once(EXIT_STATUS)?.1.split_once('\n')?;
    Some(status)
}

fn judge(serial: &str) -> Result<()> {
    match exit_status(serial) {
        None => bail!("avx512: the guest did not get to the end of the tests; see target/avx512/machine"),
        Some("0") => {}
        Some(status) => bail!("avx512: the tests: expected exit status 0, got {status}"),
    }
    if let Some(line) = serial.lines().find(|line| line.contains(NOT_COVERED)) {
        bail!("avx512: expected every instruction set to be covered, got {line:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_and_covering_run_passes() {
        judge("test x ... ok\nguest: exit status 0\n").unwrap();
        for wrong in [
            "",
            "test x ... ok\n",
            "guest: exit status 101\n",
            "guest: exit status 0",
            "SKIPPED: this CPU has no avx512\nguest: exit status 0\n",
            "SKIPPED: this CPU has no avx512vnni\nguest: exit status 0\n",
        ] {
            assert!(judge(wrong).is_err(), "{wrong:?}");
        }
    }
}
