//! How the library writes files: whole or not at all, and durable. A file appears under its name only when the disk has all of it;
//! a run that is killed leaves at most a temporary name, which [`remove_partial`] clears.
//!
//! Files that grow line by line during a run (metrics, scans) are not written here.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use dinov2_files::{Kind, WholeFile};

/// Writes a file in the place of whatever has its name.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> io::Result<()> {
    Ok(dinov2_files::write_whole(path, Kind::Any, write).map(drop)?)
}

/// The same for bytes that are there already.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, |file| file.write_all(bytes))
}

/// The same for code that opens files itself: `write` gets the temporary name.
pub(crate) fn write_by_name(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let file = WholeFile::create(path, Kind::Any)?;
    write(file.temporary())?;
    file.finish()?;
    Ok(())
}

/// Removes temporary files that a killed run left in a folder that only one run writes to: hidden files that end in `.partial` or
/// `.part`. A folder that does not exist holds none.
pub(crate) fn remove_partial(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_partial = name.starts_with('.') && (name.ends_with(".partial") || name.ends_with(".part"));
        if is_partial && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
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
