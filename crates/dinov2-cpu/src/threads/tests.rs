//! Trees as the kernel documents and writes them (`cputopology.rst`, `cgroup-v2.rst`, `sched-bwc.rst`, `proc.rst`), for machines and
//! containers that people have.

use std::path::Path;

use super::*;

/// A made-up `/`.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// CPUs with these siblings, as kernels since 5.3 list them under both names.
    fn with_core(mut self, siblings: &[usize]) -> Self {
        let list = siblings.iter().map(usize::to_string).collect::<Vec<_>>().join(",") + "\n";
        for cpu in siblings {
            for name in ["core_cpus_list", "thread_siblings_list"] {
                self = self.with(&format!("sys/devices/system/cpu/cpu{cpu}/topology/{name}"), &list);
            }
        }
        self
    }

    fn with_capacity(self, cpu: usize, capacity: u32) -> Self {
        self.with(&format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity"), &format!("{capacity}\n"))
    }

    /// `count` cores of two hardware threads, the second ones numbered behind all first ones.
    fn with_smt(self, count: usize) -> Self {
        (0..count).fold(self, |tree, core| tree.with_core(&[core, core + count]))
    }

    fn with_cgroups(self, own: &str, mounts: &str) -> Self {
        self.with("proc/self/cgroup", own).with("proc/self/mountinfo", mounts)
    }

    fn grant(&self, cpus: impl IntoIterator<Item = usize>) -> CpuGrant {
        CpuGrant::below(self.0.path(), &cpus.into_iter().collect::<Vec<_>>())
    }
}

/// As Docker, Podman and containerd mount version 2 into a container with a namespace of its own.
const V2_MOUNT: &str = "\
    1070 1051 0:91 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n\
    1075 1074 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot\n";

#[test]
fn docker_with_one_and_a_half_cpus() {
    let tree = Tree::new().with_smt(8).with_cgroups("0::/\n", V2_MOUNT);
    let tree = tree.with("sys/fs/cgroup/cpu.max", "150000 100000\n");
    let grant = tree.grant(0..16);
    assert_eq!((grant.cpus, grant.cores, grant.quota_cpus), (16, 8, Some(1.5)));
    assert_eq!(grant.to_string(), "2 threads: 16 CPUs granted on 8 cores, quota 1.5 CPUs");
}

#[test]
fn quotas_are_rounded_to_the_nearest_and_never_to_nothing() {
    for (quota, threads) in [
        ("10000 100000", 1),
        ("50000 100000", 1),
        ("140000 100000", 1),
        ("150000 100000", 2),
        ("249999 100000", 2),
        ("250000 100000", 3),
        ("400000 50000", 8),
        ("6400000 100000", 8),
        ("max 100000", 8),
        ("0 100000", 8),
        ("nonsense", 8),
    ] {
        let tree = Tree::new().with_smt(8).with_cgroups("0::/\n", V2_MOUNT);
        let grant = tree.with("sys/fs/cgroup/cpu.max", quota).grant(0..16);
        assert_eq!(grant.threads().get(), threads, "{quota}: {grant}");
    }
}

#[test]
fn kubernetes_with_a_limit_of_500m() {
    // From the node, without a namespace of its own: the container's limit is the smaller one.
    let own = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab.slice/cri-containerd-12.scope\n";
    let slice = "sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab.slice";
    let tree = |pod: &str, container: &str| {
        let tree = Tree::new().with_smt(4).with_cgroups(own, V2_MOUNT);
        tree.with("sys/fs/cgroup/kubepods.slice/cpu.max", "max 100000\n")
            .with(&format!("{slice}/cpu.max"), pod)
            .with(&format!("{slice}/cri-containerd-12.scope/cpu.max"), container)
            .grant(0..8)
    };
    assert_eq!(tree("200000 100000", "50000 100000").quota_cpus, Some(0.5));
    assert_eq!(tree("200000 100000", "50000 100000").threads().get(), 1);
    // The pod's limit holds for all of its containers.
    assert_eq!(tree("200000 100000", "max 100000").threads().get(), 2);
    assert_eq!(tree("200000 100000", "300000 100000").threads().get(), 2);
}

#[test]
fn the_static_cpu_manager_of_kubernetes_grants_whole_cores_or_parts_of_them() {
    // An exclusive set in the cpuset shows as affinity; its quota stands beside it.
    let tree = Tree::new().with_smt(8).with_cgroups("0::/\n", V2_MOUNT);
    let tree = tree.with("sys/fs/cgroup/cpu.max", "400000 100000\n");
    assert_eq!(tree.grant([1, 2, 9, 10]).threads().get(), 2, "two whole cores");
    assert_eq!(tree.grant([1, 2, 3, 4]).threads().get(), 4, "one CPU of each of four cores");
}

#[test]
fn taskset_on_siblings() {
    let tree = Tree::new().with_smt(4);
    for (cpus, cores) in
        [(&[0, 4][..], 1), (&[0, 4, 1, 5], 2), (&[0, 1, 2, 3], 4), (&[4, 5, 6, 7], 4), (&[7], 1)]
    {
        let grant = tree.grant(cpus.iter().copied());
        assert_eq!((grant.cpus, grant.cores, grant.threads().get()), (cpus.len(), cores, cores), "{cpus:?}");
    }
    assert_eq!(tree.grant([0, 4]).to_string(), "1 thread: 2 CPUs granted on 1 core, no quota");
}

#[test]
fn intel_hybrid_of_six_and_eight() {
    // Core i5-13600K: performance cores 0-1 to 10-11, efficiency cores 12 to 19; x86 has no `cpu_capacity`.
    let tree = (0..6).fold(Tree::new(), |tree, core| {
        let name = format!("sys/devices/system/cpu/cpu{}/topology/", 2 * core);
        let list = format!("{}-{}\n", 2 * core, 2 * core + 1);
        tree.with(&format!("{name}core_cpus_list"), &list)
            .with(&format!("sys/devices/system/cpu/cpu{}/topology/core_cpus_list", 2 * core + 1), &list)
    });
    let tree = (12..20).fold(tree, |tree, cpu| tree.with_core(&[cpu]));
    let tree = tree.with("sys/devices/cpu_core/cpus", "0-11\n").with("sys/devices/cpu_atom/cpus", "12-19\n");
    assert_eq!(tree.grant(0..20).to_string(), "14 threads: 20 CPUs granted on 14 cores, no quota");
    assert_eq!(tree.grant(0..12).threads().get(), 6, "performance cores only");
    assert_eq!(tree.grant(12..20).threads().get(), 8, "efficiency cores only");
}

#[test]
fn arm_boards() {
    let cores = |count: usize| (0..count).fold(Tree::new(), |tree, cpu| tree.with_core(&[cpu]));
    let capacities = |capacities: &[u32]| {
        let all = capacities.iter().enumerate();
        all.fold(cores(capacities.len()), |tree, (cpu, capacity)| tree.with_capacity(cpu, *capacity))
    };
    let pi5 = capacities(&[1024; 4]).grant(0..4);
    assert_eq!(pi5.to_string(), "4 threads: 4 CPUs granted on 4 cores, no quota");
    // Jetson Orin in a mode with 8 of 12 cores: the kernel grants what is online, and the others have no topology.
    assert_eq!(cores(8).grant(0..8).threads().get(), 8);
    // RK3588: four A55, four A76.
    assert_eq!(capacities(&[414, 414, 414, 414, 1024, 1024, 1024, 1024]).grant(0..8).threads().get(), 8);
    // A phone's silver, gold and prime cores, the first too slow beside the last.
    let phone = capacities(&[180, 180, 180, 180, 800, 800, 800, 1024]);
    let grant = phone.grant(0..8);
    assert_eq!(grant.to_string(), "4 threads: 8 CPUs granted on 8 cores (4 too slow to help), no quota");
    assert_eq!(phone.grant(0..4).threads().get(), 4, "slow cores alone are no slower than each other");
}

#[test]
fn lxc_with_files_of_its_own() {
    // lxcfs numbers what a container sees from 0 on, while the kernel's numbers stay: nothing may be read into that.
    let tree = (0..2).fold(Tree::new(), |tree, cpu| tree.with_core(&[cpu]));
    let cpuinfo = "processor\t: 0\nphysical id\t: 0\ncore id\t\t: 0\n\nprocessor\t: 1\nphysical id\t: 0\ncore id\t\t: 0\n\n";
    let tree = tree.with("proc/cpuinfo", cpuinfo).with("sys/devices/system/cpu/online", "0-1\n");
    assert_eq!(tree.grant([5, 6]).threads().get(), 2);
    // A list that was made for another numbering.
    let tree = tree.with("sys/devices/system/cpu/cpu5/topology/core_cpus_list", "0\n");
    assert_eq!(tree.grant([5, 6]).threads().get(), 2);
    // In version 1 the container's cgroup is what its mount shows.
    let mounts =
        "38 36 0:33 /lxc/web /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";
    let tree = tree.with_cgroups("4:cpu,cpuacct:/lxc/web/init.scope\n2:memory:/lxc/web\n", mounts);
    let tree = tree
        .with("sys/fs/cgroup/cpu,cpuacct/init.scope/cpu.cfs_quota_us", "-1\n")
        .with("sys/fs/cgroup/cpu,cpuacct/init.scope/cpu.cfs_period_us", "100000\n")
        .with("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "100000\n")
        .with("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    assert_eq!(tree.grant([5, 6]).quota_cpus, Some(1.0));
}

#[test]
fn version_1_of_cgroups() {
    let mounts = "\
        31 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n";
    let quota = |quota_us: &str| {
        Tree::new()
            .with_smt(4)
            .with_cgroups("9:cpuset:/box\n3:cpuacct,cpu:/docker/0123\n0::/\n", mounts)
            .with("sys/fs/cgroup/cpu/docker/0123/cpu.cfs_quota_us", quota_us)
            .with("sys/fs/cgroup/cpu/docker/0123/cpu.cfs_period_us", "100000\n")
            .grant(0..8)
    };
    assert_eq!(quota("-1\n").quota_cpus, None);
    assert_eq!(quota("-1\n").threads().get(), 4);
    assert_eq!(quota("300000\n").threads().get(), 3);
}

#[test]
fn paths_that_are_not_seen_and_names_with_spaces() {
    // The process was moved out of what its namespace shows: only the mounted top is known.
    let tree = Tree::new().with_smt(4).with_cgroups("0::/../other\n", V2_MOUNT);
    let tree =
        tree.with("sys/fs/cgroup/cpu.max", "200000 100000").with("sys/fs/other/cpu.max", "100000 100000");
    assert_eq!(tree.grant(0..8).quota_cpus, Some(2.0));
    let spaced = "35 24 0:27 / /sys/fs/my\\040cgroups rw - cgroup2 cgroup2 rw\n";
    let tree = Tree::new().with_smt(4).with_cgroups("0::/a: b\n", spaced);
    let tree = tree.with("sys/fs/my cgroups/a: b/cpu.max", "300000 100000\n");
    assert_eq!(tree.grant(0..8).quota_cpus, Some(3.0));
}

#[test]
fn without_sys_cpuinfo_tells_and_without_both_every_cpu_is_a_core() {
    assert_eq!(Tree::new().grant(0..4).to_string(), "4 threads: 4 CPUs granted on 4 cores, no quota");
    let cpu = |cpu: usize, core: usize| {
        format!(
            "processor\t: {cpu}\nvendor_id\t: GenuineIntel\nphysical id\t: 0\nsiblings\t: 4\ncore id\t\t: {core}\n\n"
        )
    };
    let cpuinfo = cpu(0, 0) + &cpu(1, 0) + &cpu(2, 1) + &cpu(3, 1);
    let tree = Tree::new().with("proc/cpuinfo", &cpuinfo);
    assert_eq!(tree.grant(0..4).cores, 2);
    assert_eq!(tree.grant([0, 2]).cores, 2);
    // Before 5.3 only the older name exists.
    let old = Tree::new()
        .with("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,2\n")
        .with("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "0,2\n");
    assert_eq!(old.grant([0, 2]).cores, 1);
}

/// What the kernel itself says of this machine.
#[test]
fn this_machine_is_reckoned() {
    let grant = CpuGrant::of_this_process();
    let most = std::thread::available_parallelism().unwrap();
    assert!(grant.cores >= 1 && grant.cores <= grant.cpus, "{grant}");
    // Both know of affinity and quota; only ours knows of cores, and rounds up from a half.
    assert!(grant.threads().get() <= most.get() + 1, "{grant}, {most} by the standard library");
    #[cfg(target_os = "linux")]
    if Path::new("/sys/devices/system/cpu/present").exists() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap();
        let bits: u32 = allowed.chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum();
        assert!(grant.cpus <= bits as usize, "{grant}, {bits} allowed");
    }
}
