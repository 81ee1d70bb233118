//! Digests of files, taken while their bytes are written.
//!
//! They are kept by inode number: layers are extracted side by side on one filesystem and merged
//! by rename, so a number means the same file at the end. One that is used again for another
//! file gets that one's digest, for it is written later.

use crate::oci::{Algorithm, Hasher};
use crate::sys::{self, Call};
use std::collections::HashMap;
use std::fs::File;
use std::sync::{Mutex, PoisonError};

/// A file with more bytes than this in holes is not hashed.
pub(super) const MAX_HOLES: u64 = 1 << 30;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// SHA-256 of files by the number of their inode.
#[derive(Debug, Default)]
pub struct Contents(Mutex<HashMap<u64, [u8; 32]>>);

impl Contents {
    pub(super) fn note(&self, file: &File, digest: Option<[u8; 32]>) -> sys::Result<()> {
        let stat = rustix::fs::fstat(file).call(|| "fstat".to_string())?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match digest {
            Some(digest) => drop(known.insert(stat.st_ino, digest)),
            None => drop(known.remove(&stat.st_ino)),
        }
        Ok(())
    }

    pub(super) fn get(&self, inode: u64) -> Option<[u8; 32]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&inode).copied()
    }
}

/// The digest of one file that comes in pieces, with holes between them.
pub(super) struct Sum {
    hasher: Hasher,
    at: u64,
}

impl Sum {
    pub(super) fn new() -> Self {
        Self { hasher: Hasher::new(Algorithm::Sha256), at: 0 }
    }

    /// The bytes at `offset`; pieces come in order.
    pub(super) fn feed(&mut self, offset: u64, bytes: &[u8]) {
        self.hole(offset);
        self.hasher.update(bytes);
        self.at = offset + bytes.len() as u64;
    }

    fn hole(&mut self, end: u64) {
        let mut left = end.saturating_sub(self.at);
        while left > 0 {
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            self.hasher.update(&ZEROS[..n]);
            left -= n as u64;
        }
        self.at = end;
    }

    /// The digest of a file of `size` bytes.
    pub(super) fn finish(mut self, size: u64) -> Option<[u8; 32]> {
        self.hole(size);
        let digest = self.hasher.finish();
        let mut bytes = [0; 32];
        for (byte, hex) in bytes.iter_mut().zip(digest.hex().as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    #[test]
    fn holes_are_zeros() {
        let mut sum = Sum::new();
        sum.feed(3, b"abc");
        let got = sum.finish(200_000).unwrap();
        let mut whole = vec![0; 200_000];
        whole[3..6].copy_from_slice(b"abc");
        let hex: String = got.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().concat();
        assert_eq!(hex, Digest::of(&whole).hex());
    }
}
