//! An uncompressed layer read in place: its files, and where in the blob their content lies.
//!
//! Only headers are read for that. The blob is hashed meanwhile, and on while its content is used: see
//! [`Indexed::check`].

use super::archive::{Archive, Piece};
use super::stream::Tar;
use super::{Error, Result};
use crate::oci::{Compression, Hasher, Layer};
use crate::store::{self, Store, Verified, VerifyError};
use crate::sys::{Call, signal};
use crate::tree::{Kind, Name, Node, Tree, TreePath};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

/// Bytes that are hashed at once.
const CHUNK: usize = 256 << 10;

/// The files of a layer that is alone in its image.
#[derive(Debug)]
pub struct Indexed {
    /// All files.
    pub tree: Tree,
    blob: Arc<File>,
    /// Of each regular file: where its first byte lies in the blob, and its pieces.
    places: Places,
    hashing: Hashing,
}

type Places = HashMap<TreePath, (u64, Vec<Piece>)>;

/// Reads the headers of the layer; none where it is compressed, or where an entry means something that
/// is not just a file: a whiteout, a name that is there already, a directory that is not described.
/// Nothing that is made of it may be published before [`Indexed::check`] has agreed.
///
/// # Errors
/// Any [`Error`] of a damaged or malformed layer.
pub fn indexed(store: &Store, layer: &Layer) -> Result<Option<Indexed>> {
    if layer.descriptor.layer_compression().map_err(Error::MediaType)? != Compression::None {
        return Ok(None);
    }
    let path = store.blob_path(&layer.descriptor.digest);
    let blob = Arc::new(File::open(&path).call(|| format!("open({})", path.display()))?);
    let hashing = Hashing::start(blob.clone(), layer.clone());
    match index(Archive::new(Tar::in_place(blob.clone(), layer, *store.limits()))) {
        Ok(Some((tree, places))) => Ok(Some(Indexed { tree, blob, places, hashing })),
        Ok(None) => Ok(None),
        // A layer that cannot be read may be a damaged blob: then the digest says so.
        Err(e) => Err(hashing.check().err().unwrap_or(e)),
    }
}

fn index(mut archive: Archive) -> Result<Option<(Tree, Places)>> {
    let (mut tree, mut places) = (Tree::new(), HashMap::new());
    while let Some(entry) = archive.next()? {
        let Name::Entry(path) = entry.name else { return Ok(None) };
        let known = path
            .split()
            .is_none_or(|(parent, _)| tree.get(&parent).is_some_and(|n: &Node| n.kind == Kind::Directory));
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
    Ok(tree.contains_key(&TreePath::root()).then_some((tree, places)))
}

/// A blob that is hashed by a thread of its own, which ends with this.
#[derive(Debug)]
struct Hashing {
    blob: Arc<File>,
    layer: Layer,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
    agreed: OnceLock<()>,
}

impl Hashing {
    fn start(blob: Arc<File>, layer: Layer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (blob, layer, stop) = (blob.clone(), layer.clone(), stop.clone());
            move || hash(&blob, &layer, &stop)
        });
        Self { blob, layer, stop, thread: Mutex::new(Some(thread)), agreed: OnceLock::new() }
    }

    /// Waits for the thread. One who asks again after a failure gets it again.
    fn check(&self) -> Result<()> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.agreed.get().is_none() {
            match thread {
                Some(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                None => hash(&self.blob, &self.layer, &self.stop),
            }?;
            self.agreed.get_or_init(|| ());
        }
        Ok(())
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Compares the blob's digest, and that of its tar where that is another one.
fn hash(blob: &File, layer: &Layer, stop: &AtomicBool) -> Result<()> {
    let mut verified = Verified::new(Whole { blob, at: 0 }, &layer.descriptor);
    let other = layer.diff_id != layer.descriptor.digest;
    let mut hasher = other.then(|| Hasher::new(layer.diff_id.algorithm()));
    let origin = || (&layer.descriptor.digest).into();
    let mut buffer = vec![0; CHUNK];
    loop {
        if stop.load(Ordering::Relaxed) || signal::pending().is_some() {
            return Err(Error::Interrupted { layer: origin() });
        }
        let n = verified.read(&mut buffer).map_err(|e| match e.downcast::<VerifyError>() {
            Ok(v) => Error::Store(store::Error::from(v)),
            Err(source) => Error::Read { layer: origin(), source },
        })?;
        if n == 0 {
            break;
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(&buffer[..n]);
        }
    }
    match hasher.map(Hasher::finish) {
        Some(got) if got != layer.diff_id => {
            Err(Error::DiffId { layer: origin(), want: layer.diff_id.clone(), got })
        }
        _ => Ok(()),
    }
}

/// A file from its start, wherever others read it.
struct Whole<'a> {
    blob: &'a File,
    at: u64,
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.blob.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Indexed {
    /// Waits until the layer is known to be what its digests say.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::DiffId`]; [`Error::Interrupted`].
    pub fn check(&self) -> Result<()> {
        self.hashing.check()
    }

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
