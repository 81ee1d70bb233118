//! One HTTP exchange: which client, how answers are read.

use super::certs::Certificates;
use super::http::{self, NoSuchName};
use super::retry::retry_after;
use super::{Error, Options, Result};
use crate::error::cause;
use crate::store::{Exceeded, Limit};
use reqwest::blocking;
use reqwest::{StatusCode, Url};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes that must come in each stall period; fewer is a peer that plays for time.
const TRICKLE: u64 = 4096;
/// How much of an error's body is read, in bytes.
const ERROR_BODY: u64 = 64 << 10;

/// The HTTP clients, each made when first needed: one knows no root certificates and costs
/// nothing, one is for https, and hosts with certificates of their own have one each.
#[derive(Debug)]
pub(super) struct Client {
    tls_verify: bool,
    stall: Duration,
    document: u64,
    made: Mutex<BTreeMap<For, blocking::Client>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum For {
    /// Plain http, to this machine or elsewhere.
    Plain(bool),
    /// https, to this machine or elsewhere.
    Https(bool),
    Host(String),
}

impl Client {
    pub(super) fn new(options: &Options) -> Self {
        let Options { tls_verify, stall, document, .. } = *options;
        Self { tls_verify, stall, document, made: Mutex::default() }
    }

    /// A request to `url`, by the client for it.
    pub(super) fn request(&self, method: reqwest::Method, url: &Url) -> Result<blocking::RequestBuilder> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let host = For::Host(url.host_str().map(|h| certs_name(h, url)).unwrap_or_default());
        let (kind, certificates) = match (url.scheme() == "https", &host) {
            (false, _) => (For::Plain(is_local(url)), None),
            (true, host) if made.contains_key(host) => (host.clone(), None),
            (true, For::Host(name)) => match Certificates::find(name)? {
                Some(found) => (host, Some(found)),
                None => (For::Https(is_local(url)), None),
            },
            (true, _) => (For::Https(is_local(url)), None),
        };
        let client = match made.entry(kind) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(slot) => slot.insert(self.build(url, certificates)?),
        };
        Ok(client.request(method, url.clone()))
    }

    /// Sends a request once; any status is an answer.
    pub(super) fn send(&self, url: &Url, request: blocking::RequestBuilder) -> Result<Answer> {
        self.answer(url, request.send())
    }

    /// How long nothing may happen.
    pub(super) fn stall(&self) -> Duration {
        self.stall
    }

    /// What `url` answered.
    pub(super) fn answer(&self, url: &Url, sent: reqwest::Result<blocking::Response>) -> Result<Answer> {
        let host = host_port(url);
        let response = sent.map_err(|e| self.transport_error(host.clone(), e.without_url()))?;
        let (stall, document) = (self.stall, self.document);
        Ok(Answer { response, host, stall, document, window: Instant::now(), came: 0 })
    }

    fn build(&self, url: &Url, certificates: Option<Certificates>) -> Result<blocking::Client> {
        let https = url.scheme() == "https";
        let mut builder = http::builder_with(https, self.tls_verify, certificates)?
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT.min(self.stall))
            .timeout(self.stall)
            .tcp_user_timeout(self.stall);
        if is_local(url) {
            builder = builder.no_proxy();
        }
        builder.build().map_err(Error::Client)
    }

    fn transport_error(&self, host: String, source: reqwest::Error) -> Error {
        if source.is_timeout() && !source.is_connect() {
            return Error::Stalled { host, stall: self.stall };
        }
        if cause::<NoSuchName>(&source).is_some() {
            return Error::NoSuchHost { host };
        }
        match cause(&source) {
            Some(rustls::Error::InvalidCertificate(_)) => Error::Untrusted { host, source },
            Some(rustls::Error::InvalidMessage(_)) => Error::NoTls { host, source },
            _ => Error::Unreachable { host, source },
        }
    }
}

/// The folder's name in `certs.d`: the port is in it unless it is the scheme's own.
fn certs_name(host: &str, url: &Url) -> String {
    url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))
}

/// Host and port, as errors show them.
pub(super) fn host_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match (url.port_or_known_default(), url.port()) {
        (Some(443), None) | (None, _) => host.to_string(),
        (Some(port), _) => format!("{host}:{port}"),
    }
}

/// Whether `url` is of this machine by its very name.
pub(super) fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address: Option<std::net::IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|a| a.is_loopback())
}

/// An answer whose body is read against limits of size and time.
#[derive(Debug)]
pub(super) struct Answer {
    response: blocking::Response,
    host: String,
    stall: Duration,
    document: u64,
    window: Instant,
    came: u64,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn url(&self) -> &Url {
        self.response.url()
    }

    /// A header's value, where it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// All values of a header.
    pub(super) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.response.headers().get_all(name).iter().filter_map(|v| v.to_str().ok())
    }

    /// The next bytes of the body; 0 at its end.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let n = match self.response.read(buf) {
            Ok(n) => n as u64,
            Err(source) => {
                let inner = source.get_ref().and_then(|e| e.downcast_ref::<reqwest::Error>());
                if inner.is_some_and(reqwest::Error::is_timeout) {
                    return Err(Error::Stalled { host: self.host.clone(), stall: self.stall });
                }
                return Err(Error::Broken { host: self.host.clone(), source });
            }
        };
        self.came += n;
        if n > 0 && self.window.elapsed() > self.stall {
            if self.came < TRICKLE {
                return Err(Error::Stalled { host: self.host.clone(), stall: self.stall });
            }
            (self.came, self.window) = (0, Instant::now());
        }
        Ok(usize::try_from(n).unwrap_or(usize::MAX))
    }

    /// The whole body, at most `limit` bytes of it; `what` names it in the error.
    pub(super) fn read_all(mut self, limit: u64, what: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut buf = vec![0; 16 << 10];
        loop {
            match self.read(&mut buf)? {
                0 => return Ok(bytes),
                n if (bytes.len() + n) as u64 > limit => {
                    return Err(Error::TooLarge { host: self.host, what: what.to_string(), limit });
                }
                n => bytes.extend_from_slice(&buf[..n]),
            }
        }
    }

    /// The whole body, which is a document: a manifest, a page of a list.
    pub(super) fn document(self, what: &str) -> Result<Vec<u8>> {
        let most = self.document;
        self.read_all(most, what).map_err(|e| match e {
            Error::TooLarge { host, what, .. } => {
                Error::Document { host, what, source: Exceeded { limit: Limit::Document, most } }
            }
            other => other,
        })
    }

    /// The failure that this answer is. The body's first message becomes part of it, as one
    /// line without control characters (distribution-spec, "Error codes").
    pub(super) fn into_status_error(self) -> Error {
        let (host, status) = (self.host.clone(), self.status());
        let retry_after = self.header("retry-after").and_then(|v| retry_after(v, SystemTime::now()));
        let body = self.read_all(ERROR_BODY, "an error").unwrap_or_default();
        Error::Status { host, status, message: error_message(&body), retry_after }
    }
}

fn error_message(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let first = &json["errors"][0];
    let text = [&first["message"], &first["code"], &json["message"], &json["details"]]
        .into_iter()
        .find_map(|v| v.as_str())
        .unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locality() {
        for (url, local, shown) in [
            ("http://localhost:5000/v2/", true, "localhost:5000"),
            ("http://127.8.9.1/v2/", true, "127.8.9.1:80"),
            ("https://[::1]:5000/", true, "[::1]:5000"),
            ("https://localhost.example.com/", false, "localhost.example.com"),
            ("https://127.0.0.1.example.com/", false, "127.0.0.1.example.com"),
            ("http://10.0.0.1:5000/", false, "10.0.0.1:5000"),
            ("https://example.com:8443/", false, "example.com:8443"),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!((is_local(&url), host_port(&url).as_str()), (local, shown));
        }
    }

    #[test]
    fn messages_are_one_plain_line() {
        for (body, message) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\u001b[31m\nunknown"}]}"#,
                "manifest[31munknown",
            ),
            (r#"{"errors":[{"code":"DENIED"}]}"#, "DENIED"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            ("<html>", ""),
        ] {
            assert_eq!(error_message(body.as_bytes()), message);
        }
    }
}
