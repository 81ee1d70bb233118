//! From entries to everything that they lead to.

use crate::oci::{Descriptor, Digest, Document, media_type};
use crate::store::{Entry, Error, Result, Store};
use std::collections::BTreeSet;

/// `roots` and, through indexes, all manifests that they lead to and that are in the store;
/// each once.
///
/// # Errors
/// Those of the store, where an index cannot be read.
pub fn documents(store: &Store, roots: impl IntoIterator<Item = Descriptor>) -> Result<Vec<Descriptor>> {
    let mut seen = BTreeSet::new();
    let mut found: Vec<Descriptor> = roots.into_iter().filter(|d| seen.insert(d.digest.clone())).collect();
    let mut at = 0;
    while let Some(descriptor) = found.get(at).cloned() {
        at += 1;
        if !descriptor.is_index() {
            continue;
        }
        let Document::Index(index) = read(store, &descriptor)? else { continue };
        for member in index.manifests {
            let is_document = media_type::DOCUMENTS.contains(&member.media_type.as_str());
            if is_document && !seen.contains(&member.digest) && store.has(&member)? {
                seen.insert(member.digest.clone());
                found.push(member);
            }
        }
    }
    Ok(found)
}

/// Every blob that `entries` need.
///
/// # Errors
/// Those of the store, where a document cannot be read: then nobody knows what it needs.
pub fn needed(store: &Store, entries: &[Entry]) -> Result<BTreeSet<Digest>> {
    let roots = entries.iter().flat_map(|e| std::iter::once(&e.descriptor).chain(&e.shadow)).cloned();
    let mut needed = BTreeSet::new();
    for descriptor in documents(store, roots)? {
        match read(store, &descriptor)? {
            Document::Manifest(m) => {
                needed.insert(m.config.digest);
                needed.extend(m.layers.into_iter().map(|l| l.digest));
            }
            Document::Index(i) => needed.extend(i.manifests.into_iter().map(|m| m.digest)),
        }
        needed.insert(descriptor.digest);
    }
    Ok(needed)
}

fn read(store: &Store, descriptor: &Descriptor) -> Result<Document> {
    let bytes = store.document(descriptor)?;
    Document::parse(&bytes, &descriptor.media_type)
        .map_err(|source| Error::Document { digest: descriptor.digest.clone(), source })
}
