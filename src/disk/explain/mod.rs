//! What lies at a byte of a filesystem image or of a disk: read by small readers, without a mount.
//!
//! They are for images of any maker, and for damaged ones: whatever cannot be read is not explained,
//! and nothing is believed that would cost more than the image has. Of squashfs, whose metadata is
//! compressed, only the part is told; of btrfs nothing.

mod erofs;
mod ext;
mod gpt;

use super::gpt::Place;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Inodes that are looked at, at most.
const MAX_INODES: u64 = 1 << 24;
/// Bytes of a directory that are read, at most.
const MAX_DIRECTORY: u64 = 64 << 20;

/// What is at a byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spot {
    /// The partition of a disk: its number, and its name.
    pub partition: Option<(usize, String)>,
    /// Which part of the filesystem, in words.
    pub what: String,
    /// The number of the inode that it belongs to.
    pub inode: Option<u64>,
    /// The first path that was found of that, from the root of the filesystem.
    pub path: Option<String>,
}

impl Spot {
    fn of(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((number, name)) = &self.partition {
            write!(f, "partition {number} ({name}), ")?;
        }
        f.write_str(&self.what)?;
        match (&self.path, self.inode) {
            (Some(path), Some(inode)) => write!(f, " of {path} (inode {inode})"),
            (None, Some(inode)) => write!(f, " of inode {inode}"),
            _ => Ok(()),
        }
    }
}

/// Tells what lies at byte `offset` of `file`; none where it is no image that is known here.
#[must_use]
pub fn at(file: &File, offset: u64) -> Option<Spot> {
    let size = file.metadata().ok()?.len();
    let image = Image { file, base: 0, size };
    filesystem(image, offset).or_else(|| gpt::at(image, offset))
}

/// Where the partitions of the disk in `file` lie; none where it has no partition table.
#[must_use]
pub fn partitions(file: &File) -> Option<Vec<Place>> {
    let image = Image { file, base: 0, size: file.metadata().ok()?.len() };
    Some(gpt::partitions(image)?.into_iter().map(|(.., place)| place).collect())
}

fn filesystem(image: Image, offset: u64) -> Option<Spot> {
    ext::at(image, offset).or_else(|| erofs::at(image, offset)).or_else(|| squashfs(image, offset))
}

/// By `struct squashfs_super_block`: content, then one table after the other.
fn squashfs(image: Image, offset: u64) -> Option<Spot> {
    let raw = image.bytes(0, 96)?;
    if !raw.starts_with(b"hsqs") {
        return None;
    }
    let tables = [
        (88, "table of inode numbers"),
        (80, "table of fragments"),
        (72, "directories"),
        (64, "inodes"),
        (56, "table of attributes"),
        (48, "table of owners"),
    ];
    let mut starts = vec![(0, "superblock"), (96, "content")];
    starts.extend(tables.into_iter().map(|(at, what)| (u64_at(&raw, at).unwrap_or(u64::MAX), what)));
    starts.push((u64_at(&raw, 40)?, "end"));
    starts.sort_by_key(|(start, _)| *start);
    let found = starts.iter().rfind(|(start, _)| *start <= offset)?;
    Some(Spot::of(found.1))
}

/// A part of a file.
#[derive(Clone, Copy)]
struct Image<'a> {
    file: &'a File,
    base: u64,
    size: u64,
}

impl Image<'_> {
    /// These bytes, where there are as many.
    fn bytes(&self, at: u64, len: u64) -> Option<Vec<u8>> {
        if at.checked_add(len)? > self.size {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        self.file.read_exact_at(&mut bytes, self.base.checked_add(at)?).ok()?;
        Some(bytes)
    }
}

fn u16_at(raw: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*raw.get(at..)?.first_chunk()?))
}

fn u32_at(raw: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*raw.get(at..)?.first_chunk()?))
}

fn u64_at(raw: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*raw.get(at..)?.first_chunk()?))
}

/// A number of which the upper half lies elsewhere.
fn split_at(raw: &[u8], low: usize, high: Option<usize>) -> Option<u64> {
    let high = high.map_or(Some(0), |at| u32_at(raw, at))?;
    Some(u64::from(u32_at(raw, low)?) | u64::from(high) << 32)
}

/// What the content of an inode of mode `mode` is called.
const fn content(mode: u16) -> &'static str {
    match mode & 0o170_000 {
        0o040_000 => "directory",
        0o120_000 => "target of the link",
        _ => "content",
    }
}

/// A path and one more name.
fn below(path: &str, name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    format!("{}/{name}", path.trim_end_matches('/'))
}

#[cfg(test)]
mod tests;
