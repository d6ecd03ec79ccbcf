//! GIF, WebP and PNG animations against Pillow (`make_animations.py`).

mod common;

use std::fs;

use common::{bytes, difference, fixture, frames, image, open, stacked};
use dinov2_files::chain;

const HEIGHT_PX: usize = 36;

fn path(name: &str) -> String {
    fixture(&format!("animations/{name}")).to_str().unwrap().to_string()
}

#[test]
fn all_frames_composed_at_their_times() {
    let names = [
        "whole.gif",
        "restored.gif",
        "hurried.gif",
        "lossless.webp",
        "composed.png",
        "hurried.png",
        "thumbnail.png",
    ];
    for name in names {
        let mut source = open(&[&path(name)]).unwrap();
        assert!(source.is_video(), "{name}");
        let frames = frames(source.as_mut());
        let expected = image(&format!("animations/{name}.png"));
        assert_eq!(frames.len(), 4, "{name}");
        for (index, frame) in frames.iter().enumerate() {
            let difference = difference(frame.view(), stacked(&expected, index, HEIGHT_PX)).0;
            // Half-transparent changes are blended with another rounding than libwebp's.
            assert!(difference <= u8::from(name.ends_with("webp")), "{name}, frame {index}: {difference}");
            assert_eq!(frame.name, format!("{}_{index:06}", name.split_once('.').unwrap().0));
        }
        let times: Vec<String> =
            frames.iter().map(|frame| (frame.capture_ns.unwrap() / 1_000_000).to_string()).collect();
        assert_eq!(times.join(" ").into_bytes(), bytes(&format!("animations/{name}.txt")), "{name}");
    }
}

#[test]
fn one_frame_is_a_still_image() {
    for name in ["still.gif", "still.webp"] {
        let mut source = open(&[&path(name)]).unwrap();
        assert_eq!((source.is_video(), source.len_hint()), (false, Some(1)), "{name}");
        let frames = frames(source.as_mut());
        assert_eq!(
            (frames.len(), frames[0].name.as_str(), frames[0].capture_ns),
            (1, "still", None),
            "{name}"
        );
    }
}

#[test]
fn animations_in_a_folder_give_all_frames() {
    let folder = tempfile::tempdir().unwrap();
    for (name, from) in [("a.png", "small.png"), ("b.gif", "animations/whole.gif"), ("c.png", "small.png")] {
        fs::copy(fixture(from), folder.path().join(name)).unwrap();
    }
    let frames = frames(open(&[folder.path().to_str().unwrap()]).unwrap().as_mut());
    let names: Vec<&str> = frames.iter().map(|frame| frame.name.as_str()).collect();
    assert_eq!(names, ["a", "b_000000", "b_000001", "b_000002", "b_000003", "c"]);
    assert_eq!((frames[0].capture_ns, frames[5].capture_ns), (None, None));
}

#[test]
fn cut_animations_give_their_good_frames_and_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["whole.gif", "lossless.webp", "composed.png"] {
        let whole = bytes(&format!("animations/{name}"));
        for length in [whole.len() / 2, whole.len() * 3 / 4, whole.len() - 20] {
            let path = folder.path().join(name);
            fs::write(&path, &whole[..length]).unwrap();
            let Ok(mut source) = open(&[path.to_str().unwrap()]) else { continue };
            let mut frame = dinov2_io::Frame::new();
            let error = loop {
                match source.next_frame(&mut frame) {
                    Ok(true) => {}
                    Ok(false) => break None,
                    Err(error) => break Some(chain(&error)),
                }
            };
            assert!(error.is_some_and(|error| error.contains(name)), "{name} cut to {length} bytes");
        }
    }
}
