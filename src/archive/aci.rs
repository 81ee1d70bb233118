//! appc ACI (appc specification, spec/aci.md): a tar of `manifest` and `rootfs/`, to an image of
//! one layer whose names have no `rootfs/` before them.

use super::members::Members;
use super::reader::{Found, Pieces, json, small};
use super::spool::{Section, copy, digest};
use super::{Error, Result, Settings, Source, io_error, made};
use crate::layer::{self, TarWriter};
use crate::oci::{Descriptor, Layer, Platform, media_type};
use crate::store::Limits;
use crate::tree::TreePath;
use std::io::{Seek, Write};
use std::path::Path;

/// An `ImageManifest`, as far as an image's configuration can say the same.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    ac_kind: String,
    name: String,
    #[serde(default)]
    labels: Vec<Pair>,
    #[serde(default)]
    annotations: Vec<Pair>,
    #[serde(default)]
    dependencies: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    path_whitelist: Vec<String>,
    app: Option<App>,
}

#[derive(serde::Deserialize)]
struct Pair {
    name: String,
    value: String,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct App {
    #[serde(default)]
    exec: Vec<String>,
    user: Option<String>,
    group: Option<String>,
    working_directory: Option<String>,
    #[serde(default)]
    environment: Vec<Pair>,
}

impl Manifest {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|l| l.name == name).map(|l| l.value.as_str())
    }

    fn settings(&self) -> Settings {
        let host = Platform::host();
        let architecture = match self.label("arch") {
            Some("aarch64") => "arm64",
            Some("i386") => "386",
            Some("armv6l" | "armv7l") => "arm",
            Some(other) => other,
            None => &host.architecture,
        };
        let variant = match self.label("arch") {
            Some("armv6l") => Some("v6".to_string()),
            Some("armv7l") => Some("v7".to_string()),
            None => host.variant.clone(),
            Some(_) => None,
        };
        let platform = Platform {
            os: self.label("os").unwrap_or("linux").to_string(),
            architecture: architecture.to_string(),
            variant,
        };
        let created = self.annotations.iter().find(|a| a.name == "created").map(|a| a.value.clone());
        let mut settings = Settings { platform: Some(platform), created, ..Settings::default() };
        let labels = self.labels.iter().filter(|l| !["os", "arch"].contains(&l.name.as_str()));
        settings.labels = labels.map(|l| format!("{}={}", l.name, l.value)).collect();
        if let Some(app) = &self.app {
            settings.entrypoint.clone_from(&app.exec);
            settings.workdir.clone_from(&app.working_directory);
            settings.env = app.environment.iter().map(|e| format!("{}={}", e.name, e.value)).collect();
            settings.user = match (&app.user, &app.group) {
                (Some(user), Some(group)) => Some(format!("{user}:{group}")),
                (user, _) => user.clone(),
            };
        }
        settings
    }

    /// Whether the file stays: a list, where there is one, says which do (and what leads to them).
    fn keeps(&self, path: &TreePath) -> bool {
        let listed = self.path_whitelist.iter().filter_map(|p| TreePath::parse_link(p.as_bytes()).ok());
        self.path_whitelist.is_empty() || listed.into_iter().any(|p| p.is_within(path))
    }
}

/// The image of the archive `tar`.
pub(super) fn read(
    source: &Source,
    members: &Members,
    tar: &Section,
    scratch: &Path,
    limits: Limits,
) -> Result<(Vec<Found>, Pieces)> {
    let text = small(source, members.get("manifest"), "manifest", limits.document)?;
    let manifest: Manifest = json(source, "manifest", &text)?;
    let unsupported = |what| Err(Error::Unsupported { archive: source.to_string(), what });
    if manifest.ac_kind != "ImageManifest" {
        return unsupported("its manifest is no ImageManifest of appc");
    }
    if !manifest.dependencies.is_empty() {
        return unsupported("an ACI with dependencies on other images");
    }
    let own = digest(source, &mut tar.clone())?;
    // A name for errors only: the archive itself, taken as a layer.
    let descriptor = Descriptor::new(media_type::LAYER, own.clone(), tar.len());
    let layer = Layer { descriptor, diff_id: own.clone(), chain_id: own };
    let below = |path: &TreePath| {
        let rest = path.as_bytes().strip_prefix(b"rootfs")?;
        let path = match rest.first() {
            None => TreePath::root(),
            Some(b'/') => TreePath::parse(&rest[1..]).ok()?,
            Some(_) => return None,
        };
        (path.is_root() || manifest.keeps(&path)).then_some(path)
    };
    let mut plain = io_error("create a file in", scratch, tempfile::tempfile_in(scratch))?;
    let mut out = TarWriter::new(std::io::BufWriter::new(&mut plain));
    layer::rewrite(tar.clone(), &layer, limits, &mut out, &below)?;
    let ended = out.finish().and_then(|mut w| w.flush());
    io_error("write in", scratch, ended)?;
    io_error("rewind in", scratch, plain.rewind())?;
    let plain = io_error("stat", scratch, Section::whole(plain))?;
    let diff_id = digest(source, &mut plain.clone())?;
    let packed = made::compressed(scratch, |out| {
        copy(&mut plain.clone(), out).map(drop).map_err(|e| Error::read(source, e))
    })?;
    let layer = Descriptor::new(media_type::LAYER_GZIP, digest(source, &mut packed.clone())?, packed.len());
    let name = match manifest.label("version") {
        Some(version) => format!("{}:{version}", manifest.name),
        None => format!("{}:latest", manifest.name),
    };
    Ok(manifest.settings().image(vec![name], layer, packed, &diff_id))
}
