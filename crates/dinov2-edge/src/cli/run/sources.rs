use std::path::PathBuf;

use anyhow::bail;
use dinov2_edge::io::{RawFormat, RawPixels, Source, SourceOptions, TestCamera, open};

use crate::cli::usage;

/// Where frames come from.
#[derive(clap::Args)]
pub(super) struct SourceArgs {
    /// Camera device, or `test:WIDTHxHEIGHT@FPS` for one that is none; several times for several cameras
    #[arg(long, value_name = "DEVICE", conflicts_with = "input")]
    pub(super) camera: Vec<String>,
    /// Images, folders, globs, y4m, MJPEG, any video, `-` for standard input, `test:` for a synthetic pattern
    #[arg(long, short, num_args = 1.., value_name = "PATH")]
    pub(super) input: Vec<String>,
    /// Size of raw frames on standard input, WIDTHxHEIGHT
    #[arg(long, value_name = "WxH")]
    raw_size: Option<String>,
    /// Pixels of raw frames: rgb24, bgr24, gray8, yuyv422 or nv12
    #[arg(long, default_value = "rgb24")]
    raw_format: RawPixels,
    /// Program that decodes videos
    #[arg(long, default_value = "ffmpeg")]
    ffmpeg: PathBuf,
}

impl SourceArgs {
    /// Opens what was asked for.
    pub(super) fn open(&self) -> anyhow::Result<Vec<Box<dyn Source>>> {
        if !self.input.is_empty() {
            let options = SourceOptions { raw: self.raw()?, ffmpeg: self.ffmpeg.clone() };
            return Ok(vec![open(&self.input, &options)?]);
        }
        if self.camera.is_empty() {
            bail!(usage(
                "run: expected a source, got none; try `--input PHOTO.jpg`, `--input VIDEO.mp4` or `--input test:`"
            ));
        }
        self.camera.iter().map(|device| self.open_camera(device)).collect()
    }

    /// A name for each of `count` sources.
    #[cfg(feature = "view")]
    pub(super) fn names(&self, count: usize) -> Vec<String> {
        (0..count).map(|index| self.camera.get(index).cloned().unwrap_or_else(|| "input".into())).collect()
    }

    fn open_camera(&self, device: &str) -> anyhow::Result<Box<dyn Source>> {
        if device.starts_with("test:") {
            return Ok(Box::new(TestCamera::parse(device).map_err(usage)?));
        }
        bail!("camera {device}: not yet")
    }

    fn raw(&self) -> anyhow::Result<Option<RawFormat>> {
        let Some(size) = &self.raw_size else { return Ok(None) };
        Ok(Some(RawFormat::new(size, self.raw_format).map_err(usage)?))
    }
}
