//! Facts about the machine, read from Linux; on other systems they are absent.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Marketing name of the CPU.
pub(crate) fn cpu_model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let value = |key: &str| {
        let line = info.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    // ARM boards have no model name there; the device tree names the board instead.
    value("model name").or_else(|| {
        let board = fs::read_to_string("/proc/device-tree/model").ok()?;
        Some(board.trim_end_matches('\0').to_string())
    })
}

/// Peak resident memory of this process, in bytes.
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// CPU time of all threads of this process, with a resolution of 10 ms.
pub(crate) fn cpu_time() -> Option<Duration> {
    /// Ticks per second that Linux shows to programs (`USER_HZ`).
    const TICKS_PER_S: u64 = 100;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the program's name, may hold anything; utime and stime are the 14th and 15th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let [user, system]: [u64; 2] = [fields.next()?.parse().ok()?, fields.next()?.parse().ok()?];
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_S))
}

/// Memory available without swapping, in bytes.
pub(crate) fn available_memory_bytes() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Instruction set extensions of the CPU that are relevant for kernels.
pub(crate) fn cpu_features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! check {
            ($($name:tt)*) => { $(if std::is_x86_feature_detected!($name) { found.push($name); })* };
        }
        check!("sse4.2" "avx2" "fma" "f16c" "avxvnni" "avx512f" "avx512dq" "avx512vnni" "avx512bf16");
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! check {
            ($($name:tt)*) => { $(if std::arch::is_aarch64_feature_detected!($name) { found.push($name); })* };
        }
        check!("neon" "fp16" "dotprod" "i8mm" "bf16" "sve");
    }
    found.sort_unstable_by_key(|name| name.len());
    found
}

/// A camera of the kernel's video subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Camera {
    /// Device file, `/dev/video0`.
    pub(crate) device: String,
    /// Name that the driver gives it.
    pub(crate) name: String,
}

/// Video devices that the kernel lists, by number.
pub(crate) fn cameras() -> Vec<Camera> {
    let mut found: Vec<(usize, Camera)> = listed(Path::new("/sys/class/video4linux"))
        .filter_map(|entry| {
            let number = entry.strip_prefix("video")?.parse().ok()?;
            let name = fs::read_to_string(format!("/sys/class/video4linux/{entry}/name")).ok()?;
            Some((number, Camera { device: format!("/dev/{entry}"), name: name.trim().to_string() }))
        })
        .collect();
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, camera)| camera).collect()
}

/// GPUs by the render nodes of the kernel, with the driver that owns each.
pub(crate) fn gpus() -> Vec<String> {
    let mut found: Vec<String> = listed(Path::new("/sys/class/drm"))
        .filter(|entry| entry.starts_with("renderD"))
        .map(|entry| {
            let driver = fs::read_link(format!("/sys/class/drm/{entry}/device/driver")).ok();
            let driver =
                driver.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
            format!("/dev/dri/{entry} ({})", driver.as_deref().unwrap_or("unknown driver"))
        })
        .collect();
    found.sort();
    found
}

fn listed(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    /// A block larger than the peak before raises it, whatever other tests hold meanwhile. Memory that was never written is not
    /// resident, and what was freed stays in the peak.
    #[test]
    fn peak_memory_is_the_most_that_was_resident() {
        const MORE: usize = 64 << 20;
        /// The kernel counts resident pages per CPU and adds them up now and then.
        const INEXACT: usize = 8 << 20;
        let before = super::peak_memory_bytes().unwrap() as usize;
        let untouched = std::hint::black_box(Vec::<u8>::with_capacity(before + 16 * MORE));
        let reserved = super::peak_memory_bytes().unwrap() as usize;
        assert!(reserved < before + 8 * MORE, "{before} {reserved} {}", untouched.capacity());
        let written = std::hint::black_box(vec![1u8; before + MORE]);
        let with_written = super::peak_memory_bytes().unwrap() as usize;
        assert!(with_written + INEXACT >= before + MORE, "{before} {with_written} {}", written.len());
        drop(written);
        let after = super::peak_memory_bytes().unwrap() as usize;
        assert!(after + INEXACT >= before + MORE, "{before} {with_written} {after}");
    }
}
