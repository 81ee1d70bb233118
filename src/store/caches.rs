//! Directories that steps of builds keep from one build to the next.
//!
//! `ROOT/shipimg/caches/NAME/d` is such a directory; `NAME` is the digest of its id, `-mapped` or `-single` where
//! files have the owners of a user namespace, and `.N` for one that is used beside it (`private`). The folder around it
//! is locked (flock) by who uses it, exclusively or shared with others, and by who removes it; its time tells
//! when it was used last, for `prune`. What programs write there is in no image and nobody's promise.

use super::{Area, Result, Store, io_error};
use crate::oci::Digest;
use crate::sys::dir::{self, Dir};
use crate::sys::userns::{self, Ids};
use rustix::fs::FlockOperation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Who may use a kept directory at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// All.
    #[default]
    Shared,
    /// One, the others wait.
    Locked,
    /// One, the others have one of their own.
    Private,
}

/// Whose a new directory is, and its permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// A directory in use.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    _lock: File,
}

impl Cache {
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// The directory with this id, made where it is not there, in use as long as the value lives.
    ///
    /// # Errors
    /// [`super::Error::Io`], [`super::Error::Sys`].
    pub fn cache(&self, id: &str, sharing: Sharing, owned: Owned) -> Result<Cache> {
        let ids = match userns::ids() {
            Ids::Host => "",
            Ids::Mapped => "-mapped",
            Ids::Single => "-single",
        };
        let name = format!("{}{ids}", Digest::of(id.as_bytes()).hex());
        let area = self.area(Area::Caches)?;
        let mut beside = 0;
        loop {
            let folder = if beside == 0 { area.join(&name) } else { area.join(format!("{name}.{beside}")) };
            match used(&folder, sharing)? {
                Some(lock) => return made(&folder, lock, owned),
                None if sharing == Sharing::Private && lock_of(&folder).is_ok() => beside += 1,
                // Somebody has just removed it.
                None => {}
            }
        }
    }

    /// Those that were not used since `since`.
    ///
    /// # Errors
    /// [`super::Error::Io`].
    pub fn idle_caches(&self, since: SystemTime) -> Result<Vec<PathBuf>> {
        let all = super::list(&self.root().join("shipimg").join(Area::Caches.name()))?;
        let idle = |path: &PathBuf| fs::metadata(path).and_then(|m| m.modified()).is_ok_and(|t| t < since);
        Ok(all.into_iter().filter(idle).collect())
    }
}

/// Opens a folder to be locked.
fn lock_of(folder: &Path) -> io::Result<File> {
    File::open(folder)
}

/// Locks a folder, which is made where it is missing; none where it was removed meanwhile, or is another's.
fn used(folder: &Path, sharing: Sharing) -> Result<Option<File>> {
    match fs::create_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        made => {
            io_error("create", folder, made)?;
            io_error(
                "change the mode of",
                folder,
                fs::set_permissions(folder, Permissions::from_mode(0o700)),
            )?;
        }
    }
    let Ok(lock) = lock_of(folder) else { return Ok(None) };
    let how = match sharing {
        Sharing::Shared => FlockOperation::LockShared,
        Sharing::Locked => FlockOperation::LockExclusive,
        Sharing::Private => FlockOperation::NonBlockingLockExclusive,
    };
    if sharing == Sharing::Private {
        if rustix::fs::flock(&lock, how).is_err() {
            return Ok(None);
        }
    } else {
        super::lease::flock(&lock, how, folder)?;
    }
    let same = |m: fs::Metadata| lock.metadata().is_ok_and(|own| own.ino() == m.ino());
    Ok(if fs::metadata(folder).is_ok_and(same) { Some(lock) } else { None })
}

/// The directory in a locked folder.
fn made(folder: &Path, lock: File, owned: Owned) -> Result<Cache> {
    let name = OsStr::new("d");
    let dir = Dir::open(folder)?;
    if dir.stat(name)?.is_none() {
        // Another one that shares it may be faster.
        match dir.mkdir(name) {
            Err(e) if e.errno() == Some(rustix::io::Errno::EXIST) => {}
            made => made?,
        }
        dir.chown(name, owned.uid, owned.gid)?;
        dir.chmod(name, owned.mode)?;
    }
    // In a store that may only be read the time stays.
    let _ = lock.set_modified(SystemTime::now());
    Ok(Cache { path: folder.join(name), _lock: lock })
}

/// Removes one, unless somebody uses it.
pub(super) fn remove(folder: &Path) -> Result<()> {
    match lock_of(folder) {
        Ok(lock) if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() => {
            Ok(dir::remove(folder)?)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_is_one_directory_as_far_as_it_may_be_shared() {
        let tmp = tempfile::tempdir().unwrap();
        let store = Store::open(&tmp.path().join("store")).unwrap();
        let owned = Owned { uid: 0, gid: 0, mode: 0o750 };
        let cache = |id: &str, sharing| store.cache(id, sharing, Owned { ..owned }).unwrap();
        let (one, two) = (cache("a", Sharing::Shared), cache("a", Sharing::Shared));
        assert_eq!(one.path(), two.path());
        assert_eq!(fs::metadata(one.path()).unwrap().permissions().mode() & 0o7777, 0o750);
        let own = cache("a", Sharing::Private);
        assert!(own.path() != one.path() && cache("b", Sharing::Locked).path() != one.path());
        fs::write(one.path().join("f"), "").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_mins(1);
        let idle = store.idle_caches(later).unwrap();
        assert_eq!(idle.len(), 3);
        let remove_all = |all: Vec<PathBuf>| all.iter().try_for_each(|folder| remove(folder)).unwrap();
        remove_all(idle);
        assert!(one.path().join("f").exists() && own.path().exists(), "in use");
        drop((one, two, own));
        assert_eq!(store.idle_caches(SystemTime::UNIX_EPOCH).unwrap(), Vec::<PathBuf>::new());
        remove_all(store.idle_caches(later).unwrap());
        assert!(store.idle_caches(later).unwrap().is_empty());
        assert!(!cache("a", Sharing::Private).path().join("f").exists(), "a new one");
    }
}
