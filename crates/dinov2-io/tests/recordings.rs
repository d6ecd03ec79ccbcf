//! Recordings written and replayed, ours and those that `make_recordings.py` made with the packages of others.

mod common;
#[path = "common/recorder.rs"]
mod recorder;

use std::fs;
use std::io::Cursor;
use std::path::Path;

use common::{bytes, difference, fixture, frames, image, open, stacked};
use dinov2_core::ImageView;
use dinov2_files::chain;
use dinov2_io::{Frame, LiveStats, Recording, RecordingReader, SinkError, SourceOptions};
use mcap::MessageStream;
use mcap::records::{Record, op};

const HEIGHT: usize = 26;
const FOREIGN_START_NS: u64 = 1_700_000_000_000_000_000;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every image of a recording in memory, its notes and, behind them, what is missing.
fn replay(bytes: &[u8]) -> (Vec<Frame>, Vec<String>) {
    let mut reader = RecordingReader::new(Cursor::new(bytes), None).unwrap();
    let (mut frame, mut frames) = (Frame::new(), Vec::new());
    let missing = loop {
        match reader.read_into(&mut frame) {
            Ok(true) => frames.push(frame.clone()),
            Ok(false) => break None,
            Err(missing) => break Some(chain(&missing)),
        }
    };
    assert!(!reader.read_into(&mut frame).unwrap(), "the end is no end");
    let mut notes = reader.take_notes();
    notes.extend(missing);
    (frames, notes)
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
fn mosaics_and_deep_images_as_opencv() {
    let stack = image("recordings/raw.png");
    let mut source = open(&[text(&fixture("recordings/raw.mcap"))]).unwrap();
    let found = frames(&mut *source);
    assert_eq!(source.take_notes(), [""; 0]);
    assert_eq!(found.len() * HEIGHT, stack.height_px);
    let last = found.len() - 1;
    for (index, frame) in found.iter().enumerate() {
        // The last is nv24, where ours is fixed point.
        let (most, _) = difference(frame.view(), stacked(&stack, index, HEIGHT));
        assert!(most <= u8::from(index == last), "image {index}: {most}");
    }
}

#[test]
fn the_format_of_compressed_images_is_obeyed() {
    let stack = image("recordings/compressed.png");
    let mut source = open(&[text(&fixture("recordings/compressed.mcap"))]).unwrap();
    let found = frames(&mut *source);
    let notes = source.take_notes();
    // One says nothing of the order of colours, two another one than usual.
    assert!(
        notes.len() == 1 && notes[0].contains("red and blue are taken as the image files have them"),
        "{notes:?}"
    );
    assert_eq!(found.len() * HEIGHT, stack.height_px);
    for (index, frame) in found.iter().enumerate() {
        // JPEG decoders differ by a little.
        let (most, mean) = difference(frame.view(), stacked(&stack, index, HEIGHT));
        assert!(most <= 4 && mean < 0.6, "image {index}: {most}, {mean} in the mean");
    }
}

#[test]
fn formats_that_are_no_picture_are_refused_by_name() {
    for (topic, what) in [
        (
            "/depth",
            "a colour or grey image, got format \"16UC1; png compressed \" (depth or other measurements)",
        ),
        ("/compressed_depth", "a colour or grey image, got format \"16UC1; compressedDepth png\" (depth"),
        ("/rvl", "got format \"32FC1; compressedDepth rvl\" (depth"),
        ("/mosaic", "a mosaic of 1 channel, got 3 with the format \"bayer_rggb8; jpeg compressed \""),
        ("/video", "JPEG or PNG, got format \"h264\""),
    ] {
        let error = chain(&open_topic("refused.mcap", topic).err().unwrap());
        assert!(error.contains(what), "{error}");
    }
    let mut source = open_topic("refused.mcap", "/swapped").unwrap();
    assert_eq!(frames(&mut *source).len(), 1);
    let notes = source.take_notes();
    assert!(
        notes[0].contains("format \"rgb8; jpeg compressed rgb8\" does not say `compressed bgr8`"),
        "{notes:?}"
    );
}

#[test]
fn recordings_without_images_of_ros_2_say_what_they_hold() {
    for (name, holds) in [
        ("ros1", "none (profile ros1, topics /camera/image (sensor_msgs/CompressedImage, ros1))"),
        ("protobuf", "none (no profile, topics /camera/image (foxglove.CompressedImage, protobuf))"),
        ("json", "none (no profile, topics /camera/image (foxglove.RawImage, json))"),
        ("flatbuffer", "none (no profile, topics /camera/image (foxglove.CompressedVideo, flatbuffer))"),
    ] {
        let error = chain(&open(&[text(&fixture(&format!("recordings/barren_{name}.mcap")))]).err().unwrap());
        assert!(error.contains(holds), "{error}");
    }
    let whole = bytes("recordings/zstd.mcap");
    let (start, end) = places(&whole, op::CHUNK)[0];
    let error = chain(&RecordingReader::new(Cursor::new(&whole[..(start + end) / 2]), None).unwrap_err());
    assert!(
        error.contains(&format!("the file breaks off: its last whole record ends at byte {start}, ")),
        "{error}"
    );
}

/// Four images, as rosbags wrote them.
fn assert_bag(path: &Path) {
    let stack = image("recordings/rosbags.png");
    let mut source = open(&[text(path)]).unwrap();
    let found = frames(&mut *source);
    assert_eq!(source.take_notes(), [""; 0]);
    assert_eq!(found.len(), 4);
    for (index, frame) in found.iter().enumerate() {
        assert_eq!(difference(frame.view(), stacked(&stack, index, HEIGHT)).0, 0, "image {index}");
    }
    let stem = path.file_name().unwrap().to_str().unwrap();
    assert_eq!(found[3].name, format!("{stem}_000003"));
}

#[test]
fn a_bag_folder_is_one_recording() {
    assert_bag(&fixture("recordings/split"));
    assert_bag(&fixture("recordings/messages"));
    let error = chain(&open_topic("split", "/rear").err().unwrap());
    assert!(
        error.contains("images on the topic /rear, got none (topics with images: /camera/image_raw)"),
        "{error}"
    );
}

#[test]
fn a_bag_with_a_part_missing_or_broken_is_no_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["metadata.yaml", "run_9.mcap", "run_10.mcap"] {
        fs::copy(fixture(&format!("recordings/split/{name}")), folder.path().join(name)).unwrap();
    }
    // The first part breaks off within its index, then within its chunk; the second is read either way.
    let first = bytes("recordings/split/run_10.mcap");
    fs::write(folder.path().join("run_10.mcap"), &first[..first.len() - 20]).unwrap();
    let mut source = open(&[text(folder.path())]).unwrap();
    assert_eq!(frames(&mut *source).len(), 4);
    assert!(source.take_notes()[0].contains("run_10.mcap: not closed by its recorder"));
    fs::write(folder.path().join("run_10.mcap"), &first[..600]).unwrap();
    let mut source = open(&[text(folder.path())]).unwrap();
    let mut frame = Frame::new();
    assert!(source.next_frame(&mut frame).unwrap() && source.next_frame(&mut frame).unwrap());
    let error = chain(&source.next_frame(&mut frame).unwrap_err());
    assert!(error.contains("run_10.mcap: ") && error.contains("the file breaks off"), "{error}");
    fs::remove_file(folder.path().join("run_9.mcap")).unwrap();
    let error = chain(&open(&[text(folder.path())]).err().unwrap());
    assert!(error.contains("the recordings that its metadata.yaml names, got no run_9.mcap in "), "{error}");
}

#[test]
fn recordings_without_metadata_are_read_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["run_9.mcap", "run_10.mcap"] {
        fs::copy(fixture(&format!("recordings/split/{name}")), folder.path().join(name)).unwrap();
    }
    let mut source = open(&[text(folder.path())]).unwrap();
    let names: Vec<_> = frames(&mut *source).into_iter().map(|frame| frame.name).collect();
    assert_eq!(names, ["run_9_000000", "run_9_000001", "run_10_000000", "run_10_000001"]);
    assert!(source.take_notes()[0].contains("no metadata.yaml, so its 2 recordings are read one by one"));
}

#[test]
fn older_bags_are_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let metadata = "rosbag2_bagfile_information:\n  version: 5\n  relative_file_paths:\n    - ";
    for (name, content, kind) in [
        ("run_0.db3", &b"SQLite format 3\0"[..], "a ROS 2 bag in SQLite (.db3)"),
        ("run_0.db3.zstd", b"\x28\xb5\x2f\xfd", "a file of a ROS 2 bag that is compressed whole"),
        ("run_0.mcap.zstd", b"\x28\xb5\x2f\xfd", "a file of a ROS 2 bag that is compressed whole"),
        ("run.bag", b"#ROSBAG V2.0\n", "a ROS 1 bag (.bag)"),
    ] {
        let bag = folder.path().join(format!("folder of {name}"));
        fs::create_dir(&bag).unwrap();
        fs::write(bag.join(name), content).unwrap();
        let glob = format!("{}/*{}", text(&bag), &name[name.len() - 3..]);
        let check = |input: &str| {
            let error = chain(&open(&[input]).err().unwrap());
            assert!(
                error.contains(&format!("got {kind}: ")) && error.contains("rosbags-convert --src "),
                "{error}"
            );
        };
        [text(&bag.join(name)), text(&bag), &glob].into_iter().for_each(check);
        if name != "run.bag" {
            fs::write(bag.join("metadata.yaml"), format!("{metadata}{name}\n")).unwrap();
            check(text(&bag));
        }
    }
}

/// A recording of `recordings`, replayed from a topic.
fn open_topic(name: &str, topic: &str) -> Result<Box<dyn dinov2_io::Source>, dinov2_io::SourceError> {
    let options = SourceOptions { topic: Some(topic.into()), ..SourceOptions::default() };
    dinov2_io::open(&[text(&fixture(&format!("recordings/{name}"))).to_string()], &options)
}

#[test]
fn a_topic_can_be_asked_for() {
    let open = |topic: &str| open_topic("lz4.mcap", topic);
    assert_eq!(frames(&mut *open("/color/image_raw").unwrap()).len(), 13);
    let error = chain(&open("/depth/image_raw").err().unwrap());
    assert!(error.contains("images on the topic /depth/image_raw, got none that can be read"), "{error}");
    assert!(error.contains("got \"16UC1\""), "{error}");
    let error = chain(&open("/rear").err().unwrap());
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
    let (outputs, latency_ms, jpeg) = (&[][..], None, Some(&*jpeg));
    let recorded = dinov2_io::Recorded {
        camera: 0,
        frame: &frame,
        jpeg,
        crop,
        features: &features,
        outputs,
        latency_ms,
    };
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
        let note = notes.last().unwrap();
        // Between two records a recorder was killed; within one, something is missing, unless it is the index.
        let killed = note.starts_with("not closed by its recorder; everything up to byte ");
        let missing = note.starts_with("recording: expected a whole one, got the file breaks off ");
        assert!(killed || missing && length < data_end, "{length} bytes: {note}");
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
            let expected =
                format!("recording: expected a whole one, got lost {lost} messages, the first to: ");
            assert!(note.starts_with(&expected), "{name}: {note}");
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
    assert!(notes[0].contains("got lost 1 messages, the first to: compressed image: "), "{notes:?}");
}

#[test]
fn what_is_no_recording_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.mcap");
    fs::write(&path, b"\x89MCAP0\r\n").unwrap();
    let error = chain(&open(&[text(&path)]).err().unwrap());
    let expected = "recording: expected a topic of sensor_msgs/msg/CompressedImage or Image in cdr, got none (no profile, no \
                    topics); the file breaks off: its last whole record ends at byte 8";
    assert_eq!(error, format!("cannot decode {}: {expected}", text(&path)));
    fs::write(&path, b"MCAP").unwrap();
    let error = chain(&open(&[text(&path)]).err().unwrap());
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
    let expected = format!("cannot write {}: no such folder", folder.path().join("none").display());
    assert_eq!(chain(&error), expected);
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
    assert!(reader.read_into(&mut frame).unwrap());
    let colours: Vec<u8> = (0..18).map(|value| value * 14).collect();
    let expected = ImageView::new(&colours, recorder::GRID.cols, recorder::GRID.rows).unwrap();
    assert_eq!(difference(frame.view(), expected).0, 0);
    assert_eq!(reader.topic(), "/dinov2/pca/compressed");
}
