//! `shipimg state`: a container's state as JSON (runtime-spec, State).

use super::{Context, Result};
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `state`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's name
    id: String,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let (state, status) = context.runtime()?.get(&self.id)?.status()?;
        writeln!(std::io::stdout(), "{:#}", state.document(status))?;
        Ok(ExitCode::SUCCESS)
    }
}
