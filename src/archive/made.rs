//! Images made of a tar of files: one layer, and a configuration from the caller.

use super::reader::{Found, Piece, Pieces};
use super::spool::{Format, Section, copy, digest};
use super::{Error, Result, Source, io_error};
use crate::layer::{Coding, Encoder};
use crate::oci::{Compression, Descriptor, Digest, Platform, media_type};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::path::Path;

/// The configuration of an image made of files (image-spec, config.md).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The program, before `cmd`.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the program.
    pub cmd: Vec<String>,
    /// Variables, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// User and group, as `USER[:GROUP]`.
    pub user: Option<String>,
    /// Labels, as `NAME=VALUE`.
    pub labels: Vec<String>,
    /// For which platform; this machine's by default.
    pub platform: Option<Platform>,
    /// The comment in the history.
    pub message: Option<String>,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
}

impl Settings {
    /// The configuration of an image with one layer.
    fn config(&self, diff_id: &Digest) -> Value {
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let mut config = Map::new();
        let mut put = |key: &str, value: Value| {
            let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            if !empty {
                config.insert(key.to_string(), value);
            }
        };
        put("User", json!(self.user));
        put("Env", json!(self.env));
        put("Entrypoint", json!(self.entrypoint));
        put("Cmd", json!(self.cmd));
        put("WorkingDir", json!(self.workdir));
        if !self.labels.is_empty() {
            let pairs = self.labels.iter().map(|l| l.split_once('=').unwrap_or((l, "")));
            put(
                "Labels",
                pairs.map(|(name, value)| (name.to_string(), json!(value))).collect::<Map<_, _>>().into(),
            );
        }
        let mut history = Map::new();
        let mut all = Map::new();
        if let Some(created) = &self.created {
            all.insert("created".into(), json!(created));
            history.insert("created".into(), json!(created));
        }
        history.insert("created_by".into(), json!("shipimg import"));
        if let Some(message) = &self.message {
            history.insert("comment".into(), json!(message));
        }
        all.insert("architecture".into(), json!(platform.architecture));
        all.insert("os".into(), json!(platform.os));
        if let Some(variant) = platform.variant {
            all.insert("variant".into(), json!(variant));
        }
        all.insert("config".into(), config.into());
        all.insert("rootfs".into(), json!({"type": "layers", "diff_ids": [diff_id]}));
        all.insert("history".into(), json!([history]));
        all.into()
    }

    /// The image of `layer`, whose tar has the digest `diff_id`.
    pub(super) fn image(
        &self,
        names: Vec<String>,
        layer: Descriptor,
        content: Section,
        diff_id: &Digest,
    ) -> (Vec<Found>, Pieces) {
        let config = self.config(diff_id).to_string().into_bytes();
        let config_descriptor = Descriptor::of(media_type::CONFIG, &config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::MANIFEST,
            "config": config_descriptor,
            "layers": [layer],
        });
        let manifest = manifest.to_string().into_bytes();
        let descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
        let pieces = [
            (layer.digest, Piece::Section(content)),
            (config_descriptor.digest, Piece::Bytes(config)),
            (descriptor.digest.clone(), Piece::Bytes(manifest)),
        ];
        (vec![Found { names, descriptor }], pieces.into_iter().collect())
    }
}

/// The image of one layer that is `raw` as it came, which inflates to `tar`; xz becomes gzip.
pub(super) fn rootfs(
    source: &Source,
    raw: Section,
    tar: &Section,
    scratch: &Path,
    settings: &Settings,
) -> Result<(Vec<Found>, Pieces)> {
    let diff_id = digest(source, &mut tar.clone())?;
    let (raw, media_type) = match raw.format().map_err(|e| Error::read(source, e))? {
        Format::Layer(Compression::None) => (raw, media_type::LAYER),
        Format::Layer(Compression::Gzip) => (raw, media_type::LAYER_GZIP),
        Format::Layer(Compression::Zstd) => (raw, media_type::LAYER_ZSTD),
        Format::Xz => {
            let packed = compressed(scratch, |out| {
                copy(&mut tar.clone(), out).map(drop).map_err(|e| Error::read(source, e))
            })?;
            (packed, media_type::LAYER_GZIP)
        }
    };
    let blob =
        if media_type == media_type::LAYER { diff_id.clone() } else { digest(source, &mut raw.clone())? };
    let layer = Descriptor::new(media_type, blob, raw.len());
    Ok(settings.image(Vec::new(), layer, raw, &diff_id))
}

/// A nameless file with what `write` writes, compressed by gzip.
pub(super) fn compressed(
    scratch: &Path,
    write: impl FnOnce(&mut Encoder<File>) -> Result<()>,
) -> Result<Section> {
    let file = io_error("create a file in", scratch, tempfile::tempfile_in(scratch))?;
    let coding = Coding { compression: Compression::Gzip, level: 6 };
    let mut out = io_error("compress in", scratch, Encoder::new(file, coding))?;
    write(&mut out)?;
    let file = io_error("compress in", scratch, out.finish())?;
    io_error("stat", scratch, Section::whole(file))
}
