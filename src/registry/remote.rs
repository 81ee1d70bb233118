//! One repository of one registry: its documents and blobs, by digest.

use super::auth::Auth;
use super::body::BlobBody;
use super::client::{Answer, Client, host_port, is_local};
use super::retry::Backoff;
use super::{Error, Options, Result};
use crate::oci::{Descriptor, Digest, Hasher, Reference, media_type};
use crate::store::MAX_DOCUMENT;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE};
use reqwest::{Method, StatusCode, Url};

/// How many redirects are followed.
pub(super) const MAX_REDIRECTS: usize = 10;

/// A repository that can be read.
#[derive(Debug)]
pub struct Remote {
    client: Client,
    auth: Auth,
    base: Url,
    reference: Reference,
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

    /// What the reference leads to, an index or a manifest, as the registry has it, verified
    /// where the reference has a digest.
    ///
    /// # Errors
    /// [`Error::NoImage`], [`Error::Digest`], [`Error::TooLarge`], and those of the network.
    pub fn root(&self) -> Result<(Descriptor, Vec<u8>)> {
        let name = match self.reference.digest() {
            Some(digest) => digest.to_string(),
            None => self.reference.tag().unwrap_or("latest").to_string(),
        };
        let (declared, bytes) = self.document_at(&name)?;
        let digest = match self.reference.digest() {
            Some(digest) => {
                self.check(digest, None, &bytes, || self.reference.to_string())?;
                digest.clone()
            }
            None => Digest::of(&bytes),
        };
        let media_type = document_type(&declared, &bytes);
        Ok((Descriptor::new(media_type, digest, bytes.len() as u64), bytes))
    }

    /// The bytes of the manifest or index that `descriptor` describes, verified.
    ///
    /// # Errors
    /// [`Error::NoImage`], [`Error::Length`], [`Error::Digest`], and those of the network.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let (_, bytes) = self.document_at(&descriptor.digest.to_string())?;
        let what = || format!("{} in {}", descriptor.digest, self.reference);
        self.check(&descriptor.digest, Some(descriptor.size), &bytes, what)?;
        Ok(bytes)
    }

    /// The blob from byte `from` on. The reader goes on by itself after failures that may
    /// pass, of which `retry` is told; its errors carry an [`Error`]. It gives what the server
    /// sends: who wants to be sure that it is the blob reads it through
    /// [`crate::store::Verified`].
    pub fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        from: u64,
        retry: Box<dyn Fn(&Error) + Send + 'a>,
    ) -> BlobBody<'a> {
        BlobBody::new(self, descriptor, from, retry)
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

    pub(super) fn url(&self, kind: &str, name: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{kind}/{name}", self.reference.repository()));
        url
    }

    /// Gets `url` from byte `from` on, logged in where that is asked for, through redirects.
    pub(super) fn get(&self, url: &Url, accept: Option<&str>, from: u64) -> Result<Answer> {
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

    /// What was asked for.
    #[must_use]
    pub const fn reference(&self) -> &Reference {
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

pub(super) fn redirect_target(from: &Url, location: &str) -> std::result::Result<Url, &'static str> {
    let target = from.join(location).map_err(|_| "it is no URL")?;
    match (from.scheme(), target.scheme()) {
        (_, "https") => Ok(target),
        ("http", "http") if is_local(&target) || same_origin(from, &target) => Ok(target),
        ("https", "http") => Err("from https to http"),
        (_, "http") => Err("plain http is for this machine only"),
        _ => Err("it is neither https nor http"),
    }
}

/// The type that a document was served as, without parameters, where that is a document's; else
/// the one that it gives itself. That the two agree is for [`crate::oci::Document`] to check.
fn document_type(declared: &str, bytes: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let declared = declared.split(';').next().unwrap_or_default().trim();
    let known = |t: &&str| media_type::DOCUMENTS.contains(t);
    let says_nothing = ["", "application/json", "application/octet-stream", "text/plain"].contains(&declared);
    let fallback = match (says_nothing, json["manifests"].is_array()) {
        (false, _) => declared,
        (true, true) => media_type::INDEX,
        (true, false) => media_type::MANIFEST,
    };
    Some(declared).filter(known).or(json["mediaType"].as_str()).unwrap_or(fallback).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

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
