//! What goes into a filesystem image, wherever it lies.

use crate::tree::{Tree, TreePath};
use std::io::{self, Read};

/// The files of a filesystem to be made: all of their names and metadata, and their content.
///
/// A tree knows nothing of the order in which a folder lists its files, nor of their inode
/// numbers: two sources with equal trees and contents give the same image, byte by byte.
pub trait Source {
    /// All files; the root is the empty path, sockets are not among them.
    fn tree(&self) -> &Tree;

    /// The content of the regular file `path`, all of its [`size`](crate::tree::Node::size) bytes.
    ///
    /// # Errors
    /// Those of opening and reading.
    fn content(&self, path: &TreePath) -> io::Result<Box<dyn Read + '_>>;

    /// Whether all that was read is what was promised. It is asked after the last file, before anything
    /// is published.
    ///
    /// # Errors
    /// Why it is not.
    fn check(&self) -> io::Result<()>;
}

/// A tree without regular files, or with empty ones alone, is its own source.
impl Source for Tree {
    fn tree(&self) -> &Tree {
        self
    }

    fn content(&self, _: &TreePath) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(io::empty()))
    }

    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}
