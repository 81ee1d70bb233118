//! One registry's origin: requests with logging in, and redirects.

use super::auth::Auth;
use super::client::{Answer, Client, host_port, is_local};
use super::retry::Backoff;
use super::{Error, Options, Result};
use crate::error::Kind;
use reqwest::blocking::RequestBuilder;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use std::sync::{Mutex, OnceLock, PoisonError};

/// How many redirects are followed.
pub(super) const MAX_REDIRECTS: usize = 10;

/// An origin that is spoken to, as whoever may use one of its repositories.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    auth: Auth,
    /// Where it may be: over one protocol, or over the second one where the first is not spoken.
    bases: Vec<Url>,
    chosen: OnceLock<usize>,
    choosing: Mutex<()>,
}

/// Adds headers and body to a request for a URL, and sends it.
pub(super) type Send<'a> = dyn Fn(&Url, RequestBuilder) -> Result<Answer> + 'a;

impl Connection {
    /// The origin of `registry`; `repository` is what credentials and tokens are wanted for.
    /// Whether it speaks https shows with the first request.
    pub(super) fn open(registry: &str, repository: &str, options: &Options) -> Result<Self> {
        let client = Client::new(options);
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let url = |scheme: &str| {
            format!("{scheme}://{host}/v2/").parse::<Url>().map_err(|_| Error::Redirect {
                host: registry.to_string(),
                to: format!("{scheme}://{host}/v2/"),
                reason: "it is no URL",
            })
        };
        let (http, https) = (url("http")?, url("https")?);
        let bases = match (is_local(&http), options.tls_verify) {
            (true, _) => vec![http, https],
            (false, true) => vec![https],
            (false, false) => vec![https, http],
        };
        let auth = Auth::new(registry, repository, options.credentials.clone());
        Ok(Self { client, auth, bases, chosen: OnceLock::new(), choosing: Mutex::new(()) })
    }

    fn base(&self) -> &Url {
        &self.bases[self.chosen.get().copied().unwrap_or_default()]
    }

    /// Host and port.
    pub(super) fn host(&self) -> String {
        host_port(self.base())
    }

    /// The URL of `path` there.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base().clone();
        url.set_path(path);
        url
    }

    /// Whether `url` is of this very origin.
    pub(super) fn owns(&self, url: &Url) -> bool {
        same_origin(url, self.base())
    }

    /// Asks `url`, logged in where that is asked for; GET and HEAD go through redirects.
    /// `send` may be called several times.
    ///
    /// # Errors
    /// Any answer that is not a success.
    pub(super) fn exchange(&self, method: &Method, url: &Url, send: &Send<'_>) -> Result<Answer> {
        let mut used = self.auth.current();
        let (url, mut answer) = self.first(method, url, used.as_ref(), send)?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.owns(answer.url()) {
            let renewed = self.auth.renew(&self.client, self.base(), method, &answer, used.as_ref())?;
            if renewed.is_some() {
                used = renewed;
                answer = self.follow(method, &url, used.as_ref(), send)?;
            }
        }
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(match answer.into_status_error() {
            Error::Status { host, status, message, .. } if matches!(status.as_u16(), 401 | 403) => {
                let repository = self.auth.wanted().to_string();
                Error::Unauthorized { host, repository, status, message, withheld: self.auth.withheld() }
            }
            other => other,
        })
    }

    /// The answer to the request, and its URL, which is another one where this very first request
    /// shows that the second protocol is the one to speak.
    fn first(
        &self,
        method: &Method,
        url: &Url,
        authorization: Option<&HeaderValue>,
        send: &Send<'_>,
    ) -> Result<(Url, Answer)> {
        let guard = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let [first, second] = &self.bases[..] else {
            drop(guard);
            return Ok((url.clone(), self.follow(method, url, authorization, send)?));
        };
        if let Some(&chosen) = self.chosen.get() {
            drop(guard);
            // Built before it was known which.
            let url = if same_origin(url, first) && chosen == 1 { moved(url, second) } else { url.clone() };
            let answer = self.follow(method, &url, authorization, send)?;
            return Ok((url, answer));
        }
        let tried = self.follow(method, url, authorization, send);
        // Go's TLS servers answer plain http by 400.
        let spoken =
            tried.as_ref().is_ok_and(|a| a.status() != StatusCode::BAD_REQUEST || first.scheme() == "https");
        if !spoken {
            let other = moved(url, second);
            match self.follow(method, &other, authorization, send) {
                Ok(answer) => {
                    tracing::debug!("{} speaks {}", host_port(second), second.scheme());
                    let _ = self.chosen.set(1);
                    return Ok((other, answer));
                }
                // It speaks TLS, which says more than what it makes of plain http.
                Err(e @ Error::Untrusted { .. }) => return Err(e),
                Err(e) if e.kind() != Kind::Network => return Err(e),
                Err(_) => {}
            }
        }
        let answer = tried?;
        let _ = self.chosen.set(0);
        Ok((url.clone(), answer))
    }

    fn follow(
        &self,
        method: &Method,
        url: &Url,
        authorization: Option<&HeaderValue>,
        send: &Send<'_>,
    ) -> Result<Answer> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.client.request(method.clone(), &at)?;
            if let Some(authorization) = authorization
                && self.owns(&at)
            {
                request = request.header(AUTHORIZATION, authorization);
            }
            let answer = send(&at, request)?;
            let location = match answer.status().as_u16() {
                301 | 302 | 303 | 307 | 308 if is_read(method) => answer.header("location"),
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
}

/// Whether a method changes nothing.
pub(super) fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

/// Tries `op` again where its failure may pass.
pub(super) fn retried<T>(mut op: impl FnMut() -> Result<T>) -> Result<T> {
    let mut backoff = Backoff::default();
    loop {
        match op() {
            Ok(value) => return Ok(value),
            Err(e) => backoff.pause(e)?,
        }
    }
}

/// The same URL below another origin.
fn moved(url: &Url, base: &Url) -> Url {
    let mut moved = base.clone();
    moved.set_path(url.path());
    moved.set_query(url.query());
    moved
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
