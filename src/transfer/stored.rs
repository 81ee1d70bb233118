//! The store as source and sink.

use super::copy::check_digest;
use super::{Content, Error, Open, Put, Result, Sink, Source, Watch};
use crate::error::Kind;
use crate::oci::{Descriptor, Digest, Document, Platform, Reference};
use crate::store::{self, Entry, Ingest, Lease, Store};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::OnceLock;

/// How much is copied at once, in bytes.
const CHUNK: usize = 128 << 10;

/// An image of the store.
#[derive(Debug)]
pub struct FromStore<'a> {
    store: &'a Store,
    entry: Entry,
    /// Which repository of the registry that was first asked for holds which blob, by the names of
    /// the store's images.
    repositories: OnceLock<(String, HashMap<Digest, String>)>,
}

impl<'a> FromStore<'a> {
    /// The image of `entry`.
    #[must_use]
    pub const fn new(store: &'a Store, entry: Entry) -> Self {
        Self { store, entry, repositories: OnceLock::new() }
    }

    fn origins(&self, registry: &str) -> HashMap<Digest, String> {
        let mut origins = HashMap::new();
        for entry in self.store.entries().unwrap_or_default() {
            let Some(reference) = entry.reference.filter(|r| r.registry() == registry) else { continue };
            let Ok(image) = self.store.image(&entry.descriptor, &Platform::host()) else { continue };
            let layers = image.layers.into_iter().map(|l| l.descriptor.digest);
            for digest in layers.chain([image.config_descriptor.digest]) {
                origins.entry(digest).or_insert_with(|| reference.repository().to_string());
            }
        }
        origins
    }
}

impl Source for FromStore<'_> {
    fn name(&self) -> String {
        let digest = || self.entry.descriptor.digest.to_string();
        self.entry.reference.as_ref().map_or_else(digest, ToString::to_string)
    }

    fn root(&self) -> Result<Content> {
        let d = &self.entry.descriptor;
        let bytes = self.store.document(d)?;
        Ok(Content { descriptor: d.plain(), bytes })
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        Ok(self.store.document(descriptor)?)
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        from: u64,
        _: Watch<'a>,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        open_blob(self.store, descriptor, from)
    }

    fn repository(&self, registry: &str, blob: &Digest) -> Option<String> {
        let made = || (registry.to_string(), self.origins(registry));
        let (of, known) = self.repositories.get_or_init(made);
        known.get(blob).filter(|_| of == registry).cloned()
    }
}

/// The file of a blob, from byte `from` on.
pub(super) fn open_blob<'a>(
    store: &Store,
    descriptor: &Descriptor,
    from: u64,
) -> Result<Box<dyn Read + Send + 'a>> {
    if !store.has(descriptor)? {
        let (digest, root) = (descriptor.digest.clone(), store.root().to_path_buf());
        return Err(store::Error::NoBlob { digest, root }.into());
    }
    let open = || -> io::Result<File> {
        let mut file = File::open(store.blob_path(&descriptor.digest))?;
        file.seek(SeekFrom::Start(from))?;
        Ok(file)
    };
    Ok(Box::new(open().map_err(|source| Error::Io { action: "open a blob of the store", source })?))
}

/// A name in the store, or the store alone.
#[derive(Debug)]
pub struct ToStore<'a> {
    store: &'a Store,
    reference: Option<Reference>,
    /// Holds what was seen or put, until it has its name.
    lease: OnceLock<Lease>,
}

impl<'a> ToStore<'a> {
    /// The image will be called `reference`.
    #[must_use]
    pub const fn new(store: &'a Store, reference: Reference) -> Self {
        Self { store, reference: Some(reference), lease: OnceLock::new() }
    }

    /// The image will have no name: it is held as long as the value lives, then a prune may take it.
    #[must_use]
    pub const fn nameless(store: &'a Store) -> Self {
        Self { store, reference: None, lease: OnceLock::new() }
    }

    fn hold(&self, digest: &Digest) -> Result<()> {
        if self.lease.get().is_none() {
            // Of two threads that come here one keeps its own.
            let _ = self.lease.set(self.store.lease()?);
        }
        self.lease.get().map_or(Ok(()), |l| Ok(l.hold(digest)?))
    }

    fn fill(&self, writer: &mut store::BlobWriter, open: Open<'_>) -> Result<()> {
        let name = self.reference.as_ref().map_or_else(|| "the store".to_string(), Reference::to_string);
        let mut content = open(writer.len())?;
        let mut buf = vec![0; CHUNK];
        loop {
            match content.read(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(n) => writer.append(&buf[..n])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::of_io(&name, "read a blob", e)),
            }
        }
    }
}

impl Sink for ToStore<'_> {
    fn known(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        self.hold(&descriptor.digest)?;
        if !self.store.has(descriptor)? {
            return Ok(None);
        }
        match self.store.document(descriptor) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(store::Error::Verify(e)) => {
                tracing::warn!("{e}; fetching it again");
                self.store.set_aside(&descriptor.digest)?;
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn put_blob(&self, descriptor: &Descriptor, open: Open<'_>, _: &dyn Source) -> Result<Put> {
        self.hold(&descriptor.digest)?;
        loop {
            let Ingest::Missing(mut writer) = self.store.ingest(descriptor)? else { return Ok(Put::Present) };
            let resumed = !writer.is_empty();
            if let Err(e) = self.fill(&mut writer, open) {
                if e.kind() == Kind::Integrity {
                    writer.restart()?;
                }
                return Err(e);
            }
            match writer.commit() {
                Ok(()) => return Ok(Put::Written),
                // What an earlier process left was damaged; it is gone now.
                Err(store::Error::Verify(e)) if resumed => tracing::debug!("{e}; starting again"),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn put_document(&self, content: &Content) -> Result<()> {
        self.hold(&content.descriptor.digest)?;
        Ok(self.store.put_as(&content.descriptor, &content.bytes)?)
    }

    fn finish(&self, root: &Content) -> Result<()> {
        let Some(reference) = &self.reference else { return self.put_document(root) };
        // An image that came through an index keeps the index's digest in its name.
        let is_index =
            matches!(Document::parse(&root.bytes, &root.descriptor.media_type), Ok(Document::Index(_)));
        if is_index {
            check_digest(reference, reference.digest(), &root.descriptor.digest)?;
        }
        self.put_document(root)?;
        Ok(self.store.tag(reference, &root.descriptor)?)
    }
}
