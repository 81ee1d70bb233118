//! Files that appear under their name when they are whole.
//!
//! Such a file has no name until then (`O_TMPFILE`), or where the filesystem has no such files, the
//! one name `.NAME.new` beside the target, which the next run takes over. Then it is renamed over
//! the target.

use super::{Error, Result};
use crate::sys::Call;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, linkat, openat};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A new file that does not have its name yet.
#[derive(Debug)]
pub struct Unpublished {
    /// The file, open for reading and writing.
    pub file: File,
    /// Its name, where the filesystem cannot do without.
    named: Option<PathBuf>,
}

impl Unpublished {
    /// A file that is to become `target`.
    ///
    /// # Errors
    /// The failed call, as [`Error::Io`].
    pub fn new(target: &Path) -> Result<Self> {
        let dir = folder(target);
        let mode = Mode::from_raw_mode(0o644);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(fd) = openat(rustix::fs::CWD, dir, flags, mode) {
            return Ok(Self { file: fd.into(), named: None });
        }
        let name = beside(target);
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(&name);
        let file = file.map_err(|e| Error::io("create", &name, e))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| Error::io("lock", &name, e.into()))?;
        file.set_len(0).map_err(|e| Error::io("truncate", &name, e))?;
        Ok(Self { file, named: Some(name) })
    }

    /// Gives the file its name, in place of what has it.
    ///
    /// # Errors
    /// The failed call, as [`Error::Io`] or [`Error::Sys`].
    pub fn publish(mut self, target: &Path) -> Result<()> {
        let name = beside(target);
        if self.named.is_none() {
            // A name that a killed process left.
            let _ = fs::remove_file(&name);
            let fd = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(rustix::fs::CWD, &fd, rustix::fs::CWD, &name, AtFlags::SYMLINK_FOLLOW)
                .call(|| format!("linkat({fd}, {})", name.display()))?;
            self.named = Some(name.clone());
        }
        fs::rename(&name, target).map_err(|e| Error::io("rename", target, e))?;
        self.named = None;
        Ok(())
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        if let Some(name) = &self.named {
            let _ = fs::remove_file(name);
        }
    }
}

fn folder(target: &Path) -> &Path {
    target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    folder(target).join(format!(".{name}.new"))
}
