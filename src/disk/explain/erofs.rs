//! EROFS (the kernel's `erofs_fs.h`), as far as it is not compressed.

use super::{Image, MAX_DIRECTORY, MAX_INODES, Spot, below, content, u16_at, u32_at, u64_at};
use crate::disk::erofs::{MAGIC, SUPER};
use std::collections::HashSet;

/// Bytes of the superblock.
const SUPER_SIZE: u64 = 128;
/// Bytes of a name in a directory without it.
const ENTRY: usize = 12;

pub(super) fn at(image: Image, offset: u64) -> Option<Spot> {
    let raw = image.bytes(SUPER as u64, SUPER_SIZE)?;
    if u32_at(&raw, 0)? != MAGIC || !(9..=16).contains(&raw[12]) {
        return None;
    }
    if offset < SUPER as u64 + SUPER_SIZE {
        return Some(Spot::of(if offset < SUPER as u64 { "boot sector" } else { "superblock" }));
    }
    let block = 1 << raw[12];
    let fs = Fs { image, block, meta: u64::from(u32_at(&raw, 40)?) * block };
    let root = u64::from(u16_at(&raw, 14)?);
    let mut seen = HashSet::from([root]);
    let mut work = vec![(root, "/".to_string())];
    while let Some((nid, path)) = work.pop() {
        let Some(inode) = fs.inode(nid) else { continue };
        if let Some(what) = inode.part(offset) {
            return Some(Spot { inode: Some(nid), path: Some(path), ..Spot::of(what) });
        }
        for (nid, name) in fs.names(&inode) {
            if (seen.len() as u64) < MAX_INODES && seen.insert(nid) {
                work.push((nid, below(&path, &name)));
            }
        }
    }
    Some(Spot::of("metadata"))
}

struct Fs<'a> {
    image: Image<'a>,
    block: u64,
    meta: u64,
}

/// Where an inode and its content are, in bytes.
struct Inode {
    mode: u16,
    at: u64,
    attributes: u64,
    /// What lies beside the inode: start and length.
    tail: (u64, u64),
    /// What lies in blocks.
    blocks: (u64, u64),
}

impl Inode {
    fn part(&self, offset: u64) -> Option<&'static str> {
        let holds = |(start, length): (u64, u64)| (start..start.saturating_add(length)).contains(&offset);
        if holds(self.tail) || holds(self.blocks) {
            return Some(content(self.mode));
        }
        if holds((self.at, self.attributes - self.at)) {
            return Some("inode");
        }
        holds((self.attributes, self.tail.0 - self.attributes)).then_some("attributes")
    }
}

impl Fs<'_> {
    fn inode(&self, nid: u64) -> Option<Inode> {
        let at = self.meta.checked_add(nid.checked_mul(32)?)?;
        let format = u16_at(&self.image.bytes(at, 2)?, 0)?;
        let header = if format & 1 == 0 { 32 } else { 64 };
        let raw = self.image.bytes(at, header)?;
        let count = u64::from(u16_at(&raw, 2)?);
        let attributes = at + header;
        let tail = attributes + if count == 0 { 0 } else { 12 + (count - 1) * 4 };
        let size = if header == 32 { u64::from(u32_at(&raw, 8)?) } else { u64_at(&raw, 8)? };
        let mode = u16_at(&raw, 4)?;
        // Devices have their numbers where others have a block.
        let plain = [0o040_000, 0o100_000, 0o120_000].contains(&(mode & 0o170_000));
        let (beside, in_blocks) = match format >> 1 & 7 {
            _ if !plain => (0, 0),
            0 => (0, size),
            2 => (size % self.block, size - size % self.block),
            _ => (0, 0),
        };
        let blocks = (u64::from(u32_at(&raw, 16)?) * self.block, in_blocks);
        Some(Inode { mode, at, attributes, tail: (tail, beside), blocks })
    }

    fn names(&self, inode: &Inode) -> Vec<(u64, Vec<u8>)> {
        let mut names = Vec::new();
        if inode.mode & 0o170_000 != 0o040_000 || inode.blocks.1 > MAX_DIRECTORY {
            return names;
        }
        let read = |(start, length)| self.image.bytes(start, length).unwrap_or_default();
        let content = [read(inode.blocks), read(inode.tail)].concat();
        for block in content.chunks(usize::try_from(self.block).unwrap_or(usize::MAX)) {
            let place = |i: usize| u16_at(block, i * ENTRY + 8).map(usize::from);
            let count = place(0).unwrap_or(0) / ENTRY;
            for i in 0..count {
                let (Some(nid), Some(start)) = (u64_at(block, i * ENTRY), place(i)) else { break };
                let end = if i + 1 < count { place(i + 1) } else { None }.unwrap_or(block.len());
                let name = block.get(start..end).unwrap_or_default();
                let name = name.split(|b| *b == 0).next().unwrap_or_default();
                if !matches!(name, b"" | b"." | b"..") {
                    names.push((nid, name.to_vec()));
                }
            }
        }
        names
    }
}
