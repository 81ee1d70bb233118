//! `shipimg spec`: writes a default `config.json`.

use super::{Context, Error, Result};
use crate::bundle::spec;
use crate::run;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `spec`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle's folder
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    bundle: PathBuf,
    /// For a user without privileges
    #[arg(long)]
    rootless: bool,
}

impl Args {
    pub(super) fn run(&self, _: &Context) -> Result<ExitCode> {
        let path = self.bundle.join("config.json");
        let io = |action, source| Error::Run(run::Error::Io { action, path: path.clone(), source });
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let spec = if self.rootless { spec::rootless_spec(uid, gid) } else { spec::default_spec() };
        let spec = spec.map_err(|e| io("make", std::io::Error::other(e)))?;
        let text = spec::text(&spec).map_err(|e| io("make", e.into()))?;
        let mut file = std::fs::File::create_new(&path).map_err(|e| io("create", e))?;
        file.write_all(text.as_bytes()).map_err(|e| io("write", e))?;
        Ok(ExitCode::SUCCESS)
    }
}
