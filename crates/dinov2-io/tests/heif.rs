//! HEIC and AVIF photographs against pillow-heif and Pillow (`make_heif.py`).

mod common;

use std::fs;
use std::process::Command;

use common::{bytes, difference, fixture, frames, image, open};
use dinov2_files::chain;
use dinov2_io::{Frame, SourceError, decode_still, list_images, read_still};

/// Mean difference of another decoder's chroma and 10-bit rounding.
const MEAN_ERROR: f64 = 0.7;

fn program_is_here() -> bool {
    let here =
        ["heif-dec", "heif-convert"].iter().any(|name| Command::new(name).arg("--help").output().is_ok());
    if !here {
        eprintln!("SKIPPED: no heif-dec and no heif-convert on this machine (Debian: libheif-examples)");
    }
    here
}

fn names() -> Vec<String> {
    let names =
        fs::read_dir(fixture("heif")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".png") && !name.starts_with("sequence")).collect()
}

#[test]
fn whole_upright_and_the_primary_one() {
    assert!(names().len() >= 16);
    if !program_is_here() {
        return;
    }
    for name in names() {
        let mut frame = Frame::new();
        read_still(&fixture(&format!("heif/{name}")), &mut frame).unwrap();
        let (_, mean) = difference(frame.view(), image(&format!("heif/{name}.png")).view());
        assert!(mean < MEAN_ERROR, "{name}: {mean}");
    }
}

#[test]
fn found_in_folders_and_globs_by_content() {
    let folder = tempfile::tempdir().unwrap();
    for (name, from) in [("-a.HEIC", "heif/plain.heic"), ("b: c", "heif/tiles.avif"), ("d.png", "small.png")]
    {
        fs::copy(fixture(from), folder.path().join(name)).unwrap();
    }
    assert_eq!(list_images(folder.path()).unwrap().len(), 3);
    let (folder, pattern) =
        (folder.path().display().to_string(), folder.path().join("*").display().to_string());
    if !program_is_here() {
        let error = open(&[&folder]).unwrap().next_frame(&mut Frame::new()).unwrap_err();
        assert!(matches!(error, SourceError::HeifMissing { .. }), "{error}");
        return;
    }
    for input in [&folder, &pattern] {
        let mut source = open(&[input]).unwrap();
        let frames = frames(source.as_mut());
        let names: Vec<&str> = frames.iter().map(|frame| frame.name.as_str()).collect();
        assert_eq!(names, ["-a", "b: c", "d"]);
        assert_eq!((frames[1].width_px, frames[1].height_px), (256, 192));
        assert_eq!(source.take_notes(), [""; 0]);
    }
}

#[test]
fn broken_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.heic");
    let whole = bytes("heif/second.heic");
    let mut frame = Frame::new();
    for length in [12, 40, 200, 500, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = chain(&read_still(&path, &mut frame).unwrap_err());
        assert!(error.contains("broken.heic"), "{length}: {error}");
    }
    // A size that is merely claimed: `ispe` is version and flags, width, height.
    let at = whole.windows(4).position(|bytes| bytes == b"ispe").unwrap();
    let mut claims = whole;
    claims[at + 8..at + 16].copy_from_slice(&[0, 0, 0x7F, 0xFF, 0, 0, 0x7F, 0xFF]);
    fs::write(&path, claims).unwrap();
    let error = chain(&read_still(&path, &mut frame).unwrap_err());
    assert!(error.contains("broken.heic: frame size: expected sides of"), "{error}");
    assert!(
        decode_still(&bytes("heif/plain.heic"), &mut frame).unwrap_err().to_string().contains("HEIC or AVIF")
    );
}

#[test]
fn sequences_are_videos() {
    let path = fixture("heif/sequence.avif");
    let mut source = open(&[path.to_str().unwrap()]).unwrap();
    assert!(source.is_video());
    let (mut frame, mut times) = (Frame::new(), Vec::new());
    loop {
        match source.next_frame(&mut frame) {
            Ok(true) => times.push(frame.capture_ns.unwrap()),
            Ok(false) => break,
            Err(SourceError::FfmpegMissing { .. }) => return eprintln!("SKIPPED: no ffmpeg on this machine"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(times, [0, 300_000_000, 600_000_000]);
}
