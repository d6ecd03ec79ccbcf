//! The rules for replacing files (see the crate's documentation): [`Target`], [`Inputs`], [`Replace`].

use std::collections::HashSet;
use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::{FileError, Kind, shown};

/// Most links that are followed from a name to its file: the limit of Linux (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// What an output may replace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replace {
    /// A file of the same [`Kind`].
    #[default]
    SameKind,
    /// Any regular file that is not an input.
    AnyFile,
}

/// Files that a command reads. They are compared by device and inode, not by name. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Inputs(Arc<Named>);

#[derive(Debug, Default)]
struct Named {
    paths: Vec<PathBuf>,
    /// Filled for the first output that exists already: most are new, and a folder may hold a million inputs.
    identities: OnceLock<HashSet<Identity>>,
}

impl Inputs {
    /// Paths that do not exist, such as the name of a bundled model, are ignored.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(Arc::new(Named { paths: paths.into_iter().collect(), identities: OnceLock::new() }))
    }

    fn contain(&self, file: &Identity) -> bool {
        let all = self
            .0
            .identities
            .get_or_init(|| self.0.paths.iter().filter_map(|path| Identity::of(path).ok()).collect());
        all.contains(file)
    }
}

/// The same for all names of a file.
#[cfg(unix)]
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
}

#[cfg(unix)]
impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// The same for all names of a file but hard links.
#[cfg(not(unix))]
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity(PathBuf);

#[cfg(not(unix))]
impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        fs::canonicalize(path).map(Self)
    }
}

/// The name of an output and what may be replaced there. The rules are in the crate's documentation.
///
/// ```
/// use dinov2_files::{FileError, Inputs, Kind, Replace, Target};
///
/// let folder = tempfile::tempdir().unwrap();
/// let input = folder.path().join("weights.safetensors");
/// std::fs::write(&input, "").unwrap();
/// let inputs = Inputs::new([input.clone()]);
/// let target = Target::new(input).never_over(&inputs).replacing(Replace::AnyFile);
/// assert!(matches!(target.check(Kind::Model), Err(FileError::Input { .. })));
/// assert!(target.at(folder.path().join("new.safetensors")).check(Kind::Model).is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Target {
    path: PathBuf,
    inputs: Inputs,
    replace: Replace,
}

impl Target {
    /// No inputs; only a file of the same kind is replaced.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), inputs: Inputs::default(), replace: Replace::SameKind }
    }

    /// Refuses to replace these files.
    #[must_use]
    pub fn never_over(self, inputs: &Inputs) -> Self {
        Self { inputs: inputs.clone(), ..self }
    }

    /// Sets what may be replaced.
    #[must_use]
    pub fn replacing(self, replace: Replace) -> Self {
        Self { replace, ..self }
    }

    /// The same rules for another name.
    #[must_use]
    pub fn at(&self, path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..self.clone() }
    }

    /// The name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Applies the rules and returns the name behind all symbolic links. The temporary file belongs in its folder.
    ///
    /// # Errors
    /// If something that must not be replaced is there, or the folder does not exist.
    pub fn check(&self, kind: Kind) -> Result<PathBuf, FileError> {
        let path = || shown(&self.path);
        let refused = FileError::write(&self.path);
        let place = behind_links(&self.path).map_err(&refused)?;
        let folder = folder_of(&place);
        if !folder.is_dir() {
            return Err(FileError::write(folder)(io::Error::new(io::ErrorKind::NotFound, "no such folder")));
        }
        let metadata = match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(place),
            found => found.map_err(&refused)?,
        };
        if !metadata.is_file() {
            return Err(FileError::NotRegular { got: name_of(metadata.file_type()), path: path() });
        }
        if self.inputs.contain(&Identity::of(&place).map_err(&refused)?) {
            return Err(FileError::Input { path: path() });
        }
        if self.replace == Replace::AnyFile {
            return Ok(place);
        }
        match kind.differs_from(&place).map_err(&refused)? {
            None => Ok(place),
            Some((expected, got)) => Err(FileError::OtherKind { expected, got, path: path() }),
        }
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Self::new(path)
    }
}

impl From<&PathBuf> for Target {
    fn from(path: &PathBuf) -> Self {
        Self::new(path)
    }
}

impl From<&Target> for Target {
    fn from(target: &Target) -> Self {
        target.clone()
    }
}

/// The folder of a file: the path's parent, or `.` if it has none.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Follows symbolic links, also to a file that does not exist yet.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut place = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&place) {
            // An absolute link replaces the folder, a relative one starts from it.
            Ok(link) => place = folder_of(&place).join(link),
            // Not a link, or nothing there.
            Err(_) => return Ok(place),
        }
    }
    Err(io::Error::other(format!("expected at most {MAX_LINKS} symbolic links, got more")))
}

fn name_of(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
        if kind.is_fifo() {
            return "a FIFO";
        }
        if kind.is_socket() {
            return "a socket";
        }
    }
    if kind.is_dir() { "a folder" } else { "something else" }
}
