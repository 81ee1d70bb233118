//! The file that the filesystem is written to: large writes, at any place, and holes between.

use super::{BLOCK, Error, Result};
use crate::disk::raw::count;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;

/// Writes to a part of a file, gathering what follows one another.
#[derive(Debug)]
pub(super) struct Out<'a> {
    /// None to write nothing.
    file: Option<&'a File>,
    /// For messages.
    path: &'a Path,
    /// Where in the file the filesystem starts.
    base: u64,
    /// Where in the filesystem the gathered bytes start.
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Out<'a> {
    pub(super) fn new(file: &'a File, path: &'a Path, base: u64) -> Self {
        Self { file: Some(file), path, base, start: 0, buffer: Vec::with_capacity(BUFFER) }
    }

    /// Takes what is written, and that is all.
    pub(super) fn nowhere() -> Self {
        Self { file: None, path: Path::new(""), base: 0, start: 0, buffer: Vec::new() }
    }

    /// Writes `bytes` at the start of `block`; a second time, too.
    pub(super) fn block(&mut self, block: u64, bytes: &[u8]) -> Result<()> {
        self.put(block * BLOCK, bytes)
    }

    /// Writes `bytes` at byte `at`.
    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let end = self.start + self.buffer.len() as u64;
        if at >= self.start && at + bytes.len() as u64 <= end {
            let from = count(at - self.start);
            self.buffer[from..from + bytes.len()].copy_from_slice(bytes);
            return Ok(());
        }
        if at != end || self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
            self.start = at;
        }
        if bytes.len() > BUFFER {
            self.start = at + bytes.len() as u64;
            return self.write(at, bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what is gathered.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.write(self.start, &self.buffer)?;
        self.start += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let Some(file) = self.file else { return Ok(()) };
        file.write_all_at(bytes, self.base + at).map_err(|e| Error::io("write", self.path, e))
    }
}
