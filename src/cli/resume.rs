//! `shipimg resume`: lets the processes of a paused container go on.

use super::{Context, Result};
use std::process::ExitCode;

/// Arguments of `resume`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's name
    id: String,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        context.runtime()?.get(&self.id)?.resume()?;
        Ok(ExitCode::SUCCESS)
    }
}
