//! Which documents and blobs a copy consists of.

use super::{Content, Error, Platforms, Result, Source};
use crate::oci::{self, Descriptor, Digest, Document, Image, Index, Manifest, Platform};
use crate::store::{Limits, MAX_INDEX_DEPTH, Verified};
use std::collections::BTreeSet;
use std::io::Read;

/// How many manifests an index and those in it may name.
const MAX_DOCUMENTS: usize = 1000;

/// Where a blob's bytes come from.
#[derive(Debug, Clone)]
pub(super) enum From {
    /// The source.
    Source,
    /// They were read already.
    Bytes(Vec<u8>),
    /// They were written anew, into the store for that.
    Rewritten,
}

/// A blob to copy.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) descriptor: Descriptor,
    pub(super) from: From,
}

/// What is to be copied.
#[derive(Debug)]
pub(super) struct Selection {
    /// The documents, leaves first, the root last.
    pub(super) documents: Vec<Content>,
    /// The blobs, each once.
    pub(super) blobs: Vec<Blob>,
}

/// A document or configuration that need not be asked for.
type Known<'a> = &'a dyn Fn(&Descriptor) -> Result<Option<Vec<u8>>>;

/// Reads manifest and configuration of the image of `source`, without its layers; the bytes are
/// the configuration's.
///
/// # Errors
/// Those of the source; [`Error::NoPlatform`], and [`Error::Document`] where it is no image.
pub fn look(source: &dyn Source, platforms: &Platforms, limits: &Limits) -> Result<(Image, Vec<u8>)> {
    select(source, &|_| Ok(None), platforms, limits)?.image(source)
}

impl Selection {
    /// The first image, and the bytes of its configuration.
    pub(super) fn image(&self, source: &dyn Source) -> Result<(Image, Vec<u8>)> {
        let malformed = |source_error| Error::Document { name: source.name(), source: source_error };
        for Content { descriptor, bytes } in &self.documents {
            let Document::Manifest(manifest) =
                Document::parse(bytes, &descriptor.media_type).map_err(malformed)?
            else {
                continue;
            };
            let config = self.blobs.iter().find(|b| b.descriptor.digest == manifest.config.digest);
            let bytes = match config.map(|b| &b.from) {
                Some(From::Bytes(bytes)) => bytes.clone(),
                _ => Vec::new(),
            };
            return Ok((Image::new(descriptor.clone(), manifest, &bytes).map_err(malformed)?, bytes));
        }
        Err(nothing(source))
    }
}

pub(super) fn nothing(source: &dyn Source) -> Error {
    let reason = "it holds no manifest".to_string();
    Error::Document { name: source.name(), source: oci::Error::Document { what: "index", reason } }
}

/// Reads the documents of `source` for the wanted platforms.
pub(super) fn select(
    source: &dyn Source,
    known: Known<'_>,
    platforms: &Platforms,
    limits: &Limits,
) -> Result<Selection> {
    let mut walk = Walk {
        source,
        known,
        limits,
        name: source.name(),
        seen: BTreeSet::new(),
        selection: Selection { documents: Vec::new(), blobs: Vec::new() },
    };
    let root = source.root()?;
    match platforms {
        Platforms::All => walk.all(root, 0)?,
        Platforms::Host => walk.one(root, &Platform::host(), false)?,
        Platforms::One(platform) => walk.one(root, platform, true)?,
    }
    Ok(walk.selection)
}

struct Walk<'a> {
    source: &'a dyn Source,
    known: Known<'a>,
    limits: &'a Limits,
    name: String,
    seen: BTreeSet<Digest>,
    selection: Selection,
}

impl Walk<'_> {
    fn all(&mut self, content: Content, depth: usize) -> Result<()> {
        if depth > MAX_INDEX_DEPTH {
            return Err(self.too_deep());
        }
        match self.parse(&content)? {
            Document::Manifest(manifest) => {
                self.manifest(&content.descriptor, &manifest)?;
            }
            Document::Index(index) => {
                for child in index.manifests {
                    if self.seen.insert(child.digest.clone()) {
                        let content = self.document(&child)?;
                        self.all(content, depth + 1)?;
                    }
                }
            }
        }
        self.selection.documents.push(content);
        if self.selection.documents.len() > MAX_DOCUMENTS {
            let reason = format!("it holds more than {MAX_DOCUMENTS} manifests");
            return Err(self.malformed(oci::Error::Document { what: "index", reason }));
        }
        Ok(())
    }

    /// The manifest for `platform`; `strict` where it has to be for exactly that.
    fn one(&mut self, root: Content, platform: &Platform, strict: bool) -> Result<()> {
        let mut at = root;
        for _ in 0..=MAX_INDEX_DEPTH {
            match self.parse(&at)? {
                Document::Manifest(manifest) => {
                    if let Some(is) = self.manifest(&at.descriptor, &manifest)?
                        && platform.fits(&is).is_none()
                    {
                        if strict {
                            return Err(self.no_platform(platform, vec![is.to_string()]));
                        }
                        tracing::warn!("{} is for {is}, this machine is {platform}", self.name);
                    }
                    self.selection.documents.push(at);
                    return Ok(());
                }
                Document::Index(index) => {
                    let Some(best) = index.best(platform) else {
                        return Err(self.no_platform(platform, platforms_of(&index)));
                    };
                    at = self.document(best)?;
                }
            }
        }
        Err(self.too_deep())
    }

    /// Notes the blobs of a manifest; gives the platform of an image.
    fn manifest(&mut self, descriptor: &Descriptor, manifest: &Manifest) -> Result<Option<Platform>> {
        let mut platform = None;
        if manifest.is_image() {
            let bytes = self.small_blob(&manifest.config)?;
            let image = Image::new(descriptor.clone(), manifest.clone(), &bytes);
            platform = Some(image.map_err(|e| self.malformed(e))?.platform());
            self.blob(manifest.config.clone(), From::Bytes(bytes));
        } else {
            self.blob(manifest.config.clone(), From::Source);
        }
        for layer in &manifest.layers {
            self.blob(layer.clone(), From::Source);
        }
        Ok(platform)
    }

    fn blob(&mut self, descriptor: Descriptor, from: From) {
        if self.seen.insert(descriptor.digest.clone()) {
            self.selection.blobs.push(Blob { descriptor, from });
        }
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Content> {
        self.check_size(descriptor)?;
        let bytes = match (self.known)(descriptor)? {
            Some(bytes) => bytes,
            None => self.source.document(descriptor)?,
        };
        Ok(Content { descriptor: descriptor.plain(), bytes })
    }

    fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.check_size(descriptor)?;
        if let Some(bytes) = (self.known)(descriptor)? {
            return Ok(bytes);
        }
        let mut bytes = Vec::new();
        let content = self.source.blob(descriptor, 0, &|_| ())?;
        let read = Verified::new(content, descriptor).read_to_end(&mut bytes);
        read.map_err(|e| Error::of_io(&self.name, "read the configuration", e))?;
        Ok(bytes)
    }

    fn check_size(&self, descriptor: &Descriptor) -> Result<()> {
        self.limits.check_document(descriptor.size).map_err(|source| {
            let (digest, size) = (descriptor.digest.clone(), descriptor.size);
            Error::TooLarge { name: self.name.clone(), digest, size, source }
        })
    }

    fn parse(&self, content: &Content) -> Result<Document> {
        Document::parse(&content.bytes, &content.descriptor.media_type).map_err(|e| self.malformed(e))
    }

    fn malformed(&self, source: oci::Error) -> Error {
        Error::Document { name: self.name.clone(), source }
    }

    fn too_deep(&self) -> Error {
        let reason = format!("indexes more than {MAX_INDEX_DEPTH} deep");
        self.malformed(oci::Error::Document { what: "index", reason })
    }

    fn no_platform(&self, platform: &Platform, available: Vec<String>) -> Error {
        Error::NoPlatform { name: self.name.clone(), platform: platform.clone(), available }
    }
}

fn platforms_of(index: &Index) -> Vec<String> {
    index.manifests.iter().filter_map(|d| d.platform.as_ref()).map(ToString::to_string).collect()
}
