//! The server by its clients' eyes.

mod common;
mod http;
mod socket;
