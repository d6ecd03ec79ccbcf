//! Files that are whole or not there.

use std::io::{self, Write};
use std::path::Path;

use dinov2_files::{Durability, Kind, WholeFile};

/// Writes a file under a temporary name beside it, makes it durable and gives it its name.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Ok(dinov2_files::write_whole(path, Kind::Any, Durability::Synced, |file| file.write_all(bytes))
        .map(drop)?)
}

/// The same for what `write` writes under the temporary name that it gets.
pub(crate) fn write_whole_by(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let file = WholeFile::create(path, Kind::Any)?;
    write(file.temporary())?;
    Ok(file.finish(Durability::Synced).map(drop)?)
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
