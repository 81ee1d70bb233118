//! Debian roots: from signed archives to a configured tree, without debootstrap.
//!
//! ```text
//! Archive ─ sources ─→ release (signature) ─→ index (hash) ─→ Universe
//! Universe + wishes ─ plan ─→ packages ─ fetch (hash) ─→ store ─ unpack ─→ tree
//! tree ─ database ─→ as after `dpkg --unpack` ─ configure ─→ as after `dpkg --configure -a`
//! ```
//!
//! [`resolve`] gives the list of packages as a [`Lock`]; from that [`bootstrap`] makes a root.
//!
//! Invariants: nothing of an index or a package is looked at before its hash was compared
//! with what a trusted signature covers; every path of a package is resolved below the
//! root and never through a link out of it; no program of the root runs outside its
//! namespaces. Packages and indexes are kept in the store by hash (`Area::Packages`) and
//! verified again each time.
//!
//! It knows nothing of images: it fills a directory.

mod bootstrap;
mod configure;
pub mod control;
mod database;
pub mod deb;
pub mod fetch;
mod filter;
mod finish;
mod foreign;
mod hook;
pub mod host;
mod index;
pub mod keyring;
mod lists;
pub mod lock;
mod place;
pub mod plan;
pub mod release;
pub mod sbom;
mod solve;
pub mod sources;
mod stand_in;
mod threads;
mod unpack;
pub mod update;
pub mod version;

pub use bootstrap::{Request, arch_of, bootstrap, host_arch, resolve};
pub use filter::Filters;
pub use hook::{Hook, Stage};
pub use host::Settings;
pub use lock::Lock;
pub use plan::Variant;
pub use sources::{Archive, Repo, Snapshot};
pub use update::{Change, changes, update};

use crate::error::Kind;
use crate::{registry, store, sys};
use std::io;
use std::path::{Path, PathBuf};

/// What goes wrong on the way to a root.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as `read`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A server could not be reached.
    #[error("{url}: {}", deepest(source))]
    Http {
        /// The address.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// A download broke off.
    #[error("{url}: {source}")]
    Body {
        /// The address.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// A server answered with an error.
    #[error("{url}: the server answered {status}")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// An address of a kind that is not known.
    #[error("{url}: neither http, https, file nor copy")]
    Scheme {
        /// The address.
        url: String,
    },
    /// A source entry that is not understood.
    #[error("source {line:?}: {reason}")]
    Source {
        /// The entry or address.
        line: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A source entry for which nobody said which keys are trusted.
    #[error("source {line:?} names no keyring")]
    NoSignedBy {
        /// The entry.
        line: String,
    },
    /// The archive has no such suite.
    #[error("no suite {suite} at {uri}")]
    NoSuite {
        /// The suite.
        suite: String,
        /// The archive.
        uri: String,
    },
    /// A keyring file is not there.
    #[error("no keyring {}", path.display())]
    NoKeyring {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A keyring file holds no public key.
    #[error("{} holds no OpenPGP public key", path.display())]
    Keyring {
        /// Which.
        path: PathBuf,
    },
    /// A Release file without a signature.
    #[error("{url} is not signed: {reason}")]
    Unsigned {
        /// Its address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A Release file signed by keys that are not trusted.
    #[error("{url} is not signed by a key of {keyring}")]
    Untrusted {
        /// Its address.
        url: String,
        /// The keyring files.
        keyring: String,
    },
    /// A Release file past its date.
    #[error("{url} expired: valid until {until}")]
    Expired {
        /// Its address.
        url: String,
        /// Its `Valid-Until`.
        until: String,
    },
    /// A Release file that is signed but unusable.
    #[error("{url}: {reason}")]
    Release {
        /// Its address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that is not what was promised.
    #[error("{name} is not what the archive promises: wanted {want}, got {got}")]
    Mismatch {
        /// The address or name.
        name: String,
        /// Promised size and SHA-256.
        want: String,
        /// Found size and SHA-256.
        got: String,
    },
    /// A package that the archive does not have.
    #[error("no package {name} in the archive")]
    NoPackage {
        /// Its name.
        name: String,
    },
    /// A package that the archive has in other versions or suites only.
    #[error("no package {wish} in the archive, it has {has}")]
    NoVersion {
        /// Name, and version or suite, as asked for.
        wish: String,
        /// What there is.
        has: String,
    },
    /// A name that several packages provide.
    #[error("{name} is no package, it is provided by {providers}")]
    Virtual {
        /// The name.
        name: String,
        /// The packages.
        providers: String,
    },
    /// A dependency that nothing meets.
    #[error("cannot satisfy {chain}: {reason}")]
    Unsatisfiable {
        /// Who needs it, and why that is wanted.
        chain: String,
        /// What the archive has instead.
        reason: String,
    },
    /// Two packages that exclude each other.
    #[error("{one} conflicts with {conflict}: {other}")]
    Conflict {
        /// The package with the field, and why it is wanted.
        one: String,
        /// The entry of the field.
        conflict: String,
        /// The other package, and why it is wanted.
        other: String,
    },
    /// A dependency of which no alternative can be had.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Alternatives(
        /// What is in the way of each, the preferred one first.
        Vec<Error>,
    ),
    /// A package file that is malformed or hostile.
    #[error("package {name}: {reason}")]
    Package {
        /// Its file name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Two packages with the same file.
    #[error("packages {one} and {other} both hold {path}")]
    Overlap {
        /// A package.
        one: String,
        /// Another.
        other: String,
        /// The path inside the root.
        path: String,
    },
    /// Packages for a machine that this one cannot run.
    #[error("this machine cannot run programs for {arch}")]
    Foreign {
        /// The architecture.
        arch: String,
    },
    /// A maintainer script, or dpkg, failed inside the root.
    #[error("configuring package {package} failed in {script}: {status}")]
    Configure {
        /// The package.
        package: String,
        /// `preinst`, `postinst`, `trigger` (a postinst called for one), or `dpkg` itself.
        script: &'static str,
        /// How dpkg ended.
        status: String,
        /// The end of the output.
        output: String,
    },
    /// A lock's file that is none.
    #[error("{}: {reason}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A command of the user's failed.
    #[error("hook {stage}={command}: {status}")]
    Hook {
        /// When it ran.
        stage: Stage,
        /// The command.
        command: String,
        /// How it ended.
        status: String,
        /// The end of the output.
        output: String,
    },
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Client(#[from] registry::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A syscall or a program.
    #[error(transparent)]
    Sys(#[from] sys::Error),
}

/// Result of work on a root.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } => Kind::of_io(source),
            Self::Http { .. } | Self::Body { .. } | Self::Status { .. } => Kind::Network,
            Self::Scheme { .. }
            | Self::Source { .. }
            | Self::NoSignedBy { .. }
            | Self::Keyring { .. }
            | Self::Virtual { .. }
            | Self::Lock { .. }
            | Self::Unsatisfiable { .. }
            | Self::Conflict { .. }
            | Self::Alternatives(_) => Kind::Input,
            Self::NoSuite { .. }
            | Self::NoKeyring { .. }
            | Self::NoPackage { .. }
            | Self::NoVersion { .. } => Kind::Missing,
            Self::Unsigned { .. }
            | Self::Untrusted { .. }
            | Self::Expired { .. }
            | Self::Release { .. }
            | Self::Mismatch { .. }
            | Self::Package { .. }
            | Self::Overlap { .. } => Kind::Integrity,
            Self::Foreign { .. } => Kind::Unsupported,
            Self::Configure { .. } | Self::Hook { .. } => Kind::Internal,
            Self::Client(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Sys(e) => e.kind(),
        }
    }
}

/// The innermost cause: what a user can act on, as `Connection refused`.
fn deepest(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Who is told how far the work is. Called from several threads.
pub trait Progress: Sync {
    /// A phase begins; `total` in the phase's own unit, where it is known.
    fn phase(&self, name: &'static str, total: Option<u64>);
    /// So much more is done.
    fn advance(&self, amount: u64);
    /// What is being worked on.
    fn detail(&self, text: &str);
}
