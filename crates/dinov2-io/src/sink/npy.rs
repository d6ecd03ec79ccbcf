use std::io::{self, Write};

/// Bytes that the header, its ten leading bytes included, is padded to a multiple of (numpy's `ARRAY_ALIGN`).
const ALIGN_BYTES: usize = 64;

/// Writes `values` of `shape`, row-major, as `.npy` format 1.0, little-endian f32. Format: `numpy.lib.format`.
pub(super) fn write(file: &mut impl Write, shape: &[usize], values: &[f32]) -> io::Result<()> {
    debug_assert_eq!(shape.iter().product::<usize>(), values.len());
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if sides.len() == 1 { "," } else { "" };
    let sides = sides.join(", ");
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sides}{comma}), }}");
    let unpadded = b"\x93NUMPY\x01\x00".len() + 2 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(ALIGN_BYTES) - unpadded));
    header.push('\n');
    let header_bytes = u16::try_from(header.len()).expect("a shape of a few numbers is short");
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&header_bytes.to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    write_f32(file, values)
}

/// Little-endian bytes of `values`.
pub(super) fn write_f32(file: &mut impl Write, values: &[f32]) -> io::Result<()> {
    let mut bytes = [0; 4096];
    for chunk in values.chunks(bytes.len() / 4) {
        for (target, value) in bytes.chunks_exact_mut(4).zip(chunk) {
            target.copy_from_slice(&value.to_le_bytes());
        }
        file.write_all(&bytes[..chunk.len() * 4])?;
    }
    Ok(())
}
