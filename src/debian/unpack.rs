//! The files of packages, placed as dpkg's unpack places them, several packages at once.
//!
//! - A conffile becomes `NAME.dpkg-new`; packages of the base get it under its own name
//!   too, because scripts of the base read configuration of others before those are
//!   configured (debconf's). `dpkg --configure` finds the two equal and keeps one.
//! - A directory that exists stays, also where it is a link to one. Of several packages
//!   that hold one directory, the first by name (base-files before all) gives mode, owner
//!   and time, whichever thread comes first; that is applied at the end.
//! - Below a merged `/usr`, `bin`, `sbin`, `lib*` are `usr/…`, and links are made for them.
//! - One file in two packages is an error, unless one `Replaces` the other, in this version, and takes
//!   it over.
//!
//! Packages beyond the base are placed later, over a system that is partly configured: there
//! directories stay as they are, and files go where diversions lead them. While the base is configured,
//! which takes one processor, others decompress them.

use super::deb::{Control, Deb, Stream, inside};
use super::filter::Filters;
use super::place::{Diversions, Meta, Owners, Place, Replaces, Shared, lock, set_meta};
use super::threads::{cores, each};
use super::{Error, Progress, Result};
use crate::sys::dir::Dir;
use crate::sys::process;
use rustix::fs::FileType;
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::{Read, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

/// How many packages wait decompressed at most; each takes a descriptor.
const AHEAD: usize = 512;

/// For how many files that may be open one of them waits.
const FILES: u64 = 4;

/// Which part of what is free they may take: one of so many.
const PART: u64 = 8;

/// How many bytes are decompressed at once.
const CHUNK: usize = 256 << 10;

/// A package file to unpack.
#[derive(Debug)]
pub(super) struct Job {
    /// The package's name.
    pub name: String,
    /// A verified package file.
    pub deb: Deb,
    /// Its control archive.
    pub control: Control,
    /// Its size in bytes; the largest are begun first.
    pub size: u64,
    /// Whether conffiles are placed under their own names too.
    pub base: bool,
}

impl Job {
    /// Whether a script of it is to run before its files are placed.
    pub(super) fn has_preinst(&self) -> bool {
        self.control.files.iter().any(|(name, _, _)| name == "preinst")
    }
}

/// How packages are unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// As dpkg does, below a merged `/usr`.
    Dpkg,
    /// Files only, conffiles in place.
    Plain,
}

/// What an unpacked package left.
#[derive(Debug)]
pub(super) struct Unpacked<'a> {
    /// The package.
    pub job: &'a Job,
    /// Its paths as dpkg lists them: `/.`, `/usr`, …
    pub list: Vec<String>,
}

/// A file that a package lost to another one, and the package.
pub(super) type Lost<'a> = (&'a Job, PathBuf);

/// Packages are decompressed until this is dropped.
pub(super) struct Ahead<'scope> {
    enough: Arc<AtomicBool>,
    thread: Option<ScopedJoinHandle<'scope, ()>>,
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(ScopedJoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

/// All packages of a root.
pub(super) struct Unpacking<'r, 'a> {
    root: &'r Path,
    jobs: &'a [Job],
    style: Style,
    filters: &'r Filters,
    replaces: Replaces,
    owners: Owners,
    /// The tars of packages that were decompressed, or begun with, before they are placed.
    ahead: Mutex<HashMap<usize, Stream>>,
}

impl<'r, 'a> Unpacking<'r, 'a> {
    /// Of `jobs`, below `root`; none is placed yet.
    pub(super) fn new(root: &'r Path, jobs: &'a [Job], style: Style, filters: &'r Filters) -> Self {
        let (replaces, owners, ahead) = (Replaces::of(jobs), Owners::default(), Mutex::default());
        Self { root, jobs, style, filters, replaces, owners, ahead }
    }

    /// Begins to decompress jobs that are placed later, by all processors but one: by none where there is no
    /// other. What fails here fails again where it is placed, and is told there.
    pub(super) fn decompress<'scope>(
        &'r self,
        scope: &'scope Scope<'scope, 'r>,
        which: impl IntoIterator<Item = usize>,
    ) -> Ahead<'scope> {
        let there = lock(&self.ahead);
        let mut order = self.largest_first(which.into_iter().filter(|i| !there.contains_key(i)));
        let most = usize::try_from(process::files_allowed() / FILES).map_or(AHEAD, |most| most.min(AHEAD));
        order.truncate(most.saturating_sub(there.len()));
        let enough = Arc::new(AtomicBool::new(false));
        let until = enough.clone();
        let free = rustix::fs::statvfs(self.root).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
        let budget = AtomicU64::new(free / PART);
        let work = move || {
            let one = |at: usize| {
                if !until.load(Ordering::Relaxed)
                    && let Err(e) = self.begin(order[at], &until, &budget)
                {
                    tracing::debug!("{}: {e}", self.jobs[order[at]].name);
                }
                Ok(())
            };
            let _ = each(order.len(), cores() - 1, one);
        };
        Ahead { enough, thread: Some(scope.spawn(work)) }
    }

    /// Decompresses a job until `enough`, which it is when the bytes of `budget` are taken, into a file without a
    /// name. What is not done then, is read from the package later.
    fn begin(&self, i: usize, enough: &AtomicBool, budget: &AtomicU64) -> std::io::Result<()> {
        let mut tar = self.jobs[i].deb.data().map_err(std::io::Error::other)?;
        let mut file = tempfile::tempfile_in(self.root)?;
        let mut buffer = vec![0; CHUNK];
        let mut whole = false;
        while !whole && !enough.load(Ordering::Relaxed) {
            let n = tar.read(&mut buffer)?;
            file.write_all(&buffer[..n])?;
            whole = n == 0;
            let left = |bytes: u64| bytes.checked_sub(n as u64);
            if budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_err() {
                enough.store(true, Ordering::Relaxed);
            }
        }
        file.rewind()?;
        // A decoder holds some MiB.
        let tar: Stream = if whole { Box::new(file) } else { Box::new(file.chain(tar)) };
        lock(&self.ahead).insert(i, tar);
        Ok(())
    }

    fn largest_first(&self, which: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut order: Vec<usize> = which.into_iter().collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.jobs[i].size));
        order
    }

    /// Places some of the jobs; gives those in their order, and the files of earlier ones that these took
    /// over. `later` is over a system that is partly configured.
    ///
    /// # Errors
    /// [`Error::Package`], [`Error::Overlap`], [`Error::Sys`], the first one met.
    pub(super) fn place(
        &self,
        which: &[usize],
        later: bool,
        progress: &dyn Progress,
    ) -> Result<(Vec<Unpacked<'a>>, Vec<Lost<'a>>)> {
        let diversions = if later { Diversions::read(self.root)? } else { Diversions::default() };
        let order = self.largest_first(which.iter().copied());
        let (next, shared) = (AtomicUsize::new(0), Shared::default());
        let threads = cores().min(order.len().max(1));
        let work = || -> Result<Vec<(usize, Vec<String>)>> {
            let mut done = Vec::new();
            let mut place = Place {
                root: Dir::open(self.root)?,
                parents: HashMap::new(),
                style: self.style,
                later,
                filters: self.filters,
                owners: &self.owners,
                shared: &shared,
                jobs: self.jobs,
                replaces: &self.replaces,
                diversions: &diversions,
            };
            while let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                progress.detail(&self.jobs[i].name);
                let ahead = lock(&self.ahead).remove(&i);
                let tar = ahead.map_or_else(|| self.jobs[i].deb.data(), Ok)?;
                done.push((i, place.package(i, tar)?));
                if !later {
                    progress.advance(1);
                }
            }
            Ok(done)
        };
        let lists = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let join = |t: ScopedJoinHandle<'_, _>| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        let mut lists: Vec<(usize, Vec<String>)> = lists.into_iter().flatten().collect();
        lists.sort_unstable_by_key(|(i, _)| *i);
        finish(self.root, &shared)?;
        let mut lost = shared.lost.into_inner().unwrap_or_else(PoisonError::into_inner);
        let unpacked = lists.into_iter().map(|(i, mut list)| {
            list.retain(|p| !lost.remove(&(i, PathBuf::from(p.trim_start_matches('/')))));
            Unpacked { job: &self.jobs[i], list }
        });
        let unpacked = unpacked.collect();
        Ok((unpacked, lost.into_iter().map(|(i, path)| (&self.jobs[i], path)).collect()))
    }
}

/// Unpacks all `jobs` below `root`; the results are in the order of the jobs.
///
/// # Errors
/// As of [`Unpacking::place`].
pub(super) fn unpack<'a>(
    root: &Path,
    jobs: &'a [Job],
    style: Style,
    filters: &Filters,
    progress: &dyn Progress,
) -> Result<Vec<Unpacked<'a>>> {
    let all: Vec<usize> = (0..jobs.len()).collect();
    let (unpacked, _) = Unpacking::new(root, jobs, style, filters).place(&all, false, progress)?;
    Ok(unpacked)
}

/// The conffiles of a package, relative to the root.
pub(super) fn conffiles(control: &Control) -> BTreeSet<PathBuf> {
    let text = control.file("conffiles");
    text.lines().filter_map(|l| Some(PathBuf::from(l.trim_end().strip_prefix('/')?))).collect()
}

/// Applies the directories' metadata, the deepest first, and links what a merged `/usr` took in.
fn finish(root: &Path, shared: &Shared) -> Result<()> {
    let root = Dir::open(root)?;
    for alias in lock(&shared.aliases).iter() {
        match root.symlink(OsStr::new(alias), OsStr::new(&format!("usr/{alias}"))) {
            Err(e) if e.errno() != Some(Errno::EXIST) => return Err(e.into()),
            _ => {}
        }
    }
    for (path, (_, meta)) in lock(&shared.dirs).iter() {
        let dir = root.in_root(path)?;
        set_meta(&dir, *meta, path)?;
    }
    Ok(())
}

impl Place<'_, '_> {
    /// Unpacks one package; gives its list.
    fn package(&mut self, i: usize, tar: Stream) -> Result<Vec<String>> {
        let job = &self.jobs[i];
        let bad = |reason: String| Error::Package { name: job.name.clone(), reason };
        let conffiles = conffiles(&job.control);
        let mut archive = tar::Archive::new(tar);
        let mut list = Vec::new();
        for entry in archive.entries().map_err(|e| bad(e.to_string()))? {
            let mut entry = entry.map_err(|e| bad(e.to_string()))?;
            let path = inside(&entry.path_bytes()).map_err(bad)?;
            let shown = path.to_str().ok_or_else(|| bad(format!("{} is not UTF-8", path.display())))?;
            let shown = format!("/{shown}");
            let kind = entry.header().entry_type();
            let skipped = self.filters.skips(&shown, kind.is_dir() || kind.is_symlink());
            list.push(if shown == "/" { "/.".to_string() } else { shown });
            if skipped {
                continue;
            }
            self.entry(i, &path, &mut entry, &conffiles)?;
        }
        Ok(list)
    }

    fn entry(
        &mut self,
        i: usize,
        path: &Path,
        entry: &mut tar::Entry<impl Read>,
        conffiles: &BTreeSet<PathBuf>,
    ) -> Result<()> {
        use tar::EntryType as T;
        let name = &self.jobs[i].name;
        let bad = |reason: String| Error::Package { name: name.clone(), reason };
        let header = entry.header();
        let number = |n: std::io::Result<u64>| n.ok().and_then(|n| u32::try_from(n).ok());
        let meta = (|| {
            let mode = header.mode().ok()? & 0o7777;
            let mtime = i64::try_from(header.mtime().ok()?).ok()?;
            Some(Meta { mode, uid: number(header.uid())?, gid: number(header.gid())?, mtime })
        })()
        .ok_or_else(|| bad(format!("{}: a header out of range", path.display())))?;
        let kind = header.entry_type();
        if kind == T::Directory {
            return self.directory(i, path, meta);
        }
        let real = self.real(self.diversions.of(name, path));
        let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
        let link = || link.ok_or_else(|| bad(format!("{}: a link to nothing", path.display())));
        match kind {
            T::Regular | T::Continuous | T::GNUSparse => {
                let conffile = self.style == Style::Dpkg && conffiles.contains(path);
                if conffile {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes).map_err(|e| bad(e.to_string()))?;
                    let mut new = real.clone().into_os_string();
                    new.push(".dpkg-new");
                    self.file(i, Path::new(&new), meta, &mut &bytes[..])?;
                    if self.jobs[i].base {
                        self.file(i, &real, meta, &mut &bytes[..])?;
                    }
                    return Ok(());
                }
                self.file(i, &real, meta, entry)
            }
            T::Link => {
                let target = inside(&link()?).map_err(bad)?;
                let target = self.real(self.diversions.of(name, &target));
                self.hard_link(i, &real, &target)
            }
            T::Symlink => {
                let target = link()?;
                self.symlink(i, &real, OsStr::from_bytes(&target), meta)
            }
            T::Char | T::Block | T::Fifo => {
                let kind = match kind {
                    T::Char => FileType::CharacterDevice,
                    T::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device =
                    || Some((entry.header().device_major().ok()??, entry.header().device_minor().ok()??));
                let device = device().unwrap_or_default();
                self.owned(i, &real, |dir, name| dir.mknod(name, kind, device))?;
                let (dir, name) = self.parent(&real)?;
                dir.chown(name, meta.uid, meta.gid)?;
                dir.chmod(name, meta.mode)?;
                Ok(dir.utimens(name, &meta.times())?)
            }
            other => Err(bad(format!("{}: a member of type {other:?}", path.display()))),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    struct Silent;
    impl Progress for Silent {
        fn phase(&self, _: &'static str, _: Option<u64>) {}
        fn advance(&self, _: u64) {}
        fn detail(&self, _: &str) {}
    }

    /// A member: name, type, link target or content.
    type Member<'a> = (&'a str, tar::EntryType, &'a str);

    pub fn job(name: &str, control: &str, members: &[Member]) -> Job {
        let tarball = |members: &[Member]| {
            let mut builder = tar::Builder::new(Vec::new());
            for (path, kind, text) in members {
                let mut h = tar::Header::new_gnu();
                h.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
                h.set_entry_type(*kind);
                h.set_mode(0o755);
                h.set_uid(0);
                h.set_gid(0);
                h.set_mtime(1);
                if *kind == tar::EntryType::Regular {
                    h.set_size(text.len() as u64);
                    h.set_cksum();
                    builder.append(&h, text.as_bytes()).unwrap();
                } else {
                    h.set_size(0);
                    h.set_link_name_literal(text).unwrap();
                    h.set_cksum();
                    builder.append(&h, std::io::empty()).unwrap();
                }
            }
            builder.into_inner().unwrap()
        };
        let control = tarball(&[("control", tar::EntryType::Regular, control)]);
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"!<arch>\n").unwrap();
        for (member, bytes) in
            [("debian-binary", b"2.0\n".to_vec()), ("control.tar", control), ("data.tar", tarball(members))]
        {
            use std::io::Write;
            writeln!(file, "{member:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 0, bytes.len()).unwrap();
            file.write_all(&bytes).unwrap();
        }
        let deb = Deb::open(file, name).unwrap();
        Job { name: name.to_string(), control: deb.control().unwrap(), deb, size: 1, base: true }
    }

    #[test]
    fn merges_usr_and_refuses_escapes() {
        use tar::EntryType as T;
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let a = job(
            "a",
            "Package: a\n",
            &[
                ("./", T::Directory, ""),
                ("./bin/", T::Directory, ""),
                ("./bin/x", T::Regular, "x"),
                ("./bin/y", T::Link, "./bin/x"),
            ],
        );
        let jobs = [a];
        let done = unpack(&root, &jobs, Style::Dpkg, &Filters::default(), &Silent).unwrap();
        assert_eq!(done[0].list, ["/.", "/bin", "/bin/x", "/bin/y"]);
        assert_eq!(std::fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
        assert_eq!(std::fs::read_to_string(root.join("bin/y")).unwrap(), "x");
        let out = tmp.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let hostile = job("h", "Package: h\n", &[("./l", T::Symlink, "../out"), ("./l/f", T::Regular, "x")]);
        let _ = unpack(&root, &[hostile], Style::Dpkg, &Filters::default(), &Silent);
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
        let dots = job("d", "Package: d\n", &[("./../out/f", T::Regular, "x")]);
        let e = unpack(&root, &[dots], Style::Dpkg, &Filters::default(), &Silent).unwrap_err().to_string();
        assert!(e.contains("leads out of the root"), "{e}");
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
    }

    #[test]
    fn shares_files_only_by_replaces() {
        use tar::EntryType as T;
        let files = |text| [("./f", T::Regular, text)];
        let tmp = tempfile::tempdir().unwrap();
        let (a, b) =
            (job("a", "Package: a\n", &files("a")), job("b", "Package: b\nReplaces: a\n", &files("b")));
        let jobs = [a, b];
        let done = unpack(tmp.path(), &jobs, Style::Dpkg, &Filters::default(), &Silent).unwrap();
        assert_eq!(std::fs::read_to_string(tmp.path().join("f")).unwrap(), "b");
        assert!(done[0].list.is_empty() && done[1].list == ["/f"]);
        for (replaces, fits) in [
            ("", false),
            ("Replaces: a (<< 2)\n", true),
            ("Replaces: a (<< 1)\n", false),
            ("Replaces: c\n", false),
        ] {
            let tmp = tempfile::tempdir().unwrap();
            let control = format!("Package: b\n{replaces}");
            let (a, b) = (job("a", "Package: a\nVersion: 1\n", &files("a")), job("b", &control, &files("b")));
            let jobs = [a, b];
            let done = unpack(tmp.path(), &jobs, Style::Dpkg, &Filters::default(), &Silent);
            assert_eq!(done.is_ok(), fits, "{replaces}");
            assert!(fits || matches!(done, Err(Error::Overlap { .. })));
        }
    }

    #[test]
    fn places_later_over_a_system() {
        use tar::EntryType as T;
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path();
        let [usr, f] = [("./usr/", T::Directory, ""), ("./usr/f", T::Regular, "old")];
        let first = job("first", "Package: first\nVersion: 1\n", &[usr, f]);
        let new = |name| [usr, ("./usr/new/", T::Directory, ""), (name, T::Regular, "new")];
        let second = job("second", "Package: second\nReplaces: first\n", &new("./usr/f"));
        let third = job("third", "Package: third\n", &new("./usr/d"));
        let jobs = [first, second, third];
        let filters = Filters::default();
        let unpacking = Unpacking::new(root, &jobs, Style::Dpkg, &filters);
        unpacking.place(&[0], false, &Silent).unwrap();
        let mode = |path: &str| std::fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        std::fs::set_permissions(root.join("usr"), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
        let diversions = "/usr/f\n/usr/f.own\nsecond\n/usr/d\n/usr/d.diverted\n:\n";
        std::fs::write(root.join("var/lib/dpkg/diversions"), diversions).unwrap();
        // The one is decompressed before, the other begun with.
        for (job, budget) in [(1, u64::MAX), (2, 0)] {
            unpacking.begin(job, &AtomicBool::new(false), &AtomicU64::new(budget)).unwrap();
        }
        let (unpacked, lost) = unpacking.place(&[1, 2], true, &Silent).unwrap();
        let lists: Vec<_> = unpacked.iter().map(|u| u.list.join(" ")).collect();
        assert_eq!(lists, ["/usr /usr/new /usr/f", "/usr /usr/new /usr/d"]);
        assert_eq!(
            (lost[0].0.name.as_str(), lost[0].1.as_path(), lost.len()),
            ("first", Path::new("usr/f"), 1)
        );
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        assert_eq!((read("usr/f"), read("usr/d.diverted")), ("new".to_string(), "new".to_string()));
        assert_eq!((mode("usr"), mode("usr/new")), (0o700, 0o755), "what was there stays");
        assert!(lock(&unpacking.ahead).is_empty(), "what was decompressed is taken");
    }
}
