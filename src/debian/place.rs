//! Where the members of packages go: parents, merged `/usr`, who owns a file.
//!
//! Parents are opened with `RESOLVE_IN_ROOT`; the last name is created exclusively and never
//! followed, owner, mode and time go by descriptor: nothing outside the root can be reached.

use super::control::{Atom, dependencies, diverted, field};
use super::database::read;
use super::filter::Filters;
use super::unpack::{Job, Style};
use super::{Error, Result};
use crate::sys::dir::Dir;
use crate::sys::{self, Call};
use rustix::fs::{FileType, Gid, Mode, Timespec, Timestamps, Uid, fchmod, fchown, futimens};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The directories that a merged `/usr` takes in.
const MERGED: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"];

/// What a member's header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
}

impl Meta {
    pub(super) fn times(self) -> Timestamps {
        let time = Timespec { tv_sec: self.mtime, tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    }
}

/// Of which rank a package is for directories: base-files, then by name.
pub(super) type Rank<'a> = (bool, &'a str);

/// Whose each file is.
pub(super) type Owners = Mutex<HashMap<PathBuf, usize>>;

/// What the threads know together.
#[derive(Default)]
pub(super) struct Shared<'a> {
    /// Files that a package lost to one that replaces it.
    pub lost: Mutex<HashSet<(usize, PathBuf)>>,
    /// What directories will have at the end.
    pub dirs: Mutex<HashMap<PathBuf, (Rank<'a>, Meta)>>,
    /// The links to make into a merged `/usr`.
    pub aliases: Mutex<BTreeSet<&'static str>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where files go in place of their own paths (dpkg-divert(1)).
#[derive(Debug, Default)]
pub(super) struct Diversions(HashMap<PathBuf, (PathBuf, String)>);

impl Diversions {
    /// Those of a root.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let text = read(&Dir::open(root)?.in_root(Path::new("var/lib/dpkg"))?, "diversions")?;
        let path = |line: &str| PathBuf::from(line.trim_start_matches('/'));
        let diverted = diverted(&text).into_iter();
        Ok(Self(diverted.map(|(from, (to, by))| (path(from), (path(to), by.to_string()))).collect()))
    }

    /// Where the file `path` of a package goes.
    pub(super) fn of<'p>(&'p self, package: &str, path: &'p Path) -> &'p Path {
        match self.0.get(path) {
            Some((to, by)) if by != package => to,
            _ => path,
        }
    }
}

/// What packages may take over from others (deb-control(5), `Replaces`).
#[derive(Debug)]
pub(super) struct Replaces {
    /// The version and what is replaced, for each job.
    packages: Vec<(String, Vec<Atom>)>,
}

impl Replaces {
    pub(super) fn of(jobs: &[Job]) -> Self {
        let get = |job: &Job, name: &str| field(&job.control.paragraph, name).unwrap_or_default();
        let atoms = |job| dependencies(&get(job, "Replaces")).into_iter().flatten().collect();
        Self { packages: jobs.iter().map(|job| (get(job, "Version"), atoms(job))).collect() }
    }

    /// Whether job `one` may take files over from job `other`, which is named `name`.
    fn allows(&self, one: usize, other: usize, name: &str) -> bool {
        let version = &self.packages[other].0;
        let fits =
            |a: &Atom| a.version.as_ref().is_none_or(|(relation, bound)| relation.holds(version, bound));
        self.packages[one].1.iter().any(|a| a.name == name && fits(a))
    }
}

/// One thread's view of the root.
pub(super) struct Place<'s, 'a> {
    pub root: Dir,
    pub parents: HashMap<PathBuf, Dir>,
    pub style: Style,
    pub later: bool,
    pub filters: &'s Filters,
    pub owners: &'s Owners,
    pub shared: &'s Shared<'a>,
    pub jobs: &'a [Job],
    pub replaces: &'s Replaces,
    pub diversions: &'s Diversions,
}

impl Place<'_, '_> {
    /// Where a path lies below a merged `/usr`; notes which links that takes.
    pub(super) fn real(&self, path: &Path) -> PathBuf {
        let first = path.components().next().and_then(|c| c.as_os_str().to_str());
        let alias = MERGED.iter().find(|m| Some(**m) == first).filter(|_| self.style == Style::Dpkg);
        match alias {
            Some(alias) if path.components().nth(1).is_some() => {
                lock(&self.shared.aliases).insert(alias);
                Path::new("usr").join(path)
            }
            _ => path.to_path_buf(),
        }
    }

    pub(super) fn directory(&mut self, i: usize, path: &Path, meta: Meta) -> Result<()> {
        let mut real = self.real(path);
        let merged = MERGED.iter().find(|m| self.style == Style::Dpkg && Path::new(m) == path);
        if let Some(alias) = merged {
            lock(&self.shared.aliases).insert(alias);
            real = Path::new("usr").join(path);
        }
        let shared = self.shared;
        let mut dirs = lock(&shared.dirs);
        let mut made = false;
        if !real.as_os_str().is_empty() {
            let (dir, name) = self.parent(&real)?;
            match dir.mkdir(name) {
                Ok(()) => made = true,
                Err(e) if e.errno() == Some(Errno::EXIST) => {
                    let stat = dir.stat(name)?;
                    let kind = stat.map(|s| FileType::from_raw_mode(s.st_mode));
                    match kind {
                        Some(FileType::Directory) => {}
                        Some(FileType::Symlink) if self.root.in_root(&real).is_ok() => return Ok(()),
                        _ => return Err(e.into()),
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        let name = self.jobs[i].name.as_str();
        let rank = (name != "base-files", name);
        if self.later && !made && !dirs.contains_key(&real) {
            return Ok(());
        }
        if dirs.get(&real).is_none_or(|(old, _)| rank < *old) {
            dirs.insert(real, (rank, meta));
        }
        Ok(())
    }

    /// The open parent of `path`, made where it is missing, and the last name.
    pub(super) fn parent<'p>(&mut self, path: &'p Path) -> Result<(&Dir, &'p OsStr)> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().unwrap_or(OsStr::new("."));
        if !self.parents.contains_key(parent) {
            // Bounded, so that a deep tree does not take all descriptors.
            if self.parents.len() >= 256 {
                self.parents.clear();
            }
            let dir = match self.root.in_root(parent) {
                Err(e) if e.errno() == Some(Errno::NOENT) => {
                    self.make(parent)?;
                    self.root.in_root(parent)?
                }
                other => other?,
            };
            self.parents.insert(parent.to_path_buf(), dir);
        }
        Ok((&self.parents[parent], name))
    }

    /// Makes a directory that no member of the archive named, with those above it.
    fn make(&self, path: &Path) -> Result<()> {
        let mut at = PathBuf::new();
        for name in path {
            let dir = self.root.in_root(&at)?;
            match dir.mkdir(name) {
                Ok(()) => dir.chmod(name, 0o755)?,
                Err(e) if e.errno() == Some(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            at.push(name);
        }
        Ok(())
    }

    /// Creates `path` by `create`, for package `i`, where no other package has it, or this
    /// one replaces that. `None` where that one replaces this.
    pub(super) fn owned<T>(
        &mut self,
        i: usize,
        path: &Path,
        create: impl Fn(&Dir, &OsStr) -> sys::Result<T>,
    ) -> Result<Option<T>> {
        let shared = self.shared;
        let other = {
            let mut owners = lock(self.owners);
            match owners.get(path).copied() {
                Some(other) if other != i => Some(other),
                _ => {
                    owners.insert(path.to_path_buf(), i);
                    None
                }
            }
        };
        if let Some(other) = other {
            let (mine, theirs) = (&self.jobs[i].name, &self.jobs[other].name);
            if self.replaces.allows(other, i, mine) {
                lock(&shared.lost).insert((i, path.to_path_buf()));
                return Ok(None);
            }
            if !self.replaces.allows(i, other, theirs) {
                let path = format!("/{}", path.display());
                return Err(Error::Overlap { one: mine.clone(), other: theirs.clone(), path });
            }
            lock(&shared.lost).insert((other, path.to_path_buf()));
            lock(self.owners).insert(path.to_path_buf(), i);
        }
        let (dir, name) = self.parent(path)?;
        match create(dir, name) {
            Err(e) if e.errno() == Some(Errno::EXIST) => {
                // What another package left, or an earlier member of this one.
                dir.unlink(name)?;
                Ok(Some(create(dir, name)?))
            }
            other => Ok(Some(other?)),
        }
    }

    pub(super) fn file(&mut self, i: usize, path: &Path, meta: Meta, content: &mut dyn Read) -> Result<()> {
        let Some(mut file) = self.owned(i, path, Dir::create)? else { return Ok(()) };
        std::io::copy(content, &mut file).map_err(|e| {
            if e.raw_os_error().is_some() {
                return Error::io("write", path, e);
            }
            Error::Package { name: self.jobs[i].name.clone(), reason: e.to_string() }
        })?;
        Ok(set_meta(&file, meta, path)?)
    }

    pub(super) fn symlink(&mut self, i: usize, path: &Path, target: &OsStr, meta: Meta) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        let there = dir.stat(name)?.map(|s| FileType::from_raw_mode(s.st_mode));
        if there == Some(FileType::Directory) {
            return Ok(());
        }
        if self.owned(i, path, |dir, name| dir.symlink(name, target))?.is_none() {
            return Ok(());
        }
        let (dir, name) = self.parent(path)?;
        dir.chown(name, meta.uid, meta.gid)?;
        Ok(dir.utimens(name, &meta.times())?)
    }

    pub(super) fn hard_link(&mut self, i: usize, path: &Path, target: &Path) -> Result<()> {
        let (parent, target_name) = self.parent(target)?;
        let (old, target_name): (Dir, OsString) = (parent.again()?, target_name.to_os_string());
        self.owned(i, path, |dir, name| dir.link(name, &old, &target_name))?;
        Ok(())
    }
}

pub(super) fn set_meta(fd: impl rustix::fd::AsFd, meta: Meta, path: &Path) -> sys::Result<()> {
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    fchown(&fd, Some(uid), Some(gid)).call(|| format!("fchown({})", path.display()))?;
    // chown clears set-id bits, so the mode comes after it.
    fchmod(&fd, Mode::from_raw_mode(meta.mode)).call(|| format!("fchmod({})", path.display()))?;
    futimens(&fd, &meta.times()).call(|| format!("futimens({})", path.display()))
}
