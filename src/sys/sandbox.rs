//! Runs a program of a root inside namespaces of its own, its output captured, or on the terminal.
//!
//! mount, pid, uts, ipc and network namespaces; the root pivoted to and the host's tree
//! detached before anything is mounted, so that no link of the root can lead a mount
//! elsewhere; /proc, /sys (read-only), /dev with the usual nodes, all its own. The
//! network has a loopback device that is down. The program is pid 1: when it ends, or its
//! parent does (`PR_SET_PDEATHSIG`), the kernel ends all that it started.
//!
//! The child is cloned from a process that may have threads: until execve(2) it makes
//! syscalls only, on memory that was prepared before. This is no border against a
//! program that means harm as root; it keeps honest maintainer scripts off the host.
#![allow(unsafe_code)]

use super::{Call, Error, Result, bpf, process, userns};
use rustix::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mkdirat, mknodat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount, fsopen, mount, mount_bind_recursive, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, setrlimit};
use std::ffi::{CStr, CString};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// The device nodes of a root's own /dev: name, major, minor; all mode 0666.
pub const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"null", 1, 3),
    (c"zero", 1, 5),
    (c"full", 1, 7),
    (c"random", 1, 8),
    (c"urandom", 1, 9),
    (c"tty", 5, 0),
];

/// The links of a root's own /dev: target, name.
pub const DEVICE_LINKS: [(&CStr, &CStr); 4] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
];

/// A program to run inside a root.
#[derive(Debug)]
pub struct Sandbox {
    /// The root's folder.
    pub root: PathBuf,
    /// The host name inside.
    pub hostname: String,
    /// Whether fsync(2) and its kin are answered with success and do nothing, for a root
    /// that nobody needs after a power failure.
    pub ignore_sync: bool,
}

/// Everything that the child needs, allocated before it is cloned.
struct Prepared {
    root: CString,
    hostname: Vec<u8>,
    program: CString,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    filter: Vec<libc::sock_filter>,
    /// Standard input, and what is both standard output and standard error; those of this
    /// process where there are none.
    streams: Option<(OwnedFd, OwnedFd)>,
    report: OwnedFd,
    /// The program's words and variables, to which the above point.
    _strings: [Vec<CString>; 2],
}

impl Sandbox {
    /// Runs `argv` with exactly the environment `env`; gives each line of standard output and
    /// standard error to `line` and, at the end, how the program ended.
    ///
    /// # Errors
    /// The failed call on the way to the program; not the program's own failure.
    pub fn run(&self, argv: &[&str], env: &[(&str, &str)], line: &mut dyn FnMut(&str)) -> Result<ExitStatus> {
        let (read, output) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2()".to_string())?;
        let (reported, report) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2()".to_string())?;
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let null = null.call(|| "open(/dev/null)".to_string())?;
        let prepared = self.prepare(argv, env, Some((null, output)), report)?;
        let pid = clone(&prepared)?;
        drop(prepared);
        let mut text = BufReader::new(std::fs::File::from(read));
        let mut bytes = Vec::new();
        while matches!(text.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
            line(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
            bytes.clear();
        }
        ended(pid, &reported)
    }

    /// Runs `argv` on this process's terminal, which is the program's meanwhile.
    ///
    /// # Errors
    /// As of [`Sandbox::run`].
    pub fn interact(&self, argv: &[&str], env: &[(&str, &str)]) -> Result<ExitStatus> {
        let (reported, report) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2()".to_string())?;
        let prepared = self.prepare(argv, env, None, report)?;
        // SAFETY: a disposition, put back below. Who takes the terminal back is in its background.
        let before = unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
        let pid = clone(&prepared);
        drop(prepared);
        let status = pid.and_then(|pid| ended(pid, &reported));
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp());
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGTTOU, before) };
        status
    }

    fn prepare(
        &self,
        argv: &[&str],
        env: &[(&str, &str)],
        streams: Option<(OwnedFd, OwnedFd)>,
        report: OwnedFd,
    ) -> Result<Prepared> {
        let strings = |list: Vec<String>| list.into_iter().map(c_string).collect::<Result<Vec<_>>>();
        let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        let words = strings(argv.iter().map(ToString::to_string).collect())?;
        let vars = strings(env.iter().map(|(k, v)| format!("{k}={v}")).collect())?;
        Ok(Prepared {
            root: c_string(self.root.to_string_lossy().into_owned())?,
            hostname: self.hostname.clone().into_bytes(),
            program: c_string(argv.first().map(ToString::to_string).unwrap_or_default())?,
            argv: pointers(&words),
            envp: pointers(&vars),
            filter: if self.ignore_sync { sync_filter() } else { Vec::new() },
            streams,
            report,
            _strings: [words, vars],
        })
    }
}

/// Waits for the child; an error where it did not come to its program.
fn ended(pid: libc::pid_t, reported: &OwnedFd) -> Result<ExitStatus> {
    let status = wait(pid)?;
    let mut answer = [0; 8];
    match rustix::io::read(reported, &mut answer) {
        Ok(8) => Err(failed_step(answer)),
        _ => Ok(status),
    }
}

fn c_string(text: String) -> Result<CString> {
    CString::new(text).map_err(|_| Errno::INVAL).call(|| "execve(a string with a NUL)".to_string())
}

/// The steps of the child, in order; their number tells the parent which one failed.
const STEPS: [&str; 13] = [
    "prctl(PR_SET_PDEATHSIG)",
    "mount(/, MS_PRIVATE)",
    "mount(root, MS_BIND)",
    "pivot_root(root)",
    "umount2(the host's tree)",
    "mount(/proc)",
    "mount(/sys)",
    "mount(/dev)",
    "mknod(/dev/…)",
    "sethostname",
    "dup2",
    "setrlimit(RLIMIT_NOFILE)",
    "seccomp",
];

/// How many files a program of the root may have open, as most systems have it: the same everywhere.
const FILES: u64 = 1024;

fn failed_step(answer: [u8; 8]) -> Error {
    let word = |at: usize| std::array::from_fn(|i| answer[at + i]);
    let step = usize::try_from(u32::from_ne_bytes(word(0))).unwrap_or(usize::MAX);
    let errno = Errno::from_raw_os_error(i32::from_ne_bytes(word(4)));
    let call = STEPS.get(step).map_or_else(|| "execve in the root".to_string(), |s| (*s).to_string());
    Error::Syscall { call, errno }
}

fn clone(prepared: &Prepared) -> Result<libc::pid_t> {
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with no stack given this is fork(2): the child runs on a
    // copy of this stack, and `child` makes only syscalls and never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    match pid {
        0 => child(prepared),
        -1 => Err(std::io::Error::last_os_error()).call(|| "clone(new namespaces)".to_string()),
        pid => Ok(libc::pid_t::try_from(pid).unwrap_or(-1)),
    }
}

fn wait(pid: libc::pid_t) -> Result<ExitStatus> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for an int.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            return Ok(ExitStatus::from_raw(status));
        }
        let e = std::io::Error::last_os_error();
        if e.kind() != std::io::ErrorKind::Interrupted {
            return Err(e).call(|| format!("waitpid({pid})"));
        }
    }
}

/// The child, from clone(2) to execve(2). No allocation, no lock.
fn child(p: &Prepared) -> ! {
    let (step, errno) = match enter(p) {
        Ok(()) => {
            // SAFETY: program, argv and envp are NUL-terminated and outlive the call.
            unsafe { libc::execve(p.program.as_ptr(), p.argv.as_ptr(), p.envp.as_ptr()) };
            // SAFETY: the address of errno of this thread.
            (STEPS.len(), unsafe { *libc::__errno_location() })
        }
        Err((step, errno)) => (step, errno.raw_os_error()),
    };
    let mut answer = [0; 8];
    answer[..4].copy_from_slice(&u32::try_from(step).unwrap_or(u32::MAX).to_ne_bytes());
    answer[4..].copy_from_slice(&errno.to_ne_bytes());
    let _ = rustix::io::write(&p.report, &answer);
    // SAFETY: ends this process at once, without handlers of the parent's.
    unsafe { libc::_exit(127) }
}

fn enter(p: &Prepared) -> std::result::Result<(), (usize, Errno)> {
    let at = |step: usize| move |e: Errno| (step, e);
    // SAFETY: plain prctl and signal calls; the Rust runtime ignores SIGPIPE, scripts expect
    // its default.
    let rc = unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)
    };
    if rc != 0 {
        return Err((0, Errno::INVAL));
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).map_err(at(1))?;
    mount_bind_recursive(p.root.as_c_str(), p.root.as_c_str()).map_err(at(2))?;
    rustix::process::chdir(p.root.as_c_str()).map_err(at(3))?;
    // Made while the host's are seen: a user namespace gets none otherwise.
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = detached(c"proc", safe).map_err(at(5))?;
    let sys = detached(c"sysfs", safe | MountAttrFlags::MOUNT_ATTR_RDONLY).map_err(at(6))?;
    let host = host_devices();
    rustix::process::pivot_root(c".", c".").map_err(at(3))?;
    unmount(c".", UnmountFlags::DETACH).map_err(at(4))?;
    rustix::process::chdir(c"/").map_err(at(4))?;
    let attach = |fs, place: &CStr| move_mount(fs, c"", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    attach(proc, c"/proc").map_err(at(5))?;
    attach(sys, c"/sys").map_err(at(6))?;
    mount(c"tmpfs", c"/dev", c"tmpfs", MountFlags::NOSUID, c"mode=755").map_err(at(7))?;
    devices(&host).map_err(at(8))?;
    rustix::system::sethostname(&p.hostname).map_err(at(9))?;
    if let Some((stdin, output)) = &p.streams {
        let streams: [(RawFd, RawFd); 3] =
            [(stdin.as_raw_fd(), 0), (output.as_raw_fd(), 1), (output.as_raw_fd(), 2)];
        for (from, to) in streams {
            // SAFETY: dup2 of an open descriptor; the copy has no close-on-exec flag.
            if unsafe { libc::dup2(from, to) } < 0 {
                return Err((10, Errno::BADF));
            }
        }
    }
    // SAFETY: marks every other descriptor close-on-exec; none is closed here.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if p.streams.is_some() {
        let _ = rustix::process::setsid();
    } else {
        // The foreground of the terminal, so that the shell's keys and jobs are its own.
        let _ = rustix::process::setpgid(None, None);
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp());
        // SAFETY: plain signal call.
        unsafe { libc::signal(libc::SIGTTOU, libc::SIG_DFL) };
    }
    setrlimit(Resource::Nofile, process::open_files(FILES)).map_err(at(11))?;
    apply(&p.filter).map_err(at(12))
}

/// A filesystem that is mounted nowhere yet.
fn detached(fstype: &CStr, attributes: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    let fs = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Copies of the mounts that the host's device nodes are in, for a user namespace, where nodes
/// cannot be made; none where a node is not to be had.
fn host_devices() -> [Option<OwnedFd>; DEVICES.len()] {
    let Ok(dev) =
        rustix::fs::open(c"/dev", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    else {
        return Default::default();
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    DEVICES.map(|(name, ..)| open_tree(&dev, name, flags).ok())
}

fn devices(host: &[Option<OwnedFd>]) -> rustix::io::Result<()> {
    let dev = rustix::fs::open(c"/dev", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::umask(Mode::empty());
    for ((name, major, minor), host) in DEVICES.into_iter().zip(host) {
        let mode = Mode::from_raw_mode(0o666);
        match (mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor)), host) {
            (Err(Errno::PERM), Some(node)) => {
                mknodat(&dev, name, FileType::RegularFile, mode, 0)?;
                move_mount(node, c"", &dev, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            }
            (other, _) => other?,
        }
    }
    for (target, name) in DEVICE_LINKS {
        symlinkat(target, &dev, name)?;
    }
    symlinkat(c"pts/ptmx", &dev, c"ptmx")?;
    mkdirat(&dev, c"pts", Mode::from_raw_mode(0o755))?;
    mkdirat(&dev, c"shm", Mode::from_raw_mode(0o1777))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let options = c"newinstance,ptmxmode=0666,mode=620,gid=5";
    mount(c"devpts", c"/dev/pts", c"devpts", MountFlags::NOSUID | MountFlags::NOEXEC, options)?;
    mount(c"shm", c"/dev/shm", c"tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777")
}

fn apply(filter: &[libc::sock_filter]) -> rustix::io::Result<()> {
    if filter.is_empty() {
        return Ok(());
    }
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program and does not write to it. No no_new_privs: the
    // caller is root of its user namespace, and set-id programs of the root must go on working.
    let rc =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if rc == 0 { Ok(()) } else { Err(Errno::PERM) }
}

/// A filter that answers synchronisation calls with 0 and lets all others through.
fn sync_filter() -> Vec<libc::sock_filter> {
    let mut calls = [
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_sync,
        libc::SYS_syncfs,
        libc::SYS_msync,
        libc::SYS_sync_file_range,
    ];
    calls.sort_unstable();
    let answered = bpf::Outcome::from(libc::SECCOMP_RET_ERRNO);
    let calls = calls.into_iter().filter_map(|call| Some((u32::try_from(call).ok()?, answered.clone())));
    let ranges = bpf::ranges(calls, libc::SECCOMP_RET_ALLOW);
    bpf::compile(vec![(bpf::NATIVE, ranges)], libc::SECCOMP_RET_ALLOW).unwrap_or_default()
}

/// Gives this process a mount namespace of its own, whose mounts no other process sees and
/// which go with it. To be called before a thread is started.
///
/// # Errors
/// The failed call.
pub fn private_mounts() -> Result<()> {
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: a new mount namespace shares no memory or descriptors differently; only the
    // view of mounts changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.call(|| "unshare(CLONE_NEWNS)".to_string())?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .call(|| "mount(/, MS_REC|MS_PRIVATE)".to_string())
}

/// The device nodes of a static /dev, as [`DEVICES`].
pub fn static_nodes() -> impl Iterator<Item = (&'static CStr, u32, u32)> {
    DEVICES.into_iter().chain([(c"console", 5, 1), (c"ptmx", 5, 2)])
}

/// Makes the nodes and links of a static /dev in `dev`; what is there stays. In a user namespace
/// the nodes are left out, which nobody can make there and a running system has from its kernel.
///
/// # Errors
/// The failed call.
pub fn static_devices(dev: impl AsFd, path: &Path) -> Result<()> {
    let fine = |r: rustix::io::Result<()>| match r {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    };
    let call = || format!("mknodat({})", path.display());
    for (name, major, minor) in static_nodes().filter(|_| userns::ids().is_host()) {
        fine(mknodat(
            &dev,
            name,
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            makedev(major, minor),
        ))
        .call(call)?;
        // The mode again: mknodat's is cut by the umask.
        rustix::fs::chmodat(&dev, name, Mode::from_raw_mode(0o666), rustix::fs::AtFlags::empty())
            .call(call)?;
    }
    for (target, name) in DEVICE_LINKS {
        fine(symlinkat(target, &dev, name)).call(call)?;
    }
    for name in [c"pts", c"shm"] {
        fine(mkdirat(&dev, name, Mode::from_raw_mode(0o755))).call(call)?;
    }
    Ok(())
}
