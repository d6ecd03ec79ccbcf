//! CPU time that the process's cgroups grant it: `Documentation/admin-guide/cgroup-v2.rst` (`cpu.max`) and
//! `Documentation/scheduler/sched-bwc.rst` (`cpu.cfs_quota_us`) of the kernel.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The smallest quota along the paths of the process's cgroups, in CPUs. `None` if there is none.
pub(super) fn cpus(root: &Path) -> Option<f64> {
    let read = |name: &str| fs::read_to_string(root.join(name)).ok();
    let (own, mounts) = (read("proc/self/cgroup")?, read("proc/self/mountinfo")?);
    let mounts = mounts.lines().filter_map(Mount::parse);
    mounts.filter_map(|mount| mount.smallest_quota(root, &own)).reduce(f64::min)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A mounted hierarchy that may limit CPU time.
struct Mount {
    version: Version,
    /// The cgroup that is seen at `point`: not the topmost one in containers that see only their own.
    top: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// A line of `mountinfo`: `36 35 98:0 TOP POINT OPTIONS [MORE…] - TYPE SOURCE SUPER_OPTIONS`.
    fn parse(line: &str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (top, point) = (unescaped(mount.next()?), unescaped(mount.next()?));
        let mut system = system.split(' ');
        let version = match (system.next()?, system.nth(1)?) {
            ("cgroup2", _) => Version::V2,
            ("cgroup", options) if options.split(',').any(|option| option == "cpu") => Version::V1,
            _ => return None,
        };
        Some(Self { version, top, point })
    }

    /// The process's cgroup in this hierarchy. A line of `/proc/self/cgroup`: `NUMBER:CONTROLLERS:PATH`, version 2 has `0::PATH`.
    fn own_cgroup(&self, lines: &str) -> Option<PathBuf> {
        lines.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let is_ours = match self.version {
                Version::V1 => controllers.split(',').any(|controller| controller == "cpu"),
                Version::V2 => number == "0" && controllers.is_empty(),
            };
            is_ours.then(|| PathBuf::from(path))
        })
    }

    fn smallest_quota(&self, root: &Path, own: &str) -> Option<f64> {
        let path = self.own_cgroup(own)?;
        // A path outside of the mounted subtree cannot be read; the limits of the subtree's root are used instead.
        let below = path
            .strip_prefix(&self.top)
            .ok()
            .filter(|below| below.components().all(|component| matches!(component, Component::Normal(_))));
        let top = root.join(self.point.strip_prefix("/").ok()?);
        let own = top.join(below.unwrap_or(Path::new("")));
        let folders = own.ancestors().take_while(|folder| folder.starts_with(&top));
        folders.filter_map(|folder| self.quota_of(folder)).reduce(f64::min)
    }

    fn quota_of(&self, folder: &Path) -> Option<f64> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let (quota, period) = match self.version {
            // `max 100000` or `150000 100000`.
            Version::V2 => {
                let limit = read("cpu.max")?;
                let (quota, period) = limit.trim().split_once(' ')?;
                (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?)
            }
            // -1 for no limit.
            Version::V1 => {
                let number = |name: &str| read(name)?.trim().parse::<f64>().ok();
                (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
            }
        };
        (quota > 0.0 && period > 0.0).then_some(quota / period)
    }
}

/// Space, tab, line feed and backslash stand as `\040` and the like.
fn unescaped(word: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits =
            after.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(meant) => {
                bytes.push(meant);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}
