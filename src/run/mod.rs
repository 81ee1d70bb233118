//! Containers: create, start, execute in, kill, list, delete (OCI runtime-spec 1.2).
//!
//! ```text
//! STORE/shipimg/containers/ID/      locked (flock) by whoever changes the container
//!   state.json                      see [`state::State`]; replaced by rename
//!   config.json                     the bundle's, as it was at `create`
//!   start, report                   fifos, there until the container is started
//!   bundle                          link to a bundle that goes with the container
//!   log.json, attach                what it has printed, and the socket of its keeper
//!   etc/                            files that are mounted into its /etc, see [`network`]
//! ```
//!
//! A launch copies this process once with clone3(2), into all new namespaces at once. The
//! copy (`init`) mounts, drops privileges and executes the program; the parent (`create`)
//! puts it into its control groups meanwhile, since the kernel takes its time for that on
//! cgroup v1. They talk over one socket pair. Nothing here starts a thread, and clone3 is
//! refused in a process that has several.
//!
//! Every path below the container's root is resolved inside that root and mounted by
//! descriptor; after `pivot_root` nothing is opened by path but the program itself. `start`
//! writes one byte into a fifo that init waits on, and reads from the other what went
//! wrong with the execve; its end is closed by a successful one.
//!
//! Invariants: `state.json` is there, with the control groups' paths, before a control
//! group is. A folder that nobody locks and whose state says `creating`, or whose owner
//! (`run`) is gone with the process stopped, is abandoned: the next create, list or delete
//! takes everything away that it names. A pid counts only with its start time and the
//! boot's id. What fails half-way takes back what it made.
//!
//! It will not: resolve user names of config.json, write into the root beyond mount points and devices,
//! run a program of the container's outside of it.

mod attach;
mod begin;
mod caps;
mod cgroup;
mod check;
mod control;
mod copy;
mod create;
mod devices;
mod exec;
mod features;
mod health;
mod hooks;
mod idmap;
mod init;
mod keeper;
mod lifecycle;
mod listener;
mod log;
mod mounts;
mod namespaces;
mod network;
mod notify;
mod options;
mod priority;
mod process;
mod reaper;
mod seccomp;
mod sockets;
pub mod spec;
mod start;
mod state;
mod sync;
mod sysctl;
mod terminal;
mod watch;
mod why;

pub use attach::Left;
pub use copy::Copy;
pub use create::{Launch, id_of};
pub use exec::Exec;
pub use features::features;
pub use health::{Report, Wellness};
pub use keeper::Keep;
pub use lifecycle::{Container, Held, Runtime};
pub use log::{Bounds, Entry, Query, Stream};
pub use notify::Notify;
pub use reaper::reap_if_asked;
pub use sockets::Sockets;
pub use state::{State, Status};
pub use terminal::Exit;

use crate::error::Kind;
use crate::{bundle, layer, store, sys};
use std::io;
use std::path::{Path, PathBuf};

/// What goes wrong with containers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A JSON document is malformed.
    #[error("{}: {source}", path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A field of config.json makes no sense.
    #[error("config.json: {field}: {reason}")]
    Invalid {
        /// Which field.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// Something is asked for that this machine or this runner does not have.
    #[error("{what} is not supported here")]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// A limit of an ordinary user, who has no control group with the controller for it.
    #[error("control group file {file}: no control group with it was handed down to this user")]
    NotHandedDown {
        /// Which file.
        file: String,
    },
    /// Not a container's id.
    #[error("invalid container ID {id:?}: letters, digits and _ + - . only, no more than 255")]
    BadId {
        /// As typed.
        id: String,
    },
    /// The id is taken.
    #[error("container with given ID already exists: {id}")]
    Exists {
        /// Which.
        id: String,
    },
    /// No such container.
    #[error("container does not exist: {id}")]
    NoContainer {
        /// Which.
        id: String,
    },
    /// What is remembered of a container cannot be read.
    #[error("container {id}: {}: {source}", path.display())]
    Damaged {
        /// Which.
        id: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Something of the network is another's.
    #[error("{what} is taken by {by}")]
    Taken {
        /// What.
        what: String,
        /// Whose it is.
        by: String,
    },
    /// The bridge cannot be used as asked for.
    #[error("bridge shipimg0: {reason}")]
    Bridge {
        /// Why.
        reason: String,
    },
    /// Its process has ended.
    #[error("container not running: {id}")]
    NotRunning {
        /// Which.
        id: String,
    },
    /// The container's state does not allow it.
    #[error("cannot {what}: {id}")]
    State {
        /// What was tried.
        what: &'static str,
        /// Which container.
        id: String,
    },
    /// It is to be deleted and its process runs.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped {
        /// Which.
        id: String,
        /// Its state.
        status: Status,
    },
    /// The container's own process could not go on.
    #[error("{message}")]
    Init {
        /// What it said.
        message: String,
        /// Of which kind.
        kind: Kind,
    },
    /// The program could not be executed.
    #[error("exec: {program:?}: {reason}")]
    Exec {
        /// As config.json names it.
        program: String,
        /// Why.
        reason: String,
        /// 127 where it is not there, 126 where it is.
        code: u8,
    },
    /// Something did not end in time.
    #[error("{what} within {seconds} s")]
    Timeout {
        /// What did not happen.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// A hook failed.
    #[error("{point} hook {}: {reason}", path.display())]
    Hook {
        /// Which point of the lifecycle.
        point: &'static str,
        /// The program.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// Something is not copied.
    #[error("{}: {reason}", path.display())]
    Copy {
        /// From or to where.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// Files that are copied.
    #[error(transparent)]
    Layer(Box<layer::Error>),
    /// A syscall failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Its bundle, or a user that it does not know.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
}

/// Result of the runner.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<layer::Error> for Error {
    fn from(e: layer::Error) -> Self {
        Self::Layer(Box::new(e))
    }
}

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } => Kind::of_io(source),
            Self::Unsupported { .. } | Self::NotHandedDown { .. } => Kind::Unsupported,
            Self::NoContainer { .. } | Self::Exec { code: 127, .. } => Kind::Missing,
            Self::Config { .. }
            | Self::Damaged { .. }
            | Self::Invalid { .. }
            | Self::BadId { .. }
            | Self::Taken { .. }
            | Self::Bridge { .. }
            | Self::Exists { .. }
            | Self::State { .. }
            | Self::NotRunning { .. }
            | Self::NotStopped { .. }
            | Self::Copy { .. }
            | Self::Exec { .. } => Kind::Input,
            Self::Init { kind, .. } => *kind,
            Self::Timeout { .. } | Self::Hook { .. } => Kind::Internal,
            Self::Layer(e) => e.kind(),
            Self::Sys(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Bundle(e) => e.kind(),
        }
    }

    /// The exit code of a command that was to give a program's: 127 where the program is
    /// not there, 126 where it cannot be executed, 125 for everything else.
    #[must_use]
    pub fn launch_code(&self) -> u8 {
        match self {
            Self::Exec { code, .. } => *code,
            _ => 125,
        }
    }
}

fn io_error<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::Io { action, path: path.to_path_buf(), source })
}
