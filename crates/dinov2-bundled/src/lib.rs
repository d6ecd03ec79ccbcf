//! The model inside the program `dinov2-edge`: a ViT-S/14 with weights stored as int8, 24 MB. Its card is
//! `models/vits14-focus-int8.md`.
//!
//! This crate is not published: it is larger than a registry takes. Programs of others open a model file instead
//! ([`dinov2_weights::Model::open`]).
//!
//! ```
//! let model = dinov2_bundled::bundled_model()?;
//! assert_eq!(model.spec().name(), "ViT-S/14");
//! # Ok::<(), dinov2_weights::ModelError>(())
//! ```

use dinov2_weights::{Model, ModelError};

static BYTES: &[u8] = include_bytes!("../../../models/vits14-focus-int8.safetensors");

/// The model; on Linux its pages are those of the program's file.
///
/// # Errors
/// None that a user can cause: the bytes are a constant, and a test opens them.
pub fn bundled_model() -> Result<Model, ModelError> {
    let label = "the bundled model vits14-focus-int8";
    #[cfg(target_os = "linux")]
    if let Some(model) = program_file::open(BYTES, label) {
        return Ok(model);
    }
    Model::from_static(BYTES, label)
}

/// The bytes of a constant where the program's file has them. A model that is read from a file gives its pages back; one
/// that is read from the program's own memory would stay there beside the packed weights.
#[cfg(target_os = "linux")]
mod program_file {
    use std::ops::Range;

    use dinov2_weights::Model;

    const PROGRAM: &str = "/proc/self/exe";

    /// The model, if it is found where the program's memory map says.
    pub(super) fn open(bytes: &'static [u8], label: &str) -> Option<Model> {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let model =
            Model::open_within(PROGRAM, place(&maps, bytes.as_ptr() as u64, bytes.len() as u64)?, label);
        // The header names every tensor and where it is. It is compared because a program may have been mapped from
        // another file than its own, by a loader or an emulator.
        model.ok().filter(|model| {
            model.header_bytes() == bytes.get(..model.header_bytes().len()).unwrap_or_default()
        })
    }

    /// Where in its file a run of bytes lies, by the lines `START-END PERMISSIONS OFFSET DEVICE INODE PATH`.
    fn place(maps: &str, start: u64, len: u64) -> Option<Range<u64>> {
        maps.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (first, end) = words.next()?.split_once('-')?;
            let hexadecimal = |word: &str| u64::from_str_radix(word, 16).ok();
            let (first, end, offset) = (hexadecimal(first)?, hexadecimal(end)?, hexadecimal(words.nth(1)?)?);
            let has_file = words.nth(1)? != "0";
            let inside = has_file && first <= start && start.checked_add(len)? <= end;
            inside.then(|| start - first + offset..start - first + offset + len)
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_line_that_holds_the_bytes_tells_the_place() {
            let maps = "55d0c0a00000-55d0c0b00000 r--p 00000000 08:01 131 /bin/a\n\
                        55d0c0b00000-55d0c0f00000 r-xp 00100000 08:01 131 /bin/a b (deleted)\n\
                        7f0000000000-7f0000100000 rw-p 00000000 00:00 0 \n";
            assert_eq!(place(maps, 0x55d0_c0b0_0010, 0x100), Some(0x10_0010..0x10_0110));
            assert_eq!(place(maps, 0x55d0_c0a0_0000, 0x10_0000), Some(0..0x10_0000));
            assert_eq!(place(maps, 0x55d0_c0a0_0000, 0x10_0001), None);
            assert_eq!(place(maps, 0x7f00_0000_0000, 8), None);
            assert_eq!(place("nonsense\n-\n", 1, 1), None);
        }

        #[test]
        fn the_bundled_model_is_found_in_this_program() {
            use crate::BYTES;
            let model = open(BYTES, "found").expect("a model in the program's file");
            let memory = Model::from_static(BYTES, "memory").unwrap();
            for name in memory.names() {
                assert_eq!(model.f32(name).unwrap(), memory.f32(name).unwrap(), "{name}");
            }
        }
    }
}
