//! Errors of stores as one line.

use std::error::Error;

/// Most characters of a reason.
const MAX_CHARACTERS: usize = 400;

/// Requests for a machine's credentials, made where the environment has none, and the variables that are missing.
const CREDENTIALS: [(&str, &str); 3] = [
    (
        "/latest/api/token",
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
    ),
    (
        "/computeMetadata/",
        "GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    ),
    (
        "/metadata/identity/",
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_SKIP_SIGNATURE=true for a public container",
    ),
];

/// Why a request failed: the store's own message if its answer has one, otherwise the chain of errors.
pub(super) fn reason(error: &object_store::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_words = inner.to_string();
        if !words.contains(&inner_words) {
            words = format!("{words}: {inner_words}");
        }
        cause = inner.source();
    }
    let missing = CREDENTIALS.iter().find(|(request, _)| words.contains(request));
    let said = match (element(&words, "Code"), element(&words, "Message"), missing) {
        (Some(code), Some(message), _) => format!("{message} ({code})"),
        (_, _, Some((_, expected))) => format!("no credentials: expected {expected}"),
        _ => words,
    };
    let one_line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().take(MAX_CHARACTERS).collect()
}

/// The content of an XML element: S3, Google and Azure answer in XML.
fn element<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = answer.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(content.trim()).filter(|content| !content.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &str) -> String {
        reason(&object_store::Error::Generic { store: "S3", source: words.into() })
    }

    #[test]
    fn the_stores_own_words_come_first() {
        let answer = "Error performing GET http://host/b/k in 1ms - Server returned non-2xx status code: 400 Bad Request: \
                      <?xml version=\"1.0\"?>\n<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization \
                      header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'</Message></Error>";
        assert_eq!(
            said(answer),
            "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1' \
             (AuthorizationHeaderMalformed)"
        );
        let azure = "<Error><Code>ContainerNotFound</Code><Message>The specified container does not exist.\nRequestId:1\n\
                     Time:2</Message></Error>";
        assert_eq!(
            said(azure),
            "The specified container does not exist. RequestId:1 Time:2 (ContainerNotFound)"
        );
    }

    #[test]
    fn without_them_all_causes_are_told_once_in_one_line() {
        let broken = std::io::Error::other("first\nsecond");
        assert_eq!(
            reason(&object_store::Error::Generic { store: "S3", source: broken.into() }),
            "Generic S3 error: first second"
        );
        assert_eq!(said("<Code></Code>"), "Generic S3 error: <Code></Code>");
        assert_eq!(said(&"x".repeat(1_000)).len(), MAX_CHARACTERS);
    }

    #[test]
    fn missing_credentials_are_named() {
        for (request, name) in [
            ("PUT http://169.254.169.254/latest/api/token", "AWS_ACCESS_KEY_ID"),
            ("GET http://metadata/computeMetadata/v1/instance", "GOOGLE_APPLICATION_CREDENTIALS"),
            ("GET http://169.254.169.254/metadata/identity/oauth2/token", "AZURE_STORAGE_ACCOUNT_KEY"),
        ] {
            let said = said(&format!("Error performing {request} in 5s - HTTP error"));
            assert!(said.starts_with("no credentials: expected ") && said.contains(name), "{said}");
        }
    }
}
