//! Which part of an index is meant: all of it, or the image for one platform.

use super::Result;
use crate::oci::{self, Descriptor, Document, Platform};
use crate::store;

/// How many indexes may lie in one another.
const MAX_DEPTH: usize = 4;

/// What is done with each document, with its bytes, and each blob, without.
type Visit<'a> = &'a mut dyn FnMut(&Descriptor, Option<&[u8]>) -> Result<()>;

/// What holds documents.
pub trait Documents {
    /// A whole document, verified.
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>>;
    /// Whether it is there.
    fn has(&self, descriptor: &Descriptor) -> Result<bool>;
}

/// A document of a place, read.
pub fn parsed(place: &impl Documents, descriptor: &Descriptor) -> Result<(Vec<u8>, Document)> {
    let bytes = place.document(descriptor)?;
    let document = Document::parse(&bytes, &descriptor.media_type)
        .map_err(|source| store::Error::Document { digest: descriptor.digest.clone(), source })?;
    Ok((bytes, document))
}

/// What of `root` is meant: without a platform all, where all is there; the best image for the
/// platform, or this machine's, otherwise.
pub fn choose(place: &impl Documents, root: &Descriptor, platform: Option<&Platform>) -> Result<Descriptor> {
    let host = Platform::host();
    let mut at = root.clone();
    for _ in 0..MAX_DEPTH {
        let (_, Document::Index(mut index)) = parsed(place, &at)? else { return Ok(at) };
        let mut there = Vec::new();
        for child in &index.manifests {
            there.push(place.has(child)?);
        }
        if platform.is_none() && there.iter().all(|&t| t) {
            return Ok(at);
        }
        let mut kept = there.into_iter();
        index.manifests.retain(|_| kept.next().unwrap_or(false));
        let platform = platform.unwrap_or(&host);
        let no_platform =
            || store::Error::NoPlatform { digest: at.digest.clone(), platform: platform.clone() };
        at = index.best(platform).cloned().ok_or_else(no_platform)?;
    }
    let reason = format!("indexes more than {MAX_DEPTH} deep");
    let source = oci::Error::Document { what: "index", reason };
    Err(store::Error::Document { digest: root.digest.clone(), source }.into())
}

/// All that `root` consists of, in an order in which it can be copied: blobs before the
/// manifests that name them.
pub fn walk(place: &impl Documents, root: &Descriptor, each: Visit<'_>) -> Result<()> {
    walk_below(place, root, MAX_DEPTH, each)
}

fn walk_below(place: &impl Documents, at: &Descriptor, depth: usize, each: Visit<'_>) -> Result<()> {
    let (bytes, document) = parsed(place, at)?;
    match document {
        Document::Index(_) if depth == 0 => {
            let reason = format!("indexes more than {MAX_DEPTH} deep");
            let source = oci::Error::Document { what: "index", reason };
            return Err(store::Error::Document { digest: at.digest.clone(), source }.into());
        }
        Document::Index(index) => {
            for child in &index.manifests {
                walk_below(place, child, depth - 1, each)?;
            }
        }
        Document::Manifest(manifest) => {
            let config = &manifest.config;
            if manifest.is_image() {
                let text = place.document(config)?;
                oci::Image::new(at.clone(), manifest.clone(), &text)
                    .map_err(|source| store::Error::Document { digest: at.digest.clone(), source })?;
                each(config, Some(&text))?;
            } else {
                each(config, None)?;
            }
            for layer in &manifest.layers {
                each(layer, None)?;
            }
        }
    }
    each(at, Some(&bytes))
}
