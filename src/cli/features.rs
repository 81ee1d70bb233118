//! `shipimg features`: what containers may ask for, as JSON (runtime-spec, features.md).

use super::{Context, Result};
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `features`.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    #[allow(clippy::unused_self, reason = "as all commands have it")]
    pub(super) fn run(&self, _: &Context) -> Result<ExitCode> {
        writeln!(std::io::stdout(), "{:#}", crate::run::features())?;
        Ok(ExitCode::SUCCESS)
    }
}
