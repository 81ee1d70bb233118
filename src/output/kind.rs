//! What can be made of a root filesystem, and how that is typed.

use super::{Error, Result};
use crate::archive;
use crate::layer::Coding;
use crate::oci::{Compression, Reference};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A form of a root filesystem outside of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file with an ext4 filesystem.
    Ext4,
    /// A file with an ext2 filesystem.
    Ext2,
    /// A disk with an ext4 filesystem, from which a machine starts.
    Disk,
    /// A file with a btrfs filesystem.
    Btrfs,
    /// A file with a squashfs filesystem, read-only and compressed.
    Squashfs,
    /// A file with an EROFS filesystem, read-only.
    Erofs,
    /// A tar, compressed or not.
    Tar(Coding),
    /// A folder.
    Dir,
    /// A btrfs subvolume.
    Subvolume,
}

/// Names of kinds, and the ends of files' names that mean them, the longest first.
const KINDS: [(&str, Kind, &[&str]); 11] = [
    ("ext4", Kind::Ext4, &[".img", ".ext4"]),
    ("ext2", Kind::Ext2, &[".ext2"]),
    ("disk", Kind::Disk, &[]),
    ("btrfs", Kind::Btrfs, &[".btrfs"]),
    ("squashfs", Kind::Squashfs, &[".squashfs", ".sqfs"]),
    ("erofs", Kind::Erofs, &[".erofs"]),
    ("tar", Kind::Tar(coding(Compression::None, 0)), &[".tar"]),
    ("tar.gz", Kind::Tar(coding(Compression::Gzip, 6)), &[".tar.gz", ".tgz"]),
    ("tar.zst", Kind::Tar(coding(Compression::Zstd, 3)), &[".tar.zst", ".tzst"]),
    ("dir", Kind::Dir, &["/"]),
    ("subvolume", Kind::Subvolume, &[]),
];

const fn coding(compression: Compression, level: i32) -> Coding {
    Coding { compression, level }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(_, kind, _)| kind == self).map_or("tar", |(name, ..)| name);
        f.pad(name)
    }
}

/// Where a root filesystem goes, as it is typed: `FILE`, whose name tells the kind, `KIND:PATH`,
/// `store:IMAGE`, or `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A file or a folder.
    File(Kind, PathBuf),
    /// An image in the store.
    Image(Reference),
    /// An image in an archive or a layout.
    Archive {
        /// Of which kind.
        kind: archive::Kind,
        /// Where.
        path: PathBuf,
        /// Its name there.
        name: Option<String>,
    },
}

impl FromStr for Output {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fail = || Error::Kind { text: text.chars().take(300).collect() };
        if text.rsplit(':').next() == Some("-") {
            return Err(fail());
        }
        if let Some((prefix, path)) = text.split_once(':') {
            if path.is_empty() {
                return Err(fail());
            }
            if let Some((_, kind, _)) = KINDS.iter().find(|(name, ..)| *name == prefix) {
                return Ok(Self::File(*kind, path.into()));
            }
            if prefix == "store" {
                return path.parse().map(Self::Image).map_err(|_| fail());
            }
            if matches!(prefix, "oci" | "oci-archive" | "docker-archive")
                && let Ok(kind) = prefix.parse()
            {
                let (path, name) = path.split_once(':').map_or((path, None), |(p, n)| (p, Some(n)));
                let name = name.filter(|n| !n.is_empty()).map(str::to_string);
                return Ok(Self::Archive { kind, path: path.into(), name });
            }
        }
        let ends = KINDS.iter().flat_map(|(_, kind, ends)| ends.iter().map(move |end| (*kind, *end)));
        let known = ends.clone().find(|(_, end)| text.len() > end.len() && text.ends_with(end));
        match (known, Path::new(text).extension()) {
            (Some((kind, _)), _) => Ok(Self::File(kind, text.into())),
            (None, None) if !text.is_empty() && !ends.clone().any(|(_, end)| text.ends_with(end)) => {
                Ok(Self::File(Kind::Dir, text.into()))
            }
            _ => Err(fail()),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(_, path) => path.display().fmt(f),
            Self::Image(reference) => reference.fmt(f),
            Self::Archive { kind, path, name } => {
                write!(f, "{kind}:{}", path.display())?;
                name.as_ref().map_or(Ok(()), |n| write!(f, ":{n}"))
            }
        }
    }
}

impl Output {
    /// The name without what tells the kind: `bookworm` of `images/bookworm.tar.gz`.
    #[must_use]
    pub fn stem(&self) -> String {
        let path = match self {
            Self::File(_, path) | Self::Archive { path, .. } => path,
            Self::Image(reference) => Path::new(reference.repository()),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let end = KINDS.iter().flat_map(|(.., ends)| ends.iter()).find_map(|end| name.strip_suffix(end));
        end.map_or_else(|| name.trim_end_matches(".tar").to_string(), str::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs() {
        for (text, kind, stem) in [
            ("a/bookworm.img", "ext4", "bookworm"),
            ("bookworm.ext2", "ext2", "bookworm"),
            ("x.tar", "tar", "x"),
            ("x.tar.gz", "tar.gz", "x"),
            ("x.tzst", "tar.zst", "x"),
            ("trixie", "dir", "trixie"),
            ("a.b/", "dir", "a.b"),
            ("ext4:/dev/shm/disk.raw", "ext4", "disk.raw"),
            ("subvolume:sid", "subvolume", "sid"),
        ] {
            let output: Output = text.parse().unwrap();
            assert!(matches!(&output, Output::File(k, _) if k.to_string() == kind), "{text}: {output:?}");
            assert_eq!(output.stem(), stem, "{text}");
        }
        for (text, shown, stem) in [
            ("store:localhost/lab:1", "localhost/lab:1", "lab"),
            ("oci:dir/sid:latest", "oci:dir/sid:latest", "sid"),
            ("docker-archive:x.tar", "docker-archive:x.tar", "x"),
        ] {
            let output: Output = text.parse().unwrap();
            assert_eq!((output.to_string(), output.stem()), (shown.to_string(), stem.to_string()));
        }
        for bad in ["", "x.vmdk", ".img", "store:UPPER", "oci:", "-", "tar:-"] {
            assert!(bad.parse::<Output>().is_err(), "{bad}");
        }
    }
}
