//! Bundles: a root filesystem and the `config.json` that says how to run it.
//!
//! ```text
//! STORE/shipimg/bundles/NAME/
//!   config.json     OCI runtime configuration; any runtime runs the folder as it is
//!   rootfs/         the root filesystem, mounted where the driver mounts
//!   bundle.json     what it was made from and how (the driver's record)
//!   upper/ work/ …  the driver's own
//! ```
//!
//! A bundle is made in a scratch folder of the store and renamed to its name when it is
//! whole; mounts below it move along. A throw-away bundle stays in its scratch folder and
//! goes with it, by the next command should the process be killed. Mounts that a reboot
//! took away are made again by [`Bundle::mount`].
//!
//! What is read from the root filesystem (its passwd and group files) is resolved inside
//! it, must be a regular file and is read up to a limit.

mod convert;
mod health;
mod limits;
mod mount;
pub mod network;
mod seccomp;
mod settings;
pub mod spec;
mod unpacked;
pub mod users;

pub use health::HealthChange;
pub use limits::{HostDevice, Limits, cpus, cpuset, device, size, size_or_none, ulimit};
pub use mount::{clean, mount, plain, tmpfs, volume};
pub use network::{Net, Network};
pub use seccomp::{Seccomp, seccomp};
pub use settings::{Caps, HEALTH_ANNOTATION, STOP_SIGNAL_ANNOTATION, Settings};
pub use unpacked::{RECORD, Unpacked};
pub use users::Ids;

use crate::error::Kind;
use crate::oci::{Digest, Image, Reference};
use crate::rootfs::{self, Access, Changes, DriverKind, Rootfs, Source};
use crate::store::{self, Area, Lease, Scratch, Store};
use crate::sys;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The longest name of a bundle, in characters.
const MAX_NAME: usize = 128;

/// What goes wrong with a bundle.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image's user cannot be resolved.
    #[error("user {text:?}: {reason}")]
    User {
        /// As the image writes it.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A path in the image's configuration leads elsewhere.
    #[error("the image's {field} {value:?} is not an absolute path without ..")]
    Config {
        /// The field of the image configuration.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// The name cannot be a bundle's.
    #[error("invalid name {0:?}: wanted letters, digits, `_`, `.`, `+` and `-`, at most {MAX_NAME}")]
    Name(String),
    /// A bundle of this name is there.
    #[error("bundle {0} already exists")]
    Exists(String),
    /// No bundle of this name is there.
    #[error("bundle {0} does not exist")]
    Missing(String),
    /// A setting that is not understood.
    #[error("invalid {option} {value:?}: {reason}")]
    Setting {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Options of the network that do not go together.
    #[error("{0}")]
    Network(String),
    /// The named network namespace is not there.
    #[error("network namespace {0:?} does not exist in /run/netns")]
    NoNetns(String),
    /// A runtime configuration cannot be put together.
    #[error("config.json: {0}")]
    Spec(#[from] oci_spec::OciSpecError),
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A driver failed.
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A syscall failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
}

/// Result of an operation on bundles.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::User { .. } | Self::Config { .. } => Kind::Integrity,
            Self::Name(_) | Self::Exists(_) | Self::Setting { .. } | Self::Network(_) => Kind::Input,
            Self::Missing(_) | Self::NoNetns(_) => Kind::Missing,
            Self::Spec(_) => Kind::Internal,
            Self::Io { source, .. } => Kind::of_io(source),
            Self::Rootfs(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Sys(e) => e.kind(),
        }
    }
}

fn io_error<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::Io { action, path: path.to_path_buf(), source })
}

/// What a bundle is made from.
#[derive(Debug)]
pub enum Origin {
    /// An image of the store.
    Image(Option<Reference>, Box<Image>),
    /// A folder that holds a root filesystem.
    Directory(PathBuf),
    /// A file that holds a filesystem.
    File(PathBuf),
}

impl Origin {
    /// The driver's view of it.
    #[must_use]
    pub fn source(&self) -> Source<'_> {
        match self {
            Self::Image(_, image) => Source::Image(image),
            Self::Directory(path) => Source::Directory(path),
            Self::File(path) => Source::File(path),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Image(Some(reference), _) => reference.fmt(f),
            Self::Image(None, image) => image.descriptor.digest.fmt(f),
            Self::Directory(path) | Self::File(path) => path.display().fmt(f),
        }
    }
}

/// `bundle.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    origin: String,
    /// The manifest of the image that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<Digest>,
    /// None where the origin, a folder, is the root filesystem itself.
    rootfs: Option<Rootfs>,
    /// Whether it goes with the container of its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    container: bool,
}

/// A bundle on disk.
#[derive(Debug)]
pub struct Bundle {
    name: String,
    path: PathBuf,
    record: Record,
    /// Holds a throw-away bundle's folder.
    scratch: Option<Scratch>,
    /// Holds the image until the record is where a prune finds it, or the bundle is gone.
    lease: Option<Lease>,
}

impl Bundle {
    /// Makes the bundle `name` of the store. Without a driver the origin, which must be a folder,
    /// is the root filesystem itself.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Name`], and what driver and conversion fail with; nothing is left then.
    pub fn create(
        store: &Store,
        name: &str,
        origin: &Origin,
        driver: Option<DriverKind>,
        settings: &Settings,
    ) -> Result<Self> {
        Self::publish(store, name, origin, driver, settings, false)
    }

    /// Makes the bundle `name` of the store, which goes with the container of that name.
    ///
    /// # Errors
    /// As [`Bundle::create`].
    pub fn for_container(
        store: &Store,
        name: &str,
        origin: &Origin,
        driver: Option<DriverKind>,
        settings: &Settings,
    ) -> Result<Self> {
        Self::publish(store, name, origin, driver, settings, true)
    }

    fn publish(
        store: &Store,
        name: &str,
        origin: &Origin,
        driver: Option<DriverKind>,
        settings: &Settings,
        container: bool,
    ) -> Result<Self> {
        let path = bundle_path(store, name)?;
        if path.exists() {
            return Err(Error::Exists(name.to_string()));
        }
        let make = |source: &Source, path: &Path| {
            Ok(driver.map(|d| Rootfs::create(store, d, source, path)).transpose()?)
        };
        let mut bundle = Self::make(store, name, origin, &make, settings, container)?;
        if let Some(scratch) = bundle.scratch.take()
            && !scratch.publish(&path)?
        {
            return Err(Error::Exists(name.to_string()));
        }
        bundle.lease = None;
        Ok(Self { path, ..bundle })
    }

    /// Makes a bundle that goes with the value. Without a driver the origin, which must be a
    /// folder, is the root filesystem itself and keeps what is written into it.
    ///
    /// # Errors
    /// As [`Bundle::create`].
    pub fn throw_away(
        store: &Store,
        name: &str,
        origin: &Origin,
        driver: Option<DriverKind>,
        settings: &Settings,
    ) -> Result<Self> {
        let make = |source: &Source, path: &Path| {
            Ok(driver.map(|d| Rootfs::volatile(store, d, source, path)).transpose()?)
        };
        Self::make(store, name, origin, &make, settings, false)
    }

    /// As [`Bundle::throw_away`] by the overlay driver, which keeps what is written where `changes` says.
    ///
    /// # Errors
    /// As [`Bundle::create`].
    pub fn overlaid(
        store: &Store,
        name: &str,
        origin: &Origin,
        changes: Changes,
        settings: &Settings,
    ) -> Result<Self> {
        let make = |source: &Source, path: &Path| {
            Ok(Some(match changes {
                Changes::Disk => Rootfs::volatile(store, DriverKind::Overlay, source, path)?,
                Changes::Memory => Rootfs::in_memory(store, source, path)?,
            }))
        };
        Self::make(store, name, origin, &make, settings, false)
    }

    fn make(
        store: &Store,
        name: &str,
        origin: &Origin,
        rootfs: &dyn Fn(&Source, &Path) -> Result<Option<Rootfs>>,
        settings: &Settings,
        container: bool,
    ) -> Result<Self> {
        check_name(name)?;
        let scratch = store.scratch()?;
        let path = scratch.path().to_path_buf();
        let image = match origin {
            Origin::Image(_, image) => Some(&**image),
            Origin::Directory(_) | Origin::File(_) => None,
        };
        let digest = image.map(|i| i.descriptor.digest.clone());
        let lease = digest.as_ref().map(|d| store.lease().and_then(|l| l.hold(d).map(|()| l))).transpose()?;
        let rootfs = rootfs(&origin.source(), &path)?;
        let record = Record { origin: origin.to_string(), image: digest, rootfs, container };
        let bundle = Self { name: name.to_string(), path, record, scratch: Some(scratch), lease };
        let root = match (origin, &bundle.record.rootfs) {
            (Origin::Directory(dir), None) => dir.as_path(),
            _ => Path::new("rootfs"),
        };
        let mut spec = spec_for(&bundle.path.join(root), image, settings)?;
        settings.apply(&mut spec, name, root)?;
        if let Some(user) = spec.process().as_ref().map(oci_spec::runtime::Process::user) {
            settings.mounts.iter().try_for_each(|m| mount::give(m, user.uid(), user.gid()))?;
        }
        write_spec(&bundle.path, &spec)?;
        write_json(&bundle.path.join("bundle.json"), &bundle.record)?;
        Ok(bundle)
    }

    /// Where the bundle `name` of the store is or would be.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Store`].
    pub fn place(store: &Store, name: &str) -> Result<PathBuf> {
        bundle_path(store, name)
    }

    /// Opens the bundle `name` of the store, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`] where it is there and cannot be read.
    pub fn find(store: &Store, name: &str) -> Result<Option<Self>> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let path = bundle_path(store, name)?;
        let record = read_record(&path)?;
        Ok(record.map(|record| Self { name: name.to_string(), path, record, scratch: None, lease: None }))
    }

    /// Opens the bundle of this store's making in the folder `path`, of whatever name.
    ///
    /// # Errors
    /// [`Error::Io`] where its record is there and cannot be read.
    pub fn in_folder(path: &Path) -> Result<Option<Self>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let record = read_record(path)?;
        Ok(record.map(|record| Self { name, path: path.to_path_buf(), record, scratch: None, lease: None }))
    }

    /// Opens the bundle `name`, which must be there.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Io`].
    pub fn open(store: &Store, name: &str) -> Result<Self> {
        Self::find(store, name)?.ok_or_else(|| Error::Missing(name.to_string()))
    }

    /// All bundles of the store, by name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn all(store: &Store) -> Result<Vec<Self>> {
        let area = store.area(Area::Bundles)?;
        let mut names: Vec<String> = io_error("list", &area, fs::read_dir(&area))?
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names.iter().filter_map(|n| Self::find(store, n).transpose()).collect()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root filesystem's folder.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// What it was made from, for people.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.record.origin
    }

    /// The driver of its root filesystem; none where that is the origin itself.
    #[must_use]
    pub fn driver(&self) -> Option<DriverKind> {
        self.record.rootfs.as_ref().map(|r| r.driver)
    }

    /// Whether it goes with the container of its name.
    #[must_use]
    pub fn is_containers(&self) -> bool {
        self.record.container
    }

    /// What it needs of the store.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.record.needs()
    }

    /// Makes the mounts that it needs and that are not there.
    ///
    /// # Errors
    /// [`Error::Rootfs`].
    pub fn mount(&self, access: Access) -> Result<()> {
        self.record.rootfs.as_ref().map_or(Ok(()), |r| Ok(r.mount(&self.path, access)?))
    }

    /// Unmounts it and removes all of it, what was written into it included.
    ///
    /// # Errors
    /// [`Error::Rootfs`], [`Error::Io`].
    pub fn remove(self) -> Result<()> {
        if let Some(rootfs) = &self.record.rootfs {
            rootfs.remove(&self.path)?;
        }
        if self.scratch.is_some() {
            // It may be in memory.
            sys::mount::unmount(&self.path).map_err(rootfs::Error::from)?;
        }
        io_error("remove", &self.path, fs::remove_dir_all(&self.path))
    }
}

/// What a bundle needs of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The manifest of its image.
    pub image: Option<Digest>,
    /// Unpacked layers below its root filesystem.
    pub lowers: Vec<PathBuf>,
}

impl Record {
    fn needs(&self) -> Needs {
        let lowers = self.rootfs.as_ref().map(|r| r.lowers.clone()).unwrap_or_default();
        Needs { image: self.image.clone(), lowers }
    }
}

/// What the bundle in the folder `path`, of whatever name, needs; none where it is not one of
/// this store's making.
///
/// # Errors
/// [`Error::Io`] where its record is there and cannot be read.
pub fn needs_of(path: &Path) -> Result<Option<Needs>> {
    Ok(read_record(path)?.map(|r| r.needs()))
}

fn read_record(path: &Path) -> Result<Option<Record>> {
    let file = path.join("bundle.json");
    match fs::read(&file) {
        Ok(text) => io_error("parse", &file, serde_json::from_slice(&text).map_err(io::Error::from)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => io_error("read", &file, Err(e)),
    }
}

/// Writes the `config.json` of a folder that holds `rootfs/`, unpacked from `image`.
///
/// # Errors
/// Those of the conversion, [`Error::Io`].
pub fn write_config(dir: &Path, image: &Image, name: &str) -> Result<()> {
    let settings = Settings::default();
    let mut spec = spec_for(&dir.join("rootfs"), Some(image), &settings)?;
    settings.apply(&mut spec, name, Path::new("rootfs"))?;
    write_spec(dir, &spec)
}

fn write_spec(dir: &Path, spec: &Spec) -> Result<()> {
    let path = dir.join("config.json");
    let text = io_error("write", &path, spec::text(spec).map_err(io::Error::from))?;
    io_error("write", &path, fs::write(&path, text))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = io_error("write", path, serde_json::to_vec_pretty(value).map_err(io::Error::from))?;
    text.push(b'\n');
    io_error("write", path, fs::write(path, text))
}

/// The runtime configuration of a root filesystem: the defaults, what the image says, and the
/// user that is asked for.
fn spec_for(root: &Path, image: Option<&Image>, settings: &Settings) -> Result<Spec> {
    let mut spec = spec::default_spec()?;
    let user = settings.user.as_deref().or(image.map(convert::user));
    let ids = user.map(|user| users::of_root(root, user)).transpose().map_err(|e| match e {
        Error::User { text, reason } if settings.user.is_some() => {
            Error::Setting { option: "--user", value: text, reason }
        }
        other => other,
    });
    let ids = ids?.unwrap_or_default();
    if let Some(image) = image {
        convert::apply(&mut spec, image, &ids)?;
    } else if let (Some(_), Some(process)) = (user, spec.process_mut()) {
        convert::set_user(process, &ids);
    }
    Ok(spec)
}

fn bundle_path(store: &Store, name: &str) -> Result<PathBuf> {
    check_name(name)?;
    Ok(store.area(Area::Bundles)?.join(name))
}

/// A name is one path component and fit for a host name and a container's id.
fn check_name(name: &str) -> Result<()> {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let rest = |c: char| first(c) || matches!(c, '.' | '+' | '-');
    let fits = name.len() <= MAX_NAME && name.starts_with(first) && name.chars().all(rest);
    if fits { Ok(()) } else { Err(Error::Name(name.chars().take(MAX_NAME).collect())) }
}
