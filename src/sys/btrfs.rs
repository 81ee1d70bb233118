//! Subvolumes of btrfs, by libbtrfsutil.

use super::{Error, Result, dir};
use btrfsutil::subvolume::{DeleteFlags, Subvolume};
use rustix::io::Errno;
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
