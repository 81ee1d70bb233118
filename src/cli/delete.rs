//! `shipimg delete`: takes a container away.

use super::{Context, Result};
use crate::run::Error;
use std::process::ExitCode;

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The containers' names
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Kill it first where it runs; no error where it does not exist
    #[arg(short, long)]
    force: bool,
}

/// The name, where there is one only.
pub(super) fn only(ids: &[String]) -> Option<&str> {
    match ids {
        [id] => Some(id),
        _ => None,
    }
}

impl Args {
    /// The container's name, where there is one only.
    pub(super) fn container(&self) -> Option<&str> {
        only(&self.ids)
    }

    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let runtime = context.runtime()?;
        for id in &self.ids {
            match runtime.get(id).and_then(|container| container.delete(self.force)) {
                Err(Error::NoContainer { .. }) if self.force => {}
                other => other?,
            }
        }
        runtime.sweep()?;
        Ok(ExitCode::SUCCESS)
    }
}
