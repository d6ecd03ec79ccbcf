//! The command line of training.

use std::process::ExitCode;

/// Steps allocate and free the same large tensors over and over; the system's allocator would give their pages back each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    training::cli::main()
}
