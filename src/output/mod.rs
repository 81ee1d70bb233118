//! A root filesystem as what others take: filesystem images, archives, folders, images.
//!
//! ```text
//! folder ─┐          ┌→ ext4, ext2, erofs      written file by file (disk/)
//!         ├→ Files ──┼→ tar, squashfs          written as one stream
//! layer  ─┘          └→ btrfs, folders         unpacked from the image in the store
//!                       images, archives       the tar as a layer
//! ```
//!
//! A [`Root`] is an image of the store together with its files. Equal files give equal bytes, for
//! all kinds but btrfs, whose tools put times of their own into it. [`check`] looks at targets first. Nothing has its name
//! before it is whole, and what had the name before is replaced then; a folder must be new.

mod btrfs;
mod check;
mod files;
mod kind;
mod squashfs;

pub use check::{check, check_size, mounts};
use files::Edited;
pub use files::Files;
pub use kind::{Kind, Output};

use crate::disk::boot::{self, Arch, Ids};
use crate::disk::ext4::{self, Size};
use crate::disk::gpt::Guid;
use crate::disk::{self, Source, Unpublished, erofs};
use crate::error::Kind as ErrorKind;
use crate::layer::{self, Encoder};
use crate::oci::{Descriptor, Digest, Edit, Image, Platform, Reference, Step, media_type, rfc3339};
use crate::store::{self, Lease, Store};
use crate::sys::workspace::Workspace;
use crate::sys::{self, Call, signal};
use crate::tree::TreePath;
use crate::{archive, transfer};
use serde_json::json;
use std::cell::OnceCell;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What goes wrong when a root filesystem is written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A target of no known kind.
    #[error("{text}: its end tells no kind of output")]
    Kind {
        /// As typed.
        text: String,
    },
    /// A folder that should be new.
    #[error("{} already exists", .0.display())]
    Exists(PathBuf),
    /// Something that would not be replaced, but lost.
    #[error("{} is no regular file", .0.display())]
    NotAFile(PathBuf),
    /// A place that two outputs have.
    #[error("{0} is there twice")]
    Twice(String),
    /// A subvolume where there can be none.
    #[error("{} would not be on btrfs", .0.display())]
    NotBtrfs(PathBuf),
    /// A loop device for an ordinary user.
    #[error("--loop is for root alone: others can mount no filesystem image")]
    NeedsRoot,
    /// Machines that no disk is made for.
    #[error("no disk is made that a machine of architecture {0} starts from")]
    NoFirmware(String),
    /// Content that cannot be read.
    #[error("read {path}: {source}")]
    Content {
        /// The file.
        path: TreePath,
        /// Why.
        source: io::Error,
    },
    /// The stream cannot be written.
    #[error("write: {0}")]
    Output(#[source] io::Error),
    /// The file cannot be written.
    #[error("write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A signal came.
    #[error("stopped by a signal")]
    Stopped,
    /// A filesystem image.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The files.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An archive.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// A copy into an archive.
    #[error(transparent)]
    Transfer(#[from] transfer::Error),
    /// A document of an image.
    #[error(transparent)]
    Document(#[from] crate::oci::Error),
    /// A syscall or a program.
    #[error(transparent)]
    Sys(#[from] sys::Error),
}

/// Result of writing a root filesystem.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Kind { .. } | Self::Exists(_) | Self::NotAFile(_) | Self::Twice(_) => ErrorKind::Input,
            Self::Content { source, .. } | Self::Output(source) | Self::Write { source, .. } => {
                ErrorKind::of_io(source)
            }
            Self::NoFirmware(_) | Self::NotBtrfs(_) => ErrorKind::Unsupported,
            Self::NeedsRoot => ErrorKind::Privilege,
            Self::Stopped => ErrorKind::Internal,
            Self::Disk(e) => e.kind(),
            Self::Layer(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Archive(e) => e.kind(),
            Self::Transfer(e) => e.kind(),
            Self::Document(e) => e.kind(),
            Self::Sys(e) => e.kind(),
        }
    }
}

/// How the outputs are to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The size of a filesystem that can be written to.
    pub size: Size,
    /// Whether the kernel writes ext4, on a loop device: another image each time.
    pub mounted: bool,
    /// dpkg's name of the architecture, for what firmware starts.
    pub arch: String,
    /// The name of a filesystem.
    pub label: String,
    /// What UUIDs are made from.
    pub seed: Digest,
    /// When all was made, in seconds since 1970.
    pub time: i64,
    /// How the layer of an image is compressed.
    pub coding: layer::Coding,
}

/// An image of the store, and its files.
#[derive(Debug)]
pub struct Root<'a> {
    /// The store.
    pub store: &'a Store,
    /// What protects the image there, and what is made of it.
    pub lease: &'a Lease,
    /// The image.
    pub image: &'a Image,
    /// Its files.
    pub files: &'a Files,
    packed: OnceCell<Descriptor>,
}

impl<'a> Root<'a> {
    /// The image with its files.
    #[must_use]
    pub const fn new(store: &'a Store, lease: &'a Lease, image: &'a Image, files: &'a Files) -> Self {
        Self { store, lease, image, files, packed: OnceCell::new() }
    }

    /// The image with its files as one compressed layer, in the store.
    fn packed(&self, settings: &Settings) -> Result<Descriptor> {
        if let Some(made) = self.packed.get() {
            return Ok(made.clone());
        }
        let made = packed(self, settings)?;
        Ok(self.packed.get_or_init(|| made).clone())
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Bytes of a file, holes included.
    pub size: Option<u64>,
    /// Of an image its manifest's digest.
    pub manifest: Option<Digest>,
}

impl Output {
    /// Writes `root`; the output is one of [`check`].
    ///
    /// # Errors
    /// Any [`Error`]; what was in the output's place is as it was.
    pub fn write(&self, root: &Root, settings: &Settings) -> Result<Written> {
        self.made(root, settings).or_else(|e| {
            // What cannot be written may be a damaged layer: then that is the error.
            if signal::pending().is_none() {
                root.files.whole()?;
            }
            Err(e)
        })
    }

    fn made(&self, root: &Root, settings: &Settings) -> Result<Written> {
        let size = match self {
            Self::File(kind, path) => match kind {
                Kind::Tar(coding) => tar(root.files, path, *coding)?,
                Kind::Squashfs => squashfs::write(root.files, path)?,
                Kind::Dir | Kind::Subvolume => return folder(root, *kind, path),
                Kind::Ext4 | Kind::Ext2 => ext(root, *kind, path, settings)?,
                Kind::Disk => disk(root, path, settings)?,
                Kind::Erofs => erofs(root, path, settings)?,
                Kind::Btrfs => btrfs::write(root, path, settings)?,
            },
            Self::Image(name) => return image(root, name, settings),
            Self::Archive { kind, path, name } => {
                let descriptor = root.packed(settings)?;
                archived(root.store, &descriptor, (*kind, path, name.as_deref()), settings.time)?;
                return Ok(Written { size: None, manifest: Some(descriptor.digest) });
            }
        };
        Ok(Written { size: Some(size), manifest: None })
    }
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    |source| Error::Write { path: path.to_path_buf(), source }
}

/// What went wrong with the stream into the file `path`.
fn into_file(path: &Path, e: Error) -> Error {
    match e {
        Error::Output(source) => Error::Write { path: path.to_path_buf(), source },
        other => other,
    }
}

/// What a stream fails with where that was not its own fault: the error that counts is put aside.
fn stash(e: Error, aside: &mut Option<Error>) -> io::Result<()> {
    Err(match e {
        Error::Output(e) => e,
        other => {
            *aside = Some(other);
            io::ErrorKind::Other.into()
        }
    })
}

fn tar(files: &Files, path: &Path, coding: layer::Coding) -> Result<u64> {
    let new = Unpublished::new(path)?;
    let encoder = Encoder::new(BufWriter::with_capacity(256 << 10, &new.file), coding);
    let mut encoder = encoder.map_err(write_error(path))?;
    files.write_tar(&mut encoder).map_err(|e| into_file(path, e))?;
    encoder.finish().and_then(|mut out| out.flush()).map_err(write_error(path))?;
    let size = new.file.metadata().map_err(write_error(path))?.len();
    new.publish(path)?;
    Ok(size)
}

fn folder(root: &Root, kind: Kind, path: &Path) -> Result<Written> {
    if path.symlink_metadata().is_ok() {
        return Err(Error::Exists(path.to_path_buf()));
    }
    let work = Workspace::beside(path)?;
    let new = inside(&work)?.join("root");
    if kind == Kind::Subvolume {
        sys::btrfs::create(&new)?;
        fill(root, &new)?;
    } else {
        unpack(root, &new)?;
    }
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    rustix::fs::renameat_with(rustix::fs::CWD, &new, rustix::fs::CWD, path, flags)
        .call(|| format!("renameat2({}, {})", new.display(), path.display()))?;
    Ok(Written { size: None, manifest: None })
}

/// A folder in `work` of its own: the workspace itself is locked, and who works in it locks its folder.
fn inside(work: &Workspace) -> Result<PathBuf> {
    let dir = work.path().join("d");
    fs::create_dir(&dir).map_err(write_error(&dir))?;
    Ok(dir)
}

fn unpack(root: &Root, dir: &Path) -> Result<()> {
    layer::unpack_owned(root.store, root.image, dir)?;
    Ok(())
}

/// Unpacks into the folder `dir`, which is there, and empty.
fn fill(root: &Root, dir: &Path) -> Result<()> {
    for (i, layer) in root.image.layers.iter().enumerate() {
        layer::apply_layer(root.store, layer, dir, i == 0, &layer::Options::default())?;
    }
    Ok(())
}

fn ext_options(kind: ext4::Kind, settings: &Settings) -> ext4::Options {
    ext4::Options {
        kind,
        size: settings.size,
        label: settings.label.clone(),
        uuid: uuid(&settings.seed, "filesystem"),
        hash_seed: uuid(&settings.seed, "names"),
        time: settings.time,
    }
}

fn ext(root: &Root, kind: Kind, path: &Path, settings: &Settings) -> Result<u64> {
    let kind = if kind == Kind::Ext2 { ext4::Kind::Ext2 } else { ext4::Kind::Ext4 };
    let options = ext_options(kind, settings);
    if !settings.mounted {
        return Ok(ext4::write(root.files, path, &options)?.size);
    }
    let layout = ext4::layout(root.files.tree(), &options)?;
    let options = ext4::Options { size: Size::Fixed(layout.size), ..options };
    let scratch = root.store.scratch()?;
    let made = ext4::write_through_loop(path, scratch.path(), &options, |dir| fill(root, dir))?;
    Ok(made.size)
}

fn erofs(root: &Root, path: &Path, settings: &Settings) -> Result<u64> {
    let options = erofs::Options {
        label: &settings.label,
        uuid: uuid(&settings.seed, "filesystem"),
        time: settings.time,
    };
    Ok(erofs::write(root.files, path, &options)?)
}

/// A disk whose root knows by its fstab where it lies.
fn disk(root: &Root, path: &Path, settings: &Settings) -> Result<u64> {
    let arch = Arch::named(&settings.arch).ok_or_else(|| Error::NoFirmware(settings.arch.clone()))?;
    let guid = |purpose| guid(&settings.seed, purpose);
    let ids = Ids { disk: guid("disk"), esp: guid("esp"), root: guid("root") };
    let files = Edited::new(root.files, b"etc/fstab", ids.fstab().into_bytes(), settings.time);
    let options = ext_options(ext4::Kind::Ext4, settings);
    let root_size = ext4::layout(files.tree(), &options)?.size;
    let boot = boot::Options { arch, ids, root_size };
    let report = boot::write(path, &files, &boot, &mut |file, at, size| {
        let options = ext4::Options { size: Size::Fixed(size), ..options.clone() };
        ext4::write_at(&files, file, path, at, &options).map(drop)
    })?;
    for warning in report.warnings {
        tracing::warn!("{}: {warning}", path.display());
    }
    Ok(report.size)
}

/// A UUID that is always the same for the same `seed` and `purpose` (RFC 9562, version 8).
fn uuid(seed: &Digest, purpose: &str) -> [u8; 16] {
    let digest = Digest::of(format!("{seed} {purpose}").as_bytes());
    let number = u128::from_str_radix(&digest.hex()[..32], 16).unwrap_or_default();
    let version = number & !(0xf << 76) | 8 << 76;
    (version & !(3 << 62) | 2 << 62).to_be_bytes()
}

/// The same, with a text.
fn guid(seed: &Digest, purpose: &str) -> Guid {
    Guid::new(u128::from_be_bytes(uuid(seed, purpose)))
}

/// The image with its files as one compressed layer, in the store.
fn packed(root: &Root, settings: &Settings) -> Result<Descriptor> {
    let mut failed = None;
    let (blob, diff_id) = layer::store_layer(root.lease, settings.coding, |out| {
        let written = root.files.write_tar(out).or_else(|e| stash(e, &mut failed));
        written.map_err(layer::Error::Output)
    })
    .map_err(|e| failed.unwrap_or_else(|| e.into()))?;
    let mut edit = root.store.edit(root.image)?;
    edit.clear_layers();
    edit.add_layer(&blob, &diff_id, &step(settings.time));
    Ok(root.lease.put_image(edit)?)
}

fn step(time: i64) -> Step {
    Step {
        created: rfc3339(u64::try_from(time).unwrap_or(0), 0),
        created_by: "shipimg mkimg".to_string(),
        ..Step::default()
    }
}

fn image(root: &Root, name: &Reference, settings: &Settings) -> Result<Written> {
    let descriptor = root.packed(settings)?;
    root.store.tag(name, &descriptor)?;
    Ok(Written { size: None, manifest: Some(descriptor.digest) })
}

/// Writes the image `descriptor` of `store` into an archive of a kind, at a path, under a name, made at
/// `time`.
///
/// # Errors
/// Any [`Error`]; what was in the archive's place is as it was.
pub fn archived(
    store: &Store,
    descriptor: &Descriptor,
    (kind, path, name): (archive::Kind, &Path, Option<&str>),
    time: i64,
) -> Result<()> {
    let scratch = store.scratch()?;
    let target = archive::Target::Path(path.to_path_buf());
    let writer = archive::Writer::create(kind, &target, scratch.path(), time, *store.limits())?;
    let entry = store::Entry::nameless(descriptor.clone());
    let names = name.map(str::to_string).into_iter().collect();
    let (from, to) = (transfer::FromStore::new(store, entry), transfer::ToArchive::new(&writer, names));
    transfer::copy(&from, &to, &transfer::Options::default(), store, &|_| ())?;
    Ok(writer.finish()?)
}

/// Puts `files` into the store as an image of one plain layer, which is held by `lease`.
///
/// # Errors
/// Any [`Error`].
pub fn keep(lease: &Lease, files: &Files, platform: &Platform, time: i64) -> Result<Descriptor> {
    let mut failed = None;
    let blob =
        lease.put_with(media_type::LAYER, |out| files.write_tar(out).or_else(|e| stash(e, &mut failed)));
    let blob = blob.map_err(|e| failed.unwrap_or_else(|| e.into()))?;
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "layers": []});
    let config = json!({
        "architecture": platform.architecture, "os": platform.os, "variant": platform.variant,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["bash"],
        },
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let mut edit = Edit::of(manifest.to_string().as_bytes(), config.to_string().as_bytes())?;
    edit.add_layer(&blob, &blob.digest, &step(time));
    Ok(lease.put_image(edit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids() {
        let text = guid(&Digest::of(b"x"), "ext4").to_string();
        assert_eq!((text.len(), &text[14..15]), (36, "8"));
        assert!(["8", "9", "a", "b"].contains(&&text[19..20]), "{text}");
        assert_ne!(uuid(&Digest::of(b"x"), "btrfs"), uuid(&Digest::of(b"x"), "ext4"));
        let same = u128::from_be_bytes([0x12; 16]);
        assert_eq!(Guid::new(same).to_string(), "12121212-1212-1212-1212-121212121212");
    }
}
