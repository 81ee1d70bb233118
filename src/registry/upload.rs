//! Pushing to a repository (distribution-spec, "Pushing").
//!
//! A blob goes up in one PUT where it is small, else in chunks by PATCH, each where the last
//! answer says; a server that refuses chunks gets one PUT. After a failure that may pass the
//! upload's location is asked how far it has come, and the content is opened again from there;
//! where it is gone, the upload begins anew. Locations on other hosts are followed without
//! credentials.

use super::client::{Answer, Client};
use super::connection::{redirect_target, retried};
use super::remote::Remote;
use super::retry::Backoff;
use super::send::send;
use super::{Error, Result};
use crate::oci::{Descriptor, Digest};
use reqwest::blocking::RequestBuilder;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Method, StatusCode, Url};
use std::cell::Cell;
use std::io::{self, Read};

/// How much one request carries, in bytes.
const CHUNK: u64 = 64 << 20;
/// The largest chunk that a server may ask for, in bytes.
const LARGEST_CHUNK: u64 = 1 << 30;
/// How often an upload that the registry has forgotten begins anew.
const FORGOTTEN: u32 = 3;
const OCTETS: &str = "application/octet-stream";

/// Opens content at an offset.
pub type Open<'a> = dyn Fn(u64) -> io::Result<Box<dyn Read + Send + 'a>> + 'a;

/// Adds headers and body to a request, and sends it by the client.
type Ask<'a> = dyn Fn(&Url, RequestBuilder, &Client) -> Result<Answer> + 'a;

/// An upload under way.
struct Session {
    location: Url,
    offset: u64,
    chunk: u64,
}

impl Remote {
    /// Whether the repository has the blob.
    ///
    /// # Errors
    /// [`Error::Length`] where it has another length there, and those of the network.
    pub fn has_blob(&self, descriptor: &Descriptor) -> Result<bool> {
        let url = self.upstream_url("blobs", &descriptor.digest.to_string())?;
        match retried(|| self.send_empty(&Method::HEAD, &url)) {
            Ok(answer) => {
                let length = answer.header("content-length").and_then(|l| l.parse().ok());
                match length.filter(|l| *l != descriptor.size) {
                    Some(got) => Err(Error::Length {
                        host: self.host(),
                        digest: descriptor.digest.clone(),
                        size: descriptor.size,
                        got,
                    }),
                    None => Ok(true),
                }
            }
            Err(Error::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether the repository has the manifest or index.
    ///
    /// # Errors
    /// Those of the network.
    pub fn has_document(&self, digest: &Digest) -> Result<bool> {
        let url = self.upstream_url("manifests", &digest.to_string())?;
        let accept = crate::oci::media_type::DOCUMENTS.join(", ");
        let head = || {
            self.ask(&Method::HEAD, &url, &|at, r, client| {
                client.send(at, r.header(reqwest::header::ACCEPT, &accept))
            })
        };
        match retried(head) {
            Ok(_) => Ok(true),
            Err(Error::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Asks the registry to take the blob from another of its repositories; `false` where it does
    /// not, be it that it has not got it there or may not show it.
    ///
    /// # Errors
    /// Those of the network.
    pub fn mount_blob(&self, descriptor: &Descriptor, from: &str) -> Result<bool> {
        let mut url = self.upstream_url("blobs", "uploads/")?;
        url.query_pairs_mut().append_pair("mount", &descriptor.digest.to_string()).append_pair("from", from);
        match retried(|| self.send_empty(&Method::POST, &url)) {
            Ok(answer) if answer.status() == StatusCode::CREATED => Ok(true),
            // An upload has begun instead (distribution-spec, "Mounting a blob"); it is not used.
            Ok(answer) => {
                if let Ok(location) = self.location(&answer, &descriptor.digest) {
                    let _ = self.send_empty(&Method::DELETE, &location);
                }
                Ok(false)
            }
            Err(Error::Unauthorized { .. }) => Ok(false),
            Err(Error::Status { status, .. }) if status.is_client_error() && status != 429 => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Uploads a blob, over as many connections as it takes. `open` opens its content at an
    /// offset, `progress` is told how many bytes have gone; the number may fall.
    ///
    /// # Errors
    /// [`Error::Content`], [`Error::Upload`], and those of the network.
    pub fn upload_blob(
        &self,
        descriptor: &Descriptor,
        open: &Open<'_>,
        progress: &dyn Fn(u64),
    ) -> Result<()> {
        let mut backoff = Backoff::default();
        let mut session = None;
        let mut in_chunks = true;
        let mut forgotten = 0;
        loop {
            let best = session.as_ref().map_or(0, |s: &Session| s.offset);
            let e = match self.advance(&mut session, in_chunks, descriptor, open, progress) {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            if session.as_ref().is_some_and(|s| s.offset > best) {
                backoff.progress();
            }
            // The registry has forgotten the upload, or does not know where it is.
            if let (Error::Status { status: StatusCode::NOT_FOUND, .. }, true) = (&e, session.is_some()) {
                session = None;
                forgotten += 1;
                if forgotten <= FORGOTTEN {
                    tracing::debug!("{e}; the upload of {} begins anew", descriptor.digest);
                    continue;
                }
            }
            let refused =
                matches!(&e, Error::Status { status, .. } if status.is_client_error() || *status == 501);
            if refused && !e.is_transient() && in_chunks && descriptor.size > CHUNK {
                tracing::debug!("{e}; {} goes up in one piece", descriptor.digest);
                (in_chunks, session) = (false, None);
                continue;
            }
            backoff.pause(e)?;
            session = session.and_then(|s| self.resume(s, descriptor));
            // It may have been the answer to the last request that was lost.
            if session.is_none() && self.has_blob(descriptor).is_ok_and(|has| has) {
                return Ok(());
            }
        }
    }

    /// Puts a manifest or an index at `name`, a tag or a digest; gives the subject that the
    /// registry has listed it as a referrer of.
    ///
    /// # Errors
    /// [`Error::Digest`] where the registry took it for something else; those of the network.
    pub fn put_document(&self, document: &Descriptor, bytes: &[u8], name: &str) -> Result<Option<Digest>> {
        let url = self.upstream_url("manifests", name)?;
        let answer = retried(|| {
            self.ask(&Method::PUT, &url, &|at, request, client| {
                client.send(at, request.header(CONTENT_TYPE, &document.media_type).body(bytes.to_vec()))
            })
        })?;
        self.check_taken(&answer, document, "a manifest")?;
        Ok(answer.header("oci-subject").and_then(|d| d.parse().ok()))
    }

    /// Deletes the manifest or index.
    ///
    /// # Errors
    /// [`Error::NoImage`]; [`Error::Status`] 405 where the registry does not allow it.
    pub fn delete_document(&self, digest: &Digest) -> Result<()> {
        let url = self.upstream_url("manifests", &digest.to_string())?;
        retried(|| self.send_empty(&Method::DELETE, &url)).map(|_| ()).map_err(|e| self.no_image(e))
    }

    fn send_empty(&self, method: &Method, url: &Url) -> Result<Answer> {
        self.ask(method, url, &|at, request, client| {
            let bodiless = *method == Method::HEAD || *method == Method::GET;
            let request = if bodiless { request } else { request.header(CONTENT_LENGTH, 0) };
            client.send(at, request)
        })
    }

    fn upstream_url(&self, kind: &str, name: &str) -> Result<Url> {
        let upstream = self.places.upstream();
        Ok(upstream.url(&*upstream.connection()?, kind, name))
    }

    /// Asks the registry itself, never a mirror.
    fn ask(&self, method: &Method, url: &Url, send: &Ask<'_>) -> Result<Answer> {
        let connection = self.places.upstream().connection()?;
        connection.exchange(method, url, &|at, request| send(at, request, &connection.client))
    }

    /// Goes on with an upload to its end.
    fn advance(
        &self,
        session: &mut Option<Session>,
        in_chunks: bool,
        descriptor: &Descriptor,
        open: &Open<'_>,
        progress: &dyn Fn(u64),
    ) -> Result<()> {
        let (digest, size) = (&descriptor.digest, descriptor.size);
        let at = match session {
            Some(at) => at,
            none => none.insert(self.begin(digest)?),
        };
        if at.offset == 0 && (size <= at.chunk || !in_chunks) {
            let url = completed(&at.location, digest);
            let answer = self.send_part(&Method::PUT, &url, None, (0, size), open, progress)?;
            return self.check_taken(&answer, descriptor, "a blob");
        }
        while at.offset < size {
            let end = size.min(at.offset + at.chunk);
            let range = format!("{}-{}", at.offset, end - 1);
            let part = (at.offset, end);
            let answer = self.send_part(&Method::PATCH, &at.location, Some(&range), part, open, progress)?;
            let told = answer.header("range").map(|r| range_end(r).filter(|e| (at.offset..=end).contains(e)));
            at.location = self.location(&answer, digest)?;
            at.offset = match told {
                None => end,
                Some(Some(told)) if told > at.offset => told,
                Some(_) => return Err(self.astray(digest, "the server took nothing of a chunk")),
            };
            progress(at.offset);
        }
        let answer = self.send_empty(&Method::PUT, &completed(&at.location, digest))?;
        self.check_taken(&answer, descriptor, "a blob")
    }

    /// Fails where the registry says that it took other content.
    fn check_taken(&self, answer: &Answer, descriptor: &Descriptor, what: &str) -> Result<()> {
        let got = answer.header("docker-content-digest").and_then(|d| d.parse::<Digest>().ok());
        let want = &descriptor.digest;
        match got.filter(|got| got != want && got.algorithm() == want.algorithm()) {
            Some(got) => {
                let (host, what) = (self.host(), what.to_string());
                Err(Error::Digest { host, what, want: want.clone(), got })
            }
            None => Ok(()),
        }
    }

    fn begin(&self, digest: &Digest) -> Result<Session> {
        let answer = self.send_empty(&Method::POST, &self.upstream_url("blobs", "uploads/")?)?;
        let least = answer.header("oci-chunk-min-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        let location = self.location(&answer, digest)?;
        Ok(Session { location, offset: 0, chunk: CHUNK.max(least).min(LARGEST_CHUNK) })
    }

    /// Where a broken upload stands; `None` where it has to begin anew.
    fn resume(&self, at: Session, descriptor: &Descriptor) -> Option<Session> {
        let answer = retried(|| self.send_empty(&Method::GET, &at.location)).ok()?;
        let offset = answer.header("range").and_then(range_end)?;
        // An empty upload says 0-0 too.
        let offset = if offset == 1 { 0 } else { offset };
        let location = self.location(&answer, &descriptor.digest).unwrap_or(at.location);
        (offset <= descriptor.size).then_some(Session { location, offset, chunk: at.chunk })
    }

    fn send_part(
        &self,
        method: &Method,
        url: &Url,
        range: Option<&str>,
        (from, end): (u64, u64),
        open: &Open<'_>,
        progress: &dyn Fn(u64),
    ) -> Result<Answer> {
        let host = self.host();
        self.ask(method, url, &|at, request, client| {
            let mut request = request.header(CONTENT_TYPE, OCTETS);
            if let Some(range) = range {
                request = request.header(CONTENT_RANGE, range);
            }
            let content = open(from).map_err(|source| Error::Content { host: host.clone(), source });
            let told = Cell::new(from);
            send(client, at, request, &mut content?, end - from, &|n| {
                told.set(from + n);
                progress(told.get());
            })
        })
    }

    /// Where the upload goes on.
    fn location(&self, answer: &Answer, digest: &Digest) -> Result<Url> {
        let location = answer.header("location").ok_or("the server names no place for it");
        location.and_then(|l| redirect_target(answer.url(), l)).map_err(|reason| self.astray(digest, reason))
    }

    fn astray(&self, digest: &Digest, reason: &'static str) -> Error {
        Error::Upload { host: self.host(), digest: digest.clone(), reason }
    }
}

/// The URL that ends an upload. Its query may hold the server's state and is kept.
fn completed(location: &Url, digest: &Digest) -> Url {
    let mut url = location.clone();
    url.query_pairs_mut().append_pair("digest", &digest.to_string());
    url
}

/// How many bytes an upload's Range says to be there: `0-N`, some servers write `bytes=0-N`.
fn range_end(range: &str) -> Option<u64> {
    let span = range.trim().strip_prefix("bytes=").unwrap_or(range.trim());
    let (first, last) = span.split_once('-')?;
    if first != "0" {
        return None;
    }
    last.parse::<u64>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_uploads() {
        for (range, want) in [
            ("0-9", Some(10)),
            ("bytes=0-9", Some(10)),
            (" 0-0", Some(1)),
            ("1-9", None),
            ("0-", None),
            ("0--1", None),
            ("0-18446744073709551615", None),
            ("", None),
        ] {
            assert_eq!(range_end(range), want, "{range}");
        }
    }

    #[test]
    fn the_state_of_a_location_stays() {
        let digest = Digest::of(b"");
        let url = completed(&"http://localhost/up?_state=a%3D%3D".parse().unwrap(), &digest);
        assert!(url.as_str().starts_with("http://localhost/up?_state=a%3D%3D&digest=sha256%3Ae3b0"), "{url}");
    }
}
