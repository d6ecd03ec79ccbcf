//! Configuration of the live page, its checks and their errors.

use std::net::SocketAddr;
use std::time::Duration;

use crate::limits::TOKEN_BYTES;
use dinov2_heads::PcaFit;

/// Who may open the live page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Clients on this machine only.
    Local,
    /// Clients that send the token: 8 to 256 letters, digits and `-._~` (the unreserved characters of URLs, RFC 3986 section 2.3).
    Token(String),
    /// Every client that reaches the address.
    Insecure,
}

/// Configuration of a live page. [`ViewConfig::new`] sets the public fields to defaults.
#[derive(Clone, Debug)]
pub struct ViewConfig {
    pub(crate) address: SocketAddr,
    pub(crate) access: Access,
    /// Title of the page, such as model and engine.
    pub title: String,
    /// Identifies the model: features of equal identifiers can be compared. A page that reconnects keeps its picked feature if the
    /// identifier is unchanged.
    pub model: String,
    /// Names of the cameras, in the order of their numbers. One by default.
    pub cameras: Vec<String>,
    /// Mode of the colours until a viewer changes it.
    pub pca: PcaFit,
    /// Maximum frames per second and camera that are copied for viewers. 15 by default.
    pub max_fps: f64,
    /// Maximum number of concurrent streams, sockets and snapshots. 8 by default.
    pub max_clients: usize,
    /// A client that reads nothing for this time is disconnected. 10 s by default.
    pub stall_timeout: Duration,
    /// Without a new frame for this time, `/healthz` answers 503. 5 s by default.
    pub silence_timeout: Duration,
}

/// Why a live page cannot be configured or started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// [`Access::Local`] on an address that other machines can reach.
    #[error(
        "live page on {address}: expected a token, because others can reach this address; \
         set one, or allow everyone explicitly (insecure)"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// A token of the wrong length or with characters that are not allowed.
    #[error(
        "token of the live page: expected {} to {} of A-Z a-z 0-9 - . _ ~, got {length} bytes{}",
        TOKEN_BYTES.start(), TOKEN_BYTES.end(), if *.plain { "" } else { " with other characters" }
    )]
    Token {
        /// Its length in bytes.
        length: usize,
        /// True if only its length is wrong.
        plain: bool,
    },
    /// The list of cameras is empty.
    #[error("live page: expected at least one camera")]
    NoCamera,
    /// A frame rate of 0, below 0 or NaN.
    #[error("live page: expected more than 0 frames per second, got {fps}")]
    Rate {
        /// The rate.
        fps: f64,
    },
    /// The address cannot be listened on.
    #[error("live page: cannot listen on {address} (choose another address or port)")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        #[source]
        reason: std::io::Error,
    },
    /// The thread or the event queue cannot be created.
    #[error("live page: cannot be started")]
    Start(#[source] std::io::Error),
}

impl ViewConfig {
    /// A page on `address` (port 0: any free one) with the defaults.
    ///
    /// # Errors
    /// [`ViewError::Exposed`] for [`Access::Local`] on an address that is not a loopback one; [`ViewError::Token`] for
    /// a token that [`Access::Token`] does not describe.
    pub fn new(address: SocketAddr, access: Access) -> Result<Self, ViewError> {
        match &access {
            Access::Local if !is_loopback(address) => return Err(ViewError::Exposed { address }),
            Access::Token(token) => check_token(token)?,
            Access::Local | Access::Insecure => {}
        }
        Ok(Self {
            address,
            access,
            title: String::from("dinov2-edge"),
            model: String::new(),
            cameras: vec![String::from("camera")],
            pca: PcaFit::Follow,
            max_fps: 15.0,
            max_clients: 8,
            stall_timeout: Duration::from_secs(10),
            silence_timeout: Duration::from_secs(5),
        })
    }

    /// The token of [`Access::Token`].
    pub fn token(&self) -> Option<&str> {
        match &self.access {
            Access::Token(token) => Some(token),
            Access::Local | Access::Insecure => None,
        }
    }

    /// Checks the public fields.
    pub(crate) fn check(&self) -> Result<(), ViewError> {
        if self.cameras.is_empty() {
            return Err(ViewError::NoCamera);
        }
        // False for NaN, too.
        if self.max_fps > 0.0 { Ok(()) } else { Err(ViewError::Rate { fps: self.max_fps }) }
    }
}

/// True for loopback addresses, including IPv4-mapped IPv6.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn check_token(token: &str) -> Result<(), ViewError> {
    let plain = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    if plain && TOKEN_BYTES.contains(&token.len()) {
        Ok(())
    } else {
        Err(ViewError::Token { length: token.len(), plain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_need_a_token_or_an_explicit_word() {
        let new = |address: &str, access| ViewConfig::new(address.parse().unwrap(), access);
        for local in ["127.0.0.1:8080", "127.8.0.1:0", "[::1]:8080", "[::ffff:127.0.0.1]:80"] {
            assert!(new(local, Access::Local).is_ok(), "{local}");
        }
        for open in ["0.0.0.0:8080", "[::]:8080", "192.168.1.2:80", "[::ffff:10.0.0.1]:80"] {
            let error = new(open, Access::Local).unwrap_err();
            assert!(matches!(error, ViewError::Exposed { .. }), "{open}: {error}");
            assert!(error.to_string().contains(open) && error.to_string().contains("token"), "{error}");
            assert!(new(open, Access::Insecure).is_ok());
            assert!(new(open, Access::Token("correct-horse".into())).is_ok());
        }
    }

    #[test]
    fn tokens_are_long_enough_and_stand_in_an_address() {
        let token = |token: &str| ViewConfig::new(([0, 0, 0, 0], 0).into(), Access::Token(token.into()));
        assert!(token("Aa0-._~x").is_ok());
        for wrong in ["", "1234567", "with space", "semi;colon", "größer-als", "a%20b%20c"] {
            assert!(matches!(token(wrong), Err(ViewError::Token { .. })), "{wrong:?}");
        }
        assert!(token(&"x".repeat(257)).is_err());
        assert!(!token("not to be told").unwrap_err().to_string().contains("told"));
    }
}
