//! The other way: the kernel fills a filesystem that is empty at first.

use super::{Error, Kind, Layout, Options, Result, Unpublished, layout, write_at};
use crate::sys::loopdev::LoopDevice;
use crate::sys::{Call, mount::Mount};
use crate::tree::Tree;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use sys_mount::MountFlags;

/// Makes the filesystem `target` by letting `fill` write files below the folder `at`, where it is
/// mounted from a loop device meanwhile. The layout that is given is the one of the empty filesystem.
///
/// It takes root, and the image is another one each time: the kernel places files, and numbers them,
/// as it goes. [`write()`](super::write()) has neither disadvantage; this is for what can be had on a
/// mounted filesystem only. Whoever has called
/// [`private_mounts`](crate::sys::sandbox::private_mounts) shows the mount to no one, and leaves none
/// behind, however the process ends; the device goes with the mount.
///
/// # Errors
/// [`Error::TooSmall`], [`Error::Io`], [`Error::Sys`] where there is no device or no mount, or where
/// something still uses the filesystem at the end; those of `fill`. The target is as it was then.
pub fn write_through_loop<E: From<Error>>(
    target: &Path,
    at: &Path,
    options: &Options,
    fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<Layout, E> {
    let nothing = Tree::new();
    let size = layout(&nothing, options)?.size;
    let image = Unpublished::new(target)?;
    image.file.set_len(size).map_err(|e| Error::io("extend", target, e))?;
    let layout = write_at(&nothing, &image.file, target, 0, options)?;
    let mount = mount(&image.file, at, options.kind)?;
    fill(at)?;
    unmount(mount, &image.file)?;
    image.publish(target)?;
    Ok(layout)
}

fn mount(file: &File, at: &Path, kind: Kind) -> Result<Mount> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let device = LoopDevice::attach(Path::new(&path), false)?;
    let fstype = match kind {
        Kind::Ext4 => "ext4",
        Kind::Ext2 => "ext2",
    };
    let mount = Mount::new(device.path(), at, fstype, MountFlags::empty(), "")?;
    // The mount has it from here on.
    device.close()?;
    Ok(mount)
}

/// Unmounts; all is in the file then, or something else has the filesystem.
fn unmount(mount: Mount, file: &File) -> Result<()> {
    let at = mount.target().to_path_buf();
    mount.sync()?;
    mount.close()?;
    // A clean state, and, with a journal, nothing to be recovered from it.
    let (mut state, mut features) = ([0; 2], [0; 4]);
    let read = file.read_exact_at(&mut state, 1024 + 0x3a);
    let read = read.and_then(|()| file.read_exact_at(&mut features, 1024 + 0x60));
    read.map_err(|e| Error::io("read", &at, e))?;
    if u16::from_le_bytes(state) & 1 == 0 || u32::from_le_bytes(features) & 4 != 0 {
        Err(rustix::io::Errno::BUSY).call(|| format!("umount2({})", at.display()))?;
    }
    Ok(())
}
