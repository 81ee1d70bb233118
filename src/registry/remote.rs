//! One repository of one registry: its documents and blobs, by digest.

use super::auth::Auth;
use super::client::{Answer, Client, host_port, is_local};
use super::retry::Backoff;
use super::{Error, Options, Result};
use crate::oci::{Descriptor, Digest, Document, Hasher, Manifest, Platform, Reference, media_type};
use crate::store::{BlobWriter, MAX_DOCUMENT};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE};
use reqwest::{Method, StatusCode, Url};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;
/// How many indexes may lie in one another.
const MAX_INDEX_DEPTH: usize = 4;
/// How much of a blob is read at once, in bytes.
const CHUNK: usize = 128 << 10;

/// A repository that can be read.
#[derive(Debug)]
pub struct Remote {
    client: Client,
    auth: Auth,
    base: Url,
    reference: Reference,
}

/// An image's manifest as the registry has it.
#[derive(Debug)]
pub struct Fetched {
    /// Its descriptor, as the registry's index or answer names it.
    pub descriptor: Descriptor,
    /// Its bytes, verified.
    pub bytes: Vec<u8>,
    /// What it says.
    pub manifest: Manifest,
}

impl Remote {
    /// The repository of `reference`. Makes a connection only where it has to find out
    /// whether the registry speaks https.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Untrusted`], [`Error::Stalled`].
    pub fn connect(reference: &Reference, options: &Options) -> Result<Self> {
        let client = Client::new(options);
        let host = match reference.registry() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let url = |scheme: &str| {
            format!("{scheme}://{host}/v2/").parse::<Url>().map_err(|_| Error::Redirect {
                host: reference.registry().to_string(),
                to: format!("{scheme}://{host}/v2/"),
                reason: "it is no URL",
            })
        };
        let (http, https) = (url("http")?, url("https")?);
        let base = match (is_local(&http), options.tls_verify) {
            (true, _) => first_that_answers(&client, [http, https])?,
            (false, true) => https,
            (false, false) => first_that_answers(&client, [https, http])?,
        };
        let auth = Auth::new(reference.registry(), reference.repository(), options.credentials.clone());
        Ok(Self { client, auth, base, reference: reference.clone() })
    }

    /// Host and port.
    #[must_use]
    pub fn host(&self) -> String {
        host_port(&self.base)
    }

    /// The manifest that the reference leads to on `platform`, through indexes.
    ///
    /// # Errors
    /// [`Error::NoImage`], [`Error::NoPlatform`], [`Error::Digest`], [`Error::Document`], and
    /// those of the network.
    pub fn manifest(&self, platform: &Platform) -> Result<Fetched> {
        let (media, bytes) = match self.reference.digest() {
            Some(digest) => self.document(digest, None)?,
            None => self.document_at(self.reference.tag().unwrap_or("latest"))?,
        };
        let mut at = match self.reference.digest() {
            Some(digest) => Descriptor::new(media, digest.clone(), bytes.len() as u64),
            None => Descriptor::of(&media, &bytes),
        };
        let mut bytes = bytes;
        for _ in 0..MAX_INDEX_DEPTH {
            let document = Document::parse(&bytes, &at.media_type).map_err(|e| self.malformed(e))?;
            let index = match document {
                Document::Manifest(manifest) => {
                    at.media_type = manifest_type(&at.media_type, &bytes);
                    return Ok(Fetched { descriptor: at, bytes, manifest });
                }
                Document::Index(index) => index,
            };
            let Some(best) = index.best(platform) else {
                let available = index.manifests.iter().filter_map(|d| d.platform.as_ref());
                return Err(self.no_platform(platform, available.map(ToString::to_string).collect()));
            };
            bytes = self.document(&best.digest, Some(best.size))?.1;
            let named = Descriptor::new(&best.media_type, best.digest.clone(), best.size);
            at = Descriptor { platform: best.platform.clone(), ..named };
        }
        let reason = format!("indexes more than {MAX_INDEX_DEPTH} deep");
        Err(self.malformed(crate::oci::Error::Document { what: "index", reason }))
    }

    /// A blob of at most [`MAX_DOCUMENT`] bytes, verified.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Length`], [`Error::Digest`], and those of the network.
    pub fn small_blob(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>> {
        let named = || format!("{what} {}", descriptor.digest);
        if descriptor.size > MAX_DOCUMENT {
            return Err(Error::TooLarge { host: self.host(), what: named(), limit: MAX_DOCUMENT });
        }
        let url = self.url("blobs", &descriptor.digest.to_string());
        let bytes = retried(|| self.get(&url, None, 0)?.read_all(MAX_DOCUMENT, &named()))?;
        self.check(&descriptor.digest, Some(descriptor.size), &bytes, named)?;
        Ok(bytes)
    }

    /// Adds the bytes that `writer` lacks, as far as this one connection brings them.
    /// `progress` is called with the length so far, and ends the transfer by `false`.
    ///
    /// # Errors
    /// [`Error::Range`], [`Error::Length`], [`Error::Truncated`], [`Error::Store`], and those
    /// of the network.
    pub(super) fn fill(
        &self,
        descriptor: &Descriptor,
        writer: &mut BlobWriter,
        progress: &dyn Fn(u64) -> bool,
    ) -> Result<()> {
        let (digest, size) = (&descriptor.digest, descriptor.size);
        let url = self.url("blobs", &digest.to_string());
        let mut answer = match self.get(&url, None, writer.len()) {
            Err(Error::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }) if !writer.is_empty() => {
                writer.restart()?;
                self.get(&url, None, 0)?
            }
            other => other?,
        };
        let host = answer.host().to_string();
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            let range = answer.header("content-range");
            if writer.is_empty() || !range.is_some_and(|r| is_rest(r, writer.len(), size)) {
                let (digest, range) = (digest.clone(), range.map(str::to_string));
                return Err(Error::Range { host, digest, from: writer.len(), range });
            }
        } else {
            if !writer.is_empty() {
                writer.restart()?;
            }
            let length = answer.header("content-length").and_then(|l| l.parse().ok());
            if let Some(got) = length.filter(|l| *l != size) {
                return Err(Error::Length { host, digest: digest.clone(), size, got });
            }
        }
        let mut buf = vec![0; CHUNK];
        loop {
            let n = answer.read(&mut buf)?;
            if n == 0 && writer.len() < size {
                let got = writer.len();
                return Err(Error::Truncated { host, digest: digest.clone(), size, got });
            }
            if n == 0 || !progress(writer.len() + n as u64) {
                return Ok(());
            }
            writer.append(&buf[..n])?;
        }
    }

    /// Media type and bytes of the manifest or index with this digest.
    fn document(&self, digest: &Digest, size: Option<u64>) -> Result<(String, Vec<u8>)> {
        let (media, bytes) = self.document_at(&digest.to_string())?;
        self.check(digest, size, &bytes, || self.reference.to_string())?;
        Ok((media, bytes))
    }

    /// Media type and bytes of what `name`, a tag or a digest, leads to.
    fn document_at(&self, name: &str) -> Result<(String, Vec<u8>)> {
        let accept = media_type::DOCUMENTS.join(", ");
        let url = self.url("manifests", name);
        let result = retried(|| {
            let answer = self.get(&url, Some(&accept), 0)?;
            let media = answer.header("content-type").unwrap_or_default().to_string();
            Ok((media, answer.read_all(MAX_DOCUMENT, "a manifest")?))
        });
        result.map_err(|e| match e {
            Error::Status { host, status: StatusCode::NOT_FOUND, message, .. } => {
                Error::NoImage { reference: Box::new(self.reference.clone()), host, message }
            }
            other => other,
        })
    }

    fn check(
        &self,
        digest: &Digest,
        size: Option<u64>,
        bytes: &[u8],
        what: impl Fn() -> String,
    ) -> Result<()> {
        let (host, got) = (self.host(), bytes.len() as u64);
        if let Some(size) = size.filter(|s| *s != got) {
            return Err(Error::Length { host, digest: digest.clone(), size, got });
        }
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(bytes);
        let got = hasher.finish();
        if got == *digest {
            return Ok(());
        }
        Err(Error::Digest { host, what: what(), want: digest.clone(), got })
    }

    fn url(&self, kind: &str, name: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{kind}/{name}", self.reference.repository()));
        url
    }

    /// Gets `url` from byte `from` on, logged in where that is asked for, through redirects.
    fn get(&self, url: &Url, accept: Option<&str>, from: u64) -> Result<Answer> {
        let mut used = self.auth.current();
        let mut answer = self.follow(url, accept, from, used.as_ref())?;
        if answer.status() == StatusCode::UNAUTHORIZED && same_origin(answer.url(), &self.base) {
            let renewed = self.auth.renew(&self.client, &self.base, &answer, used.as_ref())?;
            if renewed.is_some() {
                used = renewed;
                answer = self.follow(url, accept, from, used.as_ref())?;
            }
        }
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(match answer.into_status_error() {
            Error::Status { host, status, message, .. } if matches!(status.as_u16(), 401 | 403) => {
                let repository = self.reference.repository().to_string();
                Error::Unauthorized { host, repository, status, message, withheld: self.auth.withheld() }
            }
            other => other,
        })
    }

    fn follow(
        &self,
        url: &Url,
        accept: Option<&str>,
        from: u64,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.client.request(Method::GET, &at)?;
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            if let Some(authorization) = authorization
                && same_origin(&at, &self.base)
            {
                request = request.header(AUTHORIZATION, authorization);
            }
            let answer = self.client.send(&at, request)?;
            let location = match answer.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => answer.header("location"),
                _ => return Ok(answer),
            };
            let next = location.ok_or("it names no target").and_then(|l| redirect_target(&at, l));
            at = next.map_err(|reason| Error::Redirect {
                host: host_port(&at),
                to: location.unwrap_or_default().split('?').next().unwrap_or_default().into(),
                reason,
            })?;
        }
        at.set_query(None);
        Err(Error::Redirect { host: host_port(url), to: at.into(), reason: "these are too many redirects" })
    }

    pub(super) fn malformed(&self, source: crate::oci::Error) -> Error {
        Error::Document { reference: Box::new(self.reference.clone()), source }
    }

    pub(super) fn no_platform(&self, platform: &Platform, available: Vec<String>) -> Error {
        let reference = Box::new(self.reference.clone());
        Error::NoPlatform { reference, platform: platform.clone(), available }
    }

    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }
}

/// Tries `op` again where its failure may pass.
fn retried<T>(mut op: impl FnMut() -> Result<T>) -> Result<T> {
    let mut backoff = Backoff::default();
    loop {
        match op() {
            Ok(value) => return Ok(value),
            Err(e) => backoff.pause(e)?,
        }
    }
}

/// The first URL that is answered in its own protocol. Go's TLS servers answer plain http by 400.
fn first_that_answers(client: &Client, urls: [Url; 2]) -> Result<Url> {
    let ask = |url: &Url| {
        let answer = client.send(url, client.request(Method::GET, url)?)?;
        Ok(answer.status() != StatusCode::BAD_REQUEST || url.scheme() == "https")
    };
    let [first, second] = urls;
    match ask(&first) {
        Ok(true) => Ok(first),
        Ok(false) => Ok(second),
        Err(e) if matches!(ask(&second), Ok(true)) => {
            tracing::debug!("{e}; using {}", second.scheme());
            Ok(second)
        }
        Err(e) => Err(e),
    }
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

fn redirect_target(from: &Url, location: &str) -> std::result::Result<Url, &'static str> {
    let target = from.join(location).map_err(|_| "it is no URL")?;
    match (from.scheme(), target.scheme()) {
        (_, "https") => Ok(target),
        ("http", "http") if is_local(&target) || same_origin(from, &target) => Ok(target),
        ("https", "http") => Err("from https to http"),
        (_, "http") => Err("plain http is for this machine only"),
        _ => Err("it is neither https nor http"),
    }
}

/// Whether a Content-Range is the rest of a blob of `size` bytes from `from` on (RFC 9110, 14.4).
fn is_rest(range: &str, from: u64, size: u64) -> bool {
    let parts = range.strip_prefix("bytes ").and_then(|r| r.split_once('/'));
    let Some((span, total)) = parts else { return false };
    let total_fits = total == "*" || total.parse() == Ok(size);
    total_fits
        && span.split_once('-').is_some_and(|(a, b)| a.parse() == Ok(from) && b.parse() == Ok(size - 1))
}

/// The type that a manifest gives itself, else the one it was served as, without parameters.
fn manifest_type(declared: &str, bytes: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let declared = declared.split(';').next().unwrap_or_default().trim();
    let known = |t: &&str| media_type::DOCUMENTS.contains(t);
    let found = json["mediaType"].as_str().filter(known).or(Some(declared).filter(known));
    found.unwrap_or(media_type::MANIFEST).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        for (range, good) in [
            ("bytes 3-9/10", true),
            ("bytes 3-9/*", true),
            ("bytes 0-9/10", false),
            ("bytes 3-8/10", false),
            ("bytes 3-9/11", false),
            ("bytes */10", false),
            ("3-9/10", false),
            ("", false),
        ] {
            assert_eq!(is_rest(range, 3, 10), good, "{range}");
        }
    }

    #[test]
    fn redirects() {
        for (from, location, good) in [
            ("https://a.example/v2/", "https://b.example/x", true),
            ("https://a.example/v2/", "/x", true),
            ("https://a.example/v2/", "http://a.example/x", false),
            ("https://a.example/v2/", "file:///etc/passwd", false),
            ("http://localhost:5000/v2/", "http://127.0.0.1:9/x", true),
            ("http://localhost:5000/v2/", "http://b.example/x", false),
            ("http://localhost:5000/v2/", "https://b.example/x", true),
        ] {
            assert_eq!(redirect_target(&from.parse().unwrap(), location).is_ok(), good, "{location}");
        }
    }
}
