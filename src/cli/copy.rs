//! `shipimg copy`: an image from any place to any other.

use super::export::archive_target;
use super::import::{archive_source, source_date};
use super::transfer::{Connections, Report, Selection};
use super::{Context, Result, tidily};
use crate::archive::{self, Reader, Writer};
use crate::layer::Coding;
use crate::registry::{self, Credentials};
use crate::store::Store;
use crate::transfer::{FromArchive, FromRegistry, FromStore, Location, Options, Platforms, Sink, Source};
use crate::transfer::{ToArchive, ToRegistry, ToStore};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `copy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// From where: `docker://REFERENCE`, oci:DIR[:NAME], oci-archive:FILE[:NAME],
    /// docker-archive:FILE[:NAME], dir:DIR or a name in the store; FILE may be -
    #[arg(value_name = "SOURCE")]
    from: Location,
    /// Where to, likewise
    #[arg(value_name = "DESTINATION")]
    to: Location,
    #[command(flatten)]
    selection: Selection,
    /// Compress layers otherwise where they are not so yet: gzip, zstd or none, as in zstd:19
    #[arg(long, value_name = "FORMAT[:LEVEL]")]
    compression: Option<Coding>,
    /// Fetch layers that lie outside the registry from their URLs, without credentials
    #[arg(long)]
    allow_foreign_layers: bool,
    /// Log in to the source with these
    #[arg(long, value_name = "USER:PASSWORD", env = "SHIPIMG_SRC_CREDS", hide_env_values = true)]
    src_creds: Option<Credentials>,
    /// Log in to the destination with these
    #[arg(long, value_name = "USER:PASSWORD", env = "SHIPIMG_DEST_CREDS", hide_env_values = true)]
    dest_creds: Option<Credentials>,
    /// With false: accept any certificate of the source, and plain http
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    src_tls_verify: bool,
    /// With false: accept any certificate of the destination, and plain http
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    dest_tls_verify: bool,
    /// Give up on a connection that brings nothing for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    stall_timeout: u64,
    #[command(flatten)]
    connections: Connections,
    #[command(flatten)]
    report: Report,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        // What is written beside a target of the user's is taken away also after a signal.
        tidily(|| self.copy(context))
    }

    fn copy(&self, context: &Context) -> Result<()> {
        let store = context.store()?;
        let scratch = store.scratch_aside()?;
        let reader = self.reader(&store, scratch.path())?;
        let writer = self.writer(&store, scratch.path())?;
        let network = self.options(&store, self.src_creds.as_ref(), self.src_tls_verify);
        let source: Box<dyn Source + '_> = match (&self.from, &reader) {
            (Location::Archive { name, .. }, Some(reader)) => {
                Box::new(FromArchive::new(reader, reader.image(name.as_deref())?))
            }
            (Location::Registry(name), _) => Box::new(FromRegistry::find(name, &network)?.1),
            (from, _) => Box::new(FromStore::new(&store, store.find(&from.in_store()?)?)),
        };
        let there = self.options(&store, self.dest_creds.as_ref(), self.dest_tls_verify);
        let sink: Box<dyn Sink + '_> = match (&self.to, &writer) {
            (Location::Archive { name, .. }, Some(writer)) => {
                Box::new(ToArchive::new(writer, name.iter().cloned().collect()))
            }
            (Location::Registry(name), _) => Box::new(ToRegistry::connect(&name.parse()?, &there)?),
            (to, _) => Box::new(ToStore::new(&store, to.in_store()?.reference()?)),
        };
        let options = Options {
            // As skopeo does: one image, unless all are asked for.
            platforms: self.selection.platforms(Platforms::Host),
            coding: self.compression,
            foreign_layers: self.allow_foreign_layers,
            registry: network,
        };
        let copied = self.report.copy(&store, &*source, &*sink, &options)?;
        drop(sink);
        if let Some(writer) = writer {
            writer.finish()?;
        }
        let to_stdout = matches!(&self.to, Location::Archive { path, .. } if path.as_os_str() == "-");
        self.report.print(&self.to.to_string(), &copied, to_stdout)
    }

    fn reader(&self, store: &Store, scratch: &Path) -> Result<Option<Reader>> {
        let Location::Archive { kind, path, .. } = &self.from else { return Ok(None) };
        let options =
            archive::Options { kind: Some(*kind), limits: *store.limits(), ..archive::Options::default() };
        Ok(Some(Reader::open(&archive_source(path)?, scratch, &options)?))
    }

    fn writer(&self, store: &Store, scratch: &Path) -> Result<Option<Writer>> {
        let Location::Archive { kind, path, .. } = &self.to else { return Ok(None) };
        let target = archive_target(path)?;
        let time = source_date().unwrap_or(0);
        Ok(Some(Writer::create(*kind, &target, scratch, time, *store.limits())?))
    }

    fn options(
        &self,
        store: &Store,
        credentials: Option<&Credentials>,
        tls_verify: bool,
    ) -> registry::Options {
        let stall = Duration::from_secs(self.stall_timeout);
        let (connections, document) = (self.connections.count(), store.limits().document);
        registry::Options { credentials: credentials.cloned(), tls_verify, stall, connections, document }
    }
}
