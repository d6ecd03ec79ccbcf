//! Writing a file under a temporary name beside its place, and giving it its name once it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{FileError, Kind, Target, folder_of};

/// Size of the buffer of [`write_whole`].
const BUFFER_BYTES: usize = 1 << 18;

/// A file that is being written under a temporary name beside its target. If it is dropped before [`Self::finish`], the temporary
/// file is removed.
///
/// Use this instead of [`write_whole`] when the writer must outlive one closure.
///
/// ```
/// use std::io::Write;
///
/// use dinov2_files::{Kind, WholeFile};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("notes.txt");
/// let mut file = WholeFile::create(&path, Kind::Text).unwrap();
/// file.write_all(b"first line\n").unwrap();
/// assert!(!path.exists());
/// file.finish().unwrap();
/// assert_eq!(std::fs::read(&path).unwrap(), b"first line\n");
/// ```
#[derive(Debug)]
pub struct WholeFile {
    file: NamedTempFile,
    target: Target,
    kind: Kind,
}

impl WholeFile {
    /// Creates an empty file with the permissions that the umask gives any new file.
    ///
    /// # Errors
    /// As [`Target::check`], and if the system cannot create the temporary file.
    pub fn create(target: impl Into<Target>, kind: Kind) -> Result<Self, FileError> {
        let target = target.into();
        let place = target.check(kind)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".dinov2-").suffix(".part");
        // Temporary files are private by default.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder_of(&place));
        let file = file.map_err(|error| FileError::write(target.path())(without_path(&error)))?;
        Ok(Self { file, target, kind })
    }

    /// The target, with the name that the file will have.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The temporary name, for libraries that open files by name.
    pub fn temporary(&self) -> &Path {
        self.file.path()
    }

    /// Checks the target again, syncs the file if its kind is synced, copies the permissions of a file that it replaces,
    /// and renames it. Returns the target's name. If two runs write to one name, the later one wins, with a complete file.
    ///
    /// # Errors
    /// As [`Target::check`], and if the system cannot sync or rename the file. The temporary file is then removed, and what
    /// was at the target is unchanged.
    pub fn finish(self) -> Result<PathBuf, FileError> {
        let Self { file, target, kind } = self;
        let refused = FileError::write(target.path());
        if kind.is_synced() {
            file.as_file().sync_all().map_err(&refused)?;
        }
        let place = target.check(kind)?;
        copy_permissions(&place, file.as_file()).map_err(&refused)?;
        file.persist(place).map_err(|error| refused(error.error))?;
        Ok(target.path().to_path_buf())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

impl Seek for WholeFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.as_file_mut().seek(to)
    }
}

/// Writes a file through a buffer; it appears under its name only when it is complete. Returns the target's name.
///
/// ```
/// use std::io::Write;
///
/// use dinov2_files::{Kind, write_whole};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("list.txt");
/// write_whole(&path, Kind::Text, |file| (1..=3).try_for_each(|line| writeln!(file, "{line}"))).unwrap();
/// assert_eq!(std::fs::read(&path).unwrap(), b"1\n2\n3\n");
/// ```
///
/// # Errors
/// As [`WholeFile::create`] and [`WholeFile::finish`], and any error of `write`.
pub fn write_whole(
    target: impl Into<Target>,
    kind: Kind,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<PathBuf, FileError> {
    let mut whole = WholeFile::create(target, kind)?;
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, whole.file.as_file_mut());
    let written = write(&mut writer).and_then(|()| writer.flush());
    // Without this, dropping the writer would try the rest of a failed write again.
    let _ = writer.into_parts();
    written.map_err(FileError::write(whole.target.path()))?;
    whole.finish()
}

/// Syncs a complete file and renames it. For partial files that must survive the process, such as downloads that are
/// resumed; use [`write_whole`] for everything else. What is at `to` is replaced without a check.
///
/// # Errors
/// If the system cannot open, sync or rename the file.
pub fn sync_and_rename(from: &Path, to: &Path) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(from)?;
    file.sync_all()?;
    copy_permissions(to, &file)?;
    fs::rename(from, to)
}

/// Gives `new` the permissions of the file at `old`, if there is one.
fn copy_permissions(old: &Path, new: &File) -> io::Result<()> {
    match fs::metadata(old) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) => set_permissions(new, &metadata.permissions()),
    }
}

/// Read, write and execute permissions. Set-user-ID and sticky bits are not copied, because the owner may be another one.
#[cfg(unix)]
fn set_permissions(file: &File, permissions: &fs::Permissions) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = permissions.mode() & 0o777;
    if file.metadata()?.permissions().mode() & 0o777 == mode {
        // Some file systems have no permissions and refuse to set any.
        return Ok(());
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Other systems have one permission here, read-only, with which the renamed file could not be replaced again.
#[cfg(not(unix))]
fn set_permissions(_: &File, _: &fs::Permissions) -> io::Result<()> {
    Ok(())
}

/// Without the random temporary name that `tempfile` adds to the message.
fn without_path(error: &io::Error) -> io::Error {
    io::Error::from(error.kind())
}
