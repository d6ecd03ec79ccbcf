//! Names of frames, from which their output files are named.
//!
//! Names depend on the set of inputs, not on their order, so that the files of one run cannot be confused with another's.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest name in bytes. File systems allow 255, including extension, number and the suffix of temporary names.
const MAX_NAME_BYTES: usize = 200;
/// Fewest digits of the number of a frame in a video.
const NUMBER_DIGITS: usize = 6;

/// An input to be named.
#[derive(Clone, Debug)]
pub(crate) enum Named {
    /// A file of one frame.
    Still(PathBuf),
    /// A file of many frames, whose names are followed by numbers.
    Video(PathBuf),
    /// A file that may be a still image or a video; this is known only when it is read.
    Animation(PathBuf),
    /// Not a file, such as `stdin`: its name, and text that distinguishes it from others of the same name.
    Stream(&'static str, String),
}

/// A name per input, and whether any differs from the plain names (the stems of the files).
///
/// If plain names are ambiguous, all inputs are named by their paths below the common folder, joined by `_`; if these are
/// ambiguous, with extensions; and if some are still ambiguous (case, characters that are replaced), these get a hash of
/// their path.
pub(crate) fn plan(inputs: &[Named]) -> (Vec<String>, bool) {
    let plain: Vec<String> = inputs.iter().map(|input| input.plain()).collect();
    if !are_ambiguous(inputs, &plain).contains(&true) {
        return (plain, false);
    }
    let paths = below_common_folder(inputs);
    let by_path = |with_extension: bool| -> Vec<String> {
        let names = inputs.iter().zip(&paths).map(|(input, path)| match path {
            None => input.plain(),
            Some(path) if with_extension => name_of_path(path),
            Some(path) => name_of_path(&path.with_extension("")),
        });
        names.collect()
    };
    let mut names = by_path(false);
    if are_ambiguous(inputs, &names).contains(&true) {
        names = by_path(true);
    }
    for (index, is_ambiguous) in are_ambiguous(inputs, &names).into_iter().enumerate() {
        if is_ambiguous {
            let name = shortened(&names[index]);
            names[index] = format!("{name}~{:08x}", hash(&inputs[index].words(paths[index].as_deref())));
        }
    }
    number_repeated(&mut names);
    (names, true)
}

impl Named {
    fn plain(&self) -> String {
        match self {
            Self::Still(path) | Self::Video(path) | Self::Animation(path) => {
                path.file_stem().map_or_else(|| "frame".into(), name_of)
            }
            Self::Stream(name, _) => (*name).into(),
        }
    }

    fn words(&self, path: Option<&Path>) -> Vec<u8> {
        match (self, path) {
            (Self::Stream(_, words), _) => words.clone().into_bytes(),
            (_, path) => path.map(|path| path.as_os_str().as_encoded_bytes().to_vec()).unwrap_or_default(),
        }
    }

    /// Whether names of frames are numbered; an animation may have either.
    fn numbered(&self) -> &'static [bool] {
        match self {
            Self::Still(_) => &[false],
            Self::Video(_) | Self::Stream(..) => &[true],
            Self::Animation(_) => &[false, true],
        }
    }
}

/// A file name from any text: separators and control characters become `_`; a name that is too long is cut and gets a hash.
pub(crate) fn name_of(words: &OsStr) -> String {
    let plain = |character: char| match character {
        '/' | '\\' => '_',
        character if character.is_control() => '_',
        character => character,
    };
    let name: String = words.to_string_lossy().chars().map(plain).collect();
    match name.as_str() {
        "" => "frame".into(),
        _ if name.len() <= MAX_NAME_BYTES => name,
        _ => format!("{}~{:08x}", shortened(&name), hash(words.as_encoded_bytes())),
    }
}

fn name_of_path(path: &Path) -> String {
    name_of(path.as_os_str())
}

/// Leaves room for a hash.
fn shortened(name: &str) -> &str {
    let mut end = name.len().min(MAX_NAME_BYTES - 9);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// FNV-1a of 64 bits, folded: short, and the same on every machine.
fn hash(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as u32
}

/// Which names are also those of another input, or could be those of its frames. An image and a video may share a name,
/// because frames of videos are numbered. Case is ignored, as some file systems do.
fn are_ambiguous(inputs: &[Named], names: &[String]) -> Vec<bool> {
    let keys: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    let mut counts: HashMap<(bool, &str), usize> = HashMap::new();
    for (input, key) in inputs.iter().zip(&keys) {
        for &numbered in input.numbered() {
            *counts.entry((numbered, key)).or_default() += 1;
        }
    }
    let like_a_frame = |key: &str| {
        let numbered = key.rsplit_once('_').filter(|(_, number)| {
            number.len() >= NUMBER_DIGITS && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        numbered.is_some_and(|(stem, _)| counts.contains_key(&(true, stem)))
    };
    let is_ambiguous = |input: &Named, key: &str| {
        input
            .numbered()
            .iter()
            .any(|&numbered| counts[&(numbered, key)] > 1 || (!numbered && like_a_frame(key)))
    };
    inputs.iter().zip(&keys).map(|(input, key)| is_ambiguous(input, key)).collect()
}

/// Numbers an input that is given several times. Its frames are equal each time, so the order does not matter.
fn number_repeated(names: &mut [String]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for name in names {
        let times = seen.entry(name.clone()).or_default();
        *times += 1;
        if *times > 1 {
            *name = format!("{name}~{times}");
        }
    }
}

/// The paths of files below the deepest folder that holds all of them; links and `..` in folders are resolved.
fn below_common_folder(inputs: &[Named]) -> Vec<Option<PathBuf>> {
    let mut folders: HashMap<PathBuf, PathBuf> = HashMap::new();
    let whole: Vec<Option<PathBuf>> = inputs
        .iter()
        .map(|input| match input {
            Named::Still(path) | Named::Video(path) | Named::Animation(path) => {
                let folder = dinov2_files::folder_of(path).to_path_buf();
                let real = folders
                    .entry(folder)
                    .or_insert_with_key(|folder| fs::canonicalize(folder).unwrap_or_else(|_| folder.clone()));
                Some(real.join(path.file_name().unwrap_or_default()))
            }
            Named::Stream(..) => None,
        })
        .collect();
    let mut parents = whole.iter().flatten().filter_map(|path| path.parent());
    let mut common = parents.next().map(Path::to_path_buf).unwrap_or_default();
    for parent in parents {
        while !parent.starts_with(&common) && common.pop() {}
    }
    let below = |path: PathBuf| path.strip_prefix(&common).map(Path::to_path_buf).unwrap_or(path);
    whole.into_iter().map(|path| path.map(below)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn names(inputs: &[Named]) -> Vec<String> {
        plan(inputs).0
    }

    fn stills(paths: &[&str]) -> Vec<Named> {
        paths.iter().map(|path| Named::Still(path.into())).collect()
    }

    #[test]
    fn stems_where_they_are_enough() {
        assert_eq!(plan(&stills(&["x/a.png", "y/b.jpg"])), (vec!["a".into(), "b".into()], false));
    }

    #[test]
    fn folders_then_extensions_then_hashes_tell_inputs_apart() {
        let folders = stills(&["/in/mon/1.png", "/in/mon/1_2.png", "/in/tue/1.png"]);
        assert_eq!(names(&folders), ["mon_1", "mon_1_2", "tue_1"]);
        assert_eq!(names(&stills(&["/in/1.png", "/in/1.jpg"])), ["1.png", "1.jpg"]);
        assert_eq!(names(&stills(&["/in/a/b_c.png", "/in/a_b/c.png", "/x/c.png"])).len(), 3);
        let cases = names(&stills(&["/in/A.png", "/in/a.png"]));
        assert!(cases[0].starts_with("A.png~") && cases[1].starts_with("a.png~"), "{cases:?}");
        assert_ne!(cases[0][6..], cases[1][6..]);
        let joined = names(&stills(&["/in/a/b_c.png", "/in/a_b/c.png", "/in/a/b/c.png"]));
        let different: HashSet<&String> = joined.iter().collect();
        assert_eq!(different.len(), 3, "{joined:?}");
    }

    #[test]
    fn the_order_of_inputs_does_not_matter() {
        let mut inputs = stills(&["/i/a/1.png", "/i/b/1.png", "/i/b/1.jpg", "/i/A/1.png", "/i/b_1.png"]);
        inputs.push(Named::Video("/i/b.mp4".into()));
        let forward = names(&inputs);
        let different: HashSet<&String> = forward.iter().collect();
        assert_eq!(different.len(), inputs.len(), "{forward:?}");
        inputs.reverse();
        let backward: Vec<String> = names(&inputs).into_iter().rev().collect();
        assert_eq!(forward, backward);
    }

    #[test]
    fn an_image_and_a_video_may_share_a_name() {
        let inputs = [Named::Video("/i/cat.mjpeg".into()), Named::Still("/i/cat.jpg".into())];
        assert_eq!(plan(&inputs), (vec!["cat".into(), "cat".into()], false));
        let animation = Named::Animation("/i/cat.gif".into());
        for other in inputs {
            assert!(plan(&[animation.clone(), other]).1);
        }
    }

    #[test]
    fn an_image_is_not_taken_for_a_frame_of_a_video() {
        let inputs = [Named::Video("/i/clip.mp4".into()), Named::Still("/i/clip_000001.png".into())];
        assert_eq!(names(&inputs), ["clip.mp4", "clip_000001.png"]);
        let patterns = ["28x28", "56x56", "56x56"].map(|words| Named::Stream("test", words.into()));
        let patterns = names(&patterns);
        assert!(patterns[0] != patterns[1] && patterns[2] == format!("{}~2", patterns[1]), "{patterns:?}");
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        for (words, name) in [("a\nb", "a_b"), ("/etc/x", "_etc_x"), ("..", ".."), ("", "frame")] {
            assert_eq!(name_of(OsStr::new(words)), name);
        }
        let long = name_of(OsStr::new(&"é".repeat(150)));
        assert!(long.len() <= MAX_NAME_BYTES && long.contains('~'), "{long}");
    }
}
