//! Users of an image: names and numbers by the image's own passwd and group files.
//!
//! The rules are those of the image-spec (conversion.md, "Config.User") and of the
//! passwd(5) and group(5) manual pages. The files' bytes are the image's, thus hostile:
//! they are parsed line by line, what is malformed is passed over.

use super::{Error, Result, io_error};
use crate::sys::inroot::Root;
use rustix::fs::{FileType, OFlags};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How much of a passwd or group file is read, in bytes; users beyond it are unknown.
const MAX_FILE: u64 = 4 << 20;
/// The largest id that is given to a process; the one above means "no change" to the kernel.
const MAX_ID: u32 = u32::MAX - 1;

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids: the primary one, and after it those of the user in the group file, ascending.
    pub additional: Vec<u32>,
    /// The user's home folder in the image, where its passwd file has an absolute one.
    pub home: Option<String>,
}

/// Resolves `USER[:GROUP]` by the files of the root filesystem in `root`.
///
/// # Errors
/// [`Error::User`] where a name is unknown or the text is malformed; [`Error::Io`] where a file is
/// there and cannot be read.
pub fn of_root(root: &Path, text: &str) -> Result<Ids> {
    let folder = io_error("open", root, File::open(root))?;
    inside(&Root::new(folder.into()), text)
}

/// As [`of_root`], in a folder that is open.
///
/// # Errors
/// As [`of_root`].
pub fn inside(root: &Root, text: &str) -> Result<Ids> {
    resolve(text, &read(root, "/etc/passwd")?, &read(root, "/etc/group")?)
}

/// The home folder of a user, where the passwd file in `root` can be read and has one.
#[must_use]
pub fn home(root: &Root, uid: u32) -> Option<String> {
    let passwd = read(root, "/etc/passwd").ok()?;
    passwd_entries(&passwd).find(|e| e.uid == uid)?.home()
}

/// A regular file of the image up to the limit; empty where there is none. It is found
/// without opening it, so that a fifo or a device in its place does nothing; one that gets
/// there meanwhile is opened without waiting. It does not need procfs.
fn read(root: &Root, path: &str) -> Result<Vec<u8>> {
    let open = |flags| {
        let found = root.open(Path::new(path), flags).ok()?;
        let stat = rustix::fs::fstat(&found).ok()?;
        FileType::from_raw_mode(stat.st_mode).is_file().then_some(found)
    };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Some(file) = open(OFlags::PATH).and_then(|_| open(flags)) else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    io_error("read", Path::new(path), File::from(file).take(MAX_FILE).read_to_end(&mut bytes))?;
    Ok(bytes)
}

/// Resolves `USER[:GROUP]`, each a name or a number, empty for root.
///
/// Without a group the user's own of `passwd` is taken, with those that `group` lists it
/// in; a number that `passwd` does not know has group 0 and no others. The primary group is one of
/// the supplementary ones, too, as containerd and docker have it: else a program that changes its
/// primary group, as a set-group-ID one does, loses it, and with it what a file denies to that group
/// (CVE-2022-36109).
///
/// # Errors
/// [`Error::User`] where a name is unknown or the text is malformed.
fn resolve(text: &str, passwd: &[u8], group: &[u8]) -> Result<Ids> {
    let fail = |reason| Error::User { text: text.chars().take(100).collect(), reason };
    if text.bytes().any(|b| b.is_ascii_control() || b == b' ') || text.matches(':').count() > 1 {
        return Err(fail("wanted USER[:GROUP], each a name or a number"));
    }
    let (user, group_text) = text.split_once(':').map_or((text, ""), |(u, g)| (u, g));
    let user = if user.is_empty() { "0" } else { user };
    let known = passwd_entry(passwd, user);
    let (uid, own_gid) = match (&known, id(user)) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(fail("no such user in the image's /etc/passwd")),
    };
    let home = known.as_ref().and_then(PasswdEntry::home);
    if group_text.is_empty() {
        let mut additional = known.map_or_else(Vec::new, |e| groups_of(group, e.name));
        additional.retain(|g| *g != own_gid);
        additional.insert(0, own_gid);
        return Ok(Ids { uid, gid: own_gid, additional, home });
    }
    let gid = group_entry(group, group_text)
        .or_else(|| id(group_text))
        .ok_or_else(|| fail("no such group in the image's /etc/group"))?;
    Ok(Ids { uid, gid, additional: vec![gid], home })
}

fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= MAX_ID && text.bytes().all(|b| b.is_ascii_digit()))
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    file.split(|b| *b == b'\n').filter_map(|l| std::str::from_utf8(l).ok()).map(|l| l.split(':').collect())
}

impl PasswdEntry<'_> {
    /// The home folder, where it is an absolute path.
    fn home(&self) -> Option<String> {
        Some(self.home.to_string()).filter(|h| h.starts_with('/') && !h.contains('\0'))
    }
}

fn passwd_entries(passwd: &[u8]) -> impl Iterator<Item = PasswdEntry<'_>> {
    lines(passwd).filter_map(|f| match f[..] {
        [name, _, uid, gid, ref rest @ ..] if !name.is_empty() => {
            let home = rest.get(1).copied().unwrap_or_default();
            Some(PasswdEntry { name, uid: id(uid)?, gid: id(gid)?, home })
        }
        _ => None,
    })
}

fn passwd_entry<'a>(passwd: &'a [u8], user: &str) -> Option<PasswdEntry<'a>> {
    passwd_entries(passwd).find(|e| e.name == user).or_else(|| {
        let uid = id(user)?;
        passwd_entries(passwd).find(|e| e.uid == uid)
    })
}

fn group_entry(group: &[u8], wanted: &str) -> Option<u32> {
    lines(group).find(|f| f.len() >= 3 && f[0] == wanted).and_then(|f| id(f[2]))
}

fn groups_of(group: &[u8], user: &str) -> Vec<u32> {
    let member = |f: &Vec<&str>| f.get(3).is_some_and(|m| m.split(',').any(|n| n.trim() == user));
    let mut ids: Vec<u32> = lines(group).filter(member).filter_map(|f| id(f[2])).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:1000:100::/:\n5:x:7:8::/:\n\xff:x:1:1\n";
    const GROUP: &[u8] = b"root:x:0:\nusers:x:100:web\nadm:x:4:root,web\ndocker:x:99: web\n";

    #[test]
    fn names_and_numbers() {
        for (text, uid, gid, additional) in [
            ("", 0, 0, vec![0, 4]),
            ("root", 0, 0, vec![0, 4]),
            ("web", 1000, 100, vec![100, 4, 99]),
            ("1000", 1000, 100, vec![100, 4, 99]),
            ("web:adm", 1000, 4, vec![4]),
            ("web:7", 1000, 7, vec![7]),
            (":users", 0, 100, vec![100]),
            ("4242", 4242, 0, vec![0]),
            ("4242:4243", 4242, 4243, vec![4243]),
            ("5", 7, 8, vec![8]),
        ] {
            let home = match uid {
                0 => Some("/root".to_string()),
                7 | 1000 => Some("/".to_string()),
                _ => None,
            };
            assert_eq!(resolve(text, PASSWD, GROUP).unwrap(), Ids { uid, gid, additional, home }, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_user() {
        for text in ["nobody", "web:nobody", "0\nx:0", "a b", "1:2:3", "-1", "4294967295", "+1"] {
            assert!(resolve(text, PASSWD, GROUP).is_err(), "{text:?}");
        }
    }
}
