//! The command line of training.

mod cli;

use std::process::ExitCode;

/// Each step allocates and frees the same large tensors; the system's allocator would return their pages each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
