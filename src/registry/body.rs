//! The body of a blob, over as many connections as it takes.

use super::client::Answer;
use super::remote::Remote;
use super::retry::Backoff;
use super::{Error, Result};
use crate::oci::Descriptor;
use reqwest::StatusCode;
use std::io::{self, Read};

/// How many bytes a connection must bring for its failure not to count.
const PROGRESS: u64 = 64 << 10;

/// A blob's bytes from some offset on. After a reset, a stall or a truncated body it asks
/// for the rest by Range (RFC 9110, 14.2); a server that answers with the whole blob has the
/// first part of it skipped.
pub struct BlobBody<'a> {
    remote: &'a Remote,
    descriptor: &'a Descriptor,
    retry: Box<dyn Fn(&Error) + Send + 'a>,
    answer: Option<Answer>,
    /// The next byte to give.
    at: u64,
    /// Where the present connection began.
    begun: u64,
    backoff: Backoff,
}

impl<'a> BlobBody<'a> {
    pub(super) fn new(
        remote: &'a Remote,
        descriptor: &'a Descriptor,
        from: u64,
        retry: Box<dyn Fn(&Error) + Send + 'a>,
    ) -> Self {
        Self { remote, descriptor, retry, answer: None, at: from, begun: from, backoff: Backoff::default() }
    }

    /// The next bytes, from one connection; 0 only at the blob's end.
    fn step(&mut self, buf: &mut [u8]) -> Result<usize> {
        let size = self.descriptor.size;
        if self.answer.is_none() {
            if self.at == size && size > 0 {
                return Ok(0);
            }
            self.begun = self.at;
            self.answer = Some(self.open()?);
        }
        let Some(answer) = &mut self.answer else { return Ok(0) };
        let n = answer.read(buf)?;
        let (host, digest) = (answer.host().to_string(), self.descriptor.digest.clone());
        self.at += n as u64;
        if self.at > size {
            return Err(Error::Length { host, digest, size, got: self.at });
        }
        if n == 0 && self.at < size {
            return Err(Error::Truncated { host, digest, size, got: self.at });
        }
        Ok(n)
    }

    fn open(&self) -> Result<Answer> {
        let (digest, size) = (&self.descriptor.digest, self.descriptor.size);
        let name = digest.to_string();
        let get = |from| self.remote.places.get("blobs", &name, None, from);
        let mut answer = match get(self.at) {
            Err(Error::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }) if self.at > 0 => get(0)?,
            other => other?,
        };
        let host = answer.host().to_string();
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            let range = answer.header("content-range");
            if self.at == 0 || !range.is_some_and(|r| is_rest(r, self.at, size)) {
                let (digest, range) = (digest.clone(), range.map(str::to_string));
                return Err(Error::Range { host, digest, from: self.at, range });
            }
            return Ok(answer);
        }
        let length = answer.header("content-length").and_then(|l| l.parse().ok());
        if let Some(got) = length.filter(|l| *l != size) {
            return Err(Error::Length { host, digest: digest.clone(), size, got });
        }
        skip(&mut answer, self.at)?;
        Ok(answer)
    }
}

impl Read for BlobBody<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            match self.step(buf) {
                Ok(n) => return Ok(n),
                Err(e) => {
                    self.answer = None;
                    if self.at.saturating_sub(self.begun) >= PROGRESS {
                        self.backoff.progress();
                    }
                    if e.is_transient() {
                        (self.retry)(&e);
                    }
                    self.backoff.pause(e).map_err(io::Error::other)?;
                }
            }
        }
    }
}

pub(super) fn skip(answer: &mut Answer, mut count: u64) -> Result<()> {
    let mut buf = vec![0; 64 << 10];
    while count > 0 {
        let most = usize::try_from(count).unwrap_or(usize::MAX).min(buf.len());
        match answer.read(&mut buf[..most])? {
            0 => return Ok(()),
            n => count -= n as u64,
        }
    }
    Ok(())
}

/// Whether a Content-Range is the rest of a blob of `size` bytes from `from` on (RFC 9110, 14.4).
fn is_rest(range: &str, from: u64, size: u64) -> bool {
    let parts = range.strip_prefix("bytes ").and_then(|r| r.split_once('/'));
    let Some((span, total)) = parts else { return false };
    let total_fits = total == "*" || total.parse() == Ok(size);
    total_fits
        && span.split_once('-').is_some_and(|(a, b)| a.parse() == Ok(from) && b.parse() == Ok(size - 1))
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
}
