//! Processes: clone3(2), namespaces, what a process gives up before it executes a program.
//!
//! Everything here acts on the calling thread or process and is meant for a process
//! with one thread: [`clone3`] refuses any other, since a copy of one thread of several
//! may find locks held for ever (`signal-safety(7)`).
#![allow(unsafe_code)]

use super::{Call, Result};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

/// The limit of this process with `count` open files, or as many as it may have (getrlimit(2)).
#[must_use]
pub fn open_files(count: u64) -> Rlimit {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Rlimit { current: Some(maximum.map_or(count, |most| most.min(count))), maximum }
}

/// How many files this process may have open at once.
#[must_use]
pub fn files_allowed() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Lets this process have `count` files open at once, or as many as it may.
pub fn allow_files(count: u64) {
    let wanted = open_files(count);
    if Some(files_allowed()) < wanted.current {
        let _ = setrlimit(Resource::Nofile, wanted);
    }
}

/// A child process: its id and a descriptor that stays its own, whatever becomes of the id.
#[derive(Debug)]
pub struct Child {
    /// The process id in the caller's pid namespace.
    pub pid: i32,
    /// `pidfd_open(2)`.
    pub pidfd: OwnedFd,
}

/// What [`clone3`] returns, once in each process.
#[derive(Debug)]
pub enum Fork {
    /// In the child.
    Child,
    /// In the parent.
    Parent(Child),
}

/// What `clone3` is to do beside copying the process.
#[derive(Debug, Default, Clone, Copy)]
pub struct CloneOptions<'a> {
    /// `CLONE_NEW*` and `CLONE_PARENT`.
    pub flags: u64,
    /// A cgroup v2 folder to begin in (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The descriptors that the child keeps beside the standard streams and `preserve` after
    /// them; it has copies of all where absent. Locks and ends of pipes that the child must
    /// not hold are let go of by this. In the child the owners of all other descriptors must
    /// be neither used nor dropped.
    pub keep: Option<&'a [i32]>,
    /// How many descriptors after the standard streams are kept, see `keep`.
    pub preserve: u32,
}

/// `libc` declares it in a type that it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn check(ret: libc::c_long) -> rustix::io::Result<libc::c_long> {
    if ret < 0 {
        let raw = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        return Err(Errno::from_raw_os_error(raw));
    }
    Ok(ret)
}

/// Copies this process: the child has a copy of its memory, of its descriptors, and the
/// new namespaces of `options.flags`.
///
/// # Errors
/// `EDEADLK` where this process has more than one thread; the failed clone3(2) call.
pub fn clone3(options: CloneOptions) -> Result<Fork> {
    await_single("clone3")?;
    let mut pidfd: libc::c_int = -1;
    let into = if options.cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    // SAFETY: all zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = options.flags | libc::CLONE_PIDFD as u64 | into;
    args.pidfd = &raw mut pidfd as u64;
    if options.flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    args.cgroup = options.cgroup.map_or(0, |c| u64::try_from(c.as_raw_fd()).unwrap_or(0));
    // SAFETY: without CLONE_VM the child gets copies of memory and stack; this process has
    // one thread, so no lock of another one is copied while it is held. `args` and `pidfd`
    // live across the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    let pid = check(pid).call(|| format!("clone3(flags {:#x})", args.flags))?;
    if pid == 0 {
        if let Some(keep) = options.keep {
            close_all_but(keep, 3 + options.preserve);
        }
        return Ok(Fork::Child);
    }
    // SAFETY: the kernel stored a fresh descriptor that nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent(Child { pid: i32::try_from(pid).unwrap_or(-1), pidfd }))
}

/// Copies this process as it is (fork(2)), where filters of system calls forbid clone3(2); none
/// in the copy; or for a copy that goes on as this process does, whose C library knows of it. For a process
/// with one thread, see [`await_single`].
///
/// # Errors
/// The failed call.
pub fn fork() -> Result<Option<Pid>> {
    // SAFETY: the C library puts its own locks in order; there is no other thread.
    let pid = unsafe { libc::fork() };
    check(pid.into()).call(|| "fork".to_string())?;
    Ok(Pid::from_raw(pid))
}

/// Takes over the descriptor `number` that this process was executed with, closed by the next
/// execve; none where it is not open.
#[must_use]
pub fn inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: F_SETFD changes a flag of a descriptor, or fails where there is none.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return None;
    }
    // SAFETY: it is open, and nothing else in this freshly executed program owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Waits until this process has one thread: those of a scope count a moment longer than the scope, until the
/// kernel has ended them. `call` is what needs it.
///
/// # Errors
/// `EDEADLK` where it has more.
pub fn await_single(call: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(1);
    while !is_single()? {
        if Instant::now() > end {
            return Err(Errno::DEADLK).call(|| format!("{call} in a process with several threads"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether this process has one thread.
fn is_single() -> Result<bool> {
    let folder = rustix::fs::stat("/proc/self/task").call(|| "stat(/proc/self/task)".to_string())?;
    Ok(folder.st_nlink <= 3)
}

/// Closes the descriptors after the standard streams that are not in `keep`.
fn close_all_but(keep: &[i32], mut first: u32) {
    let mut numbers: Vec<u32> = keep.iter().map(|fd| fd.unsigned_abs()).collect();
    numbers.sort_unstable();
    for end in numbers.into_iter().filter(|n| *n > 2).chain([u32::MAX]).collect::<Vec<_>>() {
        if end > first {
            // SAFETY: what is closed belongs to values that the child does not use, as the
            // documentation of `CloneOptions::keep` demands.
            unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) };
        }
        first = end.saturating_add(1);
    }
}

/// Enters namespaces: `fd` is one of `/proc/PID/ns/`, or a pidfd with several flags (setns(2)).
///
/// # Errors
/// The failed call; `name` is what it was meant to enter.
pub fn setns(fd: impl AsFd, flags: i32, name: &str) -> Result<()> {
    // SAFETY: no memory is passed; a process with one thread shares nothing that changes under it.
    let ret = unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags) };
    check(ret.into()).map(drop).call(|| format!("setns({name})"))
}

/// Leaves namespaces of its parent for new ones (unshare(2)).
///
/// # Errors
/// The failed call.
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: no memory is passed; descriptors are not unshared.
    let ret = unsafe { libc::unshare(flags) };
    check(ret.into()).map(drop).call(|| format!("unshare({flags:#x})"))
}

/// Sets a variable of this process's environment; to be called while it has one thread.
pub fn set_variable(name: &str, value: &std::ffi::OsStr) {
    // SAFETY: no other thread reads the environment meanwhile.
    unsafe { std::env::set_var(name, value) };
}

/// Has the program of `command` killed when the thread that starts it ends, however that happens.
pub fn ends_with_thread(command: &mut std::process::Command) {
    use rustix::process::{Signal, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt;
    let bind = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and execve there is one prctl(2), which allocates nothing.
    unsafe { command.pre_exec(bind) };
}

/// Ends this process at once: no destructors, no buffers, nothing of the process it was copied from.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: always sound; it does not return.
    unsafe { libc::_exit(code) }
}

/// Replaces the program (execve(2)); returns only to report the failure.
#[must_use]
pub fn execve(path: &CStr, args: &[CString], env: &[CString]) -> Errno {
    let (arguments, variables) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in a null pointer and point to strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), variables.as_ptr()) };
    last_errno()
}

/// Replaces the program by the one that `fd` is open on; returns only to report the failure.
#[must_use]
pub fn fexecve(fd: BorrowedFd, args: &[CString], env: &[CString]) -> Errno {
    let (arguments, variables) = (pointers(args), pointers(env));
    let (empty, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: as in `execve`; the path is the empty string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            empty,
            arguments.as_ptr(),
            variables.as_ptr(),
            flags,
        )
    };
    last_errno()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

fn last_errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Sets close-on-exec on all descriptors from `first` on (`close_range(2)`).
///
/// # Errors
/// The failed call.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    let flag = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: only flags of descriptors change; none is closed.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flag) };
    check(ret).map(drop).call(|| format!("close_range({first}, CLOEXEC)"))
}

/// Lets the descriptor `number` stay open across execve; false where there is none.
#[must_use]
pub fn keep_on_exec(number: i32) -> bool {
    // SAFETY: F_SETFD changes a flag of a descriptor, or fails where there is none.
    unsafe { libc::fcntl(number, libc::F_SETFD, 0) == 0 }
}

/// Closes the descriptors after the standard streams that this program was executed with: those of its own
/// making have a flag that an execve closes them by, these have not.
///
/// # Errors
/// The failed opendir(3) call.
pub fn close_inherited() -> Result<()> {
    let folder = std::fs::read_dir("/proc/self/fd").call(|| "opendir(/proc/self/fd)".to_string())?;
    let numbers = folder.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.filter(|n| *n > 2).collect::<Vec<_>>() {
        // SAFETY: F_GETFD reads a flag; what is closed has no owner in this program.
        unsafe {
            if libc::fcntl(number, libc::F_GETFD) == 0 {
                libc::close(number);
            }
        }
    }
    Ok(())
}

/// Makes these this process's standard input, output and error (dup2(2)).
///
/// # Errors
/// The failed call.
pub fn set_streams([stdin, stdout, stderr]: [BorrowedFd; 3]) -> Result<()> {
    rustix::stdio::dup2_stdin(stdin).call(|| "dup2(0)".to_string())?;
    rustix::stdio::dup2_stdout(stdout).call(|| "dup2(1)".to_string())?;
    rustix::stdio::dup2_stderr(stderr).call(|| "dup2(2)".to_string())
}

/// Opens `/dev/null`, to read and to write.
///
/// # Errors
/// The failed open(2) call.
pub fn null() -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, Mode::empty()).call(|| "open(/dev/null)".to_string())
}

/// Whether the descriptor `number` is open.
#[must_use]
pub fn is_open(number: i32) -> bool {
    // SAFETY: F_GETFD reads a flag.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Takes a new, empty session keyring (keyctl(2)), so that the caller's keys stay behind.
///
/// # Errors
/// The failed call; none where the kernel has no keyrings.
pub fn new_session_keyring(name: &str) -> Result<()> {
    let Ok(c_name) = CString::new(name) else { return Ok(()) };
    // SAFETY: `c_name` is a string that outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, c_name.as_ptr()) };
    match check(ret) {
        Ok(_) | Err(Errno::NOSYS) => Ok(()),
        Err(e) => Err(e).call(|| format!("keyctl(JOIN_SESSION_KEYRING, {name:?})")),
    }
}

/// Drops the capability `number` from the bounding set.
///
/// # Errors
/// The failed prctl(2) call.
pub fn drop_bounding(number: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    let ret = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
    check(ret.into()).map(drop).call(|| format!("prctl(CAPBSET_DROP, {number})"))
}

/// Adds the capability `number` to the ambient set; it must be permitted and inheritable.
///
/// # Errors
/// The failed prctl(2) call.
pub fn raise_ambient(number: u32) -> Result<()> {
    let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
    // SAFETY: no memory is passed.
    let ret = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, libc::c_ulong::from(number), 0, 0) };
    check(ret.into()).map(drop).call(|| format!("prctl(CAP_AMBIENT_RAISE, {number})"))
}

/// Sets the execution domain (personality(2)).
///
/// # Errors
/// The failed call.
pub fn personality(persona: u64) -> Result<()> {
    // SAFETY: no memory is passed.
    let ret = unsafe { libc::personality(persona) };
    check(ret.into()).map(drop).call(|| format!("personality({persona:#x})"))
}

/// Sets the I/O priority of this process (`ioprio_set(2))`: class 1 to 3, level 0 to 7.
///
/// # Errors
/// The failed call.
pub fn io_priority(class: u32, level: u32) -> Result<()> {
    let value = (class << 13) | level;
    // SAFETY: no memory is passed.
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) };
    check(ret).map(drop).call(|| format!("ioprio_set(class {class}, level {level})"))
}

/// Sets the scheduling policy of this process (`sched_setattr(2)`), all but the size of `attr`.
///
/// # Errors
/// The failed call.
pub fn scheduler(attr: &libc::sched_attr) -> Result<()> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0);
    let sized = libc::sched_attr { size, ..*attr };
    // SAFETY: `sized` is of the size that it says and only read.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const sized, 0) };
    check(ret).map(drop).call(|| format!("sched_setattr(policy {})", attr.sched_policy))
}

/// Loads a seccomp filter, classic BPF in the kernel's encoding (`seccomp(2)`).
///
/// # Errors
/// The failed call: malformed, too long, without `no_new_privs` and without `CAP_SYS_ADMIN`.
pub fn load_seccomp(program: &[libc::sock_filter], flags: u64) -> Result<()> {
    seccomp(program, flags).map(drop)
}

/// As [`load_seccomp`]; gives the descriptor that tells of the calls that a supervisor decides on
/// (`seccomp_unotify(2)`), closed by the next execve.
///
/// # Errors
/// As [`load_seccomp`]; `EBUSY` where this process has such a filter already.
pub fn load_seccomp_listening(program: &[libc::sock_filter], flags: u64) -> Result<OwnedFd> {
    let fd = seccomp(program, flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: the kernel made this descriptor for us, nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}

fn seccomp(program: &[libc::sock_filter], flags: u64) -> Result<libc::c_long> {
    let length = libc::c_ushort::try_from(program.len()).unwrap_or(0);
    let header = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `header` describes `program`, which the kernel copies and does not write to.
    let ret =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const header) };
    check(ret).call(|| format!("seccomp({length} instructions, flags {flags:#x})"))
}
