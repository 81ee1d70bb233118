//! The container's mounts: root, `mounts`, masked and read-only paths.
//!
//! Done by init, in its mount namespace, before `pivot_root`. Places are resolved in the
//! root by descriptor; a mount is finished before it is attached. procfs and sysfs are
//! attached to real folders only, never behind a link.

mod cgroups;

use super::idmap::{self, Idmaps, Mapped};
use super::options::{self, Options};
use super::{Error, Result, cgroup::Cgroup, devices, spec::Mount, spec::Spec};
use crate::layer;
use crate::sys::inroot::Root;
use crate::sys::mountfd::{Attributes, Tree, set_attributes};
use crate::sys::{Call, mount, userns};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// What mounting needs to know, and what it leaves for later.
pub struct Mounts<'a> {
    spec: &'a Spec,
    bundle: &'a Path,
    cgroup: &'a Cgroup,
    idmaps: &'a Idmaps,
    /// The container's root.
    pub root: Root,
    /// The root of the devpts at `/dev/pts`, where there is one.
    pub pts: Option<OwnedFd>,
    /// A `/dev` that becomes read-only once the devices are there.
    dev: Option<OwnedFd>,
}

impl<'a> Mounts<'a> {
    /// Cuts this mount namespace off from the host's and attaches the root to itself, so
    /// that it is a mount.
    ///
    /// # Errors
    /// The failed call; an unknown `rootfsPropagation`.
    pub fn new(
        spec: &'a Spec,
        bundle: &'a Path,
        rootfs: &Path,
        cgroup: &'a Cgroup,
        idmaps: &'a Idmaps,
    ) -> Result<Self> {
        let slash = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .call(|| "open(/)".to_string())?;
        if let Some(kind) = cut_off(spec)? {
            set_attributes(&slash, Attributes::propagation(kind), true, "/")?;
        } else {
            // Only pivot_root's demand is met.
            let above = rootfs.ancestors().find(|p| mount::is_mount_point(p).unwrap_or(false));
            let above = above.unwrap_or(Path::new("/"));
            let fd = rustix::fs::open(above, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .call(|| format!("open({})", above.display()))?;
            set_attributes(&fd, Attributes::propagation(libc::MS_PRIVATE), false, "mount of rootfs")?;
        }
        let place = rustix::fs::open(rootfs, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .call(|| format!("open({})", rootfs.display()))?;
        let tree = Tree::copy(CWD, rootfs, true)?;
        tree.attach(place, rootfs)?;
        Ok(Self { spec, bundle, cgroup, idmaps, root: Root::new(tree.into_fd()), pts: None, dev: None })
    }

    /// Mounts everything, makes the devices, hides what is to be hidden. `grouped` returns
    /// once this process is in its control groups; it is called where that first matters.
    ///
    /// # Errors
    /// The failed call with the place.
    pub fn make(&mut self, grouped: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        for (mount, mapped) in self.spec.mounts.iter().zip(self.idmaps) {
            let parsed = Options::parse(mount)?;
            if matches!(mount.kind.as_str(), "cgroup" | "cgroup2") && parsed.bind.is_none() {
                grouped()?;
                self.control_groups(mount, &parsed)?;
            } else {
                self.one(mount, parsed, mapped.as_ref())?;
            }
        }
        devices::create(self.spec, &self.root)?;
        if let Some(dev) = self.dev.take() {
            set_attributes(dev, Attributes::set(libc::MOUNT_ATTR_RDONLY), false, "/dev")?;
        }
        Ok(())
    }

    fn one(&mut self, mount: &Mount, parsed: Options, mapped: Option<&Mapped>) -> Result<()> {
        let place = mount.destination.as_path();
        if parsed.remount {
            let fd = self.root.open(place, OFlags::PATH)?;
            set_attributes(&fd, parsed.own, false, &place.display().to_string())?;
            return Self::finish(&fd, &parsed, place);
        }
        if let Some(recursive) = parsed.bind {
            let source = mount.source.as_deref().filter(|s| !s.is_empty());
            let source = source.ok_or_else(|| Error::Invalid {
                field: "mounts".into(),
                reason: format!("bind mount of {} without a source", place.display()),
            })?;
            let mut copy = None;
            let tree = match mapped {
                Some(Mapped::Bind(tree)) => {
                    // Copied before this mount namespace was cut off from the host's.
                    if let Some(kind) = cut_off(self.spec)? {
                        set_attributes(tree, Attributes::propagation(kind), true, source)?;
                    }
                    tree
                }
                _ => copy.insert(Tree::copy(CWD, &self.bundle.join(source), recursive)?),
            };
            let target =
                if is_dir(tree)? { self.root.make_dir(place)? } else { self.root.make_file(place)? };
            if !parsed.own.is_empty() {
                set_attributes(tree, parsed.own, false, &place.display().to_string())?;
            }
            tree.attach(target, place)?;
            return Self::finish(tree, &parsed, place);
        }
        self.filesystem(mount, parsed, mapped)
    }

    fn filesystem(&mut self, mount: &Mount, mut parsed: Options, mapped: Option<&Mapped>) -> Result<()> {
        let place = mount.destination.as_path();
        let target = self.place_for(mount)?;
        if mount.kind == "tmpfs" && !parsed.data.iter().any(|(key, _)| key == "mode") {
            let mode = rustix::fs::fstat(&target).call(|| format!("fstat({})", place.display()))?.st_mode;
            parsed.data.push(("mode".into(), Some(format!("{:o}", mode & 0o7777))));
        }
        let read_only = parsed.own.set & libc::MOUNT_ATTR_RDONLY != 0;
        let late = place == Path::new("/dev") && read_only;
        if mount.kind == "devpts" && userns::ids() == userns::Ids::Single {
            // There is no group of terminals.
            parsed.data.retain(|(key, _)| key != "gid");
        }
        let label = &self.spec.linux.mount_label;
        if !label.is_empty() && !matches!(mount.kind.as_str(), "proc" | "sysfs" | "mqueue") {
            parsed.data.push(("context".into(), Some(label.clone())));
        }
        let writable = late || parsed.copy_up;
        let attributes = if writable { parsed.own.set & !libc::MOUNT_ATTR_RDONLY } else { parsed.own.set };
        let data: Vec<_> = parsed.data.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
        let tree = Tree::new(&mount.kind, mount.source.as_deref(), &data, attributes)?;
        if parsed.copy_up {
            copy_up(&target, &tree)?;
            if read_only && !late {
                set_attributes(&tree, Attributes::set(libc::MOUNT_ATTR_RDONLY), false, &mount.kind)?;
            }
        }
        if let Some(Mapped::Namespace(namespace, recursive)) = mapped {
            idmap::map(&tree, namespace.as_fd(), *recursive, mount, || Some(mount.kind.clone()))?;
        }
        tree.attach(target, place)?;
        Self::finish(&tree, &parsed, place)?;
        if late {
            self.dev = Some(tree.into_fd());
        } else if mount.kind == "devpts" && place == Path::new("/dev/pts") {
            self.pts = Some(tree.into_fd());
        }
        Ok(())
    }

    fn place_for(&self, mount: &Mount) -> Result<OwnedFd> {
        let place = mount.destination.as_path();
        if matches!(mount.kind.as_str(), "proc" | "sysfs") {
            match self.root.open_without_links(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
                Ok(fd) => return Ok(fd),
                Err(e) if e.errno() == Some(Errno::NOENT) => {}
                Err(_) => {
                    let reason = format!("{} must be mounted on an ordinary directory", place.display());
                    return Err(Error::Invalid { field: "mounts".into(), reason });
                }
            }
        }
        Ok(self.root.make_dir(place)?)
    }

    fn finish(fd: impl AsFd, parsed: &Options, place: &Path) -> Result<()> {
        let name = place.display().to_string();
        if !parsed.all.is_empty() {
            set_attributes(&fd, parsed.all, true, &name)?;
        }
        for (kind, recursive) in &parsed.propagation {
            set_attributes(&fd, Attributes::propagation(*kind), *recursive, &name)?;
        }
        Ok(())
    }

    /// Masked and read-only paths; what is not there needs no hiding.
    ///
    /// # Errors
    /// The failed call; a `/dev/null` in the container that is something else.
    pub fn hide(&self) -> Result<()> {
        for path in &self.spec.linux.readonly_paths {
            let Some(fd) = self.existing(path)? else { continue };
            let tree = Tree::copy(fd.as_fd(), Path::new(""), true)?;
            let read_only = Attributes::set(libc::MOUNT_ATTR_RDONLY);
            set_attributes(&tree, read_only, true, &path.display().to_string())?;
            tree.attach(fd, path)?;
        }
        let (mut null, mut empty): (Option<OwnedFd>, Option<OwnedFd>) = (None, None);
        for path in &self.spec.linux.masked_paths {
            let Some(fd) = self.existing(path)? else { continue };
            if is_dir(&fd)? {
                let tree = match &empty {
                    Some(first) => Tree::copy(first.as_fd(), Path::new(""), false)?,
                    None => {
                        Tree::new("tmpfs", Some("tmpfs"), &[("size", Some("0"))], libc::MOUNT_ATTR_RDONLY)?
                    }
                };
                tree.attach(fd, path)?;
                empty.get_or_insert(tree.into_fd());
            } else {
                let null = match &mut null {
                    Some(null) => null,
                    none => none.insert(devices::null(&self.root)?),
                };
                Tree::copy(null.as_fd(), Path::new(""), false)?.attach(fd, path)?;
            }
        }
        Ok(())
    }

    fn existing(&self, path: &Path) -> Result<Option<OwnedFd>> {
        match self.root.open(path, OFlags::PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Puts the terminal's own end at `/dev/console`.
    ///
    /// # Errors
    /// The failed call.
    pub fn console(&self, slave: &OwnedFd) -> Result<()> {
        let path = Path::new("/dev/console");
        let (dev, name) = self.root.parent(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        match rustix::fs::openat(&dev, name, flags, Mode::from_raw_mode(0o620)) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(e) => return Ok(Err(e).call(|| "openat(/dev/console)".to_string())?),
        }
        let target = rustix::fs::openat(&dev, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
            .call(|| "openat(/dev/console)".to_string())?;
        let stat = rustix::fs::fstat(&target).call(|| "fstat(/dev/console)".to_string())?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Ok(Err(Errno::LOOP).call(|| "openat(/dev/console)".to_string())?);
        }
        Ok(Tree::copy(slave.as_fd(), Path::new(""), false)?.attach(target, path)?)
    }

    /// Makes the root read-only where config.json says so; after the hooks.
    ///
    /// # Errors
    /// The failed call.
    pub fn close_root(&self) -> Result<()> {
        if self.spec.root.as_ref().is_some_and(|r| r.readonly) {
            set_attributes(&self.root, Attributes::set(libc::MOUNT_ATTR_RDONLY), false, "/")?;
        }
        Ok(())
    }
}

/// Sets the propagation of the new root; after `pivot_root`.
///
/// # Errors
/// The failed call.
pub fn propagate_root(spec: &Spec, root: impl AsFd) -> Result<()> {
    if let Some((kind, recursive)) = root_propagation(spec)? {
        set_attributes(root, Attributes::propagation(kind), recursive, "/")?;
    }
    Ok(())
}

/// How the host's mounts are cut off from the container's: not at all where the container's are
/// to reach the host.
fn cut_off(spec: &Spec) -> Result<Option<u64>> {
    Ok(match root_propagation(spec)? {
        Some((libc::MS_SHARED, _)) => None,
        Some((libc::MS_PRIVATE, _)) => Some(libc::MS_PRIVATE),
        _ => Some(libc::MS_SLAVE),
    })
}

fn root_propagation(spec: &Spec) -> Result<Option<(u64, bool)>> {
    let name = spec.linux.rootfs_propagation.as_str();
    let unknown = || Error::Invalid {
        field: "linux.rootfsPropagation".into(),
        reason: format!("unknown value {name:?}"),
    };
    if name.is_empty() { Ok(None) } else { options::propagation(name).map(Some).ok_or_else(unknown) }
}

/// Copies what the folder `covered` holds into a mount that is not attached yet. The host's
/// /proc is still there, and its links lead to the open folders, nowhere else.
fn copy_up(covered: &OwnedFd, tree: &Tree) -> Result<()> {
    let path = |fd: BorrowedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    Ok(layer::copy_tree(&path(covered.as_fd()), &path(tree.as_fd()))?)
}

fn is_dir(fd: impl AsFd) -> Result<bool> {
    let stat = rustix::fs::fstat(fd).call(|| "fstat".to_string())?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
