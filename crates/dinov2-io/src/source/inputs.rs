//! Expands the inputs of a user to a list of files and streams, and recognises the kind of each file by content.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::bag::{self, Recordings};
use super::natural_order::sort_naturally;
use super::still::supported_format;
use super::{animation, heif, y4m};
use crate::SourceError;
use crate::limits::MAX_LISTED_FILES;
use crate::names::Named;

/// One input to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// An image file.
    Still(PathBuf),
    /// A GIF, WebP or PNG of several frames.
    Animation(PathBuf),
    /// A y4m file.
    Y4m(PathBuf),
    /// A file of concatenated JPEGs.
    Mjpeg(PathBuf),
    /// A recording: a file, or a folder and the files in it.
    Recording { path: PathBuf, files: Vec<PathBuf> },
    /// A file for ffmpeg.
    Video(PathBuf),
    /// A named pipe or a device that is read like standard input.
    Pipe(PathBuf),
    /// Standard input.
    Stdin,
    /// The moving pattern, with what follows `test:`.
    Pattern(String),
}

impl Input {
    /// True for inputs of one frame.
    pub(crate) fn is_still(&self) -> bool {
        matches!(self, Self::Still(_))
    }

    /// The file or device, where there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Still(path) | Self::Animation(path) | Self::Y4m(path) | Self::Mjpeg(path) => Some(path),
            Self::Recording { path, .. } | Self::Video(path) | Self::Pipe(path) => Some(path),
            Self::Stdin | Self::Pattern(_) => None,
        }
    }

    /// Every file that is read of it.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Recording { files, .. } => files.clone(),
            other => other.path().map(Path::to_path_buf).into_iter().collect(),
        }
    }

    /// The input for naming its frames.
    pub(crate) fn named(&self) -> Named {
        match self {
            Self::Still(path) if has_extension(path, &ANIMATION_EXTENSIONS) => Named::Animation(path.clone()),
            Self::Still(path) => Named::Still(path.clone()),
            Self::Animation(path) => Named::Animation(path.clone()),
            Self::Y4m(path) | Self::Mjpeg(path) | Self::Video(path) => Named::Video(path.clone()),
            Self::Pipe(path) | Self::Recording { path, .. } => Named::Video(path.clone()),
            Self::Stdin => Named::Stream("stdin", String::new()),
            Self::Pattern(words) => Named::Stream("test", words.clone()),
        }
    }
}

const IMAGE_EXTENSIONS: [&str; 20] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "gif", "tif", "tiff", "pnm", "ppm", "pgm", "pbm",
    "qoi", "heic", "heif", "hif", "heix", "avif",
];
/// Those of images that may be animated.
const ANIMATION_EXTENSIONS: [&str; 3] = ["gif", "webp", "apng"];
const MJPEG_EXTENSIONS: [&str; 3] = ["mjpg", "mjpeg", "mjpe"];
const VIDEO_EXTENSIONS: [&str; 26] = [
    "mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "mts", "m2ts", "mpg", "mpeg", "wmv", "asf", "flv",
    "ogv", "3gp", "h264", "264", "h265", "265", "hevc", "ivf", "vob", "mxf", "nut", "dv",
];

/// First bytes of an MCAP file: its specification, "File Structure".
const MCAP_MAGIC: &[u8] = b"\x89MCAP0\r\n";

/// Bytes read to recognise the kind of a file: one packet of an MPEG transport stream and the start of the next.
const HEAD_BYTES: u64 = 192;

/// Expands folders and globs, and recognises the kind of each file by content. Files that are left out are noted.
pub(crate) fn expand(
    inputs: &[impl AsRef<OsStr>],
    notes: &mut Vec<String>,
) -> Result<Vec<Input>, SourceError> {
    let mut expanded = Vec::new();
    for input in inputs {
        let path = Path::new(input);
        // A name that is not UTF-8 can only be that of a file.
        let words = path.to_str().unwrap_or_default();
        if words == "-" {
            expanded.push(Input::Stdin);
        } else if let Some(words) = words.strip_prefix("test:") {
            expanded.push(Input::Pattern(words.to_string()));
        } else if path.is_dir() {
            let recordings = recordings(path, notes)?;
            if recordings.is_empty() {
                expanded.extend(list_folder(path, notes)?);
            }
            expanded.extend(recordings);
        } else if words.contains(['*', '?', '[']) && !path.exists() {
            expand_glob(words, &mut expanded, notes)?;
        } else {
            expanded.push(classify(path)?);
        }
    }
    if expanded.is_empty() {
        return Err(SourceError::Input {
            expected: "at least one image or video".into(),
            got: "none".into(),
        });
    }
    Ok(expanded)
}

/// The recordings of a folder that is a bag or contains only recordings. Other files are noted.
fn recordings(path: &Path, notes: &mut Vec<String>) -> Result<Vec<Input>, SourceError> {
    Ok(match bag::recordings_of(path)? {
        None => Vec::new(),
        Some(Recordings::Bag(files)) => vec![Input::Recording { path: path.to_path_buf(), files }],
        Some(Recordings::Loose(files)) => {
            let count = files.len();
            notes.push(format!(
                "{}: no metadata.yaml, so its {count} recordings are read one by one, in the order of their names",
                path.display()
            ));
            files.into_iter().map(|path| Input::Recording { files: vec![path.clone()], path }).collect()
        }
    })
}

/// The kind of a path.
fn classify(path: &Path) -> Result<Input, SourceError> {
    let metadata = fs::metadata(path).map_err(SourceError::read(path.display()))?;
    if path.starts_with("/dev")
        && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("video"))
    {
        return Err(SourceError::Input {
            expected: "an image, video, folder, -, or test: (a camera is given by --camera)".into(),
            got: path.display().to_string(),
        });
    }
    if !metadata.is_file() {
        return Ok(Input::Pipe(path.to_path_buf()));
    }
    if let Some(refused) = bag::refusal(path) {
        return Err(refused);
    }
    let kind = kind_of_file(path).map_err(SourceError::read(path.display()))?;
    kind.ok_or_else(|| SourceError::Input {
        expected: "an image (PNG, JPEG, WebP, BMP, GIF, TIFF, PNM, QOI, HEIC, AVIF), a video (y4m, MJPEG, or what ffmpeg reads) or a recording (MCAP)"
            .into(),
        got: path.display().to_string(),
    })
}

/// True for the extensions of image files.
pub(super) fn is_named_as_image(path: &Path) -> bool {
    has_extension(path, &IMAGE_EXTENSIONS)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|extension| extensions.contains(&extension.as_str()))
}

/// By content; by the extension only if the content is not recognised.
fn kind_of_file(path: &Path) -> std::io::Result<Option<Input>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    let path_buf = path.to_path_buf();
    let mjpeg = has_extension(path, &MJPEG_EXTENSIONS);
    Ok(Some(if head.starts_with(y4m::MAGIC) {
        Input::Y4m(path_buf)
    } else if head.starts_with(MCAP_MAGIC) {
        Input::Recording { files: vec![path_buf.clone()], path: path_buf }
    } else if mjpeg && !is_video_container(&head) {
        Input::Mjpeg(path_buf)
    } else if supported_format(&head).is_some() {
        match animation::is_animated(BufReader::new(File::open(path)?)) {
            true => Input::Animation(path_buf),
            false => Input::Still(path_buf),
        }
    } else if heif::is_photograph(&head) {
        Input::Still(path_buf)
    } else if is_video_container(&head) || has_extension(path, &VIDEO_EXTENSIONS) {
        Input::Video(path_buf)
    } else if has_extension(path, &IMAGE_EXTENSIONS) {
        Input::Still(path_buf)
    } else {
        return Ok(None);
    }))
}

/// First bytes of MP4/MOV, Matroska/WebM, AVI, FLV, Ogg, ASF, MPEG program and transport streams.
fn is_video_container(head: &[u8]) -> bool {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let mp4 = [b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"].iter().any(|name| at(4, *name));
    let riff = at(0, b"RIFF") && at(8, b"AVI ");
    let transport = at(0, b"G") && at(188, b"G");
    let plain: [&[u8]; 6] =
        [b"\x1A\x45\xDF\xA3", b"FLV\x01", b"OggS", b"\x30\x26\xB2\x75", b"\0\0\x01\xBA", b"\0\0\x01\xB3"];
    mp4 || riff || transport || plain.iter().any(|magic| at(0, magic))
}

/// The files of a folder by kind, in natural order, without subfolders.
#[derive(Default)]
struct Folder {
    images: Vec<PathBuf>,
    videos: Vec<Input>,
    others: Vec<PathBuf>,
}

fn read_folder(folder: &Path) -> Result<Folder, SourceError> {
    let read = |error| SourceError::read(folder.display())(error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        // A broken link counts as an image by its name; reading it is an error later.
        let is_broken_link = path.is_symlink() && !path.exists();
        if !hidden && (path.is_file() || is_broken_link) {
            check_count(paths.len(), folder)?;
            paths.push(path);
        }
    }
    sort_naturally(&mut paths);
    let mut sorted = Folder::default();
    for path in paths {
        // Folders of images are large, so a file whose name gives the kind is not opened here.
        if has_extension(&path, &IMAGE_EXTENSIONS) {
            sorted.images.push(path);
            continue;
        }
        match kind_of_file(&path) {
            Ok(Some(Input::Still(path) | Input::Animation(path))) => sorted.images.push(path),
            Ok(Some(video)) => sorted.videos.push(video),
            Ok(None) | Err(_) => sorted.others.push(path),
        }
    }
    Ok(sorted)
}

/// The images of a folder, or its videos if it has no images. A single clip among images does not make the folder a video;
/// files that are left out are noted.
fn list_folder(folder: &Path, notes: &mut Vec<String>) -> Result<Vec<Input>, SourceError> {
    let Folder { images, videos, others } = read_folder(folder)?;
    let name = |path: Option<&Path>| {
        path.and_then(Path::file_name).map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    if images.is_empty() && videos.is_empty() {
        return Err(SourceError::Input {
            expected: "a folder with images or videos".into(),
            got: format!("none among {} files in {}", others.len(), folder.display()),
        });
    }
    let folder = folder.display();
    if let (false, Some(video)) = (images.is_empty(), videos.first()) {
        notes.push(format!(
            "{folder}: ignored {} videos beside the images, such as {} (videos are read if given by path or glob)",
            videos.len(),
            name(video.path())
        ));
    }
    if !others.is_empty() {
        notes.push(format!(
            "{folder}: ignored {} files that are neither images nor videos, such as {}",
            others.len(),
            name(others.first().map(PathBuf::as_path))
        ));
    }
    Ok(if images.is_empty() { videos } else { images.into_iter().map(Input::Still).collect() })
}

/// Images of a folder in natural order, without those of its subfolders. Animations count as images.
///
/// # Errors
/// A folder that cannot be read, holds no images, or more files than [`crate::limits`] allow.
pub fn list_images(folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let Folder { images, videos, others } = read_folder(folder)?;
    if images.is_empty() {
        return Err(SourceError::Input {
            expected: "a folder with images".into(),
            got: format!("none among {} files in {}", videos.len() + others.len(), folder.display()),
        });
    }
    Ok(images)
}

fn expand_glob(pattern: &str, expanded: &mut Vec<Input>, notes: &mut Vec<String>) -> Result<(), SourceError> {
    let files = list_glob(pattern)?;
    let (found, before) = (files.len(), expanded.len());
    for path in files {
        if let Some(refused) = bag::refusal(&path) {
            return Err(refused);
        }
        match kind_of_file(&path).map_err(SourceError::read(path.display()))? {
            Some(input) => expanded.push(input),
            None => notes.push(format!("{}: ignored, neither image nor video", path.display())),
        }
    }
    if expanded.len() == before {
        return Err(wrong_glob(format!("{pattern:?}, which matches none among {found} files")));
    }
    Ok(())
}

/// Files of any kind that match a pattern (`*`, `?`, `[…]`, `**`), in natural order. The list may be empty.
///
/// # Errors
/// If the pattern is invalid, a folder cannot be read, or there are more files than [`crate::limits`] allows.
pub fn list_glob(pattern: &str) -> Result<Vec<PathBuf>, SourceError> {
    let paths = glob::glob(pattern).map_err(|error| wrong_glob(format!("{pattern:?} ({})", error.msg)))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| {
            let path = error.path().display().to_string();
            SourceError::Read { source: error.into(), path }
        })?;
        if path.is_file() {
            check_count(files.len(), &path)?;
            files.push(path);
        }
    }
    sort_naturally(&mut files);
    Ok(files)
}

fn wrong_glob(got: String) -> SourceError {
    SourceError::Input { expected: "a path or glob of images and videos".into(), got }
}

fn check_count(count: usize, path: &Path) -> Result<(), SourceError> {
    if count < MAX_LISTED_FILES {
        return Ok(());
    }
    Err(SourceError::Input {
        expected: format!("at most {MAX_LISTED_FILES} files"),
        got: format!("more in {}", path.display()),
    })
}
