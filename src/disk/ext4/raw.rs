//! Numbers as they are on the disk.

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
