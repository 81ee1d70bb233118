//! Tar archives written: entries, and whole trees of files.
//!
//! What is written is POSIX's pax form and the same bytes for the same files: names sorted, no
//! owners' names, no times but that of modification. A PAX header stands before an entry only
//! where the plain header has no room: names above 100 bytes, large numbers, parts of a second,
//! extended attributes. Names are bytes and stay as they are. Formats: pax(1), "pax Interchange
//! Format"; attributes as `SCHILY.xattr.NAME`, which star, GNU tar and container tools read.

use super::archive::{Archive, Piece};
use super::node::{self, Owners, is_whiteout, opaque};
use super::pax::Pax;
use super::shape::Shape;
use super::{Error, Origin, Reason, Result, sparse, stream::Tar};
use crate::oci::{Compression, Layer};
use crate::store::Limits;
use crate::sys::dir::{Dir, is_kernels};
use crate::sys::{Call, signal, userns::UserIds, xattr};
use crate::tree::{Entry, Kind, MAX_NAME, Meta, Name, Time, TreePath};
use rustix::fs::{FileType, Stat};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

/// How many bytes of a file are copied at once.
const CHUNK: usize = 256 << 10;

/// Zeros for holes and padding.
static ZEROS: [u8; 4096] = [0; 4096];

/// Writes a tar, entry by entry. After [`TarWriter::entry`] of a file exactly its bytes are to be
/// written.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    left: u64,
    padding: usize,
}

impl<W: Write> TarWriter<W> {
    /// An archive without entries.
    pub const fn new(out: W) -> Self {
        Self { out, left: 0, padding: 0 }
    }

    /// Begins an entry; a file has `size` bytes of content.
    ///
    /// # Errors
    /// Those of the stream below; where the entry before is incomplete, or `kind` is a socket,
    /// which no tar can hold.
    pub fn entry(&mut self, path: &TreePath, kind: &Kind, meta: &Meta, size: u64) -> io::Result<()> {
        let mut name = if path.is_root() { b"./".to_vec() } else { path.as_bytes().to_vec() };
        if *kind == Kind::Directory && !path.is_root() {
            name.push(b'/');
        }
        self.begin(&name, kind, meta, size, Pax::default())
    }

    /// Begins the entry of a file of `size` bytes with holes, of which only the `pieces` are to be
    /// written.
    fn sparse_entry(&mut self, path: &TreePath, meta: &Meta, size: u64, pieces: &[Piece]) -> io::Result<()> {
        let mut pax = Pax::default();
        pax.record(b"GNU.sparse.major", b"1");
        pax.record(b"GNU.sparse.minor", b"0");
        pax.record(b"GNU.sparse.name", path.as_bytes());
        pax.record(b"GNU.sparse.realsize", size.to_string().as_bytes());
        // The name that it has where this form is not known.
        let name = [b"GNUSparseFile.0/", path.as_bytes()].concat();
        let (map, stored) = (sparse::map(pieces), pieces.iter().map(|(_, len)| len).sum::<u64>());
        self.begin(&name, &Kind::File, meta, map.len() as u64 + stored, pax)?;
        self.write_all(&map)
    }

    fn begin(&mut self, name: &[u8], kind: &Kind, meta: &Meta, size: u64, mut pax: Pax) -> io::Result<()> {
        self.end_entry()?;
        let none = TreePath::root();
        let (flag, link, device) = match kind {
            Kind::File => (b'0', &b""[..], (0, 0)),
            Kind::Link(target) => (b'1', target.as_bytes(), (0, 0)),
            Kind::Symlink(target) => (b'2', target.as_slice(), (0, 0)),
            Kind::Char(major, minor) => (b'3', none.as_bytes(), (*major, *minor)),
            Kind::Block(major, minor) => (b'4', none.as_bytes(), (*major, *minor)),
            Kind::Directory => (b'5', none.as_bytes(), (0, 0)),
            Kind::Fifo => (b'6', none.as_bytes(), (0, 0)),
            Kind::Socket => return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket in a tar")),
        };
        let size = if *kind == Kind::File { size } else { 0 };
        let mut header = tar::Header::new_ustar();
        pax.text(&mut header.as_old_mut().name, "path", name);
        pax.text(&mut header.as_old_mut().linkname, "linkpath", link);
        pax.number(&mut header.as_old_mut().size, "size", size);
        pax.number(&mut header.as_old_mut().uid, "uid", meta.uid.into());
        pax.number(&mut header.as_old_mut().gid, "gid", meta.gid.into());
        pax.time(&mut header.as_old_mut().mtime, meta.mtime);
        let mut xattrs: Vec<_> = meta.xattrs.iter().collect();
        xattrs.sort();
        for (name, value) in xattrs {
            pax.record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        header.set_mode(meta.mode);
        header.as_old_mut().linkflag = [flag];
        if matches!(kind, Kind::Char(..) | Kind::Block(..)) {
            header.set_device_major(device.0)?;
            header.set_device_minor(device.1)?;
        }
        if !pax.0.is_empty() {
            self.extended(&pax.0)?;
        }
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        (self.left, self.padding) = (size, padding(size));
        Ok(())
    }

    /// The PAX header before an entry.
    fn extended(&mut self, records: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..10].copy_from_slice(b"PaxHeaders");
        header.as_old_mut().linkflag = [b'x'];
        header.set_size(records.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(records)?;
        self.out.write_all(&ZEROS[..padding(records.len() as u64)])
    }

    fn end_entry(&mut self) -> io::Result<()> {
        if self.left > 0 {
            let e = format!("{} bytes less than the size in its header", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, e));
        }
        self.out.write_all(&ZEROS[..std::mem::take(&mut self.padding)])
    }

    /// Zeros as the next `count` bytes of the entry's content.
    fn zeros(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let n = usize::try_from(count).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write_all(&ZEROS[..n])?;
            count -= n as u64;
        }
        Ok(())
    }

    /// Ends the archive; gives what it was written into.
    ///
    /// # Errors
    /// Those of the stream below; where the last entry is incomplete.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_entry()?;
        self.out.write_all(&ZEROS[..1024])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for TarWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.len() as u64 > self.left {
            let e = "more bytes than the size in the entry's header";
            return Err(io::Error::new(io::ErrorKind::InvalidData, e));
        }
        let n = self.out.write(buf)?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % 512).unwrap_or(0)
}

/// How a tree is written.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// No file is newer than this many seconds since 1970, as `SOURCE_DATE_EPOCH` asks for.
    pub latest: Option<i64>,
    /// The owners that files could not be given, nor be recorded on them.
    pub owners: Option<Arc<Owners>>,
    /// Of a system that runs: filesystems mounted below are entered, but for the kernel's own, and
    /// of the kernel's files is written what they hold when they are read, up to 16 MiB.
    pub live: bool,
    /// The user namespace whose ids are written.
    pub ids: Option<UserIds>,
    /// A directory that must not be met: the one that is written into.
    pub except: Option<Identity>,
    /// What files get instead of what they have.
    pub shape: Shape,
}

/// Which directory it is: device and inode.
pub type Identity = (u64, u64);

/// The most bytes of a file of which the kernel does not tell the size.
pub const MAX_KERNELS: u64 = 16 << 20;

/// Writes all that is in the directory `dir`, and itself as `./`, to `out` as a tar. Links are
/// written, never followed; sockets and other filesystems mounted below are left out, holes stay
/// holes. Gives how many entries there are.
///
/// # Errors
/// The first failed call; [`Error::Output`] where `out` fails.
pub fn write_tree<W: Write>(dir: &Path, out: &mut TarWriter<W>, options: &WriteOptions) -> Result<u64> {
    let mut tree = Tree::new(out, options);
    tree.walk(&Dir::open(dir)?, &TreePath::root(), Form::Plain)?;
    Ok(tree.entries)
}

/// What a directory means that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// What is in it.
    Plain,
    /// The upper directory of an overlay, with its whiteouts and opaque directories.
    Upper,
}

pub(super) struct Tree<'a, W> {
    out: &'a mut TarWriter<W>,
    options: &'a WriteOptions,
    /// Files with several names: the first of them.
    named: HashMap<(u64, u64), TreePath>,
    pub(super) entries: u64,
}

impl<'a, W: Write> Tree<'a, W> {
    pub(super) fn new(out: &'a mut TarWriter<W>, options: &'a WriteOptions) -> Self {
        Self { out, options, named: HashMap::new(), entries: 0 }
    }

    /// Writes the directory `top` and all below it, as the directory `prefix`.
    pub(super) fn walk(&mut self, top: &Dir, prefix: &TreePath, form: Form) -> Result<()> {
        let device = top.stat_self()?.st_dev;
        let tree = self;
        let root = OsStr::new(".");
        if let Some(stat) = top.stat(root)?.filter(|_| !tree.options.shape.bare) {
            tree.node(top, root, prefix, &stat)?;
            tree.opaque(top, prefix, form)?;
        }
        let mut work = vec![TreePath::root()];
        while let Some(path) = work.pop() {
            let dir = top.below(path.as_path())?;
            let mut listed = dir.list()?;
            listed.sort_by(|(a, _), (b, _)| a.cmp(b));
            let first_new = work.len();
            for (name, _) in listed {
                let Some(stat) = dir.stat(&name)? else { continue };
                let child = path.join(&name);
                if tree.options.shape.skips(&child) {
                    continue;
                }
                let written = prefix.join(child.as_path().as_os_str());
                if form == Form::Upper && is_whiteout(&stat) {
                    tree.hide(&written)?;
                    continue;
                }
                tree.node(&dir, &name, &written, &stat)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                    && (stat.st_dev == device || tree.options.live && !is_kernels(dir.child(&name)?)?)
                {
                    if form == Form::Upper {
                        tree.opaque(&dir.child(&name)?, &written, form)?;
                    }
                    work.push(child);
                }
            }
            // The last is taken first.
            work[first_new..].reverse();
        }
        Ok(())
    }

    /// Hides what the layers below have in the directory that is written as `path`.
    fn opaque(&mut self, dir: &Dir, path: &TreePath, form: Form) -> Result<()> {
        let value = if form == Form::Upper { xattr::get_fd(dir, opaque())? } else { None };
        if value.is_some_and(|v| v == b"y") { self.empty(path) } else { Ok(()) }
    }

    /// Hides what the layers below have in the directory `path`.
    pub(super) fn empty(&mut self, path: &TreePath) -> Result<()> {
        self.marker(&path.join(OsStr::new(".wh..wh..opq")))
    }

    /// Hides what the layers below have at `path`.
    pub(super) fn hide(&mut self, path: &TreePath) -> Result<()> {
        let Some((parent, name)) = path.split() else { return Ok(()) };
        let mut whiteout = std::ffi::OsString::from(".wh.");
        whiteout.push(name);
        if whiteout.len() > MAX_NAME {
            let reason = "the name of its whiteout would be too long";
            return Err(Error::Unwritable { path: path.clone(), reason });
        }
        self.marker(&parent.join(&whiteout))
    }

    fn marker(&mut self, path: &TreePath) -> Result<()> {
        self.entries += 1;
        self.out.entry(path, &Kind::File, &Meta::default(), 0).map_err(Error::Output)
    }

    pub(super) fn node(&mut self, dir: &Dir, name: &OsStr, path: &TreePath, stat: &Stat) -> Result<()> {
        if signal::pending().is_some() {
            return Err(Error::Stopped);
        }
        let (mut kind, mut meta) = node::read(dir, name, stat)?;
        if kind == Kind::Socket {
            if self.options.live {
                tracing::warn!("a socket is left out: {path}");
            }
            return Ok(());
        }
        if self.options.except == Some((stat.st_dev, stat.st_ino)) {
            let (path, reason) = (path.clone(), Reason::Itself);
            return Err(Error::Entry { layer: Origin::Stream, path, reason });
        }
        if meta.xattrs.iter().any(|(n, _)| node::is_elsewhere(n)) {
            let reason = "overlayfs has its content elsewhere (redirect_dir, metacopy)";
            return Err(Error::Unwritable { path: path.clone(), reason });
        }
        if let Some(owners) = &self.options.owners {
            owners.correct(path, stat, &kind, &mut meta);
        }
        if stat.st_nlink > 1 && kind != Kind::Directory {
            match self.named.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => kind = Kind::Link(first.clone()),
                None => drop(self.named.insert((stat.st_dev, stat.st_ino), path.clone())),
            }
        }
        meta.xattrs.retain(|(n, _)| !node::is_dropped(n) && !node::is_overlay(n));
        if let Some(ids) = &self.options.ids {
            (meta.uid, meta.gid) = ids.inside(meta.uid, meta.gid);
        }
        if let Some(latest) = self.options.latest.filter(|&latest| latest <= meta.mtime.seconds) {
            meta.mtime = Time { seconds: latest, nanos: 0 };
        }
        self.options.shape.apply(&kind, &mut meta);
        self.entries += 1;
        if kind != Kind::File {
            return self.out.entry(path, &kind, &meta, 0).map_err(Error::Output);
        }
        let Some((file, stat)) = dir.regular(name)? else {
            return Err(Error::Unwritable {
                path: path.clone(),
                reason: "it was replaced while it was read",
            });
        };
        if self.options.live && is_kernels(&file)? {
            return self.kernels(&file, path, &meta);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let place = dir.path().join(name);
        let whole = [(0, size)];
        let pieces = sparse::pieces(&file, size)?;
        match &pieces {
            Some(pieces) => self.out.sparse_entry(path, &meta, size, pieces),
            None => self.out.entry(path, &kind, &meta, size),
        }
        .map_err(Error::Output)?;
        self.content(&file, pieces.as_deref().unwrap_or(&whole), &place)
    }

    /// A file whose size is known when it has been read.
    fn kernels(&mut self, file: &std::fs::File, path: &TreePath, meta: &Meta) -> Result<()> {
        let mut text = Vec::new();
        file.take(MAX_KERNELS + 1).read_to_end(&mut text).call(|| format!("read({path})"))?;
        if text.len() as u64 > MAX_KERNELS {
            return Err(Error::Unwritable { path: path.clone(), reason: "it has no size and no end" });
        }
        let begun = self.out.entry(path, &Kind::File, meta, text.len() as u64);
        begun.and_then(|()| self.out.write_all(&text)).map_err(Error::Output)
    }

    fn content(&mut self, file: &std::fs::File, pieces: &[Piece], path: &Path) -> Result<()> {
        let most = pieces.iter().map(|(_, len)| *len).max().unwrap_or(0);
        let mut buffer = vec![0; CHUNK.min(usize::try_from(most).unwrap_or(CHUNK))];
        for (at, len) in pieces {
            let (mut at, end) = (*at, at + len);
            while at < end {
                let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
                let read = file.read_at(&mut buffer[..want], at).and_then(|n| match n {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    n => Ok(n),
                });
                let n = read.call(|| format!("pread({}, {at})", path.display()))?;
                self.out.write_all(&buffer[..n]).map_err(Error::Output)?;
                at += n as u64;
            }
        }
        Ok(())
    }
}

/// Writes the entries of the uncompressed tar `source` again under the names that `rename` gives
/// them, leaving out those for which it gives none, whiteouts and sockets. `layer` is named in
/// errors; its diff id has to be that of `source`.
///
/// # Errors
/// Any [`Error`], as from unpacking a layer; [`Error::Output`] where `out` fails.
pub fn rewrite<W: Write>(
    source: impl Read + Send,
    layer: &Layer,
    limits: Limits,
    out: &mut TarWriter<W>,
    rename: &dyn Fn(&TreePath) -> Option<TreePath>,
) -> Result<()> {
    thread::scope(|scope| {
        let mut archive = Archive::new(Tar::over(scope, source, Compression::None, Some(layer), limits));
        while let Some(Entry { name, mut kind, meta, size }) = archive.next()? {
            let Name::Entry(path) = name else { continue };
            let Some(new) = rename(&path).filter(|_| kind != Kind::Socket) else { continue };
            if let Kind::Link(target) = &kind {
                let reason = Reason::LinkToNothing(target.clone());
                let missing = || Error::Entry { layer: (&layer.descriptor.digest).into(), path, reason };
                kind = Kind::Link(rename(target).ok_or_else(missing)?);
            }
            out.entry(&new, &kind, &meta, size).map_err(Error::Output)?;
            if kind == Kind::File {
                archive.count_holes(size)?;
                let mut at = 0;
                archive.content(|offset, bytes| {
                    let filled = out.zeros(offset - at).and_then(|()| out.write_all(bytes));
                    at = offset + bytes.len() as u64;
                    filled.map_err(Error::Output)
                })?;
                out.zeros(size - at).map_err(Error::Output)?;
            }
        }
        archive.tar.finish().map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::parse_pax;

    /// The PAX records and the header of one entry.
    fn written(path: &[u8], kind: &Kind, meta: &Meta, size: u64) -> (Vec<u8>, tar::Header) {
        let mut out = TarWriter::new(Vec::new());
        out.entry(&TreePath::parse(path).unwrap(), kind, meta, size).unwrap();
        let at = out.out.len() - 512;
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&out.out[at..]);
        let records = if at == 0 { Vec::new() } else { out.out[512..at].to_vec() };
        (records, header)
    }

    #[test]
    fn pax_only_where_needed() {
        let plain =
            Meta { mode: 0o4755, uid: 1, gid: 2, mtime: Time { seconds: 3, nanos: 0 }, xattrs: vec![] };
        let (records, header) = written(b"a/b", &Kind::File, &plain, 5);
        assert!(records.is_empty());
        assert_eq!((header.mode().unwrap(), header.size().unwrap(), header.mtime().unwrap()), (0o4755, 5, 3));
        assert_eq!(written(b"d", &Kind::Directory, &plain, 0).1.path_bytes(), &b"d/"[..]);
        assert_eq!(written(b"./", &Kind::Directory, &plain, 0).1.path_bytes(), &b"./"[..]);

        let name = [&b"x".repeat(90)[..], b"/", &b"\xff\n".repeat(10)].concat();
        let link = b"l".repeat(101);
        let times = [(-2, 750_000_000), (-100, 0), (1 << 33, 0), (0, 5), (1, 100_000_000)];
        for (seconds, nanos) in times {
            let xattrs = vec![(b"user.b".to_vec(), b"2\n".to_vec()), (b"user.a".to_vec(), b"1\0".to_vec())];
            let mtime = Time { seconds, nanos };
            let meta =
                Meta { uid: 3_000_000_000, gid: 4_000_000_000, mtime, xattrs: xattrs.clone(), mode: 0 };
            let (records, _) = written(&name, &Kind::Symlink(link.clone()), &meta, 0);
            let r = parse_pax(&records).unwrap();
            assert_eq!((r.path.unwrap(), r.linkpath.unwrap()), (name.clone(), link.clone()));
            assert_eq!((r.uid, r.gid, r.mtime), (Some(3_000_000_000), Some(4_000_000_000), Some(mtime)));
            assert_eq!(r.xattrs, [xattrs[1].clone(), xattrs[0].clone()], "sorted");
        }
        let (records, header) = written(b"f", &Kind::File, &plain, 1 << 33);
        assert_eq!((parse_pax(&records).unwrap().size, header.size().unwrap()), (Some(1 << 33), 0));
        for len in [1, 87, 88, 89, 90, 91, 92, 990, 991, 992, 993, 994] {
            let mut pax = Pax::default();
            pax.record(b"path", &b"p".repeat(len));
            assert_eq!(parse_pax(&pax.0).unwrap().path.unwrap().len(), len);
        }
    }

    #[test]
    fn content_has_the_size_of_its_header() {
        let meta = Meta::default();
        let mut out = TarWriter::new(Vec::new());
        let path = TreePath::parse(b"f").unwrap();
        out.entry(&path, &Kind::File, &meta, 3).unwrap();
        assert!(out.write_all(b"four").is_err());
        out.write_all(b"ab").unwrap();
        assert!(out.entry(&path, &Kind::File, &meta, 0).is_err());
        out.write_all(b"c").unwrap();
        assert_eq!(out.finish().unwrap().len(), 512 + 512 + 1024);
        assert!(TarWriter::new(Vec::new()).entry(&path, &Kind::Socket, &meta, 0).is_err());
    }

    #[test]
    fn a_tree_is_written_sorted_with_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("b/c")).unwrap();
        std::fs::write(at("b/c/z"), "content").unwrap();
        std::fs::hard_link(at("b/c/z"), at("z")).unwrap();
        std::os::unix::fs::symlink("/nowhere", at("a")).unwrap();
        let write = || {
            let mut out = TarWriter::new(Vec::new());
            let options = WriteOptions { latest: Some(7), ..WriteOptions::default() };
            assert_eq!(write_tree(dir.path(), &mut out, &options).unwrap(), 6);
            out.finish().unwrap()
        };
        let bytes = write();
        assert_eq!(bytes, write());
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap().map(|e| {
            let e = e.unwrap();
            assert_eq!(e.header().mtime().unwrap(), 7);
            let link = e.link_name().unwrap().map(|l| l.display().to_string()).unwrap_or_default();
            format!("{} {link}", e.path().unwrap().display())
        });
        let want = ["./ ", "a /nowhere", "b/ ", "z ", "b/c/ ", "b/c/z z"];
        assert_eq!(entries.collect::<Vec<_>>(), want);
    }
}
