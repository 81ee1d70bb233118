//! Idmapped mounts: the owners of files are others in the container than on the filesystem
//! (runtime-spec, `config.md`, Mounts; `mount_setattr(2)`, `MOUNT_ATTR_IDMAP`).
//!
//! The right to map is one over the filesystem, which a process in the container's user
//! namespace has not got. So bind mounts are copied and mapped here, by `create`, before that
//! process is there; it attaches them. New filesystems are its own: it maps them itself, by a
//! namespace made here.

use super::namespaces::user_namespace;
use super::options::Options;
use super::spec::{Mount, Spec};
use super::{Error, Result, io_error};
use crate::sys::mountfd::Tree;
use crate::sys::{self, mount, userns};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::CWD;
use rustix::io::Errno;
use std::path::Path;

/// What is ready of an idmapped mount before the container's process is there.
#[derive(Debug)]
pub enum Mapped {
    /// The copy of a bind mount's source.
    Bind(Tree),
    /// The user namespace by which a new filesystem is to be mapped, with whether the mounts below are.
    Namespace(OwnedFd, bool),
}

/// What each mount of config.json needs, in their order.
pub type Idmaps = Vec<Option<Mapped>>;

/// Refuses a mount whose mapping is incomplete or is to come from a user namespace that is not there.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check(spec: &Spec, mount: &Mount) -> Result<()> {
    let reason = match (mount.uid_mappings.is_empty(), mount.gid_mappings.is_empty()) {
        (false, false) => return Ok(()),
        (true, true) => {
            let wanted = mount.options.iter().any(|o| o == "idmap" || o == "ridmap");
            if !wanted || spec.has_namespace("user") {
                return Ok(());
            }
            "idmap needs uidMappings and gidMappings where there is no user namespace"
        }
        _ => "uidMappings and gidMappings go together",
    };
    let reason = format!("{}: {reason}", mount.destination.display());
    Err(Error::Invalid { field: "mounts".into(), reason })
}

/// Makes what the idmapped mounts of `spec` need.
///
/// # Errors
/// [`Error::Unsupported`] for a filesystem that has no such mounts, or over which this process
/// has no right; the failed call.
pub fn prepare(spec: &Spec, bundle: &Path) -> Result<Idmaps> {
    spec.mounts.iter().map(|mount| one(spec, bundle, mount)).collect()
}

/// The descriptors, which the container's process keeps.
pub fn numbers(maps: &Idmaps) -> impl Iterator<Item = i32> {
    maps.iter().flatten().map(|mapped| match mapped {
        Mapped::Bind(tree) => tree.as_fd().as_raw_fd(),
        Mapped::Namespace(fd, _) => fd.as_raw_fd(),
    })
}

fn one(spec: &Spec, bundle: &Path, mount: &Mount) -> Result<Option<Mapped>> {
    let parsed = Options::parse(mount)?;
    let Some(recursive) = parsed.idmap else { return Ok(None) };
    if parsed.remount {
        let reason = format!("{}: a remount cannot map ids", mount.destination.display());
        return Err(Error::Invalid { field: "mounts".into(), reason });
    }
    if parsed.bind.is_some() && userns::ids() != userns::Ids::Host {
        let what = format!("idmapped bind mount at {} by an ordinary user", mount.destination.display());
        return Err(unsupported(what));
    }
    let namespace = namespace(spec, mount)?;
    let (Some(below), Some(source)) = (parsed.bind, &mount.source) else {
        return Ok(Some(Mapped::Namespace(namespace, recursive)));
    };
    let source = bundle.join(source);
    let tree = Tree::copy(CWD, &source, below)?;
    map(&tree, namespace.as_fd(), recursive, mount, || mount::filesystem_of(&source))?;
    Ok(Some(Mapped::Bind(tree)))
}

fn unsupported(what: String) -> Error {
    Error::Unsupported { what }
}

/// The mount's own mapping, or that of the container.
fn namespace(spec: &Spec, mount: &Mount) -> Result<OwnedFd> {
    if !mount.uid_mappings.is_empty() {
        return user_namespace(&mount.uid_mappings, &mount.gid_mappings);
    }
    let joined = spec.linux.namespaces.iter().find(|n| n.kind == "user" && !n.path.as_os_str().is_empty());
    match joined {
        Some(n) => Ok(io_error("open namespace", &n.path, std::fs::File::open(&n.path))?.into()),
        None => user_namespace(&spec.linux.uid_mappings, &spec.linux.gid_mappings),
    }
}

/// Maps a mount that is not attached yet; `filesystem` tells its type for what goes wrong.
///
/// # Errors
/// As [`prepare`].
pub fn map(
    tree: &Tree,
    namespace: BorrowedFd,
    recursive: bool,
    mount: &Mount,
    filesystem: impl FnOnce() -> Option<String>,
) -> Result<()> {
    let place = mount.destination.display();
    let refused = |error: sys::Error| {
        let filesystem = filesystem().unwrap_or_else(|| "filesystem".into());
        match error.errno() {
            Some(Errno::INVAL) => unsupported(format!("idmapped mount of {filesystem} at {place}")),
            Some(Errno::PERM) => unsupported(format!(
                "idmapped mount of {filesystem} at {place} (mapped already, or of another user namespace)"
            )),
            _ => error.into(),
        }
    };
    tree.map_ids(namespace, recursive, &place.to_string()).map_err(refused)
}
