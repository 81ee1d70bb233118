//! Listening, connections, TLS, and the end.

use super::router::{App, router};
use super::stall::Stall;
use super::uploads::Uploads;
use super::{Error, MAX_CONNECTIONS, Options, Result, STALL};
use crate::store::Store;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, crypto::ring};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// How long requests under way may take once the server is told to end.
const GRACE: Duration = Duration::from_secs(5);

/// Serves `store` until SIGINT or SIGTERM comes. `ready` is called once with the URL, when
/// connections are accepted.
///
/// # Errors
/// [`Error`]: what keeps it from starting. Nothing ends it later but a signal.
pub fn run(store: &Store, options: Options, ready: impl FnOnce(&str)) -> Result<()> {
    let tls = options.tls.as_ref().map(|(cert, key)| acceptor(cert, key)).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Start)?;
    let result = runtime.block_on(serve(store, options, tls, ready));
    runtime.shutdown_timeout(GRACE);
    result
}

async fn serve(
    store: &Store,
    options: Options,
    tls: Option<TlsAcceptor>,
    ready: impl FnOnce(&str),
) -> Result<()> {
    let failed = |source| Error::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Start)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Start)?;
    warn_of_strangers(address, &options);
    let uploads = if options.read_only { None } else { Some(Uploads::new(store)?) };
    let app = App::new(store.clone(), address.port(), options.users.map(Arc::new), uploads);
    let router = router(Arc::new(app));
    ready(&format!("{}://{address}", if tls.is_some() { "https" } else { "http" }));

    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accept => accepted,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, tls, watcher) = (router.clone(), tls.clone(), graceful.watcher());
                tokio::spawn(async move {
                    connection(stream, peer, router, tls, watcher).await;
                    drop(place);
                });
            }
            Err(e) => {
                // Out of descriptors, most likely: others will be closed.
                tracing::warn!("accept: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests that were still under way are dropped");
    }
    Ok(())
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<TlsAcceptor>,
    watcher: Watcher,
) {
    let _ = stream.set_nodelay(true);
    let stream = Stall::new(stream);
    let Some(tls) = tls else { return speak(stream, peer, router, watcher).await };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => speak(stream, peer, router, watcher).await,
        Ok(Err(e)) => tracing::info!("{peer}: TLS: {e}"),
        Err(_) => tracing::info!("{peer}: TLS: no handshake"),
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    watcher: Watcher,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(STALL)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(e) = watcher.watch(connection).await {
        tracing::info!("{peer}: {e}");
    }
}

/// Says what strangers may do where they can reach the server.
fn warn_of_strangers(address: SocketAddr, options: &Options) {
    if address.ip().is_loopback() {
        return;
    }
    match (&options.users, &options.tls) {
        (None, _) if options.read_only => {
            tracing::warn!("whoever reaches {address} may pull, see --htpasswd");
        }
        (None, _) => tracing::warn!("whoever reaches {address} may pull and push, see --htpasswd"),
        (Some(_), None) => tracing::warn!("passwords cross the network in the clear, see --tls-cert"),
        (Some(_), Some(_)) => {}
    }
}

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor> {
    let pem = |path: &Path, source| Error::Pem { path: path.to_path_buf(), source };
    let certificate = |source| Error::Certificate { path: cert.to_path_buf(), source };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|e| pem(cert, e))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| pem(key, e))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(certificate)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(certificate)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
