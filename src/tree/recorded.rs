//! Attributes that say what a file is to be where the kernel does not let it be that.
//!
//! [`OWNER`] is the owner of a file that only one user can own: the protobuf message
//! `Resource { uint32 uid = 1; uint32 gid = 2; }` of the rootlesscontainers project, in which
//! 4294967295 means "as the file has it". umoci and `PRoot` write it too. [`DEVICE`] stands on an
//! empty file in place of a device: `UID:GID:0MODE:char-MAJOR-MINOR` or `block-…`, as
//! containers/storage writes it. Nothing here does I/O.

use super::Kind;

/// The attribute with an owner.
pub const OWNER: &[u8] = b"user.rootlesscontainers";

/// The attribute with a device.
pub const DEVICE: &[u8] = b"user.containers.override_stat";

/// An id that is as the file has it.
const OWN: u32 = u32::MAX;

/// A user and a group.
pub type Owner = (u32, u32);

/// The value that records this owner; none for 0:0, which every file has that is not recorded.
#[must_use]
pub fn write_owner((uid, gid): Owner) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(12);
    for (field, id) in [(1, uid), (2, gid)] {
        value.push(field << 3);
        let mut rest = if id == 0 { OWN } else { id };
        while rest > 0x7f {
            value.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
            rest >>= 7;
        }
        value.push(u8::try_from(rest).unwrap_or(0));
    }
    ((uid, gid) != (0, 0)).then_some(value)
}

/// The owner that `value` records for a file of the owner `own`; none where it is malformed.
#[must_use]
pub fn read_owner(value: &[u8], own: Owner) -> Option<Owner> {
    let (mut owner, mut rest) = ((0, 0), value);
    while !rest.is_empty() {
        match (varint(&mut rest)?, varint(&mut rest)?) {
            (0x08, id) => owner.0 = u32::try_from(id).ok()?,
            (0x10, id) => owner.1 = u32::try_from(id).ok()?,
            _ => return None,
        }
    }
    let or_own = |id, own| if id == OWN { own } else { id };
    Some((or_own(owner.0, own.0), or_own(owner.1, own.1)))
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The value that records a device; none for another sort of file.
#[must_use]
pub fn write_device(kind: &Kind, (uid, gid): Owner, mode: u32) -> Option<Vec<u8>> {
    let device = match kind {
        Kind::Char(major, minor) => format!("char-{major}-{minor}"),
        Kind::Block(major, minor) => format!("block-{major}-{minor}"),
        _ => return None,
    };
    Some(format!("{uid}:{gid}:0{mode:o}:{device}").into_bytes())
}

/// The device that `value` records, its owner and its mode; none where it is malformed or is
/// the one that means a whiteout.
#[must_use]
pub fn read_device(value: &[u8]) -> Option<(Kind, Owner, u32)> {
    let fields: Vec<&str> = std::str::from_utf8(value).ok()?.split(':').collect();
    let [uid, gid, mode, device] = fields[..] else { return None };
    let device: Vec<&str> = device.split('-').collect();
    let [sort, major, minor] = device[..] else { return None };
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    let kind = match sort {
        "char" if (major, minor) != (0, 0) => Kind::Char(major, minor),
        "block" => Kind::Block(major, minor),
        _ => return None,
    };
    let id = |text: &str| text.parse().ok().filter(|id| *id != OWN);
    let mode = u32::from_str_radix(mode, 8).ok().filter(|m| m & !0o7777 == 0)?;
    Some((kind, (id(uid)?, id(gid)?), mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners() {
        for (owner, value) in [
            ((0, 0), None),
            ((1, 2), Some(&b"\x08\x01\x10\x02"[..])),
            ((1000, 0), Some(b"\x08\xe8\x07\x10\xff\xff\xff\xff\x0f")),
            ((0, 127), Some(b"\x08\xff\xff\xff\xff\x0f\x10\x7f")),
            ((128, 4_000_000_000), Some(b"\x08\x80\x01\x10\x80\xd0\xac\xf3\x0e")),
        ] {
            assert_eq!(write_owner(owner).as_deref(), value, "{owner:?}");
            if let Some(value) = value {
                assert_eq!(read_owner(value, (0, 0)), Some(owner), "{}", value.escape_ascii());
            }
        }
        for (value, want) in [
            (&b""[..], Some((0, 0))),
            (b"\x10\x05", Some((0, 5))),
            (b"\x10\x05\x08\x06", Some((6, 5))),
            (b"\x08\xff\xff\xff\xff\x0f", Some((7, 0))),
            (b"\x08\xff\xff\xff\xff\x1f", None),
            (b"\x08", None),
            (b"\x08\x80", None),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", None),
            (b"\x18\x01", None),
            (b"\x0a\x01x", None),
        ] {
            assert_eq!(read_owner(value, (7, 8)), want, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn devices() {
        for (text, kind, owner, mode) in [
            ("0:0:0666:char-1-3", Kind::Char(1, 3), (0, 0), 0o666),
            ("1000:6:00:block-259-70000", Kind::Block(259, 70_000), (1000, 6), 0),
            ("1:2:04755:block-0-0", Kind::Block(0, 0), (1, 2), 0o4755),
        ] {
            assert_eq!(write_device(&kind, owner, mode).unwrap(), text.as_bytes());
            assert_eq!(read_device(text.as_bytes()), Some((kind, owner, mode)), "{text}");
        }
        assert_eq!(write_device(&Kind::Fifo, (0, 0), 0), None);
        for text in [
            "",
            "0:0:0666",
            "0:0:0666:file",
            "0:0:0666:char-0-0",
            "0:0:0666:char-1",
            "0:0:0666:char-1-3-5",
            "0:0:0666:char-1-3:x",
            "0:0:0688:char-1-3",
            "0:0:020666:char-1-3",
            "4294967295:0:0666:char-1-3",
            "-1:0:0666:char-1-3",
        ] {
            assert_eq!(read_device(text.as_bytes()), None, "{text}");
        }
    }
}
