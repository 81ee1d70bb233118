//! Scratch folders on the store's filesystem.

use super::Result;
use crate::sys::Call;
use crate::sys::workspace::Workspace;
use rustix::fs::{CWD, Mode, RenameFlags, mkdirat, renameat_with};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// A folder that is gone with the value, with what is mounted below it; or with the next
/// command, should the process be killed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _workspace: Workspace,
}

impl Scratch {
    pub(super) fn new(workspace: Workspace) -> Result<Self> {
        // The workspace itself is locked; what is inside may be locked by others.
        let path = workspace.path().join("d");
        let mode = Mode::from_raw_mode(0o755);
        mkdirat(CWD, &path, mode).call(|| format!("mkdir({})", path.display()))?;
        Ok(Self { path, _workspace: workspace })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the folder to `target`, with what is mounted below it, and gives it up;
    /// `false` where `target` is there already (then this folder is removed).
    ///
    /// # Errors
    /// The failed renameat2 call.
    pub fn publish(self, target: &Path) -> Result<bool> {
        match renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => {
                let call = || format!("renameat2({}, {})", self.path.display(), target.display());
                Err(e).call(call).map_err(Into::into)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gone_or_published() {
        let tmp = tempfile::tempdir().unwrap();
        let scratch = || Scratch::new(Workspace::beside(&tmp.path().join("x")).unwrap()).unwrap();
        let (one, two) = (scratch(), scratch());
        let (target, gone) = (tmp.path().join("target"), two.path().to_path_buf());
        assert!(one.publish(&target).unwrap() && target.exists());
        assert!(!two.publish(&target).unwrap() && !gone.exists());
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 1);
    }
}
