//! A folder as the source of a filesystem.

use crate::disk::{self, Source, ext4};
use crate::layer;
use crate::tree::{Tree, TreePath};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The files of a folder.
struct Folder {
    root: PathBuf,
    tree: Tree,
}

impl Source for Folder {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn content(&self, path: &TreePath) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(File::open(self.root.join(path.as_path()))?))
    }
}

/// Makes the ext4 image `target` of the folder `root`.
///
/// # Errors
/// Those of [`ext4::write`]; a folder that cannot be read.
pub fn image(root: &Path, target: &Path, size: Option<u64>, label: &str) -> disk::Result<ext4::Layout> {
    let scanned = layer::scan(root, None, None);
    let tree = scanned.map_err(|e| disk::Error::Io {
        action: "read",
        path: root.to_path_buf(),
        source: io::Error::other(e),
    })?;
    let size = size.map_or(ext4::Size::Auto { free: None }, ext4::Size::Fixed);
    let options = ext4::Options {
        kind: ext4::Kind::Ext4,
        size,
        label: label.to_string(),
        uuid: [1; 16],
        hash_seed: [1; 16],
        time: 0,
    };
    ext4::write(&Folder { root: root.to_path_buf(), tree }, target, &options)
}
