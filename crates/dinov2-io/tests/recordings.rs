//! Recordings written and replayed, ours and those that `make_recordings.py` made with the packages of others.

mod common;
#[path = "common/recorder.rs"]
mod recorder;

use std::fs;
use std::io::Cursor;
use std::path::Path;

use common::{bytes, difference, fixture, frames, image, open, stacked};
use dinov2_core::ImageView;
use dinov2_io::{Frame, LiveStats, Recording, RecordingReader, SinkError, SourceOptions};
use mcap::MessageStream;
use mcap::records::{Record, op};

const HEIGHT: usize = 26;
const FOREIGN_START_NS: u64 = 1_700_000_000_000_000_000;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every image of a recording in memory.
fn replay(bytes: &[u8]) -> (Vec<Frame>, Vec<String>) {
    let mut reader = RecordingReader::new(Cursor::new(bytes), None).unwrap();
    let (mut frame, mut frames) = (Frame::new(), Vec::new());
    while reader.read_into(&mut frame) {
        frames.push(frame.clone());
    }
    assert!(!reader.read_into(&mut frame), "the end is no end");
    (frames, reader.take_notes())
}

/// Records `count` frames and returns the file.
fn recorded(path: &Path, count: u64) -> Vec<u8> {
    let mut recording = Recording::create(path, &recorder::meta(1)).unwrap();
    for index in 0..count {
        recorder::record(&mut recording, 0, index, &recorder::frame(index, 64, 48)).unwrap();
    }
    recording.finish().unwrap();
    fs::read(path).unwrap()
}

/// Start and end of every top-level record of a kind.
fn places(file: &[u8], wanted: u8) -> Vec<(usize, usize)> {
    let (mut at, mut found) = (8, Vec::new());
    while at + 9 <= file.len() - 8 {
        let length = u64::from_le_bytes(file[at + 1..at + 9].try_into().unwrap()) as usize;
        if file[at] == wanted {
            found.push((at, at + 9 + length));
        }
        at += 9 + length;
    }
    found
}

fn assert_frames(name: &str, images: &str, worst: u8) {
    let mut source = open(&[text(&fixture(&format!("recordings/{name}.mcap")))]).unwrap();
    let stack = image(&format!("recordings/{images}.png"));
    let count = stack.height_px / HEIGHT;
    assert!(source.is_video());
    let found = frames(&mut *source);
    assert_eq!(source.take_notes(), [""; 0], "{name}");
    assert_eq!(found.len(), count, "{name}");
    for (index, frame) in found.iter().enumerate() {
        let (most, _) = difference(frame.view(), stacked(&stack, index, HEIGHT));
        assert!(most <= worst, "{name}, image {index}: {most}");
        let stamp = FOREIGN_START_NS + index as u64 * 40_000_000 - 3_000_000;
        assert_eq!(frame.capture_ns, Some(stamp), "{name}, image {index}");
        assert_eq!((frame.index, &*frame.name), (index, &*format!("{name}_{index:06}")));
    }
}

#[test]
fn recordings_of_others_are_replayed_in_order() {
    // JPEG decoders differ by a little.
    assert_frames("zstd", "zstd", 3);
    assert_frames("rosbags", "rosbags", 0);
    assert_frames("plain", "plain", 0);
}

#[test]
fn every_encoding_of_raw_images_is_read() {
    let path = fixture("recordings/lz4.mcap");
    let stack = image("recordings/lz4.png");
    let mut source = open(&[text(&path)]).unwrap();
    assert_eq!(source.len_hint(), Some(13));
    let found = frames(&mut *source);
    assert_eq!(found.len() * HEIGHT, stack.height_px);
    for (index, frame) in found.iter().enumerate() {
        // Ours is fixed point, the expected value floating point.
        let (most, _) = difference(frame.view(), stacked(&stack, index, HEIGHT));
        assert!(most <= 1, "image {index}: {most}");
    }
    let notes = source.take_notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].ends_with("replays the topic /color/image_raw; other images are on /depth/image_raw"));
}

#[test]
fn a_topic_can_be_asked_for() {
    let path = fixture("recordings/lz4.mcap");
    let open = |topic: &str| {
        let options = SourceOptions { topic: Some(topic.into()), ..SourceOptions::default() };
        dinov2_io::open(&[text(&path).to_string()], &options)
    };
    assert_eq!(frames(&mut *open("/color/image_raw").unwrap()).len(), 13);
    let error = open("/depth/image_raw").err().unwrap().to_string();
    assert!(error.contains("images on the topic /depth/image_raw, got none that can be read"), "{error}");
    assert!(error.contains("got \"16UC1\""), "{error}");
    let error = open("/rear").err().unwrap().to_string();
    assert!(error.contains("topics with images: /color/image_raw, /depth/image_raw"), "{error}");
}

#[test]
fn what_was_recorded_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.mcap");
    recorded(&path, 12);
    let mut source = open(&[text(&path)]).unwrap();
    assert_eq!(source.len_hint(), Some(12));
    let found = frames(&mut *source);
    assert_eq!(source.take_notes(), [""; 0]);
    assert_eq!(found.len(), 12);
    for (index, frame) in (0..).zip(&found) {
        let expected = recorder::frame(index, 64, 48);
        assert_eq!(frame.capture_ns, expected.capture_ns);
        assert!(difference(frame.view(), expected.view()).0 <= 2);
        assert_eq!(frame.path.as_deref(), Some(&*path));
    }
}

#[test]
fn the_file_is_what_its_own_crate_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.mcap");
    let mut recording = Recording::create(&path, &recorder::meta(2)).unwrap();
    for camera in 0..2 {
        recorder::record(&mut recording, camera, 3, &recorder::frame(3, 64, 48)).unwrap();
    }
    recording.write_stats(&LiveStats::default(), 5).unwrap();
    recording.finish().unwrap();
    let file = fs::read(&path).unwrap();
    let messages: Vec<_> = MessageStream::new(&file).unwrap().map(Result::unwrap).collect();
    let topics: Vec<_> = messages.iter().map(|message| message.channel.topic.as_str()).collect();
    let expected = [
        "/camera0/image/compressed",
        "/dinov2/camera0/pca/compressed",
        "/dinov2/camera0/features",
        "/camera1/image/compressed",
        "/dinov2/camera1/pca/compressed",
        "/dinov2/camera1/features",
        "/dinov2/stats",
    ];
    assert_eq!(topics, expected);
    // The 24 numbers of the patches are the last field: 2 bytes each.
    let halves: Vec<u8> = (7..31).flat_map(|value| half::f16::from_f32(value as f32).to_le_bytes()).collect();
    assert!(messages[2].data.ends_with(&halves));
    let (start, end) = places(&file, op::METADATA)[0];
    let Ok(Record::Metadata(metadata)) = mcap::read::parse_record(op::METADATA, &file[start + 9..end]) else {
        panic!("no metadata");
    };
    for (key, value) in
        [("model", "ViT-S/14"), ("model_identity", "0123"), ("robot", "no. 7"), ("features", "f16")]
    {
        assert_eq!(metadata.metadata.get(key).map(String::as_str), Some(value));
    }
    // Of several cameras the first is replayed.
    let (found, notes) = replay(&file);
    assert_eq!(found.len(), 1);
    assert_eq!(
        notes,
        ["replays the topic /camera0/image/compressed; other images are on /camera1/image/compressed"]
    );
}

#[test]
fn a_jpeg_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.mcap");
    let (jpeg, frame) = (bytes("jpeg_444.jpg"), image("jpeg_444.jpg"));
    let mut recording = Recording::create(&path, &recorder::meta(1)).unwrap();
    let crop =
        dinov2_io::Crop { left_px: 0, top_px: 0, width_px: frame.width_px, height_px: frame.height_px };
    let features = recorder::features(0);
    let (pca, latency_ms, jpeg) = (None, None, Some(&*jpeg));
    let recorded =
        dinov2_io::Recorded { camera: 0, frame: &frame, jpeg, crop, features: &features, pca, latency_ms };
    recording.write(&recorded).unwrap();
    recording.finish().unwrap();
    let (found, _) = replay(&fs::read(&path).unwrap());
    assert_eq!(found[0].pixels, frame.pixels);
    // Without a capture time, the time of writing is the stamp.
    assert!(found[0].capture_ns > Some(FOREIGN_START_NS));
}

#[test]
fn a_recording_that_breaks_off_anywhere_is_replayed_up_to_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.mcap");
    let whole = fs::read(fixture("recordings/zstd.mcap")).unwrap();
    let chunks = places(&whole, op::CHUNK);
    let data_end = places(&whole, op::DATA_END)[0].0;
    assert!(chunks.len() > 3);
    let (all, _) = replay(&whole);
    // Images in the first n chunks, as the indexes behind the chunks tell; their channel is the second.
    let images = |behind: usize, before: usize| -> usize {
        let indexes = places(&whole, op::MESSAGE_INDEX).into_iter();
        let of_images =
            indexes.filter(|(start, _)| (behind..before).contains(start) && whole[start + 9] == 2);
        of_images.map(|(start, end)| (end - start - 9 - 6) / 16).sum()
    };
    let next = chunks.iter().skip(1).map(|(start, _)| *start).chain([data_end]);
    let counts: Vec<usize> = chunks.iter().zip(next).map(|((_, end), next)| images(*end, next)).collect();
    assert_eq!(counts.iter().sum::<usize>(), all.len());
    for length in (0..whole.len()).step_by(61) {
        let there = chunks.iter().filter(|(_, end)| *end <= length).count();
        let expected: usize = counts[..there].iter().sum();
        if expected == 0 {
            assert!(RecordingReader::new(Cursor::new(&whole[..length]), None).is_err(), "{length} bytes");
            continue;
        }
        let (found, notes) = replay(&whole[..length]);
        assert_eq!(found.len(), expected, "{length} bytes");
        assert!(found.iter().all(|frame| all.iter().any(|other| other.pixels == frame.pixels)));
        assert!(notes.last().unwrap().starts_with("not closed by its recorder; everything up to byte "));
    }
    // The same from a file.
    fs::write(&path, &whole[..data_end]).unwrap();
    let mut source = open(&[text(&path)]).unwrap();
    assert_eq!(frames(&mut *source).len(), 9);
    assert!(source.take_notes()[0].contains("run.mcap: not closed by its recorder"));
}

#[test]
fn damaged_chunks_are_skipped_and_counted() {
    for name in ["zstd", "lz4", "rosbags"] {
        let whole = bytes(&format!("recordings/{name}.mcap"));
        let (all, _) = replay(&whole);
        let chunks = places(&whole, op::CHUNK);
        for (index, (start, end)) in chunks.iter().enumerate().skip(1) {
            let mut damaged = whole.clone();
            damaged[(start + end) / 2] ^= 0x10;
            let (found, notes) = replay(&damaged);
            let lost = all.len() - found.len();
            assert!(lost > 0, "{name}, chunk {index}");
            let note = notes.last().unwrap();
            assert!(note.starts_with(&format!("lost {lost} messages, the first to: ")), "{name}: {note}");
            assert!(found.iter().all(|frame| all.iter().any(|other| other.pixels == frame.pixels)));
        }
    }
}

#[test]
fn a_broken_image_is_skipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let whole = recorded(&folder.path().join("run.mcap"), 5);
    // Not in the chunk's checksum: zero stands for none.
    let (start, end) = places(&whole, op::CHUNK)[1];
    let mut damaged = whole.clone();
    damaged[start + 9 + 24..][..4].fill(0);
    let jpeg = whole[start..end].windows(3).position(|bytes| bytes == [0xFF, 0xD8, 0xFF]).unwrap();
    damaged[start + jpeg + 2] = 0;
    let (found, notes) = replay(&damaged);
    assert_eq!(found.len(), 4);
    assert!(notes[0].starts_with("lost 1 messages, the first to: image: "), "{notes:?}");
}

#[test]
fn what_is_no_recording_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.mcap");
    fs::write(&path, b"\x89MCAP0\r\n").unwrap();
    let error = open(&[text(&path)]).err().unwrap().to_string();
    let expected = "recording: expected a topic of sensor_msgs/msg/CompressedImage or Image, got none in ";
    assert!(error.starts_with(expected) && error.ends_with("run.mcap"), "{error}");
    fs::write(&path, b"MCAP").unwrap();
    let error = open(&[text(&path)]).err().unwrap().to_string();
    assert!(error.contains("or a recording (MCAP), got"), "{error}");
}

#[test]
fn a_recording_never_replaces_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.mcap");
    fs::write(&path, "precious").unwrap();
    let error = Recording::create(&path, &recorder::meta(1)).unwrap_err();
    assert!(matches!(error, SinkError::Exists { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let error = Recording::create(&folder.path().join("none/run.mcap"), &recorder::meta(1)).unwrap_err();
    assert!(error.to_string().starts_with("cannot write: no such folder: "), "{error}");
}

#[test]
fn a_recording_that_is_dropped_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.mcap");
    let mut recording = Recording::create(&path, &recorder::meta(1)).unwrap();
    recorder::record(&mut recording, 0, 0, &recorder::frame(0, 64, 48)).unwrap();
    drop(recording);
    let file = fs::read(&path).unwrap();
    assert!(mcap::Summary::read(&file).unwrap().is_some());
    assert_eq!(replay(&file).1, [""; 0]);
}

#[test]
fn the_picture_of_the_features_has_the_size_of_the_grid() {
    let folder = tempfile::tempdir().unwrap();
    let file = recorded(&folder.path().join("run.mcap"), 1);
    let mut reader = RecordingReader::new(Cursor::new(&*file), Some("/dinov2/pca/compressed")).unwrap();
    let mut frame = Frame::new();
    assert!(reader.read_into(&mut frame));
    let colours: Vec<u8> = (0..18).map(|value| value * 14).collect();
    let expected = ImageView::new(&colours, recorder::GRID.cols, recorder::GRID.rows).unwrap();
    assert_eq!(difference(frame.view(), expected).0, 0);
    assert_eq!(reader.topic(), "/dinov2/pca/compressed");
}
