//! Numbers as they are on the disk, and sorts of files.

use crate::tree::Kind;

/// Puts `bytes` at `at`.
pub(super) fn set(to: &mut [u8], at: usize, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The low 16 bits.
#[allow(clippy::cast_possible_truncation, reason = "that is what it is for")]
pub(super) const fn low16(n: u64) -> u16 {
    n as u16
}

/// The low 32 bits.
#[allow(clippy::cast_possible_truncation, reason = "that is what it is for")]
pub(super) const fn low32(n: u64) -> u32 {
    n as u32
}

/// A number of what is in memory.
#[allow(clippy::cast_possible_truncation, reason = "of blocks and bytes that are in memory")]
pub(super) const fn count(n: u64) -> usize {
    n as usize
}

/// The sort of a file in `st_mode`, and in a directory of ext4 or EROFS; of another name for a file,
/// those of a file.
pub(super) const fn sort(kind: &Kind) -> (u32, u8) {
    match kind {
        Kind::File | Kind::Link(_) => (0o100_000, 1),
        Kind::Directory => (0o040_000, 2),
        Kind::Char(..) => (0o020_000, 3),
        Kind::Block(..) => (0o060_000, 4),
        Kind::Fifo => (0o010_000, 5),
        Kind::Socket => (0o140_000, 6),
        Kind::Symlink(_) => (0o120_000, 7),
    }
}

/// The number of a device as Linux has it since 2.6, major numbers up to 4095 and minor ones up to
/// 1048575.
pub(super) const fn device(major: u32, minor: u32) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}
