//! Filesystem images: a tree of files as a filesystem in a file; and disks with partitions, from
//! which machines start.

pub mod boot;
pub mod erofs;
pub mod explain;
pub mod ext4;
pub mod fat;
pub mod gpt;
mod raw;
mod source;
mod sum;
mod target;

pub use source::Source;
pub use target::Unpublished;

use crate::error::Kind;
use crate::sys;
use crate::tree::TreePath;
use std::io;
use std::path::{Path, PathBuf};

/// What goes wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The wanted size does not hold the tree.
    #[error("{size} bytes are too small, the files need {needed}")]
    TooSmall {
        /// The wanted size in bytes.
        size: u64,
        /// What the tree needs in bytes.
        needed: u64,
    },
    /// No filesystem of the kind can be so large.
    #[error("a filesystem of {size} bytes is too large")]
    TooLarge {
        /// What is wanted, or needed at least, in bytes.
        size: u64,
    },
    /// A file is none that the filesystem holds.
    #[error("{path}: {reason}")]
    Unfit {
        /// The file.
        path: TreePath,
        /// What is in the way.
        reason: &'static str,
    },
    /// The content of a file cannot be read.
    #[error("read {path}: {source}")]
    Content {
        /// The file.
        path: TreePath,
        /// What the system answered.
        source: io::Error,
    },
    /// The source is not what it promised.
    #[error("{0}")]
    Source(#[source] io::Error),
    /// A root has nothing that firmware could start.
    #[error("the root has no boot loader {path}")]
    NoBootLoader {
        /// What was looked for.
        path: TreePath,
    },
    /// The process was asked to end.
    #[error("interrupted")]
    Stopped,
    /// A syscall or a program failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
}

/// Result of work on an image.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } | Self::Content { source, .. } | Self::Source(source) => {
                Kind::of_io(source)
            }
            Self::TooSmall { .. } | Self::TooLarge { .. } => Kind::Input,
            Self::Unfit { .. } => Kind::Unsupported,
            Self::NoBootLoader { .. } => Kind::Missing,
            Self::Stopped => Kind::Internal,
            Self::Sys(e) => e.kind(),
        }
    }
}
