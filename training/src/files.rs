//! Files of a run: written atomically, and pictures of pixels. A run owns its folder, so a file of any kind may be replaced.

use std::io::{self, Write};
use std::path::Path;

use dinov2_files::{Kind, WholeFile};

/// Writes a file as [`dinov2_files::write_whole`].
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    dinov2_files::write_whole(path, Kind::Any, |file| file.write_all(bytes))?;
    Ok(())
}

/// The same for a `write` that opens the temporary file by its name.
pub(crate) fn write_whole_by(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let file = WholeFile::create(path, Kind::Any)?;
    write(file.temporary())?;
    file.finish()?;
    Ok(())
}

/// A PNG of `pixels: [height, width, 3]`.
pub(crate) fn png(pixels: &[u8], width_px: usize, height_px: usize) -> io::Result<Vec<u8>> {
    let side = |side: usize| u32::try_from(side).map_err(io::Error::other);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side(width_px)?, side(height_px)?);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(pixels).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?;
    Ok(bytes)
}
