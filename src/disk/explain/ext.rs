//! ext2, ext3 and ext4 (the kernel's Documentation/filesystems/ext4).

use super::{Image, MAX_DIRECTORY, MAX_INODES, Spot, below, content, split_at, u16_at, u32_at};
use crate::disk::ext4::has_backup;
use std::cell::Cell;
use std::collections::HashSet;
use std::ops::ControlFlow::{self, Break, Continue};

/// The root, the inode that keeps blocks for descriptors, the journal.
const ROOT: u64 = 2;
const RESIZE: u64 = 7;
const JOURNAL: u64 = 8;
/// Flag of an inode with extents, and of one that has its content in itself.
const EXTENTS: u32 = 0x8_0000;
const INLINE: u32 = 0x1000_0000;
/// Blocks of maps and directories that are read, at most.
const MAX_BLOCKS: u64 = 1 << 22;
/// Groups that are looked at, at most.
const MAX_GROUPS: u64 = 1 << 20;

pub(super) fn at(image: Image, offset: u64) -> Option<Spot> {
    let fs = Fs::new(image)?;
    if offset < 2048 {
        return Some(Spot::of(if offset < 1024 { "boot sector" } else { "superblock" }));
    }
    let block = offset / fs.block;
    if let Some(what) = fs.head(block) {
        return Some(Spot::of(what));
    }
    for group in 0..fs.groups {
        let [blocks, inodes, table] = fs.tables(group)?;
        if block == blocks {
            return Some(Spot::of(format!("block bitmap of group {group}")));
        }
        if block == inodes {
            return Some(Spot::of(format!("inode bitmap of group {group}")));
        }
        let nth = offset.wrapping_sub(table.checked_mul(fs.block)?) / fs.inode;
        if block >= table && nth < fs.per_group_inodes {
            let inode = group * fs.per_group_inodes + nth + 1;
            return Some(Spot { inode: Some(inode), path: fs.path(inode), ..Spot::of("inode") });
        }
    }
    let last = (fs.groups * fs.per_group_inodes).min(MAX_INODES);
    let (inode, what) = (1..=last).find_map(|n| Some((n, fs.role(n, &fs.inode(n)?, block)?)))?;
    Some(Spot { inode: Some(inode), path: fs.path(inode), ..Spot::of(what) })
}

/// A filesystem's numbers; sizes in bytes.
struct Fs<'a> {
    image: Image<'a>,
    block: u64,
    inode: u64,
    descriptor: u64,
    first: u64,
    groups: u64,
    per_group: u64,
    per_group_inodes: u64,
    reserved: u64,
    sparse: bool,
    /// How many blocks may still be read: maps can lead in circles.
    left: Cell<u64>,
}

/// A run of blocks of an inode.
enum Run {
    /// Of content, from this block of the filesystem on, so many.
    Content(u64, u64),
    /// Of the map.
    Map(u64),
}

impl<'a> Fs<'a> {
    fn new(image: Image<'a>) -> Option<Self> {
        let raw = image.bytes(1024, 1024)?;
        if u16_at(&raw, 0x38)? != 0xef53 {
            return None;
        }
        let block = 1024u64.checked_shl(u32_at(&raw, 0x18)?.min(6))?;
        let incompat = u32_at(&raw, 0x60)?;
        let is_64 = incompat & 0x80 != 0;
        let old = u32_at(&raw, 0x4c)? == 0;
        let first = u64::from(u32_at(&raw, 0x14)?);
        let blocks = split_at(&raw, 4, is_64.then_some(0x150))?;
        let per_group = u64::from(u32_at(&raw, 0x20)?);
        let new = Self {
            image,
            block,
            inode: if old { 128 } else { u64::from(u16_at(&raw, 0x58)?) },
            descriptor: if is_64 { u64::from(u16_at(&raw, 0xfe)?) } else { 32 },
            first,
            groups: blocks.saturating_sub(first).div_ceil(per_group.max(1)),
            per_group,
            per_group_inodes: u64::from(u32_at(&raw, 0x28)?),
            reserved: u64::from(u16_at(&raw, 0xce)?),
            sparse: u32_at(&raw, 0x64)? & 1 != 0,
            left: Cell::new(MAX_BLOCKS),
        };
        // With meta_bg the descriptors lie elsewhere.
        let known = incompat & 0x10 == 0 && per_group > 0 && new.inode >= 128 && new.descriptor >= 32;
        let inodes = 1..=8 * block;
        (known && new.groups <= MAX_GROUPS && inodes.contains(&new.per_group_inodes)).then_some(new)
    }

    fn read(&self, block: u64) -> Option<Vec<u8>> {
        self.left.set(self.left.get().checked_sub(1)?);
        self.image.bytes(block.checked_mul(self.block)?, self.block)
    }

    /// What a block at the start of a group is.
    fn head(&self, block: u64) -> Option<String> {
        let at = block.checked_sub(self.first)?;
        let (group, nth) = (at / self.per_group, at % self.per_group);
        if group > 0 && self.sparse && !has_backup(group) {
            return None;
        }
        let descriptors = (self.groups * self.descriptor).div_ceil(self.block);
        let what = match nth {
            0 => "superblock",
            n if n <= descriptors => "group descriptors",
            n if n <= descriptors + self.reserved => "blocks kept for group descriptors",
            _ => return None,
        };
        Some(if group == 0 { what.to_string() } else { format!("{what}, copy in group {group}") })
    }

    /// Where a group's bitmaps and its inodes are.
    fn tables(&self, group: u64) -> Option<[u64; 3]> {
        let at = (self.first + 1).checked_mul(self.block)? + group * self.descriptor;
        let raw = self.image.bytes(at, self.descriptor)?;
        let high = |at| (self.descriptor >= 64).then_some(at);
        Some([split_at(&raw, 0, high(0x20))?, split_at(&raw, 4, high(0x24))?, split_at(&raw, 8, high(0x28))?])
    }

    fn inode(&self, number: u64) -> Option<Vec<u8>> {
        let index = number.checked_sub(1)?;
        let table = self.tables(index / self.per_group_inodes)?[2];
        let at = table.checked_mul(self.block)?.checked_add(index % self.per_group_inodes * self.inode)?;
        self.image.bytes(at, self.inode.min(256))
    }

    /// What `block` is to an inode, if anything.
    fn role(&self, number: u64, raw: &[u8], block: u64) -> Option<&'static str> {
        let mode = u16_at(raw, 0)?;
        if mode == 0 {
            return None;
        }
        let attributes = u64::from(u32_at(raw, 0x68)?) | u64::from(u16_at(raw, 0x76)?) << 32;
        if attributes == block {
            return Some("attributes");
        }
        let found = self.runs(raw, &mut |run| match run {
            Run::Content(start, length) if (start..start.saturating_add(length)).contains(&block) => {
                Break(true)
            }
            Run::Map(at) if at == block => Break(false),
            _ => Continue(()),
        });
        let Break(is_content) = found else { return None };
        Some(match (number, is_content) {
            (JOURNAL, true) => "journal",
            (RESIZE, _) => "blocks kept for group descriptors",
            (_, true) => content(mode),
            _ => "block map",
        })
    }

    /// Gives all runs of an inode to `see`.
    fn runs<B>(&self, raw: &[u8], see: &mut dyn FnMut(Run) -> ControlFlow<B>) -> ControlFlow<B> {
        let number = |at| u32_at(raw, at).unwrap_or(0);
        let (flags, mode) = (number(0x20), u16_at(raw, 0).unwrap_or(0) & 0o170_000);
        let is_short_link = mode == 0o120_000 && number(4) < 60 && flags & EXTENTS == 0;
        let has_blocks = [0o040_000, 0o100_000, 0o120_000].contains(&mode) && flags & INLINE == 0;
        let Some(map) = raw.get(0x28..0x64).filter(|_| has_blocks && !is_short_link) else {
            return Continue(());
        };
        if flags & EXTENTS != 0 {
            return self.extents(map, None, see);
        }
        for (i, at) in (0..60).step_by(4).enumerate() {
            let level = u32::try_from(i.saturating_sub(11)).unwrap_or(0);
            self.numbers(u32_at(map, at).unwrap_or(0).into(), level, see)?;
        }
        Continue(())
    }

    /// A node of extents, which lies `depth` above the leaves where that is known.
    fn extents<B>(
        &self,
        node: &[u8],
        depth: Option<u16>,
        see: &mut dyn FnMut(Run) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let field = |at| u16_at(node, at).unwrap_or(0);
        let own = field(6);
        if field(0) != 0xf30a || own > 5 || depth.is_some_and(|d| d != own) {
            return Continue(());
        }
        for entry in node[12..].chunks_exact(12).take(field(2).into()) {
            let half = |at| u64::from(u16_at(entry, at).unwrap_or(0));
            let low = |at| u64::from(u32_at(entry, at).unwrap_or(0));
            if own == 0 {
                // Above 32768, the extent is allocated and not written.
                let length = if half(4) > 32768 { half(4) - 32768 } else { half(4) };
                see(Run::Content(low(8) | half(6) << 32, length))?;
                continue;
            }
            let block = low(4) | half(8) << 32;
            see(Run::Map(block))?;
            if let Some(below) = self.read(block) {
                self.extents(&below, Some(own - 1), see)?;
            }
        }
        Continue(())
    }

    /// A block of content, or one of numbers `level` above it.
    fn numbers<B>(
        &self,
        block: u64,
        level: u32,
        see: &mut dyn FnMut(Run) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if block == 0 {
            return Continue(());
        }
        if level == 0 {
            return see(Run::Content(block, 1));
        }
        see(Run::Map(block))?;
        for number in self.read(block).unwrap_or_default().as_chunks::<4>().0 {
            self.numbers(u32::from_le_bytes(*number).into(), level - 1, see)?;
        }
        Continue(())
    }

    /// The first path of an inode.
    fn path(&self, wanted: u64) -> Option<String> {
        if wanted == ROOT {
            return Some("/".to_string());
        }
        let mut seen = HashSet::from([ROOT]);
        let mut work = vec![(ROOT, "/".to_string())];
        while let Some((inode, path)) = work.pop() {
            for (inode, name, is_dir) in self.names(inode) {
                if inode == wanted {
                    return Some(below(&path, &name));
                }
                if is_dir && seen.len() < 1 << 20 && seen.insert(inode) {
                    work.push((inode, below(&path, &name)));
                }
            }
        }
        None
    }

    /// The names in a directory, with inodes and whether those are directories.
    fn names(&self, directory: u64) -> Vec<(u64, Vec<u8>, bool)> {
        let Some(raw) = self.inode(directory).filter(|r| u16_at(r, 0).unwrap_or(0) & 0o170_000 == 0o040_000)
        else {
            return Vec::new();
        };
        let (mut names, mut left) = (Vec::new(), MAX_DIRECTORY);
        let _ = self.runs(&raw, &mut |run| {
            let Run::Content(start, length) = run else { return Continue(()) };
            for block in start..start.saturating_add(length) {
                left = left.saturating_sub(self.block);
                let Some(raw) = self.read(block).filter(|_| left > 0) else { return Break(()) };
                self.entries(&raw, &mut names);
            }
            Continue(())
        });
        names
    }

    fn entries(&self, raw: &[u8], names: &mut Vec<(u64, Vec<u8>, bool)>) {
        let mut at = 0;
        while let (Some(inode), Some(length)) = (u32_at(raw, at), u16_at(raw, at + 4)) {
            let name = raw.get(at + 6).and_then(|n| raw.get(at + 8..at + 8 + usize::from(*n)));
            if let Some(name) = name.filter(|n| inode != 0 && !matches!(*n, b"" | b"." | b"..")) {
                let mode = self.inode(inode.into()).and_then(|r| u16_at(&r, 0)).unwrap_or(0);
                names.push((inode.into(), name.to_vec(), mode & 0o170_000 == 0o040_000));
            }
            if length < 8 {
                return;
            }
            at += usize::from(length);
        }
    }
}
