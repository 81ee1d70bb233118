//! One layer into a fresh directory of its own.
//!
//! The directory holds what the layer adds; what it hides of the layers below, whiteouts and
//! opaque directories, is kept in memory, for not every filesystem can hold overlayfs' form of
//! them (one that is an overlay itself cannot). `merge` then moves it into a tree, or
//! [`Staged::write_hidden`] makes a lower layer of an overlay of it. The lowest layer has nothing
//! to hide: its whiteouts are checked and left out.
//!
//! The order of entries does not matter for whiteouts: they concern the layers below only.
//! A directory of the layer with a whiteout of its name, before or after, is opaque. Of
//! entries with one name the last wins.
//!
//! Parents are opened once and kept (a small cache of descriptors); names are looked up
//! below them without following links, so an entry behind a symbolic link of the same layer
//! is an error. Directories are made with mode 0700 and get their owner, mode, attributes and
//! times at the end. What a layer says about directories and what it hides is kept in memory, of
//! files nothing.
//!
//! Content that overlayfs would interpret is refused: character devices 0/0 and attributes
//! `trusted.overlay.*`, `user.overlay.*`. Left out: `security.selinux` and
//! `system.nfs4_acl`, which belong to the host that made the layer, records of owners and devices,
//! which only the `node` module makes, and sockets; in a user namespace also the attributes that
//! only the host's root can set.

use super::archive::Archive;
use super::contents::{Contents, MAX_HOLES, Sum};
use super::node::{self, Owners, finish_file, ids, opaque};
use super::{Error, Options, Reason, Result};
use crate::oci::Digest;
use crate::sys::dir::Dir;
use crate::sys::userns::Ids;
use crate::sys::{self, Call, xattr};
use crate::tree::{Entry, Kind, Meta, Name, TreePath};
use rustix::fs::FileType;
use rustix::io::Errno;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// How many directories are kept open.
const OPEN_DIRS: usize = 32;

/// What stands in a staged directory, and what only the layers below can settle.
#[derive(Debug)]
pub(super) struct Staged {
    /// Directories that the layer does not describe, parents first; the root counts.
    pub(super) implicit: Vec<TreePath>,
    /// Those of `implicit` that the layer describes: they matter for links to directories below.
    pub(super) described: HashSet<TreePath>,
    /// Hard links to files that the layer does not have: link and target.
    pub(super) links: Vec<(TreePath, TreePath)>,
    /// Opaque directories.
    pub(super) opaque: HashSet<TreePath>,
    /// Names that are hidden and that the layer does not have.
    pub(super) whiteouts: HashSet<TreePath>,
    /// Whether the layer has whiteouts or opaque directories.
    pub(super) hides: bool,
    /// How many entries the layer has.
    pub(super) entries: u64,
}

/// A directory of the stage.
#[derive(Default)]
struct Folder {
    meta: Option<Meta>,
    opaque: bool,
}

/// A stage being filled.
pub(super) struct Stage<'a> {
    root: Rc<Dir>,
    layer: &'a Digest,
    contents: Option<&'a Contents>,
    owners: Option<&'a Owners>,
    keep_dirlinks: bool,
    /// Whether there are layers below.
    hides: bool,
    folders: HashMap<TreePath, Folder>,
    open: VecDeque<(TreePath, Rc<Dir>)>,
    links: Vec<(TreePath, TreePath)>,
    whiteouts: HashSet<TreePath>,
    entries: u64,
    hidden: bool,
    /// Devices for which files stand in.
    devices: u64,
    /// Attributes that only the host's root can set.
    attributes: usize,
}

impl<'a> Stage<'a> {
    /// A stage in the empty directory `root`; `lowest` where no layer is below.
    pub(super) fn new(root: Dir, layer: &'a Digest, options: &'a Options, lowest: bool) -> Self {
        Self {
            root: Rc::new(root),
            layer,
            contents: options.contents.as_deref(),
            owners: options.owners.as_deref(),
            keep_dirlinks: options.keep_dirlinks,
            hides: !lowest,
            folders: HashMap::from([(TreePath::root(), Folder::default())]),
            open: VecDeque::with_capacity(OPEN_DIRS),
            links: Vec::new(),
            whiteouts: HashSet::new(),
            entries: 0,
            hidden: false,
            devices: 0,
            attributes: 0,
        }
    }

    /// Reads all entries of `archive`.
    pub(super) fn fill(&mut self, archive: &mut Archive) -> Result<()> {
        while let Some(entry) = archive.next()? {
            self.add(entry, archive)?;
        }
        self.entries = archive.entries();
        Ok(())
    }

    fn refuse<T>(&self, path: &TreePath, reason: Reason) -> Result<T> {
        Err(Error::Entry { layer: self.layer.into(), path: path.clone(), reason })
    }

    fn add(&mut self, entry: Entry, archive: &mut Archive) -> Result<()> {
        let Entry { name, kind, mut meta, size } = entry;
        let path = match name {
            Name::Ignored => return Ok(()),
            Name::Whiteout(path) => return self.whiteout(&path),
            Name::Opaque(path) => return self.opaque(&path),
            Name::Entry(path) => path,
        };
        if let Some((name, _)) = meta.xattrs.iter().find(|(n, _)| node::is_overlay(n)) {
            return self.refuse(&path, Reason::OverlayAttribute(name.escape_ascii().to_string()));
        }
        meta.xattrs.retain(|(n, _)| !node::is_dropped(n));
        if ids() != Ids::Host {
            let all = meta.xattrs.len();
            meta.xattrs.retain(|(n, _)| !node::is_hosts(n));
            self.attributes += all - meta.xattrs.len();
        }
        let Some((parent, name)) = path.split() else {
            if kind != Kind::Directory {
                return self.refuse(&path, Reason::Root);
            }
            self.folders.entry(path).or_default().meta = Some(meta);
            return Ok(());
        };
        match kind {
            Kind::Socket => {
                tracing::warn!("layer {}: socket {path} left out", self.layer.short());
                return Ok(());
            }
            Kind::Char(0, 0) => return self.refuse(&path, Reason::WhiteoutDevice),
            Kind::Link(target) => return self.link(&path, target),
            _ => {}
        }
        let dir = self.parent(&parent, &path)?;
        match kind {
            Kind::Directory => {
                self.directory(&dir, &path, name)?;
                self.folders.entry(path).or_default().meta = Some(meta);
                Ok(())
            }
            Kind::File => {
                let file = self.make(&dir, &path, name, || dir.create(name))?;
                self.write(&file, &path, size, archive)?;
                finish_file(&file, &meta).map_err(|e| self.sys(&path, e))
            }
            Kind::Symlink(_) | Kind::Char(..) | Kind::Block(..) | Kind::Fifo => {
                let stands_in = self.make(&dir, &path, name, || node::make(&dir, name, &kind, &meta))?;
                self.devices += u64::from(stands_in);
                let noted = self.owners.map_or(Ok(()), |owners| owners.note(&dir, name, &kind, &meta));
                noted.map_err(|e| self.sys(&path, e))
            }
            Kind::Link(_) | Kind::Socket => Ok(()),
        }
    }

    fn sys(&self, path: &TreePath, source: sys::Error) -> Error {
        Error::Make { layer: self.layer.into(), path: path.clone(), source }
    }

    fn write(&self, file: &std::fs::File, path: &TreePath, size: u64, archive: &mut Archive) -> Result<()> {
        let mut end = 0;
        let fail = |e: sys::Error| self.sys(path, e);
        let mut sum = self.contents.filter(|_| archive.holes(size) <= MAX_HOLES).map(|_| Sum::new());
        if sum.is_some() {
            archive.count_holes(size)?;
        }
        archive.content(|offset, bytes| {
            end = offset + bytes.len() as u64;
            if let Some(sum) = &mut sum {
                sum.feed(offset, bytes);
            }
            file.write_all_at(bytes, offset).call(|| format!("pwrite({})", bytes.len())).map_err(fail)
        })?;
        if let Some(contents) = self.contents {
            contents.note(file, sum.and_then(|s| s.finish(size))).map_err(fail)?;
        }
        if end == size {
            return Ok(());
        }
        rustix::fs::ftruncate(file, size).call(|| format!("ftruncate({size})")).map_err(fail)
    }

    /// Runs `make`; where something has the name already, removes that and runs it again.
    fn make<T>(
        &mut self,
        dir: &Dir,
        path: &TreePath,
        name: &OsStr,
        make: impl Fn() -> sys::Result<T>,
    ) -> Result<T> {
        self.whiteouts.remove(path);
        match make() {
            Err(e) if e.errno() == Some(Errno::EXIST) => {
                if self.folders.contains_key(path) {
                    self.forget(path);
                }
                dir.remove(name).and_then(|()| make()).map_err(|e| self.sys(path, e))
            }
            other => other.map_err(|e| self.sys(path, e)),
        }
    }

    /// Drops what is known of `path` and below.
    fn forget(&mut self, path: &TreePath) {
        self.folders.retain(|p, _| !p.is_within(path));
        self.open.retain(|(p, _)| !p.is_within(path));
        self.whiteouts.retain(|p| !p.is_within(path));
    }

    /// Makes the directory `path` unless the layer has it; over anything else, a whiteout too, it
    /// is opaque, for that hides what the layers below have there.
    fn directory(&mut self, dir: &Dir, path: &TreePath, name: &OsStr) -> Result<()> {
        if self.folders.contains_key(path) {
            return Ok(());
        }
        let mut folder = Folder { opaque: self.whiteouts.remove(path), ..Folder::default() };
        match dir.mkdir(name) {
            Err(e) if e.errno() == Some(Errno::EXIST) => {
                dir.unlink(name).and_then(|()| dir.mkdir(name)).map_err(|e| self.sys(path, e))?;
                folder.opaque = self.hides;
            }
            other => other.map_err(|e| self.sys(path, e))?,
        }
        self.folders.insert(path.clone(), folder);
        Ok(())
    }

    /// The directory `parent` of `path`, made with those above it where the layer does not have them.
    fn parent(&mut self, parent: &TreePath, path: &TreePath) -> Result<Rc<Dir>> {
        if parent.is_root() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(at) = self.open.iter().position(|(p, _)| p == parent) {
            if at > 4 {
                self.open.swap(0, at);
                return Ok(Rc::clone(&self.open[0].1));
            }
            return Ok(Rc::clone(&self.open[at].1));
        }
        if !self.folders.contains_key(parent) {
            self.make_parents(parent, path)?;
        }
        let dir = Rc::new(self.root.below(parent.as_path()).map_err(|e| self.sys(path, e))?);
        self.open.truncate(OPEN_DIRS - 1);
        self.open.push_front((parent.clone(), Rc::clone(&dir)));
        Ok(dir)
    }

    fn make_parents(&mut self, parent: &TreePath, path: &TreePath) -> Result<()> {
        let missing: Vec<TreePath> = parent.prefixes().filter(|p| !self.folders.contains_key(p)).collect();
        for prefix in missing {
            let Some((above, name)) = prefix.split() else { continue };
            let dir = self.root.below(above.as_path()).map_err(|e| self.sys(path, e))?;
            match dir.stat(name).map_err(|e| self.sys(path, e))? {
                Some(_) => return self.refuse(path, Reason::NotDirectory(prefix.clone())),
                None => self.directory(&dir, &prefix, name)?,
            }
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &TreePath) -> Result<()> {
        let Some((parent, name)) = path.split() else { return Ok(()) };
        self.hidden = true;
        if !self.hides {
            return Ok(());
        }
        if let Some(folder) = self.folders.get_mut(path) {
            folder.opaque = true;
            return Ok(());
        }
        let dir = self.parent(&parent, path)?;
        if dir.stat(name).map_err(|e| self.sys(path, e))?.is_none() {
            self.whiteouts.insert(path.clone());
        }
        Ok(())
    }

    fn opaque(&mut self, path: &TreePath) -> Result<()> {
        self.hidden = true;
        if !self.hides {
            return Ok(());
        }
        if !path.is_root() && !self.folders.contains_key(path) {
            self.make_parents(path, path)?;
        }
        self.folders.entry(path.clone()).or_default().opaque = true;
        Ok(())
    }

    fn link(&mut self, path: &TreePath, target: TreePath) -> Result<()> {
        if *path == target {
            return self.refuse(path, Reason::LinkToItself);
        }
        if target.is_root() || self.folders.contains_key(&target) {
            return self.refuse(path, Reason::LinkToDirectory(target));
        }
        if self.link_now(path, &target)? {
            return Ok(());
        }
        // Nothing has the name until the link is made, unless a later entry takes it.
        if let Some((parent, name)) = path.split() {
            let dir = self.parent(&parent, path)?;
            self.forget(path);
            self.whiteouts.remove(path);
            dir.remove(name).map_err(|e| self.sys(path, e))?;
        }
        self.links.push((path.clone(), target));
        Ok(())
    }

    /// Makes a hard link where the layer has the target.
    fn link_now(&mut self, path: &TreePath, target: &TreePath) -> Result<bool> {
        let (Some((parent, name)), Some((from, old))) = (path.split(), target.split()) else {
            return self.refuse(path, Reason::Root);
        };
        if !from.is_root() && !self.folders.contains_key(&from) {
            return Ok(false);
        }
        let old_dir = self.parent(&from, path)?;
        if old_dir.stat(old).map_err(|e| self.sys(path, e))?.is_none() {
            return Ok(false);
        }
        let dir = self.parent(&parent, path)?;
        self.make(&dir, path, name, || dir.link(name, &old_dir, old))?;
        Ok(true)
    }

    /// Makes the links whose targets came later, and gives all directories their metadata.
    pub(super) fn finish(mut self) -> Result<Staged> {
        let mut links = Vec::new();
        for (path, target) in std::mem::take(&mut self.links) {
            let Some((parent, name)) = path.split() else { continue };
            let now = self.parent(&parent, &path)?.stat(name).map_err(|e| self.sys(&path, e))?;
            if now.is_none() && !self.link_now(&path, &target)? {
                self.whiteouts.remove(&path);
                links.push((path, target));
            }
        }
        self.open.clear();
        let (mut implicit, mut hiding, mut described) = (Vec::new(), HashSet::new(), HashSet::new());
        for (path, folder) in std::mem::take(&mut self.folders) {
            let dir = self.root.below(path.as_path()).map_err(|e| self.sys(&path, e))?;
            let bare = Meta { mode: 0o755, ..Meta::default() };
            let meta = folder.meta.as_ref().unwrap_or(&bare);
            finish_file(&dir, meta).map_err(|e| self.sys(&path, e))?;
            if folder.opaque {
                self.hidden = true;
                hiding.insert(path.clone());
            }
            if folder.meta.is_none() {
                implicit.push(path);
            } else if self.keep_dirlinks && !path.is_root() {
                described.insert(path.clone());
                implicit.push(path);
            }
        }
        implicit.sort();
        self.warn();
        let (whiteouts, hides, entries) = (self.whiteouts, self.hidden, self.entries);
        Ok(Staged { implicit, described, links, opaque: hiding, whiteouts, hides, entries })
    }

    /// Says what could not be made.
    fn warn(&self) {
        let (layer, devices, attributes) = (self.layer.short(), self.devices, self.attributes);
        if devices > 0 {
            tracing::warn!(
                "layer {layer}: devices cannot be made in a user namespace: empty files stand in for {devices}"
            );
        }
        if attributes > 0 {
            tracing::warn!(
                "layer {layer}: {attributes} attributes left out, which only the host's root can set"
            );
        }
    }
}

impl Staged {
    /// Writes what the layer hides into the stage, in overlayfs' form: a whiteout is a character
    /// device 0/0, an opaque directory has [`opaque`] = `y` (kernel documentation, "Overlay
    /// Filesystem").
    pub(super) fn write_hidden(&self, stage: &Dir) -> sys::Result<()> {
        for path in &self.whiteouts {
            let Some((parent, name)) = path.split() else { continue };
            let dir = stage.below(parent.as_path())?;
            dir.keep_time(|| dir.mknod(name, FileType::CharacterDevice, (0, 0)))?;
        }
        self.opaque.iter().try_for_each(|p| xattr::set_fd(stage.below(p.as_path())?, opaque(), b"y"))
    }
}
