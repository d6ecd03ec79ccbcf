//! Bytes as a y4m stream.
#![no_main]

use dinov2_io::{Frame, y4m};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = y4m::Reader::new(bytes) else { return };
    let mut frame = Frame::new();
    while matches!(reader.read_into(&mut frame), Ok(true)) {
        assert_eq!(frame.view().pixels().len(), frame.view().width_px() * frame.view().height_px() * 3);
    }
});
