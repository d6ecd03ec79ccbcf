//! y4m against ffmpeg, MJPEG against PIL, and both against what a broken pipe or an enemy sends.

mod common;

use std::io::Cursor;

use common::{bytes, difference, image, stacked};
use dinov2_files::chain;
use dinov2_io::mjpeg::{Piece, Splitter};
use dinov2_io::y4m::{ChromaLayout, Reader};
use dinov2_io::{FormatError, Frame, RawFormat, RawPixels, RawReader, YuvRange, decode_still};

#[test]
fn y4m_as_ffmpeg() {
    for (name, chroma, range) in [
        ("420jpeg", ChromaLayout::C420, YuvRange::Full),
        ("420mpeg2", ChromaLayout::C420, YuvRange::Limited),
        ("422", ChromaLayout::C422, YuvRange::Limited),
        ("444", ChromaLayout::C444, YuvRange::Limited),
        ("mono", ChromaLayout::Mono, YuvRange::Full),
    ] {
        let stream = bytes(&format!("clip_{name}.y4m"));
        let mut reader = Reader::new(stream.as_slice()).unwrap();
        let header = reader.header();
        assert_eq!((header.width_px, header.height_px), (34, 26));
        assert_eq!((header.chroma, header.range), (chroma, range), "{name}");
        let expected = image(&format!("clip_{name}.png"));
        let mut frame = Frame::new();
        for index in 0..3 {
            assert!(reader.read_into(&mut frame).unwrap());
            assert_eq!(frame.capture_ns, Some(index as u64 * 1_001_000_000 / 30));
            let (most, _) = difference(frame.view(), stacked(&expected, index, 26));
            assert!(most <= 1, "{name}, frame {index}: off by {most}");
        }
        assert!(!reader.read_into(&mut frame).unwrap());
    }
}

#[test]
fn y4m_of_odd_size() {
    // Chroma of 2 x 2 over 3 x 3 pixels: grey, red; blue, grey (ITU-R BT.601, limited range).
    let luma = [128, 128, 81, 128, 128, 81, 41, 41, 128];
    let stream =
        [b"YUV4MPEG2 W3 H3\nFRAME\n".as_slice(), &luma, &[128, 90, 240, 128], &[128, 240, 110, 128]].concat();
    let mut frame = Frame::new();
    assert!(Reader::new(stream.as_slice()).unwrap().read_into(&mut frame).unwrap());
    let (grey, red, blue) = ([130, 130, 130], [255, 0, 0], [0, 0, 255]);
    let expected = [grey, grey, red, grey, grey, red, blue, blue, grey].concat();
    let off = frame.pixels.iter().zip(&expected).map(|(got, expected)| got.abs_diff(*expected)).max();
    assert!(off.unwrap() <= 2, "{:?}", frame.pixels);
}

/// Frames of a y4m stream, or what is wrong with it.
fn read_y4m(stream: &[u8]) -> Result<usize, FormatError> {
    let mut reader = Reader::new(stream)?;
    let (mut frame, mut frames) = (Frame::new(), 0);
    while reader.read_into(&mut frame)? {
        frames += 1;
    }
    Ok(frames)
}

#[test]
fn y4m_cut_anywhere() {
    let whole = bytes("clip_420mpeg2.y4m");
    let frame_bytes = 6 + 34 * 26 + 2 * 17 * 13;
    let header = whole.len() - 3 * frame_bytes;
    for length in 0..whole.len() {
        let clean = length >= header && (length - header).is_multiple_of(frame_bytes);
        match read_y4m(&whole[..length]) {
            Ok(frames) => {
                assert!(clean && frames == (length - header) / frame_bytes, "cut to {length} bytes")
            }
            Err(error) => assert!(!clean, "cut to {length} bytes: {error}"),
        }
    }
    assert_eq!(read_y4m(&whole).unwrap(), 3);
}

#[test]
fn y4m_headers() {
    let error = |header: &str| chain(&Reader::new(header.as_bytes()).unwrap_err());
    assert_eq!(error("YUV4MPEG2 H2\n"), "y4m width: expected a positive number, got \"none\"");
    assert_eq!(
        error("YUV4MPEG2 W2 H2 C420p10\n"),
        "y4m chroma: expected 8-bit 420, 420jpeg, 420mpeg2, 420paldv, 422, 444 or mono, got \"420p10\""
    );
    for wrong in [
        "YUV4MPEG2 W0 H2\n",
        "YUV4MPEG2 W-2 H2\n",
        "YUV4MPEG2 W2 H99999999999999999999\n",
        "YUV4MPEG2 W32768 H32768\n",
        "YUV4MPEG2 W40000 H1\n",
        "YUV4MPEG2 W2 H2 C411\n",
        "YUV4MPEG2 W2 H2 C444alpha\n",
        "YUV4MPEG2 W2 H2 F30\n",
        "YUV4MPEG2X W2 H2\n",
        "RIFF\n",
        "",
    ] {
        assert!(Reader::new(wrong.as_bytes()).is_err(), "{wrong:?}");
    }
    let endless = vec![b' '; 1 << 20];
    assert!(Reader::new([b"YUV4MPEG2 ".as_slice(), &endless].concat().as_slice()).is_err());
    let no_rate = Reader::new(b"YUV4MPEG2 W2 H2 F0:0\n".as_slice()).unwrap();
    assert_eq!((no_rate.header().frame_rate, no_rate.header().chroma), (None, ChromaLayout::C420));
    assert!(read_y4m(b"YUV4MPEG2 W2 H2\nFRAMES\n123456").is_err());
    assert_eq!(read_y4m(b"YUV4MPEG2 W2 H2\nFRAME Ip\n123456").unwrap(), 1);
}

#[test]
fn y4m_that_claims_a_large_frame_takes_no_memory() {
    let mut reader = Reader::new(b"YUV4MPEG2 W16384 H16384 C444\nFRAME\nabc".as_slice()).unwrap();
    let mut frame = Frame::new();
    let error = reader.read_into(&mut frame).unwrap_err();
    assert!(matches!(error, FormatError::Truncated { expected: 805_306_368, got: 3, .. }), "{error}");
    assert_eq!(frame.pixels.capacity(), 0);
}

/// Pieces of an MJPEG stream.
fn split(stream: &[u8]) -> Vec<(Piece, Vec<u8>)> {
    let mut splitter = Splitter::new(Cursor::new(stream));
    let mut pieces = Vec::new();
    loop {
        let mut jpeg = Vec::new();
        match splitter.next_jpeg(&mut jpeg).unwrap() {
            Piece::End => return pieces,
            piece => pieces.push((piece, jpeg)),
        }
    }
}

#[test]
fn mjpeg_as_pil() {
    let stream = bytes("clip.mjpeg");
    let pieces = split(&stream);
    assert_eq!(pieces.len(), 3);
    assert_eq!(pieces.iter().map(|(_, jpeg)| jpeg.len()).sum::<usize>(), stream.len());
    let expected = image("clip_mjpeg.png");
    let mut frame = Frame::new();
    for (index, (piece, jpeg)) in pieces.iter().enumerate() {
        assert_eq!(*piece, Piece::Jpeg);
        decode_still(jpeg, &mut frame).unwrap();
        let (most, _) = difference(frame.view(), stacked(&expected, index, 26));
        assert!(most <= 2, "frame {index}: off by {most}");
    }
}

#[test]
fn mjpeg_between_boundaries() {
    let jpegs: Vec<Vec<u8>> = split(&bytes("clip.mjpeg")).into_iter().map(|(_, jpeg)| jpeg).collect();
    let mut stream = Vec::new();
    for jpeg in &jpegs {
        stream.extend(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n\xFF\xD8 not a start");
        stream.extend(jpeg);
        stream.extend(b"\r\n\0\0\0");
    }
    assert!(split(&stream).into_iter().eq(jpegs.into_iter().map(|jpeg| (Piece::Jpeg, jpeg))));
}

#[test]
fn mjpeg_cut_anywhere() {
    let whole = bytes("clip.mjpeg");
    let ends: Vec<usize> = split(&whole)
        .iter()
        .scan(0, |end, (_, jpeg)| {
            *end += jpeg.len();
            Some(*end)
        })
        .collect();
    for length in 0..whole.len() {
        let good = split(&whole[..length]).iter().filter(|(piece, _)| *piece == Piece::Jpeg).count();
        assert_eq!(good, ends.iter().filter(|end| **end <= length).count(), "cut to {length} bytes");
    }
}

#[test]
fn mjpeg_goes_on_behind_a_corrupt_frame() {
    let whole = bytes("clip.mjpeg");
    let first = split(&whole)[0].1.len();
    // The first frame loses its end: the second starts within its image data.
    let cut = [&whole[..first - 10], &whole[first..]].concat();
    let pieces = split(&cut);
    assert!(matches!(pieces[0].0, Piece::Corrupt(_)));
    assert_eq!(pieces[1..].iter().filter(|(piece, _)| *piece == Piece::Jpeg).count(), 2);
    // A segment that claims less than its own length field.
    let short = [b"\xFF\xD8\xFF\xE0\x00\x01".as_slice(), &whole].concat();
    assert_eq!(split(&short).iter().filter(|(piece, _)| *piece == Piece::Jpeg).count(), 3);
    // Nothing but starts.
    for starts in [b"\xFF\xD8".repeat(1000), b"\xFF\xD8\xFF".repeat(1000)] {
        assert!(split(&starts).iter().all(|(piece, _)| matches!(piece, Piece::Corrupt(_))));
    }
}

#[test]
fn mjpeg_frame_without_end_is_capped() {
    let endless = std::io::Read::chain(b"\xFF\xD8\xFF\xDA\x00\x02".as_slice(), std::io::repeat(7));
    let mut jpeg = Vec::new();
    let piece = Splitter::new(endless).next_jpeg(&mut jpeg).unwrap();
    assert!(matches!(piece, Piece::Corrupt(_)));
    assert!(jpeg.len() <= dinov2_io::limits::MAX_MJPEG_FRAME_BYTES);
}

#[test]
fn raw_layouts() {
    // White, black, and ITU-R BT.601 red (y 81, u 90, v 240) and blue (y 41, u 240, v 110).
    let rgb_of = |pixels: RawPixels, size: &str, bytes: &[u8]| {
        let mut frame = Frame::new();
        let mut reader = RawReader::new(bytes, RawFormat::new(size, pixels).unwrap()).unwrap();
        assert!(reader.read_into(&mut frame).unwrap());
        assert!(!reader.read_into(&mut Frame::new()).unwrap());
        frame.pixels
    };
    let near = |got: Vec<u8>, expected: &[u8]| {
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(got, expected)| got.abs_diff(*expected) <= 2), "{got:?}");
    };
    assert_eq!(rgb_of(RawPixels::Rgb24, "2x1", &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]);
    assert_eq!(rgb_of(RawPixels::Bgr24, "2x1", &[1, 2, 3, 4, 5, 6]), [3, 2, 1, 6, 5, 4]);
    assert_eq!(rgb_of(RawPixels::Gray8, "1x2", &[0, 200]), [0, 0, 0, 200, 200, 200]);
    near(
        rgb_of(RawPixels::Yuyv422, "2x2", &[235, 128, 16, 128, 81, 90, 81, 240]),
        &[255, 255, 255, 0, 0, 0, 255, 0, 0, 255, 0, 0],
    );
    let nv12 = [81, 81, 41, 41, 81, 81, 41, 41, 90, 240, 240, 110];
    near(rgb_of(RawPixels::Nv12, "4x2", &nv12), &[255, 0, 0, 255, 0, 0, 0, 0, 255, 0, 0, 255].repeat(2));
}

#[test]
fn raw_stream_must_end_with_a_frame() {
    let format = RawFormat::new("2x2", RawPixels::Rgb24).unwrap();
    let mut reader = RawReader::new([7; 17].as_slice(), format).unwrap();
    let mut frame = Frame::new();
    assert!(reader.read_into(&mut frame).unwrap());
    let error = reader.read_into(&mut frame).unwrap_err();
    assert_eq!(error.to_string(), "raw frame: expected 12 bytes, got 5");
    for (size, pixels) in [
        ("", RawPixels::Rgb24),
        ("3x2", RawPixels::Yuyv422),
        ("2x3", RawPixels::Nv12),
        ("40000x1", RawPixels::Gray8),
    ] {
        assert!(RawFormat::new(size, pixels).is_err(), "{size} {pixels}");
    }
    assert!("yuv9".parse::<RawPixels>().is_err());
    assert_eq!("nv12".parse::<RawPixels>().unwrap().to_string(), "nv12");
}
