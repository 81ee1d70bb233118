//! Loop devices: a file as a block device (loop(4)).

use super::{Call, Error, Result};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// An attached loop device. It is attached with autoclear: the kernel detaches it when
/// its last user (this handle, a mount) is gone, so that none is leaked, even by SIGKILL.
#[derive(Debug)]
pub struct LoopDevice {
    device: loopdev::LoopDevice,
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches `file` to a free loop device.
    ///
    /// # Errors
    /// [`Error::NoLoopDevice`] where there is none to have; the failed call.
    pub fn attach(file: &Path, read_only: bool) -> Result<Self> {
        Self::attach_part(file, read_only, None)
    }

    /// Attaches a part of `file`, by offset and size in bytes, or all of it.
    ///
    /// # Errors
    /// Those of [`LoopDevice::attach`].
    pub fn attach_part(file: &Path, read_only: bool, part: Option<(u64, u64)>) -> Result<Self> {
        let name = || format!("loop attach({})", file.display());
        let none = |call: &'static str| {
            move |e: std::io::Error| Error::NoLoopDevice {
                call,
                errno: Errno::from_io_error(&e).unwrap_or(Errno::IO),
            }
        };
        let (offset, size) = part.unwrap_or((0, 0));
        let control = loopdev::LoopControl::open().map_err(none("open(/dev/loop-control)"))?;
        // Another process may take the free device between the question and the attach.
        for _ in 0..64 {
            let device = control.next_free().map_err(none("ioctl(/dev/loop-control, LOOP_CTL_GET_FREE)"))?;
            match device
                .with()
                .read_only(read_only)
                .autoclear(true)
                .offset(offset)
                .size_limit(size)
                .attach(file)
            {
                Ok(()) => {
                    let path = device.path().unwrap_or_default();
                    return Ok(Self { device, path });
                }
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
                Err(e) => return Err(e).call(name),
            }
        }
        Err(Errno::BUSY).call(name)
    }

    /// The device that has all of `file` already, else a fresh one, both for reading and writing.
    ///
    /// A filesystem that was unmounted lives on while something still uses it; mounted a second
    /// time by another device it would be two filesystems that write the same blocks.
    ///
    /// # Errors
    /// Those of [`LoopDevice::attach`]; the failed stat call.
    pub fn attach_shared(file: &Path) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(file).call(|| format!("stat({})", file.display()))?;
        let is_file = |sys: &Path| {
            let read = |name: &str| std::fs::read_to_string(sys.join("loop").join(name)).unwrap_or_default();
            let backing = std::fs::metadata(read("backing_file").trim_end_matches('\n'));
            backing.is_ok_and(|b| (b.dev(), b.ino()) == (meta.dev(), meta.ino()))
                && ["offset", "sizelimit"].iter().all(|n| read(n).trim() == "0")
        };
        let blocks = std::fs::read_dir("/sys/block").call(|| "opendir(/sys/block)".to_string())?;
        for sys in blocks.flatten().map(|e| e.path()).filter(|p| is_file(p)) {
            let path = Path::new("/dev").join(sys.file_name().unwrap_or_default());
            // Open, it stays attached; until then it may have gone.
            if let Ok(device) = loopdev::LoopDevice::open(&path)
                && is_file(&sys)
            {
                return Ok(Self { device, path });
            }
        }
        Self::attach(file, false)
    }

    /// The device's path, `/dev/loopN`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Detaches the device; while it is mounted the kernel does so at the unmount.
    ///
    /// # Errors
    /// The failed ioctl.
    pub fn close(self) -> Result<()> {
        self.device.detach().call(|| format!("ioctl({}, LOOP_CLR_FD)", self.path.display()))
    }
}
