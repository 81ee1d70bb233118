//! Tar framing: headers, PAX records, GNU long names and sparse maps to entries.
//!
//! `tar::Header` knows where the fields of a header lie; the rest is done here, because
//! the crate's own iterator splits PAX records at newlines (so it loses binary attributes
//! such as `security.capability`), reads extended headers of any size into memory, gives
//! holes as zeros and knows no sparse files in PAX form.
//!
//! Where two readers of one archive could see different entries, the archive is refused
//! (CVE-2025-62518, CVE-2026-33055): a PAX size that contradicts the header's, content
//! behind entries that have none, extended headers for no entry or twice for one. A PAX
//! record belongs to the next entry and to no extended header. Global PAX headers are
//! skipped, as by all container tools. Formats: pax(1), "pax Interchange Format"; the GNU
//! tar manual, "Tar Internals".

use super::pax::{self, Records};
use super::stream::Tar;
use super::{Error, Origin, Reason, Result};
use crate::store::Limit;
use crate::tree::{Entry, Kind, Meta, Name, Time, TreePath};
use std::borrow::Cow;

const BLOCK: usize = 512;

/// The largest extended header that is read, in bytes; attributes have at most 64 KiB.
const MAX_EXTENDED: u64 = 1 << 20;

/// The largest number of pieces of a sparse file.
const MAX_PIECES: usize = 1 << 20;

/// The largest size of a regular file in bytes: that of ext4 with 4 KiB blocks.
const MAX_FILE: u64 = 16 << 40;

/// What is wrong with an archive; becomes an error with layer and place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The archive ends within an entry.
    #[error("the archive ends within an entry")]
    Truncated,
    /// A header's checksum is wrong.
    #[error("not a tar header, its checksum is wrong")]
    Checksum,
    /// A number field is malformed or out of range.
    #[error("invalid {0}")]
    Number(&'static str),
    /// PAX records are malformed.
    #[error("malformed PAX records")]
    Pax,
    /// Two sizes.
    #[error("PAX size {pax} contradicts the header's size {header}")]
    Sizes {
        /// By the PAX record.
        pax: u64,
        /// By the header.
        header: u64,
    },
    /// Content where there can be none.
    #[error("an entry of type {kind:?} with {size} bytes of content")]
    Content {
        /// The type flag.
        kind: char,
        /// The size in bytes.
        size: u64,
    },
    /// An extended header without an entry, or a second of its kind.
    #[error("extended headers for no entry or twice for one")]
    Extended,
    /// An extended header above the limit.
    #[error("extended header of {0} bytes, the limit is {MAX_EXTENDED}")]
    LongExtended(u64),
    /// A malformed sparse map.
    #[error("malformed sparse map")]
    Sparse,
    /// A file above the limit.
    #[error("file of {0} bytes, the limit is {MAX_FILE}")]
    LongFile(u64),
    /// An unknown type of entry.
    #[error("unknown entry type {0:?}")]
    Type(char),
}

/// A piece of a regular file: where it belongs and how many bytes of the archive it has.
pub(super) type Piece = (u64, u64);

/// Reads the entries of one layer's tar.
pub(super) struct Archive<'a> {
    pub(super) tar: Tar<'a>,
    /// Bytes of the current entry that have not been read, with their padding.
    left: u64,
    padding: u64,
    /// The current entry's pieces.
    pieces: Vec<Piece>,
    entries: u64,
}

/// The extended headers before an entry.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Records>,
}

impl Extended {
    const fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.pax.is_none()
    }
}

impl<'a> Archive<'a> {
    pub(super) const fn new(tar: Tar<'a>) -> Self {
        Self { tar, left: 0, padding: 0, pieces: Vec::new(), entries: 0 }
    }

    fn malformed<T>(&self, reason: Malformed) -> Result<T> {
        Err(Error::Archive { layer: self.tar.origin(), offset: self.tar.position(), reason })
    }

    fn check<T>(&self, result: std::result::Result<T, Malformed>) -> Result<T> {
        result.or_else(|reason| self.malformed(reason))
    }

    /// The next entry; none at the end of the archive. What is left of the entry before is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let Some(entry) = self.read_entry()? else { return Ok(None) };
        self.entries += 1;
        let layer = || self.tar.origin();
        let limits = self.tar.limits();
        let counted = Limit::Entries.check(self.entries, limits.entries);
        counted.map_err(|source| Error::Limit { layer: layer(), source })?;
        if let Name::Entry(path) | Name::Whiteout(path) | Name::Opaque(path) = &entry.name {
            Limit::Depth.check(path.depth() as u64, limits.depth as u64).map_err(|exceeded| {
                Error::Entry { layer: layer(), path: path.clone(), reason: Reason::Depth(exceeded) }
            })?;
        }
        Ok(Some(entry))
    }

    /// How many entries there were.
    pub(super) const fn entries(&self) -> u64 {
        self.entries
    }

    /// Where the pieces of the current file belong, in the order in which the archive has them.
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// How many of the `size` bytes of the current file are in holes.
    pub(super) const fn holes(&self, size: u64) -> u64 {
        size.saturating_sub(self.left)
    }

    /// Counts the holes of the current file like inflated bytes: they are about to be read as zeros.
    pub(super) fn count_holes(&mut self, size: u64) -> Result<()> {
        self.tar.count_holes(self.holes(size))
    }

    fn read_entry(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            self.skip(self.left)?;
            self.skip_padding(self.padding)?;
            (self.left, self.padding) = (0, 0);
            let Some(header) = self.header()? else {
                return if extended.is_empty() { Ok(None) } else { self.malformed(Malformed::Extended) };
            };
            let kind = header.as_old().linkflag[0];
            let size = self.check(number(&header.as_old().size, "size"))?;
            let slot = match kind {
                b'L' => &mut extended.name,
                b'K' => &mut extended.link,
                b'x' if extended.pax.is_none() => {
                    let bytes = self.extended(size)?;
                    extended.pax = Some(self.check(pax::parse(&bytes))?);
                    continue;
                }
                b'g' => {
                    self.extended(size)?;
                    continue;
                }
                b'x' => return self.malformed(Malformed::Extended),
                _ => return self.entry(&header, size, extended).map(Some),
            };
            let twice = slot.is_some();
            let mut text = self.extended(size)?;
            if twice {
                return self.malformed(Malformed::Extended);
            }
            while text.last() == Some(&0) {
                text.pop();
            }
            *slot = Some(text);
        }
    }

    /// The next header block that is not zero; none at the end.
    fn header(&mut self) -> Result<Option<tar::Header>> {
        let mut header = tar::Header::new_old();
        if self.tar.fill()?.is_empty() {
            return Ok(None);
        }
        self.read_exact(header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let sum = |all: &[u8]| all.iter().map(|&b| u64::from(b)).sum::<u64>();
        let want = sum(&bytes[..148]) + 8 * u64::from(b' ') + sum(&bytes[156..]);
        match number(&header.as_old().cksum, "checksum") {
            Ok(got) if got == want => Ok(Some(header)),
            _ => self.malformed(Malformed::Checksum),
        }
    }

    /// The content of an extended header.
    fn extended(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENDED {
            return self.malformed(Malformed::LongExtended(size));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read_exact(&mut bytes)?;
        self.skip(padding(size))?;
        Ok(bytes)
    }

    fn entry(&mut self, header: &tar::Header, header_size: u64, extended: Extended) -> Result<Entry> {
        let Extended { name, link, pax } = extended;
        let pax = pax.unwrap_or_default();
        let stored = self.check(stored_size(header_size, pax.size))?;
        let flag = header.as_old().linkflag[0];
        let sparse_name = pax.sparse.name.clone();
        let raw: Cow<[u8]> =
            name.or(sparse_name).or(pax.path).map_or_else(|| header.path_bytes(), Cow::Owned);
        let refused =
            |reason| Error::Name { layer: self.tar.origin(), name: raw.escape_ascii().to_string(), reason };
        // Names of whiteouts mean something in layers alone.
        let parsed = match self.tar.origin() {
            Origin::Layer(_) => Name::parse(&raw),
            Origin::Stream => TreePath::parse(&raw).map(Name::Entry),
        };
        let parsed = parsed.map_err(refused)?;
        let target = link
            .or(pax.linkpath)
            .or_else(|| header.link_name_bytes().map(Cow::into_owned))
            .unwrap_or_default();
        let field = |own: &[u8], what| number(own, what);
        let mode = self.check(field(&header.as_old().mode, "mode"))?;
        let kind = match flag {
            b'1' => Kind::Link(TreePath::parse_link(&target).map_err(refused)?),
            b'2' => Kind::Symlink(target),
            b'3' | b'4' => self.check(device(header, flag))?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b's' => Kind::Socket,
            0 | b'0' | b'7' | b'S' if mode & 0o170_000 == 0o140_000 => Kind::Socket,
            // Before POSIX, a name with a final slash was a directory.
            0 if raw.last() == Some(&b'/') => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            other => return self.malformed(Malformed::Type(other.into())),
        };
        if kind != Kind::File && stored > 0 {
            return self.malformed(Malformed::Content { kind: flag.into(), size: stored });
        }
        let meta = Meta {
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            uid: self.check(owner(&header.as_old().uid, pax.uid, "owner"))?,
            gid: self.check(owner(&header.as_old().gid, pax.gid, "group"))?,
            mtime: match pax.mtime {
                Some(t) => t,
                None => Time { seconds: self.check(signed(&header.as_old().mtime, "mtime"))?, nanos: 0 },
            },
            xattrs: pax.xattrs,
        };
        (self.left, self.padding) = (stored, padding(stored));
        let size = if kind == Kind::File { self.map(header, stored, &pax.sparse)? } else { 0 };
        if size > MAX_FILE {
            return self.malformed(Malformed::LongFile(size));
        }
        Ok(Entry { name: parsed, kind, meta, size })
    }

    /// Finds the pieces of a regular file; gives its size with the holes.
    fn map(&mut self, header: &tar::Header, stored: u64, sparse: &pax::Sparse) -> Result<u64> {
        self.pieces.clear();
        let size = if header.as_old().linkflag[0] == b'S' {
            self.gnu_map(header)?
        } else if let Some(size) = sparse.size {
            if sparse.major == Some(1) {
                self.inline_map()?;
            } else {
                self.pieces.extend_from_slice(&sparse.pieces);
            }
            size
        } else {
            self.pieces.push((0, stored));
            return Ok(stored);
        };
        let mut at = 0;
        let mut sum = 0u64;
        for &(offset, len) in &self.pieces {
            match offset.checked_add(len) {
                Some(end) if offset >= at && end <= size => at = end,
                _ => return self.malformed(Malformed::Sparse),
            }
            sum += len;
        }
        if sum == self.left { Ok(size) } else { self.malformed(Malformed::Sparse) }
    }

    /// The map of the old GNU form: four pieces in the header, more in blocks after it, which
    /// the entry's size does not count.
    fn gnu_map(&mut self, header: &tar::Header) -> Result<u64> {
        let Some(gnu) = header.as_gnu() else { return self.malformed(Malformed::Sparse) };
        let size = self.check(number(&gnu.realsize, "size"))?;
        let add = |pieces: &mut Vec<Piece>, all: &[tar::GnuSparseHeader]| {
            for p in all.iter().filter(|p| p.numbytes[0] != 0 || p.offset[0] != 0) {
                pieces.push((number(&p.offset, "sparse offset")?, number(&p.numbytes, "sparse size")?));
            }
            if pieces.len() > MAX_PIECES { Err(Malformed::Sparse) } else { Ok(()) }
        };
        let mut pieces = std::mem::take(&mut self.pieces);
        self.check(add(&mut pieces, &gnu.sparse))?;
        let mut more = gnu.isextended[0] != 0;
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.read_exact(block.as_mut_bytes())?;
            self.check(add(&mut pieces, block.sparse()))?;
            more = block.is_extended();
        }
        self.pieces = pieces;
        Ok(size)
    }

    /// The map of PAX form 1.0: decimal lines before the data, padded to a block.
    fn inline_map(&mut self) -> Result<()> {
        let (mut numbers, mut block, mut wanted) = (Vec::new(), [0; BLOCK], None);
        let mut current: Option<u64> = None;
        while wanted.is_none_or(|w| numbers.len() < w) {
            if self.left < BLOCK as u64 {
                return self.malformed(Malformed::Sparse);
            }
            self.read_exact(&mut block)?;
            self.left -= BLOCK as u64;
            for &b in &block {
                match b {
                    b'0'..=b'9' => {
                        let digit = u64::from(b - b'0');
                        let next = current.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(digit));
                        let Some(next) = next else { return self.malformed(Malformed::Sparse) };
                        current = Some(next);
                    }
                    b'\n' => {
                        let Some(n) = current.take() else { return self.malformed(Malformed::Sparse) };
                        match wanted {
                            None if n <= MAX_PIECES as u64 => wanted = usize::try_from(n * 2).ok(),
                            None => return self.malformed(Malformed::Sparse),
                            Some(_) => numbers.push(n),
                        }
                        if wanted == Some(numbers.len()) {
                            break;
                        }
                    }
                    _ => return self.malformed(Malformed::Sparse),
                }
            }
        }
        self.pieces.extend(numbers.chunks_exact(2).map(|p| (p[0], p[1])));
        Ok(())
    }

    /// Gives the current file's content to `write`, piece by piece, each with its offset.
    pub(super) fn content(&mut self, mut write: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        for i in 0..self.pieces.len() {
            let (mut offset, mut left) = self.pieces[i];
            while left > 0 {
                let bytes = self.tar.fill()?;
                if bytes.is_empty() {
                    return self.malformed(Malformed::Truncated);
                }
                let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                write(offset, &bytes[..n])?;
                self.tar.consume(n);
                (offset, left) = (offset + n as u64, left - n as u64);
                self.left -= n as u64;
            }
        }
        Ok(())
    }

    fn read_exact(&mut self, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            let bytes = self.tar.fill()?;
            if bytes.is_empty() {
                return self.malformed(Malformed::Truncated);
            }
            let n = bytes.len().min(into.len());
            into[..n].copy_from_slice(&bytes[..n]);
            into = &mut into[n..];
            self.tar.consume(n);
        }
        Ok(())
    }

    /// Passes over the padding of an entry; `umoci insert` ends its archives before that of the last.
    fn skip_padding(&mut self, mut left: u64) -> Result<()> {
        while left > 0 {
            let n = self.tar.pass(left)?;
            if n == 0 {
                break;
            }
            left -= n;
        }
        Ok(())
    }

    fn skip(&mut self, mut left: u64) -> Result<()> {
        while left > 0 {
            let n = self.tar.pass(left)?;
            if n == 0 {
                return self.malformed(Malformed::Truncated);
            }
            left -= n;
        }
        Ok(())
    }
}

pub(crate) const fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// The size by header and PAX record. A header whose field is too small for the size holds
/// nothing, all sevens or the lower bits, by the writer; all else is a contradiction.
pub(crate) fn stored_size(header: u64, pax: Option<u64>) -> std::result::Result<u64, Malformed> {
    const FIELD: u64 = 0o77_777_777_777;
    let size = match pax {
        None => header,
        Some(pax) if pax == header || header == 0 => pax,
        Some(pax) if pax > FIELD && (header == FIELD || header == pax & FIELD) => pax,
        Some(pax) => return Err(Malformed::Sizes { pax, header }),
    };
    if size > i64::MAX as u64 { Err(Malformed::Number("size")) } else { Ok(size) }
}

/// A number field that may not be negative.
pub(crate) fn number(field: &[u8], what: &'static str) -> std::result::Result<u64, Malformed> {
    signed(field, what).and_then(|n| u64::try_from(n).map_err(|_| Malformed::Number(what)))
}

/// A number field: octal digits, or base-256 with the highest bit set (GNU), big endian.
fn signed(field: &[u8], what: &'static str) -> std::result::Result<i64, Malformed> {
    let wrong = || Malformed::Number(what);
    if field.first().is_some_and(|b| b & 0x80 != 0) {
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (i, &b) in field.iter().enumerate() {
            let b = if i == 0 && !negative { b & 0x7f } else { b };
            if value.unsigned_abs() >> 100 != 0 {
                return Err(wrong());
            }
            value = (value << 8) | i128::from(b);
        }
        return i64::try_from(value).map_err(|_| wrong());
    }
    let text = field.split(|&b| b == 0).next().unwrap_or(b"").trim_ascii();
    text.iter().try_fold(0i64, |sum, &b| match b {
        b'0'..=b'7' => sum.checked_mul(8).map(|s| s + i64::from(b - b'0')).ok_or_else(wrong),
        _ => Err(wrong()),
    })
}

/// An owner; 4294967295 means "unchanged" to chown(2) and is none.
fn owner(field: &[u8], pax: Option<u64>, what: &'static str) -> std::result::Result<u32, Malformed> {
    let id = match pax {
        Some(id) => id,
        None => number(field, what)?,
    };
    u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or(Malformed::Number(what))
}

fn device(header: &tar::Header, flag: u8) -> std::result::Result<Kind, Malformed> {
    let bytes = header.as_bytes();
    let part = |at: usize| {
        number(&bytes[at..at + 8], "device number")
            .and_then(|n| u32::try_from(n).map_err(|_| Malformed::Number("device number")))
    };
    let (major, minor) = (part(329)?, part(337)?);
    Ok(if flag == b'3' { Kind::Char(major, minor) } else { Kind::Block(major, minor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (field, want) in [
            (&b"0000644\0"[..], Ok(0o644)),
            (b"   644 \0", Ok(0o644)),
            (b"\0\0\0\0", Ok(0)),
            (b"77777777777", Ok(0o77_777_777_777)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Ok(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Ok(-2)),
            (b"\x80\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff", Err(Malformed::Number("x"))),
            (b"12x4", Err(Malformed::Number("x"))),
            (b"-1", Err(Malformed::Number("x"))),
        ] {
            assert_eq!(signed(field, "x"), want, "{}", field.escape_ascii());
        }
        assert_eq!(number(b"\xff\xff\xff\xff", "size"), Err(Malformed::Number("size")));
        assert_eq!(owner(b"0", Some(u64::from(u32::MAX)), "owner"), Err(Malformed::Number("owner")));
        assert_eq!(owner(b"0", Some(4_294_967_294), "owner"), Ok(4_294_967_294));
    }

    #[test]
    fn sizes() {
        let big = 0o77_777_777_777 + 5;
        assert_eq!(stored_size(5, None), Ok(5));
        assert_eq!(stored_size(5, Some(5)), Ok(5));
        assert_eq!(stored_size(0, Some(5)), Ok(5));
        assert_eq!(stored_size(4, Some(big)), Ok(big));
        assert_eq!(stored_size(512, Some(0)), Err(Malformed::Sizes { pax: 0, header: 512 }));
        assert_eq!(stored_size(512, Some(1024)), Err(Malformed::Sizes { pax: 1024, header: 512 }));
        assert_eq!(stored_size(0, Some(u64::MAX)), Err(Malformed::Number("size")));
        assert_eq!((padding(0), padding(1), padding(512)), (0, 511, 0));
    }
}
