//! Videos by ffmpeg: frames and times are those that ffprobe lists. The clips are made by ffmpeg, too.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::open;
use dinov2_files::chain;
use dinov2_io::{Frame, SourceError};

/// ffmpeg and ffprobe as programs, and a folder for clips; `None` where they are missing, which is said.
struct Studio {
    folder: tempfile::TempDir,
}

impl Studio {
    fn open() -> Option<Self> {
        let runs = |program: &str| Command::new(program).arg("-version").output().is_ok();
        if runs("ffmpeg") && runs("ffprobe") {
            return Some(Self { folder: tempfile::tempdir().unwrap() });
        }
        eprintln!("SKIPPED: no ffmpeg and ffprobe on this machine");
        None
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs ffmpeg in the folder with `args`, words parted by spaces, and returns the last one as a path.
    fn make(&self, args: &str) -> PathBuf {
        let words: Vec<&str> = args.split(' ').collect();
        let status = Command::new("ffmpeg")
            .current_dir(self.folder.path())
            .args(["-v", "error", "-nostdin", "-y"])
            .args(&words)
            .status()
            .unwrap();
        assert!(status.success(), "{args}");
        self.path(words[words.len() - 1])
    }
}

/// Frames as ffprobe decodes them: time in microseconds, width, height.
fn listed(path: &Path) -> Vec<(Option<i64>, usize, usize)> {
    let output = Command::new("ffprobe")
        .args(["-v", "quiet", "-select_streams", "V:0", "-of", "compact=print_section=0"])
        .args(["-show_entries", "frame=best_effort_timestamp_time,width,height"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |line: &str, key: &str| {
        line.split('|').find_map(|pair| Some(pair.strip_prefix(key)?.strip_prefix('=')?.trim().to_string()))
    };
    let lines = text.lines().filter(|line| line.contains("width="));
    lines
        .map(|line| {
            let time = value(line, "best_effort_timestamp_time").and_then(|time| time.parse::<f64>().ok());
            let side = |key| value(line, key).unwrap().parse().unwrap();
            (time.map(|time| (time * 1e6).round() as i64), side("width"), side("height"))
        })
        .collect()
}

/// Every frame and how the source ended.
fn read(path: &Path) -> (Vec<Frame>, Vec<String>, Option<SourceError>) {
    let mut source = open(&[path.to_str().unwrap()]).unwrap();
    let (mut frame, mut frames) = (Frame::new(), Vec::new());
    let error = loop {
        match source.next_frame(&mut frame) {
            Ok(true) => frames.push(frame.clone()),
            Ok(false) => break None,
            Err(error) => break Some(error),
        }
    };
    assert!(!source.next_frame(&mut frame).unwrap());
    (frames, source.take_notes(), error)
}

fn times_us(frames: &[Frame]) -> Vec<Option<i64>> {
    frames.iter().map(|frame| frame.capture_ns.map(|ns| (ns as i64 + 500) / 1000)).collect()
}

/// The RGB bytes of all frames as ffmpeg itself gives them.
fn pixels(path: &Path) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-map", "0:V:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        .output()
        .unwrap();
    output.stdout
}

const COUNTED: &str = "-f lavfi -i testsrc=s=66x50:r=25:d=1.2";

#[test]
fn frames_and_times_are_those_that_ffprobe_lists() {
    let Some(studio) = Studio::open() else { return };
    let sound = "-f lavfi -i sine=d=2";
    let uneven = "-vf setpts=PTS+gte(N\\,10)*(N-10)*0.013/TB -enc_time_base 1:90000 -fps_mode passthrough";
    let b_frames = "-c:v libx264 -bf 3 -g 12";
    let clips = [
        format!("{COUNTED} {b_frames} cfr.mp4"),
        format!("{COUNTED} {sound} {uneven} {b_frames} -c:a aac vfr.mp4"),
        format!("{COUNTED} {uneven} -c:v ffv1 vfr.mkv"),
        format!("{COUNTED} {uneven} -c:v libvpx -deadline realtime -live 1 -f webm browser.webm"),
        format!("{COUNTED} {uneven} -c:v libvpx-vp9 -deadline realtime vp9.webm"),
        format!("{COUNTED} {b_frames} start.ts"),
        format!("{COUNTED} -c:v mpeg2video -bf 2 start.mpg"),
        format!("{COUNTED} -c:v mpeg4 -bf 2 packed.avi"),
        format!("-itsoffset 0.73 {COUNTED} {sound} {b_frames} late.mp4"),
        format!("-itsoffset 0.73 {COUNTED} {sound} -c:v libx264 late.mkv"),
        "-ss 0.52 -i cfr.mp4 -c copy edit_list.mp4".to_string(),
        "-i cfr.mp4 -c copy -output_ts_offset 5000 far.ts".to_string(),
        "-i vfr.mp4 -c copy -movflags frag_keyframe+empty_moov fragments.mp4".to_string(),
        "-i vfr.mp4 -map 0 -c copy -f matroska -live 1 no_duration.mkv".to_string(),
    ];
    for args in clips {
        let path = studio.make(&args);
        let expected = listed(&path);
        assert!(expected.len() >= 15, "{args}: {}", expected.len());
        let (frames, notes, error) = read(&path);
        assert!(error.is_none(), "{args}: {error:?}");
        assert_eq!(notes, [""; 0], "{args}");
        let times: Vec<Option<i64>> = expected.iter().map(|(time, ..)| *time).collect();
        assert_eq!(frames.len(), times.len(), "{args}");
        // Of the last frame of a program stream ffprobe knows no time; ffmpeg goes on counting.
        let unlike =
            times_us(&frames).into_iter().zip(&times).find(|(got, time)| time.is_some() && got != *time);
        assert_eq!(unlike, None, "{args}");
        let read: Vec<u8> = frames.iter().flat_map(|frame| frame.pixels.iter().copied()).collect();
        assert!(read == pixels(&path), "{args}: other pixels");
    }
}

#[test]
fn frames_of_one_time_keep_it() {
    let Some(studio) = Studio::open() else { return };
    let path = studio
        .make(&format!("{COUNTED} -vf setpts=floor(N/3)*0.12/TB -fps_mode passthrough -c:v ffv1 same.mkv"));
    let times: Vec<Option<i64>> = listed(&path).iter().map(|(time, ..)| *time).collect();
    assert_eq!(times[..4], [Some(0), Some(0), Some(0), Some(120_000)]);
    assert_eq!(times_us(&read(&path).0), times);
}

#[test]
fn a_clock_that_goes_back_goes_on() {
    let Some(studio) = Studio::open() else { return };
    let once = studio.make(&format!("{COUNTED} -c:v mpeg2video once.ts"));
    let expected = times_us(&read(&once).0);
    let bytes = fs::read(&once).unwrap();
    fs::write(studio.path("twice.ts"), [&bytes[..], &bytes[..]].concat()).unwrap();
    let (frames, _, _) = read(&studio.path("twice.ts"));
    let times = times_us(&frames);
    assert_eq!(times.len(), 2 * expected.len());
    assert_eq!(times[..expected.len()], expected);
    assert!(times.is_sorted(), "{times:?}");
    assert!(times.last().unwrap() > &Some(2 * 1_100_000), "{times:?}");
}

#[test]
fn sizes_may_change() {
    let Some(studio) = Studio::open() else { return };
    studio.make("-f lavfi -i testsrc=s=64x48:r=25:d=0.4 -c:v mpeg2video wide.ts");
    studio.make("-f lavfi -i testsrc=s=48x64:r=25:d=0.4 -c:v mpeg2video -output_ts_offset 0.4 tall.ts");
    let path = studio.path("turned.ts");
    let parts = ["wide.ts", "tall.ts"].map(|part| fs::read(studio.path(part)).unwrap());
    fs::write(&path, parts.concat()).unwrap();
    let (frames, _, _) = read(&path);
    let sizes: Vec<(usize, usize)> = frames.iter().map(|frame| (frame.width_px, frame.height_px)).collect();
    let expected: Vec<(usize, usize)> =
        listed(&path).iter().map(|(_, width, height)| (*width, *height)).collect();
    assert_eq!(sizes, expected);
    assert!(sizes.contains(&(64, 48)) && sizes.contains(&(48, 64)));
    // The decoder drops a frame where the parts meet; the others are what each part is on its own.
    let read: Vec<u8> = frames.iter().flat_map(|frame| frame.pixels.iter().copied()).collect();
    let tall = pixels(&studio.path("tall.ts"));
    assert!(pixels(&studio.path("wide.ts")).starts_with(&read[..9 * 64 * 48 * 3]) && read.ends_with(&tall));
}

#[test]
fn what_breaks_off_gives_its_good_frames_and_then_an_error() {
    let Some(studio) = Studio::open() else { return };
    let source = "-f lavfi -i testsrc=s=128x96:r=25:d=4 -g 25";
    for args in [
        "-c:v libx264 -bf 2 -movflags faststart cut.mp4",
        "-c:v libx264 cut.mkv",
        "-c:v libvpx cut.webm",
        "-c:v libx264 -movflags frag_keyframe+empty_moov fragments.mp4",
        "-c:v ffv1 cut.avi",
    ] {
        let path = studio.make(&format!("{source} {args}"));
        let (whole, _, error) = read(&path);
        assert!(error.is_none() && whole.len() == 100, "{args}: {} {error:?}", whole.len());
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() * 6 / 10]).unwrap();
        let (frames, _, error) = read(&path);
        assert!((30..90).contains(&frames.len()), "{args}: {}", frames.len());
        let same = frames.iter().zip(&whole).take_while(|(cut, whole)| cut.pixels == whole.pixels).count();
        assert!(same + 3 > frames.len(), "{args}: {same} of {}", frames.len());
        assert!(matches!(error, Some(SourceError::Damaged { .. })), "{args}: {error:?}");
    }
}

#[test]
fn damage_in_the_middle_is_told() {
    let Some(studio) = Studio::open() else { return };
    let path = studio.make("-f lavfi -i testsrc=s=128x96:r=25:d=4 -c:v libx264 -g 10 damaged.mp4");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 300].iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 37 + 11) as u8);
    fs::write(&path, bytes).unwrap();
    let (frames, _, error) = read(&path);
    assert!(frames.len() > 90, "{}", frames.len());
    let error = chain(&error.unwrap());
    assert!(error.starts_with("video: expected whole data") && error.ends_with("damaged.mp4"), "{error}");
    assert!(error.contains("(h264: "), "{error}");
}

#[test]
fn files_without_a_video_stream() {
    let Some(studio) = Studio::open() else { return };
    studio.make("-f lavfi -i color=red:s=32x32 -frames:v 1 cover.png");
    for args in [
        "-f lavfi -i sine=d=0.2 sound.m4a",
        "-f lavfi -i sine=d=0.2 -f mp4 sound.mp4",
        "-f lavfi -i sine=d=0.2 -i cover.png -map 0 -map 1 -c:v copy -disposition:v:0 attached_pic cover.m4a",
    ] {
        let (frames, _, error) = read(&studio.make(args));
        assert_eq!(frames.len(), 0);
        assert!(matches!(error, Some(SourceError::NoVideo { .. })), "{args}: {error:?}");
    }
}

#[test]
fn of_several_streams_the_first_is_read() {
    let Some(studio) = Studio::open() else { return };
    let path = studio.make(
        "-f lavfi -i testsrc=s=32x24:r=25:d=0.4 -f lavfi -i testsrc=s=64x48:r=10:d=0.4 -map 0 -map 1 -c:v ffv1 two.mkv",
    );
    let (frames, notes, error) = read(&path);
    assert!(error.is_none(), "{error:?}");
    assert_eq!((frames.len(), frames[0].width_px), (10, 32));
    let expected = format!("{}: has 2 video streams, of which the first is read", path.display());
    assert_eq!(notes, [expected]);
}

#[test]
fn the_reason_is_told_not_its_consequence() {
    let Some(studio) = Studio::open() else { return };
    let path = studio.make(&format!("{COUNTED} -c:v libx264 no_index.mp4"));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = read(&path).2.unwrap().to_string();
    assert_eq!(error, format!("ffmpeg: mov: moov atom not found in {}", path.display()));
    fs::write(&path, b"").unwrap();
    let error = chain(&open(&[path.to_str().unwrap()]).unwrap().next_frame(&mut Frame::new()).unwrap_err());
    assert!(error.starts_with("ffmpeg: ") && !error.contains("Error opening"), "{error}");
}
