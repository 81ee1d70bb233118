//! The program's own file, kept from being overwritten through `/proc/PID/exe`.
//!
//! A process inside a container that sees a process of this program there could open its
//! `/proc/PID/exe` and, once the program is not running, write to it (CVE-2019-5736). So
//! what enters a container is executed through a read-only copy of its mount, or, where
//! mounts may not be made, from a sealed copy in memory: both refuse every write.

use super::mountfd::{Attributes, Tree, set_attributes};
use super::{Call, Result, process};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

const EXE: &str = "/proc/self/exe";
const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// Executes this program again, same arguments and environment, from a file that cannot
/// be written to; returns where it already runs from one. Call it before anything else.
///
/// # Errors
/// The failed call.
pub fn protect() -> Result<()> {
    if is_protected()? {
        return Ok(());
    }
    let file = read_only_copy().or_else(|_| sealed_copy())?;
    let c_string = |s: std::ffi::OsString| CString::new(s.into_vec()).unwrap_or_default();
    let args: Vec<_> = std::env::args_os().map(c_string).collect();
    let variable = |(mut k, v): (std::ffi::OsString, std::ffi::OsString)| {
        k.push("=");
        k.push(v);
        c_string(k)
    };
    let env: Vec<_> = std::env::vars_os().map(variable).collect();
    Err(process::fexecve(file.as_fd(), &args, &env)).call(|| format!("execveat({EXE})"))
}

/// The file that this process runs from, to be executed again.
///
/// # Errors
/// The failed open(2) call.
pub fn open() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::open(EXE, flags, Mode::empty()).call(|| format!("open({EXE})"))
}

fn is_protected() -> Result<bool> {
    let fs = rustix::fs::statvfs(EXE).call(|| format!("statvfs({EXE})"))?;
    if fs.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let file = std::fs::File::open(EXE).call(|| format!("open({EXE})"))?;
    Ok(rustix::fs::fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS)))
}

fn read_only_copy() -> Result<OwnedFd> {
    let tree = Tree::copy(CWD, Path::new(EXE), false)?;
    set_attributes(&tree, Attributes::set(libc::MOUNT_ATTR_RDONLY), false, EXE)?;
    Ok(tree.into_fd())
}

fn sealed_copy() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("shipimg", flags).call(|| "memfd_create".to_string())?;
    let mut memory = std::fs::File::from(memory);
    let mut file = std::fs::File::open(EXE).call(|| format!("open({EXE})"))?;
    std::io::copy(&mut file, &mut memory).call(|| format!("copy({EXE})"))?;
    rustix::fs::fcntl_add_seals(&memory, SEALS).call(|| "fcntl(ADD_SEALS)".to_string())?;
    Ok(memory.into())
}
