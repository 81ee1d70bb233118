//! Entries of a tar into a directory that others use at the same time.
//!
//! Whoever can write there may put links and other files in the way at any moment. So every parent is
//! opened below the directory without following a link, and what becomes of an entry is made in a
//! folder of its own beside its place, which nobody else can enter, and then renamed to its name:
//! nothing that is there is ever opened, and what is there is whole at any time. A directory
//! gets its owner, mode and times at the end, where it is still the one that was made.
//!
//! What is there already: a directory stays and takes what comes, its own metadata only where owners
//! are kept; anything else is replaced by what is no directory. A directory does not take the
//! place of a file, nor a file that of a directory. Whiteouts mean nothing here.
//!
//! What a file may bring along depends on whose it becomes. One that changes its owner loses setuid,
//! setgid and its capabilities, as by chown(2). Of attributes only `user.*` come along, and with
//! their owners capabilities and, where ids are the same, access control lists. Devices come along with
//! their owners and as root of the host, or are left out.

use super::archive::Archive;
use super::node::{self, finish_file, ids};
use super::stream::Tar;
use super::write::Identity;
use super::{Error, Origin, Reason, Result, TarWriter, WriteOptions, signal_pending, write_at};
use crate::oci::Compression;
use crate::store::Limits;
use crate::sys::dir::Dir;
use crate::sys::userns::{Ids, UserIds};
use crate::sys::{self, Call};
use crate::tree::{Entry, Kind, Meta, Name, TreePath};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::thread;

/// The name that everything has in the folder where it is made.
const NEW: &str = "new";

/// Whose the files become.
#[derive(Debug, Clone)]
pub enum Owner {
    /// All are of this user and this group.
    One(u32, u32),
    /// They keep theirs, which are ids of this user namespace.
    Kept(UserIds),
}

/// How entries become files.
#[derive(Debug, Clone)]
pub struct Placing {
    /// Whose they become.
    pub owner: Owner,
    /// What the archive may cost.
    pub limits: Limits,
}

/// Puts the entries of the tar `source` into the directory `into`; gives how many there were.
///
/// # Errors
/// Any [`Error`]; what was put there before stays.
pub fn place(
    source: impl Read + Send,
    compression: Compression,
    into: &Dir,
    placing: &Placing,
) -> Result<u64> {
    thread::scope(|scope| {
        let mut archive = Archive::new(Tar::over(scope, source, compression, None, placing.limits));
        let mut place = Place { root: into, placing, made: BTreeMap::new(), at: None };
        let filled = place.fill(&mut archive);
        let finished = place.finish();
        filled.and(finished)?;
        let entries = archive.entries();
        archive.tar.finish()?;
        Ok(entries)
    })
}

/// Copies `name` of the directory `from` with all below it into the directory `into`, as `target`.
///
/// # Errors
/// Any [`Error`]; what was copied before stays.
pub fn copy_into(
    (from, name): (&Dir, &OsStr),
    options: &WriteOptions,
    (into, target): (&Dir, &TreePath),
    placing: &Placing,
) -> Result<u64> {
    let options = WriteOptions { except: Some(identity(into)?), ..options.clone() };
    let (reader, writer) = io::pipe().call(|| "pipe2".to_string())?;
    thread::scope(|scope| {
        let walk = scope.spawn(move || {
            let mut tar = TarWriter::new(io::BufWriter::with_capacity(64 << 10, writer));
            write_at(from, name, target, &mut tar, &options)?;
            tar.finish().map(drop).map_err(Error::Output)
        });
        let placed = place(reader, Compression::None, into, placing);
        match walk.join() {
            // Nobody reads on: the other side says why.
            Ok(Err(Error::Output(_))) if placed.is_err() => placed,
            Ok(walked) => walked.and(placed),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn identity(dir: &Dir) -> sys::Result<Identity> {
    dir.stat_self().map(|s| (s.st_dev, s.st_ino))
}

/// A directory being filled.
struct Place<'a> {
    root: &'a Dir,
    placing: &'a Placing,
    /// Directories that get their metadata at the end.
    made: BTreeMap<TreePath, (Meta, Identity)>,
    at: Option<At>,
}

/// Where files are being made: a directory, and a folder in it that is nobody else's.
struct At {
    path: TreePath,
    dir: Dir,
    folder: OsString,
    own: Dir,
}

impl At {
    /// Gives what was made its name.
    fn publish(&self, name: &OsStr) -> sys::Result<()> {
        self.own.rename(OsStr::new(NEW), &self.dir, name)?;
        // rename(2) does nothing where both are names of one file.
        self.discard()
    }

    /// Takes away what has got no name. Not what else may be in the folder: it should be none, but is
    /// another's where somebody has put another folder in its place.
    fn discard(&self) -> sys::Result<()> {
        match self.own.unlink(OsStr::new(NEW)) {
            Err(e) if e.errno() == Some(Errno::NOENT) => Ok(()),
            other => other,
        }
    }
}

impl Place<'_> {
    fn fill(&mut self, archive: &mut Archive) -> Result<()> {
        while let Some(entry) = archive.next()? {
            signal_pending()?;
            self.add(entry, archive)?;
        }
        Ok(())
    }

    fn add(&mut self, entry: Entry, archive: &mut Archive) -> Result<()> {
        let Entry { name: Name::Entry(path), kind, meta, size } = entry else { return Ok(()) };
        let meta = self.meta(&path, &kind, meta)?;
        let Some((parent, name)) = path.split() else {
            if kind != Kind::Directory {
                return refuse(&path, Reason::Root);
            }
            let root = self.root;
            return if self.keeps_owners() { self.describe(path, meta, root) } else { Ok(()) };
        };
        match kind {
            Kind::Socket => return self.leave_out(&path, "a socket"),
            Kind::Char(0, 0) => return refuse(&path, Reason::WhiteoutDevice),
            Kind::Char(..) | Kind::Block(..) if !self.makes_devices() => {
                return self.leave_out(&path, "a device");
            }
            Kind::Directory => {
                let (dir, fresh) = make_directory(&self.at(&parent, &path)?.dir, &path, name)?;
                let described = fresh || self.keeps_owners();
                return if described { self.describe(path, meta, &dir) } else { Ok(()) };
            }
            _ => {}
        }
        let failed = |e| fail(&path, e);
        let old = match &kind {
            Kind::Link(target) => Some(self.link_target(&path, target)?),
            _ => None,
        };
        let at = self.at(&parent, &path)?;
        let new = OsStr::new(NEW);
        match (&kind, old) {
            (_, Some((dir, old))) => at.own.link(new, &dir, &old).map_err(failed)?,
            (Kind::File, _) => {
                let file = at.own.create(new).map_err(failed)?;
                write(&file, &path, size, archive)?;
                finish_file(&file, &meta).map_err(failed)?;
            }
            _ => drop(node::make(&at.own, new, &kind, &meta).map_err(failed)?),
        }
        // To rename over what is mounted elsewhere only would take that away.
        if at.dir.is_mount_point(name).map_err(failed)? {
            return refuse(&path, Reason::MountPoint);
        }
        match at.publish(name) {
            Err(e) if e.errno() == Some(Errno::ISDIR) => refuse(&path, Reason::IsDirectory),
            other => other.map_err(failed),
        }
    }

    fn keeps_owners(&self) -> bool {
        matches!(self.placing.owner, Owner::Kept(_))
    }

    fn makes_devices(&self) -> bool {
        self.keeps_owners() && ids() == Ids::Host
    }

    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "an arm like the others")]
    fn leave_out(&self, path: &TreePath, what: &str) -> Result<()> {
        tracing::warn!("{what} is left out: {path}");
        Ok(())
    }

    /// What is in the archive, as it may be here.
    fn meta(&self, path: &TreePath, kind: &Kind, mut meta: Meta) -> Result<Meta> {
        if let Some((name, _)) = meta.xattrs.iter().find(|(n, _)| node::is_overlay(n)) {
            return refuse(path, Reason::OverlayAttribute(name.escape_ascii().to_string()));
        }
        let is_users = |name: &[u8]| name.starts_with(b"user.") && !node::is_dropped(name);
        match &self.placing.owner {
            Owner::One(uid, gid) => {
                (meta.uid, meta.gid) = (*uid, *gid);
                meta.xattrs.retain(|(n, _)| is_users(n));
                if *kind != Kind::Directory {
                    meta.mode &= !0o6000;
                }
            }
            Owner::Kept(ids) => {
                let owner = ids.outside(meta.uid, meta.gid);
                (meta.uid, meta.gid) = owner.or_else(|id| refuse(path, Reason::Unmapped(id)))?;
                let comes = |name: &[u8]| {
                    name == b"security.capability" || ids.is_same() && name.starts_with(b"system.posix_acl_")
                };
                meta.xattrs.retain(|(n, _)| is_users(n) || comes(n));
            }
        }
        Ok(meta)
    }

    /// The directory `path`, which is open, gets `meta` at the end.
    fn describe(&mut self, path: TreePath, meta: Meta, dir: &Dir) -> Result<()> {
        let identity = identity(dir).map_err(|e| fail(&path, e))?;
        self.made.insert(path, (meta, identity));
        Ok(())
    }

    /// Where the hard link `path` leads to.
    fn link_target(&self, path: &TreePath, target: &TreePath) -> Result<(Dir, OsString)> {
        let Some((parent, name)) = target.split().filter(|_| path != target) else {
            return refuse(path, Reason::LinkToItself);
        };
        let dir = self.root.below(parent.as_path()).map_err(|e| fail(path, e))?;
        match dir.stat(name).map_err(|e| fail(path, e))? {
            None => refuse(path, Reason::LinkToNothing(target.clone())),
            Some(_) => Ok((dir, name.to_os_string())),
        }
    }

    /// Goes to the directory `parent` of the entry `path`.
    fn at(&mut self, parent: &TreePath, path: &TreePath) -> Result<&At> {
        if self.at.as_ref().is_none_or(|at| at.path != *parent) {
            self.leave().map_err(|e| fail(path, e))?;
            let dir = self.parent(parent, path)?;
            let (folder, own) = own_folder(&dir).map_err(|e| fail(path, e))?;
            return Ok(self.at.insert(At { path: parent.clone(), dir, folder, own }));
        }
        match &self.at {
            Some(at) => Ok(at),
            None => refuse(path, Reason::Root),
        }
    }

    /// Opens `parent`, made with those above it where they are missing.
    fn parent(&mut self, parent: &TreePath, path: &TreePath) -> Result<Dir> {
        let not_directory = |at: &TreePath, e: sys::Error| match e.errno() {
            Some(Errno::NOTDIR | Errno::LOOP) => {
                let (path, reason) = (path.clone(), Reason::NotDirectory(at.clone()));
                Error::Entry { layer: Origin::Stream, path, reason }
            }
            _ => fail(path, e),
        };
        match self.root.below(parent.as_path()) {
            Err(e) if e.errno() == Some(Errno::NOENT) => {}
            other => return other.map_err(|e| not_directory(parent, e)),
        }
        for prefix in parent.prefixes() {
            let Some((above, name)) = prefix.split() else { continue };
            let dir = self.root.below(above.as_path()).map_err(|e| not_directory(&above, e))?;
            let (made, fresh) = make_directory(&dir, &prefix, name)?;
            if fresh {
                let bare = Meta { mode: 0o755, mtime: now(), ..Meta::default() };
                let meta = self.meta(&prefix, &Kind::Directory, bare)?;
                self.describe(prefix, meta, &made)?;
            }
        }
        self.root.below(parent.as_path()).map_err(|e| not_directory(parent, e))
    }

    /// Takes away the folder in which files were made.
    fn leave(&mut self) -> sys::Result<()> {
        let Some(at) = self.at.take() else { return Ok(()) };
        at.discard()?;
        match at.dir.rmdir(&at.folder) {
            // Somebody has moved it.
            Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTEMPTY | Errno::NOTDIR)) => Ok(()),
            other => other,
        }
    }

    /// Gives all directories what they are meant to have, the deepest first.
    fn finish(&mut self) -> Result<()> {
        let left = self.leave().map_err(|e| fail(&TreePath::root(), e));
        for (path, (meta, made)) in std::mem::take(&mut self.made).into_iter().rev() {
            let dir = self.root.below(path.as_path()).map_err(|e| fail(&path, e))?;
            if identity(&dir).map_err(|e| fail(&path, e))? != made {
                return refuse(&path, Reason::Replaced);
            }
            finish_file(&dir, &meta).map_err(|e| fail(&path, e))?;
        }
        left
    }
}

fn fail(path: &TreePath, source: sys::Error) -> Error {
    Error::Make { layer: Origin::Stream, path: path.clone(), source }
}

fn refuse<T>(path: &TreePath, reason: Reason) -> Result<T> {
    Err(Error::Entry { layer: Origin::Stream, path: path.clone(), reason })
}

fn now() -> crate::tree::Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    crate::tree::Time { seconds: i64::try_from(since.as_secs()).unwrap_or(0), nanos: since.subsec_nanos() }
}

/// Opens the directory `name`, made where it is missing; whether it was.
fn make_directory(dir: &Dir, path: &TreePath, name: &OsStr) -> Result<(Dir, bool)> {
    if let Some(made) = make_own(dir, name).map_err(|e| fail(path, e))? {
        return Ok((made, true));
    }
    let there = dir.child(name).or_else(|_| refuse(path, Reason::NotDirectory(path.clone())))?;
    Ok((there, false))
}

/// Makes a folder in `dir` that only this user can enter.
fn own_folder(dir: &Dir) -> sys::Result<(OsString, Dir)> {
    let mut number = 0;
    loop {
        let name = OsString::from(format!(".shipimg-{}-{number}", std::process::id()));
        match make_own(dir, &name)? {
            Some(own) => return Ok((name, own)),
            None => number += 1,
        }
    }
}

/// Makes the directory `name`, mode 0700; none where something is there.
fn make_own(dir: &Dir, name: &OsStr) -> sys::Result<Option<Dir>> {
    match dir.mkdir(name) {
        Err(e) if e.errno() == Some(Errno::EXIST) => return Ok(None),
        other => other?,
    }
    let own = dir.child(name)?;
    let stat = own.stat_self()?;
    // Another one, put there in between, would be somebody else's, writable for others or not empty. (Not
    // every filesystem has modes: vfat makes it 0755.)
    if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o022 != 0 || !own.list()?.is_empty() {
        return Err(Errno::PERM).call(|| format!("mkdirat({})", own.path().display()));
    }
    Ok(Some(own))
}

fn write(file: &File, path: &TreePath, size: u64, archive: &mut Archive) -> Result<()> {
    let mut end = 0;
    archive.content(|offset, bytes| {
        end = offset + bytes.len() as u64;
        let written = file.write_all_at(bytes, offset).call(|| format!("pwrite({})", bytes.len()));
        written.map_err(|e| fail(path, e))
    })?;
    if end == size {
        return Ok(());
    }
    rustix::fs::ftruncate(file, size).call(|| format!("ftruncate({size})")).map_err(|e| fail(path, e))
}
