//! Device nodes: finds cameras and lists what each offers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::abi::{self, Capability, Fraction, QUERYCAP};
use super::facts::{CameraInfo, CameraPixels, CameraRates, CameraSize, FORMATS};
use super::ffi::{Device, zeroed};
use super::negotiate::nearest_size;
use crate::limits::MAX_SIDE_PX;
use crate::natural_order;

/// Most entries of any list of a driver; real ones stay below 300.
pub(super) const MAX_ENTRIES: u32 = 1024;
/// Default size.
pub(super) const USUAL_SIZE_PX: (usize, usize) = (640, 480);
/// Default rate.
pub(super) const USUAL_FPS: f64 = 30.0;

/// An open device that captures video.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) device: Device,
    /// Type of its buffers: one plane or several.
    pub(super) kind: u32,
    pub(super) identity: Identity,
    driver: String,
}

/// Name and bus address, by which a camera is recognised after it was plugged in again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) card: String,
    pub(super) bus: String,
}

/// Why a node cannot be used.
#[derive(Debug)]
pub(super) enum NodeFault {
    Io(io::Error),
    NoCapture,
}

impl From<io::Error> for NodeFault {
    fn from(error: io::Error) -> Self {
        // The request is unknown, so it is not a video device.
        if error.raw_os_error() == Some(libc::ENOTTY) { Self::NoCapture } else { Self::Io(error) }
    }
}

impl Node {
    pub(super) fn open(path: &Path) -> Result<Self, NodeFault> {
        let device = Device::open(path)?;
        let mut capability: Capability = zeroed();
        device.call(QUERYCAP, &mut capability)?;
        let all = capability.capabilities;
        let flags = if all & abi::CAP_DEVICE_CAPS != 0 { capability.device_caps } else { all };
        let kind = match flags {
            _ if flags & abi::CAP_STREAMING == 0 => return Err(NodeFault::NoCapture),
            _ if flags & abi::CAP_VIDEO_CAPTURE != 0 => abi::BUF_TYPE_CAPTURE,
            _ if flags & abi::CAP_VIDEO_CAPTURE_MPLANE != 0 => abi::BUF_TYPE_CAPTURE_MPLANE,
            _ => return Err(NodeFault::NoCapture),
        };
        let identity = Identity { card: text(&capability.card), bus: text(&capability.bus_info) };
        Ok(Self { device, kind, identity, driver: text(&capability.driver) })
    }

    /// Formats with their sizes and rates; those of ranges of sizes are asked for near `wished`.
    pub(super) fn formats(&self, wished: (usize, usize)) -> Vec<CameraPixels> {
        let describe = |index| {
            let mut format: abi::FormatDescription = zeroed();
            (format.index, format.kind) = (index, self.kind);
            self.device.call(abi::ENUM_FMT, &mut format).ok()?;
            Some(format)
        };
        let pixels = |format: abi::FormatDescription| CameraPixels {
            code: code_as_text(format.pixel_format),
            description: text(&format.description),
            format: FORMATS
                .iter()
                .find(|(.., code)| *code == format.pixel_format)
                .map(|(format, ..)| *format),
            sizes: self.sizes(format.pixel_format, wished),
        };
        (0..MAX_ENTRIES).map_while(describe).map(pixels).collect()
    }

    fn sizes(&self, pixel_format: [u8; 4], wished: (usize, usize)) -> Vec<CameraSize> {
        let describe = |index| {
            let mut size: abi::FrameSize = zeroed();
            (size.index, size.pixel_format) = (index, pixel_format);
            self.device.call(abi::ENUM_FRAMESIZES, &mut size).ok()?;
            Some(size)
        };
        let mut sizes = Vec::new();
        for size in (0..MAX_ENTRIES).map_while(describe) {
            let side = |value: u32| (value as usize).clamp(1, MAX_SIDE_PX);
            let [first, second, ..] = size.range;
            let discrete = size.kind == abi::DISCRETE;
            let (widths, heights) = if discrete {
                ([first, first, 1], [second, second, 1])
            } else {
                let [_, _, _, least, most, step] = size.range;
                ([size.range[0], size.range[1], size.range[2]], [least, most, step])
            };
            let mut size = CameraSize {
                smallest: (side(widths[0]), side(heights[0])),
                largest: (side(widths[1]), side(heights[1])),
                step: (side(widths[2]), side(heights[2])),
                rates: CameraRates::Unknown,
            };
            size.rates = self.rates(pixel_format, nearest_size(&size, wished));
            sizes.push(size);
            if !discrete {
                break;
            }
        }
        sizes
    }

    fn rates(&self, pixel_format: [u8; 4], size: (usize, usize)) -> CameraRates {
        let mut rates = Vec::new();
        for index in 0..MAX_ENTRIES {
            let mut interval: abi::FrameInterval = zeroed();
            (interval.index, interval.pixel_format) = (index, pixel_format);
            (interval.width, interval.height) = (size.0 as u32, size.1 as u32);
            if self.device.call(abi::ENUM_FRAMEINTERVALS, &mut interval).is_err() {
                break;
            }
            let (most, least) = (fps(interval.shortest), fps(interval.longest));
            if interval.kind != abi::DISCRETE {
                return match (least, most) {
                    (Some(least), Some(most)) => CameraRates::FpsBetween(least.min(most), most.max(least)),
                    _ => CameraRates::Unknown,
                };
            }
            rates.extend(most);
        }
        rates.sort_by(|left, right| right.total_cmp(left));
        rates.dedup();
        if rates.is_empty() { CameraRates::Unknown } else { CameraRates::Fps(rates) }
    }

    fn info(&self, path: &Path) -> CameraInfo {
        CameraInfo {
            path: path.to_path_buf(),
            name: self.identity.card.clone(),
            driver: self.driver.clone(),
            bus: self.identity.bus.clone(),
            formats: self.formats(USUAL_SIZE_PX),
            controls: self.controls(),
            problem: None,
        }
    }
}

/// Frames per second for a time per frame.
pub(super) fn fps(interval: Fraction) -> Option<f64> {
    let rate = f64::from(interval.denominator) / f64::from(interval.numerator);
    (rate.is_finite() && rate > 0.0).then_some(rate)
}

/// The letters of a pixel format; its highest bit says that the samples are big-endian.
fn code_as_text([a, b, c, d]: [u8; 4]) -> String {
    let letters = text(&[a, b, c, d & 0x7F]);
    if d & 0x80 == 0 { letters } else { format!("{letters}-BE") }
}

/// Text of the driver up to its zero byte, without control characters.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    text.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The nodes of video devices, in natural order.
pub(super) fn nodes() -> Vec<PathBuf> {
    let is_video = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let number = name.strip_prefix("video").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut nodes: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_video).collect();
    nodes.sort_by(|left, right| natural_order(&left.to_string_lossy(), &right.to_string_lossy()));
    nodes
}

/// All cameras of this machine with their modes and controls. Nodes without video (metadata, decoders) are left out; a camera
/// that cannot be opened is listed with its [`CameraInfo::problem`].
pub fn list_cameras() -> Vec<CameraInfo> {
    let describe = |path: PathBuf| match Node::open(&path) {
        Ok(node) => Some(node.info(&path)),
        Err(NodeFault::NoCapture) => None,
        Err(NodeFault::Io(error)) => {
            let name = name_in_sysfs(&path);
            let problem = Some(describe_error(&error, &path));
            Some(CameraInfo { path, name, problem, ..CameraInfo::default() })
        }
    };
    nodes().into_iter().filter_map(describe).collect()
}

fn name_in_sysfs(path: &Path) -> String {
    let node = path.file_name().unwrap_or_default();
    let name = fs::read(Path::new("/sys/class/video4linux").join(node).join("name"));
    text(&name.unwrap_or_default())
}

/// Explains an error of the system for a camera, with advice.
pub(super) fn describe_error(error: &io::Error, path: &Path) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "expected permission to read and write, got none (sudo usermod -aG video $USER, then log in again)".into()
        }
        Some(libc::EBUSY) => match users(path).as_slice() {
            [] => "in use already (sudo fuser -v tells by what)".into(),
            users => format!("in use by {}", users.join(", ")),
        },
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => format!("expected a camera, got none ({})", others()),
        _ => error.to_string(),
    }
}

/// The list of connected cameras, for a message.
pub(super) fn others() -> String {
    let describe = |path: PathBuf| match Node::open(&path) {
        Ok(node) => Some(format!("{} ({})", path.display(), node.identity.card)),
        Err(NodeFault::NoCapture) => None,
        Err(NodeFault::Io(_)) => Some(path.display().to_string()),
    };
    let found: Vec<String> = nodes().into_iter().filter_map(describe).collect();
    if found.is_empty() { "none is connected".into() } else { format!("there is {}", found.join(", ")) }
}

/// Programs that have the device open, as far as this process may see.
fn users(path: &Path) -> Vec<String> {
    let device = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let own = std::process::id().to_string();
    let has_open = |process: &Path| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        open.into_iter().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == device))
    };
    let describe = |entry: fs::DirEntry| {
        let id = entry.file_name().into_string().ok()?;
        let is_process = id.bytes().all(|byte| byte.is_ascii_digit());
        if !is_process || id == own || !has_open(&entry.path()) {
            return None;
        }
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some(format!("{} (process {id})", name.trim()))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(describe).take(3).collect()
}
