//! `shipimg images`: what the store holds.

use super::{Context, Result};
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `images`.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let mut out = std::io::stdout().lock();
        for entry in store.entries()? {
            let name = entry.reference.map_or_else(|| "<none>".to_string(), |r| r.to_string());
            writeln!(out, "{name}\t{}", entry.descriptor.digest)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
