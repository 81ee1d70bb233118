//! Single files as they are meant, and as this process can make them.
//!
//! Everything else here deals in what files are meant to be. In a user namespace the kernel does
//! not let them all be that, and it is recorded in attributes (see [`crate::tree::recorded`]),
//! which are written and read here alone, and by such a process alone:
//!
//! | | in a user namespace | where only one id is mapped, too |
//! |---|---|---|
//! | owner | is set | recorded, of files and directories; of others [`Owners`] may know it |
//! | device | an empty file of 0:0, on which it is recorded | the same |
//! | `trusted.*`, `security.*` but capabilities | left out | the same |
//!
//! A record of a device counts only on an empty file that nobody but root can have written: who
//! is not root in a container makes no device by it.

use crate::sys::dir::Dir;
use crate::sys::userns::{self, Ids};
use crate::sys::{self, Call, copy, xattr};
use crate::tree::recorded::{self, DEVICE, OWNER, Owner};
use crate::tree::{Kind, Meta, Time, Tree, TreePath};
use rustix::fs::{FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{Mutex, Once, OnceLock, PoisonError};

/// Attributes that belong to the host where the layer was made, and records, which only this
/// process may make.
const DROPPED: [&[u8]; 4] = [b"security.selinux", b"system.nfs4_acl", OWNER, DEVICE];

/// Attributes that overlayfs interprets.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// The ids of this process, found once: it has entered its namespace before it makes files.
pub(super) fn ids() -> Ids {
    static FOUND: OnceLock<Ids> = OnceLock::new();
    *FOUND.get_or_init(userns::ids)
}

/// Whether an attribute is left out of layers, read and written.
pub(super) fn is_dropped(name: &[u8]) -> bool {
    DROPPED.contains(&name)
}

/// Whether overlayfs interprets an attribute.
pub(super) fn is_overlay(name: &[u8]) -> bool {
    OVERLAY.iter().any(|prefix| name.starts_with(prefix))
}

/// The attribute that makes a directory hide what is below it.
pub(super) fn opaque() -> &'static [u8] {
    if ids() == Ids::Host { b"trusted.overlay.opaque" } else { b"user.overlay.opaque" }
}

/// Whether this is overlayfs' whiteout.
pub(super) fn is_whiteout(s: &Stat) -> bool {
    FileType::from_raw_mode(s.st_mode) == FileType::CharacterDevice && s.st_rdev == 0
}

/// Whether only root of the host can set an attribute.
pub(super) fn is_hosts(name: &[u8]) -> bool {
    name.starts_with(b"trusted.") || name.starts_with(b"security.") && name != b"security.capability"
}

/// Owners of files that have no room for a record: symbolic links and fifos. They are found by the
/// inode, where the file was made a moment ago, or else by the path.
#[derive(Debug, Default)]
pub struct Owners {
    made: Mutex<HashMap<u64, Owner>>,
    known: HashMap<TreePath, Owner>,
}

impl Owners {
    /// The owners in a tree, for the files that have the same paths.
    #[must_use]
    pub fn of(tree: &Tree) -> Self {
        let needed = |kind: &Kind| ids() == Ids::Single && !has_record(kind);
        let known = tree.iter().filter(|(_, n)| needed(&n.kind));
        let known = known.map(|(path, n)| (path.clone(), (n.meta.uid, n.meta.gid))).collect();
        Self { made: Mutex::default(), known }
    }

    /// The file `name` in `dir` was made and is meant to have the owner in `meta`.
    pub(super) fn note(&self, dir: &Dir, name: &OsStr, kind: &Kind, meta: &Meta) -> sys::Result<()> {
        if ids() == Ids::Single
            && !has_record(kind)
            && let Some(stat) = dir.stat(name)?
        {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.insert(stat.st_ino, (meta.uid, meta.gid));
        }
        Ok(())
    }

    /// Corrects the owner in `meta`, as it was read from the file `path`.
    pub(super) fn correct(&self, path: &TreePath, stat: &Stat, kind: &Kind, meta: &mut Meta) {
        if ids() != Ids::Single || has_record(kind) {
            return;
        }
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = made.get(&stat.st_ino).or_else(|| self.known.get(path)) {
            (meta.uid, meta.gid) = *owner;
        }
    }
}

/// Whether a file of this sort, or what stands in for it, can have attributes of users (xattr(7)).
const fn has_record(kind: &Kind) -> bool {
    !matches!(kind, Kind::Symlink(_) | Kind::Fifo | Kind::Socket)
}

/// The metadata of an open file or directory, without overlayfs' mark of an opaque one.
pub(super) fn meta_of(fd: impl rustix::fd::AsFd) -> sys::Result<Meta> {
    let fd = fd.as_fd();
    let stat = rustix::fs::fstat(fd).call(|| "fstat".to_string())?;
    let mut xattrs = xattr::all_fd(fd)?;
    xattrs.retain(|(n, _)| n != opaque());
    Ok(meta_from(&stat, xattrs))
}

fn meta_from(stat: &Stat, xattrs: Vec<xattr::Xattr>) -> Meta {
    let mut meta = Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) },
        xattrs,
    };
    if ids() == Ids::Single
        && let Some(value) = take(&mut meta, OWNER)
        && let Some(owner) = recorded::read_owner(&value, (meta.uid, meta.gid))
    {
        (meta.uid, meta.gid) = owner;
    }
    meta
}

/// Takes an attribute out.
fn take(meta: &mut Meta, name: &[u8]) -> Option<Vec<u8>> {
    let at = meta.xattrs.iter().position(|(n, _)| n == name)?;
    Some(meta.xattrs.swap_remove(at).1)
}

/// What `name` is, which is not followed and for which `stat` has been read.
pub(super) fn read(dir: &Dir, name: &OsStr, stat: &Stat) -> sys::Result<(Kind, Meta)> {
    let mut meta = meta_from(stat, xattr::all_at(dir, name)?);
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => stand_in(stat, &mut meta).unwrap_or(Kind::File),
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink(dir.readlink(name)?.into_vec()),
        FileType::CharacterDevice => Kind::Char(major, minor),
        FileType::BlockDevice => Kind::Block(major, minor),
        FileType::Fifo => Kind::Fifo,
        _ => Kind::Socket,
    };
    Ok((kind, meta))
}

/// The device that a regular file stands for; `meta` becomes the device's.
fn stand_in(stat: &Stat, meta: &mut Meta) -> Option<Kind> {
    if ids() == Ids::Host || stat.st_size != 0 || stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
        return None;
    }
    let value = take(meta, DEVICE)?;
    let (kind, (uid, gid), mode) = recorded::read_device(&value)?;
    (meta.uid, meta.gid, meta.mode) = (uid, gid, mode);
    Some(kind)
}

/// Times that leave the time of access at that of the modification.
fn times(meta: &Meta) -> Timestamps {
    let time = Timespec { tv_sec: meta.mtime.seconds, tv_nsec: i64::from(meta.mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}

/// Owner, mode, attributes and times, in this order: chown(2) takes setuid bits and
/// `security.capability` away.
pub(super) fn finish_file(fd: impl rustix::fd::AsFd, meta: &Meta) -> sys::Result<()> {
    let fd = fd.as_fd();
    if ids() != Ids::Single {
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        let chown = rustix::fs::fchown(fd, Some(uid), Some(gid));
        chown.call(|| format!("fchown({}, {})", meta.uid, meta.gid))?;
    } else if let Some(value) = recorded::write_owner((meta.uid, meta.gid)) {
        tolerate(OWNER, xattr::set_fd(fd, OWNER, &value))?;
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode)).call(|| format!("fchmod({:o})", meta.mode))?;
    for (name, value) in &meta.xattrs {
        tolerate(name, xattr::set_fd(fd, name, value))?;
    }
    rustix::fs::futimens(fd, &times(meta)).call(|| "futimens".to_string())
}

/// Makes the symbolic link, fifo, socket or device `name`; whether a file stands in for a device.
pub(super) fn make(dir: &Dir, name: &OsStr, kind: &Kind, meta: &Meta) -> sys::Result<bool> {
    let (file_type, device) = match kind {
        Kind::Symlink(target) => {
            dir.symlink(name, OsStr::from_bytes(target))?;
            return finish_node(dir, name, meta, false).map(|()| false);
        }
        Kind::Char(major, minor) => (FileType::CharacterDevice, (*major, *minor)),
        Kind::Block(major, minor) => (FileType::BlockDevice, (*major, *minor)),
        Kind::Socket => (FileType::Socket, (0, 0)),
        _ => (FileType::Fifo, (0, 0)),
    };
    let record = recorded::write_device(kind, (meta.uid, meta.gid), meta.mode);
    match (dir.mknod(name, file_type, device), record) {
        (Err(e), Some(record)) if e.errno() == Some(Errno::PERM) && ids() != Ids::Host => {
            let file = dir.create(name)?;
            tolerate(DEVICE, xattr::set_fd(&file, DEVICE, &record))?;
            finish_file(&file, &Meta { uid: 0, gid: 0, mode: 0o600, ..meta.clone() }).map(|()| true)
        }
        (made, _) => made.and_then(|()| finish_node(dir, name, meta, true)).map(|()| false),
    }
}

/// As [`finish_file`] for what cannot be opened; symbolic links have no mode.
fn finish_node(dir: &Dir, name: &OsStr, meta: &Meta, with_mode: bool) -> sys::Result<()> {
    if ids() != Ids::Single {
        dir.chown(name, meta.uid, meta.gid)?;
    }
    if with_mode {
        dir.chmod(name, meta.mode)?;
    }
    for (attribute, value) in &meta.xattrs {
        tolerate(attribute, xattr::set_at(dir, name, attribute, value))?;
    }
    dir.utimens(name, &times(meta))
}

/// A filesystem without attributes is good enough for all but capabilities; a user namespace
/// cannot have those of the host's root, nor lists of ids that it does not have.
fn tolerate(name: &[u8], result: sys::Result<()>) -> sys::Result<()> {
    static RECORDS: Once = Once::new();
    let inside = ids() != Ids::Host;
    match result {
        Err(e) if e.errno() == Some(Errno::OPNOTSUPP) && (name == OWNER || name == DEVICE) => {
            RECORDS.call_once(|| tracing::warn!("owners and devices are not recorded: {e}"));
        }
        Err(e) if e.errno() == Some(Errno::OPNOTSUPP) && name != b"security.capability" => {
            tracing::warn!("{e}");
        }
        Err(e) if inside && e.errno() == Some(Errno::PERM) && is_hosts(name) => tracing::warn!("{e}"),
        Err(e) if inside && e.errno() == Some(Errno::INVAL) && name.starts_with(b"system.posix_acl_") => {
            tracing::warn!("{e}");
        }
        other => return other,
    }
    Ok(())
}

/// Copies one name that is no directory, with everything; `to` has nothing of that name.
///
/// # Errors
/// The failed call.
pub(super) fn copy(from: &Dir, name: &OsStr, to: &Dir, new: &OsStr) -> sys::Result<()> {
    let Some(stat) = from.stat(name)? else { return Ok(()) };
    let (kind, meta) = read(from, name, &stat)?;
    if kind != Kind::File {
        return make(to, new, &kind, &meta).map(drop);
    }
    let source: File = from.file(name)?;
    let file = to.create(new)?;
    copy::file(&source, &file, u64::try_from(stat.st_size).unwrap_or(0))?;
    finish_file(&file, &meta)
}
