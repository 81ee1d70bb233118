//! Content whose digest is known only when all of it is written.

use crate::oci::{Algorithm, Digest, Hasher};
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

/// How many bytes are written and hashed at once.
const BUFFER: usize = 256 << 10;

/// How many buffers wait to be hashed.
const BUFFERS: usize = 4;

/// Hashes by SHA-256, and counts, what is written through it.
pub struct Hashed<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W> Hashed<W> {
    /// Nothing written yet.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new(Algorithm::Sha256), size: 0 }
    }

    /// What it was written into, the digest, and the size in bytes.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.size)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A file whose content is hashed by SHA-256 on a thread of its own, beside the writing.
pub(super) struct HashedFile {
    file: File,
    buffer: Vec<u8>,
    size: u64,
    full: SyncSender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
    hashing: JoinHandle<Digest>,
}

impl HashedFile {
    /// Nothing written yet.
    pub(super) fn new(file: File) -> Self {
        let (full, filled) = sync_channel::<Vec<u8>>(BUFFERS);
        let (empty, free) = channel();
        for _ in 0..BUFFERS {
            let _ = empty.send(Vec::new());
        }
        let hashing = thread::spawn(move || {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            for mut buffer in filled {
                hasher.update(&buffer);
                buffer.clear();
                let _ = empty.send(buffer);
            }
            hasher.finish()
        });
        Self { file, buffer: Vec::with_capacity(BUFFER), size: 0, full, free, hashing }
    }

    /// The digest, and the size in bytes.
    ///
    /// # Errors
    /// Of writing what was still held.
    pub(super) fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.flush()?;
        drop(self.full);
        Ok((self.hashing.join().unwrap_or_else(|panic| resume_unwind(panic)), self.size))
    }
}

impl Write for HashedFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == BUFFER {
            self.flush()?;
        }
        let n = buf.len().min(BUFFER - self.buffer.len());
        self.buffer.extend_from_slice(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.size += self.buffer.len() as u64;
        let gone = || io::Error::other("the thread that hashes has ended");
        let mut empty = self.free.recv().map_err(|_| gone())?;
        empty.reserve_exact(BUFFER);
        self.full.send(mem::replace(&mut self.buffer, empty)).map_err(|_| gone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashed_beside_the_writing() {
        for size in [0, 1, BUFFER, 3 * BUFFER + 7, 20 * BUFFER] {
            let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            let mut out = HashedFile::new(file.reopen().unwrap());
            bytes.chunks(100_000).for_each(|chunk| out.write_all(chunk).unwrap());
            assert_eq!(out.finish().unwrap(), (Digest::of(&bytes), size as u64));
            assert_eq!(std::fs::read(file.path()).unwrap(), bytes);
        }
    }
}
