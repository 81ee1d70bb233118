//! The files of a root filesystem, from a folder or straight from an uncompressed layer.

use super::{Error, Result};
use crate::disk::Source;
use crate::layer::{self, Indexed, Owners, TarWriter};
use crate::oci::Image;
use crate::store::Store;
use crate::sys::{dir::Dir, signal};
use crate::tree::{Kind, Meta, Node, Time, Tree, TreePath};
use std::io::{self, Read, Write};
use std::path::Path;

/// How many bytes of a file are copied at once.
const CHUNK: usize = 256 << 10;

/// All files of a root filesystem.
#[derive(Debug)]
pub enum Files {
    /// In a folder.
    Folder(Tree, Dir),
    /// In a layer of the store.
    Layer(Box<Indexed>),
}

impl Files {
    /// Those in the folder `root`, of whose owners some may be known better than they tell.
    ///
    /// # Errors
    /// The first failed call.
    pub fn of_folder(root: &Path, owners: Option<&Owners>) -> Result<Self> {
        Ok(Self::Folder(layer::scan(root, None, owners)?, Dir::open(root)?))
    }

    /// Those of an image of one plain layer, without unpacking it; none of others.
    ///
    /// # Errors
    /// Those of [`layer::indexed`].
    pub fn of_image(store: &Store, image: &Image) -> Result<Option<Self>> {
        match image.layers.as_slice() {
            [only] => Ok(layer::indexed(store, only)?.map(|i| Self::Layer(Box::new(i)))),
            _ => Ok(None),
        }
    }

    /// Owner, mode and time of the root.
    #[must_use]
    pub fn root(&self) -> Meta {
        self.tree().get(&TreePath::root()).map_or_else(Meta::default, |n| n.meta.clone())
    }

    /// Adds files that the folder cannot hold; what is there stays.
    pub fn add(&mut self, more: impl IntoIterator<Item = (TreePath, Node)>) {
        if let Self::Folder(tree, _) = self {
            for (path, node) in more {
                tree.entry(path).or_insert(node);
            }
        }
    }

    /// Writes all as a tar, in the order of their names: the same bytes for the same files.
    ///
    /// # Errors
    /// Those of reading and of `out`, of [`Indexed::check`]; [`Error::Stopped`].
    pub fn write_tar(&self, out: &mut dyn Write) -> Result<()> {
        let mut tar = TarWriter::new(out);
        let mut buffer = vec![0; CHUNK];
        for (path, node) in self.tree() {
            if signal::pending().is_some() {
                return Err(Error::Stopped);
            }
            let first = node.same.as_ref().filter(|first| *first != path);
            let link = first.map(|first| Kind::Link(first.clone()));
            let size = if link.is_some() { 0 } else { node.size };
            tar.entry(path, link.as_ref().unwrap_or(&node.kind), &node.meta, size).map_err(Error::Output)?;
            if size > 0 {
                self.copy(path, size, &mut tar, &mut buffer)?;
            }
        }
        tar.finish().map(drop).map_err(Error::Output)?;
        self.whole()
    }

    /// Waits until a layer is known to be what its digest says.
    pub(super) fn whole(&self) -> Result<()> {
        match self {
            Self::Folder(..) => Ok(()),
            Self::Layer(indexed) => Ok(indexed.check()?),
        }
    }

    fn copy(&self, path: &TreePath, size: u64, out: &mut impl Write, buffer: &mut [u8]) -> Result<()> {
        let read = |source| Error::Content { path: path.clone(), source };
        let mut content = self.content(path).map_err(read)?.take(size);
        loop {
            match content.read(buffer).map_err(read)? {
                0 if content.limit() > 0 => return Err(read(io::ErrorKind::UnexpectedEof.into())),
                0 => return Ok(()),
                n => out.write_all(&buffer[..n]).map_err(Error::Output)?,
            }
        }
    }
}

impl Source for Files {
    fn tree(&self) -> &Tree {
        match self {
            Self::Folder(tree, _) => tree,
            Self::Layer(indexed) => &indexed.tree,
        }
    }

    fn content(&self, path: &TreePath) -> io::Result<Box<dyn Read + '_>> {
        match self {
            Self::Folder(_, dir) => {
                let (parent, name) = path.split().ok_or(io::ErrorKind::IsADirectory)?;
                let open = || dir.below(parent.as_path())?.file(name);
                open().map(|f| Box::new(f) as Box<dyn Read>).map_err(io::Error::other)
            }
            Self::Layer(indexed) => indexed.content(path),
        }
    }

    fn check(&self) -> io::Result<()> {
        match self {
            Self::Folder(..) => Ok(()),
            Self::Layer(indexed) => indexed.check().map_err(io::Error::other),
        }
    }
}

/// Files of which one has another content.
pub(super) struct Edited<'a> {
    files: &'a Files,
    tree: Tree,
    path: TreePath,
    bytes: Vec<u8>,
}

impl<'a> Edited<'a> {
    /// `files` with a file of root's of `bytes` at `path`, changed at `time`.
    pub(super) fn new(files: &'a Files, path: &[u8], bytes: Vec<u8>, time: i64) -> Self {
        let path = TreePath::parse(path).unwrap_or_default();
        let mut tree = files.tree().clone();
        let meta = Meta { mode: 0o644, mtime: Time { seconds: time, nanos: 0 }, ..Meta::default() };
        let size = bytes.len() as u64;
        let node = Node { kind: Kind::File, meta, size, sha256: None, same: None, inode: None };
        tree.insert(path.clone(), node);
        Self { files, tree, path, bytes }
    }
}

impl Source for Edited<'_> {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn content(&self, path: &TreePath) -> io::Result<Box<dyn Read + '_>> {
        if *path == self.path { Ok(Box::new(&self.bytes[..])) } else { self.files.content(path) }
    }

    fn check(&self) -> io::Result<()> {
        self.files.check()
    }
}
