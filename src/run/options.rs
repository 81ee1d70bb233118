//! Mount options: what of `options` is for the mount, what for the filesystem.

use super::{Error, Result, spec};
use crate::sys::mountfd::Attributes;

/// A mount of config.json, its options sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Attributes of this mount.
    pub own: Attributes,
    /// Attributes of this mount and all below it (`rro` and the like).
    pub all: Attributes,
    /// Propagation types with whether they go for the mounts below, in order.
    pub propagation: Vec<(u64, bool)>,
    /// A bind mount, with whether it takes the mounts below its source.
    pub bind: Option<bool>,
    /// Whether its files' owners are mapped, and if so, whether on the mounts below as well.
    pub idmap: Option<bool>,
    /// A tmpfs that begins with a copy of what it covers.
    pub copy_up: bool,
    /// Changes an existing mount instead of making one.
    pub remount: bool,
    /// For the filesystem: key, value.
    pub data: Vec<(String, Option<String>)>,
}

/// Options of the filesystem that all filesystems have; a bind mount has them already, or not.
pub const SUPERBLOCK: [&str; 4] = ["dirsync", "lazytime", "mand", "sync"];

const ATIME_MASK: u64 = libc::MOUNT_ATTR__ATIME;

/// Name, bits to set, bits to clear. Each has a recursive form with `r` before it.
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("noatime", libc::MOUNT_ATTR_NOATIME, ATIME_MASK),
    ("atime", libc::MOUNT_ATTR_RELATIME, ATIME_MASK),
    ("relatime", libc::MOUNT_ATTR_RELATIME, ATIME_MASK),
    ("norelatime", libc::MOUNT_ATTR_STRICTATIME, ATIME_MASK),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, ATIME_MASK),
    ("nostrictatime", libc::MOUNT_ATTR_RELATIME, ATIME_MASK),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// The propagation type that `name` stands for, with whether it goes for the mounts below.
#[must_use]
pub fn propagation(name: &str) -> Option<(u64, bool)> {
    let (plain, recursive) = match name.strip_prefix('r') {
        Some(rest) if rest != "elatime" => (rest, true),
        _ => (name, false),
    };
    let kind = match plain {
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "private" => libc::MS_PRIVATE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some((kind, recursive))
}

fn attribute(name: &str) -> Option<(u64, u64)> {
    ATTRIBUTES.iter().find(|(n, ..)| *n == name).map(|(_, set, clear)| (*set, *clear))
}

/// A later option wins over an earlier one.
fn apply(to: &mut Attributes, (set, clear): (u64, u64)) {
    to.set = (to.set & !clear) | set;
    to.clear = (to.clear & !set) | clear;
}

impl Options {
    /// Sorts the options of `mount`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an option that would not be honoured.
    pub fn parse(mount: &spec::Mount) -> Result<Self> {
        let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        let mut out = Self {
            bind: (mount.kind == "bind").then_some(false),
            idmap: mapped.then_some(false),
            ..Self::default()
        };
        for option in &mount.options {
            match option.as_str() {
                // How loud the kernel is, and whether it counts changes of files, is up to each
                // filesystem, or was to mount(2) alone.
                "silent" | "loud" | "iversion" | "noiversion" | "defaults" | "async" | "nomand"
                | "nolazytime" | "" => {}
                name if SUPERBLOCK.contains(&name) && out.bind.is_some() => {}
                "bind" => out.bind = Some(out.bind.unwrap_or(false)),
                "rbind" => out.bind = Some(true),
                "remount" => out.remount = true,
                "tmpcopyup" if mount.kind == "tmpfs" => out.copy_up = true,
                "idmap" => out.idmap = Some(out.idmap.unwrap_or(false)),
                "ridmap" => out.idmap = Some(true),
                name if name == "tmpcopyup" || name.starts_with("idmap=") || name.starts_with("ridmap=") => {
                    let what = format!("mount option {option} of {}", mount.destination.display());
                    return Err(Error::Unsupported { what });
                }
                name => out.add(name),
            }
        }
        Ok(out)
    }

    fn add(&mut self, name: &str) {
        if let Some(bits) = attribute(name) {
            apply(&mut self.own, bits);
        } else if let Some(bits) = name.strip_prefix('r').and_then(attribute) {
            apply(&mut self.all, bits);
        } else if let Some(kind) = propagation(name) {
            self.propagation.push(kind);
        } else if let Some((key, value)) = name.split_once('=') {
            self.data.push((key.to_string(), Some(value.to_string())));
        } else {
            self.data.push((name.to_string(), None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str, options: &[&str]) -> Options {
        let options = options.iter().map(ToString::to_string).collect();
        Options::parse(&spec::Mount { kind: kind.into(), options, ..spec::Mount::default() }).unwrap()
    }

    #[test]
    fn sorts_options() {
        let o = parse("tmpfs", &["nosuid", "strictatime", "mode=755", "size=64k", "newinstance", "rprivate"]);
        assert_eq!(o.own.set, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(o.data.len(), 3);
        assert_eq!(o.data[2], ("newinstance".into(), None));
        assert_eq!((o.propagation, o.bind), (vec![(libc::MS_PRIVATE, true)], None));
        let o = parse("none", &["rbind", "ro", "rnosuid", "rslave", "relatime", "rrelatime"]);
        assert_eq!((o.bind, o.own.set & 1), (Some(true), 1));
        assert_eq!(o.all.set, libc::MOUNT_ATTR_NOSUID);
        assert!(parse("bind", &[]).bind == Some(false));
        let own = parse("bind", &["ro", "rw"]).own;
        assert_eq!((own.set, own.clear), (0, 1));
        assert_eq!(parse("bind", &["ridmap", "idmap"]).idmap, Some(true));
        assert_eq!((parse("bind", &["idmap"]).idmap, parse("bind", &["ro"]).idmap), (Some(false), None));
        let mapping = vec![spec::IdMapping::default()];
        let mapped = spec::Mount { uid_mappings: mapping, ..spec::Mount::default() };
        assert_eq!(Options::parse(&mapped).unwrap().idmap, Some(false));
        for option in ["tmpcopyup", "idmap=uids=0-1-2"] {
            let refused = spec::Mount { options: vec![option.into()], ..spec::Mount::default() };
            assert!(Options::parse(&refused).is_err(), "{option}");
        }
    }
}
