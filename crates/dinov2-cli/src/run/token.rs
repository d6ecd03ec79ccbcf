//! Reads the token of the live page from arguments, a file or the environment.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;

use crate::usage;

/// Environment variable of the token; unlike arguments it is not visible in process lists.
const VARIABLE: &str = "DINOV2_EDGE_TOKEN";
/// Maximum number of bytes read from a token file; more than a token may have, so that a longer one is refused, not truncated.
const MAX_FILE_BYTES: u64 = 4096;

/// The token from the arguments, otherwise from the environment.
///
/// # Errors
/// A file that cannot be read or that all users can access; a variable that is not UTF-8, or set together with `--insecure`.
pub(super) fn given(
    word: Option<&str>,
    file: Option<&Path>,
    insecure: bool,
) -> anyhow::Result<Option<String>> {
    match (word, file) {
        (Some(word), _) => Ok(Some(word.to_owned())),
        (None, Some(path)) => from_file(path).map(Some),
        (None, None) => from_environment(std::env::var_os(VARIABLE), insecure),
    }
}

fn from_environment(value: Option<OsString>, insecure: bool) -> anyhow::Result<Option<String>> {
    let Some(value) = value else { return Ok(None) };
    if insecure {
        return Err(usage(format!("--insecure: expected no token, got one in {VARIABLE}")));
    }
    let token =
        value.into_string().map_err(|_| usage(format!("{VARIABLE}: expected text, got other bytes")))?;
    Ok(Some(token))
}

/// Reads a file of one line. The permissions of the open file are checked, so the file cannot be swapped in between.
fn from_file(path: &Path) -> anyhow::Result<String> {
    let named = || format!("token file {}", path.display());
    let file = File::open(path).with_context(named)?;
    #[cfg(unix)]
    refuse_readable_by_all(&file, path)?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).with_context(named)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// Refuses a file with permissions for others. Group permissions are allowed, because systemd's credentials have an access list whose
/// mask appears as the group's.
#[cfg(unix)]
fn refuse_readable_by_all(file: &File, path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS: u32 = 0o007;
    let mode = file.metadata()?.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(usage(format!(
        "token file: expected no permissions for others, got mode {:04o} (chmod o= FILE, or mode 0400 for a \
         container's secret): {}",
        mode & 0o7777,
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_asked_last_and_not_against_a_flag() {
        assert_eq!(from_environment(None, false).unwrap(), None);
        assert_eq!(from_environment(None, true).unwrap(), None);
        assert_eq!(
            from_environment(Some("a-good-word".into()), false).unwrap().as_deref(),
            Some("a-good-word")
        );
        let refused = from_environment(Some("a-good-word".into()), true).unwrap_err().to_string();
        assert!(refused.contains(VARIABLE) && !refused.contains("a-good-word"), "{refused}");
    }

    #[cfg(unix)]
    #[test]
    fn files_that_all_may_read_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "correct-horse\n").unwrap();
        for (mode, fine) in
            [(0o400, true), (0o440, true), (0o640, true), (0o644, false), (0o604, false), (0o602, false)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = from_file(&path);
            assert_eq!(read.is_ok(), fine, "{mode:o}");
            match read {
                Ok(token) => assert_eq!(token, "correct-horse"),
                Err(error) => assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}"),
            }
        }
    }
}
