//! Whole trees of files as values, and what is different between two of them.
//!
//! A [`Tree`] has every name with what is there; of files with several names each of them knows
//! the first. Content is a digest where it is known; where it is not, and sizes agree, the caller
//! of [`changes`] is asked. Times of modification count only where the caller wants it.

use super::{Kind, Meta, TreePath};
use std::collections::{BTreeMap, HashMap};

/// What has a name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What sort of file; never [`Kind::Link`].
    pub kind: Kind,
    /// Owner, mode, time and attributes.
    pub meta: Meta,
    /// Size of a regular file in bytes, 0 for all else.
    pub size: u64,
    /// SHA-256 of the content of a regular file, where it is known.
    pub sha256: Option<[u8; 32]>,
    /// Where the file has several names, the first of them.
    pub same: Option<TreePath>,
    /// The number of its inode, where that is known.
    pub inode: Option<u64>,
}

/// Files by path; the root is the empty path.
pub type Tree = BTreeMap<TreePath, Node>;

/// A part of a file that can be different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// What sort of file.
    Type,
    /// Content, or the numbers of a device.
    Content,
    /// Where a symbolic link leads, or with which names a file is shared.
    Link,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// Extended attributes.
    Xattr,
    /// Time of the last modification.
    Time,
}

impl Aspect {
    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Content => "content",
            Self::Link => "link",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Xattr => "xattr",
            Self::Time => "time",
        }
    }
}

/// What happened to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is different in these parts.
    Changed(Vec<Aspect>),
    /// It is gone.
    Deleted,
}

/// What has to be done to make `new` of `old`, by path, below a deleted directory too. Where sizes
/// agree and a digest is missing, `same_content` says whether the content is the same. Without
/// `times` nobody minds when a file was modified.
///
/// # Errors
/// Those of `same_content`.
pub fn changes<E>(
    old: &Tree,
    new: &Tree,
    times: bool,
    same_content: &mut dyn FnMut(&TreePath, &Node, &Node) -> Result<bool, E>,
) -> Result<BTreeMap<TreePath, Change>, E> {
    let groups = groups(old);
    let mut all = BTreeMap::new();
    for path in old.keys().filter(|p| !new.contains_key(p)) {
        all.insert(path.clone(), Change::Deleted);
    }
    for (path, now) in new {
        let Some(before) = old.get(path) else {
            all.insert(path.clone(), Change::Added);
            continue;
        };
        let mut aspects = Vec::new();
        if std::mem::discriminant(&before.kind) != std::mem::discriminant(&now.kind) {
            aspects.push(Aspect::Type);
        } else if matches!(now.kind, Kind::Symlink(_)) {
            if before.kind != now.kind {
                aspects.push(Aspect::Link);
            }
        } else if before.kind != now.kind || before.size != now.size {
            aspects.push(Aspect::Content);
        } else if now.kind == Kind::File && now.size > 0 {
            let same = match (before.sha256, now.sha256) {
                (Some(a), Some(b)) => a == b,
                _ => same_content(path, before, now)?,
            };
            if !same {
                aspects.push(Aspect::Content);
            }
        }
        if before.same != now.same && shared_otherwise(path, before, now, new, &groups) {
            aspects.push(Aspect::Link);
        }
        aspects.extend(meta_changes(&before.meta, &now.meta, times));
        if !aspects.is_empty() {
            all.insert(path.clone(), Change::Changed(aspects));
        }
    }
    Ok(all)
}

fn meta_changes(a: &Meta, b: &Meta, times: bool) -> impl Iterator<Item = Aspect> {
    let sorted = |m: &Meta| {
        let mut xattrs = m.xattrs.clone();
        xattrs.sort();
        xattrs
    };
    [
        (a.mode != b.mode, Aspect::Mode),
        ((a.uid, a.gid) != (b.uid, b.gid), Aspect::Owner),
        (sorted(a) != sorted(b), Aspect::Xattr),
        (times && a.mtime != b.mtime, Aspect::Time),
    ]
    .into_iter()
    .filter_map(|(differs, aspect)| differs.then_some(aspect))
}

/// The names of files that have several, by the first.
fn groups(tree: &Tree) -> HashMap<&TreePath, Vec<&TreePath>> {
    let mut groups: HashMap<&TreePath, Vec<&TreePath>> = HashMap::new();
    for (path, node) in tree {
        if let Some(first) = &node.same {
            groups.entry(first).or_default().push(path);
        }
    }
    groups
}

/// Whether deleting names is not enough to come from the names that `before` shares to those of `now`.
fn shared_otherwise(
    path: &TreePath,
    before: &Node,
    now: &Node,
    new: &Tree,
    groups: &HashMap<&TreePath, Vec<&TreePath>>,
) -> bool {
    let Some(first) = before.same.as_ref().filter(|_| now.same.is_none()) else { return true };
    let others = groups.get(first).into_iter().flatten();
    others.filter(|p| **p != path).any(|p| new.get(*p).is_some_and(|n| n.kind == now.kind))
}

/// What a layer over `old` has to hold to give `new`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Paths of `new` that it describes.
    pub entries: std::collections::BTreeSet<TreePath>,
    /// Paths that it takes away.
    pub whiteouts: std::collections::BTreeSet<TreePath>,
}

impl Delta {
    /// The layer of these `changes`, which lead to the tree `new`. All names of a file go together.
    #[must_use]
    pub fn of(changes: &BTreeMap<TreePath, Change>, new: &Tree) -> Self {
        let mut delta = Self::default();
        let groups = groups(new);
        for (path, change) in changes {
            if *change == Change::Deleted {
                // What lies in a directory that is gone, or is none any more, goes with it.
                let parent = path.split().and_then(|(parent, _)| new.get(&parent));
                if parent.is_some_and(|n| n.kind == Kind::Directory) {
                    delta.whiteouts.insert(path.clone());
                }
                continue;
            }
            delta.entries.insert(path.clone());
            let first = new.get(path).and_then(|n| n.same.as_ref());
            delta
                .entries
                .extend(first.and_then(|f| groups.get(f)).into_iter().flatten().map(|p| (*p).clone()));
        }
        delta
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.whiteouts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(p: &str) -> TreePath {
        TreePath::parse_link(p.as_bytes()).unwrap()
    }

    /// `name` a file, `name/` a directory, `name=other` one that shares the file `other`.
    fn tree(names: &[(&str, u8)]) -> Tree {
        let mut tree = Tree::new();
        let node = |kind, size, content: Option<u8>| Node {
            kind,
            meta: Meta::default(),
            size,
            sha256: content.map(|c| [c; 32]),
            same: None,
            inode: None,
        };
        tree.insert(TreePath::root(), node(Kind::Directory, 0, None));
        for (name, content) in names {
            let (own, same) = name.split_once('=').map_or((*name, None), |(n, s)| (n, Some(path(s))));
            let made = if own.ends_with('/') {
                node(Kind::Directory, 0, None)
            } else {
                Node { same, ..node(Kind::File, 3, Some(*content)) }
            };
            tree.insert(path(own), made);
        }
        tree
    }

    fn delta(old: &[(&str, u8)], new: &[(&str, u8)]) -> String {
        let (old, new) = (tree(old), tree(new));
        let found = changes::<()>(&old, &new, true, &mut |_, _, _| panic!("digests are known")).unwrap();
        let delta = Delta::of(&found, &new);
        let names = delta.entries.iter().map(|p| format!("+{p}"));
        names.chain(delta.whiteouts.iter().map(|p| format!("-{p}"))).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn layers_hold_what_is_needed() {
        for (old, new, want) in [
            (&[("a", 1)][..], &[("a", 1)][..], ""),
            (&[("a", 1)], &[("a", 2)], "+/a"),
            (&[("a", 1)], &[], "-/a"),
            (&[("d/", 0), ("d/x", 1), ("d/y", 1)], &[], "-/d"),
            (&[("d/", 0), ("d/x", 1)], &[("d", 1)], "+/d"),
            (&[("d", 1)], &[("d/", 0), ("d/x", 1)], "+/d +/d/x"),
            (&[("d/", 0), ("d/x", 1)], &[("d/", 0), ("d/y", 1)], "+/d/y -/d/x"),
            // Another name for a file that is there: both names, so that they are one file.
            (&[("a", 1)], &[("a=a", 1), ("b=a", 1)], "+/a +/b"),
            (&[("a=a", 1), ("b=a", 1)], &[("a=a", 2), ("b=a", 2)], "+/a +/b"),
            (&[("a=a", 1), ("b=a", 1)], &[("a", 1)], "-/b"),
            (&[("a=a", 1), ("b=a", 1)], &[("b", 1)], "-/a"),
            (&[("a=a", 1), ("b=a", 1)], &[("a", 1), ("b", 1)], "+/a +/b"),
        ] {
            assert_eq!(delta(old, new), want, "{old:?} to {new:?}");
        }
    }

    #[test]
    fn aspects() {
        let (old, mut new) = (tree(&[("a", 1)]), tree(&[("a", 1)]));
        let node = new.get_mut(&path("a")).unwrap();
        node.meta.mtime.seconds = 1;
        node.meta.uid = 7;
        node.sha256 = None;
        let mut asked = 0;
        let mut run = |times, same| {
            let found = changes::<()>(&old, &new, times, &mut |_, _, _| {
                asked += 1;
                Ok(same)
            });
            found.unwrap().into_values().collect::<Vec<_>>()
        };
        assert_eq!(run(false, true), [Change::Changed(vec![Aspect::Owner])]);
        assert_eq!(run(true, false), [Change::Changed(vec![Aspect::Content, Aspect::Owner, Aspect::Time])]);
        assert_eq!(asked, 2);
    }
}
