//! Certificates of single registries: containers-certs.d(5) and docker's `certs.d`.
//!
//! ```text
//! {~/.config/containers,/etc/containers,/etc/docker}/certs.d/HOST:PORT/*.crt          CAs
//!                                                           …/NAME.cert, NAME.key     ours
//! ```
//! The first folder that is there counts. Its CAs are trusted beside the platform's, for that
//! host alone; the client certificate is shown to that host alone. Where a `*.crt` is itself
//! the server's certificate, as with one made by `openssl req -x509`, that very certificate is
//! accepted, its name and dates checked, although it calls itself a CA.

use super::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most that one file may hold, in bytes.
const LIMIT: u64 = 1 << 20;

/// What is trusted and shown beside the platform's.
#[derive(Debug, Default)]
pub struct Certificates {
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Certificates {
    /// Those for `host`, as `localhost:5000`; `None` where there is no folder for it.
    ///
    /// # Errors
    /// [`Error::CertificateFile`].
    pub(super) fn find(host: &str) -> Result<Option<Self>> {
        let name = if host == "registry-1.docker.io" { "docker.io" } else { host };
        let named = folders().into_iter().map(|f| f.join(name)).find(|f| f.is_dir());
        named.map(|folder| Self::read(&folder)).transpose()
    }

    fn read(folder: &Path) -> Result<Self> {
        let mut found = Self::default();
        let entries = std::fs::read_dir(folder).map_err(|e| fail(folder, e.to_string()))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => found.roots.extend(certificates(&path)?),
                Some("cert") => {
                    let key = path.with_extension("key");
                    let pem = read(&key)?;
                    let parsed =
                        PrivateKeyDer::from_pem_slice(&pem).map_err(|e| fail(&key, e.to_string()))?;
                    found.own = Some((certificates(&path)?, parsed));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

fn folders() -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let user = var("XDG_CONFIG_HOME").or_else(|| var("HOME").map(|h| h.join(".config")));
    let user = user.map(|d| d.join("containers/certs.d"));
    user.into_iter().chain(["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()]).collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read(path)?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|e| fail(path, e.to_string()))?;
    if found.is_empty() { Err(fail(path, "it holds no certificate".to_string())) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).map_err(|e| fail(path, e.to_string()))?;
    if !size.is_file() || size.len() > LIMIT {
        return Err(fail(path, format!("it is no regular file of at most {LIMIT} bytes")));
    }
    std::fs::read(path).map_err(|e| fail(path, e.to_string()))
}

fn fail(path: &Path, reason: String) -> Error {
    Error::CertificateFile { path: path.to_path_buf(), reason }
}

/// The usual verification, and in addition the very certificates that are given.
#[derive(Debug)]
pub(super) struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    exact: Vec<CertificateDer<'static>>,
}

impl Verifier {
    pub(super) fn new(
        roots: RootCertStore,
        exact: Vec<CertificateDer<'static>>,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Self> {
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Self { usual: usual.map_err(|_| Error::NoRoots)?, exact })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let usual = self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp, now);
        let Err(e) = usual else { return usual };
        // The dates are checked before this one refusal, the signature of the handshake after.
        let is_only_a_ca = match &e {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                other.to_string().contains("CaUsedAsEndEntity")
            }
            _ => false,
        };
        if !is_only_a_ca || !self.exact.iter().any(|c| c == end_entity) {
            return Err(e);
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
