//! Extended attributes: as many as fit in the inode, the others in one block.
//!
//! Names lose their namespace, which becomes a number. An ACL comes as the kernel hands it out,
//! eight bytes an entry, and is stored without the ids of entries that name nobody.

use super::inode::{INLINE, Sums};
use super::{BYTES, Error, Kind, Result};
use crate::disk::raw::{low16, low32, set};
use crate::tree::TreePath;

const MAGIC: u32 = 0xea02_0000;
/// Bytes before the first entry of a block.
const HEADER: usize = 32;

/// Namespaces and their numbers; the first that fits counts.
const SPACES: [(&[u8], u8); 6] = [
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
    (b"system.", 7),
];

/// An attribute as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    // In this order they lie in a block.
    space: u8,
    length: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Attribute {
    /// Bytes of the entry and of the value.
    fn sizes(&self) -> (usize, usize) {
        (16 + self.name.len().next_multiple_of(4), self.value.len().next_multiple_of(4))
    }

    fn hash(&self) -> u32 {
        let name = self.name.iter().fold(0u32, |sum, c| sum.rotate_left(5) ^ u32::from(*c));
        self.value.chunks(4).fold(name, |sum, part| {
            let mut word = [0; 4];
            set(&mut word, 0, part);
            sum.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

/// The attributes of a file, sorted out.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    inline: Vec<Attribute>,
    block: Vec<Attribute>,
}

impl Attributes {
    /// Those of the file `path`. ext2 has none in the inode: not all of its drivers look there.
    ///
    /// # Errors
    /// [`Error::Unfit`] where they do not fit, or an ACL is none.
    pub(super) fn new(path: &TreePath, all: &[(Vec<u8>, Vec<u8>)], kind: Kind) -> Result<Self> {
        let unfit = |reason| Error::Unfit { path: path.clone(), reason };
        let mut sorted = Vec::new();
        for (name, value) in all {
            let Some((prefix, space)) = SPACES.iter().find(|(prefix, _)| name.starts_with(prefix)) else {
                tracing::warn!("{path}: {} is no attribute of ext4 and left out", name.escape_ascii());
                continue;
            };
            let value = match space {
                2 | 3 => acl(value).ok_or_else(|| unfit("its access control list is malformed"))?,
                _ => value.clone(),
            };
            let name = name[prefix.len()..].to_vec();
            if name.len() > 255 {
                return Err(unfit("the name of an attribute is too long"));
            }
            sorted.push(Attribute { space: *space, length: name.len(), name, value });
        }
        sorted.sort();
        let mut new = Self::default();
        // Four bytes of magic, four of zeros behind the entries.
        let mut inline = if kind == Kind::Ext4 { INLINE - 8 } else { 0 };
        let mut block = BYTES - HEADER - 4;
        for attribute in sorted {
            let (entry, value) = attribute.sizes();
            let (left, list) = match entry + value {
                size if size <= inline => (&mut inline, &mut new.inline),
                size if size <= block => (&mut block, &mut new.block),
                _ => return Err(unfit("its attributes are larger than a block")),
            };
            *left -= entry + value;
            list.push(attribute);
        }
        Ok(new)
    }

    /// Whether they need a block.
    pub(super) const fn need_block(&self) -> bool {
        !self.block.is_empty()
    }

    /// The part in the inode.
    pub(super) fn inline(&self) -> Vec<u8> {
        if self.inline.is_empty() {
            return Vec::new();
        }
        let mut raw = vec![0; INLINE];
        set(&mut raw, 0, MAGIC.to_le_bytes());
        // Places of values count from the first entry.
        entries(&mut raw[4..], &self.inline, 0, |_| 0);
        raw
    }

    /// The part that is the block `number`.
    pub(super) fn block(&self, number: u64, sums: Sums) -> Vec<u8> {
        let mut raw = vec![0; BYTES];
        set(&mut raw, 0, MAGIC.to_le_bytes());
        set(&mut raw, 4, 1u32.to_le_bytes());
        set(&mut raw, 8, 1u32.to_le_bytes());
        let hash = self.block.iter().fold(0u32, |sum, a| sum.rotate_left(16) ^ a.hash());
        set(&mut raw, 12, hash.to_le_bytes());
        entries(&mut raw, &self.block, HEADER, Attribute::hash);
        let sum = sums.sum(&[&number.to_le_bytes(), &raw]);
        set(&mut raw, 16, sum.to_le_bytes());
        raw
    }
}

/// Writes entries from `at` on and their values from the end down.
fn entries(raw: &mut [u8], all: &[Attribute], mut at: usize, hash: impl Fn(&Attribute) -> u32) {
    let mut end = raw.len();
    for attribute in all {
        let (entry, value) = attribute.sizes();
        end -= value;
        set(raw, end, &attribute.value);
        raw[at] = low16(attribute.name.len() as u64).to_le_bytes()[0];
        raw[at + 1] = attribute.space;
        set(raw, at + 2, low16(end as u64).to_le_bytes());
        set(raw, at + 8, low32(attribute.value.len() as u64).to_le_bytes());
        set(raw, at + 12, hash(attribute).to_le_bytes());
        set(raw, at + 16, &attribute.name);
        at += entry;
    }
}

/// An access control list as ext4 stores it, from the kernel's form.
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    let entries = value.strip_prefix(&2u32.to_le_bytes())?;
    let (entries, []) = entries.as_chunks::<8>() else { return None };
    let mut stored = 1u32.to_le_bytes().to_vec();
    for entry in entries {
        match entry[0] {
            // Whoever it names.
            0x02 | 0x08 => stored.extend(entry),
            0x01 | 0x04 | 0x10 | 0x20 => stored.extend(&entry[..4]),
            _ => return None,
        }
    }
    Some(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let mut kernels = vec![2, 0, 0, 0];
        for (tag, id) in [(1u8, 0xff), (2, 7), (4, 0xff), (16, 0xff), (32, 0xff)] {
            kernels.extend([tag, 0, 6, 0, id, 0, 0, 0]);
        }
        let stored = [1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 6, 0, 7, 0, 0, 0, 4, 0, 6, 0, 16, 0, 6, 0, 32, 0, 6, 0];
        assert_eq!(acl(&kernels).unwrap(), stored);
        assert_eq!(acl(&stored), None);
        assert_eq!(acl(&kernels[..9]), None);
    }

    #[test]
    fn places() {
        let path = TreePath::root();
        let pair = |name: &str, size: usize| (name.as_bytes().to_vec(), vec![b'v'; size]);
        let place =
            |all: &[_], kind| Attributes::new(&path, all, kind).map(|a| (a.inline.len(), a.block.len()));
        for (all, kind, want) in [
            (vec![], Kind::Ext4, (0, 0)),
            (vec![pair("user.a", 68)], Kind::Ext4, (1, 0)),
            (vec![pair("user.a", 69)], Kind::Ext4, (0, 1)),
            (vec![pair("user.a", 1)], Kind::Ext2, (0, 1)),
            (vec![pair("user.b", 1), pair("user.a", 100), pair("user.c", 1)], Kind::Ext4, (2, 1)),
            (vec![pair("user.a", 4040)], Kind::Ext4, (0, 1)),
            (vec![pair("btrfs.compression", 4)], Kind::Ext4, (0, 0)),
        ] {
            assert_eq!(place(&all, kind).unwrap(), want, "{all:?}");
        }
        for all in [vec![pair("user.a", 4041)], vec![pair("user.a", 2100), pair("user.b", 2100)]] {
            assert!(matches!(place(&all, Kind::Ext4), Err(Error::Unfit { .. })));
        }
        assert!(place(&[pair("system.posix_acl_access", 3)], Kind::Ext4).is_err());
    }
}
