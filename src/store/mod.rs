//! The store: an OCI image layout on disk that other tools can read too.
//!
//! ```text
//! ROOT/oci-layout                 as the image-spec's image-layout.md says
//! ROOT/index.json                 names: each entry's org.opencontainers.image.ref.name
//!                                 is a full reference, docker.io/library/alpine:latest;
//!                                 org.shipimg.tagged when it got it, seconds since 1970;
//!                                 org.shipimg.original what it stands for (`shadow`);
//!                                 org.shipimg.repository whose it is without a name (`nameless`)
//! ROOT/blobs/ALGORITHM/HEX        blobs, read-only, never changed once there
//! ROOT/shipimg/lock               exclusive: replacing index.json, pruning; shared: holding
//! ROOT/shipimg/leases/RANDOM      what a running command holds, locked by it (`lease`)
//! ROOT/shipimg/ingest/ALGO-HEX    a blob that is being written, locked by its writer
//! ROOT/shipimg/damaged/ALGO-HEX   blobs that `fsck --repair` moved away
//! ROOT/shipimg/summaries          what `images` shows, by manifest (`summary`)
//! ROOT/shipimg/verdicts/ALGO-HEX  what was found out about an image (`verdicts`)
//! ROOT/shipimg/caches/NAME        what steps of builds keep (`caches`)
//! ROOT/shipimg/tmp/               scratch folders, each locked by its owner
//! ROOT/shipimg/AREA/              what the rooms above keep here, see [`Area`]
//! ```
//!
//! Invariants: a blob under `blobs/` was whole and had its digest when it was put
//! there (written under `ingest/`, verified, renamed); `index.json` is replaced by
//! rename, after one syncfs, and names only manifests whose blobs are there. A blob goes
//! only in a prune, under the lock, when no entry and no lease leads to it (`gc`): who
//! holds it first and then finds it there keeps it until it has a name. Documents of
//! Docker's kind are kept as they came; `index.json` names OCI shadows of them, which
//! other tools can read. A killed process leaves files in `ingest/` and `leases/` that
//! nobody locks, blobs that nothing names and folders in `tmp/`: the next writer of a blob
//! goes on from the first, the next prune removes the others, the next [`Store::open`]
//! the scratch folders. Readers take no lock and verify what they read. Locks are
//! flock(2)s, held for no longer than it takes to write a line, an index or, for a prune,
//! to read the documents and delete.
//!
//! It does not know registries, layers' contents or containers.

mod backing;
mod blob;
mod caches;
mod fsck;
mod gc;
mod hashed;
mod incoming;
mod index;
mod lease;
mod limits;
mod nameless;
mod results;
mod scratch;
mod shadow;
mod summary;
mod usage;
mod verdicts;

pub use backing::{check_empty, init_btrfs, mount_backing};
pub use blob::{BlobReader, BlobWriter, Ingest, Verified, VerifyError};
pub use caches::{Cache, Owned, Sharing};
pub use fsck::{Damage, Fault};
pub use gc::{Plan, Scope, Survey, Waste};
pub use hashed::Hashed;
pub use index::Entry;
pub use lease::Lease;
pub use limits::{Exceeded, Guarded, Limit, Limits};
pub use results::Kept;
pub use scratch::Scratch;
pub use summary::Summary;
pub use usage::Usage;

use crate::error::Kind;
use crate::oci::{self, Descriptor, Digest, Document, Edit, Image, Platform};
use crate::sys;
use crate::sys::workspace::Workspace;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many indexes may lie in one another before one is taken for hostile.
pub const MAX_INDEX_DEPTH: usize = 4;

/// What goes wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as `write` or `create`.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// No image of this name.
    #[error("no image {name} in the store {}", root.display())]
    NoImage {
        /// The name as typed.
        name: String,
        /// The store.
        root: PathBuf,
    },
    /// The end of a name, or a short digest, means several images.
    #[error("{name} means several images: {}", candidates.join(", "))]
    Ambiguous {
        /// The name as typed.
        name: String,
        /// Full references or digests.
        candidates: Vec<String>,
    },
    /// A blob is named but not there.
    #[error("no blob {digest} in the store {}", root.display())]
    NoBlob {
        /// Its digest.
        digest: Digest,
        /// The store.
        root: PathBuf,
    },
    /// Bytes are not those that the descriptor promises.
    #[error(transparent)]
    Verify(#[from] blob::VerifyError),
    /// No manifest for the platform.
    #[error("image {digest} has nothing for platform {platform}")]
    NoPlatform {
        /// The index.
        digest: Digest,
        /// The wanted platform.
        platform: Platform,
    },
    /// A document is malformed.
    #[error("{digest}: {source}")]
    Document {
        /// Which blob.
        digest: Digest,
        /// What is wrong.
        source: oci::Error,
    },
    /// The folder is no OCI layout.
    #[error("{} is not an OCI image layout: {reason}", root.display())]
    Layout {
        /// The folder.
        root: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A document is larger than [`Limits::document`].
    #[error("document {digest} has {size} bytes, the limit is {}", source.most)]
    TooLarge {
        /// Which blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The limit.
        source: Exceeded,
    },
    /// A syscall failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
}

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } => Kind::of_io(source),
            Self::NoImage { .. } | Self::NoBlob { .. } | Self::NoPlatform { .. } => Kind::Missing,
            Self::Ambiguous { .. } | Self::Layout { .. } => Kind::Input,
            Self::Verify(_) | Self::TooLarge { .. } => Kind::Integrity,
            Self::Document { source, .. } => source.kind(),
            Self::Sys(e) => e.kind(),
        }
    }
}

fn io_error<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::Io { action, path: path.to_path_buf(), source })
}

/// The paths of what lies in the folder `dir`; nothing where it is not there.
fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => io_error("list", dir, read)?.map(|e| Ok(io_error("list", dir, e)?.path())).collect(),
    }
}

/// A part of the store that belongs to one of the rooms above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// Unpacked layers, shared between images (`rootfs/`).
    Layers,
    /// Named bundles (`bundle/`).
    Bundles,
    /// State of containers (`run/`).
    Containers,
    /// Debian packages by hash (`debian/`).
    Packages,
    /// What steps of builds keep (`caches`).
    Caches,
}

impl Area {
    /// Its folder below `shipimg/`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Layers => "layers",
            Self::Bundles => "bundles",
            Self::Containers => "containers",
            Self::Packages => "packages",
            Self::Caches => "caches",
        }
    }

    /// Its folder for a store at `root`, made where missing. The store itself need not be there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn folder(self, root: &Path) -> Result<PathBuf> {
        let dir = root.join("shipimg").join(self.name());
        io_error("create", &dir, fs::create_dir_all(&dir))?;
        Ok(dir)
    }
}

/// An open store.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    limits: Limits,
    /// What this handle waits for; none for most.
    incoming: Option<Arc<incoming::Incoming>>,
}

impl Store {
    /// Opens the store at `root`; makes it where there is nothing yet. A layout that may not be
    /// written to can be read.
    ///
    /// # Errors
    /// [`Error::Io`] without the right to, [`Error::Layout`] where `root` holds a layout of another version.
    pub fn open(root: &Path) -> Result<Self> {
        io_error("create", root, fs::create_dir_all(root))?;
        let root = &io_error("resolve", root, root.canonicalize())?;
        let store = Self { root: root.clone(), limits: Limits::default(), incoming: None };
        let is_layout = store.check_layout()?;
        for dir in ["blobs/sha256", "shipimg/ingest", "shipimg/tmp"] {
            let dir = root.join(dir);
            match fs::create_dir_all(&dir) {
                Err(e) if is_layout && Kind::of_io(&e) == Kind::Privilege => return Ok(store),
                made => io_error("create", &dir, made)?,
            }
        }
        if !is_layout
            && let Err(e) =
                blob::write_atomic(&root.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
            // The first prune of a store that others make at the same moment takes new files away.
            && !store.check_layout()?
        {
            return Err(e);
        }
        sys::workspace::sweep(&root.join("shipimg/tmp"))?;
        Ok(store)
    }

    /// Where shipimg keeps its store when nobody says: `/var/lib/shipimg` for root,
    /// `$XDG_DATA_HOME/shipimg` for others.
    #[must_use]
    pub fn default_root() -> PathBuf {
        if rustix::process::geteuid().is_root() {
            return "/var/lib/shipimg".into();
        }
        let home =
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".local/share");
        std::env::var_os("XDG_DATA_HOME")
            .filter(|d| !d.is_empty())
            .map_or_else(home, PathBuf::from)
            .join("shipimg")
    }

    /// Whether the folder is a layout already.
    fn check_layout(&self) -> Result<bool> {
        let marker = self.root.join("oci-layout");
        let text = match fs::read(&marker) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            text => io_error("read", &marker, text)?,
        };
        let version = serde_json::from_slice::<serde_json::Value>(&text)
            .ok()
            .and_then(|v| v["imageLayoutVersion"].as_str().map(str::to_string));
        if version.as_deref() == Some("1.0.0") {
            return Ok(true);
        }
        let reason = format!("oci-layout has version {version:?}, wanted 1.0.0");
        Err(Error::Layout { root: self.root.clone(), reason })
    }

    /// The store's folder, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The same store, whose images are read within `limits`.
    #[must_use]
    pub const fn within(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What images may cost that are read by this handle.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The folder of `area`, made where missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn area(&self, area: Area) -> Result<PathBuf> {
        area.folder(&self.root)
    }

    /// A scratch folder on the store's filesystem, gone with the value, or with the next
    /// [`Store::open`] should this process be killed.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Sys`].
    pub fn scratch(&self) -> Result<Scratch> {
        Scratch::new(Workspace::beside(&self.root.join("shipimg/tmp/x"))?)
    }

    /// A scratch folder for what becomes no part of the store: where that may only be read, it lies
    /// where temporary files lie.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Sys`].
    pub fn scratch_aside(&self) -> Result<Scratch> {
        match self.scratch() {
            Err(e) if e.kind() == Kind::Privilege => Scratch::new(Workspace::within(&std::env::temp_dir())?),
            made => made,
        }
    }

    /// Reads a whole document, verified.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoBlob`], [`Error::Verify`], [`Error::Io`].
    pub fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let Descriptor { digest, size, .. } = descriptor;
        self.limits.check_document(*size).map_err(|source| Error::TooLarge {
            digest: digest.clone(),
            size: *size,
            source,
        })?;
        let mut bytes = Vec::with_capacity(usize::try_from(descriptor.size).unwrap_or(0));
        let path = self.blob_path(&descriptor.digest);
        self.blob(descriptor)?.read_to_end(&mut bytes).map_err(|e| blob::unwrap_verify("read", &path, e))?;
        Ok(bytes)
    }

    /// The documents of an image, to be changed.
    ///
    /// # Errors
    /// Those of [`Store::document`]; [`Error::Document`].
    pub fn edit(&self, image: &Image) -> Result<Edit> {
        let config = self.document(&image.config_descriptor)?;
        let digest = || image.descriptor.digest.clone();
        Edit::of(&self.document(&image.descriptor)?, &config)
            .map_err(|source| Error::Document { digest: digest(), source })
    }

    /// Reads the image that `descriptor` leads to on `platform`: through indexes to the
    /// manifest, and the configuration.
    ///
    /// # Errors
    /// [`Error::NoPlatform`], [`Error::Document`], and those of [`Store::document`].
    pub fn image(&self, descriptor: &Descriptor, platform: &Platform) -> Result<Image> {
        let mut at = descriptor.clone();
        for _ in 0..MAX_INDEX_DEPTH {
            let bytes = self.document(&at)?;
            let named = |source| Error::Document { digest: at.digest.clone(), source };
            match Document::parse(&bytes, &at.media_type).map_err(named)? {
                Document::Manifest(manifest) => {
                    let config = self.document(&manifest.config)?;
                    return Image::new(at.clone(), manifest, &config).map_err(named);
                }
                Document::Index(index) => {
                    let no_platform =
                        || Error::NoPlatform { digest: at.digest.clone(), platform: platform.clone() };
                    at = index.best(platform).cloned().ok_or_else(no_platform)?;
                }
            }
        }
        let reason = format!("indexes more than {MAX_INDEX_DEPTH} deep");
        Err(Error::Document {
            digest: descriptor.digest.clone(),
            source: oci::Error::Document { what: "index", reason },
        })
    }
}
