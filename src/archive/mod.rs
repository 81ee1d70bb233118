//! Archives and folders of images, read and written.
//!
//! | kind | read | written | what it is |
//! |---|---|---|---|
//! | `oci` | ✓ | ✓ | a folder: OCI image layout (image-spec, image-layout.md) |
//! | `oci-archive` | ✓ | ✓ | a tar of one |
//! | `docker-archive` | ✓ | ✓ | `docker save`, `podman save`: `manifest.json`, configurations, tars of layers |
//! | `dir` | ✓ | ✓ | a folder: `manifest.json` and blobs by their hex digits (containers/image) |
//! | `rootfs` | ✓ | by [`write_rootfs`] | a tar of files: an image of one layer |
//! | `aci` | ✓ | | appc's image: a tar of `manifest` and `rootfs/` |
//!
//! A [`Reader`] is a source of documents and blobs by descriptor, whatever lies below; a
//! [`Writer`] takes them. Both may be used by several threads. Documents keep their bytes. A
//! docker-archive has no manifest: one of OCI's form is made, whose configuration keeps its
//! bytes and whose layers are the tars as they lie there, so that their digests are the diff ids
//! that the configuration promises. What a reader gives is what lies in the archive: whoever
//! takes it has to read it through [`crate::store::Verified`], or into the store, which does.
//!
//! An archive may be compressed as a whole (gzip, zstd, xz) and may come by a pipe: it is then
//! laid down in a scratch folder first, since it is read at many places. Nothing is extracted:
//! members are found by name in an index of the tar's headers, of which there are a million at most;
//! what else it may cost is told by [`store::Limits`].
//!
//! A writer works beside its target and renames at the end: the target is whole or is not there.
//! A layout that is there already gets blobs first, then its `index.json` is replaced, under a
//! lock. The same puts in the same order give the same bytes: no times, no owners.
//!
//! It does not know registries, nor what is in a store.

mod aci;
mod docker;
mod folder;
mod made;
mod members;
mod reader;
mod spool;
mod tarball;
mod writer;

pub use made::Settings;
pub use reader::{Found, Options, Reader};
pub use spool::Source;
pub use writer::{Target, Writer, write_rootfs};

use crate::error::Kind as ErrorKind;
use crate::layer::{self, Malformed};
use crate::oci::{self, Digest};
use crate::store::{self, Exceeded};
use crate::sys;
use crate::tree::{Refusal, TreePath};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The annotation that holds a name (image-spec, annotations.md), and docker's and containerd's
/// for a full one.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const FULL_NAME: &str = "io.containerd.image.name";

/// A kind of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder, an OCI image layout.
    Oci,
    /// A tar of an OCI image layout.
    OciArchive,
    /// The tar of `docker save`.
    DockerArchive,
    /// A folder with `manifest.json` and blobs.
    Dir,
    /// A tar of files.
    Rootfs,
    /// A tar by the appc specification.
    Aci,
}

impl Kind {
    /// All kinds, as they are called on the command line.
    const NAMES: [(&'static str, Self); 6] = [
        ("oci", Self::Oci),
        ("oci-archive", Self::OciArchive),
        ("docker-archive", Self::DockerArchive),
        ("dir", Self::Dir),
        ("rootfs", Self::Rootfs),
        ("aci", Self::Aci),
    ];

    /// Whether it is a folder.
    #[must_use]
    pub const fn is_folder(self) -> bool {
        matches!(self, Self::Oci | Self::Dir)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Self::NAMES.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name))
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, kind)| *kind).ok_or_else(|| Error::NoKind(text.to_string()))
    }
}

/// What goes wrong with an archive.
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
    /// The archive cannot be read or inflated.
    #[error("read {archive}: {source}")]
    Read {
        /// The archive.
        archive: String,
        /// What the system or the decompressor says.
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("write {archive}: {source}")]
    Write {
        /// The archive.
        archive: String,
        /// What the system or the reader of what was to be written says.
        source: io::Error,
    },
    /// No such kind.
    #[error(
        "no kind of archive is called {0:?}: wanted oci, oci-archive, docker-archive, dir, rootfs or aci"
    )]
    NoKind(String),
    /// It is none of the kinds.
    #[error("{archive} is no archive or folder of images that is known")]
    Unknown {
        /// The file or folder.
        archive: String,
    },
    /// It is not what the caller wants it to be.
    #[error("{archive} cannot be a {kind}: it is a {is}")]
    NotOfKind {
        /// The file or folder.
        archive: String,
        /// What was wanted.
        kind: Kind,
        /// `file` or `folder`.
        is: &'static str,
    },
    /// The tar is malformed.
    #[error("{archive}: at byte {offset} of the tar: {reason}")]
    Tar {
        /// The archive.
        archive: String,
        /// Where the header of the member is.
        offset: u64,
        /// What is wrong.
        reason: Malformed,
    },
    /// A member's name is refused.
    #[error("{archive}: member \"{name}\": {reason}")]
    Name {
        /// The archive.
        archive: String,
        /// The name, escaped.
        name: String,
        /// Why.
        reason: Refusal,
    },
    /// Two members bear one name.
    #[error("{archive}: two members are called {name}")]
    Twice {
        /// The archive.
        archive: String,
        /// The name.
        name: TreePath,
    },
    /// A file is named but not there, or no file.
    #[error("{archive} has no file {name:?}")]
    NoFile {
        /// The archive.
        archive: String,
        /// Its name.
        name: String,
    },
    /// A limit is exceeded.
    #[error("{archive}: {source}")]
    Limit {
        /// The archive.
        archive: String,
        /// Which.
        source: Exceeded,
    },
    /// More members than are read.
    #[error("{archive}: more than {most} members")]
    Members {
        /// The archive.
        archive: String,
        /// How many are.
        most: usize,
    },
    /// A file of it is malformed JSON.
    #[error("{archive}: {name}: {source}")]
    Json {
        /// The archive.
        archive: String,
        /// The file.
        name: String,
        /// Where the parser stopped.
        source: serde_json::Error,
    },
    /// A document of it is malformed.
    #[error("{archive}: {name}: {source}")]
    Document {
        /// The archive.
        archive: String,
        /// The file or digest.
        name: String,
        /// What is wrong.
        source: oci::Error,
    },
    /// A file has another digest than its name or another file says.
    #[error("{archive}: {name} has digest {got}, wanted {want}")]
    Digest {
        /// The archive.
        archive: String,
        /// The file.
        name: String,
        /// The digest promised.
        want: Box<Digest>,
        /// The digest found.
        got: Box<Digest>,
    },
    /// A document or blob is not what its descriptor promises.
    #[error("{archive}: {source}")]
    Verify {
        /// The archive.
        archive: String,
        /// What is wrong.
        source: store::VerifyError,
    },
    /// A feature that is not supported.
    #[error("{archive}: {what}")]
    Unsupported {
        /// The archive.
        archive: String,
        /// Which.
        what: &'static str,
    },
    /// There are several images, or none of the name asked for.
    #[error("{archive} has {}{}", choice(*asked, names), names.join(", "))]
    Choose {
        /// The archive.
        archive: String,
        /// Whether a name was asked for.
        asked: bool,
        /// The names, or digests, that there are.
        names: Vec<String>,
    },
    /// There is something in the way.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// A root filesystem cannot be made or written again.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// A syscall failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
}

/// Result of reading or writing archives.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => ErrorKind::of_io(source),
            // What no system call says is said of the bytes.
            Self::Read { source, .. } | Self::Write { source, .. } => match source.raw_os_error() {
                Some(_) => ErrorKind::of_io(source),
                None => ErrorKind::Integrity,
            },
            Self::NoKind(_)
            | Self::Unknown { .. }
            | Self::NotOfKind { .. }
            | Self::Choose { .. }
            | Self::Exists(_) => ErrorKind::Input,
            Self::Tar { .. }
            | Self::Name { .. }
            | Self::Twice { .. }
            | Self::NoFile { .. }
            | Self::Limit { .. }
            | Self::Members { .. }
            | Self::Json { .. }
            | Self::Digest { .. }
            | Self::Verify { .. } => ErrorKind::Integrity,
            Self::Document { source, .. } => match source.kind() {
                ErrorKind::Unsupported => ErrorKind::Unsupported,
                _ => ErrorKind::Integrity,
            },
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Layer(e) => e.kind(),
            Self::Sys(e) => e.kind(),
        }
    }

    /// For an I/O error of reading that may carry what is wrong with a blob.
    fn read(source: &Source, e: io::Error) -> Self {
        let archive = source.to_string();
        let e = match e.downcast::<store::VerifyError>() {
            Ok(source) => return Self::Verify { archive, source },
            Err(e) => e,
        };
        match e.downcast::<Exceeded>() {
            Ok(source) => Self::Limit { archive, source },
            Err(source) => Self::Read { archive, source },
        }
    }
}

fn choice(asked: bool, names: &[String]) -> &'static str {
    match (names.is_empty(), asked) {
        (true, _) => "no images",
        (_, true) => "no such image, but ",
        (_, false) => "several images: ",
    }
}

fn io_error<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::Io { action, path: path.to_path_buf(), source })
}
