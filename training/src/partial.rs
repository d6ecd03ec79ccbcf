//! Temporary files of a program that was killed while it wrote.

use std::path::Path;
use std::{fs, io};

/// Removes what an earlier run left in a folder that only one run writes to: hidden files that end in `.partial` or `.part`, the
/// temporary names of our writers. A folder that does not exist holds none.
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
