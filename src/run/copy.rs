//! `cp`: files into a container and out of it.
//!
//! The container's side is a directory: of a process that runs the root that it has, with all that
//! is mounted there; of a container that has stopped the root filesystem's folder, without the
//! mounts of config.json. Every path is resolved inside it (`RESOLVE_IN_ROOT`, no magic links), and
//! what is below by descriptors (see [`crate::layer::place`]): nothing that the container's processes
//! do meanwhile leads out of it. No program of the container runs, and this process does not
//! enter its namespaces.
//!
//! What is copied where is as with `cp -R` (POSIX) and `docker cp`: into a directory that is there,
//! by its name, and else under the new name; `PATH/.` stands for what is in a directory.

use super::exec::root_of;
use super::lifecycle::Container;
use super::spec::Spec;
use super::state::Status;
use super::{Error, Result};
use crate::layer::{self, Owner, Placing, TarWriter, WriteOptions};
use crate::oci::Compression;
use crate::store::Limits;
use crate::sys::Call;
use crate::sys::dir::Dir;
use crate::sys::userns::{IdMap, Ids, UserIds, ids};
use crate::tree::TreePath;
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many links are followed, as in Linux (`path_resolution(7)`).
const MAX_LINKS: u32 = 40;

/// How to copy.
#[derive(Debug, Clone, Copy, Default)]
pub struct Copy {
    /// A link that is the source stands for what it leads to.
    pub follow: bool,
    /// Files keep their owners.
    pub archive: bool,
}

/// A side of a copy: paths are resolved inside `root`.
#[derive(Debug)]
struct Side {
    root: Dir,
    ids: UserIds,
}

/// What is to be copied: `name` in `dir`.
struct Source {
    dir: Dir,
    name: OsString,
    /// Its name in a directory that is there; none where its content is meant.
    own_name: Option<OsString>,
    stat: Stat,
}

impl Source {
    fn is_dir(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }
}

impl Copy {
    /// Copies `from` of this machine to `to` in `container`.
    ///
    /// # Errors
    /// [`Error::State`], [`Error::Copy`], [`Error::Layer`]; the failed call.
    pub fn into_container(&self, from: &Path, container: &Container, to: &Path) -> Result<()> {
        let (host, side) = (Side::host()?, Side::writable(container)?);
        let source = host.source(&absolute(from)?, self.follow)?;
        self.between((&host, &source), (&side, to), self.owner_inside(&side)?)
    }

    /// Copies `from` in `container` to `to` on this machine.
    ///
    /// # Errors
    /// As [`Self::into_container`].
    pub fn out_of_container(&self, container: &Container, from: &Path, to: &Path) -> Result<()> {
        let (host, side) = (Side::host()?, Side::of(container)?);
        let source = side.source(from, self.follow)?;
        let own = Owner::One(geteuid().as_raw(), getegid().as_raw());
        let owner = if self.archive { Owner::Kept(UserIds::default()) } else { own };
        self.between((&side, &source), (&host, &absolute(to)?), owner)
    }

    /// Writes `from` in `container` as a tar; gives how many entries it has.
    ///
    /// # Errors
    /// As [`Self::into_container`].
    pub fn as_tar(&self, container: &Container, from: &Path, out: impl Write) -> Result<u64> {
        let side = Side::of(container)?;
        let source = side.source(from, self.follow)?;
        let target = tree_path(from, source.own_name.as_deref())?;
        let mut tar = TarWriter::new(out);
        let entries = layer::write_at(&source.dir, &source.name, &target, &mut tar, &side.reading())?;
        tar.finish().map_err(layer::Error::Output)?;
        Ok(entries)
    }

    /// Puts what is in a tar, compressed or not, into the directory `to` of `container`.
    ///
    /// # Errors
    /// As [`Self::into_container`].
    pub fn from_tar(
        &self,
        (tar, compression): (impl Read + Send, Compression),
        container: &Container,
        to: &Path,
        limits: Limits,
    ) -> Result<u64> {
        let side = Side::writable(container)?;
        let into = side.root.in_root(to)?;
        let placing = Placing { owner: self.owner_inside(&side)?, limits };
        Ok(layer::place(tar, compression, &into, &placing)?)
    }

    fn owner_inside(self, side: &Side) -> Result<Owner> {
        if self.archive {
            return Ok(Owner::Kept(side.ids.clone()));
        }
        let unmapped =
            |id: u32| Error::Unsupported { what: format!("a user namespace that does not map {id}") };
        let (uid, gid) = side.ids.outside(0, 0).map_err(unmapped)?;
        Ok(Owner::One(uid, gid))
    }

    fn between(
        self,
        (from, source): (&Side, &Source),
        (to, path): (&Side, &Path),
        owner: Owner,
    ) -> Result<()> {
        self.check(source)?;
        let (into, target) = to.target(path, source)?;
        let placing = Placing { owner, limits: Limits::none() };
        layer::copy_into((&source.dir, &source.name), &from.reading(), (&into, &target), &placing)?;
        Ok(())
    }

    /// Whether the file can be copied; of what is in a directory something may be left out.
    fn check(self, source: &Source) -> Result<()> {
        let refused = |reason| Err(Error::Copy { path: source.dir.path().join(&source.name), reason });
        match FileType::from_raw_mode(source.stat.st_mode) {
            FileType::Socket => refused("a socket is not copied"),
            FileType::CharacterDevice | FileType::BlockDevice if !self.archive || ids() != Ids::Host => {
                refused("devices are copied with --archive, by root of the host")
            }
            _ => Ok(()),
        }
    }
}

impl Side {
    fn host() -> Result<Self> {
        Ok(Self { root: Dir::open(Path::new("/"))?, ids: UserIds::default() })
    }

    /// The container as it is now.
    fn of(container: &Container) -> Result<Self> {
        let (state, status) = container.status()?;
        match status {
            Status::Creating => {
                let (what, id) = ("copy to or from a container that is not created yet", container.id());
                Err(Error::State { what, id: id.to_string() })
            }
            Status::Stopped => {
                Ok(Self { root: Dir::open(&state.rootfs)?, ids: configured(&container.spec()?) })
            }
            Status::Created | Status::Running | Status::Paused => {
                let root = root_of(&state)?.open(Path::new("/"), OFlags::RDONLY | OFlags::DIRECTORY)?;
                let root = Dir::from((root, PathBuf::from(container.id())));
                let pid = state.process.as_ref().map_or(0, |p| p.pid);
                let ids = UserIds::of(pid);
                // Known to run still: what was read is its own.
                state.pidfd().ok_or_else(|| Error::NotRunning { id: container.id().to_string() })?;
                Ok(Self { root, ids })
            }
        }
    }

    /// The same, to be written into: one that has stopped has no mount that keeps it as it is.
    fn writable(container: &Container) -> Result<Self> {
        let (_, status) = container.status()?;
        let readonly = container.spec()?.root.is_some_and(|root| root.readonly);
        if status == Status::Stopped && readonly {
            let (what, id) = ("copy into a read-only root", container.id().to_string());
            return Err(Error::State { what, id });
        }
        Self::of(container)
    }

    /// How files of this side are read.
    fn reading(&self) -> WriteOptions {
        WriteOptions { live: true, ids: Some(self.ids.clone()), ..WriteOptions::default() }
    }

    /// Finds what is to be copied.
    fn source(&self, path: &Path, follow: bool) -> Result<Source> {
        let Last { name, slash } = Last::of(path);
        let (dir, file) = match name {
            Some(name) if !slash => {
                let parent = self.root.in_root(path.parent().unwrap_or(Path::new("/")))?;
                match parent.stat(name)? {
                    Some(stat) if is_link(&stat) && follow => {
                        let (dir, name, _) = self.settle(path)?;
                        (dir, name)
                    }
                    _ => (parent, name.to_os_string()),
                }
            }
            _ => (self.root.in_root(path)?, OsString::from(".")),
        };
        match dir.stat(&file)? {
            Some(stat) => Ok(Source { dir, name: file, own_name: name.map(OsStr::to_os_string), stat }),
            None => Err(Errno::NOENT).call(|| format!("stat({})", path.display()))?,
        }
    }

    /// Finds where `source` goes: a directory that is there, and a path below it.
    fn target(&self, path: &Path, source: &Source) -> Result<(Dir, TreePath)> {
        let refused = |reason| Err(Error::Copy { path: path.to_path_buf(), reason });
        let (dir, name, stat) = self.settle(path)?;
        let is_dir = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match stat {
            Some(stat) if is_dir(&stat) => {
                let (into, target) = (dir.child(&name)?, tree_path(path, source.own_name.as_deref())?);
                let there = source.own_name.as_deref().map(|own| into.stat(own)).transpose()?.flatten();
                match there {
                    Some(there) if is_dir(&there) && !source.is_dir() => {
                        refused("a directory in it has the name of the source, which is none")
                    }
                    Some(there) if !is_dir(&there) && source.is_dir() => {
                        refused("a file in it has the name of the source, which is a directory")
                    }
                    _ => Ok((into, target)),
                }
            }
            Some(_) if source.is_dir() => refused("it is a file, and the source is a directory"),
            Some(_) if Last::of(path).slash => refused("it is a file, not a directory"),
            None if Last::of(path).slash && !source.is_dir() => refused("there is no such directory"),
            _ => Ok((dir, tree_path(path, Some(&name))?)),
        }
    }

    /// The directory that `path` lies in and its name there, links followed; what it is, if anything.
    fn settle(&self, path: &Path) -> Result<(Dir, OsString, Option<Stat>)> {
        let mut path = path.to_path_buf();
        for _ in 0..MAX_LINKS {
            let Some(name) = Last::of(&path).name else {
                let dir = self.root.in_root(&path)?;
                let stat = dir.stat_self()?;
                return Ok((dir, ".".into(), Some(stat)));
            };
            let parent = path.parent().unwrap_or(Path::new("/"));
            let dir = self.root.in_root(parent)?;
            match dir.stat(name)? {
                Some(stat) if is_link(&stat) => path = parent.join(dir.readlink(name)?),
                stat => return Ok((dir, name.to_os_string(), stat)),
            }
        }
        Err(Errno::LOOP).call(|| format!("stat({})", path.display()))?
    }
}

/// How a path ends.
struct Last<'a> {
    /// Its last component; none where that is `.`, `..` or nothing.
    name: Option<&'a OsStr>,
    /// Whether a slash follows.
    slash: bool,
}

impl<'a> Last<'a> {
    fn of(path: &'a Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        let end = bytes.iter().rposition(|&b| b != b'/').map_or(0, |i| i + 1);
        let last = bytes[..end].rsplit(|&b| b == b'/').next().unwrap_or_default();
        let name = Some(OsStr::from_bytes(last)).filter(|n| !["", ".", ".."].map(OsStr::new).contains(n));
        Self { name, slash: end < bytes.len() }
    }
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

/// A path of this machine from its root. Unlike [`std::path::absolute`] this keeps a final `.`.
fn absolute(path: &Path) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_path_buf());
    }
    let here = std::env::current_dir().call(|| "getcwd".to_string())?;
    Ok(here.join(path))
}

/// The name of an entry; the root where none is given.
fn tree_path(path: &Path, name: Option<&OsStr>) -> Result<TreePath> {
    let Some(name) = name else { return Ok(TreePath::root()) };
    let refused = |_| Error::Copy { path: path.to_path_buf(), reason: "its name is too long" };
    TreePath::parse(name.as_bytes()).map_err(refused)
}

/// The ids of a container that does not run.
fn configured(spec: &Spec) -> UserIds {
    if !spec.has_namespace("user") {
        return UserIds::default();
    }
    let map = |mappings: &[super::spec::IdMapping]| -> IdMap {
        mappings.iter().map(|m| (m.container_id, m.host_id, m.size)).collect()
    };
    UserIds::new(map(&spec.linux.uid_mappings), map(&spec.linux.gid_mappings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_paths_end() {
        for (path, name, slash) in [
            ("/a/b", Some("b"), false),
            ("/a/b//", Some("b"), true),
            ("a", Some("a"), false),
            ("/a/.", None, false),
            ("..", None, false),
            ("/", None, true),
            ("", None, false),
            ("/a/..b", Some("..b"), false),
        ] {
            let last = Last::of(Path::new(path));
            assert_eq!((last.name, last.slash), (name.map(OsStr::new), slash), "{path}");
        }
        assert_eq!(absolute(Path::new("/x/.")).unwrap().as_os_str(), "/x/.");
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute(Path::new("x/.")).unwrap().as_os_str().len(), here.as_os_str().len() + 4);
    }
}
