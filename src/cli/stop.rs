//! `shipimg stop`: asks containers to end, and kills those that do not.

use super::{Context, Result};
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `stop`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The containers' names
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Seconds until it is killed
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    time: u64,
    /// Another signal than the image's, by name or number
    #[arg(short, long, value_parser = super::kill::signal)]
    signal: Option<i32>,
}

impl Args {
    /// The container's name, where there is one only.
    pub(super) fn container(&self) -> Option<&str> {
        super::delete::only(&self.ids)
    }

    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let runtime = context.runtime()?;
        for id in &self.ids {
            runtime.get(id)?.stop(self.signal, Duration::from_secs(self.time))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
