//! One repository of one registry: its documents and blobs, by digest.

use super::body::{BlobBody, Retry};
use super::connection::retried;
use super::places::Places;
use super::ranges::{self, Ranges};
use super::{Error, Options, Result};
use crate::oci::{Descriptor, Digest, Hasher, Reference, document_type, media_type};
use reqwest::StatusCode;
use std::io::Read;
use std::sync::Arc;

/// A repository that can be read.
#[derive(Debug, Clone)]
pub struct Remote {
    pub(super) places: Arc<Places>,
    reference: Reference,
    connections: usize,
}

impl Remote {
    /// The repository of `reference`, with the mirrors of `registries.conf`; nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Blocked`], [`Error::ConfigFile`].
    pub fn connect(reference: &Reference, options: &Options) -> Result<Self> {
        let places = Arc::new(Places::of(reference, options)?);
        Ok(Self { places, reference: reference.clone(), connections: options.connections })
    }

    /// Host and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.places.upstream().host()
    }

    /// What the reference leads to, an index or a manifest, as the registry has it, verified
    /// where the reference has a digest.
    ///
    /// # Errors
    /// [`Error::NoImage`], [`Error::Digest`], [`Error::Document`], and those of the network.
    pub fn root(&self) -> Result<(Descriptor, Vec<u8>)> {
        let name = match self.reference.digest() {
            Some(digest) => digest.to_string(),
            None => self.reference.tag().unwrap_or("latest").to_string(),
        };
        let (declared, bytes) = self.document_at(&name)?;
        let digest = match self.reference.digest() {
            Some(digest) => {
                self.check(digest, None, &bytes, || self.reference.to_string())?;
                digest.clone()
            }
            None => Digest::of(&bytes),
        };
        let media_type = document_type(&declared, &bytes);
        Ok((Descriptor::new(media_type, digest, bytes.len() as u64), bytes))
    }

    /// The bytes of the manifest or index that `descriptor` describes, verified.
    ///
    /// # Errors
    /// [`Error::NoImage`], [`Error::Length`], [`Error::Digest`], and those of the network.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let (_, bytes) = self.document_at(&descriptor.digest.to_string())?;
        let what = || format!("{} in {}", descriptor.digest, self.reference);
        self.check(&descriptor.digest, Some(descriptor.size), &bytes, what)?;
        Ok(bytes)
    }

    /// The blob from byte `from` on, over [`Options::connections`]. The reader goes on by itself after failures that may
    /// pass, of which `retry` is told; its errors carry an [`Error`]. It gives what the server
    /// sends: who wants to be sure that it is the blob reads it through
    /// [`crate::store::Verified`].
    #[must_use]
    pub fn blob<'a>(
        &self,
        descriptor: &Descriptor,
        from: u64,
        retry: Retry<'a>,
    ) -> Box<dyn Read + Send + 'a> {
        if self.connections > 1 && descriptor.size.saturating_sub(from) > ranges::WORTH {
            Box::new(Ranges::new(self, descriptor, from, self.connections, retry))
        } else {
            Box::new(BlobBody::new(self, descriptor, from..descriptor.size, retry))
        }
    }

    /// Media type and bytes of what `name`, a tag or a digest, leads to.
    fn document_at(&self, name: &str) -> Result<(String, Vec<u8>)> {
        let accept = media_type::DOCUMENTS.join(", ");
        let result = retried(|| {
            let answer = self.places.get("manifests", name, Some(&accept), None)?;
            let media = answer.header("content-type").unwrap_or_default().to_string();
            Ok((media, answer.document("a manifest")?))
        });
        result.map_err(|e| self.no_image(e))
    }

    /// What a 404 means where a manifest was meant.
    pub(super) fn no_image(&self, e: Error) -> Error {
        match e {
            Error::Status { host, status: StatusCode::NOT_FOUND, message, .. } => {
                Error::NoImage { reference: Box::new(self.reference.clone()), host, message }
            }
            other => other,
        }
    }

    fn check(
        &self,
        digest: &Digest,
        size: Option<u64>,
        bytes: &[u8],
        what: impl Fn() -> String,
    ) -> Result<()> {
        let (host, got) = (self.host(), bytes.len() as u64);
        if let Some(size) = size.filter(|s| *s != got) {
            return Err(Error::Length { host, digest: digest.clone(), size, got });
        }
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(bytes);
        let got = hasher.finish();
        if got == *digest {
            return Ok(());
        }
        Err(Error::Digest { host, what: what(), want: digest.clone(), got })
    }

    /// What was asked for.
    #[must_use]
    pub const fn reference(&self) -> &Reference {
        &self.reference
    }
}
