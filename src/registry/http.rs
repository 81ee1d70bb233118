//! The HTTP client of the whole program: its name, how names resolve, what is trusted.
//!
//! Names are resolved without NSS, from /etc/hosts and /etc/resolv.conf; the resolver is set
//! up for the first name that is not `localhost`. Root certificates are those of the
//! platform (`SSL_CERT_FILE` and `SSL_CERT_DIR` replace them) and are loaded for a client that
//! speaks https; another one knows none and costs nothing.

use super::certs::{Certificates, Verifier};
use super::{Error, Result};
use hickory_resolver::TokioResolver;
use reqwest::blocking::{Client, ClientBuilder};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use std::error::Error as StdError;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

/// A client to configure further; `https` says whether it shall be able to speak that, and
/// `verify` whether certificates are checked.
///
/// # Errors
/// [`Error::NoRoots`], [`Error::Tls`].
pub fn builder(https: bool, verify: bool) -> Result<ClientBuilder> {
    builder_with(https, verify, None)
}

/// As [`builder`], with certificates for the one host that the client is for.
pub(super) fn builder_with(
    https: bool,
    verify: bool,
    certificates: Option<Certificates>,
) -> Result<ClientBuilder> {
    let builder = Client::builder()
        .user_agent(concat!("shipimg/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(Names::default()));
    if https && !verify {
        // Fails where another part of the process has chosen a provider: that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        return Ok(builder.tls_danger_accept_invalid_certs(true));
    }
    let config = match certificates {
        Some(certificates) => tls_config_with(certificates)?,
        None => tls_config(if https { platform_roots()? } else { RootCertStore::empty() })?,
    };
    Ok(builder.tls_backend_preconfigured(config))
}

fn tls_config(roots: RootCertStore) -> Result<ClientConfig> {
    Ok(versions(provider())?.with_root_certificates(roots).with_no_client_auth())
}

fn tls_config_with(certificates: Certificates) -> Result<ClientConfig> {
    let mut roots = match platform_roots() {
        Err(Error::NoRoots) if !certificates.roots.is_empty() => RootCertStore::empty(),
        other => other?,
    };
    roots.add_parsable_certificates(certificates.roots.iter().cloned());
    let verifier = Verifier::new(roots, certificates.roots, provider())?;
    let builder = versions(provider())?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    match certificates.own {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|source| Error::Tls { source })
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn versions(provider: Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.map_err(|source| Error::Tls { source })
}

fn platform_roots() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    for e in &found.errors {
        tracing::warn!("root certificates: {e}");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Error::NoRoots);
    }
    Ok(roots)
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// The name servers know no address.
#[derive(Debug, thiserror::Error)]
#[error("no such name")]
pub(super) struct NoSuchName;

/// Resolves names without NSS; `localhost` without any file.
#[derive(Debug, Default)]
struct Names {
    resolver: Arc<OnceLock<TokioResolver>>,
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = Arc::clone(&self.resolver);
        Box::pin(async move {
            if name.as_str() == "localhost" {
                let local = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()];
                return Ok(Box::new(local.into_iter()) as Addrs);
            }
            if resolver.get().is_none() {
                let made =
                    TokioResolver::builder_tokio().map_err(|e| format!("/etc/resolv.conf: {e}"))?.build()?;
                let _ = resolver.set(made);
            }
            let Some(resolver) = resolver.get() else { return Err("no resolver".into()) };
            let found = resolver.lookup_ip(name.as_str()).await.map_err(|e| -> BoxError {
                if e.is_no_records_found() { Box::new(NoSuchName) } else { Box::new(e) }
            })?;
            let found: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
