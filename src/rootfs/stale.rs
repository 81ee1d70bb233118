//! Unpacked layers that nobody needs any more.

use super::Result;
use super::area::PREFIXES;
use crate::oci::Image;
use crate::store::{Area, Store};
use crate::sys::workspace::Workspace;
use crate::sys::{self, Call, btrfs};
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Unpacked layers that can go.
#[derive(Debug, Default)]
pub struct Stale {
    area: PathBuf,
    /// Their folders.
    pub folders: Vec<PathBuf>,
}

/// The layers in the store's layers area that are none of `images`' and not among `lowers`,
/// which bundles have mounted.
///
/// # Errors
/// [`super::Error::Sys`].
pub fn stale(store: &Store, images: impl Iterator<Item = Image>, lowers: &[PathBuf]) -> Result<Stale> {
    let area = store.root().join("shipimg").join(Area::Layers.name());
    let unpacked = unpacked(&area)?;
    if unpacked.is_empty() {
        return Ok(Stale { area, folders: Vec::new() });
    }
    let mut used: HashSet<OsString> = HashSet::new();
    for layer in images.flat_map(|i| i.layers) {
        let (chain, diff) = (layer.chain_id.hex(), layer.diff_id.hex());
        for prefix in PREFIXES {
            let names = [format!("chain-{chain}"), format!("btrfs-{chain}"), format!("diff-{diff}")];
            used.extend(names.map(|name| (prefix.to_string() + &name).into()));
        }
    }
    let mounted = |folder: &Path| lowers.iter().any(|l| l.starts_with(folder));
    let is_used = |folder: &PathBuf| folder.file_name().is_some_and(|n| used.contains(n)) || mounted(folder);
    Ok(Stale { area, folders: unpacked.into_iter().filter(|f| !is_used(f)).collect() })
}

impl Stale {
    /// Takes the layers out of use at once; dropping the result, which takes its time, deletes
    /// them. To be called while nobody can begin to use them, dropped when that is over.
    ///
    /// # Errors
    /// [`super::Error::Sys`].
    pub fn retire(self) -> Result<Option<Workspace>> {
        if self.folders.is_empty() {
            return Ok(None);
        }
        let grave = Workspace::beside(&self.area.join("x"))?;
        for (i, folder) in self.folders.iter().enumerate() {
            if btrfs::is_subvolume(folder)? {
                // Read-only, it cannot be moved; the kernel deletes it later anyway.
                btrfs::delete(folder)?;
                continue;
            }
            let to = grave.path().join(i.to_string());
            std::fs::rename(folder, &to)
                .call(|| format!("rename({}, {})", folder.display(), to.display()))?;
        }
        Ok(Some(grave))
    }
}

fn unpacked(area: &Path) -> sys::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(area) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.call(|| format!("opendir({})", area.display()))?,
    };
    let is_layer = |name: &str| {
        let bare = PREFIXES.iter().filter_map(|p| name.strip_prefix(p)).next_back().unwrap_or(name);
        ["chain-", "diff-", "btrfs-"].iter().any(|p| bare.starts_with(p))
    };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(is_layer))
        .map(|e| e.path())
        .collect();
    folders.sort();
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, Digest, Document, media_type};
    use serde_json::json;

    #[test]
    fn keeps_what_images_and_bundles_use() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let area = store.area(Area::Layers).unwrap();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chain = Digest::of(format!("{a} {b}").as_bytes());
        let layer = Descriptor::of(media_type::LAYER, b"l");
        let manifest = json!({"schemaVersion": 2, "config": Descriptor::of(media_type::CONFIG, b"c"),
            "layers": [layer, layer]});
        let Document::Manifest(manifest) = Document::parse(manifest.to_string().as_bytes(), "").unwrap()
        else {
            panic!()
        };
        let config = json!({"os": "linux", "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [a, b]}});
        let image = Image::new(Descriptor::of("m", b"m"), manifest, config.to_string().as_bytes()).unwrap();
        let names = [
            (format!("diff-{}", a.hex()), true),
            (format!("diff-{}", b.hex()), true),
            (format!("chain-{}", chain.hex()), true),
            (format!("chain-{}", b.hex()), false),
            ("diff-mounted".to_string(), true),
            ("diff-other".to_string(), false),
            ("empty".to_string(), true),
        ];
        for (name, _) in &names {
            std::fs::create_dir_all(area.join(name).join("fs/x")).unwrap();
        }
        let lowers = [area.join("diff-mounted/fs")];
        let stale = stale(&store, std::iter::once(image), &lowers).unwrap();
        assert_eq!(stale.folders.len(), 2);
        drop(stale.retire().unwrap());
        for (name, stays) in names {
            assert_eq!(area.join(&name).exists(), stays, "{name}");
        }
        assert_eq!(std::fs::read_dir(area).unwrap().count(), 5);
    }
}
