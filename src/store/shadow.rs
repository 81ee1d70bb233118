//! Docker documents, as they came, under names that other tools can read.
//!
//! skopeo, umoci and others find no Docker media type in the `index.json` of a layout. So an
//! entry of it names a *shadow*: the same image as an OCI document, a blob of its own, with
//! the annotation [`ORIGINAL`], `MEDIATYPE DIGEST SIZE` of the document that the registry has.
//! That one is what this store shows, pushes and runs.

use super::{Error, Lease, Result, Store};
use crate::oci::{self, Descriptor, Document, Manifest, media_type};
use serde_json::Value;

/// The annotation of a shadow.
pub(super) const ORIGINAL: &str = "org.shipimg.original";

impl Store {
    /// The OCI document that stands for the Docker document `original`, put into the store;
    /// none where `original` is no Docker document.
    pub(super) fn put_shadow(&self, lease: &Lease, original: &Descriptor) -> Result<Option<Descriptor>> {
        let named = |source| Error::Document { digest: original.digest.clone(), source };
        let bytes = match original.media_type.as_str() {
            media_type::DOCKER_MANIFEST => {
                let document = self.document(original)?;
                Manifest::docker_to_oci(&document).map_err(named)?
            }
            media_type::DOCKER_LIST => self.shadow_list(lease, original)?,
            _ => return Ok(None),
        };
        let kind = if original.is_index() { media_type::INDEX } else { media_type::MANIFEST };
        let shadow = lease.put(kind, &bytes)?;
        Ok(Some(Descriptor { platform: original.platform.clone(), ..shadow }))
    }

    /// The index that says what a manifest list says; of the manifests in it those that are
    /// there have a shadow in their place.
    fn shadow_list(&self, lease: &Lease, original: &Descriptor) -> Result<Vec<u8>> {
        let named = |source| Error::Document { digest: original.digest.clone(), source };
        let json = |source| named(oci::Error::Json { what: "index", source });
        let bytes = self.document(original)?;
        let Document::Index(index) = Document::parse(&bytes, &original.media_type).map_err(named)? else {
            return Err(named(oci::Error::MediaType(original.media_type.clone())));
        };
        let mut list: Value = serde_json::from_slice(&bytes).map_err(json)?;
        list["mediaType"] = media_type::INDEX.into();
        for (value, child) in list["manifests"].as_array_mut().into_iter().flatten().zip(&index.manifests) {
            // A list in a list would be no end of work, and is none that registries have.
            if child.media_type == media_type::DOCKER_MANIFEST
                && self.has(child)?
                && let Some(shadow) = self.put_shadow(lease, child)?
            {
                value["mediaType"] = shadow.media_type.into();
                value["digest"] = shadow.digest.to_string().into();
                value["size"] = shadow.size.into();
            }
        }
        serde_json::to_vec(&list).map_err(json)
    }
}

/// The text of the annotation for `original`.
pub(super) fn annotation(original: &Descriptor) -> String {
    format!("{} {} {}", original.media_type, original.digest, original.size)
}

/// The document that the annotation's `text` names.
pub(super) fn original(text: &str) -> Option<Descriptor> {
    let mut words = text.split(' ');
    let (media, digest, size) = (words.next()?, words.next()?, words.next()?);
    Some(Descriptor::new(media, digest.parse().ok()?, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotation_and_back() {
        let d = Descriptor::of(media_type::DOCKER_MANIFEST, b"{}");
        assert_eq!(original(&annotation(&d)).unwrap(), d);
        for bad in ["", "a", "a b", "a b c", "a sha256:../../x 3", &annotation(&d).replace(' ', "  ")] {
            assert!(original(bad).is_none(), "{bad}");
        }
    }
}
