//! Overlay mounts by the new mount API (fsopen(2)), by mount(2) on kernels before 6.7.
//!
//! The new way names each lower directory by itself (`lowerdir+`), up to [`MAX_LOWERS`]. The
//! old one takes all of them as one string of a page at most: some 200.
//!
//! Every directory is named by its descriptor, `/proc/self/fd/N`: what overlayfs is told stands in
//! `/proc/PID/mountinfo` for all who see the mount, and a container need not read where the host
//! keeps its files. Such names are short and have nothing in them to escape, too.

use super::{Call, Result, userns};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use sys_mount::MountFlags;

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
        let set = |key: &str, value: &str| {
            fsconfig_set_string(fs.as_fd(), key, value).call(|| format!("fsconfig(overlay, {key}, {value})"))
        };
        // It is looked up at once: the descriptor need not stay open.
        let set_dir = |key: &str, path: &Path| set(key, &open(path)?.1);
        set("source", &self.source()?)?;
        for lower in self.lowers {
            set_dir("lowerdir+", lower)?;
        }
        if let Some((upper, work)) = self.upper {
            set_dir("upperdir", upper)?;
            set_dir("workdir", work)?;
        }
        let (options, userxattr) = options();
        for (key, value) in options {
            set(key, value)?;
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
        let open = |paths: &[PathBuf]| paths.iter().map(|p| open(p)).collect::<Result<Vec<_>>>();
        let lowers = open(self.lowers)?;
        let upper = self.upper.map(|(u, w)| open(&[u.into(), w.into()])).transpose()?.unwrap_or_default();
        let names: Vec<&str> = lowers.iter().map(|(_, name)| name.as_str()).collect();
        let (options, userxattr) = options();
        let mut all = vec![format!("lowerdir={}", names.join(":"))];
        all.extend(
            ["upperdir", "workdir"].iter().zip(&upper).map(|(key, (_, name))| format!("{key}={name}")),
        );
        all.extend(options.iter().map(|(key, value)| format!("{key}={value}")));
        let flags = [("userxattr", userxattr), ("volatile", self.volatile)];
        all.extend(flags.iter().filter(|(_, wanted)| *wanted).map(|(flag, _)| (*flag).to_string()));
        let data = all.join(",");
        if data.len() > MAX_DATA {
            let call = || format!("mount(overlay, {}) with {} lowers", target.display(), self.lowers.len());
            return Err(Errno::TOOBIG).call(call);
        }
        let flags = if self.upper.is_none() { MountFlags::RDONLY } else { MountFlags::empty() };
        super::mount::Mount::new(Path::new(&self.source()?), target, "overlay", flags, &data)?.keep();
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

/// Whether the filesystem of `folder` can hold what hides files of a lower directory, a character device 0/0.
/// An overlay cannot, and some users may make no such device.
///
/// # Errors
/// The failed unlink(2) call.
pub fn holds_whiteouts(folder: &Path) -> Result<bool> {
    let path = folder.join("whiteout");
    if mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)).is_err() {
        return Ok(false);
    }
    rustix::fs::unlink(&path).call(|| format!("unlink({})", path.display()))?;
    Ok(true)
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

/// Opens a directory; gives the name by which this process may call it as long as that is open.
fn open(path: &Path) -> Result<(OwnedFd, String)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).call(|| format!("open({})", path.display()))?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok((fd, name))
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
            assert_eq!(options.matches(tmp.path().to_str().unwrap()).count(), 1, "only where: {options}");
            wrote.unwrap();
            assert!(upper.join("new").exists() && !target.join("f").exists());
        }
    }

    #[test]
    fn old_kernels_take_some_lowers() {
        let lowers = vec![PathBuf::from("/"); MAX_LOWERS];
        let overlay = Overlay { lowers: &lowers, upper: None, volatile: false };
        let e = overlay.mount_by_data(Path::new("/nowhere/target")).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::TOOBIG), "{e}");
    }
}
