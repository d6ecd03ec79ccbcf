//! From what a user names to a list of images.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use dinov2_io::{list_glob, natural_order};
#[cfg(feature = "object-store")]
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

#[cfg(feature = "object-store")]
use super::remote;
use super::{DataError, manifest, shard};

/// Extensions by which images are found in folders, globs and archives; what is named itself need not have one.
const IMAGE_EXTENSIONS: [&str; 15] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "gif", "tif", "tiff", "pnm", "ppm", "pgm", "pbm",
    "qoi",
];
/// Most images of a dataset: batches count them in 32 bits, and each takes some 100 bytes of memory.
const MAX_SAMPLES: usize = 1 << 28;
/// Most shards that braces, or the address of a folder, may name.
pub(super) const MAX_SHARDS: u64 = 1 << 20;
/// Threads that index shards in stores: they wait for answers most of the time.
#[cfg(feature = "object-store")]
const INDEXING_THREADS: usize = 32;
/// Deepest folder within a folder.
const MAX_DEPTH: usize = 64;

/// An encoded image.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Path, or `shard.tar!member`.
    pub(super) name: Box<str>,
    /// Size when it was listed.
    pub(super) bytes: u64,
    pub(super) place: Place,
}

#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A file whose path is its name.
    Named,
    /// A file whose path is no UTF-8.
    Path(Box<Path>),
    /// A part of a shard: its index in [`Found::shards`], and where it begins.
    Member { shard: u32, offset: u64 },
}

/// What the sources hold.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) shards: Vec<Shard>,
    #[cfg(feature = "object-store")]
    stores: remote::Stores,
}

/// An archive.
#[derive(Clone, Debug)]
pub(super) enum Shard {
    File(PathBuf),
    #[cfg(feature = "object-store")]
    Remote(remote::RemoteObject),
}

/// Whether a file name has the extension of an image.
pub(super) fn is_image_name(name: &str) -> bool {
    let extension = name.rsplit('/').next().unwrap_or(name).rsplit_once('.').map(|(_, extension)| extension);
    extension
        .is_some_and(|extension| IMAGE_EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted))
}

/// Lists the images of all sources, in their order.
pub(super) fn find(sources: &[String]) -> Result<Found, DataError> {
    let mut found = Found::default();
    for source in sources {
        if is_address(source) {
            found.add_address(source)?;
        } else if Path::new(source).exists() {
            found.add_path(Path::new(source))?;
        } else {
            let names = expand_braces(source)?;
            let paths = names.iter().map(|name| match_name(name)).collect::<Result<Vec<_>, _>>()?.concat();
            found.add_files(paths)?;
        }
    }
    if found.entries.is_empty() {
        let got =
            if sources.is_empty() { "no source".into() } else { format!("none in {}", sources.join(", ")) };
        return Err(DataError::Source { expected: "images".into(), got });
    }
    Ok(found)
}

/// Whether a name is an address in an object store, not a path.
pub(super) fn is_address(name: &str) -> bool {
    name.contains("://")
}

/// The files that a name without braces stands for.
fn match_name(name: &str) -> Result<Vec<PathBuf>, DataError> {
    if !name.contains(['*', '?', '[']) || Path::new(name).exists() {
        return Ok(vec![PathBuf::from(name)]);
    }
    let mut paths = list_glob(name)?;
    paths.retain(|path| !is_hidden(path) && is_wanted(path));
    Ok(paths)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// Whether a file that was found, not named, is of use.
fn is_wanted(path: &Path) -> bool {
    has_extension(path, "tar") || is_image_name(&path.to_string_lossy())
}

impl Found {
    fn add_path(&mut self, path: &Path) -> Result<(), DataError> {
        if !path.is_dir() {
            return self.add_files(vec![path.to_path_buf()]);
        }
        let mut paths = Vec::new();
        walk(path, 0, &mut HashSet::new(), &mut paths)?;
        let mut named: Vec<_> =
            paths.into_iter().map(|path| (path.to_string_lossy().into_owned(), path)).collect();
        named.sort_by(|left, right| natural_order(&left.0, &right.0));
        self.add_files(named.into_iter().map(|(_, path)| path).collect())
    }

    /// Files by their extension: shards are indexed, manifests read, anything else is an image.
    fn add_files(&mut self, paths: Vec<PathBuf>) -> Result<(), DataError> {
        let listed: Vec<_> = paths.into_par_iter().map(list_file).collect::<Result<_, _>>()?;
        for file in listed {
            match file {
                Listed::Image(entry) => self.entries.push(entry),
                Listed::Shard(path, members) => {
                    let label = path.display().to_string();
                    self.add_members(Shard::File(path), &label, members)?;
                }
                Listed::Manifest(path) => manifest::read(&path, self)?,
            }
        }
        self.check_count()
    }

    pub(super) fn check_count(&self) -> Result<(), DataError> {
        if self.entries.len() <= MAX_SAMPLES {
            return Ok(());
        }
        Err(DataError::Source { expected: format!("at most {MAX_SAMPLES} images"), got: "more".into() })
    }

    fn add_members(
        &mut self,
        shard: Shard,
        label: &str,
        members: Vec<shard::Located>,
    ) -> Result<(), DataError> {
        let index = self.add_shard(shard);
        self.entries.extend(members.into_iter().map(|member| Entry {
            name: format!("{label}!{}", member.name).into(),
            bytes: member.bytes,
            place: Place::Member { shard: index, offset: member.offset },
        }));
        self.check_count()
    }

    /// A shard by its path or its address; it is not looked into.
    pub(super) fn shard(&mut self, path: &Path) -> Result<Shard, DataError> {
        match path.to_str().filter(|name| is_address(name)) {
            Some(address) => self.remote_shard(address),
            None => Ok(Shard::File(path.to_path_buf())),
        }
    }

    /// The shard's index.
    pub(super) fn add_shard(&mut self, shard: Shard) -> u32 {
        self.shards.push(shard);
        u32::try_from(self.shards.len() - 1).expect("shards are capped")
    }
}

#[cfg(feature = "object-store")]
impl Found {
    fn add_address(&mut self, source: &str) -> Result<(), DataError> {
        let mut shards = Vec::new();
        for address in expand_braces(source)? {
            shards.extend(remote::shards(&mut self.stores, &address)?);
        }
        let threads = ThreadPoolBuilder::new().num_threads(INDEXING_THREADS.min(shards.len())).build();
        let threads = threads.map_err(|error| DataError::Source {
            expected: format!("{INDEXING_THREADS} threads that index shards"),
            got: error.to_string(),
        })?;
        let index = || shards.par_iter().map(remote::RemoteObject::images).collect::<Result<Vec<_>, _>>();
        for (shard, members) in shards.iter().zip(threads.install(index)?) {
            self.add_members(Shard::Remote(shard.clone()), shard.address(), members)?;
        }
        Ok(())
    }

    fn remote_shard(&mut self, address: &str) -> Result<Shard, DataError> {
        Ok(Shard::Remote(remote::shard(&mut self.stores, address)?))
    }
}

#[cfg(not(feature = "object-store"))]
impl Found {
    fn add_address(&mut self, source: &str) -> Result<(), DataError> {
        let expected = "a local path (this program was built without the feature object-store)".into();
        Err(DataError::Source { expected, got: source.to_string() })
    }

    fn remote_shard(&mut self, address: &str) -> Result<Shard, DataError> {
        self.add_address(address).map(|()| Shard::File(address.into()))
    }
}

enum Listed {
    Image(Entry),
    Shard(PathBuf, Vec<shard::Located>),
    Manifest(PathBuf),
}

fn list_file(path: PathBuf) -> Result<Listed, DataError> {
    if has_extension(&path, "jsonl") {
        return Ok(Listed::Manifest(path));
    }
    if has_extension(&path, "tar") {
        let label = path.display().to_string();
        let file = File::open(&path).map_err(DataError::read(&label))?;
        let members = shard::images(&mut BufReader::with_capacity(1024, file), &label)?;
        return Ok(Listed::Shard(path, members));
    }
    let bytes = fs::metadata(&path).map_err(DataError::read(path.display()))?.len();
    Ok(Listed::Image(Entry::of_file(&path, bytes)))
}

impl Entry {
    pub(super) fn of_file(path: &Path, bytes: u64) -> Self {
        let place = if path.to_str().is_some() { Place::Named } else { Place::Path(path.into()) };
        Self { name: path.to_string_lossy().into(), bytes, place }
    }
}

/// Images and shards below a folder. Hidden ones are left out; a folder that is reached twice, by a link, is walked once.
fn walk(
    folder: &Path,
    depth: usize,
    walked: &mut HashSet<PathBuf>,
    paths: &mut Vec<PathBuf>,
) -> Result<(), DataError> {
    let read = |error| DataError::read(folder.display())(error);
    if !walked.insert(folder.canonicalize().map_err(read)?) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if is_hidden(&path) {
            continue;
        }
        if path.is_dir() {
            if depth == MAX_DEPTH {
                let expected = format!("folders at most {MAX_DEPTH} deep");
                return Err(DataError::Source { expected, got: path.display().to_string() });
            }
            walk(&path, depth + 1, walked, paths)?;
        } else if is_wanted(&path) {
            paths.push(path);
        }
        if paths.len() > MAX_SAMPLES {
            let expected = format!("at most {MAX_SAMPLES} files");
            return Err(DataError::Source { expected, got: format!("more in {}", folder.display()) });
        }
    }
    Ok(())
}

/// `s-{000..012}.tar` as the names that it stands for; the digits of the first number say how wide all are.
pub(super) fn expand_braces(name: &str) -> Result<Vec<String>, DataError> {
    let Some((before, (range, after))) =
        name.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return Ok(vec![name.to_string()]);
    };
    let wrong = || DataError::Source {
        expected: format!(
            "braces of two numbers, such as {{000..012}}, that name at most {MAX_SHARDS} files"
        ),
        got: name.to_string(),
    };
    let (low, high) = range.split_once("..").ok_or_else(wrong)?;
    let number = |word: &str| -> Option<u64> {
        let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        word.parse().ok().filter(|_| digits)
    };
    let (first, last) = number(low).zip(number(high)).ok_or_else(wrong)?;
    let tails = expand_braces(after)?;
    let count = last.checked_sub(first).and_then(|span| span.checked_add(1)?.checked_mul(tails.len() as u64));
    if count.is_none_or(|count| count > MAX_SHARDS) {
        return Err(wrong());
    }
    let width = if low.starts_with('0') { low.len() } else { 0 };
    let heads = (first..=last).map(|number| format!("{before}{number:0width$}"));
    Ok(heads.flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}"))).collect())
}
