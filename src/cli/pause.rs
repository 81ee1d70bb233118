//! `shipimg pause`: freezes a container's processes.

use super::{Context, Result};
use std::process::ExitCode;

/// Arguments of `pause`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's name
    id: String,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        context.runtime()?.get(&self.id)?.pause()?;
        Ok(ExitCode::SUCCESS)
    }
}
