//! How the allocator of the training binary keeps memory.
#![expect(unsafe_code, reason = "mimalloc's options are set through its C interface")]

use libmimalloc_sys::{mi_option_set_default, mi_option_t, mi_option_use_numa_nodes};

/// mimalloc's `mi_option_purge_delay`: milliseconds after which free pages go back to the system, -1 for never. The bindings leave it
/// out, but not the option after it.
const PURGE_DELAY: mi_option_t = 15;
const _: () = assert!(PURGE_DELAY + 1 == mi_option_use_numa_nodes);

/// Keeps what is freed for the next step, which needs as much again: pages that come back from the system are zeroed first, a large part
/// of a step's time. `MIMALLOC_PURGE_DELAY` in the environment overrules it. Without effect where mimalloc is not the allocator.
pub fn keep_pages() {
    // SAFETY: the function takes any number for an option that exists, at any time.
    unsafe { mi_option_set_default(PURGE_DELAY, -1) }
}
