//! ext4 and ext2 filesystems, written block by block: no other program, no mount, no rights.
//!
//! ```text
//! tree ─ plan (numbers, directories, need) ─ layout (size, groups) ─┐
//! content ──────────────────────────────────────────── fill ────────┴→ data, inodes ─ tables
//! ```
//!
//! Equal sources and options give equal bytes, on any host. Blocks are taken in order, all
//! directories first, then content in the order of paths; whatever is zero is a hole, in the files
//! and in the image: content alone decides, not where its source has holes. Inodes are numbered in
//! the order of paths. Times are those of the source, or [`Options::time`] for what is the
//! filesystem's own.
//!
//! ext4 has the features that every kernel since 4.x mounts and grub reads, all sums, a journal and
//! indexed directories; nothing is left for the kernel to initialise. ext2 is for small readers:
//! no journal, no sums, block maps. Both have 4096 bytes in a block, 256 in an inode, and grow by
//! resize2fs(8).
//!
//! What cannot be on such a filesystem is an [`Error::Unfit`] that names the file: attributes larger
//! than a block, more than 65000 names of a file. Memory is that of the names, never of content.

mod dir;
mod geometry;
mod inode;
mod layout;
mod map;
mod mounted;
mod out;
mod plan;
mod space;
mod tables;
mod write;
mod xattr;

pub(super) use geometry::has_backup;
pub use layout::Layout;
pub use mounted::write_through_loop;

use super::{Error, Result, Source, Unpublished};
use crate::tree::Tree;
use out::Out;
use plan::Plan;
use std::fs::File;
use std::path::Path;

/// Bytes of a block.
const BYTES: usize = 4096;
/// The same.
const BLOCK: u64 = BYTES as u64;
/// Bytes of an inode.
const INODE: u64 = 256;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With a journal, sums, extents.
    Ext4,
    /// Without.
    Ext2,
}

/// How large a filesystem is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many bytes, to the whole block.
    Fixed(u64),
    /// What the files need and so many bytes more that users can fill; where none are named, a
    /// quarter, at least 64 MiB.
    Auto {
        /// The bytes.
        free: Option<u64>,
    },
    /// The least that holds the files. Those of 1 MiB and more are read twice, to find their holes; so
    /// they are where a fixed size seems too small.
    Shrink,
}

/// What a filesystem is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Which one.
    pub kind: Kind,
    /// How large.
    pub size: Size,
    /// Its label, of which 16 bytes are taken.
    pub label: String,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// What hashes of names depend on.
    pub hash_seed: [u8; 16],
    /// When it was made, in seconds since 1970: the time of all that is not from the source.
    pub time: i64,
}

/// How a filesystem with the files of `tree` will be laid out; for a size that is too small, the
/// size that is not. Holes in files are not known here: [`write()`] may find that less will do.
///
/// # Errors
/// [`Error::TooSmall`], [`Error::TooLarge`], [`Error::Unfit`].
pub fn layout(tree: &Tree, options: &Options) -> Result<Layout> {
    Layout::new(Plan::new(tree, options)?.need, options)
}

/// A plan and its layout; content is read where its holes matter.
fn planned<'a>(source: &'a dyn Source, options: &Options) -> Result<(Plan<'a>, Layout)> {
    let plan = Plan::new(source.tree(), options)?;
    let layout = match Layout::new(plan.need, options) {
        Ok(layout) if options.size != Size::Shrink => layout,
        Ok(_) | Err(Error::TooSmall { .. }) => Layout::new(write::measure(source, &plan, options)?, options)?,
        Err(e) => return Err(e),
    };
    Ok((plan, layout))
}

/// Makes the filesystem `target` of a source; gives its layout. A target that exists is replaced
/// when the new one is whole.
///
/// # Errors
/// Those of [`layout`], before anything is written, and of [`write_at`].
pub fn write(source: &dyn Source, target: &Path, options: &Options) -> Result<Layout> {
    let (plan, layout) = planned(source, options)?;
    let image = Unpublished::new(target)?;
    image.file.set_len(layout.size).map_err(|e| Error::io("extend", target, e))?;
    write::fill(source, &plan, &layout, options, || Out::new(&image.file, target, 0))?;
    image.publish(target)?;
    Ok(layout)
}

/// Makes a filesystem in a part of a file, `path` in messages, from byte `at` on; all that it takes
/// is a hole, or zero.
///
/// # Errors
/// Those of [`layout`], before anything is written; [`Error::Content`] where the source cannot be
/// read; [`Error::Unfit`] where it has changed; [`Error::Io`]; [`Error::Stopped`].
pub fn write_at(source: &dyn Source, file: &File, path: &Path, at: u64, options: &Options) -> Result<Layout> {
    let (plan, layout) = planned(source, options)?;
    write::fill(source, &plan, &layout, options, || Out::new(file, path, at))?;
    Ok(layout)
}

#[cfg(test)]
mod tests;
