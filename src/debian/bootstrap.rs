//! The whole way, from a request to a configured root.

use super::configure::{self, CONTROL, DEBS, Scripts, configure};
use super::control::{Package, Universe, field};
use super::database::{self, info_name, make, put};
use super::deb::Deb;
use super::fetch::{Fetcher, check};
use super::filter::Filters;
use super::hook::{self, Hook, Stage};
use super::host::Settings;
use super::plan::{Variant, Wishes, plan};
use super::release::Promise;
use super::sources::{Archive, ROOT_KEYRINGS};
use super::threads::{cores, each};
use super::unpack::{Job, Style, Unpacked, unpack};
use super::{Error, Progress, Result, foreign, index};
use crate::store::{Area, Store};
use crate::sys::dir::Dir;
use crate::sys::{Call, memory, sandbox};
use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

/// How many packages are downloaded at once.
const DOWNLOADS: usize = 8;

/// What a root shall be.
#[derive(Debug)]
pub struct Request {
    /// The suite and its archives.
    pub archive: Archive,
    /// The base.
    pub variant: Variant,
    /// Packages on top of it: `NAME`, `NAME=VERSION` or `NAME/SUITE`.
    pub include: Vec<String>,
    /// Packages that are never taken, whoever needs them.
    pub exclude: Vec<String>,
    /// dpkg's name of the architecture, as `amd64`.
    pub arch: String,
    /// Paths of packages that are left out.
    pub filters: Filters,
    /// Commands of the host at stages of the work.
    pub hooks: Vec<Hook>,
    /// Whether the packages are left unpacked, to be configured on another machine.
    pub foreign: bool,
    /// Whether a failed script or hook leads to a shell on the terminal, before the error.
    pub shell_on_error: bool,
    /// Proxies, and whether Release files may be past their date.
    pub settings: Settings,
}

/// What came out.
#[derive(Debug)]
pub struct Outcome {
    /// The packages, sorted by name.
    pub packages: Vec<Package>,
}

impl Outcome {
    /// The estimated size of the unpacked packages in bytes, as their makers say.
    #[must_use]
    pub fn installed_size(&self) -> u64 {
        self.packages.iter().map(|p| p.installed_size << 10).sum()
    }
}

impl Request {
    /// A minimal root of this archive and of this machine's architecture, as the host's apt downloads.
    #[must_use]
    pub fn new(archive: Archive) -> Self {
        Self {
            archive,
            variant: Variant::default(),
            include: Vec::new(),
            exclude: Vec::new(),
            arch: host_arch().to_string(),
            filters: Filters::default(),
            hooks: Vec::new(),
            foreign: false,
            shell_on_error: false,
            settings: Settings::of_host(),
        }
    }

    fn universe(&self, store: &Store, fetcher: &Fetcher, progress: &dyn Progress) -> Result<Universe> {
        progress.phase("indexes", None);
        let cache = store.area(Area::Packages)?;
        index::load(fetcher, &self.archive, &self.arch, self.settings.check_valid_until, &cache)
    }
}

/// Makes a configured root in `root`, an empty directory. `prepare` is called with the
/// planned packages before the first file is written there. Of [`Variant::Custom`] it holds the
/// files of exactly the included packages: no dependencies, no package database, no scripts.
///
/// # Errors
/// Any of [`Error`]; `root` then holds an unfinished tree.
pub fn bootstrap(
    request: &Request,
    store: &Store,
    root: &Path,
    progress: &dyn Progress,
    prepare: &mut dyn FnMut(&Outcome) -> Result<()>,
) -> Result<Outcome> {
    if request.variant != Variant::Custom && !request.foreign {
        foreign::check(&request.arch)?;
    }
    let fetcher = Fetcher::new(request.settings.proxies.clone());
    let universe = request.universe(store, &fetcher, progress)?;
    let wishes = Wishes {
        variant: request.variant,
        include: &request.include,
        exclude: &request.exclude,
        extra_base: &request.archive.extra_base,
        never: &request.archive.never,
    };
    let planned = plan(&universe, &wishes)?;
    drop(universe);
    memory::trim();
    let files = download(&planned.packages, &request.archive, store, &fetcher, progress)?;
    let outcome = Outcome { packages: planned.packages };
    prepare(&outcome)?;
    let made = make_root(request, root, &outcome.packages, &files, &planned.base, progress);
    if let Err(failure @ (Error::Configure { .. } | Error::Hook { .. })) = &made
        && request.shell_on_error
    {
        progress.phase("shell", None);
        tracing::error!("{failure}; a shell in the system:");
        configure::shell(root, &request.archive.suite)?;
    }
    made.map(|()| outcome)
}

/// From verified package files to the root.
fn make_root(
    request: &Request,
    root: &Path,
    packages: &[Package],
    files: &[PathBuf],
    base: &BTreeSet<String>,
    progress: &dyn Progress,
) -> Result<()> {
    let hooks = |stage| hook::run(&request.hooks, stage, root, progress);
    hooks(Stage::Setup)?;
    progress.phase("unpack", Some(packages.len() as u64));
    if request.variant == Variant::Custom {
        let jobs = verified(packages, files, |_| true)?;
        unpack(root, jobs, Style::Plain, &request.filters, progress)?;
        hooks(Stage::Extract)?;
        return hooks(Stage::Customize);
    }
    let (mut jobs, mut left) = (Vec::new(), Vec::new());
    let verified = verified(packages, files, |p| request.foreign || base.contains(&p.name))?;
    for (job, (package, path)) in verified.into_iter().zip(packages.iter().zip(files)) {
        let scripts = !job.base && job.control.files.iter().any(|(name, _, _)| name == "preinst");
        if scripts { left.push((package, path)) } else { jobs.push(job) }
    }
    let unpacked = unpack(root, jobs, Style::Dpkg, &request.filters, progress)?;
    let dir = Dir::open(root)?;
    database::write(&dir, &unpacked)?;
    furnish(&dir)?;
    if !request.filters.is_empty() {
        let config = make(&dir, "etc/dpkg/dpkg.cfg.d")?;
        put(&config, "90shipimg-path-filters", 0o644, request.filters.config().as_bytes())?;
    }
    hooks(Stage::Extract)?;
    let scripts = scripts(&dir, &unpacked, base, &left, packages)?;
    if request.foreign {
        configure::leave(&dir, &scripts)?;
    } else {
        progress.phase("configure", Some(packages.len() as u64));
        configure(root, &scripts, &request.archive.suite, progress)?;
    }
    hooks(Stage::Customize)?;
    finish(&dir, &request.archive)
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

fn promise(package: &Package) -> Promise {
    Promise { sha256: package.sha256.clone(), size: package.size }
}

/// Brings all packages into the store; gives their paths there.
fn download(
    packages: &[Package],
    archive: &Archive,
    store: &Store,
    fetcher: &Fetcher,
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>> {
    let area = store.area(Area::Packages)?;
    let path = |p: &Package| area.join(format!("{}.deb", p.sha256));
    let missing: Vec<&Package> =
        packages.iter().filter(|p| !std::fs::metadata(path(p)).is_ok_and(|m| m.len() == p.size)).collect();
    progress.phase("download", Some(missing.iter().map(|p| p.size).sum()));
    each(missing.len(), DOWNLOADS, |i| {
        let package = missing[i];
        progress.detail(&package.name);
        let target = path(package);
        // One of another size is no whole file of this hash.
        let _ = std::fs::remove_file(&target);
        let addresses = archive.addresses(&package.origin.uri);
        let urls: Vec<String> = addresses.iter().map(|a| format!("{a}/{}", package.filename)).collect();
        fetcher.any(&urls, &promise(package), &target, &|n| progress.advance(n))
    })?;
    Ok(packages.iter().map(path).collect())
}

/// Opens packages of the store after their hashes were compared.
fn verified(
    packages: &[Package],
    files: &[PathBuf],
    base: impl Fn(&Package) -> bool + Sync,
) -> Result<Vec<Job>> {
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
        Ok(Job { name: package.name.clone(), deb, control, size: package.size, base: base(package) })
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
    base: &BTreeSet<String>,
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
            crate::sys::copy::file(&source, &file, package.size)?;
        }
    }
    let left: Vec<&Package> = left.iter().map(|(p, _)| *p).collect();
    let base = configure::base_first(base, &left, all);
    Ok(Scripts { preinst, base, leftover: configure::order(&left, all) })
}

/// Leaves the root for others to use: its own sources, no caches, no identity.
fn finish(root: &Dir, archive: &Archive) -> Result<()> {
    let etc = root.in_root(Path::new("etc"))?;
    if etc.stat(OsStr::new("apt"))?.is_some() {
        let apt = root.in_root(Path::new("etc/apt"))?;
        put(&apt, "sources.list", 0o644, archive.sources_list().as_bytes())?;
        for (keyring, name) in archive.root_keyrings() {
            let bytes = std::fs::read(keyring).map_err(|e| Error::io("read", keyring, e))?;
            put(&make(root, ROOT_KEYRINGS)?, &name, 0o644, &bytes)?;
        }
    }
    if etc.stat(OsStr::new("machine-id"))?.is_some() {
        put(&etc, "machine-id", 0o444, b"")?;
    }
    for name in ["resolv.conf", "hostname"] {
        if etc
            .stat(OsStr::new(name))?
            .is_some_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_file())
        {
            etc.unlink(OsStr::new(name))?;
        }
    }
    if etc.stat(OsStr::new("ssh"))?.is_some() {
        // Keys made here would be the same in every copy of the image.
        let ssh = root.in_root(Path::new("etc/ssh"))?;
        for (name, _) in ssh.list()? {
            if name.as_encoded_bytes().starts_with(b"ssh_host_") {
                ssh.remove(&name)?;
            }
        }
    }
    let caches: [(&str, &[&str]); 3] = [
        ("var/lib/apt/lists", &["partial", "auxfiles", "lock"]),
        ("var/cache/apt", &["archives"]),
        ("var/cache/apt/archives", &["partial", "lock"]),
    ];
    for (path, keep) in caches {
        if let Ok(dir) = root.in_root(Path::new(path)) {
            let keep: HashSet<&OsStr> = keep.iter().map(OsStr::new).collect();
            dir.clear(&keep.into_iter().collect::<Vec<_>>())?;
        }
    }
    rustix::fs::fchmod(root, rustix::fs::Mode::from_raw_mode(0o755)).call(|| "fchmod(root)".to_string())?;
    Ok(())
}
