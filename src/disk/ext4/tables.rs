//! Superblock, group descriptors, bitmaps, and the journal's superblock.

use super::geometry::{GROUP, Geometry};
use super::inode::{FIRST, JOURNAL, Sums};
use super::out::Out;
use super::{BLOCK, BYTES, INODE, Kind, Options, Result};
use crate::disk::raw::{count, low16, low32, set};
use crate::disk::sum::crc32c;

/// Inodes of a group are all free and its bitmap is not written.
const INODES_UNUSED: u16 = 1;
/// The same for its blocks.
const BLOCKS_UNUSED: u16 = 2;
/// Nothing is left to be zeroed in the inode table: it is a hole.
const ZEROED: u16 = 4;

impl Kind {
    /// Bytes of a group descriptor.
    pub(super) const fn descriptor(self) -> u64 {
        match self {
            Self::Ext4 => 64,
            Self::Ext2 => 32,
        }
    }

    /// Features that others may ignore, must know, must know to write.
    const fn features(self) -> [u32; 3] {
        match self {
            // has_journal, ext_attr, resize_inode, dir_index; filetype, extent, 64bit, flex_bg;
            // sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
            Self::Ext4 => [
                0x04 | 0x08 | 0x10 | 0x20,
                0x02 | 0x40 | 0x80 | 0x200,
                0x01 | 0x02 | 0x08 | 0x20 | 0x40 | 0x400,
            ],
            // ext_attr, resize_inode; filetype; sparse_super, large_file
            Self::Ext2 => [0x08 | 0x10, 0x02, 0x01 | 0x02],
        }
    }

    /// Bytes of a file at most: block numbers of 32 bits, and what an inode counts.
    pub(super) const fn largest(self) -> u64 {
        match self {
            Self::Ext4 => (u32::MAX as u64) * BLOCK,
            // 2^32 sectors with the largest map.
            Self::Ext2 => ((1 << 29) - 3 - 2 * 1024 - 2 - 1024 * 1024) * BLOCK,
        }
    }
}

/// What the tables tell.
pub(super) struct Tables<'a> {
    pub geometry: Geometry,
    pub options: &'a Options,
    pub sums: Sums,
    /// The block after the last one that is taken.
    pub next: u64,
    /// The last inode that is taken.
    pub last: u32,
    /// Directories of each group.
    pub dirs: Vec<u32>,
    /// Blocks that only root may use.
    pub kept: u64,
    /// The journal's map of blocks.
    pub journal: [u8; 60],
    /// Blocks of the journal.
    pub journal_blocks: u64,
}

impl Tables<'_> {
    /// Writes all of them.
    pub(super) fn write(&self, out: &mut Out) -> Result<()> {
        let mut descriptors = Vec::new();
        for group in 0..self.geometry.groups {
            descriptors.extend(self.group(group, out)?);
        }
        for group in self.geometry.backups() {
            let block = group * GROUP;
            let raw = self.superblock(group);
            out.put(block * BLOCK + if group == 0 { 1024 } else { 0 }, &raw)?;
            out.block(block + 1, &descriptors)?;
        }
        out.flush()
    }

    /// Blocks that are taken in a group: the first ones.
    fn taken(&self, group: u64) -> u64 {
        let start = group * GROUP;
        self.next.saturating_sub(start).clamp(self.geometry.head(group), self.geometry.size(group))
    }

    /// Inodes that are taken in a group: the first ones.
    fn inodes(&self, group: u64) -> u64 {
        let per_group = self.geometry.per_group;
        u64::from(self.last).saturating_sub(group * per_group).min(per_group)
    }

    /// Blocks that are free.
    fn free(&self) -> u64 {
        (0..self.geometry.groups).map(|g| self.geometry.size(g) - self.taken(g)).sum()
    }

    /// Writes the bitmaps of a group; gives its descriptor.
    fn group(&self, group: u64, out: &mut Out) -> Result<Vec<u8>> {
        let geometry = &self.geometry;
        let (blocks, inodes, table) = geometry.tables(group);
        let (taken, used) = (self.taken(group), self.inodes(group));
        let mut flags = 0;
        let (mut block_sum, mut inode_sum) = (0, 0);
        if self.sums.are() {
            flags |= ZEROED;
            if used == 0 {
                flags |= INODES_UNUSED;
            }
            let is_last = group + 1 == geometry.groups;
            if taken == geometry.head(group) && geometry.is_plain(group) && !is_last {
                flags |= BLOCKS_UNUSED;
            }
        }
        if flags & BLOCKS_UNUSED == 0 {
            let map = bitmap(taken, geometry.size(group));
            block_sum = self.sums.sum(&[&map]);
            out.block(blocks, &map)?;
        }
        if flags & INODES_UNUSED == 0 {
            let map = bitmap(used, geometry.per_group);
            inode_sum = self.sums.sum(&[&map[..count(geometry.per_group / 8)]]);
            out.block(inodes, &map)?;
        }
        let mut raw = vec![0; count(geometry.kind.descriptor())];
        for (at, block) in [(0, blocks), (4, inodes), (8, table)] {
            set(&mut raw, at, low32(block).to_le_bytes());
        }
        let free_inodes = low16(geometry.per_group - used);
        set(&mut raw, 0x0c, low16(geometry.size(group) - taken).to_le_bytes());
        set(&mut raw, 0x0e, free_inodes.to_le_bytes());
        set(&mut raw, 0x10, low16(self.dirs[count(group)].into()).to_le_bytes());
        set(&mut raw, 0x12, flags.to_le_bytes());
        if self.sums.are() {
            set(&mut raw, 0x18, low16(block_sum.into()).to_le_bytes());
            set(&mut raw, 0x1a, low16(inode_sum.into()).to_le_bytes());
            set(&mut raw, 0x1c, free_inodes.to_le_bytes());
            set(&mut raw, 0x38, low16((block_sum >> 16).into()).to_le_bytes());
            set(&mut raw, 0x3a, low16((inode_sum >> 16).into()).to_le_bytes());
            let sum = self.sums.of(low32(group)).sum(&[&raw]);
            set(&mut raw, 0x1e, low16(sum.into()).to_le_bytes());
        }
        Ok(raw)
    }

    fn superblock(&self, group: u64) -> [u8; 1024] {
        let (g, options) = (&self.geometry, self.options);
        let mut raw = [0; 1024];
        let [compat, incompat, ro_compat] = g.kind.features();
        let time = options.time.max(0).to_le_bytes();
        let seconds = u32::from_le_bytes([time[0], time[1], time[2], time[3]]);
        let (free_inodes, group_size) = (g.inodes() - u64::from(self.last), low32(GROUP));
        for (at, number) in [
            (0x00, low32(g.inodes())),
            (0x04, low32(g.blocks)),
            (0x08, low32(self.kept)),
            (0x0c, low32(self.free())),
            (0x10, low32(free_inodes)),
            (0x18, BLOCK.ilog2() - 10),
            (0x1c, BLOCK.ilog2() - 10),
            (0x20, group_size),
            (0x24, group_size),
            (0x28, low32(g.per_group)),
            (0x30, seconds),
            // No checks by count of mounts, the magic number.
            (0x34, 0xffff_0000),
            (0x38, 0x0001_ef53),
            // Goes on after errors, as mke2fs has it.
            (0x3c, 1),
            (0x40, seconds),
            // Revision 1.
            (0x4c, 1),
            (0x54, FIRST),
            (0x58, low32(INODE | (group & 0xffff) << 16)),
            (0x5c, compat),
            (0x60, incompat),
            (0x64, ro_compat),
            (0xcc, low32(g.reserved << 16)),
            // user_xattr, acl.
            (0x100, 0x0c),
            (0x108, seconds),
            // Room in inodes behind the first 128 bytes: at least, wanted.
            (0x15c, 32 << 16 | 32),
            // Names are hashed as signed characters.
            (0x160, 1),
            (0x174, g.flex.ilog2()),
        ] {
            set(&mut raw, at, number.to_le_bytes());
        }
        let label = &options.label[..options.label.floor_char_boundary(16)];
        set(&mut raw, 0x68, options.uuid);
        set(&mut raw, 0x78, label);
        set(&mut raw, 0xec, options.hash_seed);
        // Half MD4.
        raw[0xfc] = 1;
        // The high bytes of the three times.
        for at in [0x274, 0x276, 0x277] {
            raw[at] = time[4];
        }
        if g.kind == Kind::Ext4 {
            set(&mut raw, 0xe0, JOURNAL.to_le_bytes());
            // The journal's map, for e2fsck, and its size.
            raw[0xfd] = 1;
            set(&mut raw, 0x10c, self.journal);
            set(&mut raw, 0x14c, low32(self.journal_blocks * BLOCK).to_le_bytes());
            set(&mut raw, 0xfe, low16(g.kind.descriptor()).to_le_bytes());
            // CRC-32C.
            raw[0x175] = 1;
            let sum = crc32c(!0, &raw[..0x3fc]);
            set(&mut raw, 0x3fc, sum.to_le_bytes());
        }
        raw
    }
}

/// `ones` set bits of `all`; what is behind those, too.
fn bitmap(ones: u64, all: u64) -> [u8; BYTES] {
    let mut map = [0; BYTES];
    let (ones, all) = (count(ones), count(all));
    map[..ones / 8].fill(0xff);
    map[all.div_ceil(8)..].fill(0xff);
    if !ones.is_multiple_of(8) {
        map[ones / 8] |= !(0xff << (ones % 8));
    }
    if !all.is_multiple_of(8) {
        map[all / 8] |= 0xff << (all % 8);
    }
    map
}

/// The first block of an empty journal of so many blocks.
pub(super) fn journal(blocks: u64, uuid: &[u8; 16]) -> [u8; 1024] {
    let mut raw = [0; 1024];
    let numbers = [0xc03b_3998, 4, 0, low32(BLOCK), low32(blocks), 1, 1];
    for (i, number) in numbers.into_iter().enumerate() {
        set(&mut raw, i * 4, u32::to_be_bytes(number));
    }
    // magic, sort, sequence | size of blocks, blocks, first block, first sequence
    set(&mut raw, 0x30, uuid);
    set(&mut raw, 0x40, 1u32.to_be_bytes());
    raw
}

#[cfg(test)]
mod tests {
    use super::bitmap;

    #[test]
    fn bits() {
        let map = bitmap(11, 20);
        assert_eq!((map[0], map[1], map[2], map[3], map[4095]), (0xff, 0x07, 0xf0, 0xff, 0xff));
        assert_eq!(bitmap(0, 32768), [0; 4096]);
        assert_eq!(bitmap(32768, 32768), [0xff; 4096]);
    }
}
