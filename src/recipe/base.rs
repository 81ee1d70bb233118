//! A Debian root as an image of the store, kept by all that it depends on.

use super::Result;
use crate::debian::{self, Lock, Progress, Request};
use crate::layer;
use crate::oci::{Image, Platform};
use crate::output::{self, Files};
use crate::store::{Lease, Scratch, Store};
use crate::sys::mount::Mount;
use crate::sys::sandbox::{private_mounts, static_nodes};
use crate::tree::{Kind, Meta, Node, Time, TreePath};
use std::path::Path;

/// A root.
#[derive(Debug)]
pub struct System {
    /// As an image of one plain layer.
    pub image: Image,
    /// Its files.
    pub files: Files,
    /// Where they lie, if not in the layer.
    _place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    _memory: Option<Mount>,
    _scratch: Scratch,
}

impl System {
    /// The root of `lock`, from the store where it is kept, else made. With `anew` it is made in
    /// any case.
    ///
    /// # Errors
    /// Those of [`debian::bootstrap`], of the store and of writing the image.
    pub fn debian(
        request: &Request,
        lock: &Lock,
        anew: bool,
        store: &Store,
        lease: &Lease,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let key = request.key(lock)?;
        if !anew
            && let Some(key) = &key
            && let Some(image) = store.result(key, lease)?
            && let Some(files) = Files::of_image(store, &image)?
        {
            return Ok(Self { image, files, _place: None });
        }
        // Mounts made from here on are seen by no other process and end with this one.
        private_mounts()?;
        let scratch = store.scratch()?;
        let root = scratch.path().join("root");
        std::fs::create_dir(&root).map_err(|e| debian::Error::io("create", &root, e))?;
        let mut memory = None;
        debian::bootstrap(request, lock, store, &root, progress, &mut |size| {
            memory = in_memory(&root, size)?;
            Ok(())
        })?;
        progress.phase("keep", None);
        let time = request.time(lock);
        let mut files = Files::of_folder(&root, None)?;
        files.add(devices(time).filter(|_| request.variant != debian::Variant::Custom));
        let platform = platform(&request.arch);
        let manifest = output::keep(lease, &files, &platform, time)?;
        if let Some(key) = &key {
            store.keep_result(key, &manifest.digest)?;
        }
        let image = store.image(&manifest, &platform)?;
        Ok(Self { image, files, _place: Some(Place { _memory: memory, _scratch: scratch }) })
    }
}

impl System {
    /// An image of the store. One that is more than a plain layer is unpacked for it.
    ///
    /// # Errors
    /// Those of reading and of unpacking it.
    pub fn image(store: &Store, image: Image) -> Result<Self> {
        if let Some(files) = Files::of_image(store, &image)? {
            return Ok(Self { image, files, _place: None });
        }
        let scratch = store.scratch()?;
        let root = scratch.path().join("root");
        let owners = layer::unpack_owned(store, &image, &root)?;
        let files = Files::of_folder(&root, Some(&owners))?;
        Ok(Self { image, files, _place: Some(Place { _memory: None, _scratch: scratch }) })
    }
}

/// Device nodes of a static /dev, which only root can make.
fn devices(time: i64) -> impl Iterator<Item = (TreePath, Node)> {
    static_nodes().filter_map(move |(name, major, minor)| {
        let path = [b"dev/", name.to_bytes()].concat();
        let meta = Meta { mode: 0o666, mtime: Time { seconds: time, nanos: 0 }, ..Meta::default() };
        let node =
            Node { kind: Kind::Char(major, minor), meta, size: 0, sha256: None, same: None, inode: None };
        Some((TreePath::parse(&path).ok()?, node))
    })
}

/// dpkg's name of an architecture as a platform of images.
fn platform(arch: &str) -> Platform {
    let (architecture, variant) = match arch {
        "i386" => ("386", None),
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v5")),
        "arm64" => ("arm64", Some("v8")),
        "ppc64el" => ("ppc64le", None),
        "mips64el" => ("mips64le", None),
        other => (other, None),
    };
    Platform {
        os: "linux".to_string(),
        architecture: architecture.to_string(),
        variant: variant.map(str::to_string),
    }
}

/// Mounts a tmpfs at `root` when the system will take less than a third of the free memory:
/// it is read once more, for the image, and then gone.
fn in_memory(root: &Path, expected: u64) -> debian::Result<Option<Mount>> {
    let free = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = free.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let available = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10;
    if expected > available / 3 {
        return Ok(None);
    }
    let options = format!("mode=755,size={}", available / 2);
    Ok(Some(Mount::new(Path::new("tmpfs"), root, "tmpfs", sys_mount::MountFlags::empty(), &options)?))
}
