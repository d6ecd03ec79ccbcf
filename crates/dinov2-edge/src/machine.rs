//! Facts about the machine, as far as Linux tells them; elsewhere they are absent.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Marketing name of the CPU.
pub fn cpu_model() -> Option<String> {
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

/// Most memory that this process has had resident so far, in bytes.
pub fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// CPU time of this process so far, of all threads, in units of 10 ms.
pub fn cpu_time() -> Option<Duration> {
    /// Ticks per second that Linux shows to programs (`USER_HZ`).
    const TICKS_PER_S: u64 = 100;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the program's name, may hold anything; utime and stime are the 14th and 15th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let [user, system]: [u64; 2] = [fields.next()?.parse().ok()?, fields.next()?.parse().ok()?];
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_S))
}

/// Memory that could be had without swapping, in bytes.
pub fn available_memory_bytes() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Those instruction set extensions of the CPU that matter to kernels, present or to come.
pub fn cpu_features() -> Vec<&'static str> {
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
pub struct Camera {
    /// Device file, `/dev/video0`.
    pub device: String,
    /// Name that the driver gives it.
    pub name: String,
}

/// Video devices that the kernel lists, by number.
pub fn cameras() -> Vec<Camera> {
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
pub fn gpus() -> Vec<String> {
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

/// Whether there may be a GPU: on Linux and Android, whether any driver's device is there. Cheaper than asking the drivers.
pub fn may_have_gpu() -> bool {
    /// NVIDIA (desktop, Jetson), Mali and Adreno drivers without a DRM node.
    const DEVICES: [&str; 5] =
        ["/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvgpu/igpu0", "/dev/mali0", "/dev/kgsl-3d0"];
    !cfg!(any(target_os = "linux", target_os = "android"))
        || !gpus().is_empty()
        || DEVICES.iter().any(|device| Path::new(device).exists())
}

/// How hot the machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thermals {
    /// The hottest thermal zone, in degrees Celsius.
    pub temperature_c: Option<f64>,
    /// True if the processor is being slowed down.
    pub throttled: Option<bool>,
}

/// Reads temperature and throttling from the kernel.
pub fn thermals() -> Thermals {
    thermals_below(Path::new("/sys"))
}

/// Zones: `class/thermal/thermal_zone*/temp`, in thousandths of a degree. Throttling: cooling devices that hold a processor
/// back (`class/thermal/cooling_device*/{type,cur_state}`), and on a Raspberry Pi the firmware's own word for it.
fn thermals_below(sys: &Path) -> Thermals {
    /// What is outside of this is a sensor that does not work.
    const PLAUSIBLE_C: std::ops::Range<f64> = -50.0..200.0;
    /// Raspberry Pi: under-voltage, capped, throttled, soft temperature limit; the higher bits tell of the past.
    const PI_NOW: u32 = 0xF;
    let class = sys.join("class/thermal");
    let read = |path: &Path| Some(fs::read_to_string(path).ok()?.trim().to_string());
    let zones = listed(&class).filter(|name| name.starts_with("thermal_zone"));
    let degrees = zones.filter_map(|zone| {
        let thousandths: f64 = read(&class.join(zone).join("temp"))?.parse().ok()?;
        Some(thousandths / 1e3).filter(|degrees| PLAUSIBLE_C.contains(degrees))
    });
    let temperature_c = degrees.reduce(f64::max);
    let coolers = listed(&class).filter(|name| name.starts_with("cooling_device"));
    let held_back = coolers.filter_map(|cooler| {
        let kind = read(&class.join(&cooler).join("type"))?;
        let processor = ["Processor", "cpufreq", "cpu-"].iter().any(|name| kind.contains(name));
        let state: u64 = read(&class.join(&cooler).join("cur_state"))?.parse().ok()?;
        processor.then_some(state > 0)
    });
    let pi = read(&sys.join("devices/platform/soc/soc:firmware/get_throttled"));
    let pi = pi.and_then(|bits| u32::from_str_radix(bits.trim_start_matches("0x"), 16).ok());
    let throttled = held_back.chain(pi.map(|bits| bits & PI_NOW != 0)).reduce(|any, one| any | one);
    Thermals { temperature_c, throttled }
}

fn listed(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn peak_memory_grows_with_what_is_touched() {
        let before = super::peak_memory_bytes().unwrap();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = super::peak_memory_bytes().unwrap();
        assert!(after >= before.max(block.len() as u64), "{before} {after}");
    }

    #[test]
    fn heat_is_read_as_the_kernel_writes_it() {
        let sys = tempfile::tempdir().unwrap();
        let nothing = super::thermals_below(sys.path());
        assert_eq!(nothing, super::Thermals::default());
        let write = |path: &str, text: &str| {
            let path = sys.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("class/thermal/thermal_zone0/temp", "48500\n");
        write("class/thermal/thermal_zone1/temp", "61250\n");
        write("class/thermal/thermal_zone2/temp", "-274000\n");
        write("class/thermal/cooling_device0/type", "Processor\n");
        write("class/thermal/cooling_device0/cur_state", "0\n");
        write("class/thermal/cooling_device1/type", "pwm-fan\n");
        write("class/thermal/cooling_device1/cur_state", "3\n");
        let cool = super::thermals_below(sys.path());
        assert_eq!((cool.temperature_c, cool.throttled), (Some(61.25), Some(false)));
        write("devices/platform/soc/soc:firmware/get_throttled", "50000\n");
        assert_eq!(super::thermals_below(sys.path()).throttled, Some(false), "throttled once, not now");
        write("devices/platform/soc/soc:firmware/get_throttled", "50004\n");
        assert_eq!(super::thermals_below(sys.path()).throttled, Some(true));
    }
}
