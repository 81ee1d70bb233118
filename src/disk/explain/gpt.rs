//! Disks with a partition table (UEFI specification, chapter 5).

use super::{Image, Spot, filesystem, u16_at, u32_at, u64_at};
use crate::disk::gpt::{Place, SECTOR};

/// Sectors of one copy of the table with 128 entries, and its header.
const TABLE: u64 = 33;

pub(super) fn at(image: Image, offset: u64) -> Option<Spot> {
    for (number, name, Place { offset: base, size }) in partitions(image)? {
        if (base..base + size).contains(&offset) {
            let part = Image { base, size, ..image };
            let spot = filesystem(part, offset - base).unwrap_or_else(|| Spot::of("filesystem"));
            return Some(Spot { partition: Some((number, name)), ..spot });
        }
    }
    let is_table = offset < (TABLE + 1) * SECTOR || offset + TABLE * SECTOR >= image.size;
    Some(Spot::of(if is_table { "partition table" } else { "space between partitions" }))
}

/// The partitions of a disk: their numbers, names and places, none of them beyond its end; none of what
/// has no table.
pub(super) fn partitions(image: Image) -> Option<Vec<(usize, String, Place)>> {
    let header = image.bytes(SECTOR, 92)?;
    if !header.starts_with(b"EFI PART") {
        return None;
    }
    let (table, count, size) = (u64_at(&header, 72)?, u32_at(&header, 80)?, u32_at(&header, 84)?);
    let mut found = Vec::new();
    for number in 0..u64::from(count.min(1024)) {
        let at = table.checked_mul(SECTOR)?.checked_add(number * u64::from(size))?;
        let Some(entry) = image.bytes(at, 128) else { break };
        let (first, last) = (u64_at(&entry, 32)?, u64_at(&entry, 40)?);
        let (offset, end) = (first.checked_mul(SECTOR)?, last.checked_add(1)?.checked_mul(SECTOR)?);
        let size = end.min(image.size).saturating_sub(offset);
        if first > 0 && size > 0 {
            let units = (0..36).filter_map(|i| u16_at(&entry, 56 + 2 * i)).take_while(|u| *u != 0);
            let name = String::from_utf16_lossy(&units.collect::<Vec<_>>());
            found.push((usize::try_from(number).ok()? + 1, name, Place { offset, size }));
        }
    }
    Some(found)
}
