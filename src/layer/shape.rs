//! Files that are written otherwise than they are: owners, modes, times, and which are left out.

use crate::tree::{Kind, Meta, Time, TreePath, fnmatch};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What files get instead of what they have of their own.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// Their time, in seconds since 1970.
    pub time: Option<i64>,
    /// Their user and their group.
    pub owner: Option<(u32, u32)>,
    /// Their permission bits.
    pub modes: Modes,
    /// Those whose path below what is written matches one of these patterns are left out, with all
    /// that is below them (fnmatch(3) without flags).
    pub exclude: Vec<String>,
    /// These paths below what is written are left out, too, with all that is below them.
    pub left_out: Arc<BTreeSet<TreePath>>,
    /// What is in a directory is written, not that directory itself.
    pub bare: bool,
}

/// Permission bits of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Modes {
    /// As they are.
    #[default]
    Kept,
    /// 0755 for directories and what anyone may execute, else 0644: what version control keeps.
    Plain,
    /// These for files; directories may be searched where they may be read.
    Files(u32),
    /// These for files and directories.
    All(u32),
}

impl Shape {
    pub(super) fn skips(&self, path: &TreePath) -> bool {
        self.left_out.contains(path)
            || self.exclude.iter().any(|pattern| fnmatch(pattern.as_bytes(), path.as_bytes()))
    }

    pub(super) fn apply(&self, kind: &Kind, meta: &mut Meta) {
        if let Some(seconds) = self.time {
            meta.mtime = Time { seconds, nanos: 0 };
        }
        if let Some((uid, gid)) = self.owner {
            (meta.uid, meta.gid) = (uid, gid);
        }
        let directory = *kind == Kind::Directory;
        meta.mode = match self.modes {
            _ if matches!(kind, Kind::Symlink(_)) => meta.mode,
            Modes::Kept => meta.mode,
            Modes::Plain if directory || meta.mode & 0o111 != 0 => 0o755,
            Modes::Plain => 0o644,
            Modes::Files(mode) if directory => mode | (mode & 0o444) >> 2,
            Modes::Files(mode) | Modes::All(mode) => mode,
        };
        if self.modes == Modes::Plain {
            meta.xattrs.clear();
        }
    }
}
