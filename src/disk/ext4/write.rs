//! A plan carried out.

use super::geometry::Geometry;
use super::inode::{EXTENTS, INDEXED, Inode, JOURNAL, RESIZE, ROOT, Sums, device};
use super::map::{self, Map, Mapped};
use super::out::Out;
use super::plan::{Dir, Item, Need, Plan};
use super::space::Space;
use super::tables::{self, Tables};
use super::xattr::Attributes;
use super::{BLOCK, BYTES, Error, INODE, Kind, Layout, Options, Result, Source, dir};
use crate::disk::raw::{count, low32, set, sort};
use crate::sys::signal;
use crate::tree::{Kind as Sort, Meta, Time, TreePath};
use std::io::{self, Read};

/// Bytes of content that are read at once.
const CHUNK: usize = 256 << 10;
/// Bytes of a file that is worth to be read for its holes.
const LARGE: u64 = 1 << 20;

static ZEROS: [u8; BYTES] = [0; BYTES];

/// Writes the filesystem; `out` opens the file anew.
pub(super) fn fill<'a>(
    source: &'a dyn Source,
    plan: &Plan,
    layout: &Layout,
    options: &'a Options,
    out: impl Fn() -> Out<'a>,
) -> Result<()> {
    let geometry = layout.geometry;
    let mut fill = Fill::new(source, options, geometry, &out);
    let resize = fill.resize_inode()?;
    let journal = fill.journal(layout.journal / BLOCK)?;
    let maps = plan.dirs.iter().map(|d| fill.names(d)).collect::<Result<Vec<_>>>()?;
    let time = fill.time();
    for number in 1..plan.first {
        let inode = match number {
            ROOT => fill.root(plan, &maps[0])?,
            RESIZE => resize.clone(),
            JOURNAL => journal.clone(),
            super::inode::FIRST => fill.directory(&plan.dirs[1], &maps[1], 2, Inode::new(0o40700, time)),
            _ => Inode::new(0, Time::default()),
        };
        fill.put(number, &inode)?;
    }
    let mut number = plan.first;
    for item in &plan.items {
        if signal::pending().is_some() {
            return Err(Error::Stopped);
        }
        let inode = fill.item(number, item, plan, &maps)?;
        fill.put(number, &inode)?;
        number += 1;
    }
    fill.inodes.flush()?;
    fill.space.out.flush()?;
    source.check().map_err(Error::Source)?;
    let tables = Tables {
        geometry,
        options,
        sums: fill.sums,
        next: fill.space.next,
        last: number - 1,
        dirs: fill.dirs,
        kept: layout.kept,
        journal: journal.map,
        journal_blocks: layout.journal / BLOCK,
    };
    tables.write(&mut out())
}

/// What the files of `plan` need when large ones have been read: less, where they have holes.
pub(super) fn measure(source: &dyn Source, plan: &Plan, options: &Options) -> Result<Need> {
    let mut need = plan.need;
    let kind = options.kind;
    let largest = Geometry::new(kind, u32::MAX.into(), 1).ok_or(Error::TooLarge { size: 0 })?;
    let mut fill = Fill::new(source, options, largest, Out::nowhere);
    for (item, number) in plan.items.iter().zip(plan.first..) {
        if item.node.kind == Sort::File && item.node.size >= LARGE {
            fill.space.next = 0;
            let map = fill.content(number, item)?;
            let blocks = map.finish(&mut fill.space)?.blocks;
            // Elsewhere it may be in one more piece.
            let spare = 1 + blocks / super::geometry::GROUP / 100;
            let whole = item.node.size.div_ceil(BLOCK);
            need.blocks -= (whole + map::most(kind, whole)).saturating_sub(blocks + spare);
        }
    }
    Ok(need)
}

/// The work on one filesystem.
struct Fill<'a> {
    source: &'a dyn Source,
    options: &'a Options,
    geometry: Geometry,
    sums: Sums,
    space: Space<'a>,
    /// Where inodes go.
    inodes: Out<'a>,
    /// Directories of each group.
    dirs: Vec<u32>,
    chunk: Vec<u8>,
}

impl<'a> Fill<'a> {
    fn new(
        source: &'a dyn Source,
        options: &'a Options,
        geometry: Geometry,
        out: impl Fn() -> Out<'a>,
    ) -> Self {
        Self {
            source,
            options,
            geometry,
            sums: Sums::new((geometry.kind == Kind::Ext4).then_some(&options.uuid)),
            space: Space::new(geometry, out()),
            inodes: out(),
            dirs: vec![0; count(geometry.groups)],
            chunk: vec![0; CHUNK],
        }
    }

    const fn time(&self) -> Time {
        Time { seconds: self.options.time, nanos: 0 }
    }

    fn map(&self, number: u32) -> Map {
        Map::new(self.geometry.kind, self.sums.inode(number))
    }

    /// The flag of an inode with a map.
    fn flags(&self) -> u32 {
        if self.geometry.kind == Kind::Ext4 { EXTENTS } else { 0 }
    }

    /// Writes an inode into the table.
    fn put(&mut self, number: u32, inode: &Inode) -> Result<()> {
        let index = u64::from(number - 1);
        let (group, nth) = (index / self.geometry.per_group, index % self.geometry.per_group);
        if inode.mode & 0o170_000 == 0o40000 {
            self.dirs[count(group)] += 1;
        }
        let raw = inode.encode(number, self.sums);
        self.inodes.put(self.geometry.tables(group).2 * BLOCK + nth * INODE, &raw)
    }

    /// The inode that has the blocks kept for descriptors: it names the first ones, and each of those
    /// names its copies.
    fn resize_inode(&mut self) -> Result<Inode> {
        let numbers = BLOCK / 4;
        let (top, _) = self.space.take(1)?;
        let mut raw = [0; BYTES];
        let g = self.geometry;
        let copies: Vec<u64> = g.backups().filter(|group| *group > 0).collect();
        for i in 0..g.reserved {
            let block = 1 + g.descriptors + i;
            let at = count((g.descriptors + i) % numbers) * 4;
            set(&mut raw, at, low32(block).to_le_bytes());
            let all = copies.iter().map(|group| low32(block + group * super::geometry::GROUP).to_le_bytes());
            let mut copy = [0; BYTES];
            set(&mut copy, 0, all.collect::<Vec<_>>().as_flattened());
            self.inodes.block(block, &copy)?;
        }
        self.space.out.block(top, &raw)?;
        let mut inode = Inode::new(0o100_600, self.time());
        set(&mut inode.map, 13 * 4, low32(top).to_le_bytes());
        inode.links = 1;
        inode.size = (numbers * numbers + numbers + 12) * BLOCK;
        inode.blocks = 1 + g.reserved * (1 + copies.len() as u64);
        Ok(inode)
    }

    fn journal(&mut self, blocks: u64) -> Result<Inode> {
        let mut inode = Inode::new(if blocks > 0 { 0o100_600 } else { 0 }, self.time());
        if blocks == 0 {
            return Ok(inode);
        }
        let mut map = self.map(JOURNAL);
        let mut at = 0;
        while at < blocks {
            let (block, length) = map.take(at, blocks - at, &mut self.space)?;
            if at == 0 {
                self.space.out.block(block, &tables::journal(blocks, &self.options.uuid))?;
            }
            at += length;
        }
        let mapped = map.finish(&mut self.space)?;
        (inode.map, inode.blocks) = (mapped.map, mapped.blocks);
        (inode.links, inode.flags) = (1, EXTENTS);
        inode.size = blocks * BLOCK;
        Ok(inode)
    }

    /// Writes the names of a directory.
    fn names(&mut self, dir: &Dir) -> Result<Mapped> {
        let mut map = self.map(dir.inode);
        let space = &mut self.space;
        let mut at = 0;
        let mut put = |raw: &[u8]| {
            let (block, _) = map.take(at, 1, space)?;
            at += 1;
            space.out.block(block, raw)
        };
        dir.names.write((dir.inode, dir.parent), self.sums, &mut put)?;
        for _ in dir.names.blocks()..dir.blocks {
            put(&dir::names([].iter(), self.sums.inode(dir.inode)))?;
        }
        map.finish(space)
    }

    fn directory(&self, dir: &Dir, mapped: &Mapped, links: u32, mut inode: Inode) -> Inode {
        inode.size = dir.blocks as u64 * BLOCK;
        inode.map = mapped.map;
        inode.blocks += mapped.blocks;
        inode.links = links;
        inode.flags = self.flags() | if dir.names.is_indexed() { INDEXED } else { 0 };
        inode
    }

    fn root(&mut self, plan: &Plan, mapped: &Mapped) -> Result<Inode> {
        let inode = match plan.root {
            Some(meta) => self.inode(0o40000, meta, &TreePath::root())?,
            None => Inode::new(0o40755, self.time()),
        };
        Ok(self.directory(&plan.dirs[0], mapped, plan.root_links, inode))
    }

    /// An inode with what `meta` says; its attributes may take a block.
    fn inode(&mut self, sort: u32, meta: &Meta, path: &TreePath) -> Result<Inode> {
        let attributes = Attributes::new(path, &meta.xattrs, self.geometry.kind)?;
        let mut inode = Inode::new(sort | meta.mode & 0o7777, meta.mtime);
        (inode.uid, inode.gid) = (meta.uid, meta.gid);
        inode.inline = attributes.inline();
        if attributes.need_block() {
            let (block, _) = self.space.take(1)?;
            self.space.out.block(block, &attributes.block(block, self.sums))?;
            (inode.attributes, inode.blocks) = (block, 1);
        }
        Ok(inode)
    }

    fn item(&mut self, number: u32, item: &Item, plan: &Plan, maps: &[Mapped]) -> Result<Inode> {
        let node = item.node;
        let mut inode = self.inode(sort(&node.kind).0, &node.meta, item.path)?;
        inode.links = item.links;
        match &node.kind {
            Sort::Directory => {
                let dir = item.dir.unwrap_or(0);
                inode = self.directory(&plan.dirs[dir], &maps[dir], item.links, inode);
            }
            Sort::Symlink(target) => {
                inode.size = target.len() as u64;
                if target.len() < inode.map.len() {
                    set(&mut inode.map, 0, target);
                } else {
                    let mut map = self.map(number);
                    let (block, _) = map.take(0, 1, &mut self.space)?;
                    self.space.out.block(block, &padded(target))?;
                    self.mapped(&mut inode, map)?;
                }
            }
            Sort::Char(major, minor) | Sort::Block(major, minor) => inode.map = device(*major, *minor),
            Sort::File => {
                inode.size = node.size;
                let map = self.content(number, item)?;
                self.mapped(&mut inode, map)?;
            }
            Sort::Fifo | Sort::Socket | Sort::Link(_) => {}
        }
        Ok(inode)
    }

    fn mapped(&mut self, inode: &mut Inode, map: Map) -> Result<()> {
        let mapped = map.finish(&mut self.space)?;
        inode.map = mapped.map;
        inode.blocks += mapped.blocks;
        inode.flags = self.flags();
        Ok(())
    }

    /// Writes the content of a file.
    fn content(&mut self, number: u32, item: &Item) -> Result<Map> {
        let mut map = self.map(number);
        if item.node.size == 0 {
            return Ok(map);
        }
        let failed = |source| Error::Content { path: item.path.clone(), source };
        let changed = || Error::Unfit { path: item.path.clone(), reason: "its size has changed" };
        let mut reader = self.source.content(item.path).map_err(failed)?;
        let (mut left, mut logical) = (item.node.size, 0);
        let mut chunk = std::mem::take(&mut self.chunk);
        while left > 0 {
            if signal::pending().is_some() {
                return Err(Error::Stopped);
            }
            let n = count(left.min(CHUNK as u64));
            match reader.read_exact(&mut chunk[..n]) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(changed()),
                other => other.map_err(failed)?,
            }
            let end = n.next_multiple_of(BYTES);
            chunk[n..end].fill(0);
            self.blocks(&mut map, logical, &chunk[..end])?;
            left -= n as u64;
            logical += (end as u64) / BLOCK;
        }
        self.chunk = chunk;
        match reader.read(&mut [0]).map_err(failed)? {
            0 => Ok(map),
            _ => Err(changed()),
        }
    }

    /// Writes blocks of a file from `logical` on, but those that are zero.
    fn blocks(&mut self, map: &mut Map, logical: u64, bytes: &[u8]) -> Result<()> {
        let (blocks, _) = bytes.as_chunks::<BYTES>();
        let mut at = 0;
        while at < blocks.len() {
            let data = blocks[at..].iter().take_while(|b| **b != ZEROS).count();
            let mut done = 0;
            while done < data {
                let (block, length) =
                    map.take(logical + (at + done) as u64, (data - done) as u64, &mut self.space)?;
                let length = count(length);
                self.space.out.block(block, blocks[at + done..at + done + length].as_flattened())?;
                done += length;
            }
            at += data + 1;
        }
        Ok(())
    }
}

/// A block that starts with `bytes`.
fn padded(bytes: &[u8]) -> [u8; BYTES] {
    let mut raw = [0; BYTES];
    set(&mut raw, 0, bytes);
    raw
}
