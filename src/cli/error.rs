//! The errors of all rooms, their exit codes and the hints that go with them.

use super::unpack::NotEmpty;
use crate::error::Kind;
use crate::{layer, oci, rootfs, store, sys};

/// An error of any room.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Error {
    /// A malformed reference, digest or document.
    Oci(#[from] oci::Error),
    /// The store.
    Store(#[from] store::Error),
    /// A root filesystem.
    Rootfs(#[from] rootfs::Error),
    /// A layer.
    Layer(#[from] layer::Error),
    /// A folder that should be new has something in it.
    NotEmpty(#[from] NotEmpty),
    /// A syscall or an external program.
    Sys(#[from] sys::Error),
    /// Standard output could not be written.
    Output(#[from] std::io::Error),
}

impl Error {
    /// The kind of failure; it decides the exit code.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Oci(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Rootfs(e) => e.kind(),
            Self::Layer(e) => e.kind(),
            Self::NotEmpty(_) => Kind::Input,
            Self::Sys(e) => e.kind(),
            Self::Output(e) => Kind::of_io(e),
        }
    }

    /// A command that can be pasted and may help.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(store::Error::NoImage { name, .. }) => Some(format!("shipimg pull {name}")),
            Self::Rootfs(rootfs::Error::Unsupported { driver: rootfs::DriverKind::Btrfs, .. }) => Some(
                "use --driver overlay, or keep the store and its bundles on btrfs: --root DIR".to_string(),
            ),
            Self::Rootfs(rootfs::Error::NotAnImage(_)) => {
                Some("shipimg mkimg bookworm.img makes one".to_string())
            }
            _ => None,
        }
    }
}
