//! Directories: names in blocks, and an index of their hashes where one block does not hold them.
//!
//! The names of an indexed directory lie in the order of their hashes; block 0 names, for each
//! block of names, the first hash there, or for large ones does so through blocks in between
//! (`htree`, of two levels at most). Older readers see entries that are not in use, with names behind them.

use super::inode::Sums;
use super::{BLOCK, BYTES};
use crate::disk::raw::{low16, low32, set};

/// The end of a block, an entry without a name that has the block's sum.
const TAIL: usize = 12;
/// Names of blocks in block 0, and in one between.
const IN_ROOT: usize = (BYTES - 0x20) / 8 - 1;
const IN_NODE: usize = (BYTES - 8) / 8 - 1;

/// A name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry<'a> {
    /// The hash of the name and its second half; 0 where there is no index.
    hash: (u32, u32),
    name: &'a [u8],
    inode: u32,
    /// As `d_type` has it in ext4.
    sort: u8,
}

impl<'a> Entry<'a> {
    pub(super) const fn new(name: &'a [u8], inode: u32, sort: u8) -> Self {
        Self { hash: (0, 0), name, inode, sort }
    }

    const fn size(&self) -> usize {
        8 + self.name.len().next_multiple_of(4)
    }
}

/// The names of a directory, laid out.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    entries: Vec<Entry<'a>>,
    /// How many of them are in each block of names; more than one block are indexed.
    cuts: Vec<usize>,
    indexed: bool,
}

impl<'a> Names<'a> {
    /// Lays out `entries`, `.` and `..` not among them; with an index where `seed` is given, more
    /// than a block is needed, and an index holds them.
    pub(super) fn new(entries: Vec<Entry<'a>>, seed: Option<&[u8; 16]>, tail: bool) -> Self {
        let space = if tail { BYTES - TAIL } else { BYTES };
        let linear = cuts(&entries, space, 24);
        let mut new = Self { entries, cuts: linear, indexed: false };
        if let Some(seed) = seed.filter(|_| new.cuts.len() > 1) {
            let mut hashed = new.entries.clone();
            for entry in &mut hashed {
                entry.hash = hash(seed, entry.name);
            }
            hashed.sort_unstable();
            let cuts = cuts(&hashed, space, 0);
            if cuts.len() <= IN_ROOT * IN_NODE {
                new = Self { entries: hashed, cuts, indexed: true };
            }
        }
        new
    }

    /// Whether there is an index.
    pub(super) const fn is_indexed(&self) -> bool {
        self.indexed
    }

    /// Blocks in between that an index has.
    fn nodes(&self) -> usize {
        if self.cuts.len() > IN_ROOT { self.cuts.len().div_ceil(IN_NODE) } else { 0 }
    }

    /// All blocks.
    pub(super) fn blocks(&self) -> usize {
        if self.indexed { 1 + self.cuts.len() + self.nodes() } else { self.cuts.len() }
    }

    /// Gives each block in order to `put`; `own` is the directory, `parent` the one that it is in.
    pub(super) fn write<E>(
        &self,
        (own, parent): (u32, u32),
        sums: Sums,
        mut put: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let sums = sums.inode(own);
        let dots = [Entry::new(b".", own, 2), Entry::new(b"..", parent, 2)];
        if self.indexed {
            self.index(&dots, sums, &mut put)?;
        }
        let mut at = 0;
        for (i, count) in self.cuts.iter().enumerate() {
            let entries = &self.entries[at..at + count];
            let dots = if i == 0 && !self.indexed { &dots[..] } else { &[] };
            put(&names(dots.iter().chain(entries), sums))?;
            at += count;
        }
        Ok(())
    }

    /// Block 0 and those between it and the names.
    fn index<E>(
        &self,
        dots: &[Entry; 2],
        sums: Sums,
        put: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let nodes = self.nodes();
        let mut below: Vec<(u32, usize)> = Vec::with_capacity(self.cuts.len());
        let mut at = 0;
        for (i, count) in self.cuts.iter().enumerate() {
            let first = self.entries[at].hash.0;
            // The low bit: the block before ends with the same hash.
            let goes_on = at > 0 && self.entries[at - 1].hash.0 == first;
            below.push((first | u32::from(goes_on), 1 + nodes + i));
            at += count;
        }
        let top: Vec<_> = match nodes {
            0 => below.clone(),
            _ => below.chunks(IN_NODE).enumerate().map(|(i, part)| (part[0].0, 1 + i)).collect(),
        };
        let mut raw = [0; BYTES];
        entry(&mut raw, &dots[0], 12);
        entry(&mut raw[12..], &dots[1], BYTES - 12);
        // Half MD4, eight bytes of this.
        set(&mut raw, 0x1c, [1, 8, u8::from(nodes > 0), 0]);
        references(&mut raw, 0x20, IN_ROOT, &top, sums);
        put(&raw)?;
        for part in below.chunks(IN_NODE).take(nodes) {
            let mut raw = [0; BYTES];
            set(&mut raw, 4, low16(BLOCK).to_le_bytes());
            references(&mut raw, 8, IN_NODE, part, sums);
            put(&raw)?;
        }
        Ok(())
    }
}

/// How many entries go into each block of `space` bytes, of which `taken` are not free in the first.
fn cuts(entries: &[Entry], space: usize, taken: usize) -> Vec<usize> {
    let (mut all, mut count, mut used) = (Vec::new(), 0, taken);
    for entry in entries {
        if used + entry.size() > space {
            all.push(count);
            (count, used) = (0, 0);
        }
        count += 1;
        used += entry.size();
    }
    all.push(count);
    all
}

/// A block of names, or an empty one.
pub(super) fn names<'a>(entries: impl Iterator<Item = &'a Entry<'a>>, sums: Sums) -> [u8; BYTES] {
    let mut raw = [0; BYTES];
    let end = if sums.are() { BYTES - TAIL } else { BYTES };
    let (mut at, mut last) = (0, 0);
    for one in entries {
        entry(&mut raw[at..], one, one.size());
        (last, at) = (at, at + one.size());
    }
    // The last one has all that is left.
    set(&mut raw, last + 4, low16((end - last) as u64).to_le_bytes());
    if sums.are() {
        set(&mut raw, end + 4, low16(TAIL as u64).to_le_bytes());
        raw[end + 7] = 0xde;
        let sum = sums.sum(&[&raw[..end]]);
        set(&mut raw, end + 8, sum.to_le_bytes());
    }
    raw
}

fn entry(raw: &mut [u8], entry: &Entry, size: usize) {
    set(raw, 0, entry.inode.to_le_bytes());
    set(raw, 4, low16(size as u64).to_le_bytes());
    raw[6] = low16(entry.name.len() as u64).to_le_bytes()[0];
    raw[7] = entry.sort;
    set(raw, 8, entry.name);
}

/// Writes hashes and blocks at `at`; the first hash is that of all before the second, and has the
/// numbers of entries in its place.
fn references(raw: &mut [u8], at: usize, most: usize, all: &[(u32, usize)], sums: Sums) {
    for (i, (hash, block)) in all.iter().enumerate() {
        set(raw, at + 8 * i, hash.to_le_bytes());
        set(raw, at + 8 * i + 4, low32(*block as u64).to_le_bytes());
    }
    // Without sums there is room for one more; nobody minds.
    set(raw, at, low16(most as u64).to_le_bytes());
    set(raw, at + 2, low16(all.len() as u64).to_le_bytes());
    let sum = sums.sum(&[&raw[..at + 8 * all.len()], &[0; 8]]);
    set(raw, BYTES - 4, sum.to_le_bytes());
}

/// The hash of a name, half of MD4 as the kernel has it, with signed characters.
fn hash(seed: &[u8; 16], name: &[u8]) -> (u32, u32) {
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    if seed != &[0; 16] {
        let (words, _) = seed.as_chunks::<4>();
        state = [0, 1, 2, 3].map(|i| u32::from_le_bytes(words[i]));
    }
    for part in name.chunks(32) {
        half_md4(&mut state, &words(part));
    }
    let hash = state[1] & !1;
    // That one marks the end of a directory.
    (if hash == 0xffff_fffe { 0xffff_fffc } else { hash }, state[2])
}

/// Up to 32 bytes as words, filled up with their number.
#[allow(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "signed characters")]
fn words(part: &[u8]) -> [u32; 8] {
    let pad = low32(part.len() as u64) * 0x0101_0101;
    let mut all = [pad; 8];
    for (word, bytes) in all.iter_mut().zip(part.chunks(4)) {
        *word = bytes.iter().fold(pad, |word, b| (i32::from(*b as i8) as u32).wrapping_add(word << 8));
    }
    all
}

fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    const ROUNDS: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (|x, y, z| z ^ (x & (y ^ z)), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (|x, y, z| (x & y).wrapping_add((x ^ y) & z), 0x5a82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (|x, y, z| x ^ y ^ z, 0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let mut v = *state;
    for (mix, constant, order, turns) in ROUNDS {
        for (i, word) in order.into_iter().enumerate() {
            let at = [0, 3, 2, 1][i % 4];
            let mixed = mix(v[(at + 1) % 4], v[(at + 2) % 4], v[(at + 3) % 4]);
            let sum = v[at].wrapping_add(mixed).wrapping_add(input[word]).wrapping_add(constant);
            v[at] = sum.rotate_left(turns[i % 4]);
        }
    }
    for (s, v) in state.iter_mut().zip(v) {
        *s = s.wrapping_add(v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_debugfs() {
        // debugfs -R "dx_hash -h half_md4 -s deadbeef-dead-4ead-8ead-deadbeef0000 NAME"
        let seed = [0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0x4e, 0xad, 0x8e, 0xad, 0xde, 0xad, 0xbe, 0xef, 0, 0];
        for (name, want) in [
            ("a", (0x5538_916c, 0x34a2_9fa3)),
            ("hello.txt", (0x093b_83d6, 0x33e0_ca61)),
            ("entry_00207_pad", (0x0066_3894, 0xfa7c_d671)),
        ] {
            assert_eq!(hash(&seed, name.as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn lays_out() {
        let names: Vec<Vec<u8>> = (0..60_000).map(|i| format!("{i:040}").into_bytes()).collect();
        let new = |n: usize, seed: Option<&[u8; 16]>| {
            Names::new(names[..n].iter().map(|n| Entry::new(n, 12, 1)).collect(), seed, true)
        };
        // 48 bytes each, 4084 in a block, 24 for . and ..
        for (count, linear, indexed) in
            [(0, 1, 1), (84, 1, 1), (85, 2, 2), (86, 2, 3), (60_000, 706, 1 + 706 + 2)]
        {
            assert_eq!(new(count, None).blocks(), linear, "{count}");
            assert_eq!(new(count, Some(&[1; 16])).blocks(), indexed, "{count}");
        }
    }
}
