//! Lists the images of the sources that a user names.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use dinov2_io::{list_glob, natural_order};
#[cfg(feature = "object-store")]
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

#[cfg(not(feature = "object-store"))]
use super::listing::without_stores;
use super::listing::{Entry, Listing, MAX_SAMPLES, Place, Shard};
use super::names::{expand_braces, has_extension, is_address, is_hidden, is_wanted};
#[cfg(feature = "object-store")]
use super::remote;
use super::{DataError, manifest, shard};

/// Threads that index shards in stores; they mostly wait for answers.
#[cfg(feature = "object-store")]
const INDEXING_THREADS: usize = 32;
/// Deepest folder within a folder.
const MAX_DEPTH: usize = 64;

/// Lists the images of all sources, in their order.
pub(super) fn find(sources: &[String]) -> Result<Listing, DataError> {
    let mut found = Listing::default();
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
        return Err(DataError::Input { expected: "images".into(), got });
    }
    Ok(found)
}

/// The files of a name without braces.
fn match_name(name: &str) -> Result<Vec<PathBuf>, DataError> {
    if !name.contains(['*', '?', '[']) || Path::new(name).exists() {
        return Ok(vec![PathBuf::from(name)]);
    }
    let mut paths = list_glob(name)?;
    paths.retain(|path| !is_hidden(path) && is_wanted(path));
    Ok(paths)
}

impl Listing {
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
}

#[cfg(feature = "object-store")]
impl Listing {
    fn add_address(&mut self, source: &str) -> Result<(), DataError> {
        let mut shards = Vec::new();
        for address in expand_braces(source)? {
            shards.extend(remote::shards(&mut self.stores, &address)?);
        }
        let threads = ThreadPoolBuilder::new().num_threads(INDEXING_THREADS.min(shards.len())).build();
        let threads = threads.map_err(|error| DataError::Input {
            expected: format!("{INDEXING_THREADS} threads that index shards"),
            got: error.to_string(),
        })?;
        let index = || shards.par_iter().map(remote::RemoteObject::images).collect::<Result<Vec<_>, _>>();
        for (shard, members) in shards.iter().zip(threads.install(index)?) {
            self.add_members(Shard::Remote(shard.clone()), shard.address(), members)?;
        }
        Ok(())
    }
}

#[cfg(not(feature = "object-store"))]
impl Listing {
    fn add_address(&mut self, source: &str) -> Result<(), DataError> {
        Err(without_stores(source))
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
                return Err(DataError::Input { expected, got: path.display().to_string() });
            }
            walk(&path, depth + 1, walked, paths)?;
        } else if is_wanted(&path) {
            paths.push(path);
        }
        if paths.len() > MAX_SAMPLES {
            let expected = format!("at most {MAX_SAMPLES} files");
            return Err(DataError::Input { expected, got: format!("more in {}", folder.display()) });
        }
    }
    Ok(())
}
