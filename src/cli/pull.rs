//! `shipimg pull`: an image from a registry into the store.

use super::transfer::{Network, Report, Selection, Wanted, interrupted};
use super::{Context, Result};
use crate::transfer::{Options, Platforms, ToStore};
use std::process::ExitCode;

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image, as alpine, debian:bookworm, localhost:5000/app:1.2 or quay.io/org/app@sha256:…
    #[arg(value_name = "IMAGE")]
    wanted: Wanted,
    #[command(flatten)]
    selection: Selection,
    /// Fetch layers that lie outside the registry from their URLs, without credentials
    #[arg(long)]
    allow_foreign_layers: bool,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    report: Report,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let network = self.network.options(&context.limits);
        let (reference, source) = self.wanted.find(&network)?;
        let sink = ToStore::new(&store, reference.clone());
        let options = Options {
            platforms: self.selection.platforms(Platforms::Host),
            coding: None,
            foreign_layers: self.allow_foreign_layers,
            registry: network,
        };
        interrupted("\nerror: interrupted; the same pull goes on from here\n");
        let copied = self.report.copy(&store, &source, &sink, &options)?;
        self.report.print(&reference.to_string(), &copied, false)?;
        Ok(ExitCode::SUCCESS)
    }
}
