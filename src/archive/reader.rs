//! Reading: which kind an archive is, which images it has, and their documents and blobs.

use super::members::Members;
use super::spool::{self, Format, Section};
use super::{Error, FULL_NAME, Kind, REF_NAME, Result, Settings, Source, aci, docker, io_error, made};
use crate::oci::{Compression, Descriptor, Digest, Document, Reference, media_type};
use crate::store::{Limit, Limits, Verified};
use crate::sys::dir::Dir;
use rustix::io::Errno;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::path::Path;

/// The size of an `index.json` of a layout that is always read, in bytes: tens of thousands of names.
const MAX_INDEX: u64 = 32 << 20;

/// How to read an archive.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Its kind; found out where none is given.
    pub kind: Option<Kind>,
    /// What it may cost.
    pub limits: Limits,
    /// The configuration of the image that a [`Kind::Rootfs`] becomes.
    pub settings: Settings,
}

/// An image or index of an archive.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its names as they are written there: full references, short ones, or tags only.
    pub names: Vec<String>,
    /// Its manifest or index.
    pub descriptor: Descriptor,
}

impl Found {
    /// The names that say which repository they mean; a tag alone does not.
    #[must_use]
    pub fn references(&self) -> Vec<Reference> {
        let mut references: Vec<Reference> = Vec::new();
        for name in self.names.iter().filter(|n| n.contains(['/', ':', '@'])) {
            if let Ok(reference) = name.parse()
                && !references.contains(&reference)
            {
                references.push(reference);
            }
        }
        references
    }

    /// Whether `text` is one of its names, or its digest.
    fn is_called(&self, text: &str) -> bool {
        let reference = text.parse::<Reference>().ok();
        self.names.iter().any(|n| n == text)
            || reference.is_some_and(|r| self.references().contains(&r))
            || self.descriptor.digest.to_string() == text
    }
}

/// Files by name.
#[derive(Debug)]
pub(super) enum Files {
    Folder(Dir),
    Tar(Members),
}

impl Files {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(dir) => dir.stat(name.as_ref()).is_ok_and(|s| s.is_some()),
            Self::Tar(members) => members.has(name),
        }
    }

    /// The content of a file; none where there is none. A folder's links are not followed.
    fn get(&self, name: &str) -> Result<Option<Section>> {
        let dir = match self {
            Self::Tar(members) => return Ok(members.get(name)),
            Self::Folder(dir) => dir,
        };
        let (parent, file) = name.rsplit_once('/').unwrap_or((".", name));
        let opened = dir.below(Path::new(parent)).and_then(|d| d.file(file.as_ref()));
        let file = match opened {
            Err(e) if matches!(e.errno(), Some(Errno::NOENT)) => return Ok(None),
            file => file?,
        };
        let path = dir.path().join(name);
        let is_file = io_error("stat", &path, file.metadata())?.is_file();
        if is_file { io_error("stat", &path, Section::whole(file)).map(Some) } else { Ok(None) }
    }
}

/// Content that was found or made when the archive was opened.
#[derive(Debug)]
pub(super) enum Piece {
    Section(Section),
    Bytes(Vec<u8>),
}

/// Where blobs are.
#[derive(Debug)]
enum Blobs {
    /// `blobs/ALGORITHM/HEX`.
    Layout(Files),
    /// `HEX`, and `HEX.manifest.json` for the manifests of an index.
    Dir(Files),
    Pieces(Pieces),
}

/// Content by digest.
pub(super) type Pieces = HashMap<Digest, Piece>;

/// An open archive or folder of images.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    kind: Kind,
    images: Vec<Found>,
    blobs: Blobs,
    limits: Limits,
}

impl Reader {
    /// Opens `source`. What has to be laid down on the way goes to the folder `scratch`, as
    /// files without names.
    ///
    /// # Errors
    /// [`Error::Unknown`], and any other for what is malformed or larger than the limits.
    pub fn open(source: &Source, scratch: &Path, options: &Options) -> Result<Self> {
        if let Source::Path(path) = source
            && path.is_dir()
        {
            return Self::folder(source, Dir::open(path)?, options);
        }
        let raw = spool::open(source, scratch)?;
        let format = raw.format().map_err(|e| Error::read(source, e))?;
        let tar = if format == Format::Layer(Compression::None) {
            raw.clone()
        } else {
            let mut inflated = raw.inflate(&options.limits).map_err(|e| Error::read(source, e))?;
            spool::spool(source, &mut inflated, scratch)?
        };
        let members = Members::read(source, tar.clone())?;
        let kind = match options.kind {
            Some(kind) if kind.is_folder() => {
                return Err(Error::NotOfKind { archive: source.to_string(), kind, is: "file" });
            }
            Some(kind) => kind,
            None => kind_of(&members).ok_or_else(|| Error::Unknown { archive: source.to_string() })?,
        };
        if kind != Kind::Rootfs {
            members.check(source)?;
        }
        let limits = options.limits;
        let (images, blobs) = match kind {
            Kind::DockerArchive => docker::read(source, &members, limits)?,
            Kind::Rootfs => made::rootfs(source, raw, &tar, scratch, &options.settings)?,
            Kind::Aci => aci::read(source, &members, &tar, scratch, limits)?,
            Kind::OciArchive | Kind::Oci | Kind::Dir => {
                let files = Files::Tar(members);
                let images = layout(source, &files, &limits)?;
                let source = source.clone();
                return Ok(Self { source, kind, images, blobs: Blobs::Layout(files), limits });
            }
        };
        Ok(Self { source: source.clone(), kind, images, blobs: Blobs::Pieces(blobs), limits })
    }

    fn folder(source: &Source, dir: Dir, options: &Options) -> Result<Self> {
        let archive = source.to_string();
        let files = Files::Folder(dir);
        let limits = options.limits;
        let kind = match options.kind {
            Some(kind) if !kind.is_folder() => return Err(Error::NotOfKind { archive, kind, is: "folder" }),
            Some(kind) => kind,
            None if files.has("oci-layout") => Kind::Oci,
            None if files.has("manifest.json") => Kind::Dir,
            None => return Err(Error::Unknown { archive }),
        };
        let source = source.clone();
        if kind == Kind::Oci {
            let images = layout(&source, &files, &limits)?;
            return Ok(Self { source, kind, images, blobs: Blobs::Layout(files), limits });
        }
        let bytes = text(&source, &files, "manifest.json", limits.document)?;
        let descriptor = describe(&bytes).map_err(|e| Error::Document {
            archive: source.to_string(),
            name: "manifest.json".into(),
            source: e,
        })?;
        let images = vec![Found { names: Vec::new(), descriptor }];
        Ok(Self { source, kind, images, blobs: Blobs::Dir(files), limits })
    }

    /// What kind it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its images and indexes, in its order.
    #[must_use]
    pub fn images(&self) -> &[Found] {
        &self.images
    }

    /// The image called `name`, by one of its names or its digest; without a name the only one.
    ///
    /// # Errors
    /// [`Error::Choose`].
    pub fn image(&self, name: Option<&str>) -> Result<&Found> {
        let found = match name {
            Some(name) => self.images.iter().find(|i| i.is_called(name)),
            None => self.images.first().filter(|_| self.images.len() == 1),
        };
        found.ok_or_else(|| Error::Choose {
            archive: self.source.to_string(),
            asked: name.is_some(),
            names: self.images.iter().flat_map(names_or_digest).collect(),
        })
    }

    fn piece(&self, digest: &Digest) -> Result<Option<Section>> {
        match &self.blobs {
            Blobs::Layout(files) => {
                files.get(&format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex()))
            }
            Blobs::Dir(files) => match files.get(digest.hex())? {
                Some(section) => Ok(Some(section)),
                None => match files.get(&format!("{}.manifest.json", digest.hex()))? {
                    Some(section) => Ok(Some(section)),
                    // The manifest itself is the one file that is not called by its digest.
                    None if self.images.iter().any(|i| i.descriptor.digest == *digest) => {
                        files.get("manifest.json")
                    }
                    None => Ok(None),
                },
            },
            Blobs::Pieces(pieces) => Ok(match pieces.get(digest) {
                Some(Piece::Section(section)) => Some(section.clone()),
                _ => None,
            }),
        }
    }

    /// Whether the blob is there, of whatever content.
    ///
    /// # Errors
    /// [`Error::Sys`], [`Error::Io`].
    pub fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        if let Blobs::Pieces(pieces) = &self.blobs {
            return Ok(pieces.contains_key(&descriptor.digest));
        }
        Ok(self.piece(&descriptor.digest)?.is_some())
    }

    /// A whole document, verified.
    ///
    /// # Errors
    /// [`Error::NoFile`], [`Error::Verify`], [`Error::Limit`] above [`Limits::document`].
    pub fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let within = self.limits.check_document(descriptor.size);
        within.map_err(|e| Error::Limit { archive: self.source.to_string(), source: e })?;
        let mut bytes = Vec::new();
        let mut blob = Verified::new(self.blob(descriptor, 0)?, descriptor);
        blob.read_to_end(&mut bytes).map_err(|e| Error::read(&self.source, e))?;
        Ok(bytes)
    }

    /// The blob from byte `from` on, as it lies in the archive. The caller verifies it: with
    /// [`Verified`] where `from` is 0.
    ///
    /// # Errors
    /// [`Error::NoFile`], [`Error::Sys`], [`Error::Io`].
    pub fn blob(&self, descriptor: &Descriptor, from: u64) -> Result<Box<dyn Read + Send>> {
        if let Blobs::Pieces(pieces) = &self.blobs
            && let Some(Piece::Bytes(bytes)) = pieces.get(&descriptor.digest)
        {
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
            return Ok(Box::new(Cursor::new(bytes[from..].to_vec())));
        }
        let section = self.piece(&descriptor.digest)?.ok_or_else(|| Error::NoFile {
            archive: self.source.to_string(),
            name: descriptor.digest.to_string(),
        })?;
        Ok(Box::new(section.skip(from)))
    }
}

fn names_or_digest(found: &Found) -> Vec<String> {
    if found.names.is_empty() { vec![found.descriptor.digest.to_string()] } else { found.names.clone() }
}

/// What sort of tar it is, by the names in it; none where it is empty.
fn kind_of(members: &Members) -> Option<Kind> {
    if members.is_empty() {
        None
    } else if members.has("oci-layout") && members.has("index.json") {
        Some(Kind::OciArchive)
    } else if members.has("manifest.json") || members.has("repositories") {
        Some(Kind::DockerArchive)
    } else if members.has("manifest") && members.has_below("rootfs") {
        Some(Kind::Aci)
    } else {
        Some(Kind::Rootfs)
    }
}

/// A small file of an archive.
fn text(source: &Source, files: &Files, name: &str, limit: u64) -> Result<Vec<u8>> {
    small(source, files.get(name)?, name, limit)
}

/// All of a small file.
pub(super) fn small(source: &Source, file: Option<Section>, name: &str, limit: u64) -> Result<Vec<u8>> {
    let archive = || source.to_string();
    let mut section = file.ok_or_else(|| Error::NoFile { archive: archive(), name: name.to_string() })?;
    let within = Limit::Document.check(section.len(), limit);
    within.map_err(|source| Error::Limit { archive: archive(), source })?;
    let mut bytes = Vec::new();
    section.read_to_end(&mut bytes).map_err(|e: io::Error| Error::read(source, e))?;
    Ok(bytes)
}

/// The images of an OCI layout; entries of one digest are one image with several names.
fn layout(source: &Source, files: &Files, limits: &Limits) -> Result<Vec<Found>> {
    let fail = |e| Error::Document { archive: source.to_string(), name: "index.json".into(), source: e };
    let marker: Value = json(source, "oci-layout", &text(source, files, "oci-layout", limits.document)?)?;
    if marker["imageLayoutVersion"] != "1.0.0" {
        let what = "the OCI layout is not of version 1.0.0";
        return Err(Error::Unsupported { archive: source.to_string(), what });
    }
    let index = text(source, files, "index.json", limits.document.max(MAX_INDEX))?;
    let Document::Index(index) = Document::parse(&index, media_type::INDEX).map_err(fail)? else {
        return Err(fail(crate::oci::Error::MediaType(media_type::MANIFEST.into())));
    };
    let mut images: Vec<Found> = Vec::new();
    for mut descriptor in index.manifests {
        let names = [FULL_NAME, REF_NAME].into_iter().filter_map(|key| descriptor.annotations.remove(key));
        let mut names: Vec<String> = names.collect();
        names.dedup();
        match images.iter_mut().find(|i| i.descriptor.digest == descriptor.digest) {
            Some(same) => same.names.extend(names),
            None => images.push(Found { names, descriptor }),
        }
    }
    Ok(images)
}

/// Parses JSON of the archive.
pub(super) fn json<T: serde::de::DeserializeOwned>(source: &Source, name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::Json {
        archive: source.to_string(),
        name: name.to_string(),
        source: e,
    })
}

/// The descriptor of a manifest or index that is known by its bytes only.
fn describe(bytes: &[u8]) -> crate::oci::Result<Descriptor> {
    let parsed = Document::parse(bytes, "")?;
    let own =
        serde_json::from_slice::<Value>(bytes).ok().and_then(|v| v["mediaType"].as_str().map(str::to_string));
    let default = match parsed {
        Document::Manifest(_) => media_type::MANIFEST,
        Document::Index(_) => media_type::INDEX,
    };
    Ok(Descriptor::of(own.as_deref().unwrap_or(default), bytes))
}
