//! Running the program as its users do.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A file of the sample media.
pub(crate) fn media(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/media").join(name);
    path.to_string_lossy().into_owned()
}

/// The program with nothing of this machine's in its way.
pub(crate) fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dinov2-edge"));
    command.args(words).stdin(Stdio::null());
    // Whatever this machine has pulled must not matter.
    command.env("DINOV2_EDGE_MODELS", "no-such-folder");
    command.env_remove("DINOV2_EDGE_TOKEN");
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    // Mesa complains on stderr where there is none.
    command.env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn output(words: &[&str]) -> Output {
    program(words).output().expect("the program starts")
}

/// Runs it and expects success; returns stdout.
pub(crate) fn succeeds(words: &[&str]) -> String {
    let output = output(words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs it and expects this exit code and one line on stderr that contains `told`.
pub(crate) fn fails(words: &[&str], code: i32, told: &str) {
    let output = output(words);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{words:?}: {stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains(told), "{words:?}: {stderr}");
}

/// What a folder holds, sorted.
#[allow(dead_code, reason = "each test binary uses its own part")]
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}
