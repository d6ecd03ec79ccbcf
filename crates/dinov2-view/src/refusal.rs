//! Responses to requests that are not served: status and text.

use axum::http::StatusCode;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};

use crate::limits::{MAX_CONNECTIONS, RESERVED_CONNECTIONS};

/// Why a request is refused. The text is the body of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("Host: expected localhost or a loopback address")]
    Host,
    #[error("Origin: expected this site")]
    Origin,
    #[error("Sec-Fetch-Site: expected same-origin")]
    Site,
    #[error(
        "token missing or wrong: open /?token=TOKEN in a browser, or send the header Authorization: Bearer TOKEN"
    )]
    Token,
    #[error("camera {camera}: expected 0 to {last}")]
    Camera { camera: usize, last: usize },
    #[error("clients: expected at most {most} at once")]
    Full { most: usize },
    #[error("connections: expected at most {} with active requests", MAX_CONNECTIONS - RESERVED_CONNECTIONS)]
    Busy,
    #[error("no frame arrived within {seconds} s")]
    NoFrame { seconds: u64 },
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let text = format!("{self}\n");
        match self {
            Self::Host | Self::Origin | Self::Site => (StatusCode::FORBIDDEN, text).into_response(),
            Self::Token => (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], text).into_response(),
            Self::Camera { .. } => (StatusCode::NOT_FOUND, text).into_response(),
            Self::Full { .. } | Self::Busy | Self::NoFrame { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], text).into_response()
            }
        }
    }
}
