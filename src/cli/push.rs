//! `shipimg push`: an image of the store to a registry.

use super::transfer::{Network, Report, Selection, interrupted};
use super::{Context, Result};
use crate::layer::Coding;
use crate::oci::{Name, Reference};
use crate::transfer::{FromStore, Options, Platforms, ToRegistry, push_referrers};
use std::process::ExitCode;

/// Arguments of `push`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image in the store: its name, the end of it, or its digest's first digits
    #[arg(value_name = "IMAGE")]
    name: Name,
    /// Where to, as localhost:5000/app:1.2 [default: the image's own name]
    #[arg(value_name = "REFERENCE")]
    to: Option<Reference>,
    #[command(flatten)]
    selection: Selection,
    /// Compress layers otherwise where they are not so yet: gzip, zstd or none, as in zstd:19
    #[arg(long, value_name = "FORMAT[:LEVEL]")]
    compression: Option<Coding>,
    /// Push what refers to the image, too: reports of verify, signatures, lists of packages
    #[arg(long)]
    referrers: bool,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    report: Report,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let entry = store.find(&self.name)?;
        let to = match (&self.to, &entry.reference) {
            (Some(to), _) => to.clone(),
            (None, Some(own)) => own.clone(),
            (None, None) => self.name.reference()?,
        };
        let network = self.network.options(&context.limits);
        let sink = ToRegistry::connect(&to, &network)?;
        let source = FromStore::new(&store, entry);
        let options = Options {
            platforms: self.selection.platforms(Platforms::All),
            coding: self.compression,
            foreign_layers: false,
            registry: network,
        };
        interrupted("\nerror: interrupted; the same push leaves out what is there already\n");
        let copied = self.report.copy(&store, &source, &sink, &options)?;
        self.report.print(&to.to_string(), &copied, false)?;
        if self.referrers {
            for referrer in push_referrers(&store, &copied.root.digest, &to, &options)? {
                say!("referrer {}", referrer.digest);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
