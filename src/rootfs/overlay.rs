//! `overlay`: an overlay over shared layers, or over a directory.
//!
//! A layer is extracted once and serves all images that have it: by its diff id where it
//! stands alone, by its chain id where it depends on the layers below (hard links into
//! them, directories that it does not describe). Each becomes a lower directory; there can
//! be 500 of them, on kernels before 6.7 as many as a mount string holds. What a throw-away
//! bundle writes is not synced (`volatile`).
//!
//! A store may lie on an overlay itself, in a container without a volume. That holds neither upper
//! directories nor whiteouts: what is written goes into memory there (`Changes`), and a layer that hides
//! something of those below is extracted together with them, as one lower directory.

use super::area::{LayersLock, make_dir, mount_memory, prefix, remove_dirs, sync};
use super::{Access, Changes, Driver, DriverKind, Error, Result, Rootfs, Source};
use crate::layer::{self, Extracted, Options, copy_meta};
use crate::oci::{Image, Layer};
use crate::store::{Area, Store};
use crate::sys::dir::Dir;
use crate::sys::overlay::MAX_LOWERS;
use crate::sys::workspace::{Workspace, sweep};
use crate::sys::{self, Call, mount, userns};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

pub(super) struct Overlay;

impl Driver for Overlay {
    fn create(&self, store: &Store, source: &Source, bundle: &Path, rootfs: &mut Rootfs) -> Result<()> {
        let root_meta = match source {
            Source::Image(image) => {
                check_count(image.layers.len())?;
                let layers = lowers(store, image)?;
                let root =
                    layers.iter().find(|l| l.with_file_name("root").exists()).or(layers.first()).cloned();
                rootfs.lowers = visible(layers);
                root
            }
            Source::Directory(dir) => {
                let dir = dir.canonicalize().call(|| format!("realpath({})", dir.display()))?;
                rootfs.lowers = vec![dir];
                rootfs.lowers.first().cloned()
            }
            Source::File(_) => {
                return Err(Error::Source { driver: DriverKind::Overlay, source_kind: source.what() });
            }
        };
        for name in ["upper", "work", "rootfs"] {
            make_dir(&bundle.join(name))?;
        }
        mount(rootfs, root_meta.as_deref(), bundle)
    }

    fn mount(&self, rootfs: &Rootfs, bundle: &Path, access: Access) -> Result<()> {
        mount_again(rootfs, bundle, access)
    }

    fn remove(&self, bundle: &Path) -> Result<()> {
        remove_dirs(bundle, &["rootfs", "upper", "work"])
    }
}

/// Mounts the overlay of `bundle` where it is not mounted; the root of a fresh upper directory
/// takes owner, mode and the like from `root`.
pub(super) fn mount(rootfs: &Rootfs, root: Option<&Path>, bundle: &Path) -> Result<()> {
    let (upper, work, target) = (bundle.join("upper"), bundle.join("work"), bundle.join("rootfs"));
    if mount::is_mount_point(&target)? {
        return Ok(());
    }
    if let Some(root) = root {
        copy_meta(root, &upper)?;
    }
    let (lowers, volatile) = (&rootfs.lowers, rootfs.volatile);
    stack(sys::overlay::Overlay { lowers, upper: Some((&upper, &work)), volatile }, &target)
}

/// Mounts the overlay of `bundle` again where it is not mounted. Mounts in a user namespace go with
/// the command: another one may have it mounted and write to it, and what only reads takes the upper
/// directory for the topmost lower one.
pub(super) fn mount_again(rootfs: &Rootfs, bundle: &Path, access: Access) -> Result<()> {
    let (upper, target) = (bundle.join("upper"), bundle.join("rootfs"));
    if userns::ids().is_host() || mount::is_mount_point(&target)? {
        return mount(rootfs, None, bundle);
    }
    if access == Access::Read && rootfs.lowers.len() < MAX_LOWERS {
        let lowers: Vec<_> = std::iter::once(&upper).chain(&rootfs.lowers).cloned().collect();
        return stack(sys::overlay::Overlay { lowers: &lowers, upper: None, volatile: false }, &target);
    }
    // Nobody mounts it between the look and the mount.
    let folder = Dir::open(bundle)?;
    flock(&folder, FlockOperation::LockExclusive).call(|| format!("flock({})", bundle.display()))?;
    match sys::overlay::user_of(&upper)? {
        Some(process) => Err(Error::InUse { rootfs: target, process }),
        None => mount(rootfs, None, bundle),
    }
}

/// Mounts `overlay` at `target`; says so where this kernel takes fewer lowers.
fn stack(overlay: sys::overlay::Overlay, target: &Path) -> Result<()> {
    match overlay.mount(target) {
        Err(e) if e.errno() == Some(Errno::TOOBIG) => {
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            unsupported(format!(
                "{} layers need a kernel of 6.7 or later (fsconfig lowerdir+), this is {release}",
                overlay.lowers.len()
            ))
        }
        other => Ok(other?),
    }
}

/// Overlayfs stacks so many layers and no more.
fn check_count(layers: usize) -> Result<()> {
    if layers <= MAX_LOWERS {
        return Ok(());
    }
    unsupported(format!("an overlay takes {MAX_LOWERS} layers, the image has {layers}"))
}

fn unsupported<T>(reason: String) -> Result<T> {
    Err(Error::Unsupported { driver: DriverKind::Overlay, reason })
}

/// Whether an overlay over `count` layers in `folder` can be mounted that keeps what is written there, or in memory.
pub(super) fn try_mount(folder: &Path, count: usize, changes: Changes) -> Result<()> {
    let work = Workspace::beside(&folder.join("x"))?;
    // Names as long as those of layers: to old kernels that matters.
    let lowers: Vec<_> = (0..count).map(|i| work.path().join(format!("{i:064x}"))).collect();
    let bundle = work.path().join("bundle");
    lowers.iter().chain([&bundle]).try_for_each(|path| make_dir(path))?;
    if changes == Changes::Memory {
        mount_memory(&bundle)?;
    }
    ["upper", "work", "rootfs"].iter().try_for_each(|name| make_dir(&bundle.join(name)))?;
    let rootfs = Rootfs { lowers, ..Rootfs::new(DriverKind::Overlay) };
    mount(&rootfs, None, &bundle)?;
    Ok(mount::unmount_below(&bundle)?)
}

/// The lower directories of `image`, the topmost first; extracts what is not there yet.
fn lowers(store: &Store, image: &Image) -> Result<Vec<PathBuf>> {
    let area = store.area(Area::Layers)?;
    if image.layers.is_empty() {
        let empty = area.join(format!("{}empty", prefix()));
        let _lock = LayersLock::take(&area)?;
        if !empty.exists() {
            make_dir(&empty)?;
        }
        return Ok(vec![empty]);
    }
    let mut found = find(&area, &image.layers)?;
    if found.iter().any(Option::is_none) {
        let _lock = LayersLock::take(&area)?;
        // Another process may have extracted them while this one waited.
        found = find(&area, &image.layers)?;
        extract(store, &area, &image.layers, &mut found)?;
    }
    Ok(found.into_iter().flatten().rev().collect())
}

/// The layers, the topmost first, down to one whose root is opaque: overlayfs heeds that in every
/// directory but the roots of its lowers.
fn visible(mut layers: Vec<PathBuf>) -> Vec<PathBuf> {
    if let Some(at) = layers.iter().position(|l| l.with_file_name("opaque").exists()) {
        layers.truncate(at + 1);
    }
    layers
}

/// Where each layer lies, if it does. What killed processes have left goes, also where all are there.
fn find(area: &Path, layers: &[Layer]) -> Result<Vec<Option<PathBuf>>> {
    let names: HashSet<OsString> = sweep(area)?.list()?.into_iter().map(|(name, _)| name).collect();
    let prefix = prefix();
    let place = |layer: &Layer| {
        // By chain id first: that is the better fit, where there is one.
        [format!("{prefix}chain-{}", layer.chain_id.hex()), format!("{prefix}diff-{}", layer.diff_id.hex())]
            .into_iter()
            .find(|name| names.contains(OsStr::new(name)))
            .map(|name| area.join(name).join("fs"))
    };
    Ok(layers.iter().map(place).collect())
}

/// Extracts the layers that are missing in `found`, several at once, and publishes them in order.
fn extract(store: &Store, area: &Path, layers: &[Layer], found: &mut [Option<PathBuf>]) -> Result<()> {
    let work = &Workspace::beside(&area.join("x"))?;
    let hiding = sys::overlay::holds_whiteouts(work.path())?;
    let mut missing: Vec<usize> = (0..layers.len()).filter(|&i| found[i].is_none()).collect();
    missing.sort_by_key(|&i| std::cmp::Reverse(layers[i].descriptor.size));
    let workers = thread::available_parallelism().map_or(3, |n| n.get() + 1).min(missing.len());
    let next = AtomicUsize::new(0);
    let mut extracted = thread::scope(|scope| {
        let (done, results) = channel();
        for _ in 0..workers {
            let (done, missing, next) = (done.clone(), &missing, &next);
            scope.spawn(move || {
                while let Some(&i) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = extract_one(store, work.path(), (&layers[i], i), hiding);
                    if result.is_err() {
                        next.store(missing.len(), Ordering::Relaxed);
                    }
                    if done.send((i, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done);
        results.into_iter().map(|(i, result)| result.map(|e| (i, e))).collect::<Result<Vec<_>>>()
    })?;
    extracted.sort_by_key(|(i, _)| *i);
    sync(area)?;
    for (i, mut extracted) in extracted {
        let folder = work.path().join(i.to_string());
        let whole = extracted.hides() && !hiding;
        let depends = extracted.depends_on_place() || whole;
        if whole {
            sys::dir::remove(&folder.join("fs"))?;
            layer::unpack_chain(store, &layers[..=i], &folder.join("fs"), &Options::default())?;
        } else if depends && i > 0 {
            settle(&mut extracted, work.path(), &folder.join("fs"), &found[..i])?;
        }
        for (name, holds) in
            [("root", whole || extracted.describes_root()), ("opaque", whole || extracted.hides_all())]
        {
            let marker = folder.join(name);
            if holds {
                std::fs::write(&marker, "").call(|| format!("open({})", marker.display()))?;
            }
        }
        let layer = &layers[i];
        let name = if depends {
            sync(area)?;
            format!("chain-{}", layer.chain_id.hex())
        } else {
            format!("diff-{}", layer.diff_id.hex())
        };
        let target = area.join(prefix().to_string() + &name);
        std::fs::rename(&folder, &target)
            .call(|| format!("rename({}, {})", folder.display(), target.display()))?;
        found[i] = Some(target.join("fs"));
    }
    sync(area)
}

/// Extracts a layer and finishes it where it depends on no other; `hiding` tells whether what it hides can be written.
fn extract_one<'a>(
    store: &Store,
    work: &Path,
    (layer, i): (&'a Layer, usize),
    hiding: bool,
) -> Result<Extracted<'a>> {
    let folder = work.join(i.to_string());
    make_dir(&folder)?;
    let fs = folder.join("fs");
    make_dir(&fs)?;
    let mut extracted = layer::extract_layer(store, layer, &fs, i == 0, &Options::default())?;
    if i == 0 || !extracted.depends_on_place() && (hiding || !extracted.hides()) {
        extracted.settle(&fs, None)?;
    }
    Ok(extracted)
}

/// Settles a layer against the tree of those below it.
fn settle(extracted: &mut Extracted, work: &Path, fs: &Path, below: &[Option<PathBuf>]) -> Result<()> {
    let lowers = visible(below.iter().rev().flatten().cloned().collect());
    if let [only] = lowers.as_slice() {
        return Ok(extracted.settle(fs, Some(only))?);
    }
    let view = work.join("view");
    make_dir(&view)?;
    stack(sys::overlay::Overlay { lowers: &lowers, upper: None, volatile: false }, &view)?;
    let settled = extracted.settle(fs, Some(&view));
    mount::unmount(&view)?;
    std::fs::remove_dir(&view).call(|| format!("rmdir({})", view.display()))?;
    Ok(settled?)
}
