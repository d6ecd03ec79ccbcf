//! The memory policy of the training binary's allocator.
#![expect(unsafe_code, reason = "mimalloc's options are set through its C interface")]

use libmimalloc_sys::{mi_option_set_default, mi_option_t, mi_option_use_numa_nodes};

/// mimalloc's `mi_option_purge_delay`: milliseconds until free pages return to the system, -1 for never. The bindings lack it,
/// but not the option after it.
const PURGE_DELAY: mi_option_t = 15;
const _: () = assert!(PURGE_DELAY + 1 == mi_option_use_numa_nodes);

/// Keeps freed pages for the next step, which needs as many again: pages from the system are zeroed first, a large part
/// of a step's time. `MIMALLOC_PURGE_DELAY` in the environment overrides it. No effect where mimalloc is not the allocator.
pub fn keep_pages() {
    // SAFETY: the function may be called at any time with any value for an existing option.
    unsafe { mi_option_set_default(PURGE_DELAY, -1) }
}
