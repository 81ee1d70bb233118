//! Scratch folders: gone with their owner, or with the next command.
//!
//! The owner of a scratch folder holds a flock on it. Making one takes a shared lock
//! on `tmp/` itself, sweeping an exclusive one, so that a fresh folder is never taken
//! for an abandoned one.

use super::{Result, io_error};
use crate::sys::{Call, mount};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File};
use std::path::Path;
use tempfile::TempDir;

/// A locked temporary folder on the store's filesystem.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    pub(super) fn new(tmp: &Path) -> Result<Self> {
        let parent = io_error("open", tmp, File::open(tmp))?;
        flock(&parent, FlockOperation::LockShared).call(|| format!("flock({})", tmp.display()))?;
        let dir = io_error("create a folder in", tmp, tempfile::Builder::new().prefix("").tempdir_in(tmp))?;
        let lock = io_error("open", dir.path(), File::open(dir.path()))?;
        flock(&lock, FlockOperation::LockExclusive).call(|| format!("flock({})", dir.path().display()))?;
        Ok(Self { dir, _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Renames the folder to `target`, with what is mounted below it, and gives it up;
    /// `false` where `target` is there already (then this folder is removed).
    ///
    /// # Errors
    /// The failed renameat2 call.
    pub fn publish(self, target: &Path) -> Result<bool> {
        let from = self.path();
        match renameat_with(CWD, from, CWD, target, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(e)
                .call(|| format!("renameat2({}, {})", from.display(), target.display()))
                .map_err(Into::into),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.path().exists()
            && let Err(e) = mount::unmount_below(self.path())
        {
            tracing::warn!("{e}");
        }
    }
}

/// Removes the scratch folders that nobody holds, with what is mounted below them.
pub(super) fn sweep(tmp: &Path) -> Result<()> {
    if io_error("list", tmp, fs::read_dir(tmp))?.next().is_none() {
        return Ok(());
    }
    let parent = io_error("open", tmp, File::open(tmp))?;
    if flock(&parent, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    for entry in io_error("list", tmp, fs::read_dir(tmp))?.flatten() {
        let path = entry.path();
        let abandoned =
            File::open(&path).is_ok_and(|d| flock(&d, FlockOperation::NonBlockingLockExclusive).is_ok());
        if abandoned {
            mount::unmount_below(&path)?;
            if let Err(e) = fs::remove_dir_all(&path) {
                tracing::warn!("remove {}: {e}", path.display());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_what_nobody_holds() {
        let tmp = tempfile::tempdir().unwrap();
        let held = Scratch::new(tmp.path()).unwrap();
        fs::write(held.path().join("x"), "x").unwrap();
        let abandoned = tmp.path().join("old");
        fs::create_dir(&abandoned).unwrap();
        sweep(tmp.path()).unwrap();
        assert!(held.path().join("x").exists() && !abandoned.exists());
        let path = held.path().to_path_buf();
        drop(held);
        assert!(!path.exists());
    }
}
