//! Bytes as an MJPEG stream: cut into images, each decoded.
#![no_main]

use dinov2_io::mjpeg::{Piece, Splitter};
use dinov2_io::{Frame, decode_still};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut splitter, mut jpeg, mut frame) = (Splitter::new(bytes), Vec::new(), Frame::new());
    loop {
        match splitter.next_jpeg(&mut jpeg) {
            Ok(Piece::Jpeg) => {
                let _ = decode_still(&jpeg, &mut frame);
            }
            Ok(Piece::Corrupt(_)) => {}
            Ok(Piece::End) | Err(_) => break,
        }
    }
});
