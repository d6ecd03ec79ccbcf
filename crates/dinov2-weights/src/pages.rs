//! Mapped pages of a file or a part of it, which can be released after they were read.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use memmap2::{Mmap, MmapOptions};

/// A multiple of every page size that Linux uses. The rest at the ends of a matrix stays mapped.
#[cfg(unix)]
const PAGE: usize = 64 << 10;

/// A read-only mapping of a file, or of a part of one.
#[derive(Clone, Debug)]
pub(crate) struct Pages(Arc<Mmap>);

impl Pages {
    /// Maps `range` of a file, or all of it. Folders and devices are refused.
    pub(crate) fn map(file: &File, range: Option<Range<u64>>) -> std::io::Result<Self> {
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Err(std::io::Error::other("expected a file, got something else"));
        }
        let range = range.unwrap_or(0..facts.len());
        if range.start > range.end || range.end > facts.len() {
            let problem = format!("expected bytes within {}, got {range:?}", facts.len());
            return Err(std::io::Error::other(problem));
        }
        let len = usize::try_from(range.end - range.start).map_err(std::io::Error::other)?;
        #[expect(unsafe_code, reason = "mmap")]
        // SAFETY: the mapping is read-only. Another process that shortens the file while it is mapped ends this one by
        // SIGBUS, as for every program that maps files; model files are replaced by rename, never rewritten in place.
        let mapping = unsafe { MmapOptions::new().offset(range.start).len(len).map(file)? };
        Ok(Self(Arc::new(mapping)))
    }

    /// The bytes; slices of them are zero-copy.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes::from_owner(Shared(self.0.clone()))
    }

    /// Releases the whole pages within `range` from this process's memory. Reading them again gives the same bytes.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        {
            // The mapping itself may start anywhere in a page.
            let start = self.0.as_ptr() as usize;
            let first = (start + range.start).next_multiple_of(PAGE);
            let end = (start + range.end) / PAGE * PAGE;
            if first >= end {
                return;
            }
            #[expect(unsafe_code, reason = "madvise")]
            // SAFETY: the mapping is of a file and read-only, so its pages hold nothing that the file does not.
            let advised = unsafe {
                self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, first - start, end - first)
            };
            // If the system ignores the advice, only memory is lost.
            drop(advised);
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// [`Mmap`] behind a shared pointer, as the owner of [`Bytes`].
struct Shared(Arc<Mmap>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_part_is_what_the_file_has_there_also_after_its_release() {
        let content: Vec<u8> = (0..500_000u32).map(|at| (at * 7 / 3) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        for range in [0..500_000, 0..1, 4096..8192, 4097..300_000] {
            let pages = Pages::map(&file, Some(range.start..range.end)).unwrap();
            let (bytes, range) = (pages.bytes(), range.start as usize..range.end as usize);
            assert_eq!(bytes, content[range.clone()]);
            pages.release(0..bytes.len());
            pages.release(bytes.len() / 3..bytes.len());
            assert_eq!(bytes, content[range]);
        }
        assert!(Pages::map(&file, Some(0..500_001)).is_err());
        let backwards = Range { start: 2, end: 1 };
        assert!(Pages::map(&file, Some(backwards)).is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn released_pages_leave_the_process() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 64 << 20]).unwrap();
        let resident = || -> usize {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let pages = Pages::map(&file, None).unwrap();
        let sum: u64 = pages.bytes().iter().map(|&byte| u64::from(byte)).sum();
        assert_eq!(sum, 64 << 20);
        let before = resident();
        pages.release(0..64 << 20);
        assert!(before - resident() > 48 << 20, "{before} bytes before, {} after", resident());
    }
}
