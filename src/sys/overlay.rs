//! Overlay mounts by the new mount API (fsopen(2)), by mount(2) on kernels before 6.7.
//!
//! The new way names each lower directory by itself (`lowerdir+`), up to [`MAX_LOWERS`]. The
//! old one takes all of them as one string of a page at most: some 25 to 50, as long as
//! their paths are.

use super::{Call, Result, userns};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use sys_mount::MountFlags;

/// The longest string that fsconfig(2) takes, in bytes.
const MAX_STRING: usize = 255;

/// The most that mount(2) takes as data, in bytes.
const MAX_DATA: usize = 4095;

/// The most lower directories that overlayfs stacks (`OVL_MAX_STACK`).
pub const MAX_LOWERS: usize = 500;

/// Options that keep the upper directory readable to other tools.
const OPTIONS: [(&str, &str); 3] = [("index", "off"), ("metacopy", "off"), ("redirect_dir", "off")];

/// What they are in a user namespace: attributes are `user.overlay.*` there (`userxattr`, Linux
/// 5.11), which turns `metacopy` and `redirect_dir` off and lets nobody name them.
const USER_OPTIONS: [(&str, &str); 1] = [("index", "off")];

/// The options, and whether `userxattr` is one.
fn options() -> (&'static [(&'static str, &'static str)], bool) {
    if userns::ids() == userns::Ids::Host { (&OPTIONS, false) } else { (&USER_OPTIONS, true) }
}

/// What an overlay is made of.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// Lower directories, the topmost first; at least one, or two without an upper.
    pub lowers: &'a [PathBuf],
    /// The upper and the work directory, on one filesystem; none for a read-only overlay.
    pub upper: Option<(&'a Path, &'a Path)>,
    /// Nothing is synced to the upper directory, which is of no use after the unmount
    /// (`volatile`, Linux 5.10; left out before).
    pub volatile: bool,
}

impl Overlay<'_> {
    /// Mounts it at `target`.
    ///
    /// # Errors
    /// The failed call; E2BIG where an old kernel's mount(2) cannot take so many lowers.
    pub fn mount(&self, target: &Path) -> Result<()> {
        let attempt = |overlay: &Self| match overlay.mount_by_fd(target) {
            Err(e) if matches!(e.errno(), Some(Errno::INVAL | Errno::NOSYS)) => overlay.mount_by_data(target),
            other => other,
        };
        match attempt(self) {
            Err(e) if self.volatile && e.errno() == Some(Errno::INVAL) => {
                attempt(&Self { volatile: false, ..*self })
            }
            other => other,
        }
    }

    fn mount_by_fd(&self, target: &Path) -> Result<()> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).call(|| "fsopen(overlay)".to_string())?;
        let mut open = Vec::new();
        set(&fs, "source", Path::new(&self.source()?), &mut open)?;
        for lower in self.lowers {
            set(&fs, "lowerdir+", lower, &mut open)?;
        }
        if let Some((upper, work)) = self.upper {
            set(&fs, "upperdir", upper, &mut open)?;
            set(&fs, "workdir", work, &mut open)?;
        }
        let (options, userxattr) = options();
        for (key, value) in options {
            set(&fs, key, Path::new(value), &mut open)?;
        }
        for (flag, wanted) in [("userxattr", userxattr), ("volatile", self.volatile)] {
            if wanted {
                fsconfig_set_flag(fs.as_fd(), flag).call(|| format!("fsconfig(overlay, {flag})"))?;
            }
        }
        fsconfig_create(&fs).call(|| format!("fsconfig(overlay, create) for {}", target.display()))?;
        let attributes =
            if self.upper.is_none() { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .call(|| format!("fsmount(overlay) for {}", target.display()))?;
        move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .call(|| format!("move_mount(overlay, {})", target.display()))
    }

    fn mount_by_data(&self, target: &Path) -> Result<()> {
        let mut data = b"lowerdir=".to_vec();
        for (i, lower) in self.lowers.iter().enumerate() {
            if i > 0 {
                data.push(b':');
            }
            escape(lower, &mut data);
        }
        for (key, path) in self.upper.iter().flat_map(|(u, w)| [(",upperdir=", u), (",workdir=", w)]) {
            data.extend_from_slice(key.as_bytes());
            escape(path, &mut data);
        }
        let (options, userxattr) = options();
        for (key, value) in options {
            data.extend_from_slice(format!(",{key}={value}").as_bytes());
        }
        for (flag, wanted) in [(",userxattr", userxattr), (",volatile", self.volatile)] {
            if wanted {
                data.extend_from_slice(flag.as_bytes());
            }
        }
        if data.len() > MAX_DATA {
            let call = || format!("mount(overlay, {}) with {} lowers", target.display(), self.lowers.len());
            return Err(Errno::TOOBIG).call(call);
        }
        let flags = if self.upper.is_none() { MountFlags::RDONLY } else { MountFlags::empty() };
        let text = String::from_utf8(data).map_err(|_| Errno::ILSEQ);
        let text = text.call(|| format!("mount(overlay, {})", target.display()))?;
        super::mount::Mount::new(Path::new(&self.source()?), target, "overlay", flags, &text)?.keep();
        Ok(())
    }

    /// What stands as its source in `/proc/PID/mountinfo`: in a user namespace, where mounts are
    /// seen by no other command, a mark of the upper directory, see [`user_of`].
    fn source(&self) -> Result<String> {
        match self.upper {
            Some((upper, _)) if userns::ids() != userns::Ids::Host => mark(upper),
            _ => Ok("overlay".to_string()),
        }
    }
}

fn mark(upper: &Path) -> Result<String> {
    let stat = rustix::fs::stat(upper).call(|| format!("stat({})", upper.display()))?;
    Ok(format!("overlay-{:x}-{}", stat.st_dev, stat.st_ino))
}

/// A process in whose mount namespace an overlay with this upper directory is mounted that was
/// mounted in a user namespace. To mount it again would take the work directory from the first.
///
/// # Errors
/// The failed stat call.
pub fn user_of(upper: &Path) -> Result<Option<i32>> {
    let mark = format!(" {} ", mark(upper)?);
    let processes = std::fs::read_dir("/proc").call(|| "opendir(/proc)".to_string())?;
    let pids = processes.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let mounts = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    Ok(pids.into_iter().find(|pid| mounts(pid).contains(&mark)))
}

/// Sets one parameter; a path that is too long, or has a backslash, which overlayfs takes for
/// an escape in some parameters only, goes by its descriptor, kept in `open`.
fn set(fs: &OwnedFd, key: &str, value: &Path, open: &mut Vec<OwnedFd>) -> Result<()> {
    let call = || format!("fsconfig(overlay, {key}, {})", value.display());
    let text = value.as_os_str().as_bytes();
    if text.len() <= MAX_STRING && !text.contains(&b'\\') {
        return fsconfig_set_string(fs.as_fd(), key, value).call(call);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(value, flags, Mode::empty()).call(call)?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open.push(fd);
    fsconfig_set_string(fs.as_fd(), key, path).call(call)
}

/// Colons, commas and backslashes mean something in mount data.
fn escape(path: &Path, data: &mut Vec<u8>) {
    for &b in path.as_os_str().as_bytes() {
        if matches!(b, b':' | b',' | b'\\') {
            data.push(b'\\');
        }
        data.push(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mount;
    use std::fs;

    /// Both ways give the same mount.
    #[test]
    fn mounts_by_fd_and_by_data() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let path = tmp.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let long = dir(&format!("{}/{}", "x".repeat(200), "y".repeat(200)));
        let lowers = [long, dir("a:b"), dir("c\\d")];
        for (i, l) in lowers.iter().enumerate() {
            fs::write(l.join("f"), i.to_string()).unwrap();
            fs::write(l.join(format!("only{i}")), "").unwrap();
        }
        let target = dir("target");
        for i in 0..2 {
            let (upper, work) = (dir(&format!("up,p:e\\r{i}")), dir(&format!("wo,r:k\\{i}")));
            let overlay = Overlay { lowers: &lowers, upper: Some((&upper, &work)), volatile: i == 1 };
            let mounted = if i == 0 { overlay.mount_by_fd(&target) } else { overlay.mount_by_data(&target) };
            mounted.unwrap();
            let top = fs::read_to_string(target.join("f"));
            let lowest = target.join("only2").exists();
            let options = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let wrote = fs::write(target.join("new"), "");
            // First of all, so that a failure leaves no mount.
            mount::unmount(&target).unwrap();
            assert_eq!(top.unwrap(), "0");
            assert!(lowest);
            let options = options.lines().find(|l| l.contains(target.to_str().unwrap())).unwrap();
            assert_eq!(options.contains("volatile"), i == 1, "{options}");
            wrote.unwrap();
            assert!(upper.join("new").exists() && !target.join("f").exists());
        }
    }

    #[test]
    fn old_kernels_take_some_lowers() {
        let lowers: Vec<PathBuf> = (0..MAX_LOWERS).map(|i| format!("/nowhere/{i}").into()).collect();
        let overlay = Overlay { lowers: &lowers, upper: None, volatile: false };
        let e = overlay.mount_by_data(Path::new("/nowhere/target")).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::TOOBIG), "{e}");
    }
}
