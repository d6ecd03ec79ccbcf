use std::collections::HashSet;
use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::{FileError, Kind, shown};

/// Most links that are followed from a name to its file: Linux' own limit.
const MAX_LINKS: usize = 40;

/// What a file may take the place of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replace {
    /// A file of its own kind.
    #[default]
    SameKind,
    /// Any regular file that is no input.
    AnyFile,
}

/// Files that a command reads. They are compared by what they are, not by how they are called.
#[derive(Clone, Debug, Default)]
pub struct Inputs(Arc<Named>);

#[derive(Debug, Default)]
struct Named {
    paths: Vec<PathBuf>,
    /// Made for the first output that exists: most are new, and a folder may hold a million inputs.
    identities: OnceLock<HashSet<Identity>>,
}

impl Inputs {
    /// These files; what does not exist, such as the name of a bundled model, is no file.
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

/// What a file is under all of its names.
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

/// What a file is under its names but for hard links.
#[cfg(not(unix))]
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity(PathBuf);

#[cfg(not(unix))]
impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        fs::canonicalize(path).map(Self)
    }
}

/// Where a file is to be written, and what may be lost there. See the crate's documentation for the rule.
#[derive(Clone, Debug)]
pub struct Target {
    path: PathBuf,
    inputs: Inputs,
    replace: Replace,
}

impl Target {
    /// A name, without inputs; only a file of the same kind is replaced.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), inputs: Inputs::default(), replace: Replace::SameKind }
    }

    /// Never in the place of these.
    #[must_use]
    pub fn never_over(self, inputs: &Inputs) -> Self {
        Self { inputs: inputs.clone(), ..self }
    }

    /// In the place of what.
    #[must_use]
    pub fn replacing(self, replace: Replace) -> Self {
        Self { replace, ..self }
    }

    /// Another name under the same rule.
    #[must_use]
    pub fn at(&self, path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..self.clone() }
    }

    /// The name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Applies the rule and returns the name behind all links, in whose folder the file is to be made.
    ///
    /// # Errors
    /// What must not be replaced is there, or a folder that does not exist.
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

/// The folder that a file lies in.
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
            // No link, or nothing at all.
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
