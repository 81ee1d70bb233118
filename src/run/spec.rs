//! `config.json` as the runner reads it (OCI runtime-spec 1.2, `config.md`, `config-linux.md`).
//!
//! Read permissively, as other runtimes do: unknown fields are ignored, unknown
//! capabilities are skipped with a warning, `null` is as good as absent. What a launch
//! depends on and what would not be honoured is refused in `check.rs`, before
//! anything is made. `oci-spec`'s types are not used here: they refuse a document for one
//! unknown capability, and hold all lists in `Option`s behind getters.

use super::{Error, Result};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `null` means the default, as an absent field does.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// Declares structures whose fields all may be absent or `null`, in camelCase.
macro_rules! document {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default, Clone, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[$fdoc])* #[serde(deserialize_with = "nullable")] pub $field: $type,)*
        }
    )*};
}

document! {
    /// The whole document.
    Spec {
        /// Version of the runtime-spec that it follows.
        oci_version: String,
        /// The root filesystem.
        root: Option<Root>,
        /// What to mount, in this order.
        mounts: Vec<Mount>,
        /// What to run.
        process: Option<Process>,
        /// Host name in a new UTS namespace.
        hostname: String,
        /// NIS domain name in a new UTS namespace.
        domainname: String,
        /// Programs to run at points of the lifecycle.
        hooks: Hooks,
        /// Free text.
        annotations: BTreeMap<String, String>,
        /// Everything that is Linux's own.
        linux: Linux,
    }
    /// The root filesystem.
    Root {
        /// Relative to the bundle, or absolute.
        path: PathBuf,
        /// Whether it is mounted read-only.
        readonly: bool,
    }
    /// A mount.
    Mount {
        /// Absolute, inside the container.
        destination: PathBuf,
        /// Filesystem type; `bind` or nothing for bind mounts.
        #[serde(rename = "type")] kind: String,
        /// Device, name, or for a bind mount a path on the host.
        source: Option<String>,
        /// As in fstab(5).
        options: Vec<String>,
        /// Ids of an idmapped mount, those of the filesystem as the ones inside.
        uid_mappings: Vec<IdMapping>,
        /// Ids of an idmapped mount.
        gid_mappings: Vec<IdMapping>,
    }
    /// A program with its surroundings.
    Process {
        /// Whether it gets a terminal.
        terminal: bool,
        /// The terminal's size.
        console_size: Option<ConsoleSize>,
        /// Who it runs as.
        user: User,
        /// Program and arguments.
        args: Vec<String>,
        /// `NAME=value`.
        env: Vec<String>,
        /// Absolute, inside the container.
        cwd: PathBuf,
        /// The five sets; all empty where absent.
        capabilities: Option<Capabilities>,
        /// Resource limits.
        rlimits: Vec<Rlimit>,
        /// Whether execve may not raise privileges.
        no_new_privileges: bool,
        /// `AppArmor` profile.
        apparmor_profile: String,
        /// `SELinux` label.
        selinux_label: String,
        /// For the out-of-memory killer, -1000 to 1000.
        oom_score_adj: Option<i32>,
        /// Disk priority.
        io_priority: Option<IoPriority>,
        /// Scheduling policy.
        scheduler: Option<Scheduler>,
        /// Processors of what `exec` runs.
        #[serde(rename = "execCPUAffinity")] exec_cpu_affinity: Option<CpuAffinity>,
    }
    /// A terminal's size in characters.
    ConsoleSize {
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
    }
    /// Who a process runs as, in the container's ids.
    User {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// File mode creation mask; 0022 where absent.
        umask: Option<u32>,
        /// Supplementary groups.
        additional_gids: Vec<u32>,
    }
    /// Names of capabilities, as `CAP_KILL`.
    Capabilities {
        /// What it and its children can ever have.
        bounding: Vec<String>,
        /// What counts now.
        effective: Vec<String>,
        /// What files may pass on.
        inheritable: Vec<String>,
        /// What it may make effective.
        permitted: Vec<String>,
        /// What survives an execve without file capabilities.
        ambient: Vec<String>,
    }
    /// A resource limit, setrlimit(2).
    Rlimit {
        /// `RLIMIT_NOFILE` and so on.
        #[serde(rename = "type")] kind: String,
        /// Upper bound.
        hard: u64,
        /// What counts.
        soft: u64,
    }
    /// Disk priority, as `ioprio_set(2)` has it.
    IoPriority {
        /// `IOPRIO_CLASS_RT`, `…_BE`, `…_IDLE`.
        class: String,
        /// 0 (first) to 7 (last).
        priority: u32,
    }
    /// Scheduling policy, as `sched_setattr(2)` has it.
    Scheduler {
        /// `SCHED_OTHER` and so on.
        policy: String,
        /// -20 (first) to 19 (last).
        nice: i32,
        /// Of `SCHED_FIFO` and `SCHED_RR`, 1 to 99 (first).
        priority: u32,
        /// `SCHED_FLAG_RESET_ON_FORK` and so on.
        flags: Vec<String>,
        /// Of `SCHED_DEADLINE`, nanoseconds.
        runtime: u64,
        /// Of `SCHED_DEADLINE`, nanoseconds.
        deadline: u64,
        /// Of `SCHED_DEADLINE`, nanoseconds.
        period: u64,
    }
    /// Processors of what `exec` runs, as `0-3,7`.
    CpuAffinity {
        /// Before it is in the container's control groups.
        initial: String,
        /// From then on; all that the groups allow where empty.
        r#final: String,
    }
    /// Programs to run at points of the lifecycle.
    Hooks {
        /// Deprecated: as `create_runtime`, before it.
        prestart: Vec<Hook>,
        /// On the host, before the root is changed.
        create_runtime: Vec<Hook>,
        /// In the container's namespaces, before the root is changed.
        create_container: Vec<Hook>,
        /// In the container, before its program.
        start_container: Vec<Hook>,
        /// On the host, after the program was started.
        poststart: Vec<Hook>,
        /// On the host, after the container was deleted.
        poststop: Vec<Hook>,
    }
    /// A program to run.
    Hook {
        /// Absolute.
        path: PathBuf,
        /// With the program's name.
        args: Vec<String>,
        /// The whole environment.
        env: Vec<String>,
        /// Seconds.
        timeout: Option<u64>,
    }
    /// Everything that is Linux's own.
    Linux {
        /// New or existing namespaces.
        namespaces: Vec<Namespace>,
        /// User ids of a new user namespace.
        uid_mappings: Vec<IdMapping>,
        /// Group ids of a new user namespace.
        gid_mappings: Vec<IdMapping>,
        /// Clock offsets of a new time namespace, by `monotonic` and `boottime`.
        time_offsets: BTreeMap<String, TimeOffset>,
        /// Devices beyond the default ones.
        devices: Vec<Device>,
        /// Where in the cgroup tree.
        cgroups_path: String,
        /// Limits.
        resources: Resources,
        /// Propagation of the root mount.
        rootfs_propagation: String,
        /// Which system calls are allowed.
        seccomp: Option<Seccomp>,
        /// Kernel parameters.
        sysctl: BTreeMap<String, String>,
        /// Paths made unreadable.
        masked_paths: Vec<PathBuf>,
        /// Paths made read-only.
        readonly_paths: Vec<PathBuf>,
        /// `SELinux` label of mounts.
        mount_label: String,
        /// Cache allocation; refused.
        intel_rdt: Option<serde_json::Value>,
        /// Execution domain.
        personality: Option<Personality>,
    }
    /// A namespace.
    Namespace {
        /// `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup`, `time`.
        #[serde(rename = "type")] kind: String,
        /// An existing one to join; a new one where empty.
        path: PathBuf,
    }
    /// A range of ids.
    IdMapping {
        /// First id on the host.
        #[serde(rename = "hostID")] host_id: u32,
        /// First id inside.
        #[serde(rename = "containerID")] container_id: u32,
        /// How many.
        size: u32,
    }
    /// An offset of a clock.
    TimeOffset {
        /// Seconds.
        secs: i64,
        /// Nanoseconds.
        nanosecs: u32,
    }
    /// A device node.
    Device {
        /// `c`, `b`, `u` or `p`.
        #[serde(rename = "type")] kind: String,
        /// Absolute, inside the container.
        path: PathBuf,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Permission bits.
        file_mode: Option<u32>,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    }
    /// Execution domain, personality(2).
    Personality {
        /// `LINUX` or `LINUX32`.
        domain: String,
        /// None are known.
        flags: Vec<String>,
    }
    /// Limits of a control group.
    Resources {
        /// Which devices may be used.
        devices: Vec<DeviceRule>,
        /// Memory, in bytes.
        memory: Memory,
        /// Processor time.
        cpu: Cpu,
        /// Number of tasks.
        pids: Pids,
        /// Disk.
        #[serde(rename = "blockIO")] block_io: BlockIo,
        /// Huge pages.
        hugepage_limits: Vec<HugepageLimit>,
        /// Marks on what is sent.
        network: Network,
        /// RDMA devices by name.
        rdma: BTreeMap<String, Rdma>,
        /// Files of cgroup v2 with their content.
        unified: BTreeMap<String, String>,
    }
    /// A rule of the device control group.
    DeviceRule {
        /// Whether it allows.
        allow: bool,
        /// `a`, `b` or `c`; all where empty.
        #[serde(rename = "type")] kind: String,
        /// Major number, all where absent.
        major: Option<i64>,
        /// Minor number, all where absent.
        minor: Option<i64>,
        /// Of `r`, `w`, `m`.
        access: String,
    }
    /// Memory, in bytes; -1 is no limit.
    Memory {
        /// Limit.
        limit: Option<i64>,
        /// Soft limit.
        reservation: Option<i64>,
        /// Memory and swap together.
        swap: Option<i64>,
        /// 0 to 100.
        swappiness: Option<u64>,
        /// Limit of what TCP's buffers take in the kernel.
        #[serde(rename = "kernelTCP")] kernel_tcp: Option<i64>,
        /// Whether a limit below what is used already is refused.
        check_before_update: bool,
        /// Whether the out-of-memory killer is off.
        #[serde(rename = "disableOOMKiller")] disable_oom_killer: bool,
    }
    /// Processor time.
    Cpu {
        /// Relative weight.
        shares: Option<u64>,
        /// Microseconds per period; -1 is no limit.
        quota: Option<i64>,
        /// Microseconds.
        period: Option<u64>,
        /// Burst in microseconds.
        burst: Option<u64>,
        /// Microseconds for real-time tasks per period.
        realtime_runtime: Option<i64>,
        /// Microseconds.
        realtime_period: Option<u64>,
        /// 1 where its tasks run when nothing else does.
        idle: Option<i64>,
        /// Processors, `0-3,7`.
        cpus: String,
        /// Memory nodes.
        mems: String,
    }
    /// Number of tasks.
    Pids {
        /// Limit; none where 0 or less.
        limit: i64,
    }
    /// Disk.
    BlockIo {
        /// Relative weight, 10 to 1000.
        weight: Option<u16>,
        /// Of its tasks against the groups below it.
        leaf_weight: Option<u16>,
        /// Weights for single devices.
        weight_device: Vec<WeightDevice>,
        /// Bytes per second.
        throttle_read_bps_device: Vec<Throttle>,
        /// Bytes per second.
        throttle_write_bps_device: Vec<Throttle>,
        /// Operations per second.
        #[serde(rename = "throttleReadIOPSDevice")] throttle_read_iops_device: Vec<Throttle>,
        /// Operations per second.
        #[serde(rename = "throttleWriteIOPSDevice")] throttle_write_iops_device: Vec<Throttle>,
    }
    /// Weights for a device.
    WeightDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Relative weight, 10 to 1000.
        weight: Option<u16>,
        /// Of its tasks against the groups below it.
        leaf_weight: Option<u16>,
    }
    /// Marks on what a group sends.
    Network {
        /// For traffic control.
        #[serde(rename = "classID")] class_id: Option<u32>,
        /// For single interfaces.
        priorities: Vec<InterfacePriority>,
    }
    /// The priority of what is sent through an interface.
    InterfacePriority {
        /// The interface's name.
        name: String,
        /// Its priority.
        priority: u32,
    }
    /// Limits for an RDMA device.
    Rdma {
        /// Handles.
        hca_handles: Option<u32>,
        /// Objects.
        hca_objects: Option<u32>,
    }
    /// A rate for a device.
    Throttle {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Per second.
        rate: u64,
    }
    /// Huge pages.
    HugepageLimit {
        /// `2MB`, `1GB`.
        page_size: String,
        /// Bytes.
        limit: u64,
    }
    /// Which system calls are allowed.
    Seccomp {
        /// For calls that no rule names.
        default_action: String,
        /// For `SCMP_ACT_ERRNO`; EPERM where absent.
        default_errno_ret: Option<u32>,
        /// `SCMP_ARCH_X86_64` and so on.
        architectures: Vec<String>,
        /// `SECCOMP_FILTER_FLAG_LOG` and so on.
        flags: Vec<String>,
        /// Unix socket of the agent that decides on the calls of `SCMP_ACT_NOTIFY`.
        listener_path: PathBuf,
        /// What the agent is told beside the state.
        listener_metadata: String,
        /// Rules.
        syscalls: Vec<SyscallRule>,
    }
    /// A rule for system calls.
    SyscallRule {
        /// Names.
        names: Vec<String>,
        /// `SCMP_ACT_ALLOW` and so on.
        action: String,
        /// For `SCMP_ACT_ERRNO` and `SCMP_ACT_TRACE`.
        errno_ret: Option<u32>,
        /// Conditions, all of which must hold.
        args: Vec<SyscallArg>,
    }
    /// A condition on an argument.
    SyscallArg {
        /// 0 to 5.
        index: u32,
        /// What it is compared with; a mask for `SCMP_CMP_MASKED_EQ`.
        value: u64,
        /// What the masked argument must be.
        value_two: u64,
        /// `SCMP_CMP_EQ` and so on.
        op: String,
    }
}

impl Spec {
    /// Reads a document.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = super::io_error("read", path, std::fs::read(path))?;
        Self::parse(&text).map_err(|source| Error::Config { path: path.to_path_buf(), source })
    }

    /// Parses a document.
    ///
    /// # Errors
    /// What JSON it is not, or which field is of the wrong type.
    pub fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }

    /// Whether the container gets a namespace of this type that is not the caller's.
    #[must_use]
    pub fn has_namespace(&self, kind: &str) -> bool {
        self.linux.namespaces.iter().any(|n| n.kind == kind)
    }

    /// Whether it gets a new namespace of this type.
    #[must_use]
    pub fn new_namespace(&self, kind: &str) -> bool {
        self.linux.namespaces.iter().any(|n| n.kind == kind && n.path.as_os_str().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_others_read() {
        let spec = Spec::parse(
            br#"{"ociVersion":"1.0.2-dev","unknown":{"x":[1]},"root":{"path":"rootfs"},
            "process":{"cwd":"/","args":["sh"],"capabilities":{"bounding":["CAP_FROM_THE_FUTURE"]},"env":null},
            "mounts":[{"destination":"/x","type":"tmpfs"}],
            "linux":{"rootfsPropagation":"rprivate","resources":{"network":{}},"seccomp":null}}"#,
        )
        .unwrap();
        spec.process.as_ref().unwrap().check().unwrap();
        assert_eq!(spec.mounts[0].source, None);
    }
}
