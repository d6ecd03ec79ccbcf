//! Image files against PIL.

mod common;

use common::{bytes, difference, frames, image, open};
use dinov2_files::chain;
use dinov2_io::{Frame, decode_still};

#[test]
fn jpeg_as_pil() {
    // Chroma of 4:2:0 is interpolated by each decoder in its own way, CMYK rounded in its own.
    for (name, tolerance) in
        [("420", 4), ("444", 2), ("progressive", 4), ("grey", 1), ("restart", 4), ("cmyk", 3)]
    {
        let (decoded, expected) = (image(&format!("jpeg_{name}.jpg")), image(&format!("jpeg_{name}.png")));
        let (most, mean) = difference(decoded.view(), expected.view());
        assert!(most <= tolerance && mean < 0.6, "{name}: off by {most}, {mean} in the mean");
    }
}

/// A JPEG without the Huffman tables (DHT segments) for which `keep` is false, given class and destination in one byte.
fn without_tables(jpeg: &[u8], keep: impl Fn(u8) -> bool) -> Vec<u8> {
    let (mut stripped, mut rest) = (jpeg[..2].to_vec(), &jpeg[2..]);
    while rest[1] != 0xDA {
        let end = 2 + usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if rest[1] == 0xC4 {
            let mut tables = &rest[4..end];
            while !tables.is_empty() {
                let len = 17 + tables[1..17].iter().map(|count| usize::from(*count)).sum::<usize>();
                if keep(tables[0]) {
                    stripped.extend([0xFF, 0xC4]);
                    stripped.extend((len as u16 + 2).to_be_bytes());
                    stripped.extend(&tables[..len]);
                }
                tables = &tables[len..];
            }
        } else {
            stripped.extend(&rest[..end]);
        }
        rest = &rest[end..];
    }
    [&stripped, rest].concat()
}

#[test]
fn jpeg_without_huffman_tables_as_with_them() {
    for name in ["420", "444", "grey", "restart", "cmyk"] {
        let whole = bytes(&format!("jpeg_{name}.jpg"));
        let expected = image(&format!("jpeg_{name}.jpg"));
        // All tables, those of AC, of chrominance, a single one: what is there stands.
        for (missing, keep) in [("all", 0b0000), ("AC", 0b0011), ("chrominance", 0b0101), ("DC 0", 0b1110)] {
            let mut stripped =
                without_tables(&whole, |table| keep >> (2 * (table >> 4) + (table & 15)) & 1 == 1);
            let has_none = missing == "chrominance" && ["grey", "cmyk"].contains(&name);
            assert!(stripped.len() < whole.len() || has_none, "{name}, {missing}");
            for padding in [0, 1, 4096] {
                stripped.resize(stripped.len() + padding, 0);
                let mut frame = Frame::new();
                decode_still(&stripped, &mut frame)
                    .unwrap_or_else(|error| panic!("{name}, {missing}: {error}"));
                assert_eq!(frame.pixels, expected.pixels, "{name}, {missing}");
            }
        }
    }
}

#[test]
fn a_progressive_jpeg_without_tables_is_refused() {
    let stripped = without_tables(&bytes("jpeg_progressive.jpg"), |_| false);
    let error = chain(&decode_still(&stripped, &mut Frame::new()).unwrap_err());
    assert_eq!(error, "progressive JPEG: expected Huffman tables before its first scan, got none");
}

#[test]
fn a_stream_without_huffman_tables_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("camera.mjpeg");
    let stripped = without_tables(&bytes("jpeg_420.jpg"), |_| false);
    std::fs::write(&path, [&stripped, &[0; 37][..], &stripped, &bytes("jpeg_420.jpg")].concat()).unwrap();
    let mut source = open(&[path.to_str().unwrap()]).unwrap();
    let found = frames(&mut *source);
    assert_eq!(source.take_notes(), [""; 0]);
    let expected = image("jpeg_420.jpg");
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|frame| frame.pixels == expected.pixels));
}

#[test]
fn exif_orientation_is_applied() {
    for orientation in 1..=8 {
        let (decoded, expected) =
            (image(&format!("exif_{orientation}.jpg")), image(&format!("exif_{orientation}.png")));
        let (most, _) = difference(decoded.view(), expected.view());
        assert!(most <= 2, "orientation {orientation}: off by {most}");
    }
}

#[test]
fn every_lossless_format_gives_the_same_pixels() {
    let expected = image("small.png");
    for name in ["small.webp", "small.bmp", "small.tiff", "small.ppm", "misnamed.txt"] {
        assert_eq!(difference(image(name).view(), expected.view()).0, 0, "{name}");
    }
}

#[test]
fn alpha_palette_animation_and_depth_as_pil() {
    for (name, expected) in [
        ("alpha.png", "alpha_rgb.png"),
        ("palette.png", "palette_rgb.png"),
        ("two_frames.gif", "two_frames_rgb.png"),
        ("grey16.png", "grey16_rgb.png"),
    ] {
        assert_eq!(difference(image(name).view(), image(expected).view()).0, 0, "{name}");
    }
}

#[test]
fn cut_off_images_are_errors() {
    let mut frame = Frame::new();
    for name in [
        "small.png",
        "jpeg_444.jpg",
        "jpeg_progressive.jpg",
        "small.webp",
        "small.bmp",
        "small.tiff",
        "small.ppm",
    ] {
        let whole = bytes(name);
        for length in (0..whole.len().saturating_sub(16)).step_by(1 + whole.len() / 500) {
            assert!(decode_still(&whole[..length], &mut frame).is_err(), "{name} cut to {length} bytes");
        }
    }
}

#[test]
fn a_claimed_size_is_checked_first() {
    let mut frame = Frame::new();
    let claims = |width: u32, height: u32| format!("P6 {width} {height} 255\nabc").into_bytes();
    for (width, height) in [(32_768, 32_768), (40_000, 2), (2, 4_000_000_000), (0, 5)] {
        assert!(decode_still(&claims(width, height), &mut frame).is_err(), "{width}x{height}");
    }
    assert_eq!(frame.pixels.capacity(), 0);
    // Within the limits, but the data are missing.
    assert!(decode_still(&claims(16_000, 16_000), &mut frame).is_err());

    let mut png = bytes("small.png");
    png[16..20].copy_from_slice(&0x7FFF_FFFF_u32.to_be_bytes());
    assert!(decode_still(&png, &mut frame).is_err());

    // A whole JPEG of a few kilobytes that says it is 16,000 x 16,000.
    let mut jpeg = bytes("jpeg_444.jpg");
    let start_of_frame = jpeg.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    jpeg[start_of_frame + 5..start_of_frame + 9].copy_from_slice(&[0x3E, 0x80, 0x3E, 0x80]);
    let error = chain(&decode_still(&jpeg, &mut Frame::new()).unwrap_err());
    assert!(error.starts_with("JPEG size: expected at most 4096 pixels per byte"), "{error}");
}
