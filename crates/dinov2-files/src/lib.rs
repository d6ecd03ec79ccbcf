//! Output files: what may be replaced, and how a file gets its name only when it is whole.
//!
//! The rule, for every output of every command:
//! - an output is a new name or a regular file; a folder, device, FIFO or socket is refused;
//! - a symbolic link is followed: what it points to is replaced, the link stays;
//! - an input of the same command is never replaced, however it is spelled or linked;
//! - a file of another kind is replaced only with [`Replace::AnyFile`] (`--force`); an empty file is of every kind.
//!
//! [`Target::check`] applies the rule before minutes of work are spent, and [`WholeFile::finish`] once more before the
//! rename. Between that and the rename itself another process can still create a file.

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
pub use whole_file::{Durability, WholeFile, write_whole};
