//! The HTTP client of the whole program: its name, how names resolve, what is trusted.
//!
//! Names are resolved without NSS, from /etc/hosts and /etc/resolv.conf; the resolver is set
//! up for the first name that is not `localhost`. Root certificates are those of the
//! platform (`SSL_CERT_FILE` and `SSL_CERT_DIR` replace them) and are loaded for a client that
//! speaks https; another one knows none and costs nothing.

use super::{Error, Result};
use hickory_resolver::TokioResolver;
use reqwest::blocking::{Client, ClientBuilder};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::error::Error as StdError;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

/// A client to configure further; `https` says whether it shall be able to speak that, and
/// `verify` whether certificates are checked.
///
/// # Errors
/// [`Error::NoRoots`], [`Error::Tls`].
pub fn builder(https: bool, verify: bool) -> Result<ClientBuilder> {
    let builder = Client::builder()
        .user_agent(concat!("shipimg/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(Names::default()));
    if https && !verify {
        // Fails where another part of the process has chosen a provider: that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        return Ok(builder.tls_danger_accept_invalid_certs(true));
    }
    let roots = if https { platform_roots()? } else { rustls::RootCertStore::empty() };
    Ok(builder.tls_backend_preconfigured(tls_config(roots)?))
}

fn tls_config(roots: rustls::RootCertStore) -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|source| Error::Tls { source })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn platform_roots() -> Result<rustls::RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    for e in &found.errors {
        tracing::warn!("root certificates: {e}");
    }
    let mut roots = rustls::RootCertStore::empty();
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
