//! How much a client may ask for.
//!
//! ```
//! use dinov2_view::{Access, ViewConfig, limits::TOKEN_BYTES};
//!
//! let short = "x".repeat(TOKEN_BYTES.start() - 1);
//! assert!(ViewConfig::new(([0, 0, 0, 0], 8080).into(), Access::Token(short)).is_err());
//! ```

use std::time::Duration;

/// Connections at once. For one more, the one that has waited longest without a request is ended.
pub const MAX_CONNECTIONS: usize = 64;
/// Of these, the ones that only `/healthz` and `/metrics` may keep busy.
pub const RESERVED_CONNECTIONS: usize = 16;
/// Connections of one address (IPv6: of one /64 network) that may wait for their next request; loopback addresses have no limit
/// of their own, because a reverse proxy may stand there. Browsers open six.
pub const MAX_WAITING_PER_PEER: usize = 16;
/// Largest head of a request, and what is buffered for a connection, in bytes.
pub const MAX_HEAD_BYTES: usize = 64 << 10;
/// Longest time for the head of a request to come, and for a kept connection to stay idle.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest message from a client, in bytes: a feature of [`dinov2_core::limits::MAX_DIM`] numbers as JSON, as many digits as f64 prints.
pub const MAX_MESSAGE_BYTES: usize = 512 << 10;
/// Messages from one client per second.
pub const MAX_MESSAGES_PER_S: u32 = 60;
/// What the system keeps for a client that reads slowly, in bytes (it may double this): what is sent is not much
/// older than what is new.
pub const SEND_BUFFER_BYTES: u32 = 256 << 10;
/// Longest side of a picture for viewers, in pixels; larger images are reduced by a whole factor.
pub const MAX_SIDE_PX: usize = 960;
/// Longest time that a snapshot waits for a frame.
pub const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);
/// A frame of this age is no longer shown to someone who comes.
pub const FRESH: Duration = Duration::from_secs(1);
/// A wrong token is answered this late, which bounds the rate of guesses.
pub const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(500);
/// Lengths of a token in bytes.
pub const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 8..=256;
