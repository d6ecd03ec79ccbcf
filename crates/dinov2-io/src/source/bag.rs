//! ROS bags: folders with a `metadata.yaml` and recordings. Older kinds (SQLite, ROS 1) are recognised and refused.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::inputs::is_named_as_image;
use super::natural_order::natural_order;
use crate::SourceError;
use crate::limits::{MAX_BAG_METADATA_BYTES, MAX_LISTED_FILES};

const METADATA: &str = "metadata.yaml";
/// First key of a bag's `metadata.yaml`.
const METADATA_KEY: &str = "rosbag2_bagfile_information:";
const FILES_KEY: &str = "relative_file_paths:";

const ROS1_MAGIC: &[u8] = b"#ROSBAG V";

/// The recordings of a folder.
#[derive(Debug)]
pub(super) enum Recordings {
    /// The files of one bag, in the order of their times.
    Bag(Vec<PathBuf>),
    /// Files without a `metadata.yaml`, which would say that they belong together, in the order of their names.
    Loose(Vec<PathBuf>),
}

/// The recordings of a folder. None if it is not a bag and has no recordings, or has images too.
///
/// # Errors
/// A bag of SQLite or ROS 1 files, of files that are compressed whole, or without those that its `metadata.yaml` names.
pub(super) fn recordings_of(folder: &Path) -> Result<Option<Recordings>, SourceError> {
    let metadata = read_metadata(&folder.join(METADATA)).map_err(SourceError::read(folder.display()))?;
    let Some(metadata) = metadata else {
        let files = list(folder)?;
        let refused = files.iter().find_map(|path| refusal(path));
        return match refused {
            Some(refused) => Err(refused),
            None => Ok((!files.is_empty()).then_some(Recordings::Loose(files))),
        };
    };
    // Older versions put the folder's name before those of its files.
    let named = files_of(&metadata);
    let names = named.iter().filter_map(|name| Path::new(name).file_name());
    let files: Vec<_> = names.map(|name| folder.join(name)).collect();
    if let Some(refused) = files.iter().find_map(|path| refusal(path)) {
        return Err(refused);
    }
    let wrong = |got: String| {
        let expected = format!("a bag with the recordings that its {METADATA} names");
        SourceError::Input { expected, got: format!("{got} in {}", folder.display()) }
    };
    match files.iter().zip(&named).find(|(path, _)| !path.is_file()) {
        Some((_, absent)) => Err(wrong(format!("no {absent}"))),
        None if files.is_empty() => Err(wrong("no names".into())),
        None => Ok(Some(Recordings::Bag(files))),
    }
}

/// The text of a bag's metadata; None if there is none or it belongs to something else.
fn read_metadata(path: &Path) -> std::io::Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_BAG_METADATA_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(text.lines().any(|line| line.trim_end() == METADATA_KEY).then_some(text))
}

/// The items of `relative_file_paths`, which rosbag2 writes as a block sequence (`- name`) or, empty, as `[]`.
fn files_of(metadata: &str) -> Vec<String> {
    let lines = metadata.lines().skip_while(|line| line.trim() != FILES_KEY).skip(1);
    let items = lines.map_while(|line| line.trim().strip_prefix("- "));
    items.map(|item| item.trim().trim_matches(['"', '\'']).to_string()).take(MAX_LISTED_FILES).collect()
}

/// The recordings of a folder without metadata, which a recorder writes at its end only; none if there are images.
fn list(folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let read = |error| SourceError::read(folder.display())(error);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if is_named_as_image(&path) {
            return Ok(Vec::new());
        }
        if files.len() < MAX_LISTED_FILES && kind_of(&path).is_some() && path.is_file() {
            files.push(path);
        }
    }
    files.sort_by(|left, right| natural_order(&left.to_string_lossy(), &right.to_string_lossy()));
    Ok(files)
}

/// Storage of a bag's file, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BagFile {
    Mcap,
    Sqlite,
    Ros1,
    /// Any of them inside a compressed file.
    Compressed,
}

fn kind_of(path: &Path) -> Option<BagFile> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let ends = |end: &str| name.ends_with(end);
    if ends(".mcap") {
        Some(BagFile::Mcap)
    } else if ends(".db3") {
        Some(BagFile::Sqlite)
    } else if ends(".bag") {
        Some(BagFile::Ros1)
    } else {
        (ends(".mcap.zstd") || ends(".db3.zstd") || ends(".mcap.zst") || ends(".db3.zst"))
            .then_some(BagFile::Compressed)
    }
}

/// Why a file is refused, if it belongs to a bag of a kind that is not read.
pub(super) fn refusal(path: &Path) -> Option<SourceError> {
    let kind = match kind_of(path)? {
        BagFile::Mcap => return None,
        BagFile::Sqlite => "a ROS 2 bag in SQLite (.db3)",
        BagFile::Ros1 if has_magic(path, ROS1_MAGIC) => "a ROS 1 bag (.bag)",
        BagFile::Ros1 => return None,
        BagFile::Compressed => "a file of a ROS 2 bag that is compressed whole",
    };
    let source = match path.parent() {
        // A file of a ROS 2 bag is converted with its folder.
        Some(folder) if kind_of(path) != Some(BagFile::Ros1) && folder.join(METADATA).is_file() => folder,
        _ => path,
    };
    let source = source.display();
    Some(SourceError::Input {
        expected: format!(
            "a recording in MCAP (pip install rosbags, then rosbags-convert --src {source} --dst NEW --dst-storage mcap; or ros2 bag convert)"
        ),
        got: format!("{kind}: {}", path.display()),
    })
}

fn has_magic(path: &Path, magic: &[u8]) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(magic.len() as u64).read_to_end(&mut head));
    read.is_ok() && head == magic
}
