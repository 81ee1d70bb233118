//! A large blob over several connections: pieces by Range, fetched ahead, given in order.

use super::Error;
use super::body::{BlobBody, Retry};
use super::remote::Remote;
use crate::oci::Descriptor;
use std::collections::VecDeque;
use std::io::{self, Cursor, Read};
use std::sync::mpsc::{Receiver, channel};

/// Bytes of a piece; as many pieces as there are connections are in memory.
const PIECE: u64 = 2 << 20;
/// Fewer bytes than these come over one connection.
pub(super) const WORTH: u64 = 32 << 20;

/// The rest of a blob. A server that does not answer by ranges is asked over one connection.
pub(super) struct Ranges<'a> {
    remote: Remote,
    descriptor: Descriptor,
    connections: usize,
    /// Where the next piece to ask for begins.
    next: u64,
    under_way: VecDeque<(u64, Receiver<io::Result<Vec<u8>>>)>,
    piece: Cursor<Vec<u8>>,
    /// For the one connection.
    retry: Option<Retry<'a>>,
    alone: Option<BlobBody<'a>>,
}

impl<'a> Ranges<'a> {
    pub(super) fn new(
        remote: &Remote,
        descriptor: &Descriptor,
        from: u64,
        connections: usize,
        retry: Retry<'a>,
    ) -> Self {
        Self {
            remote: remote.clone(),
            descriptor: descriptor.clone(),
            connections,
            next: from,
            under_way: VecDeque::with_capacity(connections),
            piece: Cursor::default(),
            retry: Some(retry),
            alone: None,
        }
    }

    /// Asks for pieces until all connections are busy.
    fn ask(&mut self) {
        while self.under_way.len() < self.connections && self.next < self.descriptor.size {
            let span = self.next..(self.next + PIECE).min(self.descriptor.size);
            self.next = span.end;
            let start = span.start;
            let length = usize::try_from(span.end - start).unwrap_or_default();
            let retry = Box::new(|e: &Error| tracing::debug!("{e}; a piece goes on"));
            let mut body = BlobBody::new(&self.remote, &self.descriptor, span, retry);
            let (sender, receiver) = channel();
            std::thread::spawn(move || {
                let mut bytes = Vec::with_capacity(length);
                let read = body.read_to_end(&mut bytes).map(|_| bytes);
                // Nobody listens where the transfer was given up.
                let _ = sender.send(read);
            });
            self.under_way.push_back((start, receiver));
        }
    }
}

impl Read for Ranges<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(alone) = &mut self.alone {
                return alone.read(buf);
            }
            let n = self.piece.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            self.ask();
            let Some((start, piece)) = self.under_way.pop_front() else { return Ok(0) };
            match piece.recv().map_err(io::Error::other)? {
                Ok(bytes) => self.piece = Cursor::new(bytes),
                Err(e) if is_range(&e) => {
                    let retry = self.retry.take().unwrap_or_else(|| Box::new(|_| ()));
                    let rest = start..self.descriptor.size;
                    self.alone = Some(BlobBody::new(&self.remote, &self.descriptor, rest, retry));
                }
                Err(e) => return Err(e),
            }
        }
    }
}

fn is_range(e: &io::Error) -> bool {
    e.get_ref().and_then(|e| e.downcast_ref()).is_some_and(|e| matches!(e, Error::Range { .. }))
}
