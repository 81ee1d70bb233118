//! Small trials of what this kernel does for this user: each does the thing and leaves nothing.
//!
//! What changes namespaces, mounts or filters runs in a child of its own ([`in_child`]),
//! whose mounts, interfaces and tables go with it. The rest works on files in a folder that
//! the caller gives and takes away.
#![allow(unsafe_code)]

use super::{Call, Error, Result, program};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsOpenFlags, MountFlags, MountPropagationFlags, fsconfig_set_string, fsopen, mount, mount_change,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Runs `trial` in a forked child, which then ends; gives what failed in it. To be called
/// while this process has no other thread.
///
/// # Errors
/// `name` with the child's error number.
pub fn in_child(name: &str, mut trial: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    // SAFETY: this process has one thread, so the child may allocate; it never gets to execve(2),
    // for the closure fails always, with 0 for success, and the spawn hands that back.
    unsafe { command.pre_exec(move || trial().and(Err(io::Error::from_raw_os_error(0)))) };
    match command.spawn() {
        Err(e) if e.raw_os_error() == Some(0) => Ok(()),
        Err(e) => Err(e).call(|| name.to_string()),
        Ok(mut child) => child.wait().map(drop).call(|| name.to_string()),
    }
}

/// In which user namespace a trial runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// This process's.
    Own,
    /// A new one, in which this user is root.
    New,
}

/// Gives this process new namespaces: `flags`, and for [`Users::New`] a user namespace.
fn enter(users: Users, mut flags: UnshareFlags) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    flags.set(UnshareFlags::NEWUSER, users == Users::New);
    // SAFETY: no memory or descriptor is shared differently.
    unsafe { unshare_unsafe(flags) }?;
    if users == Users::New {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    if flags.contains(UnshareFlags::NEWNS) {
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    }
    Ok(())
}

/// All namespaces that a container has.
///
/// # Errors
/// The failed call.
pub fn try_namespaces(users: Users) -> Result<()> {
    let flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWCGROUP;
    in_child("unshare", move || enter(users, flags))
}

/// An overlay with an upper directory in `folder`, written through.
///
/// # Errors
/// The failed call.
pub fn try_overlay(folder: &Path, users: Users) -> Result<()> {
    for name in ["lower", "upper", "work", "merged"] {
        super::dir::remove(&folder.join(name))?;
        rustix::fs::mkdir(folder.join(name), Mode::RWXU).call(|| format!("mkdir({name})"))?;
    }
    let (folder, made) = (folder.to_path_buf(), folder.join("work/work"));
    let data = if users == Users::New {
        c"lowerdir=lower,upperdir=upper,workdir=work,userxattr"
    } else {
        c"lowerdir=lower,upperdir=upper,workdir=work"
    };
    let tried = in_child("mount(overlay)", move || {
        enter(users, UnshareFlags::NEWNS)?;
        std::env::set_current_dir(&folder)?;
        mount(c"overlay", c"merged", c"overlay", MountFlags::empty(), data)?;
        std::fs::write("merged/file", "x")
    });
    // The kernel made it with mode 0: only root could remove it so.
    let _ = rustix::fs::chmod(made, Mode::RWXU);
    tried
}

/// The new mount API with one lower directory by itself.
///
/// # Errors
/// The failed call.
pub fn try_lowerdir(folder: &Path, users: Users) -> Result<()> {
    let folder = folder.to_path_buf();
    in_child("fsconfig(overlay, lowerdir+)", move || {
        enter(users, UnshareFlags::NEWNS)?;
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        Ok(fsconfig_set_string(&fs, "lowerdir+", &folder)?)
    })
}

/// Whether the kernel knows the filesystem `fstype`.
///
/// # Errors
/// The failed call.
pub fn try_filesystem(fstype: &str) -> Result<()> {
    fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map(drop).call(|| format!("fsopen({fstype})"))
}

/// Mounts `source` of type `fstype` read-only at the folder `target`.
///
/// # Errors
/// The failed call.
pub fn try_mount(source: &Path, target: &Path, fstype: &'static str) -> Result<()> {
    let (source, target) = (source.to_path_buf(), target.to_path_buf());
    in_child(&format!("mount({}, {fstype})", source.display()), move || {
        enter(Users::Own, UnshareFlags::NEWNS)?;
        Ok(mount(&source, &target, fstype, MountFlags::RDONLY, None)?)
    })
}

/// An extended attribute of a file in `folder`.
///
/// # Errors
/// The failed call.
pub fn try_xattr(folder: &Path, name: &str) -> Result<()> {
    let path = folder.join("xattr");
    std::fs::write(&path, "").call(|| format!("open({})", path.display()))?;
    rustix::fs::setxattr(&path, name, b"x", rustix::fs::XattrFlags::empty())
        .call(|| format!("setxattr({}, {name})", path.display()))
}

/// Shared blocks of two files in `folder`.
///
/// # Errors
/// The failed call.
pub fn try_reflink(folder: &Path) -> Result<()> {
    let (from, to) = (folder.join("from"), folder.join("to"));
    std::fs::write(&from, [1; 8192]).call(|| format!("write({})", from.display()))?;
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let open = |path: &PathBuf| {
        rustix::fs::openat(CWD, path, flags, Mode::RUSR).call(|| format!("open({})", path.display()))
    };
    rustix::fs::ioctl_ficlone(&open(&to)?, &open(&from)?).call(|| "ioctl(FICLONE)".to_string())
}

/// A seccomp filter that lets everything through.
///
/// # Errors
/// The failed call.
pub fn try_seccomp() -> Result<()> {
    in_child("seccomp(SECCOMP_SET_MODE_FILTER)", || {
        rustix::thread::set_no_new_privs(true)?;
        let mut code = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
        let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
        // SAFETY: the kernel copies the one instruction.
        let rc =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
}

/// Runs a network program inside a network namespace that goes with it.
///
/// # Errors
/// [`Error::NoProgram`], [`Error::Program`]; the failed call.
pub fn try_network(users: Users, program: &str, args: &[&str]) -> Result<()> {
    let mut command = program::command(program);
    command.args(args).stdin(Stdio::null());
    // SAFETY: this process has one thread; the child only enters its namespaces.
    unsafe { command.pre_exec(move || enter(users, UnshareFlags::NEWNET)) };
    program::finish(program, args, &mut command).map(drop)
}

/// A child in a user namespace, ended with the value.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A user namespace with the `count` ids from `first` on as 1 and up: by newuidmap and
/// newgidmap for an ordinary user, directly for root.
///
/// # Errors
/// [`Error::NoProgram`], [`Error::Program`]; the failed call.
pub fn try_sub_ids(first: u32, count: u32) -> Result<()> {
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    // SAFETY: as above.
    unsafe {
        command.pre_exec(|| Ok(unshare_unsafe(UnshareFlags::NEWUSER)?));
    }
    let child = Held(command.spawn().call(|| "unshare(CLONE_NEWUSER)".to_string())?);
    let pid = child.0.id().to_string();
    let ids = [rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()];
    for (kind, id) in ["uid", "gid"].into_iter().zip(ids) {
        let [id, first, count] = [id, first, count].map(|n| n.to_string());
        if rustix::process::geteuid().is_root() {
            let path = format!("/proc/{pid}/{kind}_map");
            let text = format!("0 {id} 1\n1 {first} {count}\n");
            let written = std::fs::OpenOptions::new().write(true).open(&path);
            written.and_then(|mut f| f.write_all(text.as_bytes())).call(|| format!("write({path})"))?;
        } else {
            program::output(&format!("new{kind}map"), &[&pid, "0", &id, "1", "1", &first, &count])?;
        }
    }
    Ok(())
}

/// Makes a cgroup in the folder `parent` and removes it.
///
/// # Errors
/// The failed call.
pub fn try_cgroup(parent: &Path) -> Result<()> {
    let path = parent.join(format!("shipimg-doctor-{}", std::process::id()));
    rustix::fs::mkdir(&path, Mode::RWXU).call(|| format!("mkdir({})", path.display()))?;
    rustix::fs::rmdir(&path).call(|| format!("rmdir({})", path.display()))
}

/// Whether `program` can be executed; what it says does not matter.
#[must_use]
pub fn has_program(program: &str) -> bool {
    !matches!(program::output(program, &["--version"]), Err(Error::NoProgram { .. } | Error::Syscall { .. }))
}
