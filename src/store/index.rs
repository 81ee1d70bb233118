//! Names: `index.json`, read by anyone, replaced under the lock.

use super::{Error, Lease, Result, Store, blob, io_error, shadow};
use crate::oci::{Descriptor, Digest, Name, Platform, Reference, media_type};
use crate::sys::Call;
use rustix::fs::FlockOperation;
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The annotation that holds a name (image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation that holds when the name was given, in seconds since 1970.
const TAGGED: &str = "org.shipimg.tagged";

/// One image of the store, by one of its names.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name; none where another tool put it here without one, or with one that is no reference.
    pub reference: Option<Reference>,
    /// Its manifest or index, as it came from the registry.
    pub descriptor: Descriptor,
    /// What stands for it in `index.json`, where that is not the same (module `shadow`).
    pub shadow: Option<Descriptor>,
    /// When it got its name; none where another tool named it.
    pub tagged: Option<SystemTime>,
}

impl Entry {
    /// One of content that is there without a name.
    #[must_use]
    pub const fn nameless(descriptor: Descriptor) -> Self {
        Self { reference: None, descriptor, shadow: None, tagged: None }
    }

    /// Its digest, and that of what stands for it.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.descriptor).chain(&self.shadow).map(|d| &d.digest)
    }

    /// Its name, or its digest where it has none.
    #[must_use]
    pub fn name(&self) -> String {
        self.reference.as_ref().map_or_else(|| self.descriptor.digest.to_string(), ToString::to_string)
    }
}

/// What is read of `index.json`.
#[derive(Deserialize)]
struct Layout<'a> {
    #[serde(borrow, default)]
    manifests: Option<Vec<Item<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(borrow)]
    media_type: Cow<'a, str>,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<ItemPlatform>,
    #[serde(default)]
    artifact_type: Option<String>,
}

#[derive(Deserialize)]
struct ItemPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl From<Item<'_>> for Entry {
    fn from(item: Item<'_>) -> Self {
        let mut annotations = item.annotations.unwrap_or_default();
        let reference = annotations.remove(REF_NAME).and_then(|n| n.parse().ok());
        let original = annotations.remove(shadow::ORIGINAL).and_then(|text| shadow::original(&text));
        let seconds = annotations.remove(TAGGED).and_then(|t| t.parse().ok());
        let tagged = seconds.and_then(|s| UNIX_EPOCH.checked_add(Duration::from_secs(s)));
        let platform =
            item.platform.map(|p| Platform { os: p.os, architecture: p.architecture, variant: p.variant });
        let artifact_type = item.artifact_type;
        let named = Descriptor {
            annotations,
            platform,
            artifact_type,
            ..Descriptor::new(item.media_type, item.digest, item.size)
        };
        match original {
            None => Self { reference, descriptor: named, shadow: None, tagged },
            Some(original) => {
                let descriptor = Descriptor { platform: named.platform.clone(), ..original };
                Self { reference, descriptor, shadow: Some(named), tagged }
            }
        }
    }
}

impl Store {
    /// All entries of `index.json`, in its order.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Layout`] where it is malformed.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let Some(text) = self.index_text()? else { return Ok(Vec::new()) };
        let layout: Layout<'_> = serde_json::from_slice(&text).map_err(|e| self.malformed(&e.to_string()))?;
        Ok(layout.manifests.into_iter().flatten().map(Entry::from).collect())
    }

    /// The image that `name` means: by full reference, by digest, or by the end of its name.
    ///
    /// # Errors
    /// [`Error::NoImage`], [`Error::Ambiguous`], and those of [`Store::entries`].
    pub fn find(&self, name: &Name) -> Result<Entry> {
        self.find_in(&self.entries()?, name)
    }

    /// The same, among `entries`.
    pub(super) fn find_in(&self, entries: &[Entry], name: &Name) -> Result<Entry> {
        let how = |e: &Entry| e.digests().filter_map(|d| name.matches(e.reference.as_ref(), d)).min();
        let mut found: Vec<_> = entries.iter().filter_map(|e| Some((how(e)?, e))).collect();
        let best = found.iter().map(|(how, _)| *how).min();
        found.retain(|(how, _)| Some(*how) == best);
        let Some((_, first)) = found.first() else {
            return Err(Error::NoImage { name: name.to_string(), root: self.root().to_path_buf() });
        };
        if found.iter().all(|(_, e)| e.descriptor.digest == first.descriptor.digest) {
            return Ok((*first).clone());
        }
        let candidates = found.iter().map(|(_, e)| e.name()).collect();
        Err(Error::Ambiguous { name: name.to_string(), candidates })
    }

    /// Gives `reference` to the manifest or index of `descriptor`, whose blobs are all in
    /// the store; an earlier holder of the name loses it. One syncfs comes first, so that
    /// a name never outlives its blobs in a crash.
    ///
    /// # Errors
    /// [`Error::NoBlob`] where a blob of it is not there, [`Error::Io`], [`Error::Sys`].
    pub fn tag(&self, reference: &Reference, descriptor: &Descriptor) -> Result<()> {
        let lease = self.lease()?;
        let entry = self.new_entry(&lease, (REF_NAME, reference.to_string()), descriptor)?;
        self.sync()?;
        self.update_index(|manifests| {
            // Under the lock: nothing can be pruned any more.
            self.check_whole(descriptor)?;
            manifests.retain(|m| !is_named(m, reference));
            manifests.push(entry);
            Ok(())
        })
    }

    /// Takes names away; what only they led to stays until it is pruned.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Sys`].
    pub fn untag(&self, references: &[Reference]) -> Result<()> {
        self.update_index(|manifests| {
            manifests.retain(|m| !references.iter().any(|r| is_named(m, r)));
            Ok(())
        })
    }

    /// Brings to disk what was written to the store's filesystem.
    pub(super) fn sync(&self) -> Result<()> {
        let root = io_error("open", self.root(), File::open(self.root()))?;
        rustix::fs::syncfs(&root).call(|| format!("syncfs({})", self.root().display()))?;
        Ok(())
    }

    /// An entry of `index.json` with the annotation `key`, which says what it is here for.
    pub(super) fn new_entry(
        &self,
        lease: &Lease,
        key: (&str, String),
        descriptor: &Descriptor,
    ) -> Result<Value> {
        let shadow = self.put_shadow(lease, descriptor)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut annotations =
            BTreeMap::from([(key.0.to_string(), key.1), (TAGGED.to_string(), now.to_string())]);
        if shadow.is_some() {
            annotations.insert(shadow::ORIGINAL.to_string(), shadow::annotation(descriptor));
        }
        let entry = Descriptor { annotations, ..shadow.unwrap_or_else(|| descriptor.clone()) };
        let path = self.root().join("index.json");
        io_error("write", &path, serde_json::to_value(&entry).map_err(io::Error::from))
    }

    pub(super) fn update_index(&self, change: impl FnOnce(&mut Vec<Value>) -> Result<()>) -> Result<()> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        self.update_locked(change)
    }

    /// Removes `entries` from `index.json`, whose lock the caller holds.
    pub(super) fn drop_entries(&self, entries: &[Entry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let key = |e: &Entry| (e.reference.clone(), e.descriptor.digest.clone());
        let gone: HashSet<_> = entries.iter().map(key).collect();
        self.update_locked(|manifests| {
            manifests.retain(|m| !entry_of(m).is_some_and(|e| gone.contains(&key(&e))));
            Ok(())
        })
    }

    fn update_locked(&self, change: impl FnOnce(&mut Vec<Value>) -> Result<()>) -> Result<()> {
        let mut index = self.read_index()?;
        if let Some(manifests) = index["manifests"].as_array_mut() {
            change(manifests)?;
        }
        let mut text = serde_json::to_string_pretty(&index).unwrap_or_default();
        text.push('\n');
        blob::write_atomic(&self.root().join("index.json"), text.as_bytes())
    }

    fn malformed(&self, reason: &str) -> Error {
        Error::Layout { root: self.root().to_path_buf(), reason: format!("index.json: {reason}") }
    }

    fn index_text(&self) -> Result<Option<Vec<u8>>> {
        let path = self.root().join("index.json");
        match fs::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => io_error("read", &path, Err(e)),
        }
    }

    pub(super) fn read_index(&self) -> Result<Value> {
        let Some(text) = self.index_text()? else {
            return Ok(json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": []}));
        };
        let mut index: Value = serde_json::from_slice(&text).map_err(|e| self.malformed(&e.to_string()))?;
        if !index.is_object() {
            return Err(self.malformed("not an object"));
        }
        if index["manifests"].is_null() {
            index["manifests"] = json!([]);
        }
        if !index["manifests"].is_array() {
            return Err(self.malformed("manifests is no list"));
        }
        Ok(index)
    }
}

/// The entry that `value` is; none where it is malformed.
pub(super) fn entry_of(value: &Value) -> Option<Entry> {
    Item::deserialize(value).map(Entry::from).ok()
}

/// Whether the entry bears this name, however another tool may have written it.
fn is_named(entry: &Value, reference: &Reference) -> bool {
    let name = entry["annotations"][REF_NAME].as_str();
    name.and_then(|n| n.parse::<Reference>().ok()).is_some_and(|n| n == *reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_move_and_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(store.entries().unwrap().is_empty());
        let one = store.put(media_type::MANIFEST, b"{}").unwrap();
        let two = store.put(media_type::MANIFEST, b"{ }").unwrap();
        let tag = |name: &str, d: &Descriptor| store.tag(&name.parse().unwrap(), d).unwrap();
        let find = |name: &str| store.find(&name.parse().unwrap()).map(|e| e.descriptor.digest);
        tag("localhost:5000/debian:x", &one);
        assert_eq!(find("debian:x").unwrap(), one.digest);
        tag("localhost:5000/debian:x", &two);
        assert_eq!(store.entries().unwrap().len(), 1);
        assert_eq!(find("debian:x").unwrap(), two.digest);
        tag("localhost:6000/debian:x", &one);
        let e = find("debian:x").unwrap_err().to_string();
        assert!(e.contains("localhost:5000/debian:x") && e.contains("localhost:6000/debian:x"), "{e}");
        assert_eq!(find(&one.digest.to_string()).unwrap(), one.digest);
        assert!(matches!(find("alpine"), Err(Error::NoImage { .. })));
    }

    #[test]
    fn keeps_what_others_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let d = store.put(media_type::MANIFEST, b"{}").unwrap();
        let other = json!({"schemaVersion": 2, "x": 1, "manifests": [{
            "mediaType": media_type::MANIFEST, "digest": d.digest, "size": d.size,
            "annotations": {REF_NAME: "alpine:latest", "y": "z"}}]});
        fs::write(dir.path().join("index.json"), other.to_string()).unwrap();
        assert_eq!(store.find(&"alpine".parse().unwrap()).unwrap().descriptor.digest, d.digest);
        store.tag(&"b".parse().unwrap(), &d).unwrap();
        let index: Value = serde_json::from_slice(&fs::read(dir.path().join("index.json")).unwrap()).unwrap();
        assert_eq!((&index["x"], &index["manifests"][0]["annotations"]["y"]), (&json!(1), &json!("z")));
    }
}
