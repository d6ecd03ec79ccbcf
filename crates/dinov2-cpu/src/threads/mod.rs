//! The number of threads for this process: the CPUs that it is granted, the cores that they belong to, and the quota of its cgroups.
//!
//! Read from Linux's `/proc` and `/sys`; on other systems the standard library's count of CPUs is used.

mod cores;
mod quota;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;

/// What this process may use of the machine's CPUs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CpuGrant {
    /// CPUs, that is hardware threads, that are online and that the scheduler may use for this process.
    pub cpus: usize,
    /// Cores that these belong to.
    pub cores: usize,
    /// Cores among these that are too slow to help beside the fastest.
    pub slow_cores: usize,
    /// Smallest quota of the process's cgroups and of those above, in CPUs: 1.5 for 150 ms in every 100 ms. `None` without one.
    pub quota_cpus: Option<f64>,
}

impl CpuGrant {
    /// Reads what the operating system grants.
    pub fn of_this_process() -> Self {
        match affinity() {
            Some(cpus) => Self::below(Path::new("/"), &cpus),
            None => {
                // `available_parallelism` already includes quotas.
                let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
                Self { cpus, cores: cpus, slow_cores: 0, quota_cpus: None }
            }
        }
    }

    /// As `/proc` and `/sys` below `root` say of these CPUs.
    fn below(root: &Path, cpus: &[usize]) -> Self {
        let cores::Cores { all, slow } = cores::of(root, cpus);
        Self { cpus: cpus.len(), cores: all, slow_cores: slow, quota_cpus: quota::cpus(root) }
    }

    /// Threads for the engine, at least one.
    ///
    /// One per core: a second hardware thread slows down a core whose multipliers are busy. A quota is rounded
    /// to the nearest, halves up: one thread too many is stopped for a part of each period, one too few leaves a part of the quota
    /// unused (which capture and outputs can use); at a half, the first costs less.
    pub fn threads(&self) -> NonZeroUsize {
        let quota = self.quota_cpus.map_or(usize::MAX, |cpus| cpus.round() as usize);
        NonZeroUsize::new((self.cores - self.slow_cores).min(quota)).unwrap_or(NonZeroUsize::MIN)
    }
}

impl fmt::Display for CpuGrant {
    /// `2 threads: 8 CPUs granted on 4 cores, quota 1.5 CPUs`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let threads = counted(self.threads().get(), "thread");
        write!(f, "{threads}: {} granted on {}", counted(self.cpus, "CPU"), counted(self.cores, "core"))?;
        if self.slow_cores > 0 {
            write!(f, " ({} too slow to help)", self.slow_cores)?;
        }
        match self.quota_cpus {
            Some(1.0) => f.write_str(", quota 1 CPU"),
            Some(cpus) => write!(f, ", quota {} CPUs", (cpus * 1e3).round() / 1e3),
            None => f.write_str(", no quota"),
        }
    }
}

/// Threads to use where none are asked for: [`CpuGrant::threads`] of this process.
pub fn default_threads() -> NonZeroUsize {
    CpuGrant::of_this_process().threads()
}

/// Numbers of the CPUs that this thread may run on, as the kernel says (without those that are offline). `None` where it does not.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn affinity() -> Option<Vec<usize>> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let granted = sched_getaffinity(None).ok()?;
    Some((0..CpuSet::MAX_CPU).filter(|&cpu| granted.is_set(cpu)).collect())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn affinity() -> Option<Vec<usize>> {
    None
}
