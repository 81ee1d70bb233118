//! Documents and layers that are not copied as they are: another compression, OCI in place
//! of Docker types. Blobs that are written anew lie in a store of their own in a scratch folder.

use super::select::{Blob, From, Selection};
use super::{Content, Error, Event, Result, Source, Watch, stored};
use crate::layer::{self, Coding, Decoder, Encoder};
use crate::oci::{Compression, Descriptor, Digest, Document, Manifest, media_type};
use crate::store::{Exceeded, Limits, Scratch, Store, Verified};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{self, Read};

/// Where rewritten blobs lie; made when the first one comes.
pub(super) struct Work<'a> {
    store: &'a Store,
    own: Option<(Store, Scratch)>,
}

impl<'a> Work<'a> {
    pub(super) const fn new(store: &'a Store) -> Self {
        Self { store, own: None }
    }

    /// A rewritten blob from byte `from` on.
    pub(super) fn open(&self, descriptor: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        stored::open_blob(self.own.as_ref().map_or(self.store, |(store, _)| store), descriptor, from)
    }

    const fn limits(&self) -> &Limits {
        self.store.limits()
    }

    fn make(&mut self) -> Result<&Store> {
        if self.own.is_none() {
            let scratch = self.store.scratch_aside()?;
            self.own = Some((Store::open(scratch.path())?.within(*self.limits()), scratch));
        }
        Ok(self.own.as_ref().map_or(self.store, |(store, _)| store))
    }
}

/// Changes the selection to what shall be written; does nothing where that is what there is.
pub(super) fn rewrite(
    selection: &mut Selection,
    source: &dyn Source,
    to_oci: bool,
    coding: Option<Coding>,
    work: &mut Work<'_>,
    watch: Watch<'_>,
) -> Result<()> {
    if !to_oci && coding.is_none() {
        return Ok(());
    }
    let mut new: HashMap<Digest, Descriptor> = HashMap::new();
    if let Some(coding) = coding {
        for blob in &mut selection.blobs {
            let old = blob.descriptor.clone();
            if old.layer_compression().is_ok_and(|c| c != coding.compression) {
                *blob = recompress(&old, source, coding, work, watch)?;
                new.insert(old.digest, blob.descriptor.clone());
            }
        }
    }
    for document in &mut selection.documents {
        let old = document.descriptor.digest.clone();
        if let Some(changed) = change(document, to_oci, coding, &new, &source.name())? {
            *document = changed;
            new.insert(old, document.descriptor.clone());
        }
    }
    Ok(())
}

fn recompress(
    layer: &Descriptor,
    source: &dyn Source,
    coding: Coding,
    work: &mut Work<'_>,
    watch: Watch<'_>,
) -> Result<Blob> {
    let name = source.name();
    let failed = |e: io::Error| match e.downcast::<Exceeded>() {
        Ok(source) => layer::Error::Limit { layer: (&layer.digest).into(), source }.into(),
        Err(e) => Error::of_io(&name, "compress a layer", e),
    };
    let from = layer.layer_compression().map_err(|source| Error::Document { name: name.clone(), source })?;
    let blob = Verified::new(source.blob(layer, 0, watch)?, layer);
    let limits = *work.limits();
    let tar = Decoder::new(blob, from, limits.zstd_window_log).map_err(failed)?;
    let mut tar = limits.guard(tar, layer.size);
    let written = work.make()?.put_with(coding.media_type(layer), |out| {
        let mut encoder = Encoder::new(out, coding)?;
        io::copy(&mut tar, &mut encoder)?;
        encoder.finish().map(drop)
    });
    let written = match written {
        Err(crate::store::Error::Io { source, .. }) => return Err(failed(source)),
        other => other?,
    };
    watch(Event::Done(layer));
    let annotations = layer.annotations.clone();
    Ok(Blob { descriptor: Descriptor { annotations, ..written }, from: From::Rewritten })
}

/// The document with OCI's types where those are wanted, and with the new descriptors of what it
/// names; none where nothing changes.
fn change(
    document: &Content,
    to_oci: bool,
    coding: Option<Coding>,
    new: &HashMap<Digest, Descriptor>,
    name: &str,
) -> Result<Option<Content>> {
    let malformed = |source| Error::Document { name: name.to_string(), source };
    let json = |source| malformed(crate::oci::Error::Json { what: "manifest", source });
    let media = document.descriptor.media_type.as_str();
    // Docker's schema 2 has no type for zstd layers that all of its readers know.
    let zstd = coding.is_some_and(|c| c.compression == Compression::Zstd);
    let docker = matches!(media, media_type::DOCKER_MANIFEST | media_type::DOCKER_LIST);
    let is_index = matches!(Document::parse(&document.bytes, media).map_err(malformed)?, Document::Index(_));
    let (mut value, target): (Value, &str) = if docker && (to_oci || zstd) {
        let bytes = Manifest::docker_to_oci(&document.bytes).map_err(malformed)?;
        let target = if is_index { media_type::INDEX } else { media_type::MANIFEST };
        (serde_json::from_slice(&bytes).map_err(json)?, target)
    } else {
        (serde_json::from_slice(&document.bytes).map_err(json)?, media)
    };
    let mut changed = target != media;
    let key = if is_index { "manifests" } else { "layers" };
    for item in value[key].as_array_mut().into_iter().flatten() {
        let digest = item["digest"].as_str().and_then(|d| d.parse::<Digest>().ok());
        if let Some(d) = digest.and_then(|d| new.get(&d)) {
            changed = true;
            item["digest"] = d.digest.to_string().into();
            item["size"] = d.size.into();
            let oci = target == media_type::MANIFEST;
            let like = if oci { media_type::oci_layer(&d.media_type) } else { &d.media_type };
            item["mediaType"] = like.into();
        }
    }
    if !changed {
        return Ok(None);
    }
    let bytes = serde_json::to_vec(&value).map_err(json)?;
    Ok(Some(Content { descriptor: Descriptor::of(target, &bytes), bytes }))
}
