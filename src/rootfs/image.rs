//! `image`: an overlay over a filesystem image, which is mounted read-only: erofs from the file
//! itself where the kernel can (6.12), others from a loop device. Of a disk with a table of partitions
//! it is the first partition that holds a filesystem.
//!
//! The image's bytes never change: the loop device is read-only, and journals are not
//! replayed (ext4 `noload`, btrfs `rescue=nologreplay`). The loop device detaches itself at
//! the unmount.

use super::{Access, Driver, DriverKind, Error, Result, Rootfs, Source, area, overlay};
use crate::disk::explain;
use crate::store::Store;
use crate::sys::loopdev::LoopDevice;
use crate::sys::mount::{self, Mount};
use crate::sys::{self, Call, userns};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use sys_mount::MountFlags;

/// Filesystems: where in the file which bytes are, the type, options that keep it unchanged.
const MAGICS: [(u64, &[u8], &str, &str); 4] = [
    (0x438, &[0x53, 0xef], "ext4", "noload"),
    (0, b"hsqs", "squashfs", ""),
    (0x400, &[0xe2, 0xe1, 0xf5, 0xe0], "erofs", ""),
    (0x1_0040, b"_BHRfS_M", "btrfs", "rescue=nologreplay"),
];

pub(super) struct ImageFile;

impl Driver for ImageFile {
    fn create(&self, _: &Store, source: &Source, bundle: &Path, rootfs: &mut Rootfs) -> Result<()> {
        let Source::File(file) = source else {
            return Err(Error::Source { driver: DriverKind::Image, source_kind: source.what() });
        };
        rootfs.image = Some(file.canonicalize().call(|| format!("realpath({})", file.display()))?);
        for name in ["lower", "upper", "work", "rootfs"] {
            area::make_dir(&bundle.join(name))?;
        }
        rootfs.lowers = vec![bundle.join("lower")];
        self.mount(rootfs, bundle, Access::Write)
    }

    fn mount(&self, rootfs: &Rootfs, bundle: &Path, access: Access) -> Result<()> {
        let lower = bundle.join("lower");
        if let Some(file) = &rootfs.image
            && !mount::is_mount_point(&lower)?
        {
            mount_file(file, &lower)?.keep();
        }
        overlay::mount_again(rootfs, bundle, access)
    }

    fn remove(&self, bundle: &Path) -> Result<()> {
        area::remove_dirs(bundle, &["rootfs", "lower", "upper", "work"])
    }
}

/// Mounts the image `file` read-only at `target`; of a disk the first partition with a filesystem that
/// is known.
///
/// # Errors
/// [`Error::NotAnImage`], [`Error::RootMounts`], the failed call.
pub fn mount_file(file: &Path, target: &Path) -> Result<Mount> {
    let Detected { fstype, options, part } = detect(file)?;
    if fstype == "erofs"
        && part.is_none()
        && let Ok(mounted) = Mount::new(file, target, fstype, MountFlags::RDONLY, options)
    {
        return Ok(mounted);
    }
    let device = LoopDevice::attach_part(file, true, part).map_err(|e| refused(file, e))?;
    let mounted = Mount::new(device.path(), target, fstype, MountFlags::RDONLY, options);
    mounted.map_err(|e| refused(file, e))
}

/// Why `file` is not mounted: in a user namespace the kernel trusts no filesystem image.
fn refused(file: &Path, source: sys::Error) -> Error {
    if userns::ids().is_host() { source.into() } else { Error::RootMounts { file: file.into(), source } }
}

/// A filesystem that was found.
struct Detected {
    fstype: &'static str,
    options: &'static str,
    /// Of a disk: offset and size in bytes.
    part: Option<(u64, u64)>,
}

/// The filesystem in `file`.
fn detect(path: &Path) -> Result<Detected> {
    let open = || -> sys::Result<File> {
        let file = File::open(path).call(|| format!("open({})", path.display()))?;
        let meta = file.metadata().call(|| format!("fstat({})", path.display()))?;
        if meta.is_dir() {
            return Err(rustix::io::Errno::ISDIR).call(|| format!("open({})", path.display()));
        }
        Ok(file)
    };
    let file = open()?;
    let has = |at: u64, magic: &[u8]| {
        let mut bytes = vec![0; magic.len()];
        file.read_exact_at(&mut bytes, at).is_ok() && bytes == magic
    };
    let within = |base: u64| MAGICS.iter().find(move |(at, magic, ..)| has(base.saturating_add(*at), magic));
    let parts = explain::partitions(&file);
    let mut parts = parts.iter().flatten();
    let in_part = || parts.find_map(|p| Some((within(p.offset)?, Some((p.offset, p.size)))));
    let found = within(0).map(|found| (found, None)).or_else(in_part);
    found
        .map(|((.., fstype, options), part)| Detected { fstype, options, part })
        .ok_or_else(|| Error::NotAnImage(PathBuf::from(path)))
}
