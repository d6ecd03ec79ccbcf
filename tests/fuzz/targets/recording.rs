//! Bytes as a recording: every image of it.
#![no_main]

use std::io::Cursor;

use dinov2_io::{Frame, RecordingReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = RecordingReader::new(Cursor::new(bytes), None) else { return };
    let mut frame = Frame::new();
    while let Ok(true) = reader.read_into(&mut frame) {
        assert_eq!(frame.view().pixels().len(), frame.view().width_px() * frame.view().height_px() * 3);
    }
    reader.take_notes();
});
