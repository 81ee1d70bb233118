//! `shipimg run`: create, start, wait, delete.
//!
//! `run -b BUNDLE ID`, as other runtimes have it, or `run BUNDLE [-- CMD…]`, where the
//! container is named after the folder. The exit code is the program's; 128 and the signal
//! where one ended it; 125 where shipimg failed, 126 where the program cannot be executed,
//! 127 where it is not there.

use super::create::Options;
use super::{Context, Error, Result};
use crate::run::{self, Launch};
use crate::sys::selfexe;
use std::path::Path;
use std::process::ExitCode;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A bundle's folder; with --bundle, the container's name
    #[arg(value_name = "BUNDLE|ID")]
    what: String,
    /// The container's name [default: the folder's]
    #[arg(long)]
    name: Option<String>,
    /// Do not delete the container after its end
    #[arg(long)]
    keep: bool,
    /// Do not wait for its end
    #[arg(short, long)]
    detach: bool,
    /// Program and arguments instead of the bundle's
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
    #[command(flatten)]
    options: Options,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode> {
        self.launch(context).map_err(|e| match e {
            Error::Run(e) => Error::Launch(e),
            Error::Store(e) => Error::Launch(e.into()),
            Error::Sys(e) => Error::Launch(e.into()),
            other => other,
        })
    }

    fn launch(self, context: &Context) -> Result<ExitCode> {
        selfexe::protect()?;
        let runtime = context.runtime()?;
        let (keep, detach) = (self.keep, self.detach);
        let launch = self.plan()?;
        if detach {
            let container = launch.create(&runtime)?;
            if let Err(e) = container.start() {
                container.delete(true)?;
                return Err(e.into());
            }
            return Ok(ExitCode::SUCCESS);
        }
        Ok(ExitCode::from(launch.run(&runtime, keep)?.code()))
    }

    /// What is to be launched: the folder that is named, or the one of --bundle.
    fn plan(self) -> run::Result<Launch> {
        let mut options = self.options;
        let folder = Path::new(&self.what);
        let id = if options.bundle == Path::new(".") && folder.join("config.json").is_file() {
            options.bundle = folder.to_path_buf();
            self.name.unwrap_or_else(|| run::id_of(folder))
        } else {
            self.name.unwrap_or(self.what)
        };
        Ok(Launch { args: self.command, ..options.launch(id)? })
    }
}
