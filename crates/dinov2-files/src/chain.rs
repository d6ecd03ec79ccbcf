//! An error with its causes as one line of text.

use std::error::Error;

/// The messages of an error and its sources on one line, joined by `: `. White space within a message becomes single spaces.
/// A message with which the one before it ends is left out: some libraries repeat the cause in the message.
///
/// ```
/// let error = std::io::Error::other("disk\n  full");
/// assert_eq!(dinov2_files::chain(&error), "disk full");
/// ```
pub fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let mut messages: Vec<String> = causes.map(one_line).collect();
    messages.dedup_by(|cause, message| message.ends_with(&*cause));
    messages.join(": ")
}

fn one_line(error: &dyn Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open\n  model.bin")]
    struct Open(#[source] Reason);

    #[derive(Debug, thiserror::Error)]
    #[error("no such file")]
    struct Reason;

    #[derive(Debug, thiserror::Error)]
    #[error("no such file")]
    struct Same(#[source] Reason);

    #[derive(Debug, thiserror::Error)]
    #[error("line 3: {0}")]
    struct Repeated(#[source] Open);

    #[test]
    fn causes_follow_their_errors_once() {
        assert_eq!(chain(&Open(Reason)), "cannot open model.bin: no such file");
        assert_eq!(chain(&Same(Reason)), "no such file");
        assert_eq!(chain(&Repeated(Open(Reason))), "line 3: cannot open model.bin: no such file");
    }
}
