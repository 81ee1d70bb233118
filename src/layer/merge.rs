//! Staged layers into a tree: first settled against what is below, then moved by rename.
//!
//! A layer may leave open what only the layers below can tell. [`settle`] answers that
//! within the stage: a directory that the layer has entries in but does not describe takes
//! owner, mode, times and attributes from the one below; where a symbolic link to a
//! directory is below, the entries move to where it leads (within the root), as umoci does
//! it; hard links to files of lower layers are made. [`merge`] then needs the stage alone.
//!
//! Both walk with one pair of descriptors at a time, looked up below the two roots without
//! following links, so depth costs nothing and a directory that is swapped for a link at the
//! same time is an error, never a way out.

use super::node::{self, finish_file, meta_of};
use super::stage::Staged;
use super::{Error, Reason, Result};
use crate::oci::Digest;
use crate::sys::dir::Dir;
use crate::sys::{self, xattr};
use crate::tree::{Meta, TreePath};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// How a hard link to a file of a lower layer is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    /// The stage will be merged into the tree below: another name of that file.
    Link,
    /// The stage stays a layer of its own: a copy.
    Copy,
}

/// What [`settle`] works on.
pub(super) struct Settle<'a> {
    pub(super) layer: &'a Digest,
    pub(super) stage: &'a Dir,
    pub(super) below: &'a Dir,
    pub(super) how: Below,
}

impl Settle<'_> {
    /// Answers what `staged` left open.
    pub(super) fn run(&self, staged: &mut Staged) -> Result<()> {
        let mut at = 0;
        while let Some(path) = staged.implicit.get(at).cloned() {
            at += 1;
            let hidden = path.prefixes().any(|p| p != path && staged.opaque.contains(&p));
            if hidden || (staged.opaque.contains(&TreePath::root()) && !path.is_root()) {
                continue;
            }
            match self.find_below(&path).map_err(|e| self.fail(&path, e))? {
                Some(FileType::Directory) if staged.described.contains(&path) => {}
                Some(FileType::Directory) => {
                    self.adopt(&path).map_err(|e| self.fail(&path, e))?;
                }
                Some(FileType::Symlink) => {
                    if let Some(real) = self.resolve(&path)? {
                        if staged.opaque.contains(&path) {
                            return self.refuse(&path, Reason::OpaqueLink);
                        }
                        self.redirect(&path, &real)?;
                        rename_all(staged, &path, &real);
                        self.rehide(staged, &real).map_err(|e| self.fail(&path, e))?;
                    }
                }
                _ => {}
            }
        }
        for (path, target) in &staged.links {
            self.link(path, target)?;
        }
        Ok(())
    }

    fn fail(&self, path: &TreePath, source: sys::Error) -> Error {
        Error::Make { layer: self.layer.into(), path: path.clone(), source }
    }

    fn refuse<T>(&self, path: &TreePath, reason: Reason) -> Result<T> {
        Err(Error::Entry { layer: self.layer.into(), path: path.clone(), reason })
    }

    /// What is below at `path`, behind no link.
    fn find_below(&self, path: &TreePath) -> sys::Result<Option<FileType>> {
        let Some((parent, name)) = path.split() else { return Ok(Some(FileType::Directory)) };
        match self.below.below(parent.as_path()) {
            Ok(dir) => Ok(dir.stat(name)?.map(|s| FileType::from_raw_mode(s.st_mode))),
            Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Gives the staged directory the metadata of the one below.
    fn adopt(&self, path: &TreePath) -> sys::Result<()> {
        let meta = meta_of(&self.below.below(path.as_path())?)?;
        finish_file(self.stage.below(path.as_path())?, &meta)
    }

    /// Where the link at `path` leads, without links; none where that is no directory.
    fn resolve(&self, path: &TreePath) -> Result<Option<TreePath>> {
        let real = match self.below.in_root(path.as_path()) {
            Ok(dir) => dir.real_path().map_err(|e| self.fail(path, e))?,
            Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR)) => return Ok(None),
            Err(e) => return Err(self.fail(path, e)),
        };
        let root = self.below.real_path().map_err(|e| self.fail(path, e))?;
        match real.strip_prefix(&root).ok().map(|p| TreePath::parse_link(p.as_os_str().as_bytes())) {
            Some(Ok(path)) => Ok(Some(path)),
            _ => self.refuse(path, Reason::Escapes),
        }
    }

    /// Moves what is staged in `from` to the directory `to`, which is made in the stage like below.
    fn redirect(&self, from: &TreePath, to: &TreePath) -> Result<()> {
        for prefix in to.prefixes() {
            let Some((parent, name)) = prefix.split() else { continue };
            let dir = self.stage.below(parent.as_path()).map_err(|e| self.fail(from, e))?;
            match dir.stat(name).map_err(|e| self.fail(from, e))? {
                Some(s) if FileType::from_raw_mode(s.st_mode) == FileType::Directory => {}
                Some(_) => return self.refuse(from, Reason::NotDirectory(prefix.clone())),
                None => dir
                    .keep_time(|| dir.mkdir(name).and_then(|()| self.adopt(&prefix)))
                    .map_err(|e| self.fail(from, e))?,
            }
        }
        self.join(from, to).map_err(|e| self.fail(from, e))?;
        let Some((parent, name)) = from.split() else { return Ok(()) };
        let removed = self.stage.below(parent.as_path()).and_then(|dir| dir.keep_time(|| dir.remove(name)));
        removed.map_err(|e| self.fail(from, e))
    }

    /// Among what was joined in `at` a whiteout may have met what it does not concern: that stays,
    /// and as a directory hides what is below.
    fn rehide(&self, staged: &mut Staged, at: &TreePath) -> sys::Result<()> {
        for path in staged.whiteouts.extract_if(|p| p.is_within(at)).collect::<Vec<_>>() {
            let Some((parent, name)) = path.split() else { continue };
            match self.stage.below(parent.as_path())?.stat(name)? {
                None => drop(staged.whiteouts.insert(path)),
                Some(s) if is_dir(&s) => drop(staged.opaque.insert(path)),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Moves the names of one staged directory into another; what is moved wins.
    fn join(&self, from: &TreePath, to: &TreePath) -> sys::Result<()> {
        let mut work = vec![(from.clone(), to.clone())];
        while let Some((from, to)) = work.pop() {
            let (old, new) = (self.stage.below(from.as_path())?, self.stage.below(to.as_path())?);
            let mut move_all = || {
                old.each(|name, kind| {
                    match new.stat(name)? {
                        Some(there) if kind == FileType::Directory && is_dir(&there) => {
                            work.push((from.join(name), to.join(name)));
                        }
                        Some(_) => new.remove(name).and_then(|()| old.rename(name, &new, name))?,
                        None => old.rename(name, &new, name)?,
                    }
                    Ok::<_, sys::Error>(())
                })
            };
            new.keep_time(&mut move_all)?;
        }
        Ok(())
    }

    fn link(&self, path: &TreePath, target: &TreePath) -> Result<()> {
        let (Some((parent, name)), Some((from, old))) = (path.split(), target.split()) else {
            return self.refuse(path, Reason::Root);
        };
        let missing = || self.refuse(path, Reason::LinkToNothing(target.clone()));
        let old_dir = match self.below.in_root(from.as_path()) {
            Ok(dir) => dir,
            Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR)) => return missing(),
            Err(e) => return Err(self.fail(path, e)),
        };
        match old_dir.stat(old).map_err(|e| self.fail(path, e))? {
            None => return missing(),
            Some(s) if FileType::from_raw_mode(s.st_mode) == FileType::Directory => {
                return self.refuse(path, Reason::LinkToDirectory(target.clone()));
            }
            Some(_) => {}
        }
        let dir = self.stage.below(parent.as_path()).map_err(|e| self.fail(path, e))?;
        let made = dir.keep_time(|| {
            dir.remove(name)?;
            match self.how {
                Below::Link => dir.link(name, &old_dir, old),
                Below::Copy => node::copy(&old_dir, old, &dir, name),
            }
        });
        made.map_err(|e| self.fail(path, e))
    }
}

/// What was planned for `from` and below holds for `to` now.
fn rename_all(staged: &mut Staged, from: &TreePath, to: &TreePath) {
    let moved = |path: &TreePath| {
        let rest = path.as_bytes().get(from.as_bytes().len() + 1..).unwrap_or(b"");
        if rest.is_empty() { to.clone() } else { to.join(OsStr::from_bytes(rest)) }
    };
    let implicit = staged.implicit.iter_mut().filter(|p| p.is_within(from) && *p != from);
    implicit.chain(staged.links.iter_mut().map(|(link, _)| link).filter(|p| p.is_within(from))).for_each(
        |p| {
            *p = moved(p);
        },
    );
    let described = staged.described.drain();
    staged.described = described.map(|p| if p.is_within(from) { moved(&p) } else { p }).collect();
    for paths in [&mut staged.opaque, &mut staged.whiteouts] {
        *paths = paths.drain().map(|p| if p.is_within(from) { moved(&p) } else { p }).collect();
    }
}

/// Moves a settled stage over the tree `to`: what the layer hides goes first, then files
/// replace, directories give their metadata. Names of `keep` in the root of `to` are left
/// alone. What is not in `to` is moved whole, by one rename. Gives the metadata of the root.
///
/// # Errors
/// The first failed call; `to` is then partly changed.
pub(super) fn merge(from: &Dir, to: &Dir, staged: &Staged, keep: &[&OsStr]) -> sys::Result<Meta> {
    enum Work {
        Enter(TreePath),
        Leave(TreePath, Meta),
    }
    hide(to, staged, keep)?;
    let mut root = Meta::default();
    let mut work = vec![Work::Enter(TreePath::root())];
    while let Some(next) = work.pop() {
        let path = match next {
            Work::Enter(path) => path,
            Work::Leave(path, meta) => {
                replace_meta(&to.below(path.as_path())?, &meta)?;
                if path.is_root() {
                    root = meta;
                }
                continue;
            }
        };
        let (source, target) = (from.below(path.as_path())?, to.below(path.as_path())?);
        work.push(Work::Leave(path.clone(), meta_of(&source)?));
        source.each(|name, kind| {
            if kind == FileType::Directory && target.stat(name)?.is_some_and(|s| is_dir(&s)) {
                work.push(Work::Enter(path.join(name)));
                return Ok(());
            }
            match source.rename(name, &target, name) {
                Err(e) if matches!(e.errno(), Some(Errno::ISDIR | Errno::NOTDIR)) => {
                    target.remove(name)?;
                    source.rename(name, &target, name)
                }
                other => other,
            }
        })?;
    }
    Ok(root)
}

/// Takes away from the tree `to` what the layer hides of it.
fn hide(to: &Dir, staged: &Staged, keep: &[&OsStr]) -> sys::Result<()> {
    let there = |path: &TreePath| match to.below(path.as_path()) {
        Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => Ok(None),
        other => other.map(Some),
    };
    for path in &staged.opaque {
        if let Some(dir) = there(path)? {
            dir.clear(if path.is_root() { keep } else { &[] })?;
        }
    }
    for (parent, name) in staged.whiteouts.iter().filter_map(TreePath::split) {
        if let Some(dir) = there(&parent)? {
            dir.remove(name)?;
        }
    }
    Ok(())
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// As [`finish_file`], and takes away attributes that `meta` does not have.
fn replace_meta(dir: &Dir, meta: &Meta) -> sys::Result<()> {
    for (name, _) in xattr::all_fd(dir)? {
        if name != b"security.selinux" && !meta.xattrs.iter().any(|(n, _)| *n == name) {
            xattr::remove_fd(dir, &name)?;
        }
    }
    finish_file(dir, meta)
}
