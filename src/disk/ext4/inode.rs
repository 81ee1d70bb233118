//! Inodes, 256 bytes each, and the sums of what belongs to them.

use crate::disk::raw::{self, low16, low32, set};
use crate::disk::sum::crc32c;
use crate::tree::Time;

/// The first inode that is nobody's by its number, `lost+found`.
pub(super) const FIRST: u32 = 11;
pub(super) const ROOT: u32 = 2;
pub(super) const RESIZE: u32 = 7;
pub(super) const JOURNAL: u32 = 8;

/// The file's blocks are in extents.
pub(super) const EXTENTS: u32 = 0x8_0000;
/// The directory has an index of hashes.
pub(super) const INDEXED: u32 = 0x1000;

/// Bytes of an inode for attributes: what is behind its known fields.
pub(super) const INLINE: usize = 256 - 128 - EXTRA as usize;
/// Bytes of known fields behind the first 128.
const EXTRA: u16 = 32;

/// The sums of a filesystem, where it has them: all start with that of its UUID.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums(Option<u32>);

impl Sums {
    pub(super) fn new(uuid: Option<&[u8; 16]>) -> Self {
        Self(uuid.map(|uuid| crc32c(!0, uuid)))
    }

    /// Whether there are any.
    pub(super) const fn are(self) -> bool {
        self.0.is_some()
    }

    /// Those of what belongs to the inode or the group `number`.
    pub(super) fn of(self, number: u32) -> Self {
        Self(self.0.map(|sum| crc32c(sum, &number.to_le_bytes())))
    }

    /// The sum of `parts`; 0 where there are none.
    pub(super) fn sum(self, parts: &[&[u8]]) -> u32 {
        self.0.map_or(0, |start| parts.iter().fold(start, |sum, part| crc32c(sum, part)))
    }

    /// Those of the inode `number`, whose generation is 0.
    pub(super) fn inode(self, number: u32) -> Self {
        self.of(number).of(0)
    }
}

/// What an inode says of its file.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    /// Type and permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Names.
    pub links: u32,
    /// Blocks that it takes, of data, of maps, of attributes.
    pub blocks: u64,
    pub flags: u32,
    /// The map of its blocks, a short symbolic link, or the number of a device.
    pub map: [u8; 60],
    pub time: Time,
    /// The block of attributes.
    pub attributes: u64,
    /// Attributes in the inode.
    pub inline: Vec<u8>,
}

impl Inode {
    pub(super) const fn new(mode: u32, time: Time) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            links: 0,
            blocks: 0,
            flags: 0,
            map: [0; 60],
            time,
            attributes: 0,
            inline: Vec::new(),
        }
    }

    /// Its bytes as the inode `number`.
    pub(super) fn encode(&self, number: u32, sums: Sums) -> [u8; 256] {
        let mut raw = [0; 256];
        let (seconds, extra) = time(self.time);
        let sectors = self.blocks * 8;
        set(&mut raw, 0x00, low16(self.mode.into()).to_le_bytes());
        set(&mut raw, 0x02, low16(self.uid.into()).to_le_bytes());
        set(&mut raw, 0x04, low32(self.size).to_le_bytes());
        for at in [0x08, 0x0c, 0x10, 0x90] {
            set(&mut raw, at, seconds);
        }
        for at in [0x84, 0x88, 0x8c, 0x94] {
            set(&mut raw, at, extra);
        }
        set(&mut raw, 0x18, low16(self.gid.into()).to_le_bytes());
        set(&mut raw, 0x1a, low16(self.links.into()).to_le_bytes());
        set(&mut raw, 0x1c, low32(sectors).to_le_bytes());
        set(&mut raw, 0x20, self.flags.to_le_bytes());
        set(&mut raw, 0x28, self.map);
        set(&mut raw, 0x68, low32(self.attributes).to_le_bytes());
        set(&mut raw, 0x6c, low32(self.size >> 32).to_le_bytes());
        set(&mut raw, 0x74, low16(sectors >> 32).to_le_bytes());
        set(&mut raw, 0x78, low16((self.uid >> 16).into()).to_le_bytes());
        set(&mut raw, 0x7a, low16((self.gid >> 16).into()).to_le_bytes());
        set(&mut raw, 0x80, EXTRA.to_le_bytes());
        set(&mut raw, 256 - INLINE, &self.inline);
        if sums.are() {
            let sum = sums.inode(number).sum(&[&raw]);
            set(&mut raw, 0x7c, low16(sum.into()).to_le_bytes());
            set(&mut raw, 0x82, low16((sum >> 16).into()).to_le_bytes());
        }
        raw
    }
}

/// Seconds, and nanoseconds with two more bits of seconds: 1901 to 2446.
fn time(time: Time) -> ([u8; 4], [u8; 4]) {
    let seconds = time.seconds.clamp(-(1 << 31), (1 << 34) - (1 << 31) - 1);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the low half, two's complement"
    )]
    let low = seconds as u32;
    let epoch = low32(((seconds + (1 << 31)) >> 32).unsigned_abs()) & 3;
    (low.to_le_bytes(), (time.nanos << 2 | epoch).to_le_bytes())
}

/// The map of a device's inode: its number, in the old form where that holds it.
pub(super) fn device(major: u32, minor: u32) -> [u8; 60] {
    let mut map = [0; 60];
    if major < 256 && minor < 256 {
        set(&mut map, 0, (major << 8 | minor).to_le_bytes());
    } else {
        set(&mut map, 4, raw::device(major, minor).to_le_bytes());
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, nanos, low, extra) in [
            (0, 0, 0, 0),
            (-1, 5, u32::MAX, 5 << 2),
            (1 << 31, 999_999_999, 1 << 31, 999_999_999 << 2 | 1),
            (4_294_967_296, 0, 0, 1),
            (i64::MAX, 0, 0x7fff_ffff, 3),
            (i64::MIN, 0, 1 << 31, 0),
        ] {
            let got = time(Time { seconds, nanos });
            assert_eq!(got, (u32::to_le_bytes(low), u32::to_le_bytes(extra)), "{seconds}");
        }
    }

    #[test]
    fn devices() {
        assert_eq!(device(8, 1)[..8], [1, 8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(device(259, 300)[..8], [0, 0, 0, 0, 0x2c, 3, 0x11, 0]);
    }
}
