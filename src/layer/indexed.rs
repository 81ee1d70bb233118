//! Layers read and not extracted: the entries of any, and of an uncompressed one its files, and where
//! in the blob their content lies.

use super::archive::{Archive, Piece};
use super::stream::Tar;
use super::{Error, Result};
use crate::oci::{Compression, Layer};
use crate::store::Store;
use crate::sys::Call;
use crate::tree::{Entry, Kind, Name, Node, Tree, TreePath};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// The files of a layer that is alone in its image.
#[derive(Debug)]
pub struct Indexed {
    /// All files.
    pub tree: Tree,
    blob: File,
    /// Of each regular file: where its first byte lies in the blob, and its pieces.
    places: HashMap<TreePath, (u64, Vec<Piece>)>,
}

/// Reads the layer to its end, verified; none where it is compressed, or where an entry means
/// something that is not just a file: a whiteout, a name that is there already, a directory that
/// is not described.
///
/// # Errors
/// Any [`Error`] of a damaged or malformed layer.
pub fn indexed(store: &Store, layer: &Layer) -> Result<Option<Indexed>> {
    if layer.descriptor.layer_compression().map_err(Error::MediaType)? != Compression::None {
        return Ok(None);
    }
    let path = store.blob_path(&layer.descriptor.digest);
    let blob = File::open(&path).call(|| format!("open({})", path.display()))?;
    std::thread::scope(|scope| {
        let mut archive = Archive::new(Tar::open(scope, store, layer)?);
        let (mut tree, mut places) = (Tree::new(), HashMap::new());
        while let Some(entry) = archive.next()? {
            let Name::Entry(path) = entry.name else { return Ok(None) };
            let known = path.split().is_none_or(|(parent, _)| {
                tree.get(&parent).is_some_and(|n: &Node| n.kind == Kind::Directory)
            });
            if !known || tree.contains_key(&path) || entry.kind == Kind::Socket {
                return Ok(None);
            }
            let mut node = Node {
                kind: entry.kind,
                meta: entry.meta,
                size: entry.size,
                sha256: None,
                same: None,
                inode: None,
            };
            node.meta.xattrs.sort();
            if let Kind::Link(target) = &node.kind {
                let target = target.clone();
                let Some(first) = tree.get_mut(&target) else { return Ok(None) };
                let name = first.same.get_or_insert(target).clone();
                node = first.clone();
                if path < name {
                    return Ok(None);
                }
            } else if node.kind == Kind::File {
                places.insert(path.clone(), (archive.tar.position(), archive.pieces().to_vec()));
            }
            tree.insert(path, node);
        }
        if !tree.contains_key(&TreePath::root()) {
            return Ok(None);
        }
        archive.tar.finish()?;
        Ok(Some(Indexed { tree, blob, places }))
    })
}

/// Reads the layer to its end, verified, and gives each of its entries in the order of its tar.
///
/// # Errors
/// Any [`Error`] of a damaged or malformed layer.
pub fn entries(store: &Store, layer: &Layer, each: &mut dyn FnMut(Entry)) -> Result<()> {
    std::thread::scope(|scope| {
        let mut archive = Archive::new(Tar::open(scope, store, layer)?);
        while let Some(entry) = archive.next()? {
            each(entry);
        }
        archive.tar.finish().map(drop)
    })
}

impl Indexed {
    /// The content of the regular file `path`.
    ///
    /// # Errors
    /// Where there is no such file.
    pub fn content(&self, path: &TreePath) -> io::Result<Box<dyn Read + '_>> {
        let node = self.tree.get(path).ok_or(io::ErrorKind::NotFound)?;
        let (begin, pieces) =
            self.places.get(node.same.as_ref().unwrap_or(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Content { blob: &self.blob, pieces, stored: *begin, at: 0, size: node.size }))
    }
}

/// Pieces of a blob with zeros between them.
struct Content<'a> {
    blob: &'a File,
    pieces: &'a [Piece],
    /// Where the first piece lies in the blob.
    stored: u64,
    at: u64,
    size: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (offset, len) = self.pieces.first().copied().unwrap_or((self.size, 0));
            let room = buffer.len();
            let within = |n: u64| room.min(usize::try_from(n).unwrap_or(usize::MAX));
            if self.at < offset {
                let n = within(offset - self.at);
                buffer[..n].fill(0);
                self.at += n as u64;
                return Ok(n);
            }
            let done = self.at - offset;
            if done < len {
                let n = self.blob.read_at(&mut buffer[..within(len - done)], self.stored + done)?;
                self.at += n as u64;
                return if n == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(n) };
            }
            let Some((_, rest)) = self.pieces.split_first() else { return Ok(0) };
            (self.stored, self.pieces) = (self.stored + len, rest);
        }
    }
}
