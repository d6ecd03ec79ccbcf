//! The server by its clients' eyes.

mod common;
mod crowd;
mod http;
mod socket;
