use std::num::NonZeroUsize;

/// Threads to use where none are asked for: what the scheduler and the cgroup grant this process, without the second
/// hardware thread of each core, which only gets in the way of a core that is busy multiplying.
pub fn default_threads() -> NonZeroUsize {
    let granted = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let siblings = siblings_of_first_core().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(granted.get() / siblings).unwrap_or(NonZeroUsize::MIN)
}

/// Hardware threads of core 0 as Linux lists them (`0-1` or `0,64`); `None` elsewhere.
fn siblings_of_first_core() -> Option<NonZeroUsize> {
    let path = "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list";
    NonZeroUsize::new(count_listed(&std::fs::read_to_string(path).ok()?)?)
}

/// Number of CPUs in a list such as `0-1,64-65`.
fn count_listed(list: &str) -> Option<usize> {
    list.trim().split(',').try_fold(0usize, |count, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_as_the_kernel_documents_them() {
        for (list, count) in [("0\n", Some(1)), ("0-1", Some(2)), ("0,64", Some(2)), ("0-3,8-11", Some(8))] {
            assert_eq!(count_listed(list), count, "{list}");
        }
        for wrong in ["", "x", "3-1", "0-18446744073709551615"] {
            assert_eq!(count_listed(wrong), None, "{wrong}");
        }
    }
}
