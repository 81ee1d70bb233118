//! Registries as source.

use super::{Content, Event, Result, Source, Watch};
use crate::oci::{Descriptor, Digest, Reference};
use crate::registry::{self, Options, Remote};
use std::io::Read;

/// An image at a registry.
#[derive(Debug)]
pub struct FromRegistry {
    remote: Remote,
}

impl FromRegistry {
    /// The image of `reference`.
    ///
    /// # Errors
    /// Those of [`Remote::connect`].
    pub fn connect(reference: &Reference, options: &Options) -> Result<Self> {
        Ok(Self { remote: Remote::connect(reference, options)? })
    }
}

impl Source for FromRegistry {
    fn name(&self) -> String {
        self.remote.reference().to_string()
    }

    fn root(&self) -> Result<Content> {
        let (descriptor, bytes) = self.remote.root()?;
        Ok(Content { descriptor, bytes })
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
        Ok(Box::new(self.remote.blob(descriptor, from, Box::new(retry))))
    }

    fn repository(&self, registry: &str, _: &Digest) -> Option<String> {
        let reference = self.remote.reference();
        (reference.registry() == registry).then(|| reference.repository().to_string())
    }
}
