//! Which block of the filesystem has which block of a file: extents for ext4, trees of block
//! numbers for ext2.
//!
//! Blocks come in order. A block of the map lies before or among the data that it tells of, and is
//! written when it is full, so that a map takes little memory however large the file is.

use super::inode::Sums;
use super::space::Space;
use super::{BLOCK, BYTES, Kind, Result};
use crate::disk::raw::{count, low16, low32, set};

/// Blocks of an extent at most.
const LONGEST: u64 = 32768;
/// Extents, or nodes below, in a block.
const FANOUT: usize = 340;
/// The same in the inode.
const IN_INODE: usize = 4;
/// Numbers in a block.
const NUMBERS: u64 = BLOCK / 4;
/// Blocks of a file that an ext2 inode names itself.
const DIRECT: u64 = 12;

/// A map that is finished.
pub(super) struct Mapped {
    /// The part in the inode.
    pub map: [u8; 60],
    /// Blocks of data and of the map.
    pub blocks: u64,
}

/// The map of a file that is being written.
pub(super) struct Map {
    form: Form,
    sums: Sums,
    blocks: u64,
}

enum Form {
    Extents { open: Vec<Extent>, full: Vec<Node> },
    Numbers { root: [u8; 60], open: Vec<Table> },
}

#[derive(Clone, Copy)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
}

/// A block of extents and the first block of the file that it tells of.
#[derive(Clone, Copy)]
struct Node {
    logical: u64,
    block: u64,
}

/// A block of numbers that is not written yet.
struct Table {
    /// The first block of the file that it tells of, and how many.
    first: u64,
    span: u64,
    block: u64,
    raw: Vec<u8>,
}

/// The blocks that the map of a file of `data` blocks without holes takes, at most; with holes,
/// map and data together take no more.
pub(super) fn most(kind: Kind, data: u64) -> u64 {
    if kind == Kind::Ext2 {
        return numbers(data);
    }
    // An extent ends at its longest and at the head of a group.
    let mut nodes = if data <= LONGEST { 1 } else { 2 * data.div_ceil(LONGEST) + 1 };
    let mut all = 0;
    while nodes > IN_INODE as u64 {
        nodes = nodes.div_ceil(FANOUT as u64);
        all += nodes;
    }
    all
}

/// Blocks of numbers for a file of `data` blocks.
fn numbers(data: u64) -> u64 {
    let mut left = data.saturating_sub(DIRECT);
    let mut all = 0;
    for level in 0..3 {
        let here = left.min(NUMBERS.pow(level + 1));
        left -= here;
        all += (0..=level).map(|l| here.div_ceil(NUMBERS.pow(l + 1))).sum::<u64>();
    }
    all
}

impl Map {
    /// An empty map of a file whose inode has `sums`.
    pub(super) const fn new(kind: Kind, sums: Sums) -> Self {
        let form = match kind {
            Kind::Ext4 => Form::Extents { open: Vec::new(), full: Vec::new() },
            Kind::Ext2 => Form::Numbers { root: [0; 60], open: Vec::new() },
        };
        Self { form, sums, blocks: 0 }
    }

    /// Takes up to `wanted` blocks for the file's blocks from `logical` on: where they start, and
    /// how many they are.
    pub(super) fn take(&mut self, logical: u64, wanted: u64, space: &mut Space) -> Result<(u64, u64)> {
        match &mut self.form {
            Form::Extents { open, full } => {
                if open.len() == FANOUT {
                    full.push(node(open, self.sums, space)?);
                    open.clear();
                    self.blocks += 1;
                }
                let (physical, length) = space.take(wanted.min(LONGEST))?;
                self.blocks += length;
                extend(open, Extent { logical, physical, length });
                Ok((physical, length))
            }
            Form::Numbers { root, open } => {
                let room = descend(logical, root, open, &mut self.blocks, space)?;
                let (physical, length) = space.take(wanted.min(room))?;
                self.blocks += length;
                for i in 0..length {
                    let number = low32(physical + i).to_le_bytes();
                    match open.last_mut().filter(|t| logical >= t.first && logical + i < t.first + t.span) {
                        Some(table) => set(&mut table.raw, count(logical + i - table.first) * 4, number),
                        None => set(root, count(logical + i) * 4, number),
                    }
                }
                Ok((physical, length))
            }
        }
    }

    /// Writes what is left of the map.
    pub(super) fn finish(mut self, space: &mut Space) -> Result<Mapped> {
        let map = match self.form {
            Form::Extents { mut open, mut full } => {
                if full.is_empty() && open.len() <= IN_INODE {
                    root(0, &leaves(&open))
                } else {
                    if !open.is_empty() {
                        full.push(node(&mut open, self.sums, space)?);
                        self.blocks += 1;
                    }
                    let mut depth = 1;
                    while full.len() > IN_INODE {
                        let below = std::mem::take(&mut full);
                        for part in below.chunks(FANOUT) {
                            let block = space.take(1)?.0;
                            let raw = extent_block(depth, &indexes(part), self.sums);
                            space.out.block(block, &raw)?;
                            full.push(Node { logical: part[0].logical, block });
                            self.blocks += 1;
                        }
                        depth += 1;
                    }
                    root(depth, &indexes(&full))
                }
            }
            Form::Numbers { root, mut open } => {
                close(&mut open, 0, space)?;
                root
            }
        };
        Ok(Mapped { map, blocks: self.blocks })
    }
}

/// Adds an extent, to the last one where it goes on from there.
fn extend(open: &mut Vec<Extent>, mut new: Extent) {
    if let Some(last) = open.last_mut()
        && last.logical + last.length == new.logical
        && last.physical + last.length == new.physical
    {
        let more = new.length.min(LONGEST - last.length);
        last.length += more;
        new =
            Extent { logical: new.logical + more, physical: new.physical + more, length: new.length - more };
    }
    if new.length > 0 {
        open.push(new);
    }
}

/// Writes a block of the extents that are open.
fn node(open: &mut [Extent], sums: Sums, space: &mut Space) -> Result<Node> {
    let block = space.take(1)?.0;
    space.out.block(block, &extent_block(0, &leaves(open), sums))?;
    Ok(Node { logical: open[0].logical, block })
}

fn leaves(all: &[Extent]) -> Vec<[u8; 12]> {
    let leaf = |e: &Extent| {
        let mut raw = [0; 12];
        set(&mut raw, 0, low32(e.logical).to_le_bytes());
        set(&mut raw, 4, low16(e.length).to_le_bytes());
        set(&mut raw, 6, low16(e.physical >> 32).to_le_bytes());
        set(&mut raw, 8, low32(e.physical).to_le_bytes());
        raw
    };
    all.iter().map(leaf).collect()
}

fn indexes(all: &[Node]) -> Vec<[u8; 12]> {
    let index = |n: &Node| {
        let mut raw = [0; 12];
        set(&mut raw, 0, low32(n.logical).to_le_bytes());
        set(&mut raw, 4, low32(n.block).to_le_bytes());
        set(&mut raw, 8, low16(n.block >> 32).to_le_bytes());
        raw
    };
    all.iter().map(index).collect()
}

fn fill(raw: &mut [u8], depth: u16, entries: &[[u8; 12]], most: usize) {
    set(raw, 0, 0xf30a_u16.to_le_bytes());
    set(raw, 2, low16(entries.len() as u64).to_le_bytes());
    set(raw, 4, low16(most as u64).to_le_bytes());
    set(raw, 6, depth.to_le_bytes());
    set(raw, 12, entries.as_flattened());
}

fn root(depth: u16, entries: &[[u8; 12]]) -> [u8; 60] {
    let mut raw = [0; 60];
    fill(&mut raw, depth, entries, IN_INODE);
    raw
}

fn extent_block(depth: u16, entries: &[[u8; 12]], sums: Sums) -> Vec<u8> {
    let mut raw = vec![0; BYTES];
    fill(&mut raw, depth, entries, FANOUT);
    let end = 12 + 12 * FANOUT;
    let sum = sums.sum(&[&raw[..end]]);
    set(&mut raw, end, sum.to_le_bytes());
    raw
}

/// Opens the tables down to the one with the number of block `logical`; how many numbers from there
/// on are in it.
fn descend(
    logical: u64,
    root: &mut [u8; 60],
    open: &mut Vec<Table>,
    blocks: &mut u64,
    space: &mut Space,
) -> Result<u64> {
    if logical < DIRECT {
        return Ok(DIRECT - logical);
    }
    let (mut first, mut level) = (DIRECT, 0);
    while logical - first >= NUMBERS.pow(level + 1) {
        first += NUMBERS.pow(level + 1);
        level += 1;
    }
    let slot = count(DIRECT + u64::from(level)) * 4;
    let mut span = NUMBERS.pow(level + 1);
    for depth in 0..=level as usize {
        let start = first + (logical - first) / span * span;
        if open.get(depth).is_none_or(|t| (t.first, t.span) != (start, span)) {
            close(open, depth, space)?;
            let block = space.take(1)?.0;
            let raw = vec![0; BYTES];
            // Keeps its place among what is written in order.
            space.out.block(block, &raw)?;
            let number = low32(block).to_le_bytes();
            match depth.checked_sub(1) {
                None => set(root, slot, number),
                Some(above) => {
                    let above = &mut open[above];
                    set(&mut above.raw, count((start - above.first) / span) * 4, number);
                }
            }
            open.push(Table { first: start, span, block, raw });
            *blocks += 1;
        }
        span /= NUMBERS;
    }
    let span = span * NUMBERS;
    Ok(span - (logical - first) % span)
}

/// Writes the tables from `depth` on down.
fn close(open: &mut Vec<Table>, depth: usize, space: &mut Space) -> Result<()> {
    for table in open.drain(depth.min(open.len())..) {
        space.out.block(table.block, &table.raw)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_files_without_holes() {
        for (kind, data, blocks) in [
            (Kind::Ext4, 0, 0),
            (Kind::Ext4, 32768, 0),
            (Kind::Ext4, 65536, 1),
            (Kind::Ext4, 1 << 26, 14),
            (Kind::Ext2, 12, 0),
            (Kind::Ext2, 13, 1),
            (Kind::Ext2, 12 + 1024, 1),
            (Kind::Ext2, 12 + 1024 + 1, 3),
            (Kind::Ext2, 12 + 1024 + (1 << 20), 2 + 1024),
            (Kind::Ext2, 12 + 1024 + (1 << 20) + 1, 2 + 1024 + 3),
        ] {
            assert_eq!(most(kind, data), blocks, "{kind:?} {data}");
        }
    }

    #[test]
    fn extents_go_on_up_to_their_longest() {
        let mut open = Vec::new();
        for (logical, physical, length) in
            [(0, 100, 32000), (32000, 32100, 1000), (33000, 33100, 5), (40000, 1, 5)]
        {
            extend(&mut open, Extent { logical, physical, length });
        }
        let got: Vec<_> = open.iter().map(|e| (e.logical, e.physical, e.length)).collect();
        assert_eq!(got, [(0, 100, 32768), (32768, 32868, 237), (40000, 1, 5)]);
    }
}
