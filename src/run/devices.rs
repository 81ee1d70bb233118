//! Device nodes and links below the container's `/dev` (`config-linux.md`, Default Devices).

use super::{
    Error, Result,
    spec::{Device, Spec},
};
use crate::sys::inroot::Root;
use crate::sys::sandbox::{DEVICE_LINKS, DEVICES};
use crate::sys::{Call, mountfd::Tree, userns};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, makedev, mknodat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Makes the default devices and links, and the devices of config.json. A `/dev` that is
/// bound from the host is left as it is.
///
/// # Errors
/// The failed call; a path that something else is at.
pub fn create(spec: &Spec, root: &Root) -> Result<()> {
    let host_dev = spec.mounts.iter().any(|m| {
        m.destination == Path::new("/dev")
            && (m.kind == "bind" || m.options.iter().any(|o| o.ends_with("bind")))
    });
    if host_dev {
        return Ok(());
    }
    let mapped = spec.has_namespace("user") || userns::ids() != userns::Ids::Host;
    for (name, major, minor) in DEVICES {
        let path = Path::new("/dev").join(OsStr::from_bytes(name.to_bytes()));
        if !spec.linux.devices.iter().any(|d| d.path == path) {
            let file_mode = Some(0o666);
            make(root, &Device { kind: "c".into(), path, major, minor, file_mode, uid: 0, gid: 0 }, mapped)?;
        }
    }
    spec.linux.devices.iter().try_for_each(|device| make(root, device, mapped))?;
    let dev = root.make_dir(Path::new("/dev"))?;
    for (target, name) in DEVICE_LINKS.into_iter().chain([(c"pts/ptmx", c"ptmx")]) {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Ok(Err(e).call(|| format!("symlinkat({target:?}, /dev, {name:?})"))?),
        }
    }
    Ok(())
}

fn make(root: &Root, device: &Device, mapped: bool) -> Result<()> {
    let invalid = |reason: String| Error::Invalid { field: "linux.devices".into(), reason };
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => return Err(invalid(format!("unknown type {other:?} of {}", device.path.display()))),
    };
    let number = if kind == FileType::Fifo { 0 } else { makedev(device.major, device.minor) };
    if mapped && kind != FileType::Fifo {
        // Nodes cannot be made in a user namespace; the host's are bound.
        let tree = Tree::copy(CWD, &device.path, false)?;
        let stat = rustix::fs::fstat(&tree).call(|| format!("fstat({})", device.path.display()))?;
        if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != number {
            let reason = format!("the host has something else at {}", device.path.display());
            return Err(invalid(reason));
        }
        let target = root.make_file(&device.path)?;
        return Ok(tree.attach(target, &device.path)?);
    }
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    let (dir, name) = root.parent(&device.path)?;
    let call = || format!("mknodat({}, {}:{})", device.path.display(), device.major, device.minor);
    match mknodat(&dir, name, kind, mode, number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let there = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).call(call)?;
            if FileType::from_raw_mode(there.st_mode) != kind || there.st_rdev != number {
                return Err(invalid(format!("something else is at {}", device.path.display())));
            }
        }
        Err(e) => return Ok(Err(e).call(call)?),
    }
    let owner = (Some(Uid::from_raw(device.uid)), Some(Gid::from_raw(device.gid)));
    rustix::fs::chownat(&dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).call(call)?;
    Ok(())
}

/// The container's `/dev/null`, which is bound over what is to be hidden: no link, and
/// truly device 1:3.
///
/// # Errors
/// [`Error::Invalid`] where it is something else.
pub fn null(root: &Root) -> Result<OwnedFd> {
    let (dev, name) = root.parent(Path::new("/dev/null"))?;
    let fd = rustix::fs::openat(&dev, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .call(|| "openat(/dev/null)".to_string())?;
    let stat = rustix::fs::fstat(&fd).call(|| "fstat(/dev/null)".to_string())?;
    let character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !character || stat.st_rdev != makedev(1, 3) {
        let reason = "the container's /dev/null is not the null device".to_string();
        return Err(Error::Invalid { field: "linux.maskedPaths".into(), reason });
    }
    Ok(fd)
}
