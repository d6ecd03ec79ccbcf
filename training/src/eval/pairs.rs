//! Images with label maps. An unreadable file is an [`EvalError::Unreadable`]; an invalid one, which is a mistake
//! of the data set, is another error.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use dinov2_io::{Frame, Labels, read_still};
use png::{BitDepth, ColorType};

use super::EvalError;

/// Unit of the pairs that a probe is fitted to, for messages.
pub(super) const TRAINING: &str = "training pairs";
/// Unit of the pairs that it is scored on.
pub(super) const VALIDATION: &str = "validation pairs";

/// Reads an image into `frame` and the label map of its size.
pub(super) fn read_pair(image: &Path, labels: &Path, frame: &mut Frame) -> Result<Labels, EvalError> {
    read_still(image, frame)?;
    let map = read_labels(labels)?;
    check_size("label map", (map.width_px, map.height_px), frame, labels)?;
    Ok(map)
}

/// Reads a label map.
pub(super) fn read_labels(path: &Path) -> Result<Labels, EvalError> {
    Labels::read(path).map_err(|error| match other_kind(path) {
        Some(kind) => {
            let expected = "a grey or palette PNG of at most 8 bits, whose values are class ids";
            EvalError::input("label map", expected, format!("{kind} in {}", path.display()))
        }
        None => error.into(),
    })
}

/// The kind of a PNG that holds no labels.
fn other_kind(path: &Path) -> Option<String> {
    let reader = png::Decoder::new(BufReader::new(File::open(path).ok()?)).read_info().ok()?;
    let (color, depth) = (reader.info().color_type, reader.info().bit_depth);
    let labels = matches!(color, ColorType::Grayscale | ColorType::Indexed) && depth != BitDepth::Sixteen;
    (!labels).then(|| format!("{color:?} of {} bits", depth as u8))
}

/// Checks that a map has the size of its image.
pub(super) fn check_size(
    what: &'static str,
    (width_px, height_px): (usize, usize),
    frame: &Frame,
    path: &Path,
) -> Result<(), EvalError> {
    if (width_px, height_px) == (frame.width_px, frame.height_px) {
        return Ok(());
    }
    let expected = format!("{}x{} as the image", frame.width_px, frame.height_px);
    Err(EvalError::input(what, expected, format!("{width_px}x{height_px} in {}", path.display())))
}
