//! Tar archives of Python and of the crate `tar`, and damaged ones.

use std::io::Cursor;

use super::*;
use crate::data::Image;

fn names(archive: &[u8]) -> Result<Vec<String>, DataError> {
    let located = images(&mut Cursor::new(archive), "test.tar")?;
    Ok(located.into_iter().map(|member| member.name).collect())
}

/// What `make_data.py` puts into its archives, by the value of its pixels.
fn check_archive_of_python(archive: &[u8]) {
    let located = images(&mut Cursor::new(archive), "test.tar").unwrap();
    let long = format!("{}0002.ppm", "a-folder-with-a-long-name/".repeat(8));
    let want =
        [("0001.ppm", 1), (long.as_str(), 2), ("shot.2024.ppm", 3), ("größe-💡.PPM", 4), ("0005.ppm", 5)];
    assert_eq!(located.len(), want.len());
    for (member, (name, value)) in located.iter().zip(want) {
        assert_eq!(member.name, name);
        let bytes = &archive[member.offset as usize..][..member.bytes as usize];
        assert_eq!(Image::decode(bytes).unwrap().pixels, [value; 6]);
    }
}

#[test]
fn archives_of_pythons_tarfile_are_read() {
    check_archive_of_python(include_bytes!("../../tests/fixtures/gnu.tar"));
    check_archive_of_python(include_bytes!("../../tests/fixtures/pax.tar"));
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in members {
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn archives_of_the_tar_crate_are_read() {
    let long = format!("{}/b.png", "x".repeat(300));
    let members: [(&str, &[u8]); 4] =
        [("a.jpg", &[1; 513]), (&long, &[2; 512]), ("a.txt", b""), ("c.webp", b"")];
    let archive = archive(&members);
    let located = images(&mut Cursor::new(&archive), "test.tar").unwrap();
    assert_eq!(
        located.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(),
        ["a.jpg", &long, "c.webp"]
    );
    for (member, data) in located.iter().zip([members[0].1, members[1].1, members[3].1]) {
        assert_eq!(&archive[member.offset as usize..][..member.bytes as usize], data);
    }
}

#[test]
fn pictures_of_another_ones_key_are_no_samples() {
    let archive = archive(&[
        ("set/1.jpg", b"x"),
        ("set/1.mask.png", b"x"),
        ("other/1.mask.png", b"x"),
        ("a.b.jpg", b"x"),
        (".hidden.png", b"x"),
    ]);
    assert_eq!(names(&archive).unwrap(), ["set/1.jpg", "other/1.mask.png", "a.b.jpg", ".hidden.png"]);
}

#[test]
fn an_archive_that_is_cut_short_says_so() {
    let archive = archive(&[("a.png", &[1; 2_000]), ("b.png", &[2; 2_000])]);
    let error = names(&archive[..3_000]).unwrap_err().to_string();
    assert_eq!(error, "tar archive: expected a header of 512 bytes, got 440 in test.tar");
    let error = names(&archive[..4_000]).unwrap_err().to_string();
    assert_eq!(
        error,
        "tar archive: expected an entry within the archive, got 2000 bytes at 3072 of 4000 in test.tar"
    );
    // Without the end mark nothing is missing.
    assert_eq!(names(&archive[..512 + 2_048 + 512 + 2_000]).unwrap().len(), 2);
    assert!(names(b"").unwrap().is_empty());
}

#[test]
fn claims_are_not_believed() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.resize(4_096, b'x');
    assert!(names(&archive).unwrap_err().to_string().contains("an entry within the archive"));
    header.set_size(MAX_LONG_NAME_BYTES + 1);
    header.set_cksum();
    archive[..512].copy_from_slice(header.as_bytes());
    archive.resize(1 << 18, b'x');
    assert!(names(&archive).unwrap_err().to_string().contains("at most 65536 bytes"));
    header.set_size(u64::MAX);
    header.set_cksum();
    archive[..512].copy_from_slice(header.as_bytes());
    assert!(names(&archive).is_err());
}

#[test]
fn any_bytes_are_an_archive_or_an_error() {
    let whole: [&[u8]; 2] =
        [include_bytes!("../../tests/fixtures/gnu.tar"), include_bytes!("../../tests/fixtures/pax.tar")];
    let mut state = 1_u32;
    let mut next = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for round in 0..3_000 {
        let mut archive = whole[round % 2][..next(6_000)].to_vec();
        if round % 3 == 0 {
            archive.iter_mut().for_each(|byte| *byte = next(256) as u8);
        }
        for _ in 0..next(6) {
            if let Some(at) = archive.len().checked_sub(1).map(|last| next(last + 1)) {
                archive[at] = next(256) as u8;
                // Wrong sums would hide what is behind them.
                for block in archive.as_chunks_mut::<512>().0.iter_mut().take(1 + at / 512).skip(at / 512) {
                    let mut header = Header::new_old();
                    header.as_mut_bytes().copy_from_slice(block);
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
        }
        let end = archive.len() as u64;
        for member in images(&mut Cursor::new(&archive), "test.tar").unwrap_or_default() {
            assert!(member.offset + member.bytes <= end);
        }
    }
}
