//! Fixtures (made by `make_fixtures.py`) and how to compare with them.
#![allow(dead_code, unreachable_pub)] // each test file uses its own part

use std::path::PathBuf;

use dinov2_core::ImageView;
use dinov2_io::{Frame, Source, SourceOptions, decode_still};

pub fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", name].iter().collect()
}

pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn image(name: &str) -> Frame {
    let mut frame = Frame::new();
    decode_still(&bytes(name), &mut frame).unwrap_or_else(|error| panic!("{name}: {error}"));
    frame
}

/// Largest and mean difference of two images of the same size.
pub fn difference(left: ImageView<'_>, right: ImageView<'_>) -> (u8, f64) {
    assert_eq!((left.width_px(), left.height_px()), (right.width_px(), right.height_px()));
    let differences = left.pixels().iter().zip(right.pixels()).map(|(left, right)| left.abs_diff(*right));
    let sum: u64 = differences.clone().map(u64::from).sum();
    (differences.max().unwrap(), sum as f64 / left.pixels().len() as f64)
}

pub fn open(inputs: &[&str]) -> Result<Box<dyn Source>, dinov2_io::SourceError> {
    let inputs: Vec<String> = inputs.iter().map(|input| input.to_string()).collect();
    dinov2_io::open(&inputs, &SourceOptions::default())
}

/// Every frame of a source.
pub fn frames(source: &mut dyn Source) -> Vec<Frame> {
    let mut frame = Frame::new();
    let mut frames = Vec::new();
    while source.next_frame(&mut frame).unwrap() {
        frames.push(frame.clone());
    }
    frames
}

/// Frame `index` of an image in which frames of `height_px` rows lie under each other.
pub fn stacked(stack: &Frame, index: usize, height_px: usize) -> ImageView<'_> {
    let bytes = stack.width_px * height_px * 3;
    ImageView::new(&stack.pixels[index * bytes..][..bytes], stack.width_px, height_px).unwrap()
}
