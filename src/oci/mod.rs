//! Pure values of the OCI and Docker formats, parsed once at the door.
//!
//! A value of these types has been checked: a [`Digest`] is safe as a file name, a
//! [`Reference`] names a registry and a repository, a [`Document`] is a manifest or
//! an index and never both. The JSON itself is read by `oci-spec`; what is added here
//! is what that crate leaves open. Nothing does I/O.

mod descriptor;
mod digest;
mod document;
mod edit;
mod health;
mod image;
mod platform;
mod reference;
mod time;

pub use descriptor::{Compression, Descriptor, media_type};
pub use digest::{Algorithm, Digest, Hasher};
pub use document::{Document, Index, Manifest, document_type};
pub use edit::{Edit, Step};
pub use health::Health;
pub use image::{Image, ImageConfig, Layer};
pub use platform::Platform;
pub use reference::{Match, Name, Reference};
pub use time::{NoSpan, iso8601, parse_rfc3339, rfc3339, rfc5322, span, to_utc};

use crate::error::Kind;

/// What is wrong with a document, a reference or a digest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A digest that is not `sha256:` or `sha512:` and the right number of hex digits.
    #[error("invalid digest {text:?}: {reason}")]
    Digest {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A reference that does not follow the grammar; `at` is a byte offset into `text`.
    #[error("invalid reference {text:?}: {reason} at character {}", at + 1)]
    Reference {
        /// The text as given.
        text: String,
        /// Offset of the first wrong character.
        at: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A platform that is not `os/arch[/variant]`.
    #[error("invalid platform {text:?}: wanted os/arch[/variant]")]
    Platform {
        /// The text as given.
        text: String,
    },
    /// JSON that is not the document it should be.
    #[error("invalid {what}: {source}")]
    Json {
        /// The document.
        what: &'static str,
        /// Where the parser stopped.
        source: serde_json::Error,
    },
    /// A document that breaks a rule of its specification.
    #[error("invalid {what}: {reason}")]
    Document {
        /// The document.
        what: &'static str,
        /// The broken rule.
        reason: String,
    },
    /// An artifact that is no container image.
    #[error("it is no container image: it holds {media_type}")]
    NotImage {
        /// The media type that images do not have.
        media_type: String,
    },
    /// A media type that shipimg does not read.
    #[error("unsupported media type {0:?}")]
    MediaType(String),
}

/// Result of parsing.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure: words of the caller are Input, documents are Integrity.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Digest { .. } | Self::Reference { .. } | Self::Platform { .. } => Kind::Input,
            Self::Json { .. } | Self::Document { .. } => Kind::Integrity,
            Self::NotImage { .. } | Self::MediaType(_) => Kind::Unsupported,
        }
    }
}
