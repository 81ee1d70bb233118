//! docker-archive, read: what `docker save` and `podman save` write.
//!
//! ```text
//! manifest.json        [{"Config": FILE, "RepoTags": [NAME…], "Layers": [FILE…]}…]
//! HEX.json             a configuration; or blobs/sha256/HEX
//! ID/layer.tar         a layer; or HEX.tar, or a link from the one to the other
//! ```
//! Layers are uncompressed by the format; those that some tools compress are recognised by
//! their first bytes. Formats: moby's image/spec/v1.2.md, containers/image's docker/archive.

use super::members::Members;
use super::reader::{Found, Piece, Pieces, json, small};
use super::spool::{Format, Section, digest};
use super::{Error, Result, Source};
use crate::oci::{Compression, Descriptor, Digest, Document, Image, media_type};
use crate::store::Limits;
use serde_json::json as value;
use std::collections::HashMap;

/// One image in `manifest.json`.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images of the archive and what they are made of.
pub(super) fn read(source: &Source, members: &Members, limits: Limits) -> Result<(Vec<Found>, Pieces)> {
    let list = small(source, members.get("manifest.json"), "manifest.json", limits.document)?;
    let items: Vec<Item> = json(source, "manifest.json", &list)?;
    let mut archive = Archive { source, members, limits, pieces: Pieces::new(), layers: HashMap::new() };
    let mut images: Vec<Found> = Vec::new();
    for item in items {
        let descriptor = archive.image(&item)?;
        let names = item.repo_tags.unwrap_or_default();
        match images.iter_mut().find(|i| i.descriptor.digest == descriptor.digest) {
            Some(same) => same.names.extend(names),
            None => images.push(Found { names, descriptor }),
        }
    }
    Ok((images, archive.pieces))
}

struct Archive<'a> {
    source: &'a Source,
    members: &'a Members,
    limits: Limits,
    pieces: Pieces,
    /// Compressed layers that have been looked through, by file: the blob, its diff id.
    layers: HashMap<String, (Descriptor, Digest)>,
}

impl Archive<'_> {
    /// Makes the manifest of one image.
    fn image(&mut self, item: &Item) -> Result<Descriptor> {
        let fail =
            |source| Error::Document { archive: self.source.to_string(), name: item.config.clone(), source };
        let config = small(self.source, self.members.get(&item.config), &item.config, self.limits.document)?;
        let config_descriptor = Descriptor::of(media_type::CONFIG, &config);
        self.check_name(&item.config, &config_descriptor.digest)?;
        let parsed: Outline = serde_json::from_slice(&config)
            .map_err(|source| fail(crate::oci::Error::Json { what: "image config", source }))?;
        let names = item.layers.as_deref().unwrap_or_default();
        let diff_ids = parsed.rootfs.diff_ids;
        if names.len() != diff_ids.len() {
            let reason = format!("{} diff ids for {} layers", diff_ids.len(), names.len());
            return Err(fail(crate::oci::Error::Document { what: "image config", reason }));
        }
        let layers = names.iter().zip(&diff_ids).map(|(name, diff_id)| self.layer(name, diff_id));
        let layers: Vec<Descriptor> = layers.collect::<Result<_>>()?;
        let manifest = value!({
            "schemaVersion": 2,
            "mediaType": media_type::MANIFEST,
            "config": config_descriptor,
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        let descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
        // The same checks as for an image that comes with a manifest.
        let fail =
            |source| Error::Document { archive: self.source.to_string(), name: item.config.clone(), source };
        if let Document::Manifest(parsed) = Document::parse(&manifest, media_type::MANIFEST).map_err(fail)? {
            Image::new(descriptor.clone(), parsed, &config).map_err(fail)?;
        }
        self.pieces.insert(config_descriptor.digest, Piece::Bytes(config));
        self.pieces.insert(descriptor.digest.clone(), Piece::Bytes(manifest));
        Ok(descriptor)
    }

    /// A configuration is called by its digest by all tools that are in use; then it has to be its own.
    fn check_name(&self, name: &str, got: &Digest) -> Result<()> {
        let stem = name.rsplit('/').next().unwrap_or(name);
        let stem = stem.strip_suffix(".json").unwrap_or(stem);
        match format!("sha256:{stem}").parse::<Digest>() {
            Ok(want) if want != *got => Err(Error::Digest {
                archive: self.source.to_string(),
                name: name.to_string(),
                want: Box::new(want),
                got: Box::new(got.clone()),
            }),
            _ => Ok(()),
        }
    }

    fn layer(&mut self, name: &str, diff_id: &Digest) -> Result<Descriptor> {
        let archive = || self.source.to_string();
        let section = self
            .members
            .get(name)
            .ok_or_else(|| Error::NoFile { archive: archive(), name: name.to_string() })?;
        let format = section.format().map_err(|e| Error::read(self.source, e))?;
        let media_type = match format {
            Format::Layer(Compression::None) => {
                let descriptor = Descriptor::new(media_type::LAYER, diff_id.clone(), section.len());
                self.pieces.insert(diff_id.clone(), Piece::Section(section));
                return Ok(descriptor);
            }
            Format::Layer(Compression::Gzip) => media_type::LAYER_GZIP,
            Format::Layer(Compression::Zstd) => media_type::LAYER_ZSTD,
            Format::Xz => {
                return Err(Error::Unsupported { archive: archive(), what: "a layer compressed by xz" });
            }
        };
        if !self.layers.contains_key(name) {
            let looked = self.look_through(&section, media_type)?;
            self.layers.insert(name.to_string(), looked);
        }
        let (descriptor, got) = &self.layers[name];
        if got != diff_id {
            let (want, got) = (Box::new(diff_id.clone()), Box::new(got.clone()));
            return Err(Error::Digest { archive: archive(), name: name.to_string(), want, got });
        }
        self.pieces.insert(descriptor.digest.clone(), Piece::Section(section));
        Ok(descriptor.clone())
    }

    /// The descriptor of a compressed layer and its diff id.
    fn look_through(&self, section: &Section, media_type: &str) -> Result<(Descriptor, Digest)> {
        let blob = digest(self.source, &mut section.clone())?;
        let mut tar = section.inflate(&self.limits).map_err(|e| Error::read(self.source, e))?;
        Ok((Descriptor::new(media_type, blob, section.len()), digest(self.source, &mut tar)?))
    }
}

/// What is read of a configuration before the layers are known.
#[derive(serde::Deserialize)]
struct Outline {
    rootfs: Rootfs,
}

#[derive(serde::Deserialize)]
struct Rootfs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}
