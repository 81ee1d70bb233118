//! What refers to an image goes along with it: reports, signatures, lists of packages.

use super::{FromStore, Options, Result, ToRegistry, copy};
use crate::oci::{Descriptor, Digest, Reference, media_type};
use crate::registry::Remote;
use crate::store::{Entry, Store};
use serde_json::json;
use std::collections::BTreeSet;

/// Pushes all of `store` that refers to `subject` into the repository of `to`; gives what that is. A registry
/// without the referrers API gets the list of them under the tag that stands in for it (distribution-spec,
/// "Pushing Manifests with Subject").
///
/// # Errors
/// Those of [`copy`] and of the registry.
pub fn push_referrers(
    store: &Store,
    subject: &Digest,
    to: &Reference,
    options: &Options,
) -> Result<Vec<Descriptor>> {
    let mut pushed: Vec<Descriptor> = Vec::new();
    let mut met = BTreeSet::new();
    for entry in store.entries()? {
        let digest = entry.descriptor.digest.clone();
        if store.subject(&digest)?.as_ref() != Some(subject) || !met.insert(digest.clone()) {
            continue;
        }
        let descriptor = told(&entry.descriptor, &store.document(&entry.descriptor)?);
        let sink = ToRegistry::connect(&to.at(&digest), &options.registry)?;
        copy(&FromStore::new(store, Entry { reference: None, ..entry }), &sink, options, store, &|_| ())?;
        pushed.push(descriptor);
    }
    if !pushed.is_empty() {
        list(subject, to, options, &pushed)?;
    }
    Ok(pushed)
}

/// How a list of referrers describes one: with its type and its annotations.
fn told(descriptor: &Descriptor, manifest: &[u8]) -> Descriptor {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
    let kind = manifest["artifactType"].as_str().or(manifest["config"]["mediaType"].as_str());
    Descriptor {
        artifact_type: kind.map(str::to_string),
        annotations: serde_json::from_value(manifest["annotations"].clone()).unwrap_or_default(),
        ..descriptor.plain()
    }
}

/// Sees that the registry lists `pushed` as referrers of `subject`.
fn list(subject: &Digest, to: &Reference, options: &Options, pushed: &[Descriptor]) -> Result<()> {
    let remote = Remote::connect(to, &options.registry)?;
    let mut listed = remote.referrers(subject, None)?;
    let missing = |d: &&Descriptor| listed.iter().all(|l| l.digest != d.digest);
    let new: Vec<Descriptor> = pushed.iter().filter(missing).cloned().collect();
    if new.is_empty() {
        return Ok(());
    }
    listed.extend(new);
    let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": listed});
    let bytes = index.to_string().into_bytes();
    let tag = subject.to_string().replacen(':', "-", 1);
    remote.put_document(&Descriptor::of(media_type::INDEX, &bytes), &bytes, &tag)?;
    Ok(())
}
