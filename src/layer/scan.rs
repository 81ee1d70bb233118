//! A directory tree read as a [`Tree`], and as a [`Manifest`] with digests.
//!
//! What a manifest knows need not be read again: a file that has the same inode as then and no
//! later change of it (`ctime`, which no program can set) is as it was. That saves attributes and
//! content, so a tree of which little was changed is compared at the cost of one stat(2) a file.
//! A copy of the tree has other inodes and is read as a whole. A clock that was set back by hand
//! can make a change look old; who does that compares without a manifest.

use super::contents::{MAX_HOLES, Sum};
use super::node::{self, Owners};
use super::{Error, Options, Result, signal_pending};
use crate::sys::{Call, btrfs, dir::Dir};
use crate::tree::mtree::Manifest;
use crate::tree::{Kind, Node, Time, Tree, TreePath};
use rustix::fs::{FileType, Stat};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How many bytes of a file are read at once.
const CHUNK: usize = 256 << 10;

/// How long the kernel may give two changes the same time, at most.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// All files in the directory `root`, without content; of files that are as in `known` all that is
/// there, and of those only the number of the inode. Other filesystems mounted below are not
/// entered, sockets left out. `owners` may know what files do not tell.
///
/// # Errors
/// The first failed call.
pub fn scan(root: &Path, known: Option<&Manifest>, owners: Option<&Owners>) -> Result<Tree> {
    let mut scan = Scan::of(root, known, owners)?;
    for path in scan.read {
        if let Some(node) = scan.tree.get_mut(&path) {
            node.inode = None;
        }
    }
    Ok(scan.tree)
}

/// A manifest of the directory `root`, which may have been unpacked with `options`. Digests come
/// from their contents, from files that are as in `known`, and from reading the others.
///
/// # Errors
/// The first failed call.
pub fn manifest(root: &Path, known: Option<&Manifest>, options: &Options) -> Result<Manifest> {
    let contents = options.contents.as_deref();
    let mut scan = Scan::of(root, known, options.owners.as_deref())?;
    // Holds for whatever changes from here on.
    std::thread::sleep(TICK);
    let top = Dir::open(root)?;
    for (path, node) in &mut scan.tree {
        if node.kind == Kind::File && node.sha256.is_none() {
            node.sha256 = match node.inode.and_then(|i| contents?.get(i)) {
                Some(digest) => Some(digest),
                None => hash_below(&top, path)?,
            };
        }
    }
    Ok(Manifest { tree: scan.tree, settled: Some(scan.latest) })
}

/// When the inode was last changed.
pub(super) fn changed(stat: &Stat) -> Time {
    Time { seconds: stat.st_ctime, nanos: u32::try_from(stat.st_ctime_nsec).unwrap_or(0) }
}

fn is_later(a: Time, b: Time) -> bool {
    (a.seconds, a.nanos) > (b.seconds, b.nanos)
}

#[derive(Default)]
pub(super) struct Scan<'a> {
    known: Option<&'a Manifest>,
    /// Files that were changed later are noted.
    since: Option<Time>,
    later: Vec<TreePath>,
    owners: Option<&'a Owners>,
    tree: Tree,
    /// Files that are not taken from `known`.
    read: Vec<TreePath>,
    /// Files with several names, by inode.
    named: HashMap<u64, Vec<TreePath>>,
    /// The latest change of an inode.
    latest: Time,
}

impl<'a> Scan<'a> {
    fn of(root: &Path, known: Option<&'a Manifest>, owners: Option<&'a Owners>) -> Result<Self> {
        Self { known, owners, ..Self::default() }.run(root)
    }

    /// All files in the directory `root`, and those that were changed after `since`.
    pub(super) fn since(root: &Path, since: Time) -> Result<(Tree, Vec<TreePath>)> {
        let scan = Self { since: Some(since), ..Self::default() }.run(root)?;
        Ok((scan.tree, scan.later))
    }

    fn run(mut self, root: &Path) -> Result<Self> {
        let scan = &mut self;
        let top = Dir::open(root)?;
        let own = top.stat_self()?;
        scan.node(&top, OsStr::new("."), TreePath::root(), &own)?;
        let mut work = vec![TreePath::root()];
        while let Some(path) = work.pop() {
            signal_pending()?;
            let dir = top.below(path.as_path())?;
            for (name, _) in dir.list()? {
                let Some(stat) = dir.stat(&name)? else { continue };
                let child = path.join(&name);
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && stat.st_dev == own.st_dev {
                    work.push(child.clone());
                }
                scan.node(&dir, &name, child, &stat)?;
            }
        }
        for mut names in std::mem::take(&mut scan.named).into_values().filter(|n| n.len() > 1) {
            names.sort();
            for name in &names {
                if let Some(node) = scan.tree.get_mut(name) {
                    node.same = names.first().cloned();
                }
            }
        }
        Ok(self)
    }

    fn node(&mut self, dir: &Dir, name: &OsStr, path: TreePath, stat: &Stat) -> Result<()> {
        let changed = changed(stat);
        if is_later(changed, self.latest) {
            self.latest = changed;
        }
        if self.since.is_some_and(|since| is_later(changed, since)) {
            self.later.push(path.clone());
        }
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if stat.st_nlink > 1 && !is_dir {
            self.named.entry(stat.st_ino).or_default().push(path.clone());
        }
        let settled = self.known.and_then(|k| k.settled).filter(|s| !is_later(changed, *s));
        let known = settled.and_then(|_| self.known?.tree.get(&path));
        if let Some(node) = known.filter(|n| n.inode == Some(stat.st_ino)) {
            self.tree.insert(path, Node { same: None, ..node.clone() });
            return Ok(());
        }
        let (kind, mut meta) = node::read(dir, name, stat)?;
        if kind == Kind::Socket {
            return Ok(());
        }
        if let Some(owners) = self.owners {
            owners.correct(&path, stat, &kind, &mut meta);
        }
        meta.xattrs.retain(|(n, _)| !node::is_dropped(n) && !node::is_overlay(n));
        meta.xattrs.sort();
        let size = if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        let inode = Some(stat.st_ino);
        self.read.push(path.clone());
        self.tree.insert(path, Node { kind, meta, size, sha256: None, same: None, inode });
        Ok(())
    }
}

/// The digest of a file; none where it has so many bytes in holes that unpacking gives it none.
fn hash_below(top: &Dir, path: &TreePath) -> Result<Option<[u8; 32]>> {
    let mut file = open(top, path)?;
    let meta = file.metadata().call(|| format!("fstat({path})"))?;
    if meta.len().saturating_sub(meta.blocks() * 512) > MAX_HOLES {
        return Ok(None);
    }
    let mut sum = Sum::new();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    loop {
        signal_pending()?;
        let n = file.read(&mut buffer).call(|| format!("read({path})"))?;
        if n == 0 {
            return Ok(sum.finish(at));
        }
        sum.feed(at, &buffer[..n]);
        at += n as u64;
    }
}

fn open(top: &Dir, path: &TreePath) -> Result<File> {
    match path.split() {
        Some((parent, name)) => Ok(top.below(parent.as_path())?.file(name)?),
        None => Err(Error::Unwritable { path: path.clone(), reason: "it is a directory" }),
    }
}

/// The SHA-256 of the regular file `path` in the directory `root`; none where more than 1 GiB of it
/// is in holes.
///
/// # Errors
/// The first failed call.
pub fn hash_file(root: &Path, path: &TreePath) -> Result<Option<[u8; 32]>> {
    hash_below(&Dir::open(root)?, path)
}

/// Whether two files called `path` are one, or one of a subvolume and of its snapshot that has not
/// changed since: those are the same inode, of other devices but of one btrfs. In other filesystems
/// the number and the time of an inode tell nothing.
fn is_same_inode(one: &File, two: &File, path: &TreePath) -> Result<bool> {
    let stat = |file: &File| rustix::fs::fstat(file).call(|| format!("fstat({path})"));
    let (a, b) = (stat(one)?, stat(two)?);
    let inode = |s: &Stat| (s.st_ino, s.st_ctime, s.st_ctime_nsec, s.st_size);
    if inode(&a) != inode(&b) {
        return Ok(false);
    }
    if a.st_dev == b.st_dev {
        return Ok(true);
    }
    let first = btrfs::filesystem(one)?;
    Ok(first.is_some() && first == btrfs::filesystem(two)?)
}

/// Whether the regular file `path` has the same content in the directories `a` and `b`.
///
/// # Errors
/// The first failed call.
pub fn same_content(a: &Path, b: &Path, path: &TreePath) -> Result<bool> {
    let (mut one, mut two) = (open(&Dir::open(a)?, path)?, open(&Dir::open(b)?, path)?);
    if is_same_inode(&one, &two, path)? {
        return Ok(true);
    }
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        signal_pending()?;
        let n = one.read(&mut left).call(|| format!("read({})", a.join(path.as_path()).display()))?;
        let mut m = 0;
        while m < n.max(1) {
            let read = two.read(&mut right[m..n.max(1)]);
            match read.call(|| format!("read({})", b.join(path.as_path()).display()))? {
                0 => break,
                more => m += more,
            }
        }
        if left[..n] != right[..m] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}
