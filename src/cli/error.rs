//! The errors of all rooms, their exit codes and the hints that go with them.

use crate::error::Kind;
use crate::{oci, run, store, sys};

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
    /// A container.
    Run(#[from] run::Error),
    /// A command that was to give a program's exit code did not come that far.
    #[error(transparent)]
    Launch(run::Error),
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
            Self::Run(e) | Self::Launch(e) => e.kind(),
            Self::Output(e) => Kind::of_io(e),
        }
    }

    /// The exit code: by kind, but 125 to 127 where a program's own was expected.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Launch(e) => e.launch_code(),
            other => other.kind().exit_code(),
        }
    }

    /// A command that can be pasted and may help.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(store::Error::NoImage { name, .. }) => Some(format!("shipimg pull {name}")),
            Self::Run(run::Error::NotStopped { id, .. }) => Some(format!("shipimg delete --force {id}")),
            _ => None,
        }
    }
}
