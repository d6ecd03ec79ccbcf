//! The cores that CPUs belong to: `Documentation/admin-guide/cputopology.rst` of the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Smallest capacity of a core that gets a thread, as a share of the fastest core's.
///
/// A step of a frame ends with its last task, and tasks come one by one from a shared counter, three to twelve per thread
/// (`dinov2-kernels`, `blocking.rs`). So a slow core helps while a task on it takes no longer than what the others save by it. By that
/// count, four cores of a quarter beside four of 1 make steps of twelve tasks per thread 1.2 times as fast, and eight of 0.4
/// beside six 1.4 times; below a quarter, steps of few tasks take longer. Efficiency cores are above: 0.35 to 0.8 on Intel, about 0.4
/// for Cortex-A55 beside A76.
const LEAST_CAPACITY: (u64, u64) = (1, 4);

/// How many cores there are among some CPUs.
pub(super) struct Cores {
    pub(super) all: usize,
    /// Cores among these that are too slow: a step takes longer with them.
    pub(super) slow: usize,
}

/// What identifies the core of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum CoreId {
    /// The smallest CPU of the core.
    First(usize),
    /// `physical id` and `core id` of `/proc/cpuinfo`.
    Listed(usize, usize),
}

/// Counts the cores of `cpus`. A CPU of which nothing is known is a core of its own.
pub(super) fn of(root: &Path, cpus: &[usize]) -> Cores {
    let listed = listed_cores(root);
    // The capacity is the same for all CPUs of a core.
    let mut capacities: BTreeMap<CoreId, Option<u64>> = BTreeMap::new();
    for &cpu in cpus {
        let folder = root.join(format!("sys/devices/system/cpu/cpu{cpu}"));
        let core = first_sibling(&folder.join("topology"), cpu).map(CoreId::First);
        let core = core.or_else(|| listed.get(&cpu).copied()).unwrap_or(CoreId::First(cpu));
        capacities.insert(core, number(&folder.join("cpu_capacity")));
    }
    let fastest = capacities.values().flatten().copied().max().unwrap_or(0);
    let is_slow = |capacity: u64| {
        u128::from(capacity) * u128::from(LEAST_CAPACITY.1)
            < u128::from(fastest) * u128::from(LEAST_CAPACITY.0)
    };
    let slow = capacities.values().flatten().filter(|&&capacity| is_slow(capacity)).count();
    Cores { all: capacities.len(), slow }
}

/// The smallest CPU of this one's core. `core_cpus_list` is the newer name (5.3) of `thread_siblings_list`.
fn first_sibling(topology: &Path, cpu: usize) -> Option<usize> {
    let list = ["core_cpus_list", "thread_siblings_list"]
        .iter()
        .find_map(|name| fs::read_to_string(topology.join(name)).ok())?;
    let siblings = ranges(&list)?;
    // A list without the CPU itself uses another numbering, as in some containers.
    siblings
        .iter()
        .any(|range| range.contains(&cpu))
        .then(|| siblings.iter().map(|range| *range.start()).min())?
}

/// A list of CPUs such as `0-1,64-65`.
fn ranges(list: &str) -> Option<Vec<std::ops::RangeInclusive<usize>>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(first..=last)
    };
    list.trim().split(',').map(range).collect()
}

/// Cores by `/proc/cpuinfo`, which x86 has also where a container hides `/sys`.
fn listed_cores(root: &Path) -> BTreeMap<usize, CoreId> {
    let info = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let core = |block: &str| {
        let value = |key: &str| {
            let mut pairs = block.lines().filter_map(|line| line.split_once(':'));
            pairs.find(|(name, _)| name.trim() == key)?.1.trim().parse().ok()
        };
        Some((value("processor")?, CoreId::Listed(value("physical id")?, value("core id")?)))
    };
    info.split("\n\n").filter_map(core).collect()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_as_the_kernel_documents_them() {
        let first =
            |list: &str| ranges(list).map(|ranges| ranges.iter().map(|range| *range.start()).min().unwrap());
        for (list, expected) in [("0\n", 0), ("0-1", 0), ("64,0", 0), ("3,8-11", 3)] {
            assert_eq!(first(list), Some(expected), "{list}");
        }
        for wrong in ["", "x", "3-1", "0-18446744073709551616", "0,"] {
            assert_eq!(first(wrong), None, "{wrong}");
        }
    }
}
