//! All files of a tree with the places where they and their contents go: nothing is read or
//! written here.

use super::{BLOCK, SUPER, SUPER_SIZE, ZEROS};
use crate::disk::raw::{device, low16, low32, sort};
use crate::disk::{Error, Result};
use crate::tree::{Kind, Node, Tree, TreePath};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;

/// The unit of an inode's place, in bytes.
const SLOT: u64 = 32;
/// Bytes of an inode.
const INODE: u64 = 64;
/// Bytes of a directory entry without its name.
const ENTRY: usize = 12;
/// No block.
const NONE: u32 = u32::MAX;
/// Namespaces of attributes by their number in the filesystem.
const NAMESPACES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// A file and where it goes.
pub(super) struct Inode<'a> {
    /// The first of its names.
    pub(super) path: &'a TreePath,
    pub(super) node: &'a Node,
    links: u32,
    /// Its names and inodes in order; of a directory only.
    names: Vec<(&'a [u8], usize)>,
    /// Its attributes as they are written.
    pub(super) xattrs: Vec<u8>,
    /// Bytes of its content.
    pub(super) size: u64,
    /// How many of them lie beside the inode.
    pub(super) tail: u64,
    /// The place of the inode in bytes.
    pub(super) at: u64,
    /// The first block of its content.
    pub(super) block: u32,
}

impl<'a> Inode<'a> {
    fn new(path: &'a TreePath, node: &'a Node) -> Result<Self> {
        let links = u32::from(node.kind == Kind::Directory);
        let xattrs = xattrs(path, &node.meta.xattrs)?;
        Ok(Self { path, node, links, names: Vec::new(), xattrs, size: 0, tail: 0, at: 0, block: NONE })
    }

    /// The place as a number of slots.
    pub(super) const fn nid(&self) -> u64 {
        self.at / SLOT
    }

    /// `struct erofs_inode_extended`.
    pub(super) fn header(&self, number: usize) -> Vec<u8> {
        let meta = &self.node.meta;
        let format = 1 | if self.tail > 0 { 2 << 1 } else { 0u16 };
        let count = if self.xattrs.is_empty() { 0 } else { (self.xattrs.len() - 12) / 4 + 1 };
        let place = match self.node.kind {
            Kind::Char(major, minor) | Kind::Block(major, minor) => device(major, minor),
            _ => self.block,
        };
        let mut out = Vec::with_capacity(64);
        out.extend(format.to_le_bytes());
        out.extend(low16(count as u64).to_le_bytes());
        out.extend(low16((meta.mode & 0o7777 | sort(&self.node.kind).0).into()).to_le_bytes());
        out.extend([0; 2]);
        out.extend(self.size.to_le_bytes());
        out.extend(place.to_le_bytes());
        out.extend(low32(number as u64 + 1).to_le_bytes());
        out.extend(meta.uid.to_le_bytes());
        out.extend(meta.gid.to_le_bytes());
        out.extend(meta.mtime.seconds.to_le_bytes());
        out.extend(meta.mtime.nanos.to_le_bytes());
        out.extend(self.links.to_le_bytes());
        out.extend([0; 16]);
        out
    }
}

/// All inodes, and where they and their contents go.
pub(super) struct Plan<'a> {
    pub(super) inodes: Vec<Inode<'a>>,
    /// Number of blocks.
    pub(super) blocks: u64,
}

impl<'a> Plan<'a> {
    pub(super) fn new(tree: &'a Tree) -> Result<Self> {
        let mut inodes = inodes(tree)?;
        let mut places = Places::new();
        for inode in &mut inodes {
            inode.size = match &inode.node.kind {
                Kind::File => inode.node.size,
                Kind::Symlink(to) => to.len() as u64,
                Kind::Directory => split(&inode.names)
                    .fold(0, |size: u64, names| size.next_multiple_of(BLOCK) + bytes(names)),
                _ => 0,
            };
            let own = INODE + inode.xattrs.len() as u64;
            let tail = inode.size % BLOCK;
            inode.tail = if own + tail <= BLOCK { tail } else { 0 };
            inode.at = places.take(own + inode.tail);
        }
        let mut blocks = places.end;
        for inode in inodes.iter_mut().filter(|i| i.size > i.tail) {
            inode.block = low32(blocks);
            blocks += (inode.size - inode.tail).div_ceil(BLOCK);
            if blocks >= u64::from(NONE) {
                return Err(Error::Unfit {
                    path: inode.path.clone(),
                    reason: "more than 16 TiB in the filesystem",
                });
            }
        }
        Ok(Self { inodes, blocks })
    }

    pub(super) const fn size(&self) -> u64 {
        self.blocks * BLOCK
    }

    /// The content of a directory.
    pub(super) fn directory(&self, inode: &Inode) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::new();
        for names in split(&inode.names) {
            out.resize(out.len().next_multiple_of(ZEROS.len()), 0);
            let mut place = names.len() * ENTRY;
            for (name, to) in names {
                let to = &self.inodes[*to];
                out.extend(to.nid().to_le_bytes());
                out.extend(low16(place as u64).to_le_bytes());
                out.extend([sort(&to.node.kind).1, 0]);
                place += name.len();
            }
            out.extend(names.iter().flat_map(|(name, _)| *name));
        }
        out
    }
}

/// The files of a tree, each once, in the order of their first names; directories with their names.
fn inodes(tree: &Tree) -> Result<Vec<Inode<'_>>> {
    let missing = |path: &TreePath| Error::Unfit { path: path.clone(), reason: "it is in no directory" };
    let mut inodes: Vec<Inode> = Vec::with_capacity(tree.len());
    let mut numbers: HashMap<&TreePath, usize> = HashMap::with_capacity(tree.len());
    for (path, node) in tree.iter().filter(|(_, n)| n.kind != Kind::Socket) {
        let first = node.same.as_ref().and_then(|first| numbers.get(first)).copied();
        let first = first.filter(|n| node.kind != Kind::Directory && inodes[*n].node.kind == node.kind);
        let number = first.unwrap_or(inodes.len());
        if first.is_none() {
            inodes.push(Inode::new(path, node)?);
        }
        numbers.insert(path, number);
        let mut parent = number;
        if let Some((folder, name)) = path.split() {
            parent = numbers.get(&folder).copied().ok_or_else(|| missing(path))?;
            inodes[parent].names.push((name.as_bytes(), number));
            inodes[number].links += 1;
        } else if node.kind == Kind::Directory {
            inodes[number].links += 1;
        }
        if inodes[parent].node.kind != Kind::Directory {
            return Err(missing(path));
        }
        if node.kind == Kind::Directory {
            inodes[number].names.extend([(&b"."[..], number), (&b".."[..], parent)]);
            inodes[parent].links += u32::from(parent != number);
        }
    }
    if inodes.first().is_none_or(|i| !i.path.is_root()) {
        return Err(missing(&TreePath::root()));
    }
    for inode in &mut inodes {
        inode.names.sort_unstable();
    }
    Ok(inodes)
}

/// Names in sorted order as they go into blocks.
fn split<'n, 'a>(mut names: &'n [(&'a [u8], usize)]) -> impl Iterator<Item = &'n [(&'a [u8], usize)]> {
    std::iter::from_fn(move || {
        let mut left = ZEROS.len();
        let fits = |(name, _): &&(&[u8], usize)| {
            let rest = left.checked_sub(ENTRY + name.len());
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        let count = names.iter().take_while(fits).count();
        let block;
        (block, names) = names.split_at(count);
        (!block.is_empty()).then_some(block)
    })
}

/// Bytes of a block with these names.
fn bytes(names: &[(&[u8], usize)]) -> u64 {
    names.iter().map(|(name, _)| (ENTRY + name.len()) as u64).sum()
}

/// Attributes as they follow an inode: `struct erofs_xattr_ibody_header`, then entries.
fn xattrs(path: &TreePath, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut xattrs: Vec<_> = xattrs.iter().collect();
    xattrs.sort_unstable();
    for (name, value) in xattrs {
        let space = NAMESPACES.iter().find_map(|(space, number)| Some((name.strip_prefix(*space)?, *number)));
        let Some((rest, number)) = space.filter(|(rest, n)| rest.is_empty() == matches!(n, 2 | 3)) else {
            tracing::warn!("{path}: the attribute {} is left out", name.escape_ascii());
            continue;
        };
        let (Ok(length), Ok(size)) = (u8::try_from(rest.len()), u16::try_from(value.len())) else {
            return Err(Error::Unfit { path: path.clone(), reason: "an attribute of more than 65535 bytes" });
        };
        if out.is_empty() {
            out.resize(12, 0);
        }
        out.extend([length, number]);
        out.extend(size.to_le_bytes());
        out.extend(rest);
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    if out.len() > 4 * usize::from(u16::MAX) {
        return Err(Error::Unfit { path: path.clone(), reason: "attributes of more than 256 KiB" });
    }
    Ok(out)
}

/// Free space in blocks of inodes.
struct Places {
    /// Bytes at the end of a block.
    free: BTreeSet<(u64, u64)>,
    /// The first block that is not used.
    end: u64,
}

impl Places {
    /// What the superblock leaves of the first block.
    fn new() -> Self {
        Self { free: BTreeSet::from([(BLOCK - (SUPER + SUPER_SIZE) as u64, 0)]), end: 1 }
    }

    /// A place for `bytes`; within one block where they fit into one.
    fn take(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.next_multiple_of(SLOT);
        let (free, block) = self.free.range((bytes, 0)..).next().copied().unwrap_or_else(|| {
            let block = self.end;
            self.end += bytes.div_ceil(BLOCK);
            ((self.end - block) * BLOCK, block)
        });
        self.free.remove(&(free, block));
        let end = block * BLOCK + free.next_multiple_of(BLOCK);
        if free - bytes >= INODE {
            self.free.insert((free - bytes, (end - 1) / BLOCK));
        }
        end - free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Meta;

    fn node(kind: Kind, size: u64) -> Node {
        Node { kind, meta: Meta::default(), size, sha256: None, same: None, inode: None }
    }

    fn path(path: &str) -> TreePath {
        TreePath::parse_link(path.as_bytes()).unwrap()
    }

    #[test]
    fn attributes() {
        let list = |name: &[u8], value: &[u8]| xattrs(&path("f"), &[(name.to_vec(), value.to_vec())]);
        let head = [0; 12];
        for (name, value, want) in [
            (&b"user.ab"[..], &b"12345"[..], &b"\x02\x01\x05\0ab12345\0"[..]),
            (b"security.capability", b"c", b"\x0a\x06\x01\0capabilityc\0"),
            (b"trusted.", b"", b"\0\x04\0\0"),
            (b"system.posix_acl_default", b"1234", b"\0\x03\x04\x001234"),
        ] {
            let want = [&head, want].concat();
            // A name of a namespace alone is none.
            let want = if name == b"trusted." { Vec::new() } else { want };
            assert_eq!(list(name, value).unwrap(), want, "{}", name.escape_ascii());
        }
        for name in ["system.nfs4_acl", "btrfs.compression", "system.posix_acl_access2", "user"] {
            assert!(list(name.as_bytes(), b"x").unwrap().is_empty(), "{name}");
        }
        assert!(matches!(list(b"user.long", "x".repeat(65536).as_bytes()), Err(Error::Unfit { .. })));
        let many: Vec<_> = (0..5).map(|i| (format!("user.{i}").into_bytes(), vec![0; 65535])).collect();
        assert!(xattrs(&path("f"), &many[..3]).is_ok());
        assert!(matches!(xattrs(&path("f"), &many), Err(Error::Unfit { .. })));
    }

    #[test]
    fn names_fill_blocks() {
        let long = [b'x'; 255];
        let names: Vec<(&[u8], usize)> = (0..40).map(|i| (&long[..], i)).collect();
        let counts: Vec<_> = split(&names).map(<[_]>::len).collect();
        assert_eq!(counts, [15, 15, 10]);
        assert_eq!(split(&names[..0]).count(), 0);
        // 4096 bytes to the last one.
        let names: Vec<(&[u8], usize)> = (0..256).map(|i| (&b"name"[..], i)).collect();
        assert_eq!(split(&names).map(|n| (n.len(), bytes(n))).collect::<Vec<_>>(), [(256, 4096)]);
    }

    #[test]
    fn places() {
        let mut places = Places::new();
        // Beside the superblock, in a block of its own, in the fullest one, over several ones.
        assert_eq!(places.take(64), 1152);
        assert_eq!(places.take(4000), 4096);
        assert_eq!(places.take(96), 4096 + 4000);
        assert_eq!(places.take(96), 1216);
        assert_eq!(places.take(9000), 2 * 4096);
        assert_eq!(places.take(2900), 4 * 4096 + 832);
        assert_eq!(places.end, 5);
    }

    #[test]
    fn links_are_counted() {
        let mut tree = Tree::new();
        for dir in ["", "a", "a/b"] {
            tree.insert(path(dir), node(Kind::Directory, 0));
        }
        for file in ["a/b/x", "a/f", "g"] {
            tree.insert(path(file), Node { same: Some(path("a/b/x")), ..node(Kind::File, 5) });
        }
        tree.insert(path("h"), Node { same: Some(path("a")), ..node(Kind::File, 0) });
        tree.insert(path("s"), node(Kind::Socket, 0));
        let plan = Plan::new(&tree).unwrap();
        let links: Vec<_> = plan.inodes.iter().map(|i| (i.path.to_string(), i.links)).collect();
        let want = [("/", 3), ("/a", 3), ("/a/b", 2), ("/a/b/x", 3), ("/h", 1)];
        assert_eq!(links, want.map(|(p, n)| (p.to_string(), n)));
        let names: Vec<_> = plan.inodes[0].names.iter().map(|(n, _)| *n).collect();
        assert_eq!(names, [&b"."[..], b"..", b"a", b"g", b"h"]);
    }

    #[test]
    fn odd_trees_are_refused() {
        for paths in [&["a"][..], &[], &["", "a/b"], &["", "f", "f/x"]] {
            let kind = |p: &str| if p == "f" { Kind::File } else { Kind::Directory };
            let tree = paths.iter().map(|p| (path(p), node(kind(p), 0))).collect();
            assert!(matches!(Plan::new(&tree), Err(Error::Unfit { .. })), "{paths:?}");
        }
        let mut tree = Tree::from([(path(""), node(Kind::Directory, 0))]);
        tree.insert(path("f"), node(Kind::File, 1 << 45));
        assert!(matches!(Plan::new(&tree), Err(Error::Unfit { .. })));
    }
}
