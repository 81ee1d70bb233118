//! Registries as source and sink.

use super::copy::check_digest;
use super::{Content, Event, Open, Put, Result, Sink, Source, Watch};
use crate::oci::{Descriptor, Digest, Reference};
use crate::registry::{self, Config, Options, Remote};
use crate::store::Verified;
use std::cell::RefCell;
use std::io::{self, Read};
use std::sync::OnceLock;

/// An image at a registry.
#[derive(Debug)]
pub struct FromRegistry {
    remote: Remote,
    /// The root, once it has been asked for.
    root: OnceLock<Content>,
}

impl FromRegistry {
    /// The image of `reference`.
    ///
    /// # Errors
    /// Those of [`Remote::connect`].
    pub fn connect(reference: &Reference, options: &Options) -> Result<Self> {
        Ok(Self { remote: Remote::connect(reference, options)?, root: OnceLock::new() })
    }

    /// The image that `text`, a short or full name, means by the machine's `registries.conf`: of
    /// several candidates the first one that is there.
    ///
    /// # Errors
    /// Those of [`Config::resolve`]; where none is there, the last one's failure.
    pub fn find(text: &str, options: &Options) -> Result<(Reference, Self)> {
        let config = Config::load()?;
        let alone = config.resolve(text)?.len() == 1;
        Ok(config.first(text, |reference| {
            let remote = Remote::connect(reference, options)?;
            let root = OnceLock::new();
            if !alone {
                let (descriptor, bytes) = remote.root()?;
                let _ = root.set(Content { descriptor, bytes });
            }
            Ok((reference.clone(), Self { remote, root }))
        })?)
    }
}

impl Source for FromRegistry {
    fn name(&self) -> String {
        self.remote.reference().to_string()
    }

    fn root(&self) -> Result<Content> {
        if let Some(root) = self.root.get() {
            return Ok(root.clone());
        }
        let (descriptor, bytes) = self.remote.root()?;
        Ok(self.root.get_or_init(|| Content { descriptor, bytes }).clone())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        Ok(self.remote.document(descriptor)?)
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        from: u64,
        watch: Watch<'a>,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        let retry = move |e: &registry::Error| watch(Event::Retry(descriptor, e));
        Ok(self.remote.blob(descriptor, from, Box::new(retry)))
    }

    fn repository(&self, registry: &str, _: &Digest) -> Option<String> {
        let reference = self.remote.reference();
        (reference.registry() == registry).then(|| reference.repository().to_string())
    }
}

/// A name at a registry.
#[derive(Debug)]
pub struct ToRegistry {
    remote: Remote,
}

impl ToRegistry {
    /// The image will be called `reference`.
    ///
    /// # Errors
    /// Those of [`Remote::connect`].
    pub fn connect(reference: &Reference, options: &Options) -> Result<Self> {
        Ok(Self { remote: Remote::connect(reference, options)? })
    }

    /// Whether the blob is there now because another repository of the registry has it.
    fn mounted(&self, descriptor: &Descriptor, source: &dyn Source) -> Result<bool> {
        let here = self.remote.reference();
        match source.repository(here.registry(), &descriptor.digest) {
            Some(there) if there != here.repository() => Ok(self.remote.mount_blob(descriptor, &there)?),
            _ => Ok(false),
        }
    }
}

impl Sink for ToRegistry {
    fn put_blob(&self, descriptor: &Descriptor, open: Open<'_>, source: &dyn Source) -> Result<Put> {
        if self.remote.has_blob(descriptor)? || self.mounted(descriptor, source)? {
            return Ok(Put::Present);
        }
        // Where the content cannot be opened, that is the failure, with its own kind.
        let failed = RefCell::new(None);
        let content = |from| -> io::Result<Box<dyn Read + Send + '_>> {
            let inner = open(from).map_err(|e| {
                failed.replace(Some(e));
                io::Error::other("it cannot be opened")
            })?;
            // What goes on in the middle is verified by the registry alone.
            Ok(if from == 0 { Box::new(Verified::new(inner, descriptor)) } else { inner })
        };
        match (self.remote.upload_blob(descriptor, &content, &|_| ()), failed.take()) {
            (Err(_), Some(e)) => Err(e),
            (done, _) => Ok(done.map(|()| Put::Written)?),
        }
    }

    fn put_document(&self, content: &Content) -> Result<()> {
        let name = content.descriptor.digest.to_string();
        self.remote.put_document(&content.descriptor, &content.bytes, &name)?;
        Ok(())
    }

    fn finish(&self, root: &Content) -> Result<()> {
        let reference = self.remote.reference();
        check_digest(reference, reference.digest(), &root.descriptor.digest)?;
        match reference.tag() {
            Some(tag) => {
                self.remote.put_document(&root.descriptor, &root.bytes, tag)?;
                Ok(())
            }
            None => self.put_document(root),
        }
    }
}
