//! Partition tables: where partitions lie on a disk, and the table that says so (UEFI
//! specification, chapter 5).
//!
//! ```text
//! sector 0    a table of the old form with one partition over all, which keeps old programs away
//! sector 1    header, then 32 sectors of entries
//! 1 MiB …     partitions, each beginning at a whole MiB
//! the end     entries and header once more
//! ```
//!
//! Nothing is random: who makes a disk gives the identifiers.

use super::{Error, Result};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Where partitions begin and end: multiples of this many bytes.
pub const ALIGN: u64 = 1 << 20;
/// Entries of a table.
const ENTRIES: u32 = 128;
/// Bytes of an entry.
const ENTRY: u32 = 128;
/// Sectors of all entries.
const TABLE: u64 = (ENTRIES * ENTRY) as u64 / SECTOR;
/// UTF-16 units of a partition's name.
const NAME: usize = 36;

/// An identifier of a disk, a partition or a sort of partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Guid(u128);

impl Guid {
    /// The EFI system partition.
    pub const ESP: Self = Self(0xc12a_7328_f81f_11d2_ba4b_00a0_c93e_c93b);

    /// The one with these digits, hyphens left out.
    #[must_use]
    pub const fn new(digits: u128) -> Self {
        Self(digits)
    }

    /// Its digits as a number.
    #[must_use]
    pub const fn digits(self) -> u128 {
        self.0
    }

    /// As it is on disk: the first three groups have their bytes reversed.
    fn bytes(self) -> [u8; 16] {
        let mut bytes = self.0.to_be_bytes();
        bytes[..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        bytes
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let groups = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        f.write_str(&groups.join("-"))
    }
}

/// A partition that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition<'a> {
    /// What sort it is.
    pub kind: Guid,
    /// Which one it is.
    pub id: Guid,
    /// Its name, of which 36 characters are kept.
    pub name: &'a str,
    /// Its size in bytes, of which whole MiB are made.
    pub size: u64,
}

/// Where a partition lies, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its first byte.
    pub offset: u64,
    /// How many there are.
    pub size: u64,
}

/// A disk with its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk<'a> {
    id: Guid,
    partitions: Vec<(Partition<'a>, Place)>,
}

impl<'a> Disk<'a> {
    /// A disk with up to 128 partitions, one after the other.
    #[must_use]
    pub fn new(id: Guid, partitions: &[Partition<'a>]) -> Self {
        let mut end = ALIGN;
        let place = |partition: &Partition<'a>| {
            let place = Place { offset: end, size: partition.size.max(1).next_multiple_of(ALIGN) };
            end += place.size;
            (*partition, place)
        };
        Self { id, partitions: partitions.iter().take(ENTRIES as usize).map(place).collect() }
    }

    /// Where the partitions lie, in their order.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.partitions.iter().map(|(_, place)| *place)
    }

    /// Bytes of the whole disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.places().last().map_or(ALIGN, |p| p.offset + p.size) + ALIGN
    }

    /// Writes the table at the beginning and at the end of `file`, which lies at `path`; its size is
    /// to be [`Disk::size`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, file: &File, path: &Path) -> Result<()> {
        let put = |sector: u64, bytes: &[u8]| {
            let done = file.write_all_at(bytes, sector * SECTOR);
            done.map_err(|e| Error::io("write", path, e))
        };
        let last = self.size() / SECTOR - 1;
        let entries = self.entries();
        put(0, &self.protection())?;
        put(1, &self.header(1, last, 2, &entries))?;
        put(2, &entries)?;
        put(last - TABLE, &entries)?;
        put(last, &self.header(last, 1, last - TABLE, &entries))
    }

    fn protection(&self) -> [u8; 512] {
        let mut sector = [0; 512];
        let size = u32::try_from(self.size() / SECTOR - 1).unwrap_or(u32::MAX);
        // From cylinder 0, head 0, sector 2 to where such numbers end; of the sort 0xee.
        sector[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
        sector[454..458].copy_from_slice(&1u32.to_le_bytes());
        sector[458..462].copy_from_slice(&size.to_le_bytes());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    fn entries(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (partition, place) in &self.partitions {
            let end = out.len() + ENTRY as usize;
            out.extend(partition.kind.bytes());
            out.extend(partition.id.bytes());
            out.extend((place.offset / SECTOR).to_le_bytes());
            out.extend(((place.offset + place.size) / SECTOR - 1).to_le_bytes());
            out.extend([0; 8]);
            out.extend(partition.name.encode_utf16().take(NAME).flat_map(u16::to_le_bytes));
            out.resize(end, 0);
        }
        out.resize((ENTRIES * ENTRY) as usize, 0);
        out
    }

    /// The header at the sector `own`, of which there is another one at `other`.
    fn header(&self, own: u64, other: u64, table: u64, entries: &[u8]) -> Vec<u8> {
        let last = self.size() / SECTOR - 1;
        let mut out = b"EFI PART\0\0\x01\0".to_vec();
        out.extend(92u32.to_le_bytes());
        out.extend([0; 8]); // the checksum; reserved
        for sector in [own, other, 2 + TABLE, last - TABLE - 1] {
            out.extend(sector.to_le_bytes());
        }
        out.extend(self.id.bytes());
        out.extend(table.to_le_bytes());
        for number in [ENTRIES, ENTRY, crc32(entries)] {
            out.extend(number.to_le_bytes());
        }
        let sum = crc32(&out);
        out[16..20].copy_from_slice(&sum.to_le_bytes());
        out
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        assert_eq!(Guid::ESP.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        let want =
            [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
        assert_eq!(Guid::ESP.bytes(), want);
        assert_eq!(Guid::new(Guid::ESP.digits()), Guid::ESP);
    }

    #[test]
    fn partitions_lie_at_whole_mebibytes() {
        let partition = |size| Partition { kind: Guid::ESP, id: Guid::new(1), name: "p", size };
        let disk = Disk::new(Guid::new(2), &[partition(1), partition(3 << 20), partition((1 << 20) + 1)]);
        let places: Vec<_> = disk.places().map(|p| (p.offset >> 20, p.size >> 20)).collect();
        assert_eq!(places, [(1, 1), (2, 3), (5, 2)]);
        assert_eq!(disk.size(), 8 << 20);
        assert_eq!(Disk::new(Guid::new(2), &[]).size(), 2 << 20);
        let name = "a".repeat(35) + "bc";
        let disk = Disk::new(Guid::new(2), &[Partition { name: &name, ..partition(1) }]);
        let entries = disk.entries();
        assert_eq!(entries.len(), 128 * 128);
        assert_eq!((&entries[126..128], entries[128]), (&b"b\0"[..], 0));
    }
}
