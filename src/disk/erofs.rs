//! A tree as an EROFS filesystem, which is read-only: written from beginning to end, without other
//! programs, and the same bytes for equal trees and contents.
//!
//! ```text
//! block 0   1024 bytes for boot sectors, superblock (128 bytes), inodes
//! …         inodes, each with its attributes and what does not fill a block of its content
//! …         whole blocks of content, in the order of the paths
//! ```
//!
//! The form is that of `fs/erofs/erofs_fs.h`, in the part that Linux reads since 5.4: blocks of
//! 4096 bytes, inodes of 64 (those of 32 have no time of their own), no compression. An inode's
//! number is its place in units of 32 bytes; it goes into the fullest block that has room for it.
//! The last part of a content lies beside the inode where both fit into one block, otherwise in a
//! block of its own. A directory is blocks of entries sorted by name, `.` and `..` among them.
//! Attributes follow the inode, none are shared. Blocks of zeros are holes in the file: a sparse
//! file takes addresses, but no space.
//!
//! Attributes outside of `user`, `trusted` and `security` that are no access control lists belong
//! to other filesystems; they are left out with a warning.

mod plan;

use super::{Error, Result, Source, Unpublished};
use crate::disk::raw::{low16, low32};
use crate::disk::sum::crc32c;
use crate::tree::Kind;
use plan::{Inode, Plan};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a block.
const BLOCK: u64 = 4096;
/// Where the superblock is.
pub(super) const SUPER: usize = 1024;
/// How it begins.
pub(super) const MAGIC: u32 = 0xe0f5_e1e2;
/// Bytes of the superblock.
const SUPER_SIZE: usize = 128;
/// How many bytes of a file are read at once.
const CHUNK: usize = 1 << 20;
/// What a block that is not written reads as.
const ZEROS: [u8; 4096] = [0; 4096];

/// What a filesystem says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options<'a> {
    /// Its name, of which 15 bytes are kept.
    pub label: &'a str,
    /// Its identifier.
    pub uuid: [u8; 16],
    /// When it was made, in seconds since 1970.
    pub time: i64,
}

/// Makes the EROFS image `target` from `source`; gives its size in bytes. A target that exists is
/// replaced when the new one is whole.
///
/// # Errors
/// [`Error::Io`], also where a file is shorter than its tree says; [`Error::Unfit`] for what the
/// filesystem does not hold.
pub fn write(source: &dyn Source, target: &Path, options: &Options) -> Result<u64> {
    let plan = Plan::new(source.tree())?;
    let image = Unpublished::new(target)?;
    let mut out = Writer { file: &image.file, target, buffer: vec![0; CHUNK] };
    image.file.set_len(plan.size()).map_err(|e| Error::io("extend", target, e))?;
    for (number, inode) in plan.inodes.iter().enumerate() {
        let tail = match &inode.node.kind {
            Kind::File if inode.size > 0 => {
                let content = source.content(inode.path);
                let mut content = content.map_err(|e| Error::io("open", inode.path.as_path(), e))?;
                out.content(inode, &mut content)?
            }
            Kind::Directory => out.content(inode, &mut plan.directory(inode).as_slice())?,
            Kind::Symlink(to) => out.content(inode, &mut to.as_slice())?,
            _ => Vec::new(),
        };
        out.put(inode.at, &[&inode.header(number), &inode.xattrs[..], &tail].concat())?;
    }
    out.superblock(&plan, options)?;
    source.check().map_err(Error::Source)?;
    image.publish(target)?;
    Ok(plan.size())
}

/// The file that is written.
struct Writer<'a> {
    file: &'a File,
    target: &'a Path,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn put(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(|e| Error::io("write", self.target, e))
    }

    /// Writes the blocks of a content; gives what lies beside the inode.
    fn content(&mut self, inode: &Inode, content: &mut dyn Read) -> Result<Vec<u8>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut read = |bytes: &mut [u8]| {
            content.read_exact(bytes).map_err(|e| Error::io("read", inode.path.as_path(), e))
        };
        let (mut at, mut left) = (u64::from(inode.block) * BLOCK, inode.size - inode.tail);
        while left > 0 {
            let part = &mut buffer[..CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
            read(part)?;
            self.put_sparse(at, part)?;
            at += part.len() as u64;
            left -= part.len() as u64;
        }
        let mut tail = vec![0; usize::try_from(inode.tail).unwrap_or(0)];
        read(&mut tail)?;
        self.buffer = buffer;
        Ok(tail)
    }

    /// Writes what is not zero.
    fn put_sparse(&self, mut at: u64, bytes: &[u8]) -> Result<()> {
        let zero = |block: &[u8]| block == &ZEROS[..block.len()];
        let blocks: Vec<&[u8]> = bytes.chunks(ZEROS.len()).collect();
        let mut rest = bytes;
        for run in blocks.chunk_by(|a, b| zero(a) == zero(b)) {
            let part;
            (part, rest) = rest.split_at(run.iter().map(|b| b.len()).sum());
            if !zero(run[0]) {
                self.put(at, part)?;
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Writes `struct erofs_super_block`. Its checksum is of the rest of the block too, where there
    /// are inodes already.
    fn superblock(&self, plan: &Plan, options: &Options) -> Result<()> {
        let mut label = [0; 16];
        let name = &options.label.as_bytes()[..options.label.floor_char_boundary(15)];
        label[..name.len()].copy_from_slice(name);
        let mut out = Vec::with_capacity(SUPER_SIZE);
        out.extend(MAGIC.to_le_bytes());
        out.extend([0; 4]); // the checksum
        out.extend(3u32.to_le_bytes()); // has a checksum; times are those of modification
        out.extend([12, 0]); // log2 of a block, no more of the superblock
        out.extend(low16(plan.inodes[0].nid()).to_le_bytes());
        out.extend((plan.inodes.len() as u64).to_le_bytes());
        out.extend(options.time.to_le_bytes());
        out.extend([0; 4]); // nanoseconds
        out.extend(low32(plan.blocks).to_le_bytes());
        out.extend([0; 8]); // inodes are counted from block 0; there are no shared attributes
        out.extend(options.uuid);
        out.extend(label);
        out.resize(SUPER_SIZE, 0);
        let mut rest = vec![0; ZEROS.len() - SUPER - SUPER_SIZE];
        let read = self.file.read_exact_at(&mut rest, (SUPER + SUPER_SIZE) as u64);
        read.map_err(|e| Error::io("read", self.target, e))?;
        let sum = crc32c(crc32c(!0, &out), &rest);
        out[4..8].copy_from_slice(&sum.to_le_bytes());
        self.put(SUPER as u64, &out)
    }
}
