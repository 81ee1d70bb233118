//! A store on a btrfs of its own, in an image file that is mounted at the store's root.
//!
//! ```text
//! ROOT/shipimg-store.json   {"btrfsImage": "/path/of/the/file"}, alone in the folder below the mount
//! ```
//!
//! While the image is mounted the record is hidden: who can see it has to mount, and does so
//! under its lock, so that two commands after a reboot mount once. The loop device goes with
//! the mount.

use super::{Error, Result, io_error};
use crate::sys::loopdev::LoopDevice;
use crate::sys::mount::Mount;
use crate::sys::{Call, program};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use sys_mount::MountFlags;

const RECORD: &str = "shipimg-store.json";

/// What `ROOT/shipimg-store.json` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Backing {
    btrfs_image: PathBuf,
}

/// Makes `image`, a sparse file of `size` bytes with a btrfs in it, and mounts it at `root`,
/// an empty folder or none.
///
/// # Errors
/// [`Error::Io`] where `root` has something in it or `image` exists; [`Error::Sys`] where there is no
/// `mkfs.btrfs`, no loop device or no right to mount. Nothing is left then.
pub fn init_btrfs(root: &Path, image: &Path, size: u64) -> Result<()> {
    check_empty(root)?;
    let file = io_error("create", image, File::create_new(image))?;
    let made = (|| {
        io_error("size", image, file.set_len(size))?;
        let image = io_error("resolve", image, image.canonicalize())?;
        program::output("mkfs.btrfs", &["-q".as_ref(), image.as_os_str()])?;
        io_error("create", root, fs::create_dir_all(root))?;
        let text =
            io_error("write", root, serde_json::to_vec(&Backing { btrfs_image: image }).map_err(Into::into))?;
        super::blob::write_atomic(&root.join(RECORD), &text)?;
        mount_backing(root)
    })();
    if made.is_err() {
        for path in [image, &root.join(RECORD)] {
            let _ = fs::remove_file(path);
        }
    }
    made
}

/// Refuses a folder with something in it.
///
/// # Errors
/// [`Error::Io`].
pub fn check_empty(root: &Path) -> Result<()> {
    if super::list(root)?.is_empty() {
        return Ok(());
    }
    let source = io::Error::new(io::ErrorKind::AlreadyExists, "the folder is not empty");
    Err(Error::Io { action: "make a store in", path: root.to_path_buf(), source })
}

/// Mounts the image that the store at `root` lies in, where it has one that is not mounted.
///
/// # Errors
/// [`Error::Io`] where the record cannot be read or the image is gone; [`Error::Sys`] where it cannot
/// be mounted.
pub fn mount_backing(root: &Path) -> Result<()> {
    let path = root.join(RECORD);
    let file = match File::open(&path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        file => io_error("open", &path, file)?,
    };
    flock(&file, FlockOperation::LockExclusive).call(|| format!("flock({})", path.display()))?;
    if !path.exists() {
        return Ok(());
    }
    let backing: Backing = io_error(
        "read",
        &path,
        serde_json::from_reader((&file).take(super::Limits::default().document)).map_err(Into::into),
    )?;
    let image = &backing.btrfs_image;
    io_error("open", image, File::open(image))?;
    let device = LoopDevice::attach_shared(image)?;
    Mount::new(device.path(), root, "btrfs", MountFlags::empty(), "")?.keep();
    Ok(())
}
