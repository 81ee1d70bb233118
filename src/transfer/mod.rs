//! Copies images between registries, archives, folders and the store.
//!
//! ```text
//! Source ─ select ─→ documents, blobs ─ rewrite? ─→ blobs (several at once) → documents → name ─ Sink
//! ```
//!
//! A [`Source`] is one image, index or artifact where it lies now; a [`Sink`] is the place where
//! it shall be, under one name. [`copy`] reads the documents, picks the platforms, moves the
//! blobs that the sink lacks, then the documents from the leaves up, and names the root last:
//! nothing that a name leads to is ever missing. All is copied byte for byte, digests stay,
//! unless a layer's compression is to change or the sink takes OCI documents only; then
//! manifests and indexes are written anew and have other digests (`rewrite`).
//!
//! [`copy_along`] copies into the store and has something made of the layers while they come: a pull
//! and what it is for are one pass.
//!
//! What is hostile is refused here, for every source alike: ambiguous documents, indexes that
//! hold themselves, configurations that do not fit their manifests, foreign layers (unless
//! asked for, and then without credentials). Sources give bytes unverified; sinks check them.

mod archived;
mod copy;
mod index;
mod location;
mod referrers;
mod remote;
mod rewrite;
mod select;
mod stored;

pub use archived::{FromArchive, ToArchive};
pub use copy::{Copied, Options, Platforms, copy, copy_along};
pub use index::{Member, create_index, edit_index};
pub use location::Location;
pub use referrers::push_referrers;
pub use remote::{FromRegistry, ToRegistry};
pub use select::look;
pub use stored::{FromStore, ToStore};

use crate::error::Kind;
use crate::oci::{self, Descriptor, Digest, Platform};
use crate::store::{Exceeded, VerifyError};
use crate::{archive, layer, registry, store};
use std::fmt::Display;
use std::io::{self, Read};

/// What goes wrong with a copy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A document is malformed or breaks a rule.
    #[error("{name}: {source}")]
    Document {
        /// The image.
        name: String,
        /// What is wrong.
        source: oci::Error,
    },
    /// Bytes are not those that a descriptor promises.
    #[error("{name}: {source}")]
    Verify {
        /// The image.
        name: String,
        /// What differs.
        source: VerifyError,
    },
    /// A document that is too large to be read.
    #[error("{name}: {digest} has {size} bytes, the limit of a document is {}", source.most)]
    TooLarge {
        /// The image.
        name: String,
        /// The document.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The limit.
        source: Exceeded,
    },
    /// The image is not made for the platform.
    #[error("{name} has nothing for platform {platform}, only for {}", available.join(", "))]
    NoPlatform {
        /// The image.
        name: String,
        /// The wanted platform.
        platform: Platform,
        /// What there is.
        available: Vec<String>,
    },
    /// A layer that lies elsewhere.
    #[error("{name}: layer {digest} lies outside the registry, at {url:?}, and is not fetched from there")]
    Foreign {
        /// The image.
        name: String,
        /// The layer.
        digest: Digest,
        /// The first of its URLs.
        url: String,
    },
    /// A destination whose digest is another one's.
    #[error("{name} names digest {want}, but what is to be copied there has {got}")]
    OtherDigest {
        /// The destination.
        name: String,
        /// Its digest.
        want: Digest,
        /// The digest of the copy.
        got: Digest,
    },
    /// A place that is none.
    #[error("invalid place {text:?}: {reason}")]
    Location {
        /// As typed.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// An archive with several images, and no word which.
    #[error("{name} holds several images, name one of: {}", names.join(", "))]
    WhichImage {
        /// The archive.
        name: String,
        /// What it holds.
        names: Vec<String>,
    },
    /// An index that has no such member.
    #[error("index {index} has no image {member}")]
    NoMember {
        /// The index.
        index: String,
        /// A digest or platform.
        member: String,
    },
    /// A name that was taken for an index leads to something else.
    #[error("{0} is a single image, not an index")]
    NotIndex(String),
    /// Reading or writing failed.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// A registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An archive or folder of images.
    #[error(transparent)]
    Archive(#[from] archive::Error),
}

/// Result of a copy.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Document { source: oci::Error::Digest { .. }, .. }
            | Self::Verify { .. }
            | Self::TooLarge { .. } => Kind::Integrity,
            Self::Document { source, .. } => source.kind(),
            Self::NoPlatform { .. } | Self::NoMember { .. } => Kind::Missing,
            Self::Foreign { .. } => Kind::Unsupported,
            Self::OtherDigest { .. }
            | Self::Location { .. }
            | Self::WhichImage { .. }
            | Self::NotIndex(_) => Kind::Input,
            Self::Io { source, .. } => Kind::of_io(source),
            Self::Registry(e) => e.kind(),
            Self::Layer(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Archive(e) => e.kind(),
        }
    }

    /// The error that an I/O error from a [`Source`]'s or a verifying reader carries.
    fn of_io(name: &str, action: &'static str, e: io::Error) -> Self {
        let e = match e.downcast::<registry::Error>() {
            Ok(e) => return Self::Registry(e),
            Err(e) => e,
        };
        let e = match e.downcast::<Self>() {
            Ok(e) => return e,
            Err(e) => e,
        };
        match e.downcast::<VerifyError>() {
            Ok(source) => Self::Verify { name: name.to_string(), source },
            Err(source) => Self::Io { action, source },
        }
    }
}

/// A manifest or an index: what it is, and its bytes, which have that digest.
#[derive(Debug, Clone)]
pub struct Content {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a copy tells while it runs, from several threads.
pub enum Event<'a> {
    /// So many blobs of so many bytes in all belong to the image.
    Plan(usize, u64),
    /// The sink has the blob already, or another process has put it there meanwhile.
    Present(&'a Descriptor),
    /// So many bytes of the blob are there, from now or from an earlier attempt.
    Bytes(&'a Descriptor, u64),
    /// The blob is there, whole and verified.
    Done(&'a Descriptor),
    /// The blob's transfer broke off and goes on.
    Retry(&'a Descriptor, &'a dyn Display),
}

/// Who is told of events.
pub type Watch<'a> = &'a (dyn Fn(Event<'_>) + Sync);

/// Opens a blob's content at an offset, as often as needed.
pub type Open<'a> = &'a (dyn Fn(u64) -> Result<Box<dyn Read + Send + 'a>> + Sync);

/// One image, index or artifact where it lies.
pub trait Source: Sync {
    /// Its name, for people.
    fn name(&self) -> String;

    /// The manifest or index that it is.
    ///
    /// # Errors
    /// Where it is not there or cannot be read.
    fn root(&self) -> Result<Content>;

    /// A manifest or index below the root, verified.
    ///
    /// # Errors
    /// Where it is not there or not what the descriptor says.
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>>;

    /// The bytes of a blob from `from` on, not verified. The reader's errors may carry an [`Error`]
    /// or a [`registry::Error`].
    ///
    /// # Errors
    /// Where it is not there.
    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        from: u64,
        watch: Watch<'a>,
    ) -> Result<Box<dyn Read + Send + 'a>>;

    /// A repository of `registry` that is known to hold the blob.
    fn repository(&self, _registry: &str, _blob: &Digest) -> Option<String> {
        None
    }
}

/// How a blob came to be in a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was there.
    Present,
    /// It was transferred.
    Written,
}

/// Where an image shall be, under one name.
pub trait Sink: Sync {
    /// Whether only OCI manifests and indexes can be put there, no Docker ones.
    fn wants_oci(&self) -> bool {
        false
    }

    /// Whether blobs are to be put one after the other, as into a tar: each while its turn is, so
    /// that none waits with an open connection, and always in the same order.
    fn in_order(&self) -> bool {
        false
    }

    /// A document or configuration that the sink has already, verified.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    fn known(&self, _descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// Makes sure that the blob is there, and that it is what the descriptor says. `source` knows
    /// other repositories that hold it.
    ///
    /// # Errors
    /// Where the content is not what the descriptor says, or cannot be written.
    fn put_blob(&self, descriptor: &Descriptor, open: Open<'_>, source: &dyn Source) -> Result<Put>;

    /// Puts a document below the root there; all that it names is there.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn put_document(&self, content: &Content) -> Result<()>;

    /// Puts the root there and gives it its name.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn finish(&self, root: &Content) -> Result<()>;
}
