use std::net::SocketAddr;
use std::time::Duration;

use crate::limits::TOKEN_BYTES;
use dinov2_heads::PcaFit;

/// Who may look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone on this machine, nobody else.
    Local,
    /// Whoever has the token: 8 to 256 letters, digits and `-._~`, which stand in an address unchanged.
    Token(String),
    /// Everyone who reaches the address.
    Insecure,
}

/// What a live page needs to know. The public fields have defaults.
#[derive(Clone, Debug)]
pub struct ViewConfig {
    pub(crate) address: SocketAddr,
    pub(crate) access: Access,
    /// Shown on the page: what runs here, such as model and engine.
    pub title: String,
    /// What makes features comparable: the same words, the same model. A page that was connected before keeps its picked feature if
    /// they are the same.
    pub model: String,
    /// Names of the cameras, in the order of their numbers. One by default.
    pub cameras: Vec<String>,
    /// How the colours behave until a viewer asks for something else.
    pub pca: PcaFit,
    /// Most frames per second that are taken for viewers, per camera. 15 by default.
    pub max_fps: f64,
    /// Most streams, sockets and snapshots at once. 8 by default.
    pub max_clients: usize,
    /// A client that takes nothing for so long is dropped. 10 s by default.
    pub stall_timeout: Duration,
    /// Without a new frame for so long, `/healthz` says no. 5 s by default.
    pub silence_timeout: Duration,
}

/// Why there is no live page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// An address that others reach, without a rule who may look.
    #[error(
        "live page on {address}: expected a token, because others can reach this address; \
         set one, or allow everyone explicitly (insecure)"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// A token that cannot stand in an address or is too short.
    #[error(
        "token of the live page: expected {} to {} of A-Z a-z 0-9 - . _ ~, got {length} bytes{}",
        TOKEN_BYTES.start(), TOKEN_BYTES.end(), if *.plain { "" } else { " with others" }
    )]
    Token {
        /// Its length in bytes.
        length: usize,
        /// True if only its length is wrong.
        plain: bool,
    },
    /// No camera to show.
    #[error("live page: expected at least one camera")]
    NoCamera,
    /// A rate that is none.
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
        /// What the system says.
        #[source]
        reason: std::io::Error,
    },
    /// The system gives no thread or event queue.
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

    /// What viewers must know, if anything.
    pub fn token(&self) -> Option<&str> {
        match &self.access {
            Access::Token(token) => Some(token),
            Access::Local | Access::Insecure => None,
        }
    }

    /// Checks what was set after [`Self::new`].
    pub(crate) fn check(&self) -> Result<(), ViewError> {
        if self.cameras.is_empty() {
            return Err(ViewError::NoCamera);
        }
        // Also says no to NaN.
        if self.max_fps > 0.0 { Ok(()) } else { Err(ViewError::Rate { fps: self.max_fps }) }
    }
}

/// True for addresses that only this machine reaches, IPv4 written as IPv6 included.
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
