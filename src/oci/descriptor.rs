//! Descriptors and media types (OCI image-spec, descriptor.md and media-types.md).

use super::{Digest, Error, Platform, Result};
use oci_spec::image as spec;
use std::collections::BTreeMap;

/// Media types that are written or compared by name.
pub mod media_type {
    /// OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, uncompressed tar.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker image manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, uncompressed tar.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, zstd.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// OCI's name for a type of Docker's layers; other types are their own.
    #[must_use]
    pub fn oci_layer(media_type: &str) -> &str {
        match media_type {
            DOCKER_LAYER => LAYER,
            DOCKER_LAYER_GZIP => LAYER_GZIP,
            DOCKER_LAYER_ZSTD => LAYER_ZSTD,
            other => other,
        }
    }

    /// What manifests of images and indexes may be, for an Accept header.
    pub const DOCUMENTS: [&str; 4] = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST];
}

/// How a layer's tar is compressed, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// A descriptor: what a blob is, how long and with which digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The media type, as written in the document.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes.
    pub size: u64,
    /// Where foreign layers lie; empty for all else.
    pub urls: Vec<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// In an index, the platform of the image.
    pub platform: Option<Platform>,
    /// The type of an artifact.
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A plain descriptor.
    #[must_use]
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
        }
    }

    /// Media type, digest and size alone: what an index or a layout says of the content beyond
    /// these is its own.
    #[must_use]
    pub fn plain(&self) -> Self {
        Self::new(&self.media_type, self.digest.clone(), self.size)
    }

    /// The descriptor of `bytes`.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// How the layer that this describes is compressed.
    ///
    /// # Errors
    /// [`Error::MediaType`] where it is not a tar layer.
    pub fn layer_compression(&self) -> Result<Compression> {
        use media_type as m;
        let oci = self.media_type.replace(".layer.nondistributable.", ".layer.");
        let docker = oci.replace(".rootfs.foreign.diff.", ".rootfs.diff.");
        match docker.as_str() {
            m::LAYER | m::DOCKER_LAYER => Ok(Compression::None),
            m::LAYER_GZIP | m::DOCKER_LAYER_GZIP => Ok(Compression::Gzip),
            m::LAYER_ZSTD | m::DOCKER_LAYER_ZSTD => Ok(Compression::Zstd),
            _ => Err(Error::MediaType(self.media_type.clone())),
        }
    }

    /// Whether this describes an index or manifest list.
    #[must_use]
    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), media_type::INDEX | media_type::DOCKER_LIST)
    }
}

impl TryFrom<&spec::Descriptor> for Descriptor {
    type Error = Error;

    fn try_from(d: &spec::Descriptor) -> Result<Self> {
        Ok(Self {
            media_type: d.media_type().to_string(),
            digest: d.digest().to_string().parse()?,
            size: d.size(),
            urls: d.urls().clone().unwrap_or_default(),
            annotations: d.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            platform: d.platform().as_ref().map(|p| Platform {
                os: p.os().to_string(),
                architecture: p.architecture().to_string(),
                variant: p.variant().clone(),
            }),
            artifact_type: d.artifact_type().as_ref().map(ToString::to_string),
        })
    }
}

impl serde::Serialize for Descriptor {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("mediaType", &self.media_type)?;
        map.serialize_entry("digest", &self.digest)?;
        map.serialize_entry("size", &self.size)?;
        if !self.urls.is_empty() {
            map.serialize_entry("urls", &self.urls)?;
        }
        if !self.annotations.is_empty() {
            map.serialize_entry("annotations", &self.annotations)?;
        }
        if let Some(p) = &self.platform {
            let mut platform = BTreeMap::from([("architecture", &p.architecture), ("os", &p.os)]);
            if let Some(v) = &p.variant {
                platform.insert("variant", v);
            }
            map.serialize_entry("platform", &platform)?;
        }
        if let Some(t) = &self.artifact_type {
            map.serialize_entry("artifactType", t)?;
        }
        map.end()
    }
}
