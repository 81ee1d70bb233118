//! Layers: a compressed tar to entries, entries to a directory, and a directory to a tar.
//!
//! ```text
//! blob ─ stream ─ archive ─ stage ─┬─ settle ─ merge → one tree      (unpack, apply_layer)
//!        thread 1   thread 2       └─ settle → a lower of overlayfs  (extract_layer)
//! ```
//!
//! Every layer is extracted into a directory of its own, several at once; then the
//! directories are merged by rename, lowest first. All lookups are relative to open
//! directories and follow no link. Nothing is published before the blob's digest and the
//! diff id of its tar have agreed: [`unpack`] builds beside its target and renames at the
//! end; the target's name never stands for something half-made. What a killed process
//! leaves is removed by the next one that works in the same folder.
//!
//! Files are not synced one by one; who publishes a tree for good calls syncfs once.
//!
//! A tar that is no layer goes into a directory that is in use by [`place`], and files that are copied
//! go by such a tar, [`copy_into`]: what holds for hostile layers holds for them.
//!
//! It does not know image configurations, drivers or mounts.

mod acl;
mod archive;
mod codec;
mod contents;
mod copy;
mod delta;
mod indexed;
mod into;
mod list;
mod merge;
mod node;
mod pax;
mod record;
mod scan;
mod shape;
mod sparse;
mod stage;
mod stream;
mod write;

pub use archive::Malformed;
pub use codec::{Coding, Decoder, Encoder, InvalidCoding};
pub use contents::Contents;
pub use copy::{copy_meta, copy_tree};
pub use delta::{
    check_layer, compression_of, keep_layer, meta, store_layer, write_at, write_delta, write_inserted,
    write_upper, write_whiteout,
};
pub use indexed::{Indexed, indexed};
pub use into::{Owner, Placing, copy_into, place};
pub use list::{Held, entries, list};
pub use node::Owners;
pub use record::{Record, write_record};
pub use scan::{hash_file, manifest, same_content, scan};
pub use shape::{Modes, Shape};
pub use write::{TarWriter, WriteOptions, rewrite, write_tree};
pub(crate) use {
    archive::{number, padding, stored_size},
    pax::parse as parse_pax,
};

use crate::error::Kind;
use crate::oci::{self, Digest, Image, Layer};
use crate::store::{self, Exceeded, Store};
use crate::sys::dir::Dir;
use crate::sys::workspace::Workspace;
use crate::sys::{self, Call, signal};
use crate::tree::{Refusal, TreePath};
use archive::Archive;
use merge::{Below, Settle};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use stage::{Stage, Staged};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::{fmt, io, thread};
use stream::Tar;

/// How to unpack; what a layer may cost says the store, [`Store::limits`].
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How many layers are extracted at once; by default one more than there are processors.
    pub parallel: Option<usize>,
    /// A directory of a layer where those below have a symbolic link to one keeps the link.
    pub keep_dirlinks: bool,
    /// Takes the digests of files as they are written.
    pub contents: Option<Arc<Contents>>,
    /// Takes the owners that cannot be given to files, nor be recorded on them.
    pub owners: Option<Arc<Owners>>,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Layers.
    pub layers: usize,
    /// Entries of all layers.
    pub entries: u64,
    /// Bytes of all layers' tars.
    pub bytes: u64,
}

/// Why an entry is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The root is no directory.
    #[error("the root has to be a directory")]
    Root,
    /// It lies in too many directories.
    #[error("{0}")]
    Depth(#[source] Exceeded),
    /// A path component is a link or a file of the same layer.
    #[error("{0} is not a directory")]
    NotDirectory(TreePath),
    /// A device that overlayfs takes for a whiteout.
    #[error("a character device 0/0 means a whiteout to overlayfs and is not taken from a layer")]
    WhiteoutDevice,
    /// An attribute that overlayfs interprets.
    #[error("attribute {0} is overlayfs' own and not taken from a layer")]
    OverlayAttribute(String),
    /// An opaque marker in a symbolic link.
    #[error("opaque marker in a symbolic link")]
    OpaqueLink,
    /// A hard link to its own name.
    #[error("hard link to itself")]
    LinkToItself,
    /// A hard link to a directory.
    #[error("hard link to the directory {0}")]
    LinkToDirectory(TreePath),
    /// A hard link to a file that is in no layer.
    #[error("hard link to {0}, which does not exist")]
    LinkToNothing(TreePath),
    /// A directory has the name of something else.
    #[error("it is no directory, and there is a directory of that name")]
    IsDirectory,
    /// Something is mounted on what would be replaced.
    #[error("it is a mount point")]
    MountPoint,
    /// An owner that there cannot be.
    #[error("no id {0} is mapped in the user namespace")]
    Unmapped(u32),
    /// A directory would be copied into itself.
    #[error("it is what is copied to, and would be copied into itself")]
    Itself,
    /// A directory that was made is another one at the end.
    #[error("somebody put another directory in its place")]
    Replaced,
    /// A directory was moved away at the same time.
    #[error("it leads out of the root")]
    Escapes,
}

impl Reason {
    /// Whether it is the entry that is wrong, or where it should go.
    const fn kind(&self) -> Kind {
        match self {
            Self::IsDirectory | Self::MountPoint | Self::Unmapped(_) | Self::Replaced | Self::Itself => {
                Kind::Input
            }
            _ => Kind::Integrity,
        }
    }
}

/// What the bytes of a tar are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The layer whose blob has this digest.
    Layer(Digest),
    /// Files that are copied.
    Stream,
}

impl From<&Digest> for Origin {
    fn from(digest: &Digest) -> Self {
        Self::Layer(digest.clone())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Layer(digest) => write!(f, "layer {digest}"),
            Self::Stream => f.write_str("copy"),
        }
    }
}

/// What goes wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The blob is not there, or not what its digest says.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The blob is no layer.
    #[error(transparent)]
    MediaType(oci::Error),
    /// The compressed stream cannot be read.
    #[error("{layer}: {source}")]
    Read {
        /// Of what.
        layer: Origin,
        /// What the decompressor says.
        source: io::Error,
    },
    /// The tar has another digest than the image's configuration says.
    #[error("{layer}: its tar has digest {got}, the configuration says {want}")]
    DiffId {
        /// Of what.
        layer: Origin,
        /// The diff id of the configuration.
        want: Digest,
        /// The digest of the tar.
        got: Digest,
    },
    /// The tar is malformed.
    #[error("{layer}: at byte {offset} of its tar: {reason}")]
    Archive {
        /// Of what.
        layer: Origin,
        /// Where reading stopped.
        offset: u64,
        /// What is wrong.
        reason: Malformed,
    },
    /// An entry's name is refused.
    #[error("{layer}: entry \"{name}\": {reason}")]
    Name {
        /// Of what.
        layer: Origin,
        /// The name, escaped.
        name: String,
        /// Why.
        reason: Refusal,
    },
    /// An entry is refused.
    #[error("{layer}: entry {path}: {reason}")]
    Entry {
        /// Of what.
        layer: Origin,
        /// The entry.
        path: TreePath,
        /// Why.
        #[source]
        reason: Reason,
    },
    /// An entry could not be made.
    #[error("{layer}: entry {path}: {source}")]
    Make {
        /// Of what.
        layer: Origin,
        /// The entry.
        path: TreePath,
        /// The failed call.
        source: sys::Error,
    },
    /// A limit is exceeded.
    #[error("{layer}: {source}")]
    Limit {
        /// Of what.
        layer: Origin,
        /// Which.
        source: Exceeded,
    },
    /// A file that is to become a layer exceeds a limit.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Which limit.
        source: Exceeded,
    },
    /// The process was asked to end.
    #[error("{layer}: interrupted")]
    Interrupted {
        /// Of what.
        layer: Origin,
    },
    /// No tar can hold a file.
    #[error("{path} cannot be in a tar: {reason}")]
    Unwritable {
        /// The file.
        path: TreePath,
        /// Why.
        reason: &'static str,
    },
    /// A tar could not be written.
    #[error("write a tar: {0}")]
    Output(io::Error),
    /// The process was asked to end while it wrote.
    #[error("interrupted")]
    Stopped,
    /// A syscall failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
}

/// Result of reading or making layers.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::MediaType(e) => e.kind(),
            Self::Read { .. }
            | Self::DiffId { .. }
            | Self::Archive { .. }
            | Self::Name { .. }
            | Self::Limit { .. }
            | Self::File { .. } => Kind::Integrity,
            Self::Entry { reason, .. } => reason.kind(),
            Self::Unwritable { .. } => Kind::Unsupported,
            Self::Interrupted { .. } | Self::Stopped => Kind::Internal,
            Self::Output(e) => Kind::of_io(e),
            Self::Make { source, .. } | Self::Sys(source) => source.kind(),
        }
    }
}

/// An error where the process was asked to end.
fn signal_pending() -> Result<()> {
    if signal::pending().is_some() { Err(Error::Stopped) } else { Ok(()) }
}

/// As [`unpack`], with nothing asked for but the owners that files could not get.
///
/// # Errors
/// Those of [`unpack`].
pub fn unpack_owned(store: &Store, image: &Image, rootfs: &Path) -> Result<Arc<Owners>> {
    let owners = Arc::new(Owners::default());
    let options = Options { owners: Some(Arc::clone(&owners)), ..Options::default() };
    unpack(store, image, rootfs, &options)?;
    Ok(owners)
}

/// Unpacks all layers of `image` into the new directory `rootfs`, which must not exist.
///
/// # Errors
/// Any [`Error`]; nothing is left then. `renameat2: File exists` where `rootfs` exists.
pub fn unpack(store: &Store, image: &Image, rootfs: &Path, options: &Options) -> Result<Summary> {
    unpack_chain(store, &image.layers, rootfs, options)
}

/// As [`unpack`], these layers, the lowest first.
///
/// # Errors
/// Those of [`unpack`].
pub fn unpack_chain(store: &Store, layers: &[Layer], rootfs: &Path, options: &Options) -> Result<Summary> {
    let work = Workspace::beside(rootfs)?;
    let dir = Dir::open(work.path())?;
    let summary = if layers.is_empty() {
        dir.mkdir(OsStr::new("0"))?;
        dir.chmod(OsStr::new("0"), 0o755)?;
        Summary::default()
    } else {
        unpack_layers(store, layers, &dir, options)?
    };
    renameat_with(&dir, "0", CWD, rootfs, RenameFlags::NOREPLACE)
        .call(|| format!("renameat2({}, {})", work.path().join("0").display(), rootfs.display()))?;
    Ok(summary)
}

/// Extracts all layers into `work/N`, several at once, and merges them into `work/0`.
fn unpack_layers(store: &Store, layers: &[Layer], work: &Dir, options: &Options) -> Result<Summary> {
    let processors = thread::available_parallelism().map_or(2, usize::from);
    let workers = options.parallel.unwrap_or(processors + 1).clamp(1, layers.len());
    // The largest first, so that none of them is alone at the end.
    let mut order: Vec<usize> = (0..layers.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(layers[i].descriptor.size));
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (done, results) = channel();
        for _ in 0..workers {
            let (done, order, next) = (done.clone(), &order, &next);
            scope.spawn(move || {
                while let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = OsString::from(i.to_string());
                    let staged =
                        new_stage(work, &name).and_then(|dir| stage(store, &layers[i], dir, i == 0, options));
                    if done.send((i, staged)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done);
        let (mut waiting, mut merged) = (BTreeMap::new(), 0);
        let mut summary = Summary { layers: layers.len(), ..Summary::default() };
        for (i, staged) in results {
            let staged = staged.inspect_err(|_| next.store(layers.len(), Ordering::Relaxed))?;
            waiting.insert(i, staged);
            while let Some((staged, bytes)) = waiting.remove(&merged) {
                summary.entries += staged.entries;
                summary.bytes += bytes;
                let outcome = merge_stage(work, &layers[merged], merged, staged);
                outcome.inspect_err(|_| next.store(layers.len(), Ordering::Relaxed))?;
                merged += 1;
            }
        }
        Ok(summary)
    })
}

fn new_stage(work: &Dir, name: &OsStr) -> Result<Dir> {
    work.mkdir(name)?;
    Ok(work.child(name)?)
}

/// Merges `work/N` into `work/0`.
fn merge_stage(work: &Dir, layer: &Layer, n: usize, mut staged: Staged) -> Result<()> {
    let below = work.child(OsStr::new("0"))?;
    let digest = &layer.descriptor.digest;
    if n == 0 {
        return settle_lowest(digest, &staged);
    }
    let name = OsString::from(n.to_string());
    let stage = work.child(&name)?;
    Settle { layer: digest, stage: &stage, below: &below, how: Below::Link }.run(&mut staged)?;
    merge::merge(&stage, &below, &staged, &[])?;
    Ok(work.remove(&name)?)
}

/// The lowest layer has nothing below that its links could lead to.
fn settle_lowest(layer: &Digest, staged: &Staged) -> Result<()> {
    match staged.links.first() {
        None => Ok(()),
        Some((path, target)) => {
            let reason = Reason::LinkToNothing(target.clone());
            Err(Error::Entry { layer: layer.into(), path: path.clone(), reason })
        }
    }
}

/// Extracts one layer into the empty directory `dir` and verifies it; gives the bytes of its tar too.
fn stage(store: &Store, layer: &Layer, dir: Dir, lowest: bool, options: &Options) -> Result<(Staged, u64)> {
    thread::scope(|scope| {
        let mut archive = Archive::new(Tar::open(scope, store, layer)?);
        let mut stage = Stage::new(dir, &layer.descriptor.digest, options, lowest);
        stage.fill(&mut archive)?;
        let bytes = archive.tar.finish()?;
        Ok((stage.finish()?, bytes))
    })
}

/// A layer that [`extract_layer`] has extracted.
#[derive(Debug)]
pub struct Extracted<'a> {
    layer: &'a Layer,
    staged: Staged,
    lowest: bool,
}

/// Extracts one layer into the empty directory `dir`; `lowest` where no layer is below it.
/// [`Extracted::settle`] finishes it, and the caller publishes it.
///
/// # Errors
/// Any [`Error`]; what is in `dir` is then worthless.
pub fn extract_layer<'a>(
    store: &Store,
    layer: &'a Layer,
    dir: &Path,
    lowest: bool,
    options: &Options,
) -> Result<Extracted<'a>> {
    let (staged, _) = stage(store, layer, Dir::open(dir)?, lowest, options)?;
    if lowest {
        settle_lowest(&layer.descriptor.digest, &staged)?;
    }
    Ok(Extracted { layer, staged, lowest })
}

impl Extracted<'_> {
    /// Whether the result fits this one place in an image only: the layer has hard links to
    /// files of those below it, or entries in directories that it does not describe; or it is the
    /// lowest and its whiteouts were left out.
    #[must_use]
    pub fn depends_on_place(&self) -> bool {
        let open = !self.staged.links.is_empty() || self.staged.implicit.iter().any(|p| !p.is_root());
        open || self.lowest && self.staged.hides
    }

    /// Whether the layer describes its root directory.
    #[must_use]
    pub fn describes_root(&self) -> bool {
        self.staged.implicit.first().is_none_or(|p| !p.is_root())
    }

    /// Whether the layer hides something of the layers below.
    #[must_use]
    pub fn hides(&self) -> bool {
        !self.lowest && self.staged.hides
    }

    /// Whether the layer's root is opaque: nothing of the layers below is left.
    #[must_use]
    pub fn hides_all(&self) -> bool {
        self.staged.opaque.contains(&TreePath::root())
    }

    /// Takes from `below`, the tree of all layers below, what the layer in `dir` leaves open, and
    /// writes what it hides of them in overlayfs' own form. Without `below` it leaves nothing open.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn settle(&mut self, dir: &Path, below: Option<&Path>) -> Result<()> {
        let stage = Dir::open(dir)?;
        if let Some(below) = below {
            let (layer, below) = (&self.layer.descriptor.digest, Dir::open(below)?);
            Settle { layer, stage: &stage, below: &below, how: Below::Copy }.run(&mut self.staged)?;
        }
        Ok(self.staged.write_hidden(&stage)?)
    }
}

/// Applies one layer to the directory `root`, which holds the layers below, or nothing where
/// `lowest`.
///
/// # Errors
/// Any [`Error`]; `root` is then worthless.
pub fn apply_layer(store: &Store, layer: &Layer, root: &Path, lowest: bool, options: &Options) -> Result<()> {
    if lowest {
        return extract_layer(store, layer, root, true, options).map(drop);
    }
    // Within the root, for a subvolume is a filesystem of its own to rename(2).
    let below = Dir::open(root)?;
    let before = node::meta_of(&below)?;
    let work = Workspace::within(root)?;
    let stage_dir = Dir::open(work.path())?;
    let (mut staged, _) = stage(store, layer, stage_dir.again()?, false, options)?;
    // A layer that does not describe the root leaves it as it was before the workspace came.
    let describes_root = staged.implicit.first().is_none_or(|p| !p.is_root());
    let digest = &layer.descriptor.digest;
    Settle { layer: digest, stage: &stage_dir, below: &below, how: Below::Link }.run(&mut staged)?;
    let keep = work.path().file_name().unwrap_or_default().to_os_string();
    let own = merge::merge(&stage_dir, &below, &staged, &[&keep])?;
    drop(work);
    Ok(node::finish_file(&below, if describes_root { &own } else { &before })?)
}
