//! Mounts of whole filesystems, as mount(8) makes them, for the host's side.
//!
//! The runner's own mounts inside a container are made by file descriptor and live
//! in their own module; this one serves image files, overlays and bind mounts at
//! paths that shipimg made itself.

use super::{Call, Error, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::path::{Path, PathBuf};
use sys_mount::MountFlags;

/// A mount that this process made; detached when closed or dropped.
#[derive(Debug)]
pub struct Mount {
    target: PathBuf,
    armed: bool,
}

impl Mount {
    /// Mounts `source` of type `fstype` at `target`; `data` as in mount(2), comma separated.
    ///
    /// # Errors
    /// The failed call with source, target, type and data.
    pub fn new(source: &Path, target: &Path, fstype: &str, flags: MountFlags, data: &str) -> Result<Self> {
        sys_mount::Mount::builder()
            .fstype(fstype)
            .flags(flags)
            .data(data)
            .mount(source, target)
            .call(|| format!("mount({}, {}, {fstype}, {data:?})", source.display(), target.display()))?;
        Ok(Self { target: target.to_path_buf(), armed: true })
    }

    /// Binds `source` (a file or a directory, not what is mounted below it) to `target`.
    ///
    /// # Errors
    /// The failed call with both paths.
    pub fn bind(source: &Path, target: &Path) -> Result<Self> {
        Self::new(source, target, "none", MountFlags::BIND, "")
    }

    /// Where it is mounted.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Writes all of its filesystem that is still in memory.
    ///
    /// # Errors
    /// The failed call.
    pub fn sync(&self) -> Result<()> {
        let (at, flags) = (&self.target, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC);
        let dir = openat(CWD, at, flags, Mode::empty()).call(|| format!("open({})", at.display()))?;
        rustix::fs::syncfs(&dir).call(|| format!("syncfs({})", at.display()))
    }

    /// Leaves the mount in place when this value goes; the caller has recorded it elsewhere.
    pub fn keep(mut self) {
        self.armed = false;
    }

    /// Unmounts and reports whether that worked.
    ///
    /// # Errors
    /// The failed umount2 call.
    pub fn close(mut self) -> Result<()> {
        self.armed = false;
        unmount(&self.target)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.armed
            && let Err(e) = unmount(&self.target)
        {
            tracing::warn!("{e}");
        }
    }
}

/// Unmounts what is mounted at `target`; detaches it where it is busy.
///
/// The call is rustix's: sys-mount 3.1 passes `O_NOFOLLOW` for `UMOUNT_NOFOLLOW`, which the
/// kernel refuses with the answer for a path that is no mount point.
///
/// # Errors
/// The failed umount2 call; not for a target that is no mount point.
pub fn unmount(target: &Path) -> Result<()> {
    // Not by sys_mount: its NOFOLLOW is open(2)'s flag, which umount2(2) refuses.
    let umount = |flags| {
        rustix::mount::unmount(target, flags | UnmountFlags::NOFOLLOW)
            .call(|| format!("umount2({})", target.display()))
    };
    match umount(UnmountFlags::empty()) {
        Err(Error::Syscall { errno: Errno::BUSY, .. }) => umount(UnmountFlags::DETACH),
        Err(Error::Syscall { errno: Errno::INVAL | Errno::NOENT, .. }) => Ok(()),
        other => other,
    }
}

/// Unmounts everything that is mounted at `path` or below it, the newest first.
///
/// # Errors
/// The first failed umount2 call; an unreadable `/proc/self/mountinfo`.
pub fn unmount_below(path: &Path) -> Result<()> {
    let mut targets = mount_points()?;
    targets.retain(|t| t.starts_with(path));
    targets.iter().rev().try_for_each(|t| unmount(t))
}

/// The mount points of this mount namespace, oldest first (`proc_pid_mountinfo(5)`, field 5).
fn mount_points() -> Result<Vec<PathBuf>> {
    use std::os::unix::ffi::OsStringExt;
    let text = std::fs::read("/proc/self/mountinfo").call(|| "open(/proc/self/mountinfo)".to_string())?;
    let field = |line: &[u8]| line.split(|&b| b == b' ').nth(4).map(unescape);
    let points = text.split(|&b| b == b'\n').filter_map(field);
    Ok(points.map(|p| std::ffi::OsString::from_vec(p).into()).collect())
}

/// The type of the filesystem that the file at `path` is on (`proc_pid_mountinfo(5)`).
#[must_use]
pub fn filesystem_of(path: &Path) -> Option<String> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let id = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?.stx_mnt_id.to_string();
    let text = String::from_utf8_lossy(&std::fs::read("/proc/self/mountinfo").ok()?).into_owned();
    let line = text.lines().find(|l| l.split(' ').next() == Some(&id))?;
    line.split_once(" - ")?.1.split(' ').next().map(str::to_string)
}

/// Undoes the kernel's octal escapes (`\\040` for a space).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut i = 0;
    while i < field.len() {
        let octal = field.get(i + 1..i + 4).filter(|_| field[i] == b'\\');
        if let Some(byte) = octal.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok()) {
            out.push(byte);
            i += 4;
        } else {
            out.push(field[i]);
            i += 1;
        }
    }
    out
}

/// Whether something is mounted at `target` itself (statx(2), `STATX_ATTR_MOUNT_ROOT`).
///
/// # Errors
/// The failed statx call; a missing path is simply not a mount point.
pub fn is_mount_point(target: &Path) -> Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    match statx(CWD, target, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
        Ok(s) => Ok(s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(e) => Err(e).call(|| format!("statx({})", target.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmounts() {
        let tmp = tempfile::tempdir().unwrap();
        let none = || Mount::new(Path::new("none"), tmp.path(), "tmpfs", MountFlags::empty(), "").unwrap();
        none().close().unwrap();
        assert!(!is_mount_point(tmp.path()).unwrap());
        drop(none());
        none().keep();
        none().keep();
        unmount_below(tmp.path()).unwrap();
        assert!(!is_mount_point(tmp.path()).unwrap());
    }

    #[test]
    fn reads_mount_points() {
        assert_eq!(unescape(br"/a\040b\134c"), br"/a b\c");
        assert!(mount_points().unwrap().iter().any(|p| p == Path::new("/proc")));
        assert_eq!(filesystem_of(Path::new("/proc/self")).as_deref(), Some("proc"));
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(!is_mount_point(Path::new("/proc/self")).unwrap());
    }
}
