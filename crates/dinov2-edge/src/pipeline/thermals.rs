//! Temperature and throttling of the machine, from Linux's `/sys`. Other systems report nothing.

use std::fs;
use std::path::Path;

/// Temperature and throttling of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thermals {
    /// The hottest thermal zone, in degrees Celsius.
    pub temperature_c: Option<f64>,
    /// True if the processor is throttled.
    pub throttled: Option<bool>,
}

/// Reads temperature and throttling from the kernel.
pub fn thermals() -> Thermals {
    thermals_below(Path::new("/sys"))
}

/// Temperature: `class/thermal/thermal_zone*/temp`, in thousandths of a degree. Throttling: active cooling devices of the processor
/// (`class/thermal/cooling_device*/{type,cur_state}`), and the firmware's flags on a Raspberry Pi.
fn thermals_below(sys: &Path) -> Thermals {
    /// Values outside this range come from broken sensors.
    const PLAUSIBLE_C: std::ops::Range<f64> = -50.0..200.0;
    /// Raspberry Pi: under-voltage, capped, throttled, soft temperature limit. The higher bits report past events.
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

#[cfg(test)]
mod tests {
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
