//! Names of network namespaces below `/run/netns`, as `ip netns add` makes them (ip-netns(8)).

use super::super::{Error, Result, io_error};
use crate::sys::{Call, mount};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_bind_recursive, mount_change};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where `ip netns` has them.
const FOLDER: &str = "/run/netns";

/// Takes the name, which is to be [`bind`]'s.
///
/// # Errors
/// [`Error::Taken`]; the failed call.
pub fn take(name: &str) -> Result<()> {
    let folder = Path::new(FOLDER);
    io_error("create", folder, fs::create_dir_all(folder))?;
    // Shared, so that the namespace is let go of in all mount namespaces when its name goes.
    let share = || mount_change(folder, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
    if share() == Err(Errno::INVAL) {
        mount_bind_recursive(folder, folder).call(|| format!("mount({FOLDER}, BIND)"))?;
        share().call(|| format!("mount({FOLDER}, SHARED)"))?;
    }
    let path = path_of(name);
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            Err(Error::Taken { what: format!("name {name}"), by: "another network namespace".to_string() })
        }
        other => io_error("create", &path, other.map(drop)),
    }
}

/// Makes the name that of the namespace of `pid`.
///
/// # Errors
/// The failed mount(2) call.
pub fn bind(name: &str, pid: i32) -> Result<()> {
    let path = path_of(name);
    let call = || format!("mount({}, BIND)", path.display());
    Ok(mount_bind(format!("/proc/{pid}/ns/net"), &path).call(call)?)
}

/// Takes the name away.
///
/// # Errors
/// The failed call; not where it is gone.
pub fn remove(name: &str) -> Result<()> {
    let path = path_of(name);
    mount::unmount(&path)?;
    match fs::remove_file(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => io_error("remove", &path, other),
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}
