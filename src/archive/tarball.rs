//! Tars of images, written: oci-archive and docker-archive.
//!
//! Blobs go into the tar as they are put. A docker-archive's layers are inflated into a nameless
//! file first, since a tar's header says the size before the content; its documents are kept
//! until the end, where `manifest.json` and, for tools older than that, `repositories` tell
//! which files an image is made of.

use super::folder::with_images;
use super::writer::{Output, Target, copy};
use super::{Error, Kind, Result, io_error};
use crate::layer::{self, Decoder, TarWriter};
use crate::oci::{Descriptor, Digest, Document, Image, Reference, media_type};
use crate::store::{Hashed, Limits};
use crate::tree::{self, Meta, Time, TreePath};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A tar being written.
#[derive(Debug)]
pub(super) struct Tarball {
    kind: Kind,
    target: Target,
    scratch: PathBuf,
    time: i64,
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    out: TarWriter<Output>,
    /// Names of members.
    members: HashSet<String>,
    /// Manifests and configurations that wait for the end.
    documents: HashMap<Digest, Vec<u8>>,
    /// Diff ids of the layers that are there, by blob.
    layers: HashMap<Digest, Digest>,
    images: Vec<(Descriptor, Vec<String>)>,
    /// Whether a member could not be written: the tar is lost.
    broken: bool,
}

impl Tarball {
    /// Whether an OCI image layout is written.
    pub(super) fn is_layout(&self) -> bool {
        self.kind == Kind::OciArchive
    }

    pub(super) fn create(
        kind: Kind,
        target: &Target,
        scratch: &Path,
        time: i64,
        limits: Limits,
    ) -> Result<Self> {
        let state = State {
            out: TarWriter::new(Output::create(target)?),
            members: HashSet::new(),
            documents: HashMap::new(),
            layers: HashMap::new(),
            images: Vec::new(),
            broken: false,
        };
        let (target, scratch) = (target.clone(), scratch.to_path_buf());
        let tarball = Self { kind, target, scratch, time, limits, state: Mutex::new(state) };
        if kind == Kind::OciArchive {
            tarball.text("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        }
        Ok(tarball)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsupported<T>(&self, what: &'static str) -> Result<T> {
        Err(Error::Unsupported { archive: self.target.to_string(), what })
    }

    /// Writes one member, and the folders that lead to it.
    fn member(&self, name: &str, content: &mut dyn Read, size: u64) -> Result<()> {
        let state = &mut *self.state();
        if state.broken {
            return self.unsupported("an earlier part of it could not be written");
        }
        if state.members.contains(name) {
            return Ok(());
        }
        // Until the end of the member the tar is not one.
        state.broken = true;
        for (at, _) in name.match_indices('/') {
            if state.members.insert(name[..at].to_string()) {
                self.header(&mut state.out, &name[..at], &tree::Kind::Directory, 0o755, 0)?;
            }
        }
        self.header(&mut state.out, name, &tree::Kind::File, 0o644, size)?;
        copy(&self.target, content, &mut state.out)?;
        state.members.insert(name.to_string());
        state.broken = false;
        Ok(())
    }

    fn header(
        &self,
        out: &mut TarWriter<Output>,
        name: &str,
        kind: &tree::Kind,
        mode: u32,
        size: u64,
    ) -> Result<()> {
        let path = TreePath::parse(name.as_bytes()).map_err(|reason| Error::Name {
            archive: self.target.to_string(),
            name: name.to_string(),
            reason,
        })?;
        let meta = Meta { mode, mtime: Time { seconds: self.time, nanos: 0 }, ..Meta::default() };
        out.entry(&path, kind, &meta, size).map_err(|e| self.target.failed(e))
    }

    pub(super) fn has(&self, descriptor: &Descriptor) -> bool {
        let state = self.state();
        let digest = &descriptor.digest;
        state.members.contains(&blob_name(digest))
            || state.layers.contains_key(digest)
            || state.documents.contains_key(digest)
    }

    pub(super) fn put(&self, descriptor: &Descriptor, content: &mut dyn Read) -> Result<()> {
        if self.has(descriptor) {
            return Ok(());
        }
        if self.kind == Kind::OciArchive {
            return self.member(&blob_name(&descriptor.digest), content, descriptor.size);
        }
        match descriptor.layer_compression() {
            Ok(compression) => {
                let inflated = Decoder::new(content, compression, self.limits.zstd_window_log)
                    .map_err(|e| self.target.failed(e))?;
                let mut inflated = self.limits.guard(inflated, descriptor.size);
                self.layer(descriptor, &mut inflated).map_err(|e| match e {
                    // It is not the archive's fault.
                    Error::Limit { source, .. } => {
                        layer::Error::Limit { layer: (&descriptor.digest).into(), source }.into()
                    }
                    e => e,
                })
            }
            Err(_) if descriptor.size > self.limits.document => {
                self.unsupported("a docker-archive holds images, no other files")
            }
            Err(_) => {
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes).map_err(|e| self.target.failed(e))?;
                self.state().documents.insert(descriptor.digest.clone(), bytes);
                Ok(())
            }
        }
    }

    /// Writes a layer's tar, called by its diff id.
    fn layer(&self, descriptor: &Descriptor, tar: &mut dyn Read) -> Result<()> {
        let file = io_error("create a file in", &self.scratch, tempfile::tempfile_in(&self.scratch))?;
        let mut file = Hashed::new(file);
        copy(&self.target, tar, &mut file)?;
        let (mut file, diff_id, size) = file.finish();
        io_error("rewind in", &self.scratch, file.rewind())?;
        self.member(&format!("{}.tar", diff_id.hex()), &mut file, size)?;
        self.state().layers.insert(descriptor.digest.clone(), diff_id);
        Ok(())
    }

    pub(super) fn add(&self, root: &Descriptor, names: &[String]) -> Result<()> {
        if self.kind == Kind::DockerArchive && root.is_index() {
            return self.unsupported("a docker-archive holds no index: choose a platform");
        }
        self.state().images.push((root.clone(), names.to_vec()));
        Ok(())
    }

    pub(super) fn finish(self) -> Result<()> {
        if self.kind == Kind::OciArchive {
            let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": []});
            let index = with_images(index, &self.state().images);
            self.text("index.json", &index)?;
        } else {
            self.describe_images()?;
        }
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.out.finish().map_err(|e| self.target.failed(e))?.publish(&self.target)
    }

    fn text(&self, name: &str, value: &Value) -> Result<()> {
        let text = value.to_string().into_bytes();
        self.member(name, &mut &text[..], text.len() as u64)
    }

    /// Writes what makes images of the members of a docker-archive.
    fn describe_images(&self) -> Result<()> {
        let images = std::mem::take(&mut self.state().images);
        let mut list: Vec<Value> = Vec::new();
        let mut repositories: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for (root, names) in images {
            let (config, layers) = self.describe(&root)?;
            let top = layers.last().map_or("", |l| l.trim_end_matches(".tar")).to_string();
            let references = names.iter().filter_map(|n| n.parse::<Reference>().ok());
            for (reference, tag) in references.filter_map(|r| r.tag().map(str::to_string).map(|t| (r, t))) {
                repositories.entry(reference.full_name()).or_default().insert(tag, json!(top));
            }
            let tags = names.iter().map(|n| n.split('@').next().unwrap_or(n));
            let tags: Vec<&str> =
                tags.filter(|t| t.rsplit('/').next().is_some_and(|n| n.contains(':'))).collect();
            list.push(json!({"Config": config, "RepoTags": tags, "Layers": layers}));
        }
        self.text("manifest.json", &json!(list))?;
        self.text("repositories", &json!(repositories))
    }

    /// The names of the files of an image: its configuration, which is written, and its layers.
    fn describe(&self, root: &Descriptor) -> Result<(String, Vec<String>)> {
        let archive = || self.target.to_string();
        let fail = |source| Error::Document { archive: archive(), name: root.digest.to_string(), source };
        let bytes = self.document(&root.digest)?;
        let Document::Manifest(manifest) = Document::parse(&bytes, &root.media_type).map_err(fail)? else {
            return self.unsupported("a docker-archive holds no index: choose a platform");
        };
        if !manifest.is_image() {
            return self.unsupported("a docker-archive holds images, no other artifacts");
        }
        let config = self.document(&manifest.config.digest)?;
        let image = Image::new(root.clone(), manifest, &config).map_err(fail)?;
        let mut names = Vec::new();
        for layer in &image.layers {
            let got = self.state().layers.get(&layer.descriptor.digest).cloned();
            match got {
                Some(got) if got == layer.diff_id => names.push(format!("{}.tar", got.hex())),
                Some(got) => {
                    let name = layer.descriptor.digest.to_string();
                    let (want, got) = (Box::new(layer.diff_id.clone()), Box::new(got));
                    return Err(Error::Digest { archive: archive(), name, want, got });
                }
                None => return Err(missing(archive(), &layer.descriptor.digest)),
            }
        }
        let name = format!("{}.json", image.config_descriptor.digest.hex());
        self.member(&name, &mut &config[..], config.len() as u64)?;
        Ok((name, names))
    }

    fn document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let bytes = self.state().documents.get(digest).cloned();
        bytes.ok_or_else(|| missing(self.target.to_string(), digest))
    }
}

fn missing(archive: String, digest: &Digest) -> Error {
    Error::NoFile { archive, name: digest.to_string() }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}
