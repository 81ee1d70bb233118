//! Removal of whole trees, whatever is in them and whoever changes them meanwhile.
#![allow(clippy::unnecessary_debug_formatting, reason = "names may be hostile: quoted and escaped")]

use super::Dir;
use crate::sys::{Call, Error, Result};
use rustix::fs::{self, AtFlags, FileType, Mode};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// How many levels are walked with a descriptor each before a deep tree is pulled up.
const MAX_OPEN_LEVELS: u32 = 64;

/// How often a removal starts again when somebody else moves names at the same time.
const MAX_DISTURBED: u32 = 100;

impl Dir {
    /// As [`Dir::child_here`], for removal: a directory that its owner may not read or change,
    /// as overlayfs' `work/work` and some of layers are, is opened up first.
    fn child_to_clear(&self, name: &OsStr) -> Result<Self> {
        let child = match self.child_here(name) {
            Err(e) if e.errno() == Some(Errno::ACCESS) => {
                self.chmod(name, 0o700)?;
                self.child_here(name)?
            }
            other => other?,
        };
        if fs::accessat(&child.fd, ".", fs::Access::WRITE_OK | fs::Access::EXEC_OK, AtFlags::EACCESS).is_err()
        {
            // Where this fails, the removal does, and says what.
            let _ = fs::fchmod(&child.fd, Mode::RWXU);
        }
        Ok(child)
    }

    /// Removes `name` with all below it; follows no link, crosses no mount. Nothing there is fine.
    ///
    /// # Errors
    /// The first failed call; EXDEV where something is mounted below.
    pub fn remove(&self, name: &OsStr) -> Result<()> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {
                self.child_to_clear(name)?.clear(&[])?;
                self.rmdir(name)
            }
            Err(e) => Err(e).call(|| self.name("unlinkat", name)),
        }
    }

    /// Removes all that is in this directory but the names of `keep`.
    ///
    /// # Errors
    /// Those of [`Dir::remove`].
    pub fn clear(&self, keep: &[&OsStr]) -> Result<()> {
        let (mut pulled_up, mut disturbed) = (0, 0);
        loop {
            let mut found = false;
            let pass = self.each(|name, kind| {
                if keep.contains(&name) {
                    return Ok(());
                }
                found = true;
                self.clear_one(self, name, kind, 0, &mut pulled_up)
            });
            match pass {
                Ok(()) if !found => return Ok(()),
                Ok(()) => {}
                // Somebody else moves names at the same time: have another look.
                Err(e) if is_race(&e) && disturbed < MAX_DISTURBED => disturbed += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// Removes `name` of `self`. What lies deeper than a process has descriptors for is first
    /// moved up into `top`, where the caller comes by again.
    fn clear_one(
        &self,
        top: &Self,
        name: &OsStr,
        kind: FileType,
        level: u32,
        pulled: &mut u64,
    ) -> Result<()> {
        if kind != FileType::Directory {
            return self.unlink(name);
        }
        if level == MAX_OPEN_LEVELS {
            loop {
                *pulled += 1;
                let new = OsString::from(format!(".removed-{pulled}"));
                match fs::renameat_with(&self.fd, name, &top.fd, &new, fs::RenameFlags::NOREPLACE) {
                    Err(Errno::EXIST) => {}
                    other => return other.call(|| self.name("renameat2", name)),
                }
            }
        }
        let child = self.child_to_clear(name)?;
        child.each(|inner, kind| child.clear_one(top, inner, kind, level + 1, pulled))?;
        self.rmdir(name)
    }
}

/// Whether a name was not what it had just been.
fn is_race(e: &Error) -> bool {
    matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NOTEMPTY))
}

/// Removes `path` with all below it; follows no link, crosses no mount. Nothing there is fine.
///
/// # Errors
/// Those of [`Dir::remove`], and of opening the folder that it lies in.
pub fn remove(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL).call(|| format!("unlinkat({})", path.display()));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match Dir::open(parent) {
        Err(Error::Syscall { errno: Errno::NOENT, .. }) => Ok(()),
        dir => dir?.remove(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn removes_deep_trees() {
        let tmp = tempfile::tempdir().unwrap();
        let top = Dir::open(tmp.path()).unwrap();
        let mut at = top.again().unwrap();
        for _ in 0..3000 {
            at.mkdir(OsStr::new("d")).unwrap();
            at = Dir { path: PathBuf::new(), ..at.child(OsStr::new("d")).unwrap() };
        }
        at.create(OsStr::new("f")).unwrap();
        remove(&tmp.path().join("d")).unwrap();
        assert!(top.list().unwrap().is_empty());
    }
}
