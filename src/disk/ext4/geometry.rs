//! Where the tables of a filesystem lie, as mke2fs lays them out.
//!
//! A group is 32768 blocks. In some of them (0, 1, and the powers of 3, 5 and 7) lie a superblock,
//! all group descriptors, and blocks into which the descriptors grow with the filesystem. The
//! bitmaps and inode tables of `flex` groups lie together at the start of the first of these, so
//! whatever is not data lies at the start of its group: its head.

use super::{BLOCK, INODE, Kind};

/// Blocks of a group.
pub(super) const GROUP: u64 = 8 * BLOCK;
/// Inodes of a block of the inode table.
const PER_BLOCK: u64 = BLOCK / INODE;

/// Where all tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub kind: Kind,
    /// All blocks.
    pub blocks: u64,
    /// Groups.
    pub groups: u64,
    /// Inodes of a group.
    pub per_group: u64,
    /// Blocks of the group descriptors.
    pub descriptors: u64,
    /// Blocks kept for more of them.
    pub reserved: u64,
    /// Groups whose tables lie together.
    pub flex: u64,
}

impl Geometry {
    /// The filesystem of at most so many blocks with at least so many inodes; none where they do
    /// not go together.
    pub(super) fn new(kind: Kind, blocks: u64, inodes: u64) -> Option<Self> {
        let mut blocks = blocks;
        loop {
            let one = Self::exactly(kind, blocks, inodes)?;
            let rest = blocks % GROUP;
            let head = one.backup(one.groups - 1) + 2 + one.table();
            // A last group without room for anything is none.
            if rest == 0 || rest >= head + if one.groups > 1 { 50 } else { 0 } {
                return Some(one);
            }
            blocks -= rest;
        }
    }

    fn exactly(kind: Kind, blocks: u64, inodes: u64) -> Option<Self> {
        let groups = blocks.div_ceil(GROUP);
        if groups == 0 || blocks > u64::from(u32::MAX) {
            return None;
        }
        let per_group = inodes.div_ceil(groups).next_multiple_of(PER_BLOCK);
        if per_group > 8 * BLOCK || per_group * groups > u64::from(u32::MAX) {
            return None;
        }
        let in_block = BLOCK / kind.descriptor();
        let descriptors = groups.div_ceil(in_block);
        // It can become a thousand times as large, as mke2fs has it.
        let largest = (blocks << 10).min(u64::from(u32::MAX));
        let reserved = largest.div_ceil(GROUP).div_ceil(in_block).saturating_sub(descriptors).min(BLOCK / 4);
        let mut new = Self { kind, blocks, groups, per_group, descriptors, reserved, flex: 1 };
        let head = 1 + descriptors + reserved;
        let tables = 2 + new.table();
        if head + tables > GROUP {
            return None;
        }
        if kind == Kind::Ext4 {
            new.flex = [16, 8, 4, 2, 1].into_iter().find(|n| head + n * tables <= GROUP)?;
        }
        Some(new)
    }

    /// Blocks of a group's inode table.
    pub(super) const fn table(&self) -> u64 {
        self.per_group / PER_BLOCK
    }

    /// All inodes.
    pub(super) const fn inodes(&self) -> u64 {
        self.per_group * self.groups
    }

    /// The groups that have them, the first one too.
    pub(super) fn backups(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.groups).filter(|g| has_backup(*g))
    }

    /// Blocks of the superblock and descriptors in a group.
    fn backup(&self, group: u64) -> u64 {
        if has_backup(group) { 1 + self.descriptors + self.reserved } else { 0 }
    }

    /// How many groups have their tables in the first group of `group`'s company, and that one.
    fn company(&self, group: u64) -> (u64, u64) {
        let first = group / self.flex * self.flex;
        (first, self.flex.min(self.groups - first))
    }

    /// Blocks at the start of a group that are not for data.
    pub(super) fn head(&self, group: u64) -> u64 {
        let (first, members) = self.company(group);
        self.backup(group) + if first == group { members * (2 + self.table()) } else { 0 }
    }

    /// Whether a group's head has only what belongs to it.
    pub(super) const fn is_plain(&self, group: u64) -> bool {
        !group.is_multiple_of(self.flex)
    }

    /// The blocks of a group's block bitmap, its inode bitmap, and where its inode table starts.
    pub(super) fn tables(&self, group: u64) -> (u64, u64, u64) {
        let (first, members) = self.company(group);
        let start = first * GROUP + self.backup(first);
        let nth = group - first;
        (start + nth, start + members + nth, start + 2 * members + nth * self.table())
    }

    /// Blocks that a group has; the last one may be short.
    pub(super) fn size(&self, group: u64) -> u64 {
        (self.blocks - group * GROUP).min(GROUP)
    }

    /// Blocks for data.
    pub(super) fn capacity(&self) -> u64 {
        let backups = self.backups().count() as u64 * self.backup(0);
        self.blocks.saturating_sub(backups + self.groups * (2 + self.table()))
    }

    /// The run of data blocks that starts at `block` or after it: start and end.
    pub(super) fn run(&self, block: u64) -> (u64, u64) {
        let group = block / GROUP;
        let start = block.max(group * GROUP + self.head(group.min(self.groups - 1)));
        let mut next = start / GROUP + 1;
        while next < self.groups && self.head(next) == 0 {
            next += 1;
        }
        (start, (next * GROUP).min(self.blocks))
    }
}

/// Whether a group has a superblock and descriptors (`sparse_super`).
pub(in crate::disk) fn has_backup(group: u64) -> bool {
    let is_power = |base: u64| {
        let mut n = group;
        while n > 1 && n.is_multiple_of(base) {
            n /= base;
        }
        n == 1
    };
    group <= 1 || [3, 5, 7].into_iter().any(is_power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_the_blocks_that_are_not_data() {
        for kind in [Kind::Ext4, Kind::Ext2] {
            for (blocks, inodes) in [
                (300, 16),
                (32768, 1024),
                (65536, 60_000),
                (40 * GROUP + 3000, 5000),
                (99 * GROUP, 99 * GROUP),
            ] {
                let g = Geometry::new(kind, blocks, inodes).unwrap();
                assert!(g.inodes() >= inodes && g.blocks <= blocks, "{g:?}");
                let heads: u64 = (0..g.groups).map(|n| g.head(n)).sum();
                assert_eq!(g.capacity(), g.blocks - heads, "{g:?}");
                assert!((0..g.groups).all(|n| g.head(n) <= g.size(n)), "{g:?}");
                let (mut at, mut data) = (0, 0);
                while at < g.blocks {
                    let (start, end) = g.run(at);
                    data += end.saturating_sub(start);
                    at = end.max(start);
                }
                assert_eq!(data, g.capacity(), "{g:?}");
            }
        }
    }

    #[test]
    fn what_does_not_go_together() {
        for (blocks, inodes) in [(0, 16), (3, 16), (1 << 33, 16), (32768, 40000), (3000, 32768 * 2)] {
            assert_eq!(Geometry::new(Kind::Ext4, blocks, inodes), None, "{blocks} {inodes}");
        }
        let kept: Vec<u64> = Geometry::new(Kind::Ext4, 50 * GROUP, 16).unwrap().backups().collect();
        assert_eq!(kept, [0, 1, 3, 5, 7, 9, 25, 27, 49]);
        // Too short for a group of its own.
        assert_eq!(Geometry::new(Kind::Ext4, GROUP + 40, 16).unwrap().blocks, GROUP);
    }
}
