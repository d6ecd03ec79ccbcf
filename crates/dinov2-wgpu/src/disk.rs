//! What is kept between starts: a folder per device, driver and version of this crate.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use dinov2_files::Kind;

use crate::AdapterFacts;

/// A folder of small files. It is a cache: files that cannot be read are computed again, and failures to write are ignored.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn new(root: &Path, facts: &AdapterFacts) -> Self {
        let mut hasher = DefaultHasher::new();
        (&facts.name, &facts.driver, facts.api, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
        let plain =
            |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
        let name: String = facts.name.chars().take(24).map(plain).collect();
        Self { path: root.join(format!("{name}-{:016x}", hasher.finish())) }
    }

    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path.join(name)).ok()
    }

    /// Writes a file that no reader sees in part.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        fs::create_dir_all(&self.path)?;
        dinov2_files::write_whole(&self.path.join(name), Kind::Any, |file| file.write_all(bytes))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_back_for_the_same_device_and_driver_only() {
        let root = tempfile::tempdir().unwrap();
        let facts = AdapterFacts {
            name: "A GPU / 7".into(),
            driver: "1.0".into(),
            api: "vulkan",
            software: false,
            f16: true,
            cooperative_matrix: false,
        };
        let folder = Folder::new(root.path(), &facts);
        assert_eq!(folder.read("choices"), None);
        folder.write("choices", b"first").unwrap();
        folder.write("choices", b"second").unwrap();
        assert_eq!(Folder::new(root.path(), &facts).read("choices").as_deref(), Some(&b"second"[..]));
        assert_eq!(fs::read_dir(&folder.path).unwrap().count(), 1, "no temporary file stays");
        let newer = AdapterFacts { driver: "1.1".into(), ..facts };
        assert_eq!(Folder::new(root.path(), &newer).read("choices"), None);
        // A cache that cannot be written is no panic.
        let file = root.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(Folder::new(&file, &newer).write("choices", b"x").is_err());
    }
}
