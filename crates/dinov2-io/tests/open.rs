//! What the user names, and what becomes of it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{bytes, difference, fixture, frames, image, open, stacked};
use dinov2_files::chain;
use dinov2_io::{Frame, RawFormat, RawPixels, SourceError, SourceOptions, natural_order};

fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, from) in files {
        fs::copy(fixture(from), folder.path().join(name)).unwrap();
    }
    folder
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().unwrap().to_string()
}

#[test]
fn natural_order_of_names() {
    let mut names =
        ["b1", "a10", "a9", "a09", "a1b10", "a1b9", "a", "A2", "a100000000000000000000000", "a99999999999"];
    names.sort_by(|left, right| natural_order(left, right));
    assert_eq!(
        names,
        ["A2", "a", "a1b9", "a1b10", "a09", "a9", "a10", "a99999999999", "a100000000000000000000000", "b1"]
    );
}

#[test]
fn folder_in_natural_order_without_other_files() {
    let folder = folder_of(&[
        ("img10.png", "small.png"),
        ("img9.jpg", "jpeg_444.jpg"),
        ("no_extension", "small.webp"),
        ("notes.npy", "patches.npy"),
        ("clip.mkv", "clip.mkv"),
        (".hidden.png", "small.png"),
    ]);
    fs::create_dir(folder.path().join("subfolder.png")).unwrap();
    let mut source = open(&[&text(folder.path())]).unwrap();
    assert_eq!((source.len_hint(), source.is_video()), (Some(3), false));
    let frames = frames(source.as_mut());
    let names: Vec<&str> = frames.iter().map(|frame| frame.name.as_str()).collect();
    assert_eq!(names, ["img9", "img10", "no_extension"]);
    assert_eq!(frames.iter().map(|frame| frame.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(frames[1].path, Some(folder.path().join("img10.png")));
    let notes = source.take_notes();
    let place = folder.path().display();
    let expected = [
        format!(
            "{place}: ignored 1 videos beside the images, such as clip.mkv (videos are read if given by path or glob)"
        ),
        format!("{place}: ignored 1 files that are neither images nor videos, such as notes.npy"),
    ];
    assert_eq!(notes, expected);
    assert!(source.take_notes().is_empty());
}

#[test]
fn folder_of_videos_in_natural_order() {
    let folder = folder_of(&[
        ("clip10.y4m", "clip_444.y4m"),
        ("clip9.mjpeg", "clip.mjpeg"),
        ("notes.npy", "patches.npy"),
        ("clip11", "clip_mono.y4m"),
    ]);
    let mut source = open(&[&text(folder.path())]).unwrap();
    assert!(source.is_video());
    let frames = frames(source.as_mut());
    let names: Vec<&str> = frames.iter().map(|frame| frame.name.as_str()).step_by(3).collect();
    assert_eq!((frames.len(), names), (9, vec!["clip9_000000", "clip10_000000", "clip11_000000"]));
    let notes = source.take_notes();
    assert!(
        notes.len() == 1 && notes[0].ends_with("neither images nor videos, such as notes.npy"),
        "{notes:?}"
    );
}

#[test]
fn folder_without_images_is_an_error() {
    let folder = folder_of(&[("notes.npy", "patches.npy")]);
    let error = chain(&open(&[&text(folder.path())]).err().unwrap());
    assert!(
        error.starts_with("input: expected a folder with images or videos, got none among 1 files in "),
        "{error}"
    );
}

#[test]
fn globs_are_expanded_when_the_shell_did_not() {
    let folder = folder_of(&[("b2.png", "small.png"), ("b10.png", "small.png"), ("c.png", "small.png")]);
    let mut source = open(&[&text(folder.path().join("b*.png"))]).unwrap();
    let frames = frames(source.as_mut());
    let names: Vec<&str> = frames.iter().map(|frame| frame.name.as_str()).collect();
    assert_eq!(names, ["b2", "b10"]);
    assert!(open(&[&text(folder.path().join("x*.png"))]).is_err());
    assert!(open(&[&text(folder.path().join("b[.png"))]).is_err());
    // A file whose own name looks like a glob.
    fs::copy(fixture("small.png"), folder.path().join("[1].png")).unwrap();
    assert_eq!(open(&[&text(folder.path().join("[1].png"))]).unwrap().len_hint(), Some(1));
}

#[test]
fn content_decides_not_the_extension() {
    let folder = folder_of(&[("a.jpg", "small.png"), ("b.png", "clip_444.y4m"), ("c.png", "patches.npy")]);
    assert_eq!(frames(open(&[&text(folder.path().join("a.jpg"))]).unwrap().as_mut()).len(), 1);
    assert_eq!(frames(open(&[&text(folder.path().join("b.png"))]).unwrap().as_mut()).len(), 3);
    let mut source = open(&[&text(folder.path().join("c.png"))]).unwrap();
    let error = chain(&source.next_frame(&mut Frame::new()).unwrap_err());
    let start = format!("cannot decode {}: image: expected PNG, JPEG", folder.path().join("c.png").display());
    assert!(error.starts_with(&start), "{error}");
    let error = chain(&open(&[&text(fixture("patches.npy"))]).err().unwrap());
    assert!(error.starts_with("input: expected an image (PNG"), "{error}");
    let error = chain(&open(&["/nowhere/cat.jpg"]).err().unwrap());
    assert_eq!(error, "cannot read /nowhere/cat.jpg: No such file or directory (os error 2)");
    assert!(open(&[]).is_err());
}

#[test]
fn inputs_follow_each_other_and_an_error_does_not_end_the_run() {
    let folder = folder_of(&[("bad.png", "patches.npy")]);
    let inputs = [
        text(fixture("small.png")),
        text(folder.path().join("bad.png")),
        text(fixture("clip_444.y4m")),
        "test:28x14@2".into(),
    ];
    let mut source = dinov2_io::open(&inputs, &SourceOptions::default()).unwrap();
    assert!(source.is_video());
    let (mut frame, mut names, mut errors) = (Frame::new(), Vec::new(), 0);
    loop {
        match source.next_frame(&mut frame) {
            Ok(true) => names.push((frame.name.clone(), frame.index)),
            Ok(false) => break,
            Err(_) => errors += 1,
        }
    }
    let expected =
        ["small", "clip_444_000000", "clip_444_000001", "clip_444_000002", "test_000000", "test_000001"];
    let expected: Vec<(String, usize)> = expected.map(String::from).into_iter().zip(0..).collect();
    assert_eq!((names, errors), (expected, 1));
}

#[test]
fn lengths_of_videos() {
    assert_eq!(open(&[&text(fixture("clip_422.y4m"))]).unwrap().len_hint(), Some(3));
    assert_eq!(open(&["test:28x14@7"]).unwrap().len_hint(), Some(7));
    assert_eq!(open(&["test:28x14@0"]).unwrap().len_hint(), None);
}

#[test]
fn pattern_moves_and_repeats() {
    let first = frames(open(&["test:64x48@20"]).unwrap().as_mut());
    let second = frames(open(&["test:64x48@20"]).unwrap().as_mut());
    assert_eq!((first.len(), first[1].capture_ns), (20, Some(33_333_333)));
    assert!(first.iter().zip(&second).all(|(first, second)| first.pixels == second.pixels));
    let (_, moved) = difference(first[0].view(), first[19].view());
    assert!(moved > 1.0, "{moved}");
    assert_eq!(open(&["test:"]).unwrap().len_hint(), Some(300));
    for wrong in ["test:x", "test:0x5", "test:64x48@", "test:64x48@-1", "test:99999x99999", "test:64"] {
        assert!(matches!(open(&[wrong]), Err(SourceError::Input { .. })), "{wrong}");
    }
    let sliver = frames(open(&["test:1x300@3"]).unwrap().as_mut());
    assert_eq!(sliver[2].pixels.len(), 900);
}

#[test]
fn corrupt_mjpeg_frames_are_skipped_and_counted_once() {
    let whole = bytes("clip.mjpeg");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.mjpeg");
    fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let mut source = open(&[&text(&path)]).unwrap();
    assert_eq!(frames(source.as_mut()).len(), 2);
    let notes = source.take_notes();
    assert!(notes.len() == 1 && notes[0].contains("skipped 1 corrupt frames"), "{notes:?}");
    fs::write(&path, &whole[..500]).unwrap();
    let mut source = open(&[&text(&path)]).unwrap();
    let error = chain(&source.next_frame(&mut Frame::new()).unwrap_err());
    let start = format!(
        "cannot decode {}: MJPEG stream: expected at least one JPEG image, got 1 corrupt ones",
        path.display()
    );
    assert!(error.starts_with(&start), "{error}");
    assert!(!source.next_frame(&mut Frame::new()).unwrap());
}

fn with_ffmpeg(program: &Path, input: &Path) -> Result<Box<dyn dinov2_io::Source>, SourceError> {
    dinov2_io::open(
        &[text(input)],
        &SourceOptions { ffmpeg: program.to_path_buf(), ..SourceOptions::default() },
    )
}

#[test]
fn missing_ffmpeg_is_named() {
    let error = with_ffmpeg(Path::new("ffmpeg-that-is-not-there"), &fixture("clip.mkv")).err().unwrap();
    assert!(matches!(error, SourceError::FfmpegMissing { .. }));
    assert!(error.to_string().contains("apt install ffmpeg"), "{error}");
}

#[cfg(unix)]
mod pipes {
    use super::*;

    /// A program that writes what `ffmpeg` might.
    fn script(folder: &Path, body: &str) -> PathBuf {
        let path = folder.join("ffmpeg");
        // By another process: a file that this one has open for writing when another test forks is busy for that test's child.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let status = std::process::Command::new("sh").args(["-c", write]).arg(&path).arg(body).status();
        assert!(status.unwrap().success());
        path
    }

    fn outcome(body: &str) -> (usize, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), body);
        let mut source = with_ffmpeg(&program, &fixture("clip.mkv")).unwrap();
        let (mut frame, mut frames) = (Frame::new(), 0);
        loop {
            match source.next_frame(&mut frame) {
                Ok(true) => frames += 1,
                Ok(false) => return (frames, None),
                Err(error) => return (frames, Some(chain(&error))),
            }
        }
    }

    #[test]
    fn ffmpeg_output_and_complaints() {
        let nut = bytes("clip.nut");
        let folder = tempfile::tempdir().unwrap();
        let written = |bytes: &[u8], then: &str| {
            let path = folder.path().join("bytes");
            fs::write(&path, bytes).unwrap();
            outcome(&format!("cat {}; {then}", text(path)))
        };
        assert_eq!(written(&nut, ""), (3, None));
        let (frames, error) =
            outcome("echo 'clip.mkv: no such codec' >&2; echo 'Conversion failed!' >&2; exit 1");
        assert_eq!(frames, 0);
        assert!(error.as_ref().unwrap().starts_with("ffmpeg: clip.mkv: no such codec in "), "{error:?}");
        let (frames, error) = written(&nut, "exit 3");
        assert_eq!(frames, 3);
        assert!(error.unwrap().starts_with("ffmpeg: exit status: 3 in "));
        let (frames, error) = written(&nut, "echo '[h264 @ 0x5] [error] no frame!' >&2");
        let said = "video: expected whole data, got a damaged or cut-off file, of which 3 frames were decoded (h264: no frame!): ";
        assert!(frames == 3 && error.as_ref().unwrap().starts_with(said), "{error:?}");
        for harmless in [
            "[swscaler @ 0x5] [warning] deprecated",
            "[mjpeg @ 0x5] [error] unable to decode APP fields: Invalid data",
        ] {
            assert_eq!(written(&nut, &format!("echo '{harmless}' >&2")), (3, None));
        }
        let (_, error) = outcome("exit 0");
        assert!(error.unwrap().starts_with("ffmpeg: no frames in "));
        let (frames, error) = written(&nut[..nut.len() - 100], "");
        assert!(frames == 2 && error.unwrap().contains("clip.mkv: video frame: expected 2652 bytes, got "));
        let (_, error) = outcome("printf 'hello\n'");
        assert!(error.unwrap().contains("clip.mkv: video stream: expected NUT as ffmpeg writes it, got "));
    }

    #[test]
    fn cut_and_changed_nut_is_an_error_or_a_frame() {
        let nut = bytes("clip.nut");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        for at in 0..nut.len().min(400) {
            let mut changed = nut[..nut.len() - at % 7].to_vec();
            changed[at] ^= 1 << (at % 8);
            fs::write(&path, changed).unwrap();
            assert!(outcome(&format!("cat {}", text(&path))).0 <= 3, "{at}");
        }
    }

    #[test]
    fn older_versions_are_asked_in_their_own_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        fs::write(&path, bytes("clip.nut")).unwrap();
        for unknown in ["-fps_mode", "-fps_mode -noautoscale"] {
            let refuse = format!(
                "for word; do case \" {unknown} \" in *\" $word \"*) echo \"Unrecognized option '$word'.\" >&2; exit 1;; esac; done"
            );
            assert_eq!(outcome(&format!("{refuse}; cat {}", text(&path))), (3, None), "{unknown}");
        }
    }

    #[test]
    fn ffmpeg_is_ended_with_its_source() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(
            folder.path(),
            &format!("echo $$ > pid; cat {}; exec sleep 600", text(fixture("clip.nut"))),
        );
        let pid_file = folder.path().join("pid");
        fs::write(
            &program,
            fs::read_to_string(&program).unwrap().replace("> pid", &format!("> {}", text(&pid_file))),
        )
        .unwrap();
        let mut source = with_ffmpeg(&program, &fixture("clip.mkv")).unwrap();
        assert!(source.next_frame(&mut Frame::new()).unwrap());
        drop(source);
        let pid = fs::read_to_string(&pid_file).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists());
    }

    #[test]
    fn named_pipes_are_read_like_standard_input() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let read = |content: Vec<u8>, raw: Option<RawFormat>| {
            let _ = fs::remove_file(&pipe);
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let writer = {
                let pipe = pipe.clone();
                std::thread::spawn(move || fs::write(pipe, content))
            };
            let source = dinov2_io::open(&[text(&pipe)], &SourceOptions { raw, ..SourceOptions::default() });
            let frames = source.map(|mut source| frames(source.as_mut()));
            let _ = writer.join().unwrap();
            frames
        };
        let raw = Some(RawFormat::new("2x2", RawPixels::Rgb24).unwrap());
        assert_eq!(read(vec![5; 36], raw).unwrap().len(), 3);
        assert_eq!(read(bytes("clip_444.y4m"), raw).unwrap().len(), 3);
        assert_eq!(read(bytes("clip.mjpeg"), None).unwrap().len(), 3);
        let error = read(vec![5; 36], None).unwrap_err().to_string();
        assert!(error.contains("--raw-size WIDTHxHEIGHT"), "{error}");
    }
}

fn ffmpeg_is_here() -> bool {
    let here = std::process::Command::new("ffmpeg").arg("-version").output().is_ok();
    if !here {
        eprintln!("skipped: no ffmpeg on this machine");
    }
    here
}

#[test]
fn videos_by_ffmpeg() {
    if !ffmpeg_is_here() {
        return;
    }
    let expected = image("clip_rgb.png");
    let mut source = open(&[&text(fixture("clip.mkv"))]).unwrap();
    assert!(source.is_video());
    let frames = frames(source.as_mut());
    assert_eq!(frames.len(), 3);
    for (index, frame) in frames.iter().enumerate() {
        assert_eq!(difference(frame.view(), stacked(&expected, index, 26)).0, 0, "frame {index}");
        // Matroska has milliseconds.
        assert_eq!(frame.capture_ns, Some([0, 33_000_000, 67_000_000][index]));
        assert_eq!(frame.name, format!("clip_{index:06}"));
    }
}

#[test]
fn turned_videos_are_turned_back() {
    if !ffmpeg_is_here() {
        return;
    }
    let mut source = open(&[&text(fixture("turned.mp4"))]).unwrap();
    assert_eq!(source.len_hint(), Some(3));
    let frames = frames(source.as_mut());
    assert!(frames.iter().all(|frame| (frame.width_px, frame.height_px) == (26, 34)));
}

#[test]
fn broken_videos_are_errors() {
    if !ffmpeg_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("-broken.mp4");
    fs::write(&path, &bytes("turned.mp4")[..600]).unwrap();
    let mut source = open(&[&text(&path)]).unwrap();
    let error = source.next_frame(&mut Frame::new()).unwrap_err();
    assert!(matches!(error, SourceError::Ffmpeg { .. }), "{error}");
    assert!(error.to_string().starts_with("ffmpeg: mov: "), "{error}");
}
