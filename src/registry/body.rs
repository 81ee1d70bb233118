//! The body of a blob, over as many connections as it takes.

use super::client::Answer;
use super::remote::Remote;
use super::retry::Backoff;
use super::{Error, Result};
use crate::oci::Descriptor;
use reqwest::StatusCode;
use std::io::{self, Read};
use std::ops::Range;

/// How many bytes a connection must bring for its failure not to count.
const PROGRESS: u64 = 64 << 10;

/// Who is told of failures that may pass.
pub type Retry<'a> = Box<dyn Fn(&Error) + Send + 'a>;

/// A span of a blob's bytes. After a reset, a stall or a truncated body it asks for the rest by
/// Range (RFC 9110, 14.2); a server that answers with the whole blob has the first part of it
/// skipped.
pub(super) struct BlobBody<'a> {
    remote: Remote,
    descriptor: Descriptor,
    retry: Retry<'a>,
    answer: Option<Answer>,
    /// The bytes that are still to be given.
    left: Range<u64>,
    /// Where the present connection began.
    begun: u64,
    backoff: Backoff,
}

impl<'a> BlobBody<'a> {
    pub(super) fn new(remote: &Remote, descriptor: &Descriptor, left: Range<u64>, retry: Retry<'a>) -> Self {
        let (remote, descriptor, begun) = (remote.clone(), descriptor.clone(), left.start);
        Self { remote, descriptor, retry, answer: None, left, begun, backoff: Backoff::default() }
    }

    /// The next bytes, from one connection; 0 only at the span's end.
    fn step(&mut self, buf: &mut [u8]) -> Result<usize> {
        let size = self.descriptor.size;
        let rest = self.left.end - self.left.start;
        let is_tail = self.left.end == size;
        if self.answer.is_none() {
            if rest == 0 && size > 0 {
                return Ok(0);
            }
            self.begun = self.left.start;
            self.answer = Some(self.open()?);
        }
        let Some(answer) = &mut self.answer else { return Ok(0) };
        // At the blob's end the server's end is waited for: it may have more than it should.
        let most =
            if is_tail { buf.len() } else { buf.len().min(usize::try_from(rest).unwrap_or(usize::MAX)) };
        let n = answer.read(&mut buf[..most])?;
        let (host, digest) = (answer.host().to_string(), self.descriptor.digest.clone());
        if n as u64 > rest {
            return Err(Error::Length { host, digest, size, got: self.left.start + n as u64 });
        }
        self.left.start += n as u64;
        if n == 0 && rest > 0 {
            return Err(Error::Truncated { host, digest, size, got: self.left.start });
        }
        Ok(n)
    }

    fn open(&self) -> Result<Answer> {
        let (digest, size, at) = (&self.descriptor.digest, self.descriptor.size, self.left.start);
        let name = digest.to_string();
        let range = match (at, self.left.end) {
            (0, end) if end == size => None,
            (_, end) if end == size => Some(format!("bytes={at}-")),
            (_, end) => Some(format!("bytes={at}-{}", end - 1)),
        };
        let get = |range: Option<&str>| self.remote.places.get("blobs", &name, None, range);
        let mut answer = match get(range.as_deref()) {
            Err(Error::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }) if range.is_some() => {
                get(None)?
            }
            other => other?,
        };
        let host = answer.host().to_string();
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            let got = answer.header("content-range");
            if range.is_none() || !got.is_some_and(|r| is_span(r, &self.left, size)) {
                let (digest, range) = (digest.clone(), got.map(str::to_string));
                return Err(Error::Range { host, digest, from: at, range });
            }
            return Ok(answer);
        }
        // For one piece of several the whole blob would be a waste.
        if self.left.end != size {
            return Err(Error::Range { host, digest: digest.clone(), from: at, range: None });
        }
        let length = answer.header("content-length").and_then(|l| l.parse().ok());
        if let Some(got) = length.filter(|l| *l != size) {
            return Err(Error::Length { host, digest: digest.clone(), size, got });
        }
        skip(&mut answer, at)?;
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
                    if self.left.start.saturating_sub(self.begun) >= PROGRESS {
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

/// Whether a Content-Range is this span of a blob of `size` bytes (RFC 9110, 14.4).
fn is_span(range: &str, want: &Range<u64>, size: u64) -> bool {
    let parts = range.strip_prefix("bytes ").and_then(|r| r.split_once('/'));
    let Some((span, total)) = parts else { return false };
    let total_fits = total == "*" || total.parse() == Ok(size);
    total_fits
        && span
            .split_once('-')
            .is_some_and(|(a, b)| a.parse() == Ok(want.start) && b.parse() == Ok(want.end - 1))
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
            assert_eq!(is_span(range, &(3..10), 10), good, "{range}");
        }
    }
}
