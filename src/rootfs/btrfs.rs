//! `btrfs`: one read-only subvolume per layer chain, a snapshot per bundle.
//!
//! It works where the store's layers area lies on btrfs and the bundle on the same one. A
//! chain of layers is made from the longest part of it that is there.

use super::area::{LayersLock, prefix, sync};
use super::{Access, Driver, DriverKind, Error, Result, Rootfs, Source};
use crate::layer::{self, Options, copy_tree};
use crate::oci::{Image, Layer};
use crate::store::{Area, Store};
use crate::sys::workspace::{Workspace, sweep};
use crate::sys::{Call, btrfs, dir, mount};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

pub(super) struct Btrfs;

fn unsupported<T>(reason: String) -> Result<T> {
    Err(Error::Unsupported { driver: DriverKind::Btrfs, reason })
}

impl Driver for Btrfs {
    fn create(&self, store: &Store, source: &Source, bundle: &Path, _: &mut Rootfs) -> Result<()> {
        if !btrfs::is_btrfs(bundle)? {
            return unsupported(format!("{} is not on btrfs", bundle.display()));
        }
        let rootfs = bundle.join("rootfs");
        match source {
            Source::Image(image) if image.layers.is_empty() => {
                btrfs::create(&rootfs)?;
                let mode = rustix::fs::Mode::from_raw_mode(0o755);
                Ok(rustix::fs::chmod(&rootfs, mode).call(|| format!("chmod({})", rootfs.display()))?)
            }
            Source::Image(image) => {
                let layers = store.area(Area::Layers)?;
                if !btrfs::is_btrfs(&layers)? {
                    return unsupported(format!("the store's {} is not on btrfs", layers.display()));
                }
                snapshot(&chain(store, &layers, image)?, &rootfs)
            }
            Source::Directory(dir) if btrfs::is_subvolume(dir)? => snapshot(dir, &rootfs),
            Source::Directory(dir) => {
                btrfs::create(&rootfs)?;
                Ok(copy_tree(dir, &rootfs)?)
            }
            Source::File(_) => Err(Error::Source { driver: DriverKind::Btrfs, source_kind: source.what() }),
        }
    }

    fn mount(&self, _: &Rootfs, _: &Path, _: Access) -> Result<()> {
        Ok(())
    }

    fn remove(&self, bundle: &Path) -> Result<()> {
        let rootfs = bundle.join("rootfs");
        mount::unmount_below(&rootfs)?;
        if btrfs::is_subvolume(&rootfs)? {
            return Ok(btrfs::delete(&rootfs)?);
        }
        Ok(dir::remove(&rootfs)?)
    }
}

fn snapshot(source: &Path, target: &Path) -> Result<()> {
    match btrfs::snapshot(source, target) {
        Err(e) if e.errno() == Some(Errno::XDEV) => {
            unsupported(format!("{} and {} are on two filesystems", source.display(), target.display()))
        }
        other => Ok(other?),
    }
}

fn subvolume(area: &Path, layer: &Layer) -> PathBuf {
    area.join(format!("{}btrfs-{}", prefix(), layer.chain_id.hex()))
}

/// The subvolume with the files of `image` in `store`, for the ids of this process; none where
/// this driver has not unpacked the image or the layers were pruned. A lease on the image keeps it.
///
/// # Errors
/// [`Error::Sys`].
pub fn parent(store: &Store, image: &Image) -> Result<Option<PathBuf>> {
    let area = store.root().join("shipimg").join(Area::Layers.name());
    let Some(path) = image.layers.last().map(|top| subvolume(&area, top)) else { return Ok(None) };
    Ok(btrfs::is_subvolume(&path)?.then_some(path))
}

/// The subvolume with all layers of `image`; makes what is missing.
fn chain(store: &Store, area: &Path, image: &Image) -> Result<PathBuf> {
    let top = image.layers.last().map(|l| subvolume(area, l)).unwrap_or_default();
    let _lock = LayersLock::take(area)?;
    sweep(area)?;
    let present = image.layers.iter().rposition(|l| subvolume(area, l).exists()).map_or(0, |i| i + 1);
    let mut parent = present.checked_sub(1).map(|i| subvolume(area, &image.layers[i]));
    for layer in &image.layers[present..] {
        let work = Workspace::beside(&area.join("x"))?;
        let new = work.path().join("fs");
        match &parent {
            Some(parent) => btrfs::snapshot(parent, &new)?,
            None => btrfs::create(&new)?,
        }
        layer::apply_layer(store, layer, &new, parent.is_none(), &Options::default())?;
        sync(area)?;
        let target = subvolume(area, layer);
        std::fs::rename(&new, &target).call(|| format!("rename({}, {})", new.display(), target.display()))?;
        parent = Some(target);
    }
    for layer in &image.layers {
        // Last, for a read-only subvolume is hard to throw away; a killed process may have left it.
        let path = subvolume(area, layer);
        if path.exists() {
            btrfs::set_read_only(&path)?;
        }
    }
    Ok(top)
}
