//! btrfs: as root by the kernel, on a loop device; else by `mkfs.btrfs --rootdir`.
//!
//! Both put times, keys and a UUID of their own into it: no two are the same. Nor may they be, as long as
//! both are there: a UUID is how the kernel knows the devices of one filesystem. `--rootdir` needs no mount, but
//! knows no parts of seconds, no numbers of devices and no time of the root; what the kernel writes is
//! all that the files are.

use super::{Result, Root, Settings, fill, inside, unpack, write_error};
use crate::disk::ext4::Size;
use crate::disk::{self, Source};
use crate::sys::loopdev::LoopDevice;
use crate::sys::mount::Mount;
use crate::sys::workspace::Workspace;
use crate::sys::{program, userns};
use crate::tree::{Kind, Tree};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::Path;
use sys_mount::MountFlags;

/// The least size of a btrfs filesystem, in bytes (mkfs.btrfs, with metadata twice).
pub(super) const LEAST: u64 = 109 << 20;

/// Writes `root` as the filesystem `path`; gives its size in bytes.
pub(super) fn write(root: &Root, path: &Path, settings: &Settings) -> Result<u64> {
    let work = Workspace::beside(path)?;
    let new = work.path().join("image");
    let image = File::create_new(&new).map_err(write_error(path))?;
    if userns::ids().is_host() {
        let dir = inside(&work)?;
        let size = size(root.files.tree(), settings.size);
        image.set_len(size).map_err(write_error(path))?;
        mkfs(&new, settings, None)?;
        let size = mounted(root, &new, &dir, size, settings.size == Size::Shrink)?;
        image.set_len(size).map_err(write_error(path))?;
    } else {
        by_rootdir(root, path, &new, &inside(&work)?.join("root"), settings)?;
    }
    let size = image.metadata().map_err(write_error(path))?.len();
    if let Size::Fixed(wanted) = settings.size
        && size > wanted
    {
        // It takes what it needs, whatever there was.
        return Err(disk::Error::TooSmall { size: wanted, needed: size }.into());
    }
    fs::rename(&new, path).map_err(write_error(path))?;
    Ok(size)
}

fn mkfs(image: &Path, settings: &Settings, files: Option<&Path>) -> Result<()> {
    let label: String = settings.label.chars().take(64).collect();
    let mut args: Vec<OsString> = ["-q", "-L", &label].map(OsString::from).into();
    if let Some(files) = files {
        args.extend(["--rootdir".into(), files.into()]);
    }
    args.push(image.into());
    program::output("mkfs.btrfs", &args)?;
    Ok(())
}

fn by_rootdir(root: &Root, path: &Path, image: &Path, dir: &Path, settings: &Settings) -> Result<()> {
    if root.files.tree().values().any(|n| matches!(n.kind, Kind::Char(..) | Kind::Block(..))) {
        tracing::warn!("{}: mkfs.btrfs gives devices no numbers", path.display());
    }
    unpack(root, dir)?;
    if let Size::Fixed(size) = settings.size {
        let file = File::options().write(true).open(image).map_err(write_error(path))?;
        file.set_len(size).map_err(write_error(path))?;
    }
    mkfs(image, settings, Some(dir))
}

/// How large a file is made for the kernel to fill. Space is given to content or metadata in large
/// pieces, a tenth of it each, so that it takes more than the sum.
fn size(tree: &Tree, wanted: Size) -> u64 {
    const BLOCK: u64 = 4096;
    /// Of a file's metadata, both copies: items of inode, names, content and sums.
    const FILE: u64 = 4096;
    let content = |size: u64| size.next_multiple_of(BLOCK) + size / 256;
    let used: u64 = tree.values().map(|n| FILE + content(n.size)).sum();
    let free = match wanted {
        Size::Fixed(size) => return size,
        Size::Auto { free } => free.unwrap_or((used / 4).max(64 << 20)),
        Size::Shrink => 16 << 20,
    };
    let all = used + free;
    (all + all / 5).next_multiple_of(1 << 20) + LEAST
}

/// Lets the kernel write the files into a filesystem of `size` bytes; gives its size then, which is
/// another one with `shrink`. The mount has the device from its beginning to its end: nothing is left
/// of either, however this process ends, where its [mounts](super::mounts) are its own.
fn mounted(root: &Root, image: &Path, at: &Path, size: u64, shrink: bool) -> Result<u64> {
    let device = LoopDevice::attach(image, false)?;
    let mount = Mount::new(device.path(), at, "btrfs", MountFlags::empty(), "")?;
    device.close()?;
    fill(root, at)?;
    mount.sync()?;
    let size = if shrink { shrunk(at, size)? } else { size };
    mount.sync()?;
    mount.close()?;
    Ok(size)
}

/// Makes the filesystem of `size` bytes that is mounted at `at` as small as btrfs can tell; gives its
/// size then.
fn shrunk(at: &Path, size: u64) -> Result<u64> {
    /// The kernel makes none smaller.
    const SMALLEST: u64 = 256 << 20;
    let args = ["inspect-internal".as_ref(), "min-dev-size".as_ref(), at.as_os_str()];
    let told = program::output("btrfs", &args)?;
    let least = String::from_utf8_lossy(&told).split_whitespace().next().and_then(|n| n.parse().ok());
    let new = least.unwrap_or(size).max(SMALLEST);
    if new >= size {
        return Ok(size);
    }
    let bytes = new.to_string();
    let args = ["filesystem".as_ref(), "resize".as_ref(), OsStr::new(&bytes), at.as_os_str()];
    program::output("btrfs", &args)?;
    Ok(new)
}
