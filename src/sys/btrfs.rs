//! Subvolumes of btrfs, by libbtrfsutil.

#![allow(unsafe_code, reason = "an ioctl that no crate has")]

use super::{Error, Result, dir};
use btrfsutil::subvolume::{DeleteFlags, Subvolume};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// `BTRFS_SUPER_MAGIC` of statfs(2).
const MAGIC: u64 = 0x9123_683E;

/// The inode number of a subvolume's root (`BTRFS_FIRST_FREE_OBJECTID`).
const ROOT_INODE: u64 = 256;

/// The library leaves the kernel's answer in errno.
fn failed<T, E>(result: std::result::Result<T, E>, call: impl FnOnce() -> String) -> Result<T> {
    result.map_err(|_| {
        let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
        Error::Syscall { call: call(), errno }
    })
}

/// Whether `path` lies on btrfs.
///
/// # Errors
/// The failed statfs call.
pub fn is_btrfs(path: &Path) -> Result<bool> {
    use super::Call;
    let stat = rustix::fs::statfs(path).call(|| format!("statfs({})", path.display()))?;
    Ok(u64::try_from(stat.f_type) == Ok(MAGIC))
}

/// The identifier of the btrfs filesystem that a file is of, the same in all of its subvolumes; none
/// of another filesystem.
///
/// # Errors
/// The failed call.
pub fn filesystem(file: &File) -> Result<Option<[u8; 16]>> {
    use super::Call;
    /// `BTRFS_IOC_FS_INFO`, and the bytes of its argument (`linux/btrfs.h`).
    const FS_INFO: libc::c_ulong = 0x8400_941f;
    const SIZE: usize = 1024;
    let stat = rustix::fs::fstatfs(file).call(|| "fstatfs".to_string())?;
    if u64::try_from(stat.f_type) != Ok(MAGIC) {
        return Ok(None);
    }
    let mut info = [0u8; SIZE];
    // SAFETY: the kernel writes a structure of this size there, and keeps nothing of it.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_INFO as _, info.as_mut_ptr()) };
    let done = if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
    done.call(|| "ioctl(BTRFS_IOC_FS_INFO)".to_string())?;
    // After the highest number of a device, and how many there are.
    Ok(info[16..].first_chunk().copied())
}

/// Whether `path` is a subvolume's root.
///
/// # Errors
/// The failed statfs or stat call; not for a missing path.
pub fn is_subvolume(path: &Path) -> Result<bool> {
    use super::Call;
    use std::os::unix::fs::MetadataExt;
    match std::fs::symlink_metadata(path) {
        Ok(m) => Ok(m.is_dir() && m.ino() == ROOT_INODE && is_btrfs(path)?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).call(|| format!("lstat({})", path.display())),
    }
}

/// Makes an empty subvolume.
///
/// # Errors
/// The failed ioctl.
pub fn create(path: &Path) -> Result<()> {
    failed(Subvolume::create(path, None), || format!("ioctl({}, BTRFS_IOC_SUBVOL_CREATE)", path.display()))
        .map(drop)
}

/// Makes a writable snapshot of the subvolume `source`.
///
/// # Errors
/// The failed ioctl; EXDEV where `path` is on another filesystem.
pub fn snapshot(source: &Path, path: &Path) -> Result<()> {
    let call = || format!("ioctl({}, BTRFS_IOC_SNAP_CREATE_V2, {})", path.display(), source.display());
    let subvolume = failed(Subvolume::get(source), call)?;
    failed(subvolume.snapshot(path, None, None), call).map(drop)
}

/// Makes a subvolume read-only.
///
/// # Errors
/// The failed ioctl.
pub fn set_read_only(path: &Path) -> Result<()> {
    let call = || format!("ioctl({}, BTRFS_IOC_SUBVOL_SETFLAGS)", path.display());
    let subvolume = failed(Subvolume::get(path), call)?;
    failed(subvolume.set_ro(true), call)
}

/// Deletes a subvolume with the subvolumes in it. One that has used up its quota has no room
/// for the deletion; its limit is lifted then. Where the mount does not let ordinary users
/// delete theirs (`user_subvol_rm_allowed`, btrfs(5)), its files go one by one.
///
/// # Errors
/// The failed ioctl, or those of [`dir::remove`].
pub fn delete(path: &Path) -> Result<()> {
    match delete_once(path, DeleteFlags::RECURSIVE) {
        Err(e) if e.errno() == Some(Errno::DQUOT) => {
            let args = ["qgroup".as_ref(), "limit".as_ref(), "none".as_ref(), path.as_os_str()];
            if let Err(failed) = super::program::output("btrfs", &args) {
                tracing::warn!("{failed}");
                return Err(e);
            }
            delete_once(path, DeleteFlags::RECURSIVE)
        }
        // To look for subvolumes in it is root's alone, and so is to delete what is read-only.
        Err(e) if e.errno() == Some(Errno::PERM) => {
            let subvolume = failed(Subvolume::get(path), || format!("open({})", path.display()))?;
            failed(subvolume.set_ro(false), || {
                format!("ioctl({}, BTRFS_IOC_SUBVOL_SETFLAGS)", path.display())
            })?;
            delete_once(path, DeleteFlags::empty()).or_else(|_| dir::remove(path))
        }
        other => other,
    }
}

fn delete_once(path: &Path, flags: DeleteFlags) -> Result<()> {
    let call = || format!("ioctl({}, BTRFS_IOC_SNAP_DESTROY)", path.display());
    let subvolume = failed(Subvolume::get(path), call)?;
    failed(subvolume.delete(flags), call)
}
