//! Downloads: over http, https or from a file, resumed, repeated, checked.
//!
//! A file of known hash goes to `TARGET.part` under a lock and is renamed when size and
//! SHA-256 are right, so that processes that want the same file share one download and a
//! killed one is gone on with.

use super::release::Promise;
use super::{Error, Result};
use crate::registry::{self, http};
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// How often a download is tried.
const TRIES: u32 = 4;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(20);

/// How long nothing may come.
const STALL: Duration = Duration::from_secs(30);

/// The largest file of unknown size that is read, in bytes (an `InRelease` has 150 KB).
const MAX_UNKNOWN: u64 = 16 << 20;

/// A proxy for each scheme; none for a direct connection. This machine is always reached directly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http:` addresses.
    pub http: Option<String>,
    /// For `https:` addresses.
    pub https: Option<String>,
}

/// Fetches files; made once per command, usable from several threads.
#[derive(Debug, Default)]
pub struct Fetcher {
    proxies: Proxies,
    plain: OnceLock<Client>,
    tls: OnceLock<Client>,
    /// Servers to which no connection came about: of several addresses, theirs are the last.
    away: Mutex<HashSet<String>>,
}

impl Fetcher {
    /// A fetcher that goes through `proxies`.
    #[must_use]
    pub fn new(proxies: Proxies) -> Self {
        Self { proxies, ..Self::default() }
    }

    fn client(&self, url: &str) -> Result<&Client> {
        let tls = url.starts_with("https:");
        let cell = if tls { &self.tls } else { &self.plain };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = build(&self.proxies, tls)?;
        Ok(cell.get_or_init(|| client))
    }

    /// Reads a small file of unknown size; `None` where there is none (404).
    ///
    /// # Errors
    /// [`Error::Http`], [`Error::Status`], [`Error::Io`], [`Error::Scheme`].
    pub fn small(&self, url: &str) -> Result<Option<Vec<u8>>> {
        if let Some(path) = local(url)? {
            return match std::fs::read(path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Error::io("read", Path::new(path), e)),
            };
        }
        repeat(|| {
            let response = self.get(url, 0)?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            let body = good(url, response)?;
            body.take(MAX_UNKNOWN)
                .read_to_end(&mut bytes)
                .map_err(|e| Error::Body { url: url.to_string(), source: e })?;
            Ok(Some(bytes))
        })
    }

    fn get(&self, url: &str, from: u64) -> Result<Response> {
        let mut request = self.client(url)?.get(url);
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.send().map_err(|source| Error::Http { url: url.to_string(), source })
    }

    /// Gets the file that `promise` describes to `target`; tells `seen` of each block's bytes.
    /// A file that is there already is taken when it is right, and replaced when it is not.
    ///
    /// # Errors
    /// [`Error::Mismatch`], and those of [`Fetcher::small`].
    pub fn file(&self, url: &str, promise: &Promise, target: &Path, seen: &dyn Fn(u64)) -> Result<()> {
        let part = target.with_extension("part");
        let open = || OpenOptions::new().read(true).append(true).create(true).open(&part);
        let mut file = open().map_err(|e| Error::io("create", &part, e))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| Error::io("lock", &part, e.into()))?;
        if target.exists() {
            let _ = std::fs::remove_file(&part);
            return Ok(());
        }
        // The one who held the lock may have renamed the file that is open here.
        if !part.exists() {
            file = open().map_err(|e| Error::io("create", &part, e))?;
        }
        let mut done = 0;
        repeat(|| {
            let had = file.metadata().map_err(|e| Error::io("stat", &part, e))?.len();
            if had > promise.size {
                file.set_len(0).map_err(|e| Error::io("truncate", &part, e))?;
            }
            self.append(url, promise, &mut file, &part, &mut |n| {
                done += n;
                seen(n);
            })
        })?;
        let checked = check(&mut file, promise, url);
        if checked.is_err() {
            let _ = std::fs::remove_file(&part);
        }
        checked?;
        std::fs::rename(&part, target).map_err(|e| Error::io("rename", &part, e))
    }

    /// As [`Fetcher::file`], from the first of these addresses that gives it whole.
    ///
    /// # Errors
    /// That of the first address where none does.
    pub fn any(&self, urls: &[String], promise: &Promise, target: &Path, seen: &dyn Fn(u64)) -> Result<()> {
        let (mut first, mut left) = (None, urls.to_vec());
        while let Some(url) = self.next(&mut left) {
            match self.file(&url, promise, target, seen) {
                Ok(()) => return Ok(()),
                Err(e) => {
                    tracing::debug!("{e}");
                    if matches!(&e, Error::Http { source, .. } if source.is_connect()) {
                        self.away().insert(server(&url).to_string());
                    }
                    first.get_or_insert(e);
                }
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Takes the first address of a server that answers, or the first one at all.
    fn next(&self, urls: &mut Vec<String>) -> Option<String> {
        let away = self.away();
        let at = urls.iter().position(|url| !away.contains(server(url))).unwrap_or(0);
        (at < urls.len()).then(|| urls.remove(at))
    }

    fn away(&self) -> MutexGuard<'_, HashSet<String>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what is missing of the file; a server that ignores the range starts it again.
    fn append(
        &self,
        url: &str,
        promise: &Promise,
        file: &mut File,
        part: &Path,
        seen: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut have = file.metadata().map_err(|e| Error::io("stat", part, e))?.len();
        if have == promise.size {
            return Ok(());
        }
        let mut body: Box<dyn Read> = if let Some(path) = local(url)? {
            let mut source = File::open(path).map_err(|e| Error::io("open", Path::new(path), e))?;
            source.seek(SeekFrom::Start(have)).map_err(|e| Error::io("seek", Path::new(path), e))?;
            Box::new(source)
        } else {
            let response = good(url, self.get(url, have)?)?;
            if have > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                file.set_len(0).map_err(|e| Error::io("truncate", part, e))?;
                have = 0;
            }
            Box::new(response)
        };
        let mut buffer = vec![0; 128 << 10];
        while have <= promise.size {
            let n = body.read(&mut buffer).map_err(|e| Error::Body { url: url.to_string(), source: e })?;
            if n == 0 {
                break;
            }
            have += n as u64;
            file.write_all(&buffer[..n]).map_err(|e| Error::io("write", part, e))?;
            seen(n as u64);
        }
        if have < promise.size {
            let source = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(Error::Body { url: url.to_string(), source });
        }
        Ok(())
    }
}

/// An address as far as its server.
fn server(url: &str) -> &str {
    let rest = url.find("://").map_or(0, |i| i + 3);
    url[rest..].find('/').map_or(url, |end| &url[..rest + end])
}

fn build(proxies: &Proxies, https: bool) -> registry::Result<Client> {
    let mut builder = http::builder(https, true)?.connect_timeout(CONNECT).timeout(STALL).no_proxy();
    let direct = reqwest::NoProxy::from_string("localhost,127.0.0.0/8,::1");
    if let Some(proxy) = &proxies.http {
        let proxy = reqwest::Proxy::http(proxy).map_err(registry::Error::Client)?;
        builder = builder.proxy(proxy.no_proxy(direct.clone()));
    }
    if let Some(proxy) = &proxies.https {
        let proxy = reqwest::Proxy::https(proxy).map_err(registry::Error::Client)?;
        builder = builder.proxy(proxy.no_proxy(direct));
    }
    builder.build().map_err(registry::Error::Client)
}

/// The path of a `file:` or `copy:` address; none for one of the network.
fn local(url: &str) -> Result<Option<&str>> {
    for scheme in ["file:", "copy:"] {
        if let Some(path) = url.strip_prefix(scheme) {
            return Ok(Some(path.strip_prefix("//").unwrap_or(path)));
        }
    }
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok(None);
    }
    Err(Error::Scheme { url: url.to_string() })
}

fn good(url: &str, response: Response) -> Result<Response> {
    if response.status().is_success() {
        return Ok(response);
    }
    Err(Error::Status { url: url.to_string(), status: response.status().as_u16() })
}

/// Tries again after what may pass: connections, broken bodies, answers of 429 and 5xx.
fn repeat<T>(mut action: impl FnMut() -> Result<T>) -> Result<T> {
    for n in 1.. {
        match action() {
            Err(e) if n < TRIES && passes(&e) => {
                tracing::debug!("{e}: again");
                std::thread::sleep(Duration::from_millis(200 << n));
            }
            other => return other,
        }
    }
    unreachable!("the loop returns")
}

fn passes(e: &Error) -> bool {
    match e {
        Error::Http { .. } | Error::Body { .. } => true,
        Error::Status { status, .. } => *status == 429 || *status >= 500,
        _ => false,
    }
}

/// Compares a file with its promise, from its beginning; leaves it at its beginning.
///
/// # Errors
/// [`Error::Mismatch`] with `name` in it, [`Error::Io`].
pub fn check(file: &mut File, promise: &Promise, name: &str) -> Result<()> {
    let io = |e| Error::io("read", Path::new(name), e);
    file.rewind().map_err(io)?;
    let mut reader = Hashing::new(&*file);
    let mut buffer = vec![0; 256 << 10];
    while reader.read(&mut buffer).map_err(io)? > 0 {}
    reader.compare(promise, name)?;
    file.rewind().map_err(io)
}

/// Hashes and counts what is read through it.
pub(super) struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    size: u64,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new(), size: 0 }
    }

    /// Compares what was read so far.
    pub(super) fn compare(self, promise: &Promise, name: &str) -> Result<()> {
        matches(name, promise, &hex(&self.hasher.finalize()), self.size)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.size += n as u64;
        Ok(n)
    }
}

fn matches(name: &str, promise: &Promise, got: &str, size: u64) -> Result<()> {
    if got == promise.sha256 && size == promise.size {
        return Ok(());
    }
    let (want, got) = (format!("{} bytes, {}", promise.size, promise.sha256), format!("{size} bytes, {got}"));
    Err(Error::Mismatch { name: name.to_string(), want, got })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_are_away_come_last() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        std::fs::write(&source, "hello").unwrap();
        let promise = Promise { sha256: hex(&Sha256::digest("hello")), size: 5 };
        // A port that nobody listens at any more.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let urls = [format!("http://127.0.0.1:{port}/x"), format!("file://{}", source.display())];
        let fetcher = Fetcher::default();
        fetcher.any(&urls, &promise, &dir.path().join("one"), &|_| ()).unwrap();
        assert!(fetcher.away().contains(&format!("http://127.0.0.1:{port}")));
        let mut left = urls.to_vec();
        assert_eq!(fetcher.next(&mut left), Some(urls[1].clone()));
        assert_eq!(fetcher.next(&mut left), Some(urls[0].clone()), "but come");
        assert_eq!(fetcher.next(&mut left), None);
    }

    #[test]
    fn takes_local_files_whole() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        std::fs::write(&source, "hello world").unwrap();
        let url = format!("file://{}", source.display());
        let sha256 = hex(&Sha256::digest("hello world"));
        let promise = Promise { sha256, size: 11 };
        let fetcher = Fetcher::default();
        let target = dir.path().join("target");
        std::fs::write(target.with_extension("part"), "hello").unwrap();
        fetcher.file(&url, &promise, &target, &|n| assert_eq!(n, 6)).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "hello world");
        let other = Promise { size: 10, ..promise };
        let e = fetcher.file(&url, &other, &dir.path().join("x"), &|_| ()).unwrap_err();
        assert!(matches!(e, Error::Mismatch { .. }), "{e}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no part left");
        assert!(fetcher.small("file:/nowhere/at/all").unwrap().is_none());
        assert!(matches!(fetcher.small("ftp://x"), Err(Error::Scheme { .. })));
    }
}
