//! What an archive is read from: a file whose bytes can be had at any place, from several threads.
//!
//! Standard input and pipes are copied into a nameless file of the scratch folder, compressed
//! archives are inflated into one; a plain file is read where it lies.

use super::{Error, Result, io_error};
use crate::layer;
use crate::oci::{Compression, Digest};
use crate::store::{Hashed, Limits};
use crate::sys::signal;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Size of the buffer for copying, in bytes.
const CHUNK: usize = 256 << 10;

/// Logarithm of the window of a zstd stream in bytes that is always taken: that of `zstd --long`. Of
/// archives only one is under way.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Where an archive comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or folder.
    Path(PathBuf),
    /// Standard input.
    Stdin,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

/// A part of a file.
#[derive(Debug, Clone)]
pub(super) struct Section {
    file: Arc<File>,
    at: u64,
    len: u64,
}

impl Section {
    /// All of `file`.
    pub(super) fn whole(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), at: 0, len })
    }

    /// How many bytes there are.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// The part from `from` on, `len` bytes; none where it ends before.
    pub(super) fn part(&self, from: u64, len: u64) -> Option<Self> {
        let end = from.checked_add(len)?;
        (end <= self.len).then(|| Self { file: self.file.clone(), at: self.at + from, len })
    }

    /// What is left from `from` on.
    pub(super) fn skip(&self, from: u64) -> Self {
        let from = from.min(self.len);
        Self { file: self.file.clone(), at: self.at + from, len: self.len - from }
    }

    /// How it is compressed, by its first bytes.
    pub(super) fn format(&self) -> io::Result<Format> {
        let mut magic = Vec::new();
        self.clone().take(6).read_to_end(&mut magic)?;
        Ok(match magic.as_slice() {
            [0x1f, 0x8b, ..] => Format::Layer(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Layer(Compression::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Format::Xz,
            _ => Format::Layer(Compression::None),
        })
    }

    /// What it inflates to.
    pub(super) fn inflate(&self, limits: &Limits) -> io::Result<Box<dyn Read + Send>> {
        let inner: Box<dyn Read + Send> = match self.format()? {
            Format::Layer(compression) => {
                let window = limits.zstd_window_log.max(ZSTD_WINDOW_LOG);
                Box::new(layer::Decoder::new(self.clone(), compression, window)?)
            }
            Format::Xz => Box::new(liblzma::read::XzDecoder::new(self.clone())),
        };
        Ok(Box::new(limits.guard(inner, self.len)))
    }
}

impl Read for Section {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(usize::try_from(self.len).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buf[..n], self.at)?;
        self.at += n as u64;
        self.len -= n as u64;
        Ok(n)
    }
}

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// As a layer may be.
    Layer(Compression),
    /// xz, which no layer may be.
    Xz,
}

/// Copies until the end; a signal that was put off ends it.
pub(super) fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
    let (mut buffer, mut sum) = (vec![0; CHUNK], 0);
    loop {
        if signal::pending().is_some() {
            return Err(io::Error::other("interrupted by a signal"));
        }
        match from.read(&mut buffer) {
            Ok(0) => return Ok(sum),
            Ok(n) => {
                to.write_all(&buffer[..n])?;
                sum += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The bytes of `source`, as they came.
pub(super) fn open(source: &Source, scratch: &Path) -> Result<Section> {
    match source {
        Source::Path(path) => {
            let file = io_error("open", path, File::open(path))?;
            let kind = io_error("stat", path, file.metadata())?.file_type();
            if !kind.is_file() {
                return spool(source, &mut io::BufReader::new(file), scratch);
            }
            io_error("stat", path, Section::whole(file))
        }
        Source::Stdin => spool(source, &mut io::stdin().lock(), scratch),
    }
}

/// A nameless file with all of `content`.
pub(super) fn spool(source: &Source, content: &mut dyn Read, scratch: &Path) -> Result<Section> {
    let mut file = io_error("create a file in", scratch, tempfile::tempfile_in(scratch))?;
    copy(content, &mut file).map_err(|e| Error::read(source, e))?;
    io_error("stat", scratch, Section::whole(file))
}

/// The digest of all that `content` gives.
pub(super) fn digest(source: &Source, content: &mut dyn Read) -> Result<Digest> {
    let mut hashed = Hashed::new(io::sink());
    copy(content, &mut hashed).map_err(|e| Error::read(source, e))?;
    Ok(hashed.finish().1)
}
