//! Label maps that PIL wrote.

mod common;

use common::{bytes, fixture};
use dinov2_files::chain;
use dinov2_io::Labels;

#[test]
fn values_are_taken_as_stored() {
    let expected: Vec<u8> = (0..9).flat_map(|y| (0..13).map(move |x| ((3 * x + 5 * y) % 11) as u8)).collect();
    for name in ["labels_grey.png", "labels_palette4.png"] {
        let labels = Labels::read(&fixture(name)).unwrap();
        assert_eq!((labels.width_px, labels.height_px), (13, 9), "{name}");
        assert!(labels.pixels == expected, "{name}");
    }
    let odd: Vec<u8> = expected.iter().map(|label| label % 2).collect();
    assert_eq!(Labels::read(&fixture("labels_odd1.png")).unwrap().pixels, odd);
}

#[test]
fn the_centre_is_that_of_native_size() {
    let labels = Labels::read(&fixture("labels_grey.png")).unwrap();
    let centre = labels.centre(6, 4);
    assert_eq!((centre.width_px, centre.height_px), (6, 4));
    // 13 - 6 leaves 3 columns on the left, 9 - 4 leaves 2 rows above.
    let expected: Vec<u8> = (2..6).flat_map(|y| (3..9).map(move |x| ((3 * x + 5 * y) % 11) as u8)).collect();
    assert_eq!(centre.pixels, expected);
    assert_eq!(labels.centre(13, 9), labels);
}

#[test]
fn what_holds_no_class_ids_is_refused() {
    for (name, told) in [
        ("small.png", "Rgb of 8 bits"),
        ("grey16.png", "Grayscale of 16 bits"),
        ("jpeg_444.jpg", "expected a whole PNG"),
        ("no-such-file.png", "cannot read"),
    ] {
        let error = chain(&Labels::read(&fixture(name)).unwrap_err());
        assert!(error.contains(told) && error.contains(name), "{error}");
    }
    let whole = bytes("labels_palette4.png");
    for length in 0..whole.len() - 16 {
        assert!(Labels::decode(&whole[..length]).is_err(), "cut to {length} bytes");
    }
    let mut claims = whole;
    claims[16..20].copy_from_slice(&0x7FFF_FFFF_u32.to_be_bytes());
    assert!(Labels::decode(&claims).is_err(), "a claimed width");
}
