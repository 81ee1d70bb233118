//! Blocks for data, taken in order: what is before the next one is taken, all else is free.

use super::geometry::Geometry;
use super::out::Out;
use super::{Error, Result};

/// The blocks of a filesystem that is being filled, and the file.
pub(super) struct Space<'a> {
    geometry: Geometry,
    /// Everything before it is taken.
    pub next: u64,
    /// Where data goes.
    pub out: Out<'a>,
}

impl<'a> Space<'a> {
    pub(super) const fn new(geometry: Geometry, out: Out<'a>) -> Self {
        Self { geometry, next: 0, out }
    }

    /// Up to `wanted` blocks that follow one another: the first, and how many.
    pub(super) fn take(&mut self, wanted: u64) -> Result<(u64, u64)> {
        let (start, end) = self.geometry.run(self.next);
        if start >= end {
            let size = self.geometry.blocks * super::BLOCK;
            return Err(Error::TooSmall { size, needed: size + super::BLOCK });
        }
        let length = wanted.min(end - start);
        self.next = start + length;
        Ok((start, length))
    }
}
