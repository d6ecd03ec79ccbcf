//! The rule for outputs against a real file system.
#![cfg(unix)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use dinov2_files::{FileError, Inputs, Kind, Replace, Target, sync_and_rename, write_whole};

const NPY: &[u8] = b"\x93NUMPY\x01\0old";
const NEW: &[u8] = b"\x93NUMPY\x01\0new";

fn write(target: impl Into<Target>) -> Result<PathBuf, FileError> {
    write_whole(target, Kind::Npy, |file| file.write_all(NEW))
}

fn forced(path: &Path) -> Target {
    Target::new(path).replacing(Replace::AnyFile)
}

fn runs(program: &str, words: &[&str]) -> bool {
    Command::new(program).args(words).output().is_ok_and(|output| output.status.success())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn only_regular_files_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let word = |name: &str| path(name).to_string_lossy().into_owned();
    assert!(runs("mkfifo", &[&word("fifo")]), "mkfifo");
    let _socket = UnixListener::bind(path("socket")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    let mut cases = vec![("fifo", "a FIFO"), ("socket", "a socket"), ("folder", "a folder")];
    if runs("mknod", &[&word("null"), "c", "1", "3"]) {
        cases.push(("null", "a device"));
    } else {
        eprintln!("SKIPPED: a device node in a folder, as mknod is not permitted");
    }
    let before = names(folder.path());
    for (name, what) in cases {
        let link = path("link");
        symlink(path(name), &link).unwrap();
        for target in [Target::new(path(name)), forced(&path(name)), forced(&link)] {
            let error = write(target).unwrap_err();
            assert!(matches!(error, FileError::NotRegular { got, .. } if got == what), "{name}: {error}");
        }
        fs::remove_file(link).unwrap();
    }
    if let Ok(metadata) = fs::symlink_metadata(path("null")) {
        assert!(metadata.file_type().is_char_device());
    }
    assert_eq!(names(folder.path()), before);
}

#[test]
fn links_stay_and_what_they_point_to_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("below")).unwrap();
    fs::write(path("below/old"), NPY).unwrap();
    symlink("below/old", path("one")).unwrap();
    symlink("one", path("two")).unwrap();
    symlink("below/new", path("dangling")).unwrap();
    for (link, file) in [("two", "below/old"), ("dangling", "below/new")] {
        assert_eq!(write(&path(link)).unwrap(), path(link));
        assert!(path(link).is_symlink() && path("one").is_symlink());
        assert_eq!(fs::read(path(file)).unwrap(), NEW);
    }
    symlink("loop", path("loop")).unwrap();
    symlink("nowhere/file", path("nowhere_link")).unwrap();
    for name in ["loop", "nowhere_link"] {
        let error = write(forced(&path(name))).unwrap_err();
        assert!(matches!(error, FileError::Write { .. }), "{name}: {error}");
        assert!(path(name).is_symlink());
    }
    assert_eq!(names(folder.path()), ["below", "dangling", "loop", "nowhere_link", "one", "two"]);
    assert_eq!(names(&path("below")), ["new", "old"]);
}

#[test]
fn an_input_is_never_replaced_under_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("input"), NPY).unwrap();
    fs::create_dir(path("below")).unwrap();
    fs::hard_link(path("input"), path("hard")).unwrap();
    symlink("input", path("soft")).unwrap();
    let inputs = Inputs::new([path("input"), path("no such file")]);
    for name in ["input", "hard", "soft", "below/../input", "./input"] {
        for target in [Target::new(path(name)), forced(&path(name))] {
            let error = write(target.never_over(&inputs)).unwrap_err();
            assert!(matches!(error, FileError::Input { .. }), "{name}: {error}");
        }
    }
    assert_eq!(fs::read(path("input")).unwrap(), NPY);
    assert_eq!(fs::metadata(path("input")).unwrap().nlink(), 2);
    assert_eq!(names(folder.path()), ["below", "hard", "input", "soft"]);
}

#[test]
fn files_of_other_kinds_only_by_force() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    for (old, taken) in [(NPY, true), (b"", true), (b"a letter\n", false), (b"\xFF\xD8\xFF\xE0", false)] {
        fs::write(&file, old).unwrap();
        match write(&file) {
            Ok(_) => assert!(taken, "{old:?}"),
            Err(error) => assert!(!taken && matches!(error, FileError::OtherKind { .. }), "{old:?}: {error}"),
        }
        assert_eq!(fs::read(&file).unwrap(), if taken { NEW } else { old });
        write(forced(&file)).unwrap();
        assert_eq!(fs::read(&file).unwrap(), NEW);
    }
    assert_eq!(names(folder.path()), ["file"]);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_new_file_has_the_permissions_of_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let (file, plain) = (folder.path().join("file"), folder.path().join("plain"));
    write(&file).unwrap();
    fs::write(&plain, "x").unwrap();
    assert_eq!(mode(&file), mode(&plain));
}

#[test]
fn a_replacing_file_has_the_permissions_of_the_one_that_it_replaces() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    symlink("file", path("link")).unwrap();
    for bits in [0o600, 0o444, 0o755, 0o4755] {
        fs::write(path("file"), NPY).unwrap();
        fs::set_permissions(path("file"), fs::Permissions::from_mode(bits)).unwrap();
        write(&path("link")).unwrap();
        assert_eq!(fs::read(path("file")).unwrap(), NEW);
        assert_eq!(mode(&path("file")), bits & 0o777, "{bits:o}");
        fs::remove_file(path("file")).unwrap();
    }
}

#[test]
fn a_partial_file_gets_its_name_and_the_permissions_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for old in [None, Some(0o600)] {
        fs::write(path("part"), NEW).unwrap();
        if let Some(bits) = old {
            fs::write(path("whole"), NPY).unwrap();
            fs::set_permissions(path("whole"), fs::Permissions::from_mode(bits)).unwrap();
        }
        let expected = old.unwrap_or_else(|| mode(&path("part")));
        sync_and_rename(&path("part"), &path("whole")).unwrap();
        assert_eq!(names(folder.path()), ["whole"]);
        assert_eq!(fs::read(path("whole")).unwrap(), NEW);
        assert_eq!(mode(&path("whole")), expected);
    }
    let error = sync_and_rename(&path("part"), &path("whole")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(fs::read(path("whole")).unwrap(), NEW);
}

/// A file system of 256 KiB, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let words = ["-t", "tmpfs", "-o", "size=256k", "none", &folder.path().to_string_lossy()];
        runs("mount", &words).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        runs("umount", &[&self.0.path().to_string_lossy()]);
    }
}

#[test]
fn on_a_full_disk_the_old_file_stays() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: a full disk, as mount is not permitted");
        return;
    };
    let file = disk.0.path().join("file");
    fs::write(&file, NPY).unwrap();
    // In one piece and in pieces below the size of the buffer.
    for piece in [1 << 20, 1 << 10] {
        let outcome = write_whole(&file, Kind::Npy, |writer| {
            (0..(1 << 20) / piece).try_for_each(|_| writer.write_all(&vec![1; piece]))
        });
        let error = outcome.unwrap_err();
        assert!(matches!(error, FileError::Write { .. }), "{error}");
        assert_eq!(fs::read(&file).unwrap(), NPY);
        assert_eq!(names(disk.0.path()), ["file"]);
    }
}
