//! Layers that lie outside of registries, at URLs of their descriptors (image-spec,
//! descriptor.md, "urls"). They are fetched without credentials, over one connection.

use super::body::skip;
use super::client::{Answer, Client, host_port};
use super::connection::{MAX_REDIRECTS, redirect_target};
use super::{Error, Options, Result};
use reqwest::header::RANGE;
use reqwest::{Method, StatusCode, Url};
use std::io::{self, Read};

/// The bytes of a foreign layer.
pub struct Foreign(Answer);

impl Foreign {
    /// Opens the first of `urls` that answers, at byte `from`. The bytes are not verified.
    ///
    /// # Errors
    /// The last URL's failure; [`Error::Redirect`] where it is not https, or leads away from it.
    pub fn open(urls: &[String], from: u64, options: &Options) -> Result<Self> {
        let client = Client::new(options);
        let mut failure = None;
        for url in urls {
            match get(&client, url, from) {
                Ok(answer) => return Ok(Self(answer)),
                Err(e) => failure = Some(e),
            }
        }
        Err(failure.unwrap_or_else(|| no_url("")))
    }
}

fn no_url(text: &str) -> Error {
    let shown: String = text.chars().take(200).collect();
    Error::Redirect { host: "the layer's descriptor".into(), to: shown, reason: "it is no URL" }
}

fn get(client: &Client, url: &str, from: u64) -> Result<Answer> {
    let mut at: Url = url.parse().map_err(|_| no_url(url))?;
    // The rules for a first URL are those for a redirect from itself.
    at = redirect_target(&at, url).map_err(|reason| Error::Redirect {
        host: host_port(&at),
        to: at.to_string(),
        reason,
    })?;
    for _ in 0..=MAX_REDIRECTS {
        let mut request = client.request(Method::GET, &at)?;
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let mut answer = client.send(&at, request)?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if from > 0 => return Ok(answer),
            StatusCode::OK => {
                skip(&mut answer, from)?;
                return Ok(answer);
            }
            status if status.is_redirection() => {
                let location = answer.header("location").unwrap_or_default().to_string();
                at = redirect_target(&at, &location).map_err(|reason| Error::Redirect {
                    host: host_port(&at),
                    to: location.split('?').next().unwrap_or_default().to_string(),
                    reason,
                })?;
            }
            _ => return Err(answer.into_status_error()),
        }
    }
    Err(Error::Redirect {
        host: host_port(&at),
        to: at.path().to_string(),
        reason: "these are too many redirects",
    })
}

impl Read for Foreign {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).map_err(io::Error::other)
    }
}
