//! What an image is made of: bytes by layer, by directory and by package, and what of them is waste.
//!
//! ```text
//! layers ─ read ─ fold ─┬─ packages ─ report ─┬─ text, JSON
//!          once         │                     ├─ page (HTML)
//!                       └─ which are seen     └─ compare, with another
//! ```
//!
//! A [`Report`] is a value: of an image of the store or a folder, whose files count as one layer.
//! Bytes are those of the contents of regular files, without holes; of a file with several names once.
//! Waste is what a layer has for nothing: files that a later layer hides ([`Fate`]), and contents that
//! the image has already. Memory grows with the number of files, by some 380 bytes for each, and not
//! with their content.

mod checks;
mod compare;
mod directories;
mod fold;
mod packages;
mod page;
mod read;
mod report;

pub use checks::Check;
pub use compare::{Comparison, Difference, Pair};
pub use directories::Directory;
pub use fold::{Fate, File};
pub use page::{compared_page, page};
pub use report::{LayerRow, Report, Sum};

use crate::error::Kind;
use crate::layer::{self, Owners};
use crate::oci::Image;
use crate::store::Store;
use crate::sys;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What goes wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer cannot be read.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// A file cannot be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A report of checks is none.
    #[error("{} is no report of checks: {source}", path.display())]
    Checks {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A syscall failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
}

/// Result of looking at an image.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Layer(e) => e.kind(),
            Self::Io { source, .. } => Kind::of_io(source),
            Self::Checks { .. } => Kind::Input,
            Self::Sys(e) => e.kind(),
        }
    }
}

/// Looks at an image of the store, which is called `name` in the report.
///
/// # Errors
/// [`Error::Layer`].
pub fn image(store: &Store, image: &Image, name: &str) -> Result<Report> {
    let (listings, whole) = read::layers(store, &image.layers)?;
    Ok(Report::of_image(name, image, listings, whole))
}

/// Looks at the files of the folder `root`, which is called `name` in the report.
///
/// # Errors
/// [`Error::Layer`], [`Error::Sys`].
pub fn folder(root: &Path, owners: Option<Arc<Owners>>, name: &str) -> Result<Report> {
    Ok(Report::of_folder(name, read::folder(root, owners)?))
}
