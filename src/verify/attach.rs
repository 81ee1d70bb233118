//! A report as an artifact that refers to the image (image-spec 1.1, manifest.md, "subject").

use super::report::Report;
use super::writers::Format;
use super::{Error, Result};
use crate::oci::{Descriptor, Digest, Image, Reference, media_type};
use crate::store::Store;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The type of a report that refers to an image, and of its document.
pub const REPORT_TYPE: &str = "application/vnd.shipimg.verify.report.v1+json";
/// A blob that says nothing (image-spec, manifest.md, "Guidance for an Empty Descriptor").
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// Puts the report into the store as a referrer of `image`, held by the repository of `name`, in place
/// of an earlier one.
///
/// # Errors
/// [`Error::Store`].
pub fn attach(store: &Store, name: &Reference, image: &Image, report: &Report) -> Result<Descriptor> {
    let lease = store.lease()?;
    let config = lease.put(EMPTY_TYPE, b"{}")?;
    let document = lease.put(REPORT_TYPE, Format::Json.write(report).as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "artifactType": REPORT_TYPE,
        "config": config.plain(),
        "layers": [document.plain()],
        "subject": image.descriptor.plain(),
    });
    let mut descriptor = lease.put(media_type::MANIFEST, manifest.to_string().as_bytes())?;
    descriptor.artifact_type = Some(REPORT_TYPE.to_string());
    let repository = name.full_name();
    let earlier = earlier(store, name, &image.descriptor.digest, &descriptor.digest)?;
    store.keep(&repository, &descriptor)?;
    store.release(&repository, &earlier.iter().collect())?;
    Ok(descriptor)
}

/// Other reports on the image `subject` that the repository of `name` holds.
fn earlier(store: &Store, name: &Reference, subject: &Digest, new: &Digest) -> Result<BTreeSet<Digest>> {
    let ours =
        |home: &Reference| (home.registry(), home.repository()) == (name.registry(), name.repository());
    let mut found = BTreeSet::new();
    for entry in store.entries().map_err(Error::Store)? {
        let digest = &entry.descriptor.digest;
        let here = entry.reference.is_none() && entry.home().as_ref().is_some_and(ours) && digest != new;
        if here && store.subject(digest)?.as_ref() == Some(subject) {
            let text = store.document(&entry.descriptor)?;
            let manifest: Value = serde_json::from_slice(&text).unwrap_or_default();
            if manifest["artifactType"] == REPORT_TYPE {
                found.insert(digest.clone());
            }
        }
    }
    Ok(found)
}
