//! What runs make of inputs that cannot be used, and what outputs replace and are called.

#![cfg(unix)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{fails, files, media, program, succeeds};
use serde_json::Value;

/// A picture of 28x28 pixels that differs from those with other shades.
fn picture(path: &Path, shade: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), 28, 28);
    encoder.set_color(png::ColorType::Grayscale);
    let pixels: Vec<u8> = (0..28 * 28).map(|at: usize| (at as u8).wrapping_mul(shade)).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}

/// Runs over these inputs, 28x28, on the CPU.
fn run(inputs: &[&Path], more: &[&str]) -> Output {
    let mut command = program(&["run", "--backend", "cpu", "--size", "28x28"]);
    command.args(more).arg("--input").args(inputs).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn words(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn no_output_replaces_an_input_a_device_or_a_file_of_another_kind() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    picture(&path("photo.png"), 3);
    symlink("photo.png", path("link.png")).unwrap();
    fs::write(path("notes.txt"), "precious").unwrap();
    let photo = fs::read(path("photo.png")).unwrap();
    for (name, force) in [("photo.png", false), ("photo.png", true), ("link.png", true)] {
        let mut more = vec!["--output", name];
        more.extend(force.then_some("--force"));
        let mut command = program(&["run", "--backend", "cpu", "--size", "28x28", "--input", "photo.png"]);
        let output = command.args(more).current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("input"), "{}", stderr(&output));
        assert_eq!(fs::read(path("photo.png")).unwrap(), photo);
    }
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/vits14-focus-int8.safetensors");
    let notes = path("notes.txt");
    for command in [vec!["convert", words(&model)], vec!["export", words(&model)]] {
        fails(&[&command[..], &["-o", words(&notes)]].concat(), 1, "notes.txt");
        assert_eq!(fs::read(&notes).unwrap(), b"precious");
    }
    let null = path("null");
    if program_runs("mknod", &[words(&null), "c", "1", "3"]) {
        for command in [vec!["convert", words(&model)], vec!["export", words(&model)]] {
            fails(&[&command[..], &["-o", words(&null), "--force"]].concat(), 1, "a device");
        }
        assert!(!null.is_file());
    } else {
        eprintln!("SKIPPED: outputs onto a device node, as mknod is not permitted");
    }
    succeeds(&["convert", words(&model), "-o", words(&notes), "--force"]);
    assert!(fs::metadata(&notes).unwrap().len() > 1 << 20);
}

fn program_runs(program: &str, words: &[&str]) -> bool {
    std::process::Command::new(program).args(words).output().is_ok_and(|output| output.status.success())
}

/// The bytes of `file.npy` that an image alone gives.
fn alone(image: &Path) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.npy");
    let output = run(&[image], &["--output", words(&out)]);
    assert!(output.status.success(), "{}", stderr(&output));
    fs::read(out).unwrap()
}

#[test]
fn features_are_never_taken_for_those_of_another_image_of_that_name() {
    let folder = tempfile::tempdir().unwrap();
    let images =
        ["monday/0001.png", "monday/0001_2.png", "tuesday/0001.png"].map(|name| folder.path().join(name));
    for (image, shade) in images.iter().zip([3, 5, 7]) {
        picture(image, shade);
    }
    let [first, second, third] = images.each_ref().map(PathBuf::as_path);
    for (number, order) in [[first, second, third], [third, second, first]].iter().enumerate() {
        let out = folder.path().join(format!("out{number}"));
        let output = run(order, &["--format", "npy", "--output", words(&out)]);
        assert!(output.status.success() && stderr(&output).contains("same name"), "{}", stderr(&output));
        for (name, image) in [("monday_0001", first), ("monday_0001_2", second), ("tuesday_0001", third)] {
            assert_eq!(fs::read(out.join(format!("{name}.npy"))).unwrap(), alone(image), "{name}");
        }
        let index = fs::read_to_string(out.join("index.jsonl")).unwrap();
        let lines: Vec<Value> = index.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        for line in &lines {
            let source = line["source"].as_str().unwrap();
            let file = line["file"].as_str().unwrap().trim_end_matches(".npy");
            assert!(source.trim_end_matches(".png").replace('/', "_").ends_with(file), "{line}");
        }
    }
}

#[test]
fn bad_inputs_are_named_and_the_others_done() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    for name in ["a.png", "b.png", "y.png"] {
        picture(&input.join(name), 3);
    }
    fs::write(input.join("m.jpg"), &fs::read(media("cat.jpg")).unwrap()[..3000]).unwrap();
    // One row of more pixels than any side may have.
    let mut encoder = png::Encoder::new(fs::File::create(input.join("n.png")).unwrap(), 40_000, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&[0; 40_000]).unwrap();
    let out = folder.path().join("out");
    let output = run(&[&input], &["--output", words(&out), "--json"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for bad in ["m.jpg", "n.png"] {
        let lines = said.lines().filter(|line| line.starts_with("skipped: ") && line.contains(bad));
        assert_eq!(lines.count(), 1, "{said}");
    }
    let last = said.lines().rfind(|line| line.starts_with("error: ")).unwrap();
    assert!(last.contains("2 inputs could not be used") && last.contains("m.jpg"), "{said}");
    let made: Vec<PathBuf> = ["a", "b", "y"].map(|name| out.join(format!("{name}.safetensors"))).into();
    assert_eq!(files(&out), made);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let frames: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(frames.len() == 3 && frames.iter().all(|frame| frame["grid"].is_object()), "{stdout}");

    let strict = run(&[&input], &["--strict"]);
    let said = stderr(&strict);
    assert!(strict.status.code() == Some(1) && !said.contains("skipped:"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("error: ") && line.contains("m.jpg")), "{said}");

    let bad = folder.path().join("bad");
    fs::create_dir(&bad).unwrap();
    fs::copy(input.join("m.jpg"), bad.join("1.jpg")).unwrap();
    fs::copy(input.join("m.jpg"), bad.join("2.jpg")).unwrap();
    let output = run(&[&bad], &[]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("1.jpg"), "{}", stderr(&output));
}

#[test]
fn names_of_any_bytes_are_read_and_messages_stay_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let strange = [&b"caf\xe9.png"[..], b"a\nb.png", b"-x.png"];
    let paths = strange.map(|name| folder.path().join(OsStr::from_bytes(name)));
    for path in &paths {
        picture(path, 3);
    }
    let all: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let output = run(&all, &["--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    // Names that begin with a dash, as this folder's own.
    for input in ["--input=-x.png", "--input=./-x.png"] {
        let mut command = program(&["run", "--backend", "cpu", "--size", "28x28", input]);
        let output = command.current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{input}: {}", stderr(&output));
    }
    let odd = folder.path().join("a\u{1b}[31mb\nc");
    fs::create_dir(&odd).unwrap();
    assert!(stderr(&run(&[&odd], &[])).starts_with("error: input: expected a folder with images"));
    picture(&odd.join("x.png"), 3);
    fs::write(odd.join("notes"), "").unwrap();
    let said = stderr(&run(&[&odd], &[]));
    assert!(said.lines().any(|line| line.starts_with("note: ") && line.ends_with("such as notes")), "{said}");
    assert!(!said.contains('\x1b'), "{said}");
    for name in [&b"no\nsuch.png"[..], b"no\xff.png", b"no\x1b[31m.png"] {
        let output = run(&[Path::new(OsStr::from_bytes(name))], &[]);
        let said = stderr(&output);
        assert!(output.status.code() == Some(1) && !said.contains('\x1b'), "{said}");
        assert_eq!(said.lines().filter(|line| !line.starts_with("error: ")).count(), 0, "{said}");
    }
}
