//! Archives and folders of images as source and sink.

use super::{Content, Error, Open, Put, Result, Sink, Source, Watch};
use crate::archive::{self, Found, Reader, Writer};
use crate::oci::Descriptor;
use std::io::Read;

/// An image of an archive.
#[derive(Debug)]
pub struct FromArchive<'a> {
    reader: &'a Reader,
    found: &'a Found,
}

impl<'a> FromArchive<'a> {
    /// The image `found` of `reader`.
    #[must_use]
    pub const fn new(reader: &'a Reader, found: &'a Found) -> Self {
        Self { reader, found }
    }
}

impl Source for FromArchive<'_> {
    fn name(&self) -> String {
        self.found.names.first().cloned().unwrap_or_else(|| self.found.descriptor.digest.to_string())
    }

    fn root(&self) -> Result<Content> {
        let d = &self.found.descriptor;
        let bytes = self.reader.document(d)?;
        Ok(Content { descriptor: d.plain(), bytes })
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        Ok(self.reader.document(descriptor)?)
    }

    fn blob<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        from: u64,
        _: Watch<'a>,
    ) -> Result<Box<dyn Read + Send + 'a>> {
        Ok(self.reader.blob(descriptor, from)?)
    }
}

/// A place in an archive that is being written; the caller ends it with [`Writer::finish`].
#[derive(Debug)]
pub struct ToArchive<'a> {
    writer: &'a Writer,
    names: Vec<String>,
}

impl<'a> ToArchive<'a> {
    /// The image will be called `names` there.
    #[must_use]
    pub const fn new(writer: &'a Writer, names: Vec<String>) -> Self {
        Self { writer, names }
    }

    /// What the writer fails with, or what the reader of the content did.
    fn failed(&self, e: archive::Error) -> Error {
        match e {
            archive::Error::Write { archive, source } if source.raw_os_error().is_none() => {
                let name = self.names.first().cloned().unwrap_or(archive);
                Error::of_io(&name, "write an archive", source)
            }
            e => e.into(),
        }
    }
}

impl Sink for ToArchive<'_> {
    fn wants_oci(&self) -> bool {
        self.writer.wants_oci()
    }

    fn in_order(&self) -> bool {
        self.writer.is_stream()
    }

    fn put_blob(&self, descriptor: &Descriptor, open: Open<'_>, _: &dyn Source) -> Result<Put> {
        if self.writer.has(descriptor) {
            return Ok(Put::Present);
        }
        self.writer.put_blob(descriptor, &mut open(0)?).map_err(|e| self.failed(e))?;
        Ok(Put::Written)
    }

    fn put_document(&self, content: &Content) -> Result<()> {
        self.writer.put_document(&content.descriptor, &content.bytes).map_err(|e| self.failed(e))
    }

    fn finish(&self, root: &Content) -> Result<()> {
        self.put_document(root)?;
        Ok(self.writer.add(&root.descriptor, &self.names)?)
    }
}
