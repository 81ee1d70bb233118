//! What goes into filesystem images: folders, and trees that are nowhere; images mounted.

use super::{ok, unmount_below};
use shipimg::disk::Source;
use shipimg::tree::{Kind, Meta, Node, Tree, TreePath};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A path below the root.
pub fn path(path: &str) -> TreePath {
    TreePath::parse_link(path.as_bytes()).unwrap()
}

/// The files of a folder.
pub struct Folder {
    root: PathBuf,
    tree: Tree,
}

impl Folder {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), tree: shipimg::layer::scan(root, None, None).unwrap() }
    }
}

impl Source for Folder {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn content(&self, path: &TreePath) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(std::fs::File::open(self.root.join(path.as_path()))?))
    }

    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Files by path; what is said of one is zeros and then these bytes.
#[derive(Default)]
pub struct Made {
    pub tree: Tree,
    contents: BTreeMap<TreePath, Vec<u8>>,
}

impl Made {
    /// An empty root.
    pub fn new() -> Self {
        let mut made = Self::default();
        made.node("", Kind::Directory, 0, 0o755);
        made
    }

    fn node(&mut self, name: &str, kind: Kind, size: u64, mode: u32) {
        let meta = Meta { mode, ..Meta::default() };
        self.tree.insert(path(name), Node { kind, meta, size, sha256: None, same: None, inode: None });
    }

    pub fn dir(&mut self, name: &str) {
        self.node(name, Kind::Directory, 0, 0o755);
    }

    pub fn link(&mut self, name: &str, target: &str) {
        self.node(name, Kind::Symlink(target.as_bytes().to_vec()), 0, 0o777);
    }

    /// A file with `zeros` before its content.
    pub fn file(&mut self, name: &str, zeros: u64, content: &[u8]) {
        self.node(name, Kind::File, zeros + content.len() as u64, 0o644);
        self.contents.insert(path(name), content.to_vec());
    }
}

impl Source for Made {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn content(&self, path: &TreePath) -> io::Result<Box<dyn Read + '_>> {
        let content = self.contents[path].as_slice();
        let zeros = self.tree[path].size.saturating_sub(content.len() as u64);
        Ok(Box::new(io::repeat(0).take(zeros).chain(content)))
    }

    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A filesystem in a file or on a device, mounted read-only until the value is gone.
pub struct Mounted(pub PathBuf);

impl Mounted {
    pub fn new(image: &Path, kind: &str) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap().keep();
        let mounted = Self(dir);
        ok("mount", &[Path::new("-t"), Path::new(kind), Path::new("-o"), Path::new("ro"), image, &mounted.0]);
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount_below(&self.0);
        let _ = std::fs::remove_dir(&self.0);
    }
}
