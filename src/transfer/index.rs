//! Multi-platform images made of images of the store (image-spec, image-index.md).

use super::{Error, Result};
use crate::oci::{Descriptor, Digest, Document, Platform, Reference, media_type};
use crate::store::{Entry, Store};
use serde_json::{Value, json};
use std::fmt;
use std::str::FromStr;

/// A member of an index, as one types it to remove it: its platform or its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// All images of a platform.
    Platform(Platform),
    /// The image of a digest.
    Digest(Digest),
}

impl FromStr for Member {
    type Err = crate::oci::Error;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text.parse() {
            Ok(digest) => Ok(Self::Digest(digest)),
            Err(_) => text.parse().map(Self::Platform),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform(p) => p.fmt(f),
            Self::Digest(d) => d.fmt(f),
        }
    }
}

/// Makes the index `name` of `images`; those that are indexes give all of theirs.
///
/// # Errors
/// [`Error::Store`], [`Error::Document`].
pub fn create_index(store: &Store, name: &Reference, images: &[Entry]) -> Result<Descriptor> {
    write(store, name, &json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": []}), images)
}

/// Adds `images` to the index of `entry`, each in place of what it had for that platform, and
/// takes `remove` away; the name goes on to the new index.
///
/// # Errors
/// [`Error::NotIndex`], [`Error::NoMember`], [`Error::Store`].
pub fn edit_index(
    store: &Store,
    name: &Reference,
    entry: &Entry,
    images: &[Entry],
    remove: &[Member],
) -> Result<Descriptor> {
    let bytes = store.document(&entry.descriptor)?;
    let parsed = Document::parse(&bytes, &entry.descriptor.media_type);
    if !matches!(parsed, Ok(Document::Index(_))) {
        return Err(Error::NotIndex(name.to_string()));
    }
    let json = |source| crate::oci::Error::Json { what: "index", source };
    let mut index: Value = serde_json::from_slice(&bytes).map_err(json).map_err(|e| malformed(name, e))?;
    for member in remove {
        let manifests = index["manifests"].as_array_mut();
        let before = manifests.as_ref().map_or(0, |m| m.len());
        let after = manifests.map_or(0, |m| {
            m.retain(|item| !is_member(item, member));
            m.len()
        });
        if before == after {
            return Err(Error::NoMember { index: name.to_string(), member: member.to_string() });
        }
    }
    write(store, name, &index, images)
}

fn is_member(item: &Value, member: &Member) -> bool {
    match member {
        Member::Digest(digest) => item["digest"].as_str() == Some(&digest.to_string()),
        Member::Platform(platform) => {
            let p = &item["platform"];
            let arch = platform.architecture.as_str();
            p["os"].as_str() == Some(&platform.os)
                && p["architecture"].as_str() == Some(arch)
                && variant(arch, p["variant"].as_str()) == variant(arch, platform.variant.as_deref())
        }
    }
}

/// The variant that is meant: arm64 alone is arm64/v8.
fn variant<'a>(architecture: &str, variant: Option<&'a str>) -> Option<&'a str> {
    if architecture == "arm64" { variant.or(Some("v8")) } else { variant }
}

fn write(store: &Store, name: &Reference, index: &Value, images: &[Entry]) -> Result<Descriptor> {
    let mut index = index.clone();
    for image in images {
        for member in members(store, name, image)? {
            let Some(manifests) = index["manifests"].as_array_mut() else { continue };
            let platform = member.platform.clone().map(Member::Platform);
            manifests.retain(|item| {
                !is_member(item, &Member::Digest(member.digest.clone()))
                    && !platform.as_ref().is_some_and(|p| is_member(item, p))
            });
            let json = |source| malformed(name, crate::oci::Error::Json { what: "index", source });
            manifests.push(serde_json::to_value(&member).map_err(json)?);
        }
    }
    let lease = store.lease()?;
    let descriptor = lease.put(media_type_of(&index), index.to_string().as_bytes())?;
    store.tag(name, &descriptor)?;
    Ok(descriptor)
}

fn media_type_of(index: &Value) -> &'static str {
    match index["mediaType"].as_str() {
        Some(media_type::DOCKER_LIST) => media_type::DOCKER_LIST,
        _ => media_type::INDEX,
    }
}

/// The manifests that an image adds, each with its platform.
fn members(store: &Store, name: &Reference, image: &Entry) -> Result<Vec<Descriptor>> {
    let d = &image.descriptor;
    let bytes = store.document(d)?;
    match Document::parse(&bytes, &d.media_type).map_err(|e| malformed(name, e))? {
        Document::Index(index) => Ok(index.manifests),
        Document::Manifest(manifest) => {
            let platform =
                if manifest.is_image() { Some(store.image(d, &Platform::host())?.platform()) } else { None };
            Ok(vec![Descriptor { platform, artifact_type: d.artifact_type.clone(), ..d.plain() }])
        }
    }
}

fn malformed(name: &Reference, source: crate::oci::Error) -> Error {
    Error::Document { name: name.to_string(), source }
}
