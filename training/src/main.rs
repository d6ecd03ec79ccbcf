//! The command line of training.

fn main() {}
