//! Which system calls a container may make: the default profile, and profiles from files.
//!
//! The default is an allow list, put together from the calls that docker's and podman's
//! published defaults allow; where the two differ mostly the stricter one counts. Calls that
//! a capability is for come with the capability. `clone` may make no namespaces without
//! `CAP_SYS_ADMIN`; the flags of `clone3` are out of a filter's sight, so it answers `ENOSYS`
//! and libraries fall back to `clone`. What is known and denied answers `EPERM`, what is not
//! known here `ENOSYS`, so that programs try something older: `io_uring` too.

use super::{Error, Result};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

/// Allowed to all.
const ALLOWED: &str = "_llseek _newselect accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 \
    arm_sync_file_range bind breakpoint brk cachestat cacheflush capget capset chdir chmod chown chown32 \
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 \
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old \
    eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate \
    fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr \
    flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate \
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_mempolicy \
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 \
    getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority \
    getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt \
    gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit \
    ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self \
    lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr \
    lseek lsetxattr lstat lstat64 madvise map_shadow_stack mbind membarrier memfd_create memfd_secret mincore \
    mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify \
    mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal \
    msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open \
    openat openat2 pause pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free \
    pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease \
    process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read \
    readahead readdir readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg \
    remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq \
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity \
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl \
    semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_mempolicy \
    set_mempolicy_home_node set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32 \
    setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid \
    setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt \
    setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaction sigaltstack signal \
    signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend socketcall socketpair splice stat stat64 \
    statfs statfs64 statmount statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs syscall \
    sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 \
    timer_settime timer_settime64 timerfd timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime \
    utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Allowed with the capability, denied without; with any of several where a call is there twice.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr \
         move_mount open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module query_module"),
    ("CAP_SYS_NICE", "migrate_pages move_pages"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp process_madvise"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYSLOG", "syslog"),
];

/// Denied to all: `EPERM`, not `ENOSYS`.
const DENIED: &str = "add_key bdflush kexec_file_load kexec_load keyctl nfsservctl nice oldfstat oldlstat \
    oldolduname oldstat olduname request_key sgetmask ssetmask swapoff swapon sysfs uselib userfaultfd ustat \
    vm86 vm86old";

/// Execution domains that change nothing of security (personality(2)): `PER_LINUX`,
/// `PER_LINUX32`, both with `UNAME26`, and the question for the current one.
const PERSONALITIES: [u64; 5] = [0, 8, 0x20000, 0x20008, 0xffff_ffff];
/// The flags of clone(2) that make namespaces, but for that of clocks, which clone(2) has not.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;

/// The profile of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Seccomp {
    /// The one of this module.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// One of the caller's: as in config.json, or as docker's and podman's files have it, with
    /// rules for some architectures, kernels and capabilities only.
    Profile(Value),
}

/// `unconfined`, or the file of a profile.
///
/// # Errors
/// What is wrong with the file.
pub fn seccomp(text: &str) -> std::result::Result<Seccomp, String> {
    if text == "unconfined" {
        return Ok(Seccomp::Unconfined);
    }
    let file = std::fs::read(text).map_err(|e| format!("{text}: {e}"))?;
    let profile: Value = serde_json::from_slice(&file).map_err(|e| format!("{text}: {e}"))?;
    let chosen: LinuxSeccomp =
        serde_json::from_value(select(&profile, &[])).map_err(|e| format!("{text}: {e}"))?;
    drop(chosen);
    Ok(Seccomp::Profile(profile))
}

impl Seccomp {
    /// `linux.seccomp` for a process that can have the capabilities `caps`.
    ///
    /// # Errors
    /// [`Error::Spec`] for a profile that is none.
    pub fn section(&self, caps: &[String]) -> Result<Option<LinuxSeccomp>> {
        let value = match self {
            Self::Default => default_for(caps),
            Self::Unconfined => return Ok(None),
            Self::Profile(profile) => select(profile, caps),
        };
        Ok(Some(serde_json::from_value(value).map_err(|e| Error::Spec(e.into()))?))
    }
}

/// The architectures of this machine: its own, and those that it runs besides.
fn architectures() -> &'static [&'static str] {
    if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    }
}

fn default_for(caps: &[String]) -> Value {
    let has = |cap: &str| caps.iter().any(|c| c == cap);
    let groups = BY_CAPABILITY.iter().filter(|(cap, _)| has(cap));
    let granted: Vec<&str> = groups.flat_map(|(_, names)| names.split_whitespace()).collect();
    let mut allowed: Vec<&str> = ALLOWED.split_whitespace().chain(granted.iter().copied()).collect();
    let special = |name: &&str| !["clone", "clone3"].contains(name) && !granted.contains(name);
    let mut denied: Vec<&str> = BY_CAPABILITY
        .iter()
        .flat_map(|(_, names)| names.split_whitespace())
        .filter(special)
        .chain(DENIED.split_whitespace())
        .collect();
    for list in [&mut allowed, &mut denied] {
        list.sort_unstable();
        list.dedup();
    }
    let when = |name: &str, index: u32, op: &str, value: u64, two: u64| {
        json!({"names": [name], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": index, "op": op, "value": value, "valueTwo": two}]})
    };
    let mut rules = vec![
        json!({"names": allowed, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": denied, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM}),
        when("socket", 0, "SCMP_CMP_NE", AF_VSOCK, 0),
    ];
    rules.extend(PERSONALITIES.map(|domain| when("personality", 0, "SCMP_CMP_EQ", domain, 0)));
    if !granted.contains(&"clone") {
        rules.push(when("clone", 0, "SCMP_CMP_MASKED_EQ", NAMESPACE_FLAGS, 0));
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    }
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::ENOSYS,
        "architectures": architectures(), "syscalls": rules})
}

/// What of a profile is for this machine and these capabilities.
fn select(profile: &Value, caps: &[String]) -> Value {
    let mut out = profile.clone();
    let Some(fields) = out.as_object_mut() else { return out };
    if let Some(map) = fields.remove("archMap") {
        let own = map.as_array().into_iter().flatten().find(|e| e["architecture"] == architectures()[0]);
        let subs = own.and_then(|e| e["subArchitectures"].as_array().cloned()).unwrap_or_default();
        let all: Vec<Value> = own.map(|e| e["architecture"].clone()).into_iter().chain(subs).collect();
        fields.insert("architectures".to_string(), all.into());
    }
    if let Some(rules) = fields.get_mut("syscalls").and_then(Value::as_array_mut) {
        rules.retain(|rule| counts(rule, caps));
        for rule in rules.iter_mut().filter_map(Value::as_object_mut) {
            if let Some(name) = rule.remove("name").filter(|n| n.as_str().is_some_and(|n| !n.is_empty())) {
                rule.insert("names".to_string(), json!([name]));
            }
        }
    }
    out
}

/// Whether a rule is for this machine and these capabilities: all that `includes` wants is
/// there, and nothing of what `excludes` names.
fn counts(rule: &Value, caps: &[String]) -> bool {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let list = |part: &str, key: &str| -> Vec<String> {
        let words = rule[part][key].as_array().into_iter().flatten();
        words.filter_map(|w| w.as_str().map(String::from)).collect()
    };
    let kernel = |part: &str| rule[part]["minKernel"].as_str().is_none_or(newer_than);
    let arches = list("includes", "arches");
    (arches.is_empty() || arches.iter().any(|a| a == arch))
        && !list("excludes", "arches").iter().any(|a| a == arch)
        && list("includes", "caps").iter().all(|c| caps.contains(c))
        && !list("excludes", "caps").iter().any(|c| caps.contains(c))
        && kernel("includes")
        && (rule["excludes"]["minKernel"].is_null() || !kernel("excludes"))
}

/// Whether the kernel is `MAJOR.MINOR` or newer.
fn newer_than(wanted: &str) -> bool {
    let parse = |text: &str| -> Vec<u32> {
        let parts = text.split('.').take(2);
        parts
            .map(|p| p.split(|c: char| !c.is_ascii_digit()).next().unwrap_or("").parse().unwrap_or(0))
            .collect()
    };
    parse(&rustix::system::uname().release().to_string_lossy()) >= parse(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(section: &LinuxSeccomp, name: &str) -> Option<String> {
        let rules = section.syscalls().iter().flatten();
        let mut rules = rules.filter(|r| r.names().iter().any(|n| n == name));
        let rule = rules.next().map(|r| {
            let action = serde_json::to_value(r.action()).unwrap().as_str().unwrap().to_string();
            let errno = r.errno_ret().map_or_else(String::new, |e| format!(" {e}"));
            let when = if r.args().as_ref().is_some_and(|a| !a.is_empty()) { " sometimes" } else { "" };
            format!("{}{errno}{when}", action.trim_start_matches("SCMP_ACT_"))
        });
        assert!(name == "personality" || rules.next().is_none(), "{name} has two rules");
        rule
    }

    #[test]
    fn the_default_follows_the_capabilities() {
        let all: Vec<String> = BY_CAPABILITY.iter().map(|(cap, _)| cap.to_string()).collect();
        let [few, many] = [&[][..], &all[..]].map(|c| Seccomp::Default.section(c).unwrap().unwrap());
        for (name, without, with) in [
            ("openat", Some("ALLOW"), Some("ALLOW")),
            ("mount", Some("ERRNO 1"), Some("ALLOW")),
            ("bpf", Some("ERRNO 1"), Some("ALLOW")),
            ("clone", Some("ALLOW sometimes"), Some("ALLOW")),
            ("clone3", Some("ERRNO 38"), Some("ALLOW")),
            ("kexec_load", Some("ERRNO 1"), Some("ERRNO 1")),
            ("keyctl", Some("ERRNO 1"), Some("ERRNO 1")),
            ("socket", Some("ALLOW sometimes"), Some("ALLOW sometimes")),
            ("personality", Some("ALLOW sometimes"), Some("ALLOW sometimes")),
            ("io_uring_setup", None, None),
        ] {
            assert_eq!(action(&few, name).as_deref(), without, "{name}");
            assert_eq!(action(&many, name).as_deref(), with, "{name}");
        }
        let syslog = Seccomp::Default.section(&["CAP_SYSLOG".to_string()]).unwrap().unwrap();
        assert_eq!(action(&syslog, "syslog").as_deref(), Some("ALLOW"));
        let both: Vec<_> =
            DENIED.split_whitespace().filter(|n| ALLOWED.split(' ').any(|a| a == *n)).collect();
        assert!(both.is_empty(), "{both:?}");
    }

    #[test]
    fn profiles_of_other_tools() {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "archMap": [
                {"architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"]},
                {"architecture": architectures()[0], "subArchitectures": [architectures()[1]]}],
            "syscalls": [
                {"name": "read", "action": "SCMP_ACT_ALLOW", "includes": {}, "comment": "x"},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["umount"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["s390_runtime_instr"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["later"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "999.0"}},
                {"names": ["early"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}}]});
        let names = |caps: &[String]| -> Vec<String> {
            let section = Seccomp::Profile(profile.clone()).section(caps).unwrap().unwrap();
            assert_eq!(section.architectures().as_ref().unwrap().len(), 2);
            section.syscalls().iter().flatten().flat_map(|r| r.names().clone()).collect()
        };
        assert_eq!(names(&[]), ["read", "umount", "ptrace"]);
        assert_eq!(names(&["CAP_SYS_ADMIN".to_string()]), ["read", "mount", "ptrace"]);
        assert_eq!(seccomp("unconfined"), Ok(Seccomp::Unconfined));
        assert!(seccomp("/no/such/profile").unwrap_err().contains("No such file"));
        assert!(seccomp("/etc/passwd").unwrap_err().starts_with("/etc/passwd: "));
    }
}
