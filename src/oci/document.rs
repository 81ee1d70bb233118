//! Manifests and indexes, OCI and Docker schema 2 (OCI image-spec, manifest.md, image-index.md).

use super::{Descriptor, Error, Platform, Result, media_type};
use oci_spec::image as spec;

/// A parsed manifest or index; never both (CVE-2021-41190).
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one lives at a time, and is taken apart at once")]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several images, by platform.
    Index(Index),
}

/// An image manifest: a config and layers, lowest first.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What this is a referrer of.
    pub subject: Option<Descriptor>,
}

/// An index: manifests by platform.
#[derive(Debug, Clone)]
pub struct Index {
    /// The manifests, in order of preference.
    pub manifests: Vec<Descriptor>,
}

impl Document {
    /// Parses `bytes` that were served or described as `declared`, a media type (empty: unknown).
    ///
    /// # Errors
    /// [`Error::Json`] where it is not such a document, [`Error::Document`] where it is
    /// ambiguous, of schema 1 or contradicts `declared`, [`Error::MediaType`] where
    /// `declared` is no document's.
    pub fn parse(bytes: &[u8], declared: &str) -> Result<Self> {
        let fail = |reason: String| Error::Document { what: "manifest", reason };
        let json = |source| Error::Json { what: "manifest", source };
        let outline: Outline = serde_json::from_slice(bytes).map_err(json)?;
        if outline.schema_version == Some(1) {
            return Err(fail(
                "schema 1 manifests are not read, the registry's owner has to convert the image".into(),
            ));
        }
        let is_manifest = outline.config.is_some() || outline.layers.is_some();
        let is_index = outline.manifests.is_some();
        if is_manifest && is_index || outline.fs_layers.is_some() {
            return Err(fail("it is a manifest and an index at once".into()));
        }
        let inner = outline.media_type.as_deref().unwrap_or("");
        let declared = declared.split(';').next().unwrap_or("").trim();
        if !inner.is_empty() && media_type::DOCUMENTS.contains(&declared) && inner != declared {
            return Err(fail(format!("it says it is {inner}, but was declared as {declared}")));
        }
        let media = if inner.is_empty() { declared } else { inner };
        let wants_index = match media {
            media_type::INDEX | media_type::DOCKER_LIST => true,
            media_type::MANIFEST | media_type::DOCKER_MANIFEST => false,
            "" | "application/json" | "application/octet-stream" | "text/plain" => is_index,
            other => return Err(Error::MediaType(other.to_string())),
        };
        if wants_index != is_index || wants_index == is_manifest {
            return Err(fail(format!("its fields are not those of {media:?}")));
        }
        if wants_index {
            let index: spec::ImageIndex = serde_json::from_slice(bytes).map_err(json)?;
            let manifests = index.manifests().iter().map(Descriptor::try_from).collect::<Result<_>>()?;
            return Ok(Self::Index(Index { manifests }));
        }
        let m: spec::ImageManifest = serde_json::from_slice(bytes).map_err(json)?;
        Ok(Self::Manifest(Manifest {
            config: Descriptor::try_from(m.config())?,
            layers: m.layers().iter().map(Descriptor::try_from).collect::<Result<_>>()?,
            subject: m.subject().as_ref().map(Descriptor::try_from).transpose()?,
        }))
    }
}

impl Manifest {
    /// Whether it is of a container image: a configuration of one and tar layers. Anything else
    /// is an artifact (image-spec, manifest.md, "Guidelines for Artifact Usage").
    #[must_use]
    pub fn is_image(&self) -> bool {
        // Docker's earliest schema 2 manifests call their configuration octet-stream.
        let configs = [media_type::CONFIG, media_type::DOCKER_CONFIG, "application/octet-stream"];
        configs.contains(&self.config.media_type.as_str())
            && self.layers.iter().all(|l| l.layer_compression().is_ok())
    }

    /// The OCI document that says what the Docker schema 2 manifest or list `bytes` says: the same
    /// blobs under OCI's media types, which are compatible (image-spec, media-types.md,
    /// "Compatibility Matrix"). The manifests that a list names keep their types.
    ///
    /// # Errors
    /// [`Error::Json`] where `bytes` are no JSON.
    pub fn docker_to_oci(bytes: &[u8]) -> Result<Vec<u8>> {
        use media_type as m;
        let json = |source| Error::Json { what: "manifest", source };
        let mut document: serde_json::Value = serde_json::from_slice(bytes).map_err(json)?;
        if document["manifests"].is_array() {
            document["mediaType"] = m::INDEX.into();
            return serde_json::to_vec(&document).map_err(json);
        }
        document["mediaType"] = m::MANIFEST.into();
        document["config"]["mediaType"] = m::CONFIG.into();
        for layer in document["layers"].as_array_mut().into_iter().flatten() {
            let docker = layer["mediaType"].as_str().unwrap_or_default();
            layer["mediaType"] = m::oci_layer(docker).to_string().into();
        }
        serde_json::to_vec(&document).map_err(json)
    }
}

/// The fields that tell the documents apart.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Index {
    /// The manifest that serves best on `platform`.
    #[must_use]
    pub fn best(&self, platform: &Platform) -> Option<&Descriptor> {
        let mut best: Option<(u32, &Descriptor)> = None;
        for d in &self.manifests {
            let score = d.platform.as_ref().map_or(Some(1), |p| platform.fits(p).map(|s| s + 2));
            if let Some(score) = score
                && best.is_none_or(|(s, _)| score > s)
            {
                best = Some((score, d));
            }
        }
        best.map(|(_, d)| d)
    }
}

/// The type that a document was served as, without parameters, where that is a document's; else
/// the one that it gives itself. That the two agree is for [`Document`] to check.
#[must_use]
pub fn document_type(declared: &str, bytes: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let declared = declared.split(';').next().unwrap_or_default().trim();
    let known = |t: &&str| media_type::DOCUMENTS.contains(t);
    let says_nothing = ["", "application/json", "application/octet-stream", "text/plain"].contains(&declared);
    let fallback = match (says_nothing, json["manifests"].is_array()) {
        (false, _) => declared,
        (true, true) => media_type::INDEX,
        (true, false) => media_type::MANIFEST,
    };
    Some(declared).filter(known).or(json["mediaType"].as_str()).unwrap_or(fallback).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media: &str) -> serde_json::Value {
        serde_json::to_value(Descriptor::of(media, b"x")).unwrap()
    }

    #[test]
    fn refuses_ambiguous_documents() {
        let d = descriptor(media_type::CONFIG);
        let manifest = serde_json::json!({"schemaVersion": 2, "config": d, "layers": [d]});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [d]});
        let mut both = manifest.clone();
        both["manifests"] = serde_json::json!([d]);
        let schema1 = serde_json::json!({"schemaVersion": 1, "fsLayers": []});
        let parse = |v: &serde_json::Value, m: &str| Document::parse(v.to_string().as_bytes(), m);
        assert!(matches!(parse(&manifest, media_type::MANIFEST), Ok(Document::Manifest(_))));
        assert!(matches!(parse(&index, media_type::DOCKER_LIST), Ok(Document::Index(_))));
        assert!(matches!(parse(&index, ""), Ok(Document::Index(_))));
        for (document, declared, reason) in [
            (&both, media_type::MANIFEST, "at once"),
            (&both, media_type::INDEX, "at once"),
            (&schema1, "", "schema 1"),
            (&index, media_type::MANIFEST, "fields"),
            (&manifest, media_type::INDEX, "fields"),
            (&manifest, "text/html", "unsupported media type"),
        ] {
            let e = parse(document, declared).unwrap_err().to_string();
            assert!(e.contains(reason), "{declared}: {e}");
        }
    }
}
