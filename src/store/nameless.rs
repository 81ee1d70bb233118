//! Entries of `index.json` that have no name: documents that a repository holds by digest.
//!
//! A registry holds manifests that no tag leads to: signatures, images whose tag has moved on,
//! the members of an index that comes later. Such a one is an entry like any other, with the
//! annotation [`REPOSITORY`] in place of a name.

use super::index::entry_of;
use super::{Entry, Result, Store};
use crate::oci::{Descriptor, Digest, Reference};
use serde_json::Value;
use std::collections::BTreeSet;

/// The annotation that says which repository holds a nameless document: `localhost:5000/lab/app`.
const REPOSITORY: &str = "org.shipimg.repository";

impl Entry {
    /// Registry and repository that the entry belongs to, by its name or by its annotation.
    #[must_use]
    pub fn home(&self) -> Option<Reference> {
        self.reference.clone().or_else(|| self.keeper()?.parse().ok())
    }

    /// The repository that holds it without a name.
    fn keeper(&self) -> Option<&str> {
        let entry = self.shadow.as_ref().unwrap_or(&self.descriptor);
        entry.annotations.get(REPOSITORY).filter(|_| self.reference.is_none()).map(String::as_str)
    }

    fn is_kept(&self, repository: &str, digest: impl FnOnce(&Digest) -> bool) -> bool {
        self.keeper() == Some(repository) && digest(&self.descriptor.digest)
    }
}

impl Store {
    /// Holds the document of `descriptor`, which is in the store, by digest for `repository`
    /// (`registry/path`), without a name. As with names, one syncfs comes first.
    ///
    /// # Errors
    /// [`super::Error::Io`], [`super::Error::Sys`].
    pub fn keep(&self, repository: &str, descriptor: &Descriptor) -> Result<()> {
        let lease = self.lease()?;
        let entry = self.new_entry(&lease, (REPOSITORY, repository.to_string()), descriptor)?;
        self.sync()?;
        self.update_index(|manifests| {
            self.check_whole(descriptor)?;
            let same =
                |m: &Value| entry_of(m).is_some_and(|e| e.is_kept(repository, |d| *d == descriptor.digest));
            manifests.retain(|m| !same(m));
            manifests.push(entry);
            Ok(())
        })
    }

    /// Lets go of the nameless `documents` that `repository` holds; their blobs stay.
    ///
    /// # Errors
    /// [`super::Error::Io`], [`super::Error::Sys`].
    pub fn release(&self, repository: &str, documents: &BTreeSet<&Digest>) -> Result<()> {
        let gone = |m: &Value| entry_of(m).is_some_and(|e| e.is_kept(repository, |d| documents.contains(d)));
        if !self.read_index()?["manifests"].as_array().into_iter().flatten().any(gone) {
            return Ok(());
        }
        self.update_index(|manifests| {
            manifests.retain(|m| !gone(m));
            Ok(())
        })
    }

    /// Takes the name `reference` away while it leads to `digest`; the blobs stay.
    ///
    /// # Errors
    /// [`super::Error::Io`], [`super::Error::Sys`].
    pub fn untag_from(&self, reference: &Reference, digest: &Digest) -> Result<()> {
        let gone = |m: &Value| {
            entry_of(m)
                .is_some_and(|e| e.reference.as_ref() == Some(reference) && e.descriptor.digest == *digest)
        };
        self.update_index(|manifests| {
            manifests.retain(|m| !gone(m));
            Ok(())
        })
    }
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
        store.untag_from(&name, &Digest::of(b"other")).unwrap();
        assert_eq!(count(), 2);
        store.untag_from(&name, &d.digest).unwrap();
        assert_eq!(count(), 1);
        assert!(store.has(&d).unwrap());
    }
}
