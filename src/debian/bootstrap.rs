//! The whole way, from a request to a configured root.

use super::configure::{self, CONTROL, DEBS, Scripts, configure};
use super::control::{Package, described, field};
use super::database::{self, info_name, make, put};
use super::deb::Deb;
use super::fetch::{Fetcher, check};
use super::finish::{finish, settle};
use super::lock::{Asked, Lock, Pin};
use super::plan::{Variant, Wishes, plan};
use super::release::Promise;
use super::sources::{Archive, Settings};
use super::threads::{cores, each};
use super::unpack::{Job, Style, Unpacked, unpack};
use super::{Error, Progress, Result, index};
use crate::oci::Digest;
use crate::store::{Area, Store};
use crate::sys::dir::Dir;
use crate::sys::{memory, sandbox};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Which way roots are made: part of their keys, to be counted up when the same packages give
/// another root than before.
const METHOD: u32 = 1;

/// How many packages are downloaded at once.
const DOWNLOADS: usize = 8;

/// What a root shall be.
#[derive(Debug)]
pub struct Request {
    /// The suite and its archives.
    pub archive: Archive,
    /// The base.
    pub variant: Variant,
    /// Packages on top of it.
    pub include: Vec<String>,
    /// dpkg's name of the architecture, as `amd64`.
    pub arch: String,
    /// Proxies, and whether Release files may be past their date.
    pub settings: Settings,
    /// When everything is made that the packages do not date, in seconds since 1970; the date of
    /// the newest Release file where there is none.
    pub epoch: Option<i64>,
    /// Whether apt's lists and package files stay.
    pub keep_apt: bool,
}

impl Request {
    /// What the set of packages depends on.
    #[must_use]
    pub fn asked(&self) -> Asked {
        Asked::new(&self.archive, self.variant, &self.include, &self.arch)
    }

    /// When everything is made in a root of `lock`, in seconds since 1970.
    #[must_use]
    pub fn time(&self, lock: &Lock) -> i64 {
        self.epoch.unwrap_or_else(|| lock.date())
    }

    /// The digest of all that a root of `lock` depends on.
    #[must_use]
    pub fn key(&self, lock: &Lock) -> Digest {
        lock.key(&format!("{METHOD} {} {}", self.time(lock), self.keep_apt))
    }
}

/// Finds the packages that `request` asks for.
///
/// # Errors
/// Those of reading Release files and indexes, and of [`plan`].
pub fn resolve(request: &Request, store: &Store, progress: &dyn Progress) -> Result<Lock> {
    progress.phase("indexes", None);
    let fetcher = Fetcher::new(request.settings.proxies.clone());
    let cache = store.area(Area::Packages)?;
    let check = request.settings.check_valid_until;
    let (universe, releases) = index::load(&fetcher, &request.archive, &request.arch, check, &cache)?;
    let wishes = Wishes {
        variant: request.variant,
        include: &request.include,
        exclude: &[],
        extra_base: &request.archive.extra_base,
        never: &request.archive.never,
    };
    let planned = plan(&universe, &wishes)?;
    let pins = planned.packages.iter().map(|p| Pin::new(p, planned.base.contains(&p.name))).collect();
    drop(universe);
    memory::trim();
    Ok(Lock::new(request.asked(), releases, pins))
}

/// Makes a root of the packages of `lock` in `root`, an empty directory; of the variant `custom`
/// only their files, else configured. `prepare` is called with the size that the files will have,
/// in bytes as their makers estimate, before the first is written there.
///
/// # Errors
/// Any of [`Error`]; `root` then holds an unfinished tree.
pub fn bootstrap(
    request: &Request,
    lock: &Lock,
    store: &Store,
    root: &Path,
    progress: &dyn Progress,
    prepare: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let plain = request.variant == Variant::Custom;
    if request.arch != host_arch() && !plain {
        return Err(Error::Foreign { arch: request.arch.clone() });
    }
    let fetcher = Fetcher::new(request.settings.proxies.clone());
    let files = download(&lock.packages, store, &fetcher, progress)?;
    progress.phase("unpack", Some(lock.packages.len() as u64));
    let verified = verified(&lock.packages, &files)?;
    let packages: Vec<Package> = verified.iter().map(|job| described(&job.control.paragraph)).collect();
    prepare(packages.iter().map(|p| p.installed_size << 10).sum())?;
    if plain {
        unpack(root, verified, Style::Plain, progress)?;
        return settle(&Dir::open(root)?, request.time(lock));
    }
    let (mut jobs, mut left) = (Vec::new(), Vec::new());
    for (job, (package, path)) in verified.into_iter().zip(packages.iter().zip(&files)) {
        let scripts = !job.base && job.control.files.iter().any(|(name, _, _)| name == "preinst");
        if scripts { left.push((package, path)) } else { jobs.push(job) }
    }
    let unpacked = unpack(root, jobs, Style::Dpkg, progress)?;
    let dir = Dir::open(root)?;
    database::write(&dir, &unpacked)?;
    furnish(&dir)?;
    let scripts = scripts(&dir, &unpacked, &left, &packages)?;
    progress.phase("configure", Some(packages.len() as u64));
    configure(root, &scripts, &request.archive.suite, request.time(lock), progress)?;
    finish(&dir, lock, request.keep_apt)?;
    settle(&dir, request.time(lock))
}

/// dpkg's name for the architecture of this machine.
#[must_use]
pub fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        "powerpc64" => "ppc64el",
        "arm" => "armhf",
        other => other,
    }
}

fn promise(package: &Pin) -> Promise {
    Promise { sha256: package.sha256.clone(), size: package.size }
}

/// Brings all packages into the store; gives their paths there.
fn download(
    packages: &[Pin],
    store: &Store,
    fetcher: &Fetcher,
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>> {
    let area = store.area(Area::Packages)?;
    let path = |p: &Pin| area.join(format!("{}.deb", p.sha256));
    let missing: Vec<&Pin> =
        packages.iter().filter(|p| !std::fs::metadata(path(p)).is_ok_and(|m| m.len() == p.size)).collect();
    progress.phase("download", Some(missing.iter().map(|p| p.size).sum()));
    each(missing.len(), DOWNLOADS, |i| {
        let package = missing[i];
        progress.detail(&package.name);
        let target = path(package);
        // One of another size is no whole file of this hash.
        let _ = std::fs::remove_file(&target);
        fetcher.file(&package.url, &promise(package), &target, &|n| progress.advance(n))
    })?;
    Ok(packages.iter().map(path).collect())
}

/// Opens packages of the store after their hashes were compared.
fn verified(packages: &[Pin], files: &[PathBuf]) -> Result<Vec<Job>> {
    each(packages.len(), cores(), |i| {
        let (package, path) = (&packages[i], &files[i]);
        let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let name = format!("{}_{}", package.name, package.version);
        if let Err(e) = check(&mut file, &promise(package), &name) {
            let _ = std::fs::remove_file(path);
            return Err(e);
        }
        let deb = Deb::open(file, &name)?;
        let control = deb.control()?;
        Ok(Job { name: package.name.clone(), deb, control, size: package.size, base: package.base })
    })
}

/// What debootstrap puts beside the packages: device nodes, an fstab, the time zone.
fn furnish(root: &Dir) -> Result<()> {
    let etc = make(root, "etc")?;
    if etc.stat(OsStr::new("fstab"))?.is_none() {
        put(&etc, "fstab", 0o644, b"# UNCONFIGURED FSTAB FOR BASE SYSTEM\n")?;
    }
    if etc.stat(OsStr::new("localtime"))?.is_none() {
        etc.symlink(OsStr::new("localtime"), OsStr::new("/usr/share/zoneinfo/UTC"))?;
    }
    let dev = make(root, "dev")?;
    for mount_point in ["proc", "sys", "var/cache"] {
        make(root, mount_point)?;
    }
    Ok(sandbox::static_devices(&dev, dev.path())?)
}

fn scripts(
    root: &Dir,
    unpacked: &[Unpacked],
    left: &[(&Package, &PathBuf)],
    all: &[Package],
) -> Result<Scripts> {
    let mut with_preinst: Vec<&Unpacked> =
        unpacked.iter().filter(|u| u.control.files.iter().any(|(n, _, _)| n == "preinst")).collect();
    with_preinst.sort_by_key(|u| (u.name != "base-passwd", u.name != "base-files", u.name.clone()));
    let arch = |u: &Unpacked| field(&u.control.paragraph, "Architecture").unwrap_or_default();
    make(root, CONTROL)?;
    for package in &with_preinst {
        let folder = make(root, &format!("{CONTROL}/{}", info_name(package)))?;
        put(&folder, "control", 0o644, package.control.paragraph.as_bytes())?;
        for (name, mode, bytes) in &package.control.files {
            put(&folder, name, *mode, bytes)?;
        }
    }
    let preinst = with_preinst.iter().map(|u| (u.name.clone(), arch(u), info_name(u))).collect();
    if !left.is_empty() {
        let debs = make(root, DEBS)?;
        for (package, path) in left {
            let name = format!("{}.deb", package.name);
            let file = debs.create(OsStr::new(&name))?;
            let source = File::open(path).map_err(|e| Error::io("open", path, e))?;
            let size = source.metadata().map_err(|e| Error::io("stat", path, e))?.len();
            crate::sys::copy::file(&source, &file, size)?;
        }
    }
    let left: Vec<&Package> = left.iter().map(|(p, _)| *p).collect();
    Ok(Scripts { preinst, leftover: configure::order(&left, all) })
}
