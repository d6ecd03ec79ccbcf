use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::SinkError;

/// The folder that a file lies in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes a file that appears under its name only when it is whole; on any failure the temporary file is removed.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<(), SinkError> {
    let refused = |reason| SinkError::Write { reason, path: path.display().to_string() };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".dinov2-").suffix(".part");
    // Temporary files are private by default; features are as readable as any other output.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut temporary = builder.tempfile_in(folder_of(path)).map_err(|error| refused(plain(error)))?;
    let mut writer = BufWriter::with_capacity(1 << 18, temporary.as_file_mut());
    write(&mut writer).and_then(|()| writer.flush()).map_err(refused)?;
    drop(writer);
    temporary.persist(path).map_err(|error| refused(error.error))?;
    Ok(())
}

/// Without the random name that `tempfile` adds to the message.
fn plain(error: io::Error) -> io::Error {
    io::Error::from(error.kind())
}
