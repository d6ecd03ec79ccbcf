//! The command line of training.

mod cli;

use std::process::ExitCode;

/// Steps allocate and free the same large tensors over and over; the system's allocator would give their pages back each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
