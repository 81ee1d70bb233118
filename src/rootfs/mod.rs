//! Root filesystems of bundles: one trait, one file per driver.
//!
//! | driver | `BUNDLE/rootfs` is | shared between bundles |
//! |---|---|---|
//! | `copy` | a plain directory | nothing |
//! | `overlay` | an overlay, changes in `BUNDLE/upper` | one directory per layer, in the store |
//! | `btrfs` | a snapshot | one read-only subvolume per layer chain, in the store |
//! | `image` | an overlay over the image file, loop-mounted read-only at `BUNDLE/lower` | the file |
//!
//! A [`Rootfs`] is the record of what was made; the caller keeps it with the bundle, so that
//! a later command can make the mounts again ([`Rootfs::mount`]) and take everything away
//! ([`Rootfs::remove`]). A driver that was asked for by name never gives way to another;
//! [`choose`] picks one and says why.
//!
//! In the store's layers area:
//!
//! ```text
//! layers/lock             held while layers are extracted, so that each is extracted once
//! layers/diff-HEX/fs      overlay: a layer by its diff id, in overlayfs' form
//! layers/diff-HEX/root    there where the layer describes its root directory
//! layers/diff-HEX/opaque  there where the layer hides all that is below it
//! layers/chain-HEX/…      the same for a layer that depends on those below, by chain id
//! layers/empty            overlay: the lower of an image without layers
//! layers/btrfs-HEX        btrfs: a read-only subvolume by chain id
//! ```
//!
//! In a user namespace files have other owners on disk and opaque directories another attribute,
//! so the names begin with `mapped-` there, or with `single-` where there is one id only.
//!
//! [`stale`] finds those that neither an image nor a bundle needs.
//!
//! Folders there are published by rename, whole, after one syncfs.

mod area;
mod btrfs;
mod copy;
mod image;
mod overlay;
mod stale;

pub use btrfs::parent;
pub use image::mount_file;
pub use stale::{Stale, stale};

use crate::error::Kind;
use crate::layer;
use crate::oci::Image;
use crate::store::{self, Area, Store};
use crate::sys::overlay::MAX_LOWERS;
use crate::sys::userns::{self, Ids};
use crate::sys::{self, Call, mount};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// A plain copy.
    Copy,
    /// An overlay over shared layers or a directory.
    Overlay,
    /// A btrfs snapshot.
    Btrfs,
    /// An overlay over a read-only filesystem image.
    Image,
}

/// All drivers.
pub const DRIVERS: [DriverKind; 4] =
    [DriverKind::Copy, DriverKind::Overlay, DriverKind::Btrfs, DriverKind::Image];

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Copy => "copy",
            Self::Overlay => "overlay",
            Self::Btrfs => "btrfs",
            Self::Image => "image",
        })
    }
}

impl FromStr for DriverKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = DRIVERS.into_iter().find(|d| d.to_string() == text);
        found.ok_or_else(|| Error::UnknownDriver(text.to_string()))
    }
}

/// What a root filesystem is made from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// An image of the store.
    Image(&'a Image),
    /// A directory tree.
    Directory(&'a Path),
    /// A filesystem image: ext4, squashfs, erofs or btrfs.
    File(&'a Path),
}

impl Source<'_> {
    const fn what(&self) -> &'static str {
        match self {
            Self::Image(_) => "an image of the store",
            Self::Directory(_) => "a directory",
            Self::File(_) => "a filesystem image",
        }
    }
}

/// What goes wrong with a root filesystem.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No driver of this name.
    #[error("unknown driver {0:?}: wanted copy, overlay, btrfs or image")]
    UnknownDriver(String),
    /// The driver does not take such a source.
    #[error("the {driver} driver cannot start from {source_kind}")]
    Source {
        /// The driver.
        driver: DriverKind,
        /// What the source is.
        source_kind: &'static str,
    },
    /// The driver cannot work here.
    #[error("the {driver} driver does not work here: {reason}")]
    Unsupported {
        /// The driver.
        driver: DriverKind,
        /// Why.
        reason: String,
    },
    /// The file holds no filesystem that is known.
    #[error("{} is not a filesystem image: no ext4, squashfs, erofs or btrfs in it", .0.display())]
    NotAnImage(PathBuf),
    /// Another command of the user has it mounted, in a mount namespace of its own.
    #[error("{} is in use by process {process}", rootfs.display())]
    InUse {
        /// The root filesystem.
        rootfs: PathBuf,
        /// A process that sees it.
        process: i32,
    },
    /// The kernel mounts a filesystem image for root alone.
    #[error("{} cannot be mounted by an ordinary user: {source}", file.display())]
    RootMounts {
        /// The image.
        file: PathBuf,
        /// The refused call.
        source: sys::Error,
    },
    /// The owners of its files would be misread.
    #[error("the root filesystem was made {}", .0.made())]
    OtherIds(Ids),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A syscall.
    #[error(transparent)]
    Sys(#[from] sys::Error),
}

/// Result of making or removing a root filesystem.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::UnknownDriver(_)
            | Self::Source { .. }
            | Self::NotAnImage(_)
            | Self::OtherIds(_)
            | Self::InUse { .. } => Kind::Input,
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::RootMounts { .. } => Kind::Privilege,
            Self::Layer(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Sys(e) => e.kind(),
        }
    }
}

/// What a root filesystem is mounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To be looked at; it may be in use.
    Read,
    /// To be changed.
    Write,
}

/// The record of a bundle's root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Who made it.
    pub driver: DriverKind,
    /// Lower directories of an overlay, the topmost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lowers: Vec<PathBuf>,
    /// The image file below an overlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<PathBuf>,
    /// Whether it goes with the command that made it: what is written is never synced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub volatile: bool,
    /// With which ids it was made; with others its files have other owners.
    #[serde(default, skip_serializing_if = "Ids::is_host")]
    pub ids: Ids,
}

impl Rootfs {
    fn new(driver: DriverKind) -> Self {
        Self { driver, lowers: Vec::new(), image: None, volatile: false, ids: userns::ids() }
    }

    /// Makes `bundle/rootfs` from `source`, mounted where the driver mounts. The folder
    /// `bundle` exists, without `rootfs`, `upper`, `work` and `lower`.
    ///
    /// # Errors
    /// Any [`Error`]; what was made is taken away again.
    pub fn create(store: &Store, driver: DriverKind, source: &Source, bundle: &Path) -> Result<Self> {
        Self::new(driver).make(store, source, bundle)
    }

    /// As [`Rootfs::create`], for a bundle that is thrown away: what is written is not synced,
    /// and of no use once it is unmounted.
    ///
    /// # Errors
    /// As [`Rootfs::create`].
    pub fn volatile(store: &Store, driver: DriverKind, source: &Source, bundle: &Path) -> Result<Self> {
        Self { volatile: true, ..Self::new(driver) }.make(store, source, bundle)
    }

    /// As [`Rootfs::volatile`] by the overlay driver, with `bundle` itself in memory, mounted there. That
    /// goes when the caller unmounts it.
    ///
    /// # Errors
    /// As [`Rootfs::create`].
    pub fn in_memory(store: &Store, source: &Source, bundle: &Path) -> Result<Self> {
        area::mount_memory(bundle)?;
        Self::volatile(store, DriverKind::Overlay, source, bundle)
            .inspect_err(|_| mount::unmount(bundle).unwrap_or_else(|e| tracing::warn!("{e}")))
    }

    fn make(mut self, store: &Store, source: &Source, bundle: &Path) -> Result<Self> {
        let bundle = &bundle.canonicalize().call(|| format!("realpath({})", bundle.display()))?;
        for name in ["rootfs", "upper", "work", "lower"] {
            let path = bundle.join(name);
            if path.symlink_metadata().is_ok() {
                return Err(rustix::io::Errno::EXIST).call(|| format!("mkdir({})", path.display()))?;
            }
        }
        let made = self.driver.driver().create(store, source, bundle, &mut self);
        match made {
            Ok(()) => Ok(self),
            Err(e) => {
                if let Err(undo) = self.remove(bundle) {
                    tracing::warn!("{undo}");
                }
                Err(e)
            }
        }
    }

    /// Makes the mounts again that are gone, since a reboot, or since the mount namespace of an
    /// ordinary user's command is; does nothing where they are there.
    ///
    /// # Errors
    /// [`Error::OtherIds`], [`Error::InUse`]; [`Error::Sys`]; [`Error::NotAnImage`] where the image file was replaced.
    pub fn mount(&self, bundle: &Path, access: Access) -> Result<()> {
        if self.ids != userns::ids() {
            return Err(Error::OtherIds(self.ids));
        }
        self.driver.driver().mount(self, bundle, access)
    }

    /// Unmounts and deletes what [`Rootfs::create`] made, also when it is partly gone. The
    /// bundle folder and its other files are the caller's.
    ///
    /// # Errors
    /// [`Error::Sys`].
    pub fn remove(&self, bundle: &Path) -> Result<()> {
        self.driver.driver().remove(bundle)
    }
}

/// What a driver does; all paths are below the bundle folder but those of the store.
trait Driver {
    /// Makes `bundle/rootfs`, mounted; records in `rootfs` what [`Driver::mount`] needs.
    fn create(&self, store: &Store, source: &Source, bundle: &Path, rootfs: &mut Rootfs) -> Result<()>;
    /// Mounts what is not mounted.
    fn mount(&self, rootfs: &Rootfs, bundle: &Path, access: Access) -> Result<()>;
    /// Unmounts and deletes.
    fn remove(&self, bundle: &Path) -> Result<()>;
}

impl DriverKind {
    fn driver(self) -> &'static dyn Driver {
        match self {
            Self::Copy => &copy::Copy,
            Self::Overlay => &overlay::Overlay,
            Self::Btrfs => &btrfs::Btrfs,
            Self::Image => &image::ImageFile,
        }
    }
}

/// Picks a driver for `source`, and says why: the image driver for an image file, btrfs where
/// the store lies on it, an overlay where the kernel mounts one there, else a copy.
///
/// # Errors
/// [`Error::Store`], [`Error::Sys`].
pub fn choose(store: &Store, source: &Source) -> Result<(DriverKind, String)> {
    if let Source::File(file) = source {
        return Ok((DriverKind::Image, format!("{} is a file", file.display())));
    }
    let layers = store.area(Area::Layers)?;
    if sys::btrfs::is_btrfs(&layers)? && !matches!(source, Source::Directory(_)) {
        return Ok((DriverKind::Btrfs, format!("{} is on btrfs", layers.display())));
    }
    let count = match source {
        Source::Image(image) => image.layers.len().max(1),
        _ => 1,
    };
    if count > MAX_LOWERS {
        return Ok((DriverKind::Copy, format!("an overlay takes {MAX_LOWERS} layers")));
    }
    match overlay::try_mount(&layers, count, Changes::Disk) {
        Ok(()) => Ok((DriverKind::Overlay, "overlays can be mounted".to_string())),
        Err(Error::Unsupported { reason, .. }) => Ok((DriverKind::Copy, reason)),
        Err(e) => Ok((DriverKind::Copy, format!("no overlay can be mounted: {e}"))),
    }
}

/// Where overlays over the store's layers keep what is written into them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// In the store.
    Disk,
    /// In memory, each in a filesystem of its own.
    Memory,
}

/// Where a throw-away overlay is to keep what is written: in the store; in memory where only that can be
/// mounted, as where the store lies on an overlay. Where neither can, mounting one tells why.
///
/// # Errors
/// [`Error::Store`].
pub fn changes(store: &Store) -> Result<Changes> {
    let layers = store.area(Area::Layers)?;
    let works = |changes: Changes| overlay::try_mount(&layers, 1, changes).is_ok();
    let memory = !works(Changes::Disk) && works(Changes::Memory);
    Ok(if memory { Changes::Memory } else { Changes::Disk })
}
