//! What the program says of sources that it needs others for, and which frames it takes.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;

use std::path::{Path, PathBuf};

use common::{program, succeeds};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dinov2-io/tests/fixtures").join(name)
}

/// Wherever a photograph is named that only libheif decodes: one line with the file, the program and how to get it.
#[test]
fn heic_without_its_program_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (name, from) in [("a.png", "small.png"), ("b.HEIC", "heif/plain.heic"), ("c", "heif/tiles.avif")] {
        std::fs::copy(fixture(from), folder.path().join(name)).unwrap();
    }
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let whole = path("");
    for (words, file) in [
        (&["run", "--input", &path("b.HEIC")][..], "b.HEIC"),
        (&["run", "--input", &path("c")], "/c"),
        (&["run", "--input", &whole], "b.HEIC"),
        (&["run", "--input", &path("b*")], "b.HEIC"),
        (&["compare", &whole, "--candidate", "cpu:f32"], "b.HEIC"),
    ] {
        let outcome = program(words).env("PATH", "").output().unwrap();
        let told = String::from_utf8_lossy(&outcome.stderr);
        assert_eq!(outcome.status.code(), Some(1), "{words:?}: {told}");
        let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{words:?}: {told}");
        let named = ["heif-dec", "heif-convert", "apt install libheif-examples"];
        assert!(named.iter().all(|word| errors[0].contains(word)), "{words:?}: {told}");
        assert!(errors[0].ends_with(file), "{words:?}: {told}");
    }
}

#[test]
fn a_rate_thins_a_file_by_its_own_times_without_waiting() {
    let out = succeeds(&["run", "--input", "test:28x28@90", "--fps", "10", "--json"]);
    let frames: Vec<serde_json::Value> =
        out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let times: Vec<u64> = frames
        .iter()
        .filter_map(|frame| Some((frame["capture_ns"].as_u64()? + 500_000) / 1_000_000))
        .collect();
    assert_eq!(times, (0..30).map(|index| index * 100).collect::<Vec<u64>>());
}
