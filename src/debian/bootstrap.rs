//! The whole way, from a request to a configured root.

use super::configure::{self, CONTROL, Leftover, Preinst, Scripts, configure};
use super::control::{Package, Universe, described, field};
use super::database::{self, info_name, make, put};
use super::deb::Deb;
use super::fetch::{Fetcher, check};
use super::filter::Filters;
use super::finish::{finish, settle};
use super::hook::{self, Hook, Stage};
use super::host::Settings;
use super::lists::{self, List};
use super::lock::{Asked, Lock, Pin};
use super::plan::{Variant, Wishes, plan};
use super::release::Promise;
use super::sources::Archive;
use super::threads::{cores, each};
use super::unpack::{Job, Style, Unpacking, unpack};
use super::{Error, Progress, Result, foreign, index, stand_in};
use crate::oci::{Digest, Platform};
use crate::store::{Area, Store};
use crate::sys::dir::Dir;
use crate::sys::userns::ids;
use crate::sys::{memory, process, sandbox};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Which way roots are made: part of their keys, to be counted up when the same packages give
/// another root than before.
const METHOD: u32 = 4;

/// How many files are open beside those of packages, and how many in each thread that places them.
const MORE_FILES: usize = 2048;
const FILES_OF_A_THREAD: usize = 300;

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
    /// When everything is made that the packages do not date, in seconds since 1970; the date of
    /// the newest Release file where there is none.
    pub epoch: Option<i64>,
    /// Whether apt's caches stay, and the packages' files are among them.
    pub keep_apt: bool,
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
            epoch: None,
            keep_apt: false,
        }
    }

    /// Fails where scripts would have to run that this machine cannot run.
    fn check_arch(&self) -> Result<()> {
        let scripts = self.variant != Variant::Custom && !self.foreign;
        if scripts { foreign::check(&self.arch) } else { Ok(()) }
    }

    /// What the set of packages depends on.
    #[must_use]
    pub fn asked(&self) -> Asked {
        Asked::new(self)
    }

    /// When everything is made in a root of `lock`, in seconds since 1970.
    #[must_use]
    pub fn time(&self, lock: &Lock) -> i64 {
        self.epoch.unwrap_or_else(|| lock.date())
    }

    /// The digest of all that a root of `lock` depends on; none where it depends on commands, of
    /// which nobody knows what they do.
    ///
    /// # Errors
    /// [`Error::Io`] for a keyring that goes into the root.
    pub fn key(&self, lock: &Lock) -> Result<Option<Digest>> {
        if !self.hooks.is_empty() {
            return Ok(None);
        }
        let mut more = format!(
            "{METHOD} {} {} {} {}\n",
            self.time(lock),
            self.keep_apt,
            self.foreign,
            ids().is_single()
        ) + &self.filters.config();
        for (keyring, name) in self.archive.root_keyrings() {
            let bytes = std::fs::read(keyring).map_err(|e| Error::io("read", keyring, e))?;
            more = format!("{more}{name} {}\n", Digest::of(&bytes));
        }
        Ok(Some(lock.key(&more)))
    }
}

/// Finds the packages that `request` asks for.
///
/// # Errors
/// [`Error::Foreign`], those of reading Release files and indexes, and of [`plan`].
pub fn resolve(request: &Request, store: &Store, progress: &dyn Progress) -> Result<Lock> {
    let (lock, _, universe) = resolved(request, store, progress)?;
    drop(universe);
    memory::trim();
    Ok(lock)
}

/// As [`resolve`]; also the packages in the order of the lock, and all others.
pub(super) fn resolved(
    request: &Request,
    store: &Store,
    progress: &dyn Progress,
) -> Result<(Lock, Vec<Package>, Universe)> {
    request.check_arch()?;
    progress.phase("indexes", None);
    let fetcher = Fetcher::new(request.settings.proxies.clone());
    let cache = store.area(Area::Packages)?;
    let check = request.settings.check_valid_until;
    let (universe, releases) = index::load(&fetcher, &request.archive, &request.arch, check, &cache)?;
    let wishes = Wishes {
        variant: request.variant,
        include: &request.include,
        exclude: &request.exclude,
        extra_base: &request.archive.extra_base,
        never: &request.archive.never,
    };
    let planned = plan(&universe, &wishes)?;
    let pins = planned.packages.iter().map(|p| Pin::new(p, planned.base.contains(&p.name))).collect();
    let lock = Lock::new(request.asked(), &request.archive.sources_list(), releases, pins);
    Ok((lock, planned.packages, universe))
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
    request.check_arch()?;
    let fetcher = Fetcher::new(request.settings.proxies.clone());
    let files = download(&lock.packages, lock, &request.archive, store, &fetcher, progress)?;
    let jobs = verified(&lock.packages, &files, request.foreign)?;
    let packages: Vec<Package> = jobs.iter().map(|job| described(&job.control.paragraph)).collect();
    prepare(packages.iter().map(|p| p.installed_size << 10).sum())?;
    let lists = if request.keep_apt && request.variant != Variant::Custom {
        lists::load(request, lock, &fetcher, &store.area(Area::Packages)?)?
    } else {
        Vec::new()
    };
    let made = make_root(request, lock, root, &jobs, (&packages, &files, &lists), progress);
    if let Err(failure @ (Error::Configure { .. } | Error::Hook { .. })) = &made
        && request.shell_on_error
    {
        progress.phase("shell", None);
        tracing::error!("{failure}; a shell in the system:");
        configure::shell(root, &request.archive.suite)?;
    }
    made
}

/// From verified packages and their files to the root.
fn make_root(
    request: &Request,
    lock: &Lock,
    root: &Path,
    verified: &[Job],
    (packages, files, lists): (&[Package], &[PathBuf], &[List]),
    progress: &dyn Progress,
) -> Result<()> {
    let hooks = |stage| hook::run(&request.hooks, stage, root, progress);
    let (dir, time) = (Dir::open(root)?, request.time(lock));
    hooks(Stage::Setup)?;
    if request.variant == Variant::Custom {
        progress.phase("unpack", Some(packages.len() as u64));
        unpack(root, verified, Style::Plain, &request.filters, progress)?;
        hooks(Stage::Extract)?;
        hooks(Stage::Customize)?;
        return settle(&dir, time);
    }
    let unpacking = Unpacking::new(root, verified, Style::Dpkg, &request.filters);
    let base = base_first(lock, verified, packages);
    let later =
        |job: &Job| !job.base && if base.is_empty() { job.has_preinst() } else { !base.contains(&job.name) };
    let (later, first): (Vec<usize>, Vec<usize>) = (0..verified.len()).partition(|&i| later(&verified[i]));
    progress.phase("unpack", Some(first.len() as u64));
    let (unpacked, _) = unpacking.place(&first, false, progress)?;
    database::write(&dir, &unpacked)?;
    furnish(&dir)?;
    if !request.filters.is_empty() {
        let config = make(&dir, "etc/dpkg/dpkg.cfg.d")?;
        put(&config, "90shipimg-path-filters", 0o644, request.filters.config().as_bytes())?;
    }
    hooks(Stage::Extract)?;
    let scripts = scripts(&dir, verified, &later, base, packages)?;
    if request.foreign {
        configure::leave(&dir, &scripts)?;
    } else {
        progress.phase("configure", Some(packages.len() as u64));
        std::thread::scope(|scope| {
            let mut left: BTreeSet<usize> = later.into_iter().collect();
            let mut ahead = Some(unpacking.decompress(scope, left.iter().copied()));
            let mut place = |together: &[Leftover]| {
                ahead = None;
                let which: Vec<usize> = together.iter().map(|l| l.job).collect();
                left.retain(|i| !which.contains(i));
                let (unpacked, lost) = unpacking.place(&which, true, progress)?;
                ahead = Some(unpacking.decompress(scope, left.iter().copied()));
                database::add(&dir, &unpacked)?;
                lost.iter().try_for_each(|(package, path)| database::lose(&dir, package, path))?;
                database::set_off(&dir, &unpacked)
            };
            configure(root, &scripts, (&request.archive.suite, time), &mut place, progress)
        })?;
    }
    hooks(Stage::Customize)?;
    finish(&dir, lock, &request.archive, request.keep_apt)?;
    if request.keep_apt {
        let archives = make(&dir, "var/cache/apt/archives")?;
        for (pin, path) in lock.packages.iter().zip(files) {
            copy(path, &archives, &pin.file_name())?;
        }
        lists::write(&dir, lists)?;
    }
    settle(&dir, time)
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

/// dpkg's name for the architecture of a platform.
#[must_use]
pub fn arch_of(platform: &Platform) -> &str {
    match (platform.architecture.as_str(), platform.variant.as_deref()) {
        ("386", _) => "i386",
        ("arm", Some("v5" | "v6")) => "armel",
        ("arm", _) => "armhf",
        ("ppc64le", _) => "ppc64el",
        ("mips64le", _) => "mips64el",
        (other, _) => other,
    }
}

fn promise(package: &Pin) -> Promise {
    Promise { sha256: package.sha256.clone(), size: package.size }
}

/// Brings packages of `lock` into the store; gives their paths there.
pub(super) fn download(
    packages: &[Pin],
    lock: &Lock,
    archive: &Archive,
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
        let addresses = lock.everywhere(package, archive);
        fetcher.any(&addresses, &promise(package), &target, &|n| progress.advance(n))
    })?;
    Ok(packages.iter().map(path).collect())
}

/// Opens packages of the store after their hashes were compared. `all` of them, or those of the
/// base, are placed before any script runs.
pub(super) fn verified(packages: &[Pin], files: &[PathBuf], all: bool) -> Result<Vec<Job>> {
    // They stay open, so that what is unpacked is what was verified.
    process::allow_files((packages.len() + cores() * FILES_OF_A_THREAD + MORE_FILES) as u64);
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
        is_itself(&control.paragraph, package, &name)?;
        Ok(Job { name: package.name.clone(), deb, control, size: package.size, base: all || package.base })
    })
}

/// Whether a package says of itself what is said of it: a list of packages names it by that.
fn is_itself(control: &str, package: &Pin, file: &str) -> Result<()> {
    for (name, said) in
        [("Package", &package.name), ("Version", &package.version), ("Architecture", &package.architecture)]
    {
        let own = field(control, name).unwrap_or_default();
        if own != *said {
            let reason = format!("its {name} is {own:?}, promised was {said:?}");
            return Err(Error::Package { name: file.to_string(), reason });
        }
    }
    Ok(())
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

/// The base with what it needs, as [`configure::base_first`] has it.
fn base_first(lock: &Lock, jobs: &[Job], all: &[Package]) -> Vec<String> {
    let base = lock.packages.iter().filter(|p| p.base).map(|p| p.name.clone()).collect();
    let with_preinst = jobs.iter().zip(all).filter(|(job, _)| !job.base && job.has_preinst());
    configure::base_first(&base, &with_preinst.map(|(_, package)| package).collect::<Vec<_>>(), all)
}

/// What runs when the packages are configured of which `later` are not placed yet.
fn scripts(root: &Dir, jobs: &[Job], later: &[usize], base: Vec<String>, all: &[Package]) -> Result<Scripts> {
    let mut with_preinst: Vec<&Job> = jobs.iter().filter(|job| job.has_preinst()).collect();
    with_preinst.sort_by_key(|job| (job.name != "base-passwd", job.name != "base-files", &job.name));
    make(root, CONTROL)?;
    for job in &with_preinst {
        let folder = make(root, &format!("{CONTROL}/{}", info_name(job)))?;
        put(&folder, "control", 0o644, job.control.paragraph.as_bytes())?;
        for (name, mode, bytes) in &job.control.files {
            put(&folder, name, *mode, bytes)?;
        }
    }
    let script = |job: &Job| Preinst {
        package: job.name.clone(),
        arch: field(&job.control.paragraph, "Architecture").unwrap_or_default(),
        folder: info_name(job),
    };
    let preinst = with_preinst.into_iter().filter(|job| job.base).map(script);
    let leftover = later.iter().map(|&i| {
        let preinst = jobs[i].has_preinst().then(|| script(&jobs[i]));
        let before = if preinst.is_some() { configure::pre_depends(&all[i], all) } else { Vec::new() };
        Leftover { job: i, name: jobs[i].name.clone(), preinst, before }
    });
    let leftover = configure::turns(leftover.collect());
    let before = leftover.iter().flatten().flat_map(|l| &l.before);
    let done = base.iter().chain(before).map(String::as_str).collect();
    let said = |of: &Job, what: fn(&str, &[u8]) -> bool| {
        of.control.files.iter().any(|(name, _, text)| what(name, text))
    };
    let slow =
        jobs.iter().filter(|job| said(job, stand_in::works_beside)).map(|job| job.name.as_str()).collect();
    let early = configure::early(&slow, &done, all);
    let mut others = jobs.iter().filter(|job| job.name != "ca-certificates");
    let certificates = !others.any(|job| said(job, stand_in::know_certificates));
    let python = jobs.iter().any(|job| job.name == stand_in::PYTHON_PACKAGE);
    Ok(Scripts { preinst: preinst.collect(), base, leftover, early, certificates, python })
}

/// Copies a package's file to `name` in the folder `to`.
fn copy(path: &Path, to: &Dir, name: &str) -> Result<()> {
    let file = to.create(OsStr::new(name))?;
    let source = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let meta = source.metadata().map_err(|e| Error::io("stat", path, e))?;
    crate::sys::copy::file(&source, &file, meta.len())?;
    Ok(to.chmod(OsStr::new(name), 0o644)?)
}
