//! A layer's blob as the bytes of its tar: read, verified, inflated on a thread of its own.
//!
//! The thread fills a fixed set of buffers that come back to it when they are used up, so
//! memory does not grow with the layer. The blob's digest is checked at its end by the
//! store's reader; the digest of the tar (the diff id) by [`Tar::finish`] on the reading
//! side, so that hashing, inflating and writing share two threads evenly. Nothing that was
//! made of a layer may be published before `finish` has agreed.

use super::codec::Decoder;
use super::{Error, Origin, Result};
use crate::oci::{Compression, Hasher, Layer};
use crate::store::{Exceeded, Limits, Store, VerifyError};
use crate::sys::signal;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

/// Size of a buffer in bytes: large enough to make handing over cheap, small enough for
/// the processor's cache.
const BUFFER: usize = 256 << 10;

/// How many buffers one layer has under way.
const BUFFERS: usize = 4;

/// Size of a buffer in bytes where most of a blob is passed over: a few headers.
const PROBE: usize = 8 << 10;

/// Where the bytes come from.
enum Bytes {
    /// From the thread that inflates.
    Inflated { filled: Receiver<io::Result<Vec<u8>>>, empty: Sender<Vec<u8>> },
    /// From a plain blob, of so many bytes: what is passed over is not read.
    InPlace(Arc<File>, u64),
}

/// The bytes of a layer's tar, in order.
pub(super) struct Tar<'a> {
    /// None of a stream that is no layer.
    layer: Option<&'a Layer>,
    limits: Limits,
    bytes: Bytes,
    buffer: Vec<u8>,
    at: usize,
    seen: u64,
    /// Bytes of holes that are read as zeros.
    holes: u64,
    hasher: Option<Hasher>,
}

impl<'a> Tar<'a> {
    /// Opens the blob of `layer` and starts to inflate it on a thread of `scope`.
    pub(super) fn open<'s>(scope: &'s Scope<'s, '_>, store: &Store, layer: &'a Layer) -> Result<Self> {
        let compression = layer.descriptor.layer_compression().map_err(Error::MediaType)?;
        let blob = store.blob(&layer.descriptor)?;
        let mut tar = Self::over(scope, blob, compression, Some(layer), *store.limits());
        // The store's reader checks the digest, and what is declared as plain is read as such: where the
        // tar has the same digest, that was it. What is declared as gzip may be plain, too, see `codec`.
        if compression == Compression::None && layer.descriptor.digest == layer.diff_id {
            tar.hasher = None;
        }
        Ok(tar)
    }

    /// Starts to inflate `blob`, which is `layer` or nothing that is known, on a thread of `scope`.
    pub(super) fn over<'s>(
        scope: &'s Scope<'s, '_>,
        blob: impl Read + Send + 's,
        compression: Compression,
        layer: Option<&'a Layer>,
        limits: Limits,
    ) -> Self {
        let window = limits.zstd_window_log;
        let (full, filled) = sync_channel(BUFFERS);
        let (empty, free) = channel();
        for _ in 0..BUFFERS {
            let _ = empty.send(Vec::new());
        }
        scope.spawn(move || {
            let result = inflate(blob, compression, window, &free, &full);
            if let Err(e) = result {
                let _ = full.send(Err(e));
            }
        });
        let hasher = layer.map(|l| Hasher::new(l.diff_id.algorithm()));
        Self { hasher, ..Self::new(layer, limits, Bytes::Inflated { filled, empty }) }
    }

    /// The tar that the plain blob of `layer` is, of which nothing is verified.
    pub(super) fn in_place(blob: Arc<File>, layer: &'a Layer, limits: Limits) -> Self {
        Self::new(Some(layer), limits, Bytes::InPlace(blob, layer.descriptor.size))
    }

    const fn new(layer: Option<&'a Layer>, limits: Limits, bytes: Bytes) -> Self {
        Self { layer, limits, bytes, buffer: Vec::new(), at: 0, seen: 0, holes: 0, hasher: None }
    }

    /// What this is, for messages.
    pub(super) fn origin(&self) -> Origin {
        self.layer.map_or(Origin::Stream, |l| (&l.descriptor.digest).into())
    }

    /// The next bytes, at least one; empty at the end.
    pub(super) fn fill(&mut self) -> Result<&[u8]> {
        if self.at == self.buffer.len() {
            if signal::pending().is_some() {
                return Err(Error::Interrupted { layer: self.origin() });
            }
            let used = std::mem::take(&mut self.buffer);
            self.at = 0;
            self.buffer = self.bytes.next(used, self.seen).map_err(|e| self.read_error(e))?;
            self.seen += self.buffer.len() as u64;
            self.check_limits()?;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&self.buffer);
            }
        }
        Ok(&self.buffer[self.at..])
    }

    /// Passes over at most `most` bytes, and over none only at the end; tells how many.
    pub(super) fn pass(&mut self, most: u64) -> Result<u64> {
        if self.at == self.buffer.len()
            && let Bytes::InPlace(_, size) = self.bytes
        {
            let n = most.min(size.saturating_sub(self.seen));
            self.seen += n;
            return Ok(n);
        }
        let n = self.fill()?.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        self.consume(n);
        Ok(n as u64)
    }

    /// Marks `n` of the bytes that [`Tar::fill`] gave as used.
    pub(super) fn consume(&mut self, n: usize) {
        self.at += n;
    }

    /// How many bytes have been used.
    pub(super) fn position(&self) -> u64 {
        self.seen - (self.buffer.len() - self.at) as u64
    }

    /// Reads the rest and checks the diff id.
    pub(super) fn finish(mut self) -> Result<u64> {
        while self.pass(u64::MAX)? > 0 {}
        let (Some(layer), Some(hasher)) = (self.layer, self.hasher) else { return Ok(self.seen) };
        let got = hasher.finish();
        if got == layer.diff_id {
            return Ok(self.seen);
        }
        Err(Error::DiffId { layer: (&layer.descriptor.digest).into(), want: layer.diff_id.clone(), got })
    }

    /// What the layer may cost.
    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts `n` bytes of holes like inflated ones: they are about to be hashed or written.
    pub(super) fn count_holes(&mut self, n: u64) -> Result<()> {
        self.holes = self.holes.saturating_add(n);
        self.check_limits()
    }

    fn check_limits(&self) -> Result<()> {
        let inflated = self.seen.saturating_add(self.holes);
        let within = {
            // How much a stream has when it is compressed shows at its end only.
            let compressed = self.layer.map_or(u64::MAX, |l| l.descriptor.size);
            self.limits.check_inflated(inflated, compressed)
        };
        within.map_err(|source| Error::Limit { layer: self.origin(), source })
    }

    fn read_error(&self, e: io::Error) -> Error {
        let layer = self.origin();
        let e = match e.downcast::<VerifyError>() {
            Ok(v) => return Error::Store(v.into()),
            Err(e) => e,
        };
        match e.downcast::<Exceeded>() {
            Ok(source) => Error::Limit { layer, source },
            Err(source) => Error::Read { layer, source },
        }
    }
}

impl Bytes {
    /// The bytes from `at` on, in `used` or another buffer; empty at the end.
    fn next(&self, mut used: Vec<u8>, at: u64) -> io::Result<Vec<u8>> {
        match self {
            Self::Inflated { filled, empty } => {
                if used.capacity() > 0 {
                    let _ = empty.send(used);
                }
                // The other side hangs up at the end of the stream.
                filled.recv().unwrap_or_else(|_| Ok(Vec::new()))
            }
            Self::InPlace(blob, _) => {
                used.resize(PROBE, 0);
                let n = blob.read_at(&mut used, at)?;
                used.truncate(n);
                Ok(used)
            }
        }
    }
}

/// Inflates `blob` into buffers of `free`, sent to `full`; ends early when nobody listens.
fn inflate(
    blob: impl Read,
    compression: Compression,
    window: u32,
    free: &Receiver<Vec<u8>>,
    full: &SyncSender<io::Result<Vec<u8>>>,
) -> io::Result<()> {
    let mut reader = Decoder::new(blob, compression, window)?;
    while let Ok(mut buffer) = free.recv() {
        buffer.resize(BUFFER, 0);
        let mut len = 0;
        while len < BUFFER {
            match reader.read(&mut buffer[len..]) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if len == 0 {
            return Ok(());
        }
        buffer.truncate(len);
        if full.send(Ok(buffer)).is_err() {
            break;
        }
    }
    Ok(())
}
