//! The errors of all rooms, their exit codes and the hints that go with them.

use crate::error::Kind;
use crate::{debian, disk, oci, store, sys};

/// An error of any room.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Error {
    /// A malformed reference, digest or document.
    Oci(#[from] oci::Error),
    /// The store.
    Store(#[from] store::Error),
    /// A syscall or an external program.
    Sys(#[from] sys::Error),
    /// A Debian root.
    Debian(#[from] debian::Error),
    /// A filesystem image.
    Disk(#[from] disk::Error),
    /// The arguments of `mkimg`.
    Mkimg(#[from] super::mkimg::Error),
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
            Self::Sys(e) => e.kind(),
            Self::Debian(e) => e.kind(),
            Self::Disk(e) => e.kind(),
            Self::Mkimg(e) => e.kind(),
            Self::Output(e) => Kind::of_io(e),
        }
    }

    /// A command that can be pasted and may help.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(store::Error::NoImage { name, .. }) => Some(format!("shipimg pull {name}")),
            Self::Debian(debian::Error::NoKeyring { path }) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let package =
                    if name.starts_with("ubuntu") { "ubuntu-keyring" } else { "debian-archive-keyring" };
                Some(format!("apt-get install {package}"))
            }
            Self::Disk(disk::Error::Sys(sys::Error::NoProgram { .. })) => {
                Some("apt-get install e2fsprogs".to_string())
            }
            _ => None,
        }
    }
}
