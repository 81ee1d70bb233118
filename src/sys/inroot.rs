//! Paths that are resolved inside a folder as if it were `/` (openat2(2), `RESOLVE_IN_ROOT`).
//!
//! Symbolic links, absolute ones too, and `..` stay inside; magic links of procfs are
//! refused. What is missing is made step by step, each step below a descriptor of the one
//! before it.

use super::{Call, Error, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;
use std::path::{Component, Path, PathBuf};

/// Opens `path`, or the folder itself where it is empty, as `how` says.
///
/// # Errors
/// The failed openat2 call.
pub(super) fn resolve_below(
    folder: impl AsFd,
    path: &Path,
    flags: OFlags,
    how: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // The kernel answers EAGAIN where a rename elsewhere raced with `..`.
    let attempt = |_| match openat2(&folder, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
        Err(Errno::AGAIN) => None,
        other => Some(other),
    };
    (0..128).find_map(attempt).unwrap_or(Err(Errno::AGAIN))
}

/// A folder that paths are resolved in.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// `fd` is open on a folder.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens `path` as seen from inside.
    ///
    /// # Errors
    /// The failed openat2 call.
    pub fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        self.open_with(path, flags, ResolveFlags::empty())
    }

    /// Opens `path`, no component of which may be a symbolic link.
    ///
    /// # Errors
    /// `ELOOP` for a link; the failed openat2 call.
    pub fn open_without_links(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        self.open_with(path, flags, ResolveFlags::NO_SYMLINKS)
    }

    fn open_with(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
        let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        resolve_below(&self.fd, path, flags, resolve).call(|| format!("openat2(root, {})", path.display()))
    }

    /// Opens the folder `path` (`O_PATH`), making what is missing with mode 0755.
    ///
    /// # Errors
    /// A component that is no folder, a link to nothing, no right to make it.
    pub fn make_dir(&self, path: &Path) -> Result<OwnedFd> {
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, directory) {
            Err(Error::Syscall { errno: Errno::NOENT, .. }) => {}
            other => return other,
        }
        let mut so_far = PathBuf::from("/");
        let mut at = self.open(&so_far, directory)?;
        for component in path.components() {
            let step = match component {
                Component::Normal(name) => name,
                Component::ParentDir => "..".as_ref(),
                _ => continue,
            };
            so_far.push(step);
            at = match self.open(&so_far, directory) {
                Err(Error::Syscall { errno: Errno::NOENT, .. }) => {
                    match mkdirat(&at, step, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(e) => return Err(e).call(|| format!("mkdirat({})", so_far.display())),
                    }
                    self.open(&so_far, directory)?
                }
                other => other?,
            };
        }
        Ok(at)
    }

    /// Opens `path` (`O_PATH`), making an empty file, and the folders above it, where nothing is.
    ///
    /// # Errors
    /// As [`Self::make_dir`].
    pub fn make_file(&self, path: &Path) -> Result<OwnedFd> {
        match self.open(path, OFlags::PATH) {
            Err(Error::Syscall { errno: Errno::NOENT, .. }) => {}
            other => return other,
        }
        let (dir, name) = self.parent(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&dir, name, flags | OFlags::WRONLY, Mode::from_raw_mode(0o644))
            .call(|| format!("openat({}, CREATE)", path.display()))?;
        self.open(path, OFlags::PATH)
    }

    /// The folder above `path`, made where missing, and the last component.
    ///
    /// # Errors
    /// As [`Self::make_dir`]; `EINVAL` where `path` ends in no name.
    pub fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a Path)> {
        let name = path.file_name().ok_or(Errno::INVAL).call(|| format!("parent of {}", path.display()))?;
        let dir = self.make_dir(path.parent().unwrap_or(Path::new("/")))?;
        Ok((dir, Path::new(name)))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root(dir: &Path) -> Root {
        Root::new(std::fs::File::open(dir).unwrap().into())
    }

    #[test]
    fn stays_inside() {
        let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = root(inside.path());
        symlink(outside.path(), inside.path().join("abs")).unwrap();
        symlink("../../../..", inside.path().join("up")).unwrap();
        root.make_dir(Path::new("/up/a/b")).unwrap();
        root.make_file(Path::new("../../up/c/file")).unwrap();
        assert!(inside.path().join("a/b").is_dir() && inside.path().join("c/file").is_file());
        assert!(root.make_dir(Path::new("abs/x")).is_err(), "a link to nothing inside");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(root.open_without_links(Path::new("up/a"), OFlags::PATH).is_err());
        assert!(root.make_file(Path::new("/a/..")).is_err() || inside.path().join("a").is_dir());
    }
}
