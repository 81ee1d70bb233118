//! How large a filesystem is, before it is written.

use super::geometry::Geometry;
use super::plan::Need;
use super::{BLOCK, Error, Kind, Options, Result, Size};

/// The least free space where none is named, in bytes.
const MIN_FREE: u64 = 64 << 20;
/// Blocks of the smallest journal that the kernel takes.
const LEAST_JOURNAL: u64 = 1024;
/// Inodes that the smallest filesystem has to spare.
const SPARE: u64 = 16;

/// How a filesystem is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the image.
    pub size: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// Bytes of the journal.
    pub journal: u64,
    /// Bytes that users can fill.
    pub free: u64,
    pub(super) geometry: Geometry,
    /// Blocks that only root can fill.
    pub(super) kept: u64,
}

/// One choice of what there is beside the files.
#[derive(Clone, Copy)]
struct Choice {
    inodes: u64,
    journal: u64,
    free: u64,
    /// Hundredths that are kept for root.
    kept: u64,
}

impl Layout {
    /// The layout for what is needed.
    ///
    /// # Errors
    /// [`Error::TooSmall`], [`Error::TooLarge`].
    pub(super) fn new(need: Need, options: &Options) -> Result<Self> {
        let kind = options.kind;
        match options.size {
            Size::Shrink => least(need, kind, |_| tight(need, kind)),
            Size::Auto { free } => {
                let free = free.unwrap_or_else(|| (need.blocks.saturating_mul(BLOCK) / 4).max(MIN_FREE));
                let free = free.div_ceil(BLOCK);
                least(need, kind, |blocks| Choice { free, kept: 1, ..ample(need, kind, blocks) })
            }
            Size::Fixed(size) => Self::fixed(need, kind, size),
        }
    }

    fn fixed(need: Need, kind: Kind, size: u64) -> Result<Self> {
        let blocks = size / BLOCK;
        if blocks > u64::from(u32::MAX) {
            return Err(Error::TooLarge { size });
        }
        let ample = ample(need, kind, blocks);
        let tight = tight(need, kind);
        let choices = [ample, Choice { journal: tight.journal, ..ample }, tight];
        if let Some(found) = choices.into_iter().find_map(|c| Self::of(need, kind, blocks, c)) {
            return Ok(Self { size: blocks * BLOCK, ..found });
        }
        let least = least(need, kind, |_| tight)?;
        if least.size > size {
            return Err(Error::TooSmall { size, needed: least.size });
        }
        // The blocks beyond would cost more than they hold.
        Ok(Self { size: blocks * BLOCK, ..least })
    }

    /// That of so many blocks, where they do.
    fn of(need: Need, kind: Kind, blocks: u64, choice: Choice) -> Option<Self> {
        let geometry = Geometry::new(kind, blocks, choice.inodes)?;
        // The block of the inode that keeps room for descriptors, too.
        let journal = choice.journal + super::map::most(kind, choice.journal);
        let taken = need.blocks.checked_add(journal + 1)?;
        let left = geometry.capacity().checked_sub(taken)?;
        let kept = (blocks * choice.kept / 100).min(left);
        // What the kernel holds back for itself.
        let held = if kind == Kind::Ext4 { (geometry.blocks / 50).min(4096) } else { 0 };
        let free = left.saturating_sub(kept + held);
        (free >= choice.free).then_some(Self {
            size: geometry.blocks * BLOCK,
            inodes: geometry.inodes(),
            journal: choice.journal * BLOCK,
            free: free * BLOCK,
            geometry,
            kept,
        })
    }
}

/// What a comfortable filesystem of so many blocks has.
fn ample(need: Need, kind: Kind, blocks: u64) -> Choice {
    let size = blocks * BLOCK;
    let journal = match size >> 20 {
        0..512 => LEAST_JOURNAL,
        512..2048 => 4 * LEAST_JOURNAL,
        _ => 16 * LEAST_JOURNAL,
    };
    let inodes = (need.inodes * 2).max(size / (16 << 10)).max(1024);
    Choice { inodes, journal: if kind == Kind::Ext4 { journal } else { 0 }, free: 0, kept: 1 }
}

/// What a filesystem has at least.
const fn tight(need: Need, kind: Kind) -> Choice {
    let journal = match kind {
        Kind::Ext4 => LEAST_JOURNAL,
        Kind::Ext2 => 0,
    };
    Choice { inodes: need.inodes + SPARE, journal, free: 0, kept: 0 }
}

/// The smallest layout; `choice` says what one of so many blocks has.
fn least(need: Need, kind: Kind, choice: impl Fn(u64) -> Choice) -> Result<Layout> {
    let most = u64::from(u32::MAX);
    let of = |blocks| Layout::of(need, kind, blocks, choice(blocks));
    let (mut low, mut high) = (0, most);
    // Almost always, more blocks hold more; where not, it is a smallest one nevertheless: one block
    // less does not do.
    let mut step = need.blocks.clamp(64, most / 2);
    while step < most && of(step).is_none() {
        low = step;
        step = (step * 2).min(most);
    }
    if step < most {
        high = step;
    }
    let mut found = of(high).ok_or(Error::TooLarge { size: need.blocks.saturating_mul(BLOCK) })?;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match of(middle) {
            Some(layout) => (high, found) = (middle, layout),
            None => low = middle,
        }
    }
    Ok(found)
}
