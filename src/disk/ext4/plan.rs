//! A tree turned into inodes and directories: who has which number and how much room all need.
//!
//! Numbers follow the order of the tree's paths, and a file with several names has the first one's.

use super::dir::{Entry, Names};
use super::inode::{FIRST, ROOT};
use super::xattr::Attributes;
use super::{BLOCK, BYTES, Error, Kind, Options, Result, map};
use crate::disk::raw::sort;
use crate::tree::{Kind as Sort, Meta, Node, Tree, TreePath};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt;

const LOST: &[u8] = b"lost+found";
/// Blocks of `lost+found`, so that e2fsck has room without taking any.
const LOST_BLOCKS: usize = 4;
/// Names of a file at most; directories may have more below them where 1 stands for that.
const MOST_LINKS: u32 = 65_000;

/// What a tree takes on a filesystem.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Need {
    /// Inodes with the filesystem's own.
    pub inodes: u64,
    /// Blocks of content, directories, attributes and maps.
    pub blocks: u64,
}

/// A file to be written.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub path: &'a TreePath,
    pub node: &'a Node,
    pub links: u32,
    /// Among [`Plan::dirs`].
    pub dir: Option<usize>,
}

/// A directory to be written.
#[derive(Debug)]
pub(super) struct Dir<'a> {
    pub inode: u32,
    pub parent: u32,
    pub names: Names<'a>,
    /// Blocks with those that stay empty.
    pub blocks: usize,
}

/// All that is known before content is read.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// By number, from [`Plan::first`] on.
    pub items: Vec<Item<'a>>,
    /// The number of the first item; those before are the filesystem's own.
    pub first: u32,
    pub root: Option<&'a Meta>,
    pub root_links: u32,
    /// The root, `lost+found` where the tree has none, and the others.
    pub dirs: Vec<Dir<'a>>,
    pub need: Need,
}

/// A directory whose names are still gathered.
struct Open<'a> {
    inode: u32,
    parent: usize,
    links: u32,
    entries: Vec<Entry<'a>>,
    least: usize,
}

/// Where items and directories are made.
struct Draft<'a> {
    items: Vec<Item<'a>>,
    open: Vec<Open<'a>>,
    by_path: HashMap<&'a [u8], usize>,
    first: u32,
    need: Need,
}

impl<'a> Plan<'a> {
    /// Plans for `tree`.
    ///
    /// # Errors
    /// [`Error::Unfit`] for a file that ext4 cannot have.
    pub(super) fn new(tree: &'a Tree, options: &Options) -> Result<Self> {
        let lost = TreePath::root().join(std::ffi::OsStr::from_bytes(LOST));
        let own_lost = !tree.contains_key(&lost);
        let first = if own_lost { FIRST + 1 } else { FIRST };
        let open = |inode, least| Open { inode, parent: 0, links: 2, entries: Vec::new(), least };
        let mut draft = Draft {
            items: Vec::new(),
            open: vec![open(ROOT, 1)],
            by_path: HashMap::from([(&b""[..], 0)]),
            first,
            need: Need { inodes: u64::from(first - 1), blocks: 0 },
        };
        if own_lost {
            draft.open.push(open(FIRST, LOST_BLOCKS));
            draft.open[0].entries.push(Entry::new(LOST, FIRST, 2));
            draft.open[0].links += 1;
        }
        let mut shared = BTreeMap::new();
        let root = tree.get(&TreePath::root()).map(|n| &n.meta);
        if let Some(meta) = root {
            draft.attributes(&TreePath::root(), meta, options.kind)?;
        }
        for (path, node) in tree.iter().filter(|(p, _)| !p.is_root()) {
            draft.add(path, node, options.kind, &mut shared)?;
        }
        draft.finish(root, options)
    }
}

impl<'a> Draft<'a> {
    fn attributes(&mut self, path: &TreePath, meta: &Meta, kind: Kind) -> Result<()> {
        self.need.blocks += u64::from(Attributes::new(path, &meta.xattrs, kind)?.need_block());
        Ok(())
    }

    fn add(
        &mut self,
        path: &'a TreePath,
        node: &'a Node,
        kind: Kind,
        shared: &mut BTreeMap<&'a TreePath, usize>,
    ) -> Result<()> {
        let unfit = |reason| Error::Unfit { path: path.clone(), reason };
        let raw = path.as_bytes();
        let (parent, name) = match raw.iter().rposition(|b| *b == b'/') {
            Some(at) => (&raw[..at], &raw[at + 1..]),
            None => (&b""[..], raw),
        };
        let parent = *self.by_path.get(parent).ok_or_else(|| unfit("it lies in no directory"))?;
        if matches!(node.kind, Sort::Link(_)) {
            return Err(unfit("it is a name of another file without that"));
        }
        let (_, sort) = sort(&node.kind);
        if sort != 2
            && let Some(same) = &node.same
        {
            if let Some(&item) = shared.get(same) {
                let number = self.number(item);
                self.items[item].links += 1;
                if self.items[item].links > MOST_LINKS {
                    return Err(unfit("a file can have 65000 names"));
                }
                self.open[parent].entries.push(Entry::new(name, number, sort));
                return Ok(());
            }
            shared.insert(same, self.items.len());
        }
        let number = self.number(self.items.len());
        self.open[parent].entries.push(Entry::new(name, number, sort));
        let mut dir = None;
        match &node.kind {
            Sort::Directory => {
                dir = Some(self.open.len());
                self.by_path.insert(raw, self.open.len());
                self.open[parent].links += 1;
                let least = if raw == LOST { LOST_BLOCKS } else { 1 };
                self.open.push(Open { inode: number, parent, links: 2, entries: Vec::new(), least });
            }
            Sort::File if node.size > kind.largest() => return Err(unfit("it is too large")),
            Sort::File => {
                let blocks = node.size.div_ceil(BLOCK);
                let all = self.need.blocks.checked_add(blocks + map::most(kind, blocks));
                self.need.blocks = all.ok_or_else(|| unfit("it is too large"))?;
            }
            Sort::Symlink(target) if target.len() >= BYTES || target.is_empty() => {
                return Err(unfit("its target is empty or longer than 4095 bytes"));
            }
            Sort::Symlink(target) => self.need.blocks += u64::from(target.len() >= 60),
            Sort::Char(major, minor) | Sort::Block(major, minor) if *major > 0xfff || *minor > 0xf_ffff => {
                return Err(unfit("its numbers are too large"));
            }
            _ => {}
        }
        self.attributes(path, &node.meta, kind)?;
        self.items.push(Item { path, node, links: 1, dir });
        self.need.inodes += 1;
        Ok(())
    }

    /// The number of an item.
    fn number(&self, item: usize) -> u32 {
        // More than there are numbers do not fit anyway.
        self.first.saturating_add(u32::try_from(item).unwrap_or(u32::MAX))
    }

    fn finish(mut self, root: Option<&'a Meta>, options: &Options) -> Result<Plan<'a>> {
        let ext4 = options.kind == Kind::Ext4;
        for item in &mut self.items {
            let Some(dir) = item.dir else { continue };
            item.links = links(self.open[dir].links, ext4).ok_or(Error::Unfit {
                path: item.path.clone(),
                reason: "it has more than 64998 directories",
            })?;
        }
        let too_many = Error::Unfit { path: TreePath::root(), reason: "it has more than 64998 directories" };
        let root_links = links(self.open[0].links, ext4).ok_or(too_many)?;
        let numbers: Vec<u32> = self.open.iter().map(|d| d.inode).collect();
        let mut dirs = Vec::with_capacity(self.open.len());
        for open in self.open {
            let names = Names::new(open.entries, ext4.then_some(&options.hash_seed), ext4);
            let blocks = names.blocks().max(open.least);
            self.need.blocks += blocks as u64 + map::most(options.kind, blocks as u64);
            dirs.push(Dir { inode: open.inode, parent: numbers[open.parent], names, blocks });
        }
        let (items, first, need) = (self.items, self.first, self.need);
        Ok(Plan { items, first, root, root_links, dirs, need })
    }
}

/// The number of links of a directory; none where that is too large.
const fn links(count: u32, ext4: bool) -> Option<u32> {
    match count {
        0..=MOST_LINKS => Some(count),
        _ if ext4 => Some(1),
        _ => None,
    }
}
