//! `shipimg start`: lets a created container begin.

use super::{Context, Result};
use crate::run::Notify;
use std::process::ExitCode;

/// Arguments of `start`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's name
    id: String,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        context.runtime()?.get(&self.id)?.start(Notify::inherited().as_ref())?;
        Ok(ExitCode::SUCCESS)
    }
}
