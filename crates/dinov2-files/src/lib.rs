//! Output files: what may be replaced, and atomic writing.
//!
//! What may be replaced, for every output of every command:
//! - An output is a new name or a regular file. A folder, device, FIFO or socket is refused.
//! - A symbolic link is followed: the file that it points to is replaced, the link stays.
//! - An input of the same command is never replaced, under any of its names or links.
//! - A file of another [`Kind`] is replaced only with [`Replace::AnyFile`] (`--force`). An empty file counts as any kind.
//!
//! [`Target::check`] applies these rules before the work begins, and [`WholeFile::finish`] again before the rename. Between
//! this second check and the rename another process can still create a file.
//!
//! How a file is written ([`write_whole`], [`WholeFile`]):
//! - It is written under a temporary name in the same folder and renamed. Other programs see the old file or the new one,
//!   never a part.
//! - It is synced before the rename, so a power failure leaves the old file or the new one. The folder is not synced: the
//!   rename may be lost. Files that are written once per frame ([`Kind::Features`], [`Kind::Npy`], [`Kind::Picture`]) are
//!   not synced, because a sync can take longer than the frame: after a power failure they may be empty.
//! - A new file has the permissions that the umask gives. A file that replaces another has the other's permissions.
//!
//! ```
//! use std::io::Write;
//!
//! use dinov2_files::{FileError, Kind, Replace, Target, write_whole};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let target = Target::new(folder.path().join("report.txt"));
//! std::fs::write(target.path(), b"\x89PNG\r\n\x1a\n").unwrap();
//! let write = |target: &Target| write_whole(target, Kind::Text, |file| file.write_all(b"cosine 0.99\n"));
//! assert!(matches!(write(&target), Err(FileError::OtherKind { .. })));
//! write(&target.replacing(Replace::AnyFile)).unwrap();
//! ```

mod chain;
mod error;
mod kind;
mod shown;
mod target;
mod whole_file;

pub use chain::chain;
pub use error::FileError;
pub use kind::Kind;
pub use shown::{hex_unless_utf8, shown};
pub use target::{Inputs, Replace, Target, folder_of};
pub use whole_file::{WholeFile, sync_and_rename, write_whole};
