//! `shipimg kill`: a signal to a container.

use super::{Context, Result};
use crate::sys::signal;
use std::process::ExitCode;

/// Arguments of `kill`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's name
    pub(super) id: String,
    /// By name or number
    #[arg(default_value = "TERM", value_parser = signal)]
    signal: i32,
    /// To all of its processes, not the first one only
    #[arg(short, long)]
    all: bool,
}

/// A signal by name or number.
///
/// # Errors
/// One that is not known.
pub(super) fn signal(text: &str) -> std::result::Result<i32, String> {
    signal::parse(text).ok_or_else(|| "unknown signal".to_string())
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        context.runtime()?.get(&self.id)?.kill(self.signal, self.all)?;
        Ok(ExitCode::SUCCESS)
    }
}
