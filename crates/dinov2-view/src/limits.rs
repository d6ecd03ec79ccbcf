//! Limits on clients.
//!
//! ```
//! use dinov2_view::{Access, ViewConfig, limits::TOKEN_BYTES};
//!
//! let short = "x".repeat(TOKEN_BYTES.start() - 1);
//! assert!(ViewConfig::new(([0, 0, 0, 0], 8080).into(), Access::Token(short)).is_err());
//! ```

use std::time::Duration;

/// Maximum number of open connections. One more closes the connection that has been idle longest.
pub const MAX_CONNECTIONS: usize = 64;
/// Connections reserved for `/healthz` and `/metrics`.
pub const RESERVED_CONNECTIONS: usize = 16;
/// Maximum number of idle connections of one address (IPv6: one /64 network). Browsers open six. Loopback addresses have no such
/// limit, because a reverse proxy connects from there for many clients.
pub const MAX_WAITING_PER_PEER: usize = 16;
/// Maximum size of the head of a request, and of the read buffer of a connection, in bytes.
pub const MAX_HEAD_BYTES: usize = 64 << 10;
/// Timeout for the head of a request, and for an idle connection.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a message from a client, in bytes. A feature of [`dinov2_core::limits::MAX_DIM`] numbers as JSON with all digits
/// of f64 fits.
pub const MAX_MESSAGE_BYTES: usize = 512 << 10;
/// Maximum number of messages per second from one client.
pub const MAX_MESSAGES_PER_S: u32 = 60;
/// Send buffer of a connection in bytes (the system may double it). Small, so that slow clients do not get old frames.
pub const SEND_BUFFER_BYTES: u32 = 256 << 10;
/// Maximum side of a picture for viewers, in pixels; larger images are reduced by an integer factor.
pub const MAX_SIDE_PX: usize = 960;
/// Maximum time that a snapshot waits for a frame.
pub const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);
/// A new viewer gets the last frame only if it is younger than this.
pub const FRESH: Duration = Duration::from_secs(1);
/// Delay of the response to a wrong token, which limits the rate of guesses.
pub const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(500);
/// Allowed length of a token, in bytes.
pub const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 8..=256;
