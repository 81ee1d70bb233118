//! `shipimg attach`: the caller's standard streams joined to those of a container that
//! `run --detach` has begun. In a terminal ^P ^Q leaves it again.

use super::{Context, Error, Result};
use crate::run::Left;
use std::process::ExitCode;

/// Arguments of `attach`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's name
    pub(super) id: String,
    /// Pass nothing on to its standard input
    #[arg(long)]
    no_stdin: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let container = context.runtime()?.get(&self.id)?;
        match container.attach(!self.no_stdin).map_err(|e| Error::Launch(Box::new(e.into())))? {
            Left::Ended(code) => Ok(ExitCode::from(code)),
            Left::Detached => {
                say!("left {}, which goes on", self.id);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
