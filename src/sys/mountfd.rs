//! Mounts by file descriptor (fsopen(2), `open_tree(2)`, `move_mount(2)`, `mount_setattr(2)`).
//!
//! A [`Tree`] is a mount that is attached nowhere yet. It is made, given its attributes,
//! and only then attached to a descriptor of the place: nothing is looked up by path
//! between a check and its use.
#![allow(unsafe_code)]

use super::{Call, Result};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount as m;
use std::path::Path;

/// Attributes to set and to clear on a mount, as `MOUNT_ATTR_*`; propagation as `MS_*`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Attributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    userns: u64,
}

impl Attributes {
    /// Attributes to set.
    #[must_use]
    pub fn set(bits: u64) -> Self {
        Self { set: bits, ..Self::default() }
    }

    /// A propagation type.
    #[must_use]
    pub fn propagation(kind: u64) -> Self {
        Self { propagation: kind, ..Self::default() }
    }

    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Changes the mount that `fd` is the root of, and those below it where `recursive`.
///
/// # Errors
/// The failed `mount_setattr(2)` call; `name` is what it was called for.
pub fn set_attributes(fd: impl AsFd, attributes: Attributes, recursive: bool, name: &str) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is the empty string; `attributes` is a struct mount_attr in layout and size.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    let result = if ret == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    result.call(|| format!("mount_setattr({name}, set {:#x}, clear {:#x})", attributes.set, attributes.clear))
}

/// A mount that is not attached to the file tree; gone with the value unless attached.
#[derive(Debug)]
pub struct Tree {
    fd: OwnedFd,
}

impl Tree {
    /// A new mount of the filesystem `fstype`; `options` are keys with values, or flags.
    ///
    /// # Errors
    /// The failed call, with what the filesystem itself had to say.
    pub fn new(
        fstype: &str,
        source: Option<&str>,
        options: &[(&str, Option<&str>)],
        attributes: u64,
    ) -> Result<Self> {
        let name = |call: &str| format!("{call}({fstype})");
        let fs = m::fsopen(fstype, m::FsOpenFlags::FSOPEN_CLOEXEC).call(|| name("fsopen"))?;
        let told = |call: String| {
            let message = message(fs.as_fd());
            if message.is_empty() { call } else { format!("{call}: {message}") }
        };
        if let Some(source) = source.filter(|s| !s.is_empty()) {
            m::fsconfig_set_string(&fs, "source", source)
                .call(|| told(format!("fsconfig({fstype}, source={source})")))?;
        }
        for (key, value) in options {
            let set = match value {
                Some(value) => m::fsconfig_set_string(&fs, *key, *value),
                None => m::fsconfig_set_flag(&fs, *key),
            };
            set.call(|| told(format!("fsconfig({fstype}, {key}={})", value.unwrap_or(""))))?;
        }
        m::fsconfig_create(&fs).call(|| told(name("fsconfig")))?;
        let attributes = m::MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(0));
        let fd =
            m::fsmount(&fs, m::FsMountFlags::FSMOUNT_CLOEXEC, attributes).call(|| told(name("fsmount")))?;
        Ok(Self { fd })
    }

    /// A copy of the mount at `path`, looked up from `dir`; with the mounts below it where `recursive`.
    ///
    /// # Errors
    /// The failed `open_tree(2)` call.
    pub fn copy(dir: BorrowedFd, path: &Path, recursive: bool) -> Result<Self> {
        let mut flags = m::OpenTreeFlags::OPEN_TREE_CLONE
            | m::OpenTreeFlags::OPEN_TREE_CLOEXEC
            | m::OpenTreeFlags::AT_EMPTY_PATH;
        flags.set(m::OpenTreeFlags::AT_RECURSIVE, recursive);
        let fd = m::open_tree(dir, path, flags).call(|| format!("open_tree({})", path.display()))?;
        Ok(Self { fd })
    }

    /// Maps the owners of files by the user namespace that `namespace` is open on; also on the
    /// mounts below where `recursive` (`MOUNT_ATTR_IDMAP`). Only before it is attached.
    ///
    /// # Errors
    /// The failed `mount_setattr(2)` call: `EINVAL` where the filesystem has no such mounts, `EPERM`
    /// where this process has no right over it.
    pub fn map_ids(&self, namespace: BorrowedFd, recursive: bool, name: &str) -> Result<()> {
        let userns = u64::try_from(namespace.as_raw_fd()).unwrap_or(u64::MAX);
        let attributes = Attributes { set: libc::MOUNT_ATTR_IDMAP, userns, ..Attributes::default() };
        set_attributes(&self.fd, attributes, recursive, name)
    }

    /// Attaches the mount at the place that `target` is open on.
    ///
    /// # Errors
    /// The failed `move_mount(2)` call; `name` is the place's name.
    pub fn attach(&self, target: impl AsFd, name: &Path) -> Result<()> {
        let flags = m::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | m::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        m::move_mount(&self.fd, "", target.as_fd(), "", flags)
            .call(|| format!("move_mount({})", name.display()))
    }

    /// The descriptor of the mount's root; stays good after [`Self::attach`].
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the filesystem put into its log, `e devpts: Unknown parameter 'x'`.
fn message(fs: BorrowedFd) -> String {
    let mut buffer = [0u8; 512];
    let length: std::result::Result<usize, Errno> = rustix::io::read(fs, &mut buffer);
    let text = String::from_utf8_lossy(&buffer[..length.unwrap_or(0)]).into_owned();
    text.get(2..).unwrap_or("").trim().to_string()
}

/// Makes `root` the root of this mount namespace and lets go of everything else
/// (`pivot_root(2)`, as its manual page does with `.`).
///
/// # Errors
/// The failed call.
pub fn pivot(root: impl AsFd) -> Result<()> {
    let old = rustix::fs::open("/", rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, 0.into())
        .call(|| "open(/)".to_string())?;
    rustix::process::fchdir(&root).call(|| "fchdir(root)".to_string())?;
    rustix::process::pivot_root(".", ".").call(|| "pivot_root(., .)".to_string())?;
    rustix::process::fchdir(&old).call(|| "fchdir(old root)".to_string())?;
    // The unmount must not reach the host's peers of the old mounts.
    set_attributes(&old, Attributes::propagation(libc::MS_SLAVE), true, "old root")?;
    m::unmount(".", m::UnmountFlags::DETACH).call(|| "umount2(old root)".to_string())?;
    rustix::process::chdir("/").call(|| "chdir(/)".to_string())
}

/// Makes `root` the root by moving its mount over `/`, for roots that `pivot_root` refuses (initramfs).
///
/// # Errors
/// The failed call.
pub fn move_root(root: impl AsFd) -> Result<()> {
    rustix::process::fchdir(&root).call(|| "fchdir(root)".to_string())?;
    let flags = m::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    m::move_mount(root.as_fd(), "", CWD, "/", flags).call(|| "move_mount(root, /)".to_string())?;
    rustix::process::chroot(".").call(|| "chroot(.)".to_string())?;
    rustix::process::chdir("/").call(|| "chdir(/)".to_string())
}
