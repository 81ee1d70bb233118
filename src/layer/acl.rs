//! Access control lists in PAX records, as star and GNU tar write them, to the attributes that
//! the kernel takes.
//!
//! A record is text (acl(5), "ACL TEXT FORMS"), entries between commas or lines:
//! `user::rw-,user:1000:r--,group::r--,mask::r--,other::r--`; star puts the number after the
//! permissions too. The attribute is a version and entries of tag, permissions and id, all
//! little-endian (`linux/posix_acl_xattr.h`). Names without a number mean nothing here: whose they
//! are only the host knows that made the layer.

/// The id of an entry that names nobody.
const NOBODY: u32 = u32::MAX;

/// The value of `system.posix_acl_access` or `…_default` for such a text; none where it is malformed
/// or has a name without a number.
pub(super) fn value(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let lines = text.split([',', '\n']).map(|l| l.split('#').next().unwrap_or("").trim());
    let mut entries: Vec<_> = lines.filter(|l| !l.is_empty()).map(entry).collect::<Option<_>>()?;
    entries.sort_unstable();
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, id, permissions) in &entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    (!entries.is_empty()).then_some(value)
}

/// Tag, id, permissions.
fn entry(line: &str) -> Option<(u16, u32, u16)> {
    let fields: Vec<&str> = line.split(':').map(str::trim).collect();
    let (sort, name, letters, number) = match fields[..] {
        // Some leave out the empty name of these two.
        [sort @ ("other" | "o" | "mask" | "m"), letters] => (sort, "", letters, None),
        [sort, name, letters] => (sort, name, letters, None),
        [sort, name, letters, number] => (sort, name, letters, Some(number)),
        _ => return None,
    };
    let id = if name.is_empty() { NOBODY } else { number.unwrap_or(name).parse().ok()? };
    let tag = match (sort, name.is_empty()) {
        ("user" | "u", true) => 0x01,
        ("user" | "u", false) => 0x02,
        ("group" | "g", true) => 0x04,
        ("group" | "g", false) => 0x08,
        ("mask" | "m", true) => 0x10,
        ("other" | "o", true) => 0x20,
        _ => return None,
    };
    let bit = |sum: u16, letter: char| {
        Some(
            sum | match letter {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                '-' => 0,
                _ => return None,
            },
        )
    };
    Some((tag, id, letters.chars().try_fold(0, bit)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let list = |entries: &[(u8, u8, [u8; 4])]| {
            let entries = entries.iter().flat_map(|(tag, p, id)| [&[*tag, 0, *p, 0][..], id].concat());
            [2, 0, 0, 0].into_iter().chain(entries).collect::<Vec<u8>>()
        };
        let none = [0xff; 4];
        let want = list(&[(1, 6, none), (2, 4, [0xe8, 3, 0, 0]), (4, 4, none), (16, 4, none), (32, 0, none)]);
        for text in [
            "user::rw-,user:1000:r--,group::r--,mask::r--,other::---",
            "u::rw-\nu:ann:r--:1000\ng::r-- #effective:r--\nm:r--\no:---\n",
            "other::---,mask::r--,group::r--,user:1000:r--,user::rw-,",
        ] {
            assert_eq!(value(text.as_bytes()).as_deref(), Some(&want[..]), "{text}");
        }
        for text in ["", "user:ann:r--", "user::rwz", "what::r--", "user", "mask:7:r--", "\u{fffd}:\u{fffd}"]
        {
            assert_eq!(value(text.as_bytes()), None, "{text}");
        }
    }
}
