//! What data from elsewhere may cost: limits that a handle on the store carries, so that all who
//! read images by it keep to the same ones. The numbers in force are the command line's to choose.

use std::io::{self, Read};

/// From which inflated size on the ratio counts, in bytes: small layers may be all zeros.
const RATIO_FROM: u64 = 1 << 30;

/// What images and archives may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Inflated bytes of one layer or archive; holes of sparse files count where they are read.
    pub inflated: u64,
    /// Inflated bytes for each compressed one, from 1 GiB inflated on.
    pub ratio: u64,
    /// Entries of one layer.
    pub entries: u64,
    /// Directories in one another.
    pub depth: usize,
    /// Logarithm of the largest window of a zstd stream in bytes; each layer under way needs one.
    pub zstd_window_log: u32,
    /// Bytes of a manifest, an index or a configuration (distribution-spec: registries should
    /// accept 4 MiB).
    pub document: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inflated: 256 << 30,
            ratio: 250,
            entries: 20_000_000,
            depth: 2048,
            zstd_window_log: 24,
            document: 4 << 20,
        }
    }
}

/// One of the [`Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// [`Limits::inflated`].
    #[error("inflated bytes")]
    Inflated,
    /// [`Limits::ratio`].
    #[error("inflated bytes for each compressed one")]
    Ratio,
    /// [`Limits::entries`].
    #[error("entries")]
    Entries,
    /// [`Limits::depth`].
    #[error("directories deep")]
    Depth,
    /// [`Limits::zstd_window_log`], in bytes.
    #[error("bytes of memory for the window of a zstd stream")]
    ZstdWindow,
    /// [`Limits::document`].
    #[error("bytes of a document")]
    Document,
}

/// A limit is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {most} {limit}")]
pub struct Exceeded {
    /// Which.
    pub limit: Limit,
    /// Its number.
    pub most: u64,
}

impl Limit {
    /// Fails where `is` is above `most`.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub const fn check(self, is: u64, most: u64) -> Result<(), Exceeded> {
        if is > most { Err(Exceeded { limit: self, most }) } else { Ok(()) }
    }
}

impl Limits {
    /// None but those of the hardware: for what the user has at hand.
    #[must_use]
    pub fn none() -> Self {
        let most = u64::MAX;
        Self { inflated: most, entries: most, depth: usize::MAX, ..Self::default() }
    }

    /// Whether `compressed` bytes may inflate to `inflated`.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn check_inflated(&self, inflated: u64, compressed: u64) -> Result<(), Exceeded> {
        Limit::Inflated.check(inflated, self.inflated)?;
        if inflated <= RATIO_FROM {
            return Ok(());
        }
        Limit::Ratio.check(inflated / compressed.max(1), self.ratio)
    }

    /// Whether a document may have `size` bytes.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub const fn check_document(&self, size: u64) -> Result<(), Exceeded> {
        Limit::Document.check(size, self.document)
    }

    /// `inner`, to which `compressed` bytes inflate, within the limits: beyond them its error
    /// carries an [`Exceeded`].
    pub const fn guard<R: Read>(self, inner: R, compressed: u64) -> Guarded<R> {
        Guarded { inner, limits: self, compressed, seen: 0 }
    }
}

/// See [`Limits::guard`].
#[derive(Debug)]
pub struct Guarded<R> {
    inner: R,
    limits: Limits,
    compressed: u64,
    seen: u64,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.seen += n as u64;
        match self.limits.check_inflated(self.seen, self.compressed) {
            Ok(()) => Ok(n),
            Err(e) => Err(io::Error::new(io::ErrorKind::InvalidData, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_inflate() {
        let limits = Limits { inflated: 4 << 30, ratio: 3, ..Limits::default() };
        for (inflated, compressed, want) in [
            (1 << 30, 0, None),
            ((1 << 30) + 1, 1, Some(Limit::Ratio)),
            (3 << 30, 1 << 30, None),
            (4 << 30, 1 << 30, Some(Limit::Ratio)),
            (4 << 30, 2 << 30, None),
            ((4 << 30) + 1, 4 << 30, Some(Limit::Inflated)),
        ] {
            let got = limits.check_inflated(inflated, compressed).err().map(|e| e.limit);
            assert_eq!(got, want, "{inflated} of {compressed}");
        }
        let limits = Limits { inflated: 5, ..Limits::default() };
        let mut read = Vec::new();
        limits.guard(&b"12345"[..], 1).read_to_end(&mut read).unwrap();
        let e = limits.guard(&b"123456"[..], 1).read_to_end(&mut read).unwrap_err();
        assert_eq!(e.downcast::<Exceeded>().unwrap(), Exceeded { limit: Limit::Inflated, most: 5 });
    }
}
