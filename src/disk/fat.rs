//! A FAT32 filesystem with the files that it is to have, written once: what firmware reads.
//!
//! ```text
//! 32 sectors        parameters, what is free, both once more (sectors 6 and 7)
//! 2 tables          the next cluster of each cluster; the second one is a copy
//! clusters          directories, then files, each in one piece
//! ```
//!
//! All times are the first that the filesystem knows, the 1st of January 1980: the same files give
//! the same bytes. Names are long ones; short ones are made up beside them, except where a name is a
//! short one itself.

use super::gpt::{Place, SECTOR};
use super::raw::{low16, low32};
use super::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The least size in bytes: below 65525 clusters it is no FAT32.
pub const MIN_SIZE: u64 = 64 << 20;
/// Up to this size clusters are one sector.
const SMALL: u64 = 260 << 20;
/// Sectors before the tables.
const RESERVED: u64 = 32;
/// The cluster of the root.
const ROOT: u32 = 2;
/// The last cluster of a file.
const LAST: u32 = 0x0fff_ffff;
/// Bytes of an entry of a directory.
const ENTRY: usize = 32;
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const LABEL: u8 = 0x08;
const LONG: u8 = 0x0f;
/// The 1st of January 1980.
const DATE: u16 = 1 << 5 | 1;

/// A file that the filesystem is to have.
pub struct Item<'a> {
    /// Its path, without a slash at the beginning.
    pub path: String,
    /// Its bytes, fewer than 4 GiB.
    pub size: u32,
    /// What gives them.
    pub content: Box<dyn Read + 'a>,
}

impl Item<'_> {
    /// A file with this text.
    #[must_use]
    pub fn text(path: &str, text: String) -> Self {
        let size = u32::try_from(text.len()).unwrap_or(u32::MAX);
        Self { path: path.to_string(), size, content: Box::new(io::Cursor::new(text.into_bytes())) }
    }
}

/// What a filesystem says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Its number.
    pub id: u32,
    /// Its name, in upper case.
    pub label: [u8; 11],
}

/// Makes a filesystem of `items` at a place of `file`, which is all zeros and lies at `path`.
///
/// # Errors
/// [`Error::TooSmall`], [`Error::Io`], also where a content is shorter than is said.
pub fn write(file: &File, path: &Path, place: Place, name: Name, items: Vec<Item>) -> Result<()> {
    let shape = Shape::new(place.size);
    let plan = Plan::new(&shape, &items);
    if place.size < MIN_SIZE || u64::from(plan.next) > shape.clusters + 2 {
        let needed = u64::from(plan.next) * shape.cluster + place.size - shape.clusters * shape.cluster;
        return Err(Error::TooSmall { size: place.size, needed: needed.max(MIN_SIZE) });
    }
    let put = |at: u64, bytes: &[u8]| {
        file.write_all_at(bytes, place.offset + at).map_err(|e| Error::io("write", path, e))
    };
    for at in [0, 6] {
        put(at * SECTOR, &shape.parameters(place, name))?;
        put((at + 1) * SECTOR, &shape.free(plan.next))?;
    }
    let table = plan.table();
    put(RESERVED * SECTOR, &table)?;
    put((RESERVED + shape.table) * SECTOR, &table)?;
    for (dir, at) in &plan.dirs {
        put(shape.offset(at.first), &plan.directory(dir, name.label))?;
    }
    let mut buffer = vec![0; 1 << 20];
    for (mut item, first) in items.into_iter().zip(plan.files) {
        let (mut at, mut left) = (shape.offset(first), item.size as usize);
        while left > 0 {
            let part = left.min(buffer.len());
            let read = item.content.read_exact(&mut buffer[..part]);
            read.map_err(|e| Error::io("read", Path::new(&item.path), e))?;
            put(at, &buffer[..part])?;
            at += part as u64;
            left -= part;
        }
    }
    Ok(())
}

/// The parts of a filesystem.
struct Shape {
    /// Bytes of a cluster.
    cluster: u64,
    /// Sectors of a table.
    table: u64,
    /// Number of clusters; the first has the number 2.
    clusters: u64,
}

impl Shape {
    fn new(size: u64) -> Self {
        let cluster = if size <= SMALL { SECTOR } else { 8 * SECTOR };
        let room = size.saturating_sub(RESERVED * SECTOR);
        // Each cluster takes 4 bytes in both tables. In whole blocks of 4096, as clusters then are.
        let table = ((room / (cluster + 8) + 2) * 4).div_ceil(8 * SECTOR) * 8;
        Self { cluster, table, clusters: room.saturating_sub(2 * table * SECTOR) / cluster }
    }

    /// Where a cluster begins, in bytes.
    fn offset(&self, cluster: u32) -> u64 {
        (RESERVED + 2 * self.table) * SECTOR + u64::from(cluster.saturating_sub(ROOT)) * self.cluster
    }

    /// The boot sector.
    fn parameters(&self, place: Place, name: Name) -> Vec<u8> {
        let mut out = b"\xeb\x58\x90SHIPIMG ".to_vec();
        out.extend(low16(SECTOR).to_le_bytes());
        out.push(u8::try_from(self.cluster / SECTOR).unwrap_or(1));
        out.extend(low16(RESERVED).to_le_bytes());
        out.extend([2, 0, 0, 0, 0, 0xf8, 0, 0]); // tables; numbers of older forms, a hard disk
        out.extend([63, 0, 255, 0]); // sectors of a track, heads
        out.extend(low32(place.offset / SECTOR).to_le_bytes());
        out.extend(low32(place.size / SECTOR).to_le_bytes());
        out.extend(low32(self.table).to_le_bytes());
        out.extend([0; 4]);
        out.extend(ROOT.to_le_bytes());
        out.extend([1, 0, 6, 0]); // sectors of what is free and of copies
        out.extend([0; 12]);
        out.extend([0x80, 0, 0x29]);
        out.extend(name.id.to_le_bytes());
        out.extend(name.label);
        out.extend(b"FAT32   ");
        out.resize(510, 0);
        out.extend([0x55, 0xaa]);
        out
    }

    /// The sector that says what is free from the cluster `next` on.
    fn free(&self, next: u32) -> Vec<u8> {
        let mut out = b"RRaA".to_vec();
        out.resize(484, 0);
        out.extend(b"rrAa");
        out.extend(low32(self.clusters + 2 - u64::from(next)).to_le_bytes());
        out.extend(next.to_le_bytes());
        out.resize(510, 0);
        out.extend([0x55, 0xaa]);
        out
    }
}

/// What lies in a directory.
#[derive(Default)]
struct Dir {
    /// Names with the number of the file; none for a directory.
    names: BTreeMap<String, Option<usize>>,
    first: u32,
}

/// Which clusters belong to what.
struct Plan {
    /// By path; the root is the empty one.
    dirs: BTreeMap<String, Dir>,
    /// The first cluster of each file, 0 where it is empty.
    files: Vec<u32>,
    sizes: Vec<u32>,
    /// The first and the last cluster of each piece.
    pieces: Vec<(u32, u32)>,
    /// The first cluster that is free.
    next: u32,
}

impl Plan {
    fn new(shape: &Shape, items: &[Item]) -> Self {
        let mut dirs = BTreeMap::from([(String::new(), Dir::default())]);
        for (number, item) in items.iter().enumerate() {
            let mut entry = Some(number);
            let mut path = item.path.as_str();
            while !path.is_empty() {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                let dir: &mut Dir = dirs.entry(parent.to_string()).or_default();
                dir.names.insert(name.to_string(), entry.take());
                path = parent;
            }
        }
        let mut plan = Self { dirs, files: Vec::new(), sizes: Vec::new(), pieces: Vec::new(), next: ROOT };
        let mut take = |bytes: u64| {
            let first = plan.next;
            let count = u32::try_from(bytes.div_ceil(shape.cluster)).unwrap_or(u32::MAX);
            plan.next = plan.next.saturating_add(count);
            plan.pieces.extend((count > 0).then(|| (first, plan.next - 1)));
            if count > 0 { first } else { 0 }
        };
        for dir in plan.dirs.values_mut() {
            // The label or `.` and `..`; each name with its short one.
            let entries = 2 + dir.names.keys().map(|name| 1 + long_entries(name)).sum::<usize>();
            dir.first = take((entries * ENTRY) as u64);
        }
        for item in items {
            plan.files.push(take(u64::from(item.size)));
            plan.sizes.push(item.size);
        }
        plan
    }

    /// The used part of a table.
    fn table(&self) -> Vec<u8> {
        let mut out = [0x0fff_fff8u32, LAST].map(u32::to_le_bytes).concat();
        for (first, last) in &self.pieces {
            out.extend((*first..*last).flat_map(|cluster| (cluster + 1).to_le_bytes()));
            out.extend(LAST.to_le_bytes());
        }
        out
    }

    /// The content of a directory.
    fn directory(&self, path: &str, label: [u8; 11]) -> Vec<u8> {
        let dir = &self.dirs[path];
        let mut out = Vec::new();
        if path.is_empty() {
            out.extend(entry(label, LABEL, 0, 0));
        } else {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            // The root is 0 here.
            let parent = if parent.is_empty() { 0 } else { self.dirs[parent].first };
            out.extend(entry(*b".          ", DIRECTORY, dir.first, 0));
            out.extend(entry(*b"..         ", DIRECTORY, parent, 0));
        }
        let mut shorts: BTreeSet<[u8; 11]> = dir.names.keys().filter_map(|n| own_short(n)).collect();
        for (name, file) in &dir.names {
            let short = own_short(name).unwrap_or_else(|| {
                let free = (1..=u32::MAX).map(|n| made_short(name, n)).find(|s| !shorts.contains(s));
                free.unwrap_or([b'_'; 11])
            });
            shorts.insert(short);
            out.extend(long(name, short));
            let full = || if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            out.extend(match file {
                Some(number) => entry(short, ARCHIVE, self.files[*number], self.sizes[*number]),
                None => entry(short, DIRECTORY, self.dirs[&full()].first, 0),
            });
        }
        out
    }
}

fn entry(name: [u8; 11], attributes: u8, cluster: u32, size: u32) -> [u8; ENTRY] {
    let [date_low, date_high] = DATE.to_le_bytes();
    let [c0, c1, c2, c3] = cluster.to_le_bytes();
    let mut out = [0; ENTRY];
    out[..11].copy_from_slice(&name);
    out[11] = attributes;
    out[16..22].copy_from_slice(&[date_low, date_high, date_low, date_high, c2, c3]);
    out[24..28].copy_from_slice(&[date_low, date_high, c0, c1]);
    out[28..].copy_from_slice(&size.to_le_bytes());
    out
}

/// How many entries a long name takes.
fn long_entries(name: &str) -> usize {
    if own_short(name).is_some() { 0 } else { name.encode_utf16().count().div_ceil(13) }
}

/// The entries of a long name, the last part first.
fn long(name: &str, short: [u8; 11]) -> Vec<u8> {
    if own_short(name).is_some() {
        return Vec::new();
    }
    let sum = short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let units: Vec<u16> = name.encode_utf16().collect();
    let count = units.len().div_ceil(13);
    let mut out = Vec::new();
    for (number, part) in units.chunks(13).enumerate().rev() {
        let last = if number + 1 == count { 0x40 } else { 0 };
        let padded = part.iter().copied().chain([0]).chain(std::iter::repeat(0xffff)).take(13);
        let bytes: Vec<u8> = padded.flat_map(u16::to_le_bytes).collect();
        out.extend([last | u8::try_from(number + 1).unwrap_or(0)]);
        out.extend(&bytes[..10]);
        out.extend([LONG, 0, sum]);
        out.extend(&bytes[10..22]);
        out.extend([0; 2]);
        out.extend(&bytes[22..]);
    }
    out
}

/// Whether a short name may have the character.
const fn fits(c: char) -> bool {
    matches!(c, 'A'..='Z' | '0'..='9' | '_' | '-' | '~')
}

/// The name as a short one, where it is one.
fn own_short(name: &str) -> Option<[u8; 11]> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let is_one = (1..=8).contains(&base.len())
        && extension.len() <= 3
        && base.chars().chain(extension.chars()).all(fits)
        && !name.ends_with('.');
    is_one.then(|| padded(base, extension))
}

/// The short name with a number.
fn made_short(name: &str, number: u32) -> [u8; 11] {
    let upper = name.to_ascii_uppercase();
    let (base, extension) = upper.rsplit_once('.').unwrap_or((&upper, ""));
    let clean = |text: &str, most| -> String {
        let chars = text.chars().filter(|c| *c != '.' && *c != ' ').take(most);
        chars.map(|c| if fits(c) { c } else { '_' }).collect()
    };
    let number = format!("~{number}");
    padded(&(clean(base, 8 - number.len().min(7)) + &number), &clean(extension, 3))
}

fn padded(base: &str, extension: &str) -> [u8; 11] {
    let mut out = [b' '; 11];
    out[..base.len()].copy_from_slice(base.as_bytes());
    out[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names() {
        for (name, own, made) in [
            ("BOOTX64.EFI", Some(b"BOOTX64 EFI"), b"BOOTX6~1EFI"),
            ("EFI", Some(b"EFI        "), b"EFI~1      "),
            ("loader", None, b"LOADER~1   "),
            ("loader.conf", None, b"LOADER~1CON"),
            ("a.b.c", None, b"AB~1    C  "),
            ("6.1.0-28-amd64", None, b"61~1    0-2"),
            ("LONGNAMES", None, b"LONGNA~1   "),
            ("A.LONG", None, b"A~1     LON"),
            ("A+", None, b"A_~1       "),
            ("A.", None, b"A~1        "),
            (".A", None, b"~1      A  "),
            ("\u{e9}", None, b"_~1        "),
        ] {
            assert_eq!(own_short(name), own.copied(), "{name}");
            assert_eq!(made_short(name, 1), *made, "{name}");
        }
        assert_eq!(made_short("LONGNAMES", 1234), *b"LON~1234   ");
    }

    #[test]
    fn long_names_are_in_parts() {
        let entries = long("systemd-bootx64.efi", *b"SYSTEM~1EFI");
        assert_eq!(entries.len(), 64);
        assert_eq!((entries[0], entries[11], entries[32]), (0x42, LONG, 1));
        assert_eq!(entries[33..43], *b"s\0y\0s\0t\0e\0");
        // The end, then what pads.
        assert_eq!(entries[14..26], [b'i', 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(long_entries("systemd-bootx64.efi"), 2);
        assert_eq!(long("thirteen.unit", [b' '; 11]).len(), 32);
        assert!(long("EFI", *b"EFI        ").is_empty());
    }

    #[test]
    fn shapes_are_fat32() {
        for (size, cluster) in [(MIN_SIZE, 512), (SMALL, 512), (SMALL + (1 << 20), 4096), (8 << 30, 4096)] {
            let shape = Shape::new(size);
            assert_eq!(shape.cluster, cluster);
            assert!(shape.clusters >= 65525, "{size}: {}", shape.clusters);
            assert!((shape.clusters + 2) * 4 <= shape.table * SECTOR, "{size}");
            let end = shape.offset(ROOT) + shape.clusters * cluster;
            assert!(end <= size && size - end < cluster + 16 * 4096, "{size}: {end}");
            assert_eq!(shape.offset(ROOT) % 4096, 0);
        }
    }
}
