//! Registries: the distribution-spec over HTTP.
//!
//! ```text
//! text ─ Config::resolve ─→ Reference ─ Remote::connect ─┬─ root, document, blob, tags, referrers
//!                                             │          └─ upload_blob, mount_blob, put_document
//!                       places (mirrors, then the registry itself; writes to that alone)
//!                                             │
//!                        connection ─┬─ client ─ http, certs
//!                                    └─ auth ─ credentials ─ login
//! ```
//!
//! What holds here, whatever a registry answers:
//! - **Plain http** is spoken to this machine only (`localhost`, 127.0.0.0/8, `[::1]`), all
//!   others get https with the platform's root certificates (`SSL_CERT_FILE` and
//!   `SSL_CERT_DIR` replace them). A local registry is asked over http first; one that does
//!   not understand it is asked over https. [`Options::tls_verify`] off means: https with
//!   any certificate, then http; so does `insecure` in `registries.conf`, for one registry.
//!   CAs and client certificates in `certs.d` are for their host alone (see `certs`).
//! - **Proxies** are those of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`; never for this machine.
//! - **Credentials** go to the registry's own origin, and to a token realm that is the
//!   registry's own host or, both over https, on the registry's own site (`gitlab.com`
//!   for `registry.gitlab.com`, see `auth`). A redirect never carries them elsewhere.
//!   A realm on another site is asked without them.
//! - **Redirects**: at most ten, never from https to http.
//! - **Sizes**: documents [`Options::document`], token answers 1 MiB, blobs what their
//!   descriptor says. Every byte is hashed before it gets its name.
//! - **Time**: an answer or a body that makes no progress for [`Options::stall`] is given up.
//!   What may pass (resets, truncation, 429, 5xx) is tried five times without progress, with
//!   pauses that grow, are jittered, and follow Retry-After up to a minute. A blob goes on
//!   from the bytes that are there, by Range; they may be from an earlier process.
//! - **Cost**: root certificates are loaded for the first https request, the name resolver
//!   is set up for the first name that is not `localhost` (see [`http`]).
//!
//! It does not read schema 1 manifests, or print.

mod auth;
mod body;
mod certs;
mod client;
mod config;
mod connection;
mod credentials;
mod foreign;
pub mod http;
mod listing;
mod login;
mod places;
mod ranges;
mod remote;
mod retry;
mod send;
mod upload;

pub use body::Retry;
pub use config::{Config, Endpoint};
pub use credentials::Credentials;
pub use foreign::Foreign;
pub use listing::{Found, search};
pub use login::{Kept, Scope, forget_all};
pub use remote::Remote;
pub use upload::Open;

use crate::error::Kind;
use crate::oci::{self, Digest, Reference};
use crate::{store, sys};
use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How a registry is spoken to.
#[derive(Debug, Clone)]
pub struct Options {
    /// Credentials that replace those of the configuration files.
    pub credentials: Option<Credentials>,
    /// Whether certificates are checked and remote registries must speak https.
    pub tls_verify: bool,
    /// How long nothing may come before a request is given up.
    pub stall: Duration,
    /// Over how many connections a large blob is fetched.
    pub connections: usize,
    /// How many bytes a document may have, a manifest or a page of a list.
    pub document: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials: None,
            tls_verify: true,
            stall: Duration::from_secs(30),
            connections: 1,
            document: store::Limits::default().document,
        }
    }
}

/// What goes wrong between here and a registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or no answer.
    #[error("cannot reach {host}: {}", root_cause(source))]
    Unreachable {
        /// Host and port.
        host: String,
        /// What the transport said.
        source: reqwest::Error,
    },
    /// The name leads to no address.
    #[error("no host {host} in the name service")]
    NoSuchHost {
        /// Host and port.
        host: String,
    },
    /// The server's certificate is not trusted.
    #[error("{host} is not trusted: {}", distrust(source))]
    Untrusted {
        /// Host and port.
        host: String,
        /// What is wrong with the certificate.
        source: reqwest::Error,
    },
    /// The server does not speak TLS.
    #[error("{host} does not speak https, and plain http is for registries on this machine only")]
    NoTls {
        /// Host and port.
        host: String,
        /// What the transport said.
        source: reqwest::Error,
    },
    /// There is nothing to check certificates with.
    #[error("no root certificates on this machine, no server can be trusted")]
    NoRoots,
    /// The HTTP client cannot be set up.
    #[error("set up the http client: {}", root_cause(.0))]
    Client(#[source] reqwest::Error),
    /// The TLS library cannot be set up.
    #[error("set up tls: {source}")]
    Tls {
        /// What it said.
        source: rustls::Error,
    },
    /// A body broke off.
    #[error("the connection to {host} broke off: {}", root_cause(source))]
    Broken {
        /// Host and port.
        host: String,
        /// What the transport said.
        source: io::Error,
    },
    /// A body ended early without a word.
    #[error("{host} sent {got} of the {size} bytes of {digest}")]
    Truncated {
        /// Host and port.
        host: String,
        /// Which blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// How many bytes are there.
        got: u64,
    },
    /// No answer or no progress for too long.
    #[error("{host} sent nothing, or next to nothing, for {} s", stall.as_secs())]
    Stalled {
        /// Host and port.
        host: String,
        /// How long was waited.
        stall: Duration,
    },
    /// An HTTP status that means failure.
    #[error("{host} answered {status}{}{}", colon(message), pause_note(*retry_after))]
    Status {
        /// Host and port.
        host: String,
        /// The status line's code and phrase.
        status: reqwest::StatusCode,
        /// The first error message in the body, or nothing.
        message: String,
        /// What Retry-After asks for.
        retry_after: Option<Duration>,
    },
    /// The registry wants credentials, other ones, or a right that they do not give.
    #[error("{host} refused {}: {status}{}{}", refused(host, repository), colon(message), withheld_note(withheld.as_deref()))]
    Unauthorized {
        /// Host and port.
        host: String,
        /// What was asked for.
        repository: String,
        /// 401 or 403.
        status: reqwest::StatusCode,
        /// The first error message in the body, or nothing.
        message: String,
        /// The token realm's host that was not given the credentials.
        withheld: Option<String>,
    },
    /// A challenge or a token that cannot be used.
    #[error("{host}: cannot log in: {reason}")]
    Token {
        /// Host and port of the registry or realm.
        host: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects to {to}: {reason}")]
    Redirect {
        /// Host and port that answered.
        host: String,
        /// The target, without its query.
        to: String,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// An answer to Range with other bytes.
    #[error("{host} answered a request for the bytes of {digest} from {from} on with {}", range.as_deref().unwrap_or("no Content-Range"))]
    Range {
        /// Host and port.
        host: String,
        /// Which blob.
        digest: Digest,
        /// The first byte asked for.
        from: u64,
        /// The Content-Range that came.
        range: Option<String>,
    },
    /// A blob of another length than its descriptor says.
    #[error("{host} has {got} bytes for {digest}, its descriptor says {size}")]
    Length {
        /// Host and port.
        host: String,
        /// Which blob.
        digest: Digest,
        /// The descriptor's size in bytes.
        size: u64,
        /// The server's size in bytes.
        got: u64,
    },
    /// A document above [`Options::document`].
    #[error("{host}, {what}: {source}")]
    Document {
        /// Host and port.
        host: String,
        /// For what.
        what: String,
        /// The limit.
        source: store::Exceeded,
    },
    /// More bytes than are read.
    #[error("{host} sent more than {limit} bytes for {what}")]
    TooLarge {
        /// Host and port.
        host: String,
        /// For what.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Other content than the digest promises.
    #[error("{what}: {host} sent content with digest {got}, wanted {want}")]
    Digest {
        /// Host and port.
        host: String,
        /// The manifest or configuration.
        what: String,
        /// The promised digest.
        want: Digest,
        /// The digest of what came.
        got: Digest,
    },
    /// The registry does not have it.
    #[error("no image {reference} at {host}{}", colon(message))]
    NoImage {
        /// What was asked for.
        reference: Box<Reference>,
        /// Host and port.
        host: String,
        /// The registry's words.
        message: String,
    },
    /// The registry does not have a repository of this name.
    #[error("no repository {registry}/{repository} at {host}{}", colon(message))]
    NoRepository {
        /// The registry, as references call it.
        registry: String,
        /// What was asked for.
        repository: String,
        /// Host and port.
        host: String,
        /// The registry's words.
        message: String,
    },
    /// What is to be sent cannot be read.
    #[error("read what goes to {host}: {source}")]
    Content {
        /// Host and port.
        host: String,
        /// What the reader said.
        source: io::Error,
    },
    /// An upload that goes astray.
    #[error("{host}: upload of {digest}: {reason}")]
    Upload {
        /// Host and port.
        host: String,
        /// Which blob.
        digest: Digest,
        /// What is wrong.
        reason: &'static str,
    },
    /// A list that cannot be read.
    #[error("{host} sent no list of {what}: {source}")]
    Json {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: &'static str,
        /// Where the parser stopped.
        source: serde_json::Error,
    },
    /// A registry that the configuration forbids.
    #[error("{reference}: registries.conf blocks {prefix}")]
    Blocked {
        /// What was asked for.
        reference: Box<Reference>,
        /// The blocked prefix.
        prefix: String,
    },
    /// A `registries.conf` that cannot be used.
    #[error("registries in {}: {reason}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A certificate or key that cannot be used.
    #[error("certificate {}: {reason}", path.display())]
    CertificateFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A reference, of the caller or of the configuration.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// A credential helper that is none, or failed.
    #[error("credential helper {helper:?}: {reason}")]
    Helper {
        /// The helper's name, as configured.
        helper: String,
        /// What is wrong.
        reason: String,
    },
    /// A credentials file that cannot be written.
    #[error("write {}: {source}", path.display())]
    WriteCredentials {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A credentials file that cannot be used.
    #[error("credentials in {}: {reason}", path.display())]
    CredentialsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Credentials on the command line that are none.
    #[error("invalid credentials: wanted USER:PASSWORD")]
    Credentials,
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A syscall or the helper's start failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
}

/// Result of talking to a registry.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unreachable { .. }
            | Self::NoSuchHost { .. }
            | Self::Untrusted { .. }
            | Self::NoTls { .. }
            | Self::Broken { .. }
            | Self::Truncated { .. }
            | Self::Stalled { .. }
            | Self::Status { .. }
            | Self::Token { .. }
            | Self::Redirect { .. }
            | Self::Upload { .. }
            | Self::Range { .. } => Kind::Network,
            Self::NoRoots => Kind::Unsupported,
            Self::Content { source, .. } => content_kind(source),
            Self::Client(_) | Self::Tls { .. } => Kind::Internal,
            Self::Unauthorized { .. } | Self::Blocked { .. } => Kind::Privilege,
            Self::Length { .. }
            | Self::TooLarge { .. }
            | Self::Document { .. }
            | Self::Digest { .. }
            | Self::Json { .. } => Kind::Integrity,
            Self::NoImage { .. } | Self::NoRepository { .. } => Kind::Missing,
            Self::Helper { .. }
            | Self::CredentialsFile { .. }
            | Self::ConfigFile { .. }
            | Self::CertificateFile { .. }
            | Self::Credentials => Kind::Input,
            Self::Oci(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::WriteCredentials { source, .. } => Kind::of_io(source),
            Self::Sys(e) => e.kind(),
        }
    }

    /// Whether the server answered that it does not have it.
    fn is_missing(&self) -> bool {
        let status = match self {
            Self::Status { status, .. } => status.as_u16(),
            _ => 0,
        };
        matches!(self, Self::NoImage { .. } | Self::NoRepository { .. }) || status == 404
    }

    /// Whether the same request may succeed a little later.
    fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Stalled { .. }
            | Self::Truncated { .. } => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

/// The innermost cause: transports wrap theirs in many layers that say nothing.
/// What was refused: a repository, or at a login the registry as a whole.
fn refused(host: &str, repository: &str) -> String {
    if repository == host { "the credentials".to_string() } else { format!("access to {repository}") }
}

/// Why a certificate is not trusted.
fn distrust(e: &reqwest::Error) -> String {
    let cause = root_cause(e);
    if cause.contains("CaUsedAsEndEntity") {
        "its certificate is signed by itself".to_string()
    } else {
        cause
    }
}

fn root_cause(e: &(dyn StdError + 'static)) -> String {
    let mut at = e;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// The kind of a reader's failure: that of what it carries.
fn content_kind(e: &io::Error) -> Kind {
    match e.get_ref() {
        Some(inner) if inner.is::<store::VerifyError>() => Kind::Integrity,
        inner => inner.and_then(|i| i.downcast_ref::<Error>()).map_or_else(|| Kind::of_io(e), Error::kind),
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn pause_note(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |d| format!(", and wants to be asked again in {} s", d.as_secs()))
}

fn withheld_note(realm: Option<&str>) -> String {
    realm.map_or_else(String::new, |r| {
        format!(" (the credentials were not sent to the token server {r}, which is on another site)")
    })
}
