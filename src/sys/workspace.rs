//! A folder to build in, next to what will be built, and gone with its owner.
//!
//! It is called `.shipimg-…`, has mode 0700 and is locked by its owner (flock(2)). One that
//! nobody locks was left by a killed process; the next [`Workspace::beside`] in the same
//! folder removes it.

use super::dir::{self, Dir};
use super::{Call, Result, mount};
use crate::error::Kind;
use rustix::fs::{CWD, FlockOperation, Mode, flock, mkdirat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const PREFIX: &str = ".shipimg-";

/// A locked folder, removed when dropped.
#[derive(Debug)]
pub struct Workspace {
    dir: Dir,
}

impl Workspace {
    /// Makes one in the folder that `target` is or will be in.
    ///
    /// # Errors
    /// The failed call.
    pub fn beside(target: &Path) -> Result<Self> {
        let parent = parent(target);
        let above = sweep(&parent)?;
        // Making takes a shared lock, sweeping an exclusive one: a fresh folder is never swept.
        flock(&above, FlockOperation::LockShared).call(|| format!("flock({})", parent.display()))?;
        Self::within(&parent)
    }

    /// Makes one in the folder `parent` and sweeps nothing there: names like its own may be
    /// somebody's files.
    ///
    /// # Errors
    /// The failed call.
    pub fn within(parent: &Path) -> Result<Self> {
        let made = loop {
            let path = parent.join(format!("{PREFIX}{:016x}", RandomState::new().hash_one(PREFIX)));
            match mkdirat(CWD, &path, Mode::RWXU) {
                Err(Errno::EXIST) => {}
                result => break result.call(|| format!("mkdir({})", path.display())).map(|()| path)?,
            }
        };
        let dir = Dir::open(&made)?;
        flock(&dir, FlockOperation::LockExclusive).call(|| format!("flock({})", made.display()))?;
        // The folder's own mode, without a setgid bit inherited from above.
        rustix::fs::fchmod(&dir, Mode::RWXU).call(|| format!("fchmod({})", made.display()))?;
        Ok(Self { dir })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if !self.path().exists() {
            return;
        }
        if let Err(e) = mount::unmount_below(self.path()).and_then(|()| dir::remove(self.path())) {
            tracing::warn!("{e}");
        }
    }
}

/// The folder that `path` lies in.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        Some(_) => ".".into(),
        None => "/".into(),
    }
}

/// Removes the workspaces in the folder `parent` that nobody holds, with what is mounted
/// below them; gives the open folder.
///
/// # Errors
/// The failed call.
pub fn sweep(parent: &Path) -> Result<Dir> {
    let above = Dir::open(parent)?;
    if flock(&above, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(above);
    }
    above.each(|name: &OsStr, _| {
        if !name.as_bytes().starts_with(PREFIX.as_bytes()) {
            return Ok(());
        }
        let Ok(left) = above.child(name) else { return Ok(()) };
        if flock(&left, FlockOperation::NonBlockingLockExclusive).is_ok() {
            mount::unmount_below(left.path())?;
            match above.remove(name) {
                // Files of other ids: a command of this user that enters a user namespace takes them.
                Err(e) if e.kind() == Kind::Privilege => tracing::debug!("{e}"),
                Err(e) => tracing::warn!("{e}"),
                Ok(()) => {}
            }
        }
        Ok::<_, super::Error>(())
    })?;
    flock(&above, FlockOperation::Unlock).call(|| format!("flock({})", parent.display()))?;
    Ok(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_what_nobody_holds() {
        let tmp = tempfile::tempdir().unwrap();
        let target = tmp.path().join("x");
        let held = Workspace::beside(&target).unwrap();
        let abandoned = tmp.path().join(".shipimg-old");
        std::fs::create_dir(&abandoned).unwrap();
        let other = Workspace::beside(&target).unwrap();
        assert!(held.path().exists() && other.path().exists() && !abandoned.exists());
        drop((held, other));
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
    }
}
