//! `cameras`: lists cameras with formats, sizes, rates and controls.

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use dinov2_edge::io::{CameraControl, CameraInfo, CameraRates, CameraSize, list_cameras};
use serde_json::json;

/// Arguments of `cameras`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this camera
    device: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let mut cameras = list_cameras();
    let found: Vec<String> = cameras.iter().map(|camera| camera.path.display().to_string()).collect();
    if found.is_empty() {
        bail!(
            "cameras: expected one at /dev/video*, got none (check the connection with `lsusb` and `dmesg`; \
             a container needs --device /dev/video0)"
        );
    }
    if let Some(device) = &args.device {
        // Resolves links, such as those in /dev/v4l/by-id.
        let node = device.canonicalize().unwrap_or_else(|_| device.clone());
        cameras.retain(|camera| camera.path == node);
        if cameras.is_empty() {
            bail!("camera: expected one of {}, got {}", found.join(", "), device.display());
        }
    }
    let mut stdout = std::io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", json!({ "cameras": cameras }))?;
        return Ok(());
    }
    for camera in &cameras {
        describe(camera, &mut stdout)?;
    }
    Ok(())
}

fn describe(camera: &CameraInfo, out: &mut impl Write) -> std::io::Result<()> {
    let CameraInfo { path, name, driver, bus, .. } = camera;
    if let Some(problem) = &camera.problem {
        return writeln!(out, "{}  {name}: {problem}", path.display());
    }
    writeln!(out, "{}  {name} ({driver}, {bus})", path.display())?;
    for pixels in camera.formats.iter().filter(|pixels| pixels.format.is_some()) {
        let sizes: Vec<String> = pixels.sizes.iter().map(size_in_words).collect();
        writeln!(out, "  {:<6} {}", pixels.code, sizes.join("; "))?;
    }
    let unused: Vec<&str> = camera
        .formats
        .iter()
        .filter(|pixels| pixels.format.is_none())
        .map(|pixels| pixels.code.as_str())
        .collect();
    if !unused.is_empty() {
        writeln!(out, "  not decoded: {}", unused.join(" "))?;
    }
    let width = camera.controls.iter().map(|control| control.name.len()).max().unwrap_or(0);
    for control in &camera.controls {
        writeln!(out, "  {:<width$}  {}", control.name, control_in_words(control))?;
    }
    Ok(())
}

fn size_in_words(size: &CameraSize) -> String {
    let side = |(width, height): (usize, usize)| format!("{width}x{height}");
    let sides = if size.smallest == size.largest {
        side(size.smallest)
    } else {
        format!("{}..{}", side(size.smallest), side(size.largest))
    };
    match &size.rates {
        CameraRates::Unknown => sides,
        CameraRates::FpsBetween(least, most) => format!("{sides} {}..{} fps", rate(*least), rate(*most)),
        CameraRates::Fps(rates) => {
            let rates: Vec<String> = rates.iter().map(|fps| rate(*fps)).collect();
            format!("{sides} {} fps", rates.join(","))
        }
    }
}

/// Rounded to at most two decimals.
fn rate(fps: f64) -> String {
    ((fps * 100.0).round() / 100.0).to_string()
}

fn control_in_words(control: &CameraControl) -> String {
    let mut words = match control.value {
        Some(value) => format!("{value} of {}, default {}", control.values(), control.default),
        None => format!("takes {}", control.values()),
    };
    if control.read_only {
        words.push_str(", read-only");
    }
    if control.inactive {
        words.push_str(", inactive");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinov2_edge::io::{CameraFormat, CameraPixels};

    #[test]
    fn a_camera_in_words() {
        let size =
            |side: (usize, usize), rates| CameraSize { smallest: side, largest: side, step: (1, 1), rates };
        let pixels = |code: &str, format, sizes| CameraPixels {
            code: code.into(),
            description: String::new(),
            format,
            sizes,
        };
        let whole = CameraSize {
            largest: (1920, 1200),
            rates: CameraRates::FpsBetween(1.0, 60.0),
            ..size((16, 16), CameraRates::Unknown)
        };
        let camera = CameraInfo {
            path: "/dev/video2".into(),
            name: "Some Camera".into(),
            driver: "uvcvideo".into(),
            bus: "usb-1".into(),
            formats: vec![
                pixels(
                    "YUYV",
                    Some(CameraFormat::Yuyv),
                    vec![size((640, 480), CameraRates::Fps(vec![30000.0 / 1001.0, 15.0])), whole],
                ),
                pixels("H264", None, vec![]),
            ],
            ..CameraInfo::default()
        };
        let mut told = Vec::new();
        describe(&camera, &mut told).unwrap();
        assert_eq!(
            String::from_utf8(told).unwrap(),
            "/dev/video2  Some Camera (uvcvideo, usb-1)\n  \
             YUYV   640x480 29.97,15 fps; 16x16..1920x1200 1..60 fps\n  \
             not decoded: H264\n"
        );
        let forbidden = CameraInfo { problem: Some("expected permission".into()), ..camera };
        let mut told = Vec::new();
        describe(&forbidden, &mut told).unwrap();
        assert_eq!(String::from_utf8(told).unwrap(), "/dev/video2  Some Camera: expected permission\n");
    }
}
