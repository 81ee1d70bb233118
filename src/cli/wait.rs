//! `shipimg wait`: until containers end; prints their exit codes, one a line.

use super::{Context, Result};
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `wait`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The containers' names
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let runtime = context.runtime()?;
        for id in &self.ids {
            let code = runtime.get(id)?.wait()?;
            writeln!(std::io::stdout(), "{code}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
