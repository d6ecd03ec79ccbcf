use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;

use tempfile::NamedTempFile;

use crate::{FileError, Kind, Target, folder_of};

/// Bytes that [`write_whole`] collects before it asks the system.
const BUFFER_BYTES: usize = 1 << 18;

/// When a file counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it has its name: other programs see it whole; after a power failure it may be gone.
    Visible,
    /// Once the disk has it, and then its name.
    Synced,
}

/// A file in the making, under a temporary name beside its place. Dropped before [`Self::finish`], it leaves nothing.
#[derive(Debug)]
pub struct WholeFile {
    file: NamedTempFile,
    target: Target,
    kind: Kind,
}

impl WholeFile {
    /// An empty file with the permissions of an ordinary new one.
    ///
    /// # Errors
    /// As [`Target::check`], and what the system refuses.
    pub fn create(target: impl Into<Target>, kind: Kind) -> Result<Self, FileError> {
        let target = target.into();
        let place = target.check(kind)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".dinov2-").suffix(".part");
        // Temporary files are private by default; outputs are as readable as any other file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder_of(&place));
        let file = file.map_err(|error| FileError::write(target.path())(without_path(error)))?;
        Ok(Self { file, target, kind })
    }

    /// The name that it will have.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The temporary name, for programs that open files themselves.
    pub fn temporary(&self) -> &std::path::Path {
        self.file.path()
    }

    /// Applies the rule once more and gives the file its name, which is returned. Of two runs that write to one name the
    /// later one wins, with a whole file.
    ///
    /// # Errors
    /// As [`Target::check`], and what the system refuses; then nothing is left and what was there is as it was.
    pub fn finish(self, durability: Durability) -> Result<PathBuf, FileError> {
        let Self { file, target, kind } = self;
        let refused = FileError::write(target.path());
        if durability == Durability::Synced {
            file.as_file().sync_all().map_err(&refused)?;
        }
        let place = target.check(kind)?;
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

/// Writes a file that appears under its name only when it is whole; on any failure the temporary file is removed.
///
/// # Errors
/// As [`WholeFile::create`] and [`WholeFile::finish`].
pub fn write_whole(
    target: impl Into<Target>,
    kind: Kind,
    durability: Durability,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<PathBuf, FileError> {
    let mut whole = WholeFile::create(target, kind)?;
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, whole.file.as_file_mut());
    let written = write(&mut writer).and_then(|()| writer.flush());
    // What is left in the buffer of a failed write is not tried again.
    let _ = writer.into_parts();
    written.map_err(FileError::write(whole.target.path()))?;
    whole.finish(durability)
}

/// Without the random name that `tempfile` adds to the message.
fn without_path(error: io::Error) -> io::Error {
    io::Error::from(error.kind())
}
