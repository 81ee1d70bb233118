//! Directories by descriptor: every name is looked up below an open directory.
//!
//! Two ways to walk: [`Dir::below`] refuses every symbolic link (`RESOLVE_BENEATH`,
//! `RESOLVE_NO_SYMLINKS`), [`Dir::in_root`] follows them with this directory as their
//! root (`RESOLVE_IN_ROOT`); see openat2(2). All other operations take one name, which
//! they never follow. The path is kept for messages only.
#![allow(clippy::unnecessary_debug_formatting, reason = "names may be hostile: quoted and escaped")]

mod clear;

pub use clear::remove;

use super::inroot::resolve_below;
use super::{Call, Error, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RawDir, ResolveFlags, Stat, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Filesystems whose files are the kernel's own words: cgroup, cgroup2, proc, sysfs, devpts, mqueue,
/// debugfs, tracefs, securityfs, bpf, configfs, pstore, `binfmt_misc`, selinuxfs, efivarfs (`magic.h`).
const KERNELS: [fs::FsWord; 15] = [
    0x27_e0eb,
    0x6367_7270,
    0x9fa0,
    0x6265_6572,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x6265_6570,
    0x6165_676c,
    0x4249_4e4d,
    0xf97c_ff8c,
    0xde5e_81e4,
];

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// A name in a directory with its type.
pub type Listed = (OsString, FileType);

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<(OwnedFd, PathBuf)> for Dir {
    /// `fd` is open on a directory, for reading; the path is for messages.
    fn from((fd, path): (OwnedFd, PathBuf)) -> Self {
        Self { fd, path }
    }
}

impl Dir {
    /// Opens the directory at `path`; links on the way are followed.
    ///
    /// # Errors
    /// The failed open call.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = fs::open(path, OPEN_DIR, Mode::empty()).call(|| format!("open({})", path.display()))?;
        Ok(Self { fd, path: path.to_path_buf() })
    }

    /// Its path when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// This directory, opened again.
    ///
    /// # Errors
    /// The failed open call.
    pub fn again(&self) -> Result<Self> {
        self.child(OsStr::new("."))
    }

    fn name(&self, call: &str, name: &OsStr) -> String {
        format!("{call}({}, {name:?})", self.path.display())
    }

    fn resolve(&self, path: &Path, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd> {
        resolve_below(&self.fd, path, flags, how).call(|| self.name("openat2", path.as_os_str()))
    }

    fn opened(&self, fd: OwnedFd, path: &Path) -> Self {
        Self { fd, path: self.path.join(path) }
    }

    /// Opens the directory `path` below this one; no component may be a link or lead elsewhere.
    ///
    /// # Errors
    /// The failed openat2 call.
    pub fn below(&self, path: &Path) -> Result<Self> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(self.opened(self.resolve(path, OPEN_DIR, how)?, path))
    }

    /// Opens the directory `path`, following links as a process would whose root this is.
    ///
    /// # Errors
    /// The failed openat2 call.
    pub fn in_root(&self, path: &Path) -> Result<Self> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(self.opened(self.resolve(path, OPEN_DIR, how)?, path))
    }

    /// Where this directory lies now (`/proc/self/fd`), absolute.
    ///
    /// # Errors
    /// The failed readlink call.
    pub fn real_path(&self) -> Result<PathBuf> {
        let link = self.proc_path(OsStr::new(""));
        std::fs::read_link(&link).call(|| format!("readlink({})", link.display()))
    }

    /// Opens the directory `name` in this one; not a link.
    ///
    /// # Errors
    /// The failed openat call.
    pub fn child(&self, name: &OsStr) -> Result<Self> {
        let fd = fs::openat(&self.fd, name, OPEN_DIR | OFlags::NOFOLLOW, Mode::empty())
            .call(|| self.name("openat", name))?;
        Ok(self.opened(fd, Path::new(name)))
    }

    /// As [`Dir::child`], but refuses (EXDEV) what is mounted there.
    fn child_here(&self, name: &OsStr) -> Result<Self> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        Ok(self.opened(self.resolve(Path::new(name), OPEN_DIR | OFlags::NOFOLLOW, how)?, Path::new(name)))
    }

    /// Whether something is mounted on `name`, as seen from where this directory was opened.
    ///
    /// # Errors
    /// The failed openat2 call.
    pub fn is_mount_point(&self, name: &OsStr) -> Result<bool> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
        match resolve_below(&self.fd, Path::new(name), OFlags::PATH | OFlags::NOFOLLOW, how) {
            Err(Errno::XDEV) => Ok(true),
            Ok(_) | Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e).call(|| self.name("openat2", name)),
        }
    }

    /// Makes a regular file that must not exist, mode 0600, for writing.
    ///
    /// # Errors
    /// The failed openat call.
    pub fn create(&self, name: &OsStr) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR).call(|| self.name("openat", name))?;
        Ok(File::from(fd))
    }

    /// Opens a file for reading; not a link, and without waiting for a fifo's writer.
    ///
    /// # Errors
    /// The failed openat call.
    pub fn file(&self, name: &OsStr) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name, flags, Mode::empty()).call(|| self.name("openat", name))?;
        Ok(File::from(fd))
    }

    /// Opens a regular file for reading; none where `name` is something else. What it is is found
    /// by a descriptor that opens nothing (open(2), `O_PATH`): a device may act when it is opened.
    ///
    /// # Errors
    /// The failed call.
    pub fn regular(&self, name: &OsStr) -> Result<Option<(File, Stat)>> {
        let call = || self.name("openat", name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name, flags, Mode::empty()).call(call)?;
        let stat = fs::fstat(&fd).call(call)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::open(super::xattr::proc_fd(fd.as_fd()), flags, Mode::empty()).call(call)?;
        Ok(Some((File::from(file), stat)))
    }

    /// Makes a directory of mode 0700.
    ///
    /// # Errors
    /// The failed mkdirat call.
    pub fn mkdir(&self, name: &OsStr) -> Result<()> {
        fs::mkdirat(&self.fd, name, Mode::RWXU).call(|| self.name("mkdirat", name))
    }

    /// Makes the symbolic link `name` to `target`.
    ///
    /// # Errors
    /// The failed symlinkat call.
    pub fn symlink(&self, name: &OsStr, target: &OsStr) -> Result<()> {
        let call = || format!("symlinkat({target:?}, {}, {name:?})", self.path.display());
        fs::symlinkat(target, &self.fd, name).call(call)
    }

    /// Makes `name` another name of `old_name` in `old`, which is not followed.
    ///
    /// # Errors
    /// The failed linkat call.
    pub fn link(&self, name: &OsStr, old: &Self, old_name: &OsStr) -> Result<()> {
        let call =
            || format!("linkat({}, {old_name:?}, {}, {name:?})", old.path.display(), self.path.display());
        fs::linkat(&old.fd, old_name, &self.fd, name, AtFlags::empty()).call(call)
    }

    /// Makes a fifo, a socket or a device (major, minor), mode 0600.
    ///
    /// # Errors
    /// The failed mknodat call.
    pub fn mknod(&self, name: &OsStr, kind: FileType, (major, minor): (u32, u32)) -> Result<()> {
        fs::mknodat(&self.fd, name, kind, Mode::RUSR | Mode::WUSR, fs::makedev(major, minor))
            .call(|| self.name("mknodat", name))
    }

    /// Renames `name` to `new_name` in `new`, replacing what can be replaced.
    ///
    /// # Errors
    /// The failed renameat call.
    pub fn rename(&self, name: &OsStr, new: &Self, new_name: &OsStr) -> Result<()> {
        let call =
            || format!("renameat({}, {name:?}, {}, {new_name:?})", self.path.display(), new.path.display());
        fs::renameat(&self.fd, name, &new.fd, new_name).call(call)
    }

    /// What `name` is; none where there is nothing.
    ///
    /// # Errors
    /// The failed fstatat call.
    pub fn stat(&self, name: &OsStr) -> Result<Option<Stat>> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(s) => Ok(Some(s)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).call(|| self.name("fstatat", name)),
        }
    }

    /// What this directory itself is.
    ///
    /// # Errors
    /// The failed fstat call.
    pub fn stat_self(&self) -> Result<Stat> {
        fs::fstat(&self.fd).call(|| self.name("fstat", OsStr::new("")))
    }

    /// The target of the symbolic link `name`.
    ///
    /// # Errors
    /// The failed readlinkat call.
    pub fn readlink(&self, name: &OsStr) -> Result<OsString> {
        let target = fs::readlinkat(&self.fd, name, Vec::new()).call(|| self.name("readlinkat", name))?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Calls `each` with every name in this directory but `.` and `..`; it may remove the name.
    ///
    /// # Errors
    /// The failed getdents64 call, and the first error of `each`.
    pub fn each<E: From<Error>>(
        &self,
        mut each: impl FnMut(&OsStr, FileType) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        // A descriptor of its own: the position in a directory belongs to the descriptor.
        let again = self.again()?;
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut raw = RawDir::new(&again.fd, &mut buffer);
        while let Some(entry) = raw.next() {
            let entry = entry.call(|| self.name("getdents64", OsStr::new("")))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    self.stat(name)?.map_or(FileType::Unknown, |s| FileType::from_raw_mode(s.st_mode))
                }
                known => known,
            };
            each(name, kind)?;
        }
        Ok(())
    }

    /// What is in this directory, without `.` and `..`.
    ///
    /// # Errors
    /// The failed getdents64 call.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        self.each(|name, kind| {
            listed.push((name.to_os_string(), kind));
            Ok::<_, Error>(())
        })?;
        Ok(listed)
    }

    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// The failed unlinkat call.
    pub fn unlink(&self, name: &OsStr) -> Result<()> {
        fs::unlinkat(&self.fd, name, AtFlags::empty()).call(|| self.name("unlinkat", name))
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The failed unlinkat call.
    pub fn rmdir(&self, name: &OsStr) -> Result<()> {
        fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).call(|| self.name("unlinkat", name))
    }

    /// Changes the owner of `name`, not of what it links to.
    ///
    /// # Errors
    /// The failed fchownat call.
    pub fn chown(&self, name: &OsStr, uid: u32, gid: u32) -> Result<()> {
        let (u, g) = (Uid::from_raw(uid), Gid::from_raw(gid));
        fs::chownat(&self.fd, name, Some(u), Some(g), AtFlags::SYMLINK_NOFOLLOW)
            .call(|| format!("fchownat({}, {name:?}, {uid}, {gid})", self.path.display()))
    }

    /// Changes the mode of `name`, which must not be a link: fchmodat follows links, so this
    /// goes by a descriptor that was opened without following (open(2), `O_PATH`).
    ///
    /// # Errors
    /// The failed call; ELOOP for a link.
    pub fn chmod(&self, name: &OsStr, mode: u32) -> Result<()> {
        let call = || format!("fchmodat({}, {name:?}, {mode:o})", self.path.display());
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name, flags, Mode::empty()).call(call)?;
        let kind = FileType::from_raw_mode(fs::fstat(&fd).call(call)?.st_mode);
        if kind == FileType::Symlink {
            return Err(Errno::LOOP).call(call);
        }
        fs::chmod(super::xattr::proc_fd(fd.as_fd()), Mode::from_raw_mode(mode)).call(call)
    }

    /// Sets the times of `name`, not of what it links to.
    ///
    /// # Errors
    /// The failed utimensat call.
    pub fn utimens(&self, name: &OsStr, times: &Timestamps) -> Result<()> {
        fs::utimensat(&self.fd, name, times, AtFlags::SYMLINK_NOFOLLOW).call(|| self.name("utimensat", name))
    }

    /// Runs `change`, which adds or removes names here, and puts the time of modification back.
    ///
    /// # Errors
    /// The failed call, and the error of `change`.
    pub fn keep_time<E: From<Error>>(
        &self,
        change: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let stat = self.stat_self()?;
        change()?;
        let time = fs::Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(fs::futimens(&self.fd, &times).call(|| self.name("futimens", OsStr::new("")))?)
    }

    /// A path by which this process reaches `name` without walking to this directory.
    #[must_use]
    pub fn proc_path(&self, name: &OsStr) -> PathBuf {
        let dir = super::xattr::proc_fd(self.fd.as_fd());
        if name.is_empty() { dir } else { dir.join(name) }
    }

    /// Writes this directory's filesystem to its device.
    ///
    /// # Errors
    /// The failed syncfs call.
    pub fn syncfs(&self) -> Result<()> {
        fs::syncfs(&self.fd).call(|| self.name("syncfs", OsStr::new("")))
    }
}

/// Whether a file or directory is the kernel's own word, in procfs, sysfs and their like: what it
/// holds is made when it is read, and its size says nothing of it.
///
/// # Errors
/// The failed fstatfs call.
pub fn is_kernels(fd: impl AsFd) -> Result<bool> {
    let kind = fs::fstatfs(fd).call(|| "fstatfs".to_string())?.f_type;
    Ok(KERNELS.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_nowhere_else() {
        let tmp = tempfile::tempdir().unwrap();
        let (inside, outside) = (tmp.path().join("in"), tmp.path().join("out"));
        std::fs::create_dir_all(inside.join("out/x")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("canary"), "x").unwrap();
        symlink(&outside, inside.join("absolute")).unwrap();
        symlink("../out", inside.join("relative")).unwrap();
        let dir = Dir::open(&inside).unwrap();
        assert_eq!(dir.below(Path::new("relative")).unwrap_err().errno(), Some(Errno::LOOP));
        let e = dir.below(Path::new("absolute")).unwrap_err();
        assert_eq!(
            e.to_string(),
            format!(
                "openat2({}, \"absolute\"): Too many levels of symbolic links (os error 40)",
                inside.display()
            )
        );
        assert!(dir.below(Path::new("../out")).is_err());
        let in_root = dir.in_root(Path::new("relative")).unwrap();
        assert_eq!(in_root.real_path().unwrap(), inside.join("out").canonicalize().unwrap());
        assert!(dir.chmod(OsStr::new("relative"), 0o777).is_err());
        dir.clear(&[]).unwrap();
        assert!(outside.join("canary").exists() && dir.list().unwrap().is_empty());
    }
}
