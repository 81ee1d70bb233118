//! `shipimg kill`: a signal to a container.

use super::{Context, Result};
use crate::run;
use crate::sys::signal;
use std::process::ExitCode;

/// Arguments of `kill`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's name
    id: String,
    /// By name or number
    #[arg(default_value = "TERM")]
    signal: String,
    /// To all of its processes, not the first one only
    #[arg(short, long)]
    all: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let number = signal::parse(&self.signal).ok_or_else(|| run::Error::Invalid {
            field: "signal".into(),
            reason: format!("unknown signal {:?}", self.signal),
        })?;
        context.runtime()?.get(&self.id)?.kill(number, self.all)?;
        Ok(ExitCode::SUCCESS)
    }
}
