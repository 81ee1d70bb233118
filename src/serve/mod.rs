//! The store as a registry of its own, by the OCI distribution-spec v1.1.
//!
//! Names. The store's names are full (`docker.io/library/alpine:latest`); a path below `/v2/`
//! is not. The repository `NAME`, asked for at `laptop:5000`, means in this order
//!
//! 1. `laptop:5000/NAME`, the *own* name: what was pushed to this server under this address.
//!    The port is always the server's, and all loopback addresses are called `localhost`;
//! 2. `NAME` as a command line would read it: `alpine` and `library/alpine` are
//!    `docker.io/library/alpine`, `quay.io/org/app` is just that;
//! 3. any image whose repository is `NAME`, in whatever registry, where the tag leads to one
//!    image only.
//!
//! So after `shipimg pull alpine && shipimg serve` the neighbours pull `laptop:5000/alpine`.
//! Pushing and deleting concern own names only: no client can replace or remove what the
//! store's owner pulled. A `?ns=HOST` (containerd's mirrors) narrows a pull to that registry.
//!
//! Digests. A manifest is served by digest where an entry of the repository is it, or an index
//! of the repository lists it. What no tag leads to is an entry without a name
//! (`store/nameless.rs`): manifests pushed by digest until an index lists them, and those
//! whose tag has moved or was deleted. Blobs belong to no repository: whoever may read, may read
//! every blob of the store whose digest he knows, and a mount succeeds where the blob exists.
//! There is no authorization per repository that this could circumvent. A blob is deleted
//! only when no entry of `index.json` needs it and no command holds it. What is pushed or asked
//! for by HEAD is held for an hour, so that a `prune` before the manifest comes does not take it.
//!
//! Uploads are files of one scratch folder, hashed while they grow, one writer each; the
//! closing PUT verifies, syncs and renames. They end with the server; those of a killed server
//! are swept by the next command. There is no smallest chunk, hence no `OCI-Chunk-Min-Length`.
//!
//! Limits: [`MAX_CONNECTIONS`] at once, 1024 uploads open, manifests of
//! [`store::Limits::document`]; a connection that brings or takes nothing for
//! [`STALL`] is dropped. HTTP/1.1 only. File work is on blocking threads; a blob is sent in
//! pieces, whatever its size.

mod answer;
mod auth;
mod body;
mod delete;
mod discover;
mod holds;
mod names;
mod pull;
mod push;
mod route;
mod router;
mod server;
mod stall;
mod uploads;
mod walk;

pub use auth::Users;
pub use server::run;

use crate::error::Kind;
use crate::store;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How many connections are served at once; others wait to be accepted.
pub const MAX_CONNECTIONS: usize = 256;

/// How long a connection may bring or take nothing.
pub const STALL: Duration = Duration::from_mins(1);

/// What to serve, and to whom.
#[derive(Debug)]
pub struct Options {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Whether pushes and deletions are refused.
    pub read_only: bool,
    /// Who may use it; `None`: anybody.
    pub users: Option<Users>,
    /// Certificate chain and private key, PEM files; `None`: plain http.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// What keeps the server from serving. What goes wrong with one request is that client's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system answered.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A line of the password file is not `USER:BCRYPT`.
    #[error("{} line {line}: {reason}", path.display())]
    Htpasswd {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// A password file that lets nobody in.
    #[error("{} names no user", .0.display())]
    NoUsers(PathBuf),
    /// A file that is not PEM of the right kind.
    #[error("{}: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not serve.
    #[error("certificate {}: {source}", path.display())]
    Certificate {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// Threads, signals or polling.
    #[error("start the server: {0}")]
    Start(#[source] io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Result of the server.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Listen { source, .. } | Self::Read { source, .. } | Self::Start(source) => {
                Kind::of_io(source)
            }
            Self::Htpasswd { .. } | Self::NoUsers(_) | Self::Pem { .. } | Self::Certificate { .. } => {
                Kind::Input
            }
            Self::Store(e) => e.kind(),
        }
    }
}
