//! Arguments that select the sources of `run`: cameras, files, streams, recordings.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::bail;
use dinov2_edge::io::{
    Camera, CameraConfig, CameraFormat, RawFormat, RawPixels, Source, SourceOptions, TestCamera,
    list_cameras, open,
};

use crate::usage;

/// Maximum number of cameras in one run.
const MAX_CAMERAS: usize = 64;

/// The sources of frames.
#[derive(clap::Args)]
pub(super) struct SourceArgs {
    /// Camera device or its number, or `test:WIDTHxHEIGHT@FPS` for a synthetic camera; may be repeated [default: the first camera]
    #[arg(long, value_name = "DEVICE", num_args = 0..=1, value_parser = device, conflicts_with = "input")]
    camera: Option<Vec<String>>,
    /// Images, folders, globs, y4m, MJPEG, any video, recordings, `-` for standard input,
    /// `test:` for a synthetic pattern; write a name that begins with a dash as --input=-NAME or ./-NAME
    #[arg(long, short, num_args = 1.., value_name = "PATH")]
    input: Vec<OsString>,
    /// Frame size of the camera, WIDTHxHEIGHT; the nearest supported size is used [default: about 640x480]
    #[arg(long, value_name = "WxH", value_parser = camera_size, conflicts_with = "input")]
    camera_size: Option<(usize, usize)>,
    /// Frame rate of the camera; the nearest supported rate is used [default: about 30]
    #[arg(long, value_name = "RATE", value_parser = camera_fps, conflicts_with = "input")]
    camera_fps: Option<f64>,
    /// Pixel format of the camera: yuyv, uyvy, nv12, rgb24, bgr24, mjpeg, jpeg or grey [default: uncompressed if fast enough]
    #[arg(long, value_name = "NAME", conflicts_with = "input")]
    camera_format: Option<CameraFormat>,
    /// Control of the camera, such as exposure_time_absolute=100; may be repeated (`cameras` lists the controls)
    #[arg(long, value_name = "NAME=VALUE", value_parser = control, conflicts_with = "input")]
    control: Vec<(String, i64)>,
    /// Size of raw frames on standard input, WIDTHxHEIGHT
    #[arg(long, value_name = "WxH")]
    raw_size: Option<String>,
    /// Pixel format of raw frames: rgb24, bgr24, gray8, yuyv422 or nv12
    #[arg(long, default_value = "rgb24")]
    raw_format: RawPixels,
    /// Image topic of a recording [default: the topic of the first image]
    #[arg(long, requires = "input")]
    topic: Option<String>,
    /// Program that decodes videos
    #[arg(long, default_value = "ffmpeg")]
    ffmpeg: PathBuf,
}

/// A number `N` stands for `/dev/videoN`.
fn device(word: &str) -> Result<String, Infallible> {
    let number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    Ok(if number { format!("/dev/video{word}") } else { word.into() })
}

fn camera_size(word: &str) -> Result<(usize, usize), String> {
    let sides = word
        .split_once(['x', 'X'])
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.filter(|(width, height)| *width > 0 && *height > 0).ok_or_else(|| "expected WIDTHxHEIGHT".into())
}

fn camera_fps(word: &str) -> Result<f64, String> {
    word.parse()
        .ok()
        .filter(|rate| (0.001..=10_000.0).contains(rate))
        .ok_or_else(|| "expected a rate above 0".into())
}

fn control(word: &str) -> Result<(String, i64), String> {
    let pair = word.split_once('=').and_then(|(name, value)| Some((name.to_string(), value.parse().ok()?)));
    pair.filter(|(name, _)| !name.is_empty()).ok_or_else(|| "expected NAME=INTEGER".into())
}

impl SourceArgs {
    /// Opens the sources.
    pub(super) fn open(&self) -> anyhow::Result<Vec<Box<dyn Source>>> {
        if !self.input.is_empty() {
            let topic = self.topic.clone();
            let options = SourceOptions { raw: self.raw()?, ffmpeg: self.ffmpeg.clone(), topic };
            return Ok(vec![open(&self.input, &options)?]);
        }
        let devices = self.devices()?;
        if devices.len() > MAX_CAMERAS {
            bail!(usage(format_args!("run: expected at most {MAX_CAMERAS} cameras, got {}", devices.len())));
        }
        devices.iter().map(|device| self.open_camera(device)).collect()
    }

    /// The requested cameras, otherwise the first usable one.
    fn devices(&self) -> anyhow::Result<Vec<String>> {
        if let Some(devices) = self.camera.as_ref().filter(|devices| !devices.is_empty()) {
            return Ok(devices.clone());
        }
        let cameras = list_cameras();
        if let Some(usable) = cameras.iter().find(|camera| camera.problem.is_none()) {
            return Ok(vec![usable.path.display().to_string()]);
        }
        if let Some((camera, problem)) =
            cameras.iter().find_map(|camera| Some((camera, camera.problem.as_ref()?)))
        {
            bail!("camera: {problem}: {}", camera.path.display());
        }
        bail!(usage(
            "run: expected a source, and this machine has no camera; plug one in, or try `--input PHOTO.jpg`, \
             `--input VIDEO.mp4` or `--camera test:`"
        ))
    }

    fn open_camera(&self, device: &str) -> anyhow::Result<Box<dyn Source>> {
        if device.starts_with("test:") {
            return Ok(Box::new(TestCamera::parse(device).map_err(usage)?));
        }
        let camera = Camera::open(CameraConfig {
            device: Path::new(device).to_path_buf(),
            size: self.camera_size,
            fps: self.camera_fps,
            format: self.camera_format,
            controls: self.control.clone(),
        })?;
        tell!("{device}: {}", camera.describe());
        Ok(Box::new(camera))
    }

    /// A name for each of `count` sources.
    #[cfg(feature = "view")]
    pub(super) fn names(&self, count: usize) -> Vec<String> {
        let cameras = self.camera.as_deref().unwrap_or_default();
        let name = |index: usize| cameras.get(index).map_or("camera", String::as_str);
        (0..count)
            .map(|index| if self.input.is_empty() { name(index).into() } else { "input".into() })
            .collect()
    }

    fn raw(&self) -> anyhow::Result<Option<RawFormat>> {
        let Some(size) = &self.raw_size else { return Ok(None) };
        Ok(Some(RawFormat::new(size, self.raw_format).map_err(usage)?))
    }
}
