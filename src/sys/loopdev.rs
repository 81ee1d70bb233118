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
        let name = || format!("loop attach({})", file.display());
        let none = |call: &'static str| {
            move |e: std::io::Error| Error::NoLoopDevice {
                call,
                errno: Errno::from_io_error(&e).unwrap_or(Errno::IO),
            }
        };
        let control = loopdev::LoopControl::open().map_err(none("open(/dev/loop-control)"))?;
        // Another process may take the free device between the question and the attach.
        for _ in 0..64 {
            let device = control.next_free().map_err(none("ioctl(/dev/loop-control, LOOP_CTL_GET_FREE)"))?;
            match device.with().read_only(read_only).autoclear(true).attach(file) {
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
