//! What is checked: the files of an image, a folder or a file with a filesystem, and the documents.
//!
//! An image's files are its layers as an overlay, or unpacked where none can be mounted, in a scratch
//! folder that goes with the value. Files are found in a [`Tree`] that was read once without following
//! links; a path is resolved in it, and what is opened is opened below the root without links. So
//! nothing outside is read, and nothing but regular files is opened.

use super::accounts::Accounts;
use super::layers::Layers;
use super::{Error, Result};
use crate::bundle::Origin;
use crate::layer;
use crate::oci::Image;
use crate::rootfs::Rootfs;
use crate::store::{Lease, Scratch, Store};
use crate::sys::dir::Dir;
use crate::sys::mount::Mount;
use crate::sys::sandbox::private_mounts;
use crate::tree::{Kind, Node, Tree, TreePath};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The most bytes of a file that are searched for patterns.
const MOST_READ: u64 = 64 << 20;
/// The most bytes of a file with users or groups, as where a container gets its user.
const MOST_ACCOUNTS: u64 = 4 << 20;
/// As many links lead on from a path, as on Linux.
const MOST_LINKS: usize = 40;

/// What is checked.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) image: Option<&'a Image>,
    pub(super) layers: Option<Layers<'a>>,
    files: Option<Files>,
}

/// The files.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    pub(super) tree: Tree,
    /// Users and groups, once they are read.
    accounts: OnceLock<Accounts>,
    rootfs: Option<Rootfs>,
    _mount: Option<Mount>,
    scratch: Option<Scratch>,
    _lease: Option<Lease>,
}

impl<'a> Subject<'a> {
    /// Makes the files of `origin` readable, where they are needed. To be called before a thread is
    /// started.
    pub(super) fn prepare(store: &'a Store, origin: &'a Origin, with_files: bool) -> Result<Self> {
        let files = with_files.then(|| Files::of(store, origin)).transpose()?;
        let image = match origin {
            Origin::Image(_, image) => Some(&**image),
            _ => None,
        };
        let layers = image.map(|image| Layers { store, image, read: OnceLock::new() });
        Ok(Self { image, layers, files })
    }

    /// Takes away what was made to read it.
    pub(super) fn close(self) -> Result<()> {
        match self.files {
            Some(Files { rootfs: Some(rootfs), scratch: Some(scratch), .. }) => {
                Ok(rootfs.remove(scratch.path())?)
            }
            _ => Ok(()),
        }
    }

    /// The files, which some check has asked for.
    pub(super) fn files(&self) -> Result<&Files> {
        self.files.as_ref().ok_or(Error::Unprepared)
    }
}

impl Files {
    fn of(store: &Store, origin: &Origin) -> Result<Self> {
        let (mut lease, mut rootfs) = (None, None);
        let (root, mount, scratch) = match origin {
            Origin::Directory(root) => (root.clone(), None, None),
            Origin::File(file) => {
                let scratch = store.scratch_aside()?;
                let root = scratch.path().join("rootfs");
                std::fs::create_dir(&root).map_err(|source| Error::Read { path: root.clone(), source })?;
                // Mounts made from here on are seen by no other process and end with this one.
                private_mounts()?;
                let mount = crate::rootfs::mount_file(file, &root)?;
                (root, Some(mount), Some(scratch))
            }
            Origin::Image(_, image) => {
                let held = store.lease()?;
                held.hold(&image.descriptor.digest)?;
                lease = Some(held);
                let scratch = store.scratch()?;
                let (driver, why) = crate::rootfs::choose(store, &origin.source())?;
                tracing::debug!("driver {driver}: {why}");
                rootfs = Some(Rootfs::volatile(store, driver, &origin.source(), scratch.path())?);
                (scratch.path().join("rootfs"), None, Some(scratch))
            }
        };
        let tree = layer::scan(&root, None, None)?;
        let accounts = OnceLock::new();
        Ok(Self { root, tree, accounts, rootfs, _mount: mount, scratch, _lease: lease })
    }

    /// Where `path` leads: links in it are followed below the root, one in the last place only
    /// with `last`. The path and what is there; none where nothing is.
    pub(super) fn find(&self, path: &str, last: bool) -> Option<(TreePath, &Node)> {
        let mut left: Vec<Vec<u8>> = parts(path.as_bytes());
        let (mut at, mut links) = (TreePath::root(), 0);
        while let Some(part) = left.pop() {
            if part == b".." {
                at = at.split().map_or_else(TreePath::root, |(parent, _)| parent);
                continue;
            }
            let next = at.join(std::ffi::OsStr::from_bytes(&part));
            match &self.tree.get(&next)?.kind {
                Kind::Symlink(target) if last || !left.is_empty() => {
                    links += 1;
                    if links > MOST_LINKS {
                        return None;
                    }
                    if target.first() == Some(&b'/') {
                        at = TreePath::root();
                    }
                    left.extend(parts(target));
                }
                Kind::Directory => at = next,
                _ if left.is_empty() => at = next,
                _ => return None,
            }
        }
        self.tree.get(&at).map(|node| (at, node))
    }

    /// The content of the regular file `path` of the tree, up to a limit; none where it is larger or
    /// no such file any more.
    pub(super) fn content(&self, path: &TreePath) -> Result<Option<Vec<u8>>> {
        self.up_to(path, MOST_READ)
    }

    /// As [`Self::content`], up to `most` bytes.
    pub(super) fn up_to(&self, path: &TreePath, most: u64) -> Result<Option<Vec<u8>>> {
        let Some((parent, name)) = path.split() else { return Ok(None) };
        let Some((file, _)) = Dir::open(&self.root)?.below(parent.as_path())?.regular(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = file.take(most + 1).read_to_end(&mut bytes);
        let path = || Path::new("/").join(path.as_path());
        let read = read.map_err(|source| Error::Read { path: path(), source })?;
        Ok((read as u64 <= most).then_some(bytes))
    }

    /// A file that everybody knows where to find, as text; empty where it is not there, or too large
    /// to be one of its kind.
    pub(super) fn text(&self, path: &str) -> Result<String> {
        let Some((at, _)) = self.find(path, true).filter(|(_, n)| n.kind == Kind::File) else {
            return Ok(String::new());
        };
        let bytes = self.up_to(&at, MOST_ACCOUNTS)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The users and groups of the image.
    pub(super) fn accounts(&self) -> Result<&Accounts> {
        if self.accounts.get().is_none() {
            let read = Accounts::of(self)?;
            let _ = self.accounts.set(read);
        }
        self.accounts.get().ok_or(Error::Unprepared)
    }

    /// The SHA-256 of the regular file `path` of the tree, in hexadecimal digits.
    pub(super) fn sha256(&self, path: &TreePath) -> Result<Option<String>> {
        let sum = layer::hash_file(&self.root, path)?;
        Ok(sum.map(|sum| sum.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().concat()))
    }
}

/// The components of a path, the last first.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".");
    parts.rev().map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// The files in the folder `root`.
    pub fn files(root: &Path) -> Files {
        let tree = layer::scan(root, None, None).unwrap();
        let accounts = OnceLock::new();
        Files {
            root: root.to_path_buf(),
            tree,
            accounts,
            rootfs: None,
            _mount: None,
            scratch: None,
            _lease: None,
        }
    }

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(dir.path().join("outside"), "secret").unwrap();
        std::fs::write(root.join("a/b/f"), "x").unwrap();
        for (target, name) in [
            ("/a/b", "abs"),
            ("a/b", "rel"),
            ("../../outside", "up"),
            ("/../outside", "over"),
            ("loop", "loop"),
            ("f", "a/b/g"),
            ("nothing", "dangling"),
        ] {
            symlink(target, root.join(name)).unwrap();
        }
        let files = files(&root);
        for (path, last, want) in [
            ("/a/b/f", true, Some("/a/b/f")),
            ("/abs/f", true, Some("/a/b/f")),
            ("/rel/g", true, Some("/a/b/f")),
            ("/rel/g", false, Some("/a/b/g")),
            ("/up", true, None),
            ("/over", true, None),
            ("/loop", true, None),
            ("/loop", false, Some("/loop")),
            ("/dangling", false, Some("/dangling")),
            ("/dangling", true, None),
            ("/a/../../a//./b/f", true, Some("/a/b/f")),
            ("/a/b/f/x", true, None),
            ("/", true, Some("/")),
        ] {
            let found = files.find(path, last).map(|(p, _)| p.to_string());
            assert_eq!(found.as_deref(), want, "{path}");
        }
        // What was swapped since the tree was read is not followed either.
        let f = files.find("/a/b/f", true).unwrap().0;
        std::fs::remove_file(root.join("a/b/f")).unwrap();
        symlink("/etc/passwd", root.join("a/b/f")).unwrap();
        assert_eq!(files.content(&f).unwrap(), None);
        std::fs::rename(root.join("a/b"), root.join("a/c")).unwrap();
        symlink("/etc", root.join("a/b")).unwrap();
        assert!(files.content(&f).is_err());
    }
}
