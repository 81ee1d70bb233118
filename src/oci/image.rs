//! An image: manifest and configuration that agree with each other.

use super::{Algorithm, Descriptor, Digest, Error, Hasher, Health, Manifest, Platform, Result};
use oci_spec::image as spec;

/// The image configuration (OCI image-spec, config.md), as `oci-spec` reads it.
pub type ImageConfig = spec::ImageConfiguration;

/// One layer: its blob, and what its uncompressed tar and those below it hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Identity of this layer on top of those below it (image-spec, config.md, "Layer `ChainID`").
    pub chain_id: Digest,
}

/// An image whose manifest and configuration have been read and fit together.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest's own descriptor; its digest is the image's identity.
    pub descriptor: Descriptor,
    /// The configuration's descriptor.
    pub config_descriptor: Descriptor,
    /// The configuration.
    pub config: ImageConfig,
    /// Its health check, which `config` has no field for.
    pub health: Option<Health>,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// The chain id of all layers: the same for the same files, whenever they became an image and however
    /// that is compressed. The manifest's digest where there is no layer.
    #[must_use]
    pub fn chain_id(&self) -> &Digest {
        self.layers.last().map_or(&self.descriptor.digest, |layer| &layer.chain_id)
    }

    /// Puts manifest and configuration together.
    ///
    /// # Errors
    /// [`Error::NotImage`] where the manifest is an artifact's, [`Error::Json`] where `config` is none, [`Error::Document`] where it lists another
    /// number of diff ids than the manifest has layers.
    pub fn new(descriptor: Descriptor, manifest: Manifest, config: &[u8]) -> Result<Self> {
        let health = Health::of_config(config);
        if !manifest.is_image() {
            let layer = manifest.layers.iter().find(|l| l.layer_compression().is_err());
            let media_type = layer.unwrap_or(&manifest.config).media_type.chars().take(200).collect();
            return Err(Error::NotImage { media_type });
        }
        let config: ImageConfig =
            serde_json::from_slice(config).map_err(|source| Error::Json { what: "image config", source })?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers.len() {
            return Err(Error::Document {
                what: "image config",
                reason: format!("{} diff ids for {} layers", diff_ids.len(), manifest.layers.len()),
            });
        }
        let mut layers: Vec<Layer> = Vec::with_capacity(diff_ids.len());
        for (descriptor, diff_id) in manifest.layers.into_iter().zip(diff_ids) {
            let diff_id: Digest = diff_id.parse()?;
            let chain_id = chain_id(layers.last().map(|l| &l.chain_id), &diff_id);
            layers.push(Layer { descriptor, diff_id, chain_id });
        }
        Ok(Self { descriptor, config_descriptor: manifest.config, config, health, layers })
    }

    /// The platform that the configuration names.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.config.os().to_string(),
            architecture: self.config.architecture().to_string(),
            variant: self.config.variant().clone(),
        }
    }

    /// Bytes of all blobs: manifest, configuration and layers as compressed.
    #[must_use]
    pub fn size(&self) -> u64 {
        let layers = self.layers.iter().map(|l| l.descriptor.size);
        layers.fold(self.descriptor.size, u64::saturating_add).saturating_add(self.config_descriptor.size)
    }
}

fn chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    let Some(parent) = parent else { return diff_id.clone() };
    let mut h = Hasher::new(Algorithm::Sha256);
    h.update(format!("{parent} {diff_id}").as_bytes());
    h.finish()
}

#[cfg(test)]
mod tests {
    use super::super::{Document, media_type};
    use super::*;

    #[test]
    fn counts_and_chains() {
        let layer = serde_json::to_value(Descriptor::of(media_type::LAYER_GZIP, b"l")).unwrap();
        let config = serde_json::to_value(Descriptor::of(media_type::CONFIG, b"c")).unwrap();
        let json = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [layer, layer]});
        let Document::Manifest(manifest) = Document::parse(json.to_string().as_bytes(), "").unwrap() else {
            panic!()
        };
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let config = |ids: &[&Digest]| {
            serde_json::json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers",
                "diff_ids": ids.iter().map(ToString::to_string).collect::<Vec<_>>()}})
            .to_string()
        };
        let d = Descriptor::of(media_type::MANIFEST, b"m");
        let image = Image::new(d.clone(), manifest.clone(), config(&[&a, &b]).as_bytes()).unwrap();
        assert_eq!(image.layers[0].chain_id, a);
        assert_eq!(image.layers[1].chain_id, Digest::of(format!("{a} {b}").as_bytes()));
        let e = Image::new(d, manifest, config(&[&a]).as_bytes()).unwrap_err();
        assert_eq!(e.to_string(), "invalid image config: 1 diff ids for 2 layers");
    }
}
