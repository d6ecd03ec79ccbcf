use std::io::{self, Write};

use super::arrays::Values;

/// Bytes that the header, its ten leading bytes included, is padded to a multiple of (numpy's `ARRAY_ALIGN`).
const ALIGN_BYTES: usize = 64;

/// Writes `values` of `shape`, row-major, as `.npy` format 1.0, little-endian. Format: `numpy.lib.format`.
pub(super) fn write(file: &mut impl Write, shape: &[usize], values: &Values<'_>) -> io::Result<()> {
    let descr = match values {
        Values::F32(_) => "<f4",
        Values::U8(_) => "|u1",
    };
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if sides.len() == 1 { "," } else { "" };
    let sides = sides.join(", ");
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sides}{comma}), }}");
    let unpadded = b"\x93NUMPY\x01\x00".len() + 2 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(ALIGN_BYTES) - unpadded));
    header.push('\n');
    let header_bytes = u16::try_from(header.len()).expect("a shape of a few numbers is short");
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&header_bytes.to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    values.write(file)
}
