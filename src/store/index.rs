//! Names: `index.json`, read by anyone, replaced under the lock.

use super::{Error, Result, Store, blob, io_error};
use crate::oci::{Descriptor, Name, Reference, media_type};
use crate::sys::Call;
use rustix::fs::FlockOperation;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io;

/// The annotation that holds a name (image-spec, annotations.md).
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// One named image of the store.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name; none where another tool put it here without one, or with one that is no reference.
    pub reference: Option<Reference>,
    /// Its manifest or index.
    pub descriptor: Descriptor,
}

impl Store {
    /// All entries of `index.json`, in its order.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Layout`] where it is malformed.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let index = self.read_index()?;
        let malformed = |reason: String| Error::Layout { root: self.root().to_path_buf(), reason };
        let mut entries = Vec::new();
        for value in index["manifests"].as_array().into_iter().flatten() {
            let spec: oci_spec::image::Descriptor =
                serde_json::from_value(value.clone()).map_err(|e| malformed(format!("index.json: {e}")))?;
            let descriptor =
                Descriptor::try_from(&spec).map_err(|e| malformed(format!("index.json: {e}")))?;
            let reference = descriptor.annotations.get(REF_NAME).and_then(|n| n.parse().ok());
            entries.push(Entry { reference, descriptor });
        }
        Ok(entries)
    }

    /// The image that `name` means: by full reference, by digest, or by the end of its name.
    ///
    /// # Errors
    /// [`Error::NoImage`], [`Error::Ambiguous`], and those of [`Store::entries`].
    pub fn find(&self, name: &Name) -> Result<Entry> {
        let mut found: Vec<(_, Entry)> = Vec::new();
        for entry in self.entries()? {
            if let Some(how) = name.matches(entry.reference.as_ref(), &entry.descriptor.digest) {
                found.push((how, entry));
            }
        }
        found.sort_by_key(|(how, _)| *how);
        let best = found.first().map(|(how, _)| *how);
        found.retain(|(how, e)| Some(*how) == best && !e.descriptor.digest.hex().is_empty());
        let same = found.windows(2).all(|w| w[0].1.descriptor.digest == w[1].1.descriptor.digest);
        match found.into_iter().map(|(_, e)| e).collect::<Vec<_>>() {
            entries if entries.is_empty() => {
                Err(Error::NoImage { name: name.to_string(), root: self.root().to_path_buf() })
            }
            mut entries if same => Ok(entries.swap_remove(0)),
            entries => Err(Error::Ambiguous {
                name: name.to_string(),
                candidates: entries
                    .iter()
                    .map(|e| {
                        e.reference
                            .as_ref()
                            .map_or_else(|| e.descriptor.digest.to_string(), ToString::to_string)
                    })
                    .collect(),
            }),
        }
    }

    /// Gives `reference` to the manifest or index of `descriptor`, whose blobs are all in
    /// the store; an earlier holder of the name loses it. One syncfs comes first, so that
    /// a name never outlives its blobs in a crash.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Sys`].
    pub fn tag(&self, reference: &Reference, descriptor: &Descriptor) -> Result<()> {
        self.sync()?;
        let mut entry = descriptor.clone();
        entry.annotations = [(REF_NAME.to_string(), reference.to_string())].into();
        let entry = serde_json::to_value(&entry).map_err(io::Error::from);
        let path = self.root().join("index.json");
        let entry = io_error("write", &path, entry)?;
        self.update_index(|manifests| {
            manifests.retain(|m| !is_named(m, reference));
            manifests.push(entry);
        })
    }

    /// Brings to disk what was written to the store's filesystem.
    pub(super) fn sync(&self) -> Result<()> {
        let root = io_error("open", self.root(), File::open(self.root()))?;
        rustix::fs::syncfs(&root).call(|| format!("syncfs({})", self.root().display()))?;
        Ok(())
    }

    pub(super) fn update_index(&self, change: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        let lock_path = self.root().join("shipimg/lock");
        let lock = io_error("open", &lock_path, File::create(&lock_path))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .call(|| format!("flock({})", lock_path.display()))?;
        let mut index = self.read_index()?;
        if let Some(manifests) = index["manifests"].as_array_mut() {
            change(manifests);
        }
        let mut text = serde_json::to_string_pretty(&index).unwrap_or_default();
        text.push('\n');
        blob::write_atomic(&self.root().join("index.json"), text.as_bytes())
    }

    pub(super) fn read_index(&self) -> Result<Value> {
        let path = self.root().join("index.json");
        let malformed = |reason: &str| Error::Layout {
            root: self.root().to_path_buf(),
            reason: format!("index.json: {reason}"),
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": []}));
            }
            Err(e) => return io_error("read", &path, Err(e)),
        };
        let mut index: Value = serde_json::from_slice(&text).map_err(|e| malformed(&e.to_string()))?;
        if !index.is_object() {
            return Err(malformed("not an object"));
        }
        if index["manifests"].is_null() {
            index["manifests"] = json!([]);
        }
        if !index["manifests"].is_array() {
            return Err(malformed("manifests is no list"));
        }
        Ok(index)
    }
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
