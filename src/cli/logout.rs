//! `shipimg logout`: forgets credentials.

use super::Result;
use super::login::Error;
use crate::registry::{Scope, forget_all};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `logout`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Registry, or a namespace of it
    #[arg(value_name = "REGISTRY[/NAMESPACE]", required_unless_present = "all", conflicts_with = "all")]
    scope: Option<Scope>,
    /// Forget all that the file holds
    #[arg(short, long)]
    all: bool,
    /// The file with the credentials
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self) -> Result<ExitCode> {
        let file = self.authfile.as_deref();
        let mut out = std::io::stdout();
        let Some(scope) = self.scope else {
            forget_all(file)?;
            writeln!(out, "logged out of all registries")?;
            return Ok(ExitCode::SUCCESS);
        };
        if !scope.forget(file)? {
            return Err(Error::NotLoggedIn(scope.to_string()).into());
        }
        writeln!(out, "logged out of {scope}")?;
        if scope.kept(file)?.is_some() {
            tracing::warn!("other files still have credentials for {scope}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
