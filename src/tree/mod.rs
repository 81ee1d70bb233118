//! The pure model of files in a layer: what an entry is, which names it may have.
//!
//! A [`TreePath`] is relative to the root, without `.`, `..`, empty or overlong
//! components: safe to be walked with `openat2`. A [`Name`] is what an entry's name means
//! in a layer: a file, or a whiteout or opaque marker for the layers below (OCI
//! image-spec, layer.md, "Whiteouts"). [`diff`] compares whole trees, [`mtree`] has them as text,
//! [`recorded`] has what a file says of itself where it cannot be that.
//! Nothing here does I/O.

pub mod diff;
pub mod mtree;
mod pattern;
pub mod recorded;

pub use diff::{Node, Tree};
pub use pattern::{Glob, fnmatch};

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `NAME_MAX` of Linux filesystems, in bytes.
pub const MAX_NAME: usize = 255;

/// `PATH_MAX` of Linux without the final NUL, in bytes.
pub const MAX_PATH: usize = 4095;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";

/// Why a name in a layer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It starts with a slash.
    #[error("absolute name")]
    Absolute,
    /// It has a component `..`.
    #[error("name with a .. component")]
    DotDot,
    /// It has a NUL byte.
    #[error("name with a NUL byte")]
    Nul,
    /// A component is longer than [`MAX_NAME`].
    #[error("name with a component of more than {MAX_NAME} bytes")]
    LongName,
    /// It is longer than [`MAX_PATH`].
    #[error("name of more than {MAX_PATH} bytes")]
    LongPath,
    /// It is empty.
    #[error("empty name")]
    Empty,
    /// A whiteout of nothing, of `.` or of `..`.
    #[error("whiteout of no file")]
    Whiteout,
    /// A whiteout's name as a directory on the way.
    #[error("whiteout used as a directory")]
    WhiteoutDirectory,
}

/// A path below the root of a tree; the root itself is the empty path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Normalises the name of an entry: `./a//b/` is `a/b`, `./` the root. Several tools that make
    /// images call the root `/`; no other name may be absolute.
    ///
    /// # Errors
    /// The [`Refusal`] that fits.
    pub fn parse(raw: &[u8]) -> Result<Self, Refusal> {
        match raw.first() {
            None => Err(Refusal::Empty),
            Some(b'/') if raw.iter().any(|b| !b"/.".contains(b)) => Err(Refusal::Absolute),
            Some(_) => Self::parse_link(raw),
        }
    }

    /// Normalises the target of a hard link, where a leading slash means the tree's root.
    ///
    /// # Errors
    /// The [`Refusal`] that fits.
    pub fn parse_link(raw: &[u8]) -> Result<Self, Refusal> {
        if raw.contains(&0) {
            return Err(Refusal::Nul);
        }
        let mut path = Vec::with_capacity(raw.len());
        for part in raw.split(|&b| b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(Refusal::DotDot),
                long if long.len() > MAX_NAME => return Err(Refusal::LongName),
                _ => {}
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        if path.len() > MAX_PATH { Err(Refusal::LongPath) } else { Ok(Self(path)) }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a relative path; empty for the root.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// How many components there are.
    #[must_use]
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { self.0.split(|&b| b == b'/').count() }
    }

    /// The directory it lies in and its name there; none for the root.
    #[must_use]
    pub fn split(&self) -> Option<(Self, &OsStr)> {
        if self.is_root() {
            return None;
        }
        let (parent, name) = split(&self.0);
        Some((Self(parent.to_vec()), OsStr::from_bytes(name)))
    }

    /// This path and `name` below it.
    #[must_use]
    pub fn join(&self, name: &OsStr) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        Self(path)
    }

    /// Whether it is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_root()
            || self.0.strip_prefix(other.0.as_slice()).is_some_and(|r| r.is_empty() || r[0] == b'/')
    }

    /// The paths from just below the root to this one.
    pub fn prefixes(&self) -> impl Iterator<Item = Self> + '_ {
        let ends = self.0.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i);
        let own = (!self.is_root()).then_some(self.0.len());
        ends.chain(own).map(|end| Self(self.0[..end].to_vec()))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

/// Whether a character of a name steers a terminal, or the direction in which text is shown (Unicode, UAX 9), and
/// so may make it look like another.
#[must_use]
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(i) => (&path[..i], &path[i + 1..]),
        None => (b"", path),
    }
}

/// What the name of an entry in a layer stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// The entry itself.
    Entry(TreePath),
    /// The file or directory of the layers below is gone.
    Whiteout(TreePath),
    /// What the layers below have in the directory is gone.
    Opaque(TreePath),
    /// aufs' own files (`.wh..wh.plnk` and the like), which mean nothing here.
    Ignored,
}

impl Name {
    /// Reads the name of an entry.
    ///
    /// # Errors
    /// The [`Refusal`] that fits.
    pub fn parse(raw: &[u8]) -> Result<Self, Refusal> {
        let path = TreePath::parse(raw)?;
        let (parent, name) = split(path.as_bytes());
        if parent.split(|&b| b == b'/').any(|part| part.starts_with(AUFS)) {
            return Ok(Self::Ignored);
        }
        if parent.split(|&b| b == b'/').any(|part| part.starts_with(WHITEOUT)) {
            return Err(Refusal::WhiteoutDirectory);
        }
        if name == OPAQUE {
            return Ok(Self::Opaque(TreePath(parent.to_vec())));
        }
        match name.strip_prefix(WHITEOUT) {
            None => Ok(Self::Entry(path)),
            Some(b"" | b"." | b"..") => Err(Refusal::Whiteout),
            Some(_) if name.starts_with(AUFS) => Ok(Self::Ignored),
            Some(hidden) => Ok(Self::Whiteout(TreePath(parent.to_vec()).join(OsStr::from_bytes(hidden)))),
        }
    }
}

/// What sort of file an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to these bytes.
    Symlink(Vec<u8>),
    /// Another name of this file.
    Link(TreePath),
    /// A character device, major and minor number.
    Char(u32, u32),
    /// A block device, major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket: it belongs to a process and is not made.
    Socket,
}

/// A point in time as files have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

/// Owner, mode, time and attributes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last modification.
    pub mtime: Time,
    /// Extended attributes, name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, read.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// Owner, mode, time and attributes.
    pub meta: Meta,
    /// Size of a regular file in bytes, holes included; 0 for all else.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_or_refuses() {
        for (raw, want) in
            [("./", ""), (".", ""), ("a", "a"), ("./a//./b/", "a/b"), ("a/.b", "a/.b"), ("..a", "..a")]
        {
            assert_eq!(TreePath::parse(raw.as_bytes()).unwrap().as_bytes(), want.as_bytes(), "{raw}");
        }
        let long = "x".repeat(256);
        let deep = "x/".repeat(2049);
        for (raw, want) in [
            ("", Refusal::Empty),
            ("/a", Refusal::Absolute),
            ("/..", Refusal::DotDot),
            ("..", Refusal::DotDot),
            ("a/../b", Refusal::DotDot),
            ("a\0b", Refusal::Nul),
            (&long, Refusal::LongName),
            (&deep, Refusal::LongPath),
        ] {
            assert_eq!(TreePath::parse(raw.as_bytes()), Err(want), "{raw}");
        }
        assert_eq!(TreePath::parse_link(b"/a/b").unwrap().as_bytes(), b"a/b");
    }

    #[test]
    fn reads_whiteouts() {
        let path = |p: &str| TreePath(p.as_bytes().to_vec());
        for (raw, want) in [
            ("a/b", Ok(Name::Entry(path("a/b")))),
            ("a/.wh.b", Ok(Name::Whiteout(path("a/b")))),
            (".wh.b", Ok(Name::Whiteout(path("b")))),
            ("a/.wh..wh..opq", Ok(Name::Opaque(path("a")))),
            (".wh..wh..opq", Ok(Name::Opaque(path("")))),
            (".wh..wh.plnk/x", Ok(Name::Ignored)),
            (".wh..wh.aufs", Ok(Name::Ignored)),
            (".wh..b", Ok(Name::Whiteout(path(".b")))),
            (".wh.", Err(Refusal::Whiteout)),
            ("a/.wh..", Err(Refusal::Whiteout)),
            ("a/.wh...", Err(Refusal::Whiteout)),
            (".wh.a/b", Err(Refusal::WhiteoutDirectory)),
        ] {
            assert_eq!(Name::parse(raw.as_bytes()), want, "{raw}");
        }
    }

    #[test]
    fn walks_paths() {
        let p = TreePath::parse(b"a/bc/d").unwrap();
        let names: Vec<_> = p.prefixes().map(|x| x.to_string()).collect();
        assert_eq!(names, ["/a", "/a/bc", "/a/bc/d"]);
        assert_eq!(TreePath::root().prefixes().count(), 0);
        let a = TreePath::parse(b"a/b").unwrap();
        assert!(!p.is_within(&a) && p.is_within(&TreePath::root()) && a.is_within(&a));
        assert_eq!(p.split().unwrap().1, "d");
        assert_eq!(p.depth(), 3);
    }
}
