//! Entries of `index.json` that have no name: documents that a repository holds by digest.
//!
//! A registry holds manifests that no tag leads to: signatures, images whose tag has moved on,
//! the members of an index that comes later. Such a one is an entry like any other, with the
//! annotation [`REPOSITORY`] in place of a name.

use super::index::REF_NAME;
use super::{Entry, Result, Store, io_error};
use crate::oci::{Descriptor, Digest, Reference};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io;

/// The annotation that says which repository holds a nameless document: `localhost:5000/lab/app`.
pub const REPOSITORY: &str = "dev.shipimg.repository";

impl Entry {
    /// Registry and repository that the entry belongs to, by its name or by [`REPOSITORY`].
    #[must_use]
    pub fn home(&self) -> Option<Reference> {
        let annotation = || self.descriptor.annotations.get(REPOSITORY)?.parse().ok();
        self.reference.clone().or_else(annotation)
    }
}

impl Store {
    /// Holds the document of `descriptor`, which is in the store, by digest for `repository`
    /// (`registry/path`), without a name. As with names, one syncfs comes first.
    ///
    /// # Errors
    /// [`super::Error::Io`], [`super::Error::Sys`].
    pub fn keep(&self, repository: &str, descriptor: &Descriptor) -> Result<()> {
        self.sync()?;
        let mut entry = descriptor.clone();
        entry.annotations = [(REPOSITORY.to_string(), repository.to_string())].into();
        let path = self.root().join("index.json");
        let entry = io_error("write", &path, serde_json::to_value(&entry).map_err(io::Error::from))?;
        self.update_index(|manifests| {
            manifests.retain(|m| !is_kept(m, repository) || m["digest"] != entry["digest"]);
            manifests.push(entry);
        })
    }

    /// Lets go of the nameless `documents` that `repository` holds; their blobs stay.
    ///
    /// # Errors
    /// [`super::Error::Io`], [`super::Error::Sys`].
    pub fn release(&self, repository: &str, documents: &BTreeSet<&Digest>) -> Result<()> {
        let documents: BTreeSet<String> = documents.iter().map(ToString::to_string).collect();
        let gone =
            |m: &Value| is_kept(m, repository) && m["digest"].as_str().is_some_and(|d| documents.contains(d));
        if !self.read_index()?["manifests"].as_array().into_iter().flatten().any(gone) {
            return Ok(());
        }
        self.update_index(|manifests| manifests.retain(|m| !gone(m)))
    }

    /// Takes the name `reference` away while it leads to `digest`; the blobs stay.
    ///
    /// # Errors
    /// [`super::Error::Io`], [`super::Error::Sys`].
    pub fn forget(&self, reference: &Reference, digest: &Digest) -> Result<()> {
        let digest = digest.to_string();
        self.update_index(|manifests| {
            manifests.retain(|m| {
                let name = m["annotations"][REF_NAME].as_str().and_then(|n| n.parse::<Reference>().ok());
                name.as_ref() != Some(reference) || m["digest"].as_str() != Some(&digest)
            });
        })
    }
}

fn is_kept(entry: &Value, repository: &str) -> bool {
    let annotations = &entry["annotations"];
    annotations[REF_NAME].is_null() && annotations[REPOSITORY].as_str() == Some(repository)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type;

    #[test]
    fn kept_and_released() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let d = store.put(media_type::MANIFEST, b"{}").unwrap();
        let count = || store.entries().unwrap().len();
        for _ in 0..2 {
            store.keep("localhost:5000/a", &d).unwrap();
        }
        store.keep("localhost:5000/b", &d).unwrap();
        let name = "localhost:5000/a:1".parse().unwrap();
        store.tag(&name, &d).unwrap();
        assert_eq!(count(), 3);
        let home = store.entries().unwrap()[0].home().unwrap();
        assert_eq!((home.registry(), home.repository()), ("localhost:5000", "a"));
        store.release("localhost:5000/a", &[&d.digest].into()).unwrap();
        assert_eq!(count(), 2);
        store.forget(&name, &Digest::of(b"other")).unwrap();
        assert_eq!(count(), 2);
        store.forget(&name, &d.digest).unwrap();
        assert_eq!(count(), 1);
        assert!(store.has(&d).unwrap());
    }
}
