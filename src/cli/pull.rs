//! `shipimg pull`: an image from a registry into the store.

use super::progress::Progress;
use super::{Context, Result};
use crate::oci::{Platform, Reference};
use crate::registry::{self, Credentials, Options, Remote};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image, as alpine, debian:bookworm, localhost:5000/app:1.2 or quay.io/org/app@sha256:…
    #[arg(value_name = "IMAGE")]
    reference: Reference,
    /// Take the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Log in with these instead of the credentials in podman's and docker's files
    #[arg(long, value_name = "USER:PASSWORD", env = "SHIPIMG_CREDS", hide_env_values = true)]
    creds: Option<Credentials>,
    /// With false: accept any certificate, and plain http from any host
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    tls_verify: bool,
    /// Give up on a connection that brings nothing for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    stall_timeout: u64,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let options = Options {
            credentials: self.creds.clone(),
            tls_verify: self.tls_verify,
            stall: Duration::from_secs(self.stall_timeout),
        };
        let progress = Progress::new(self.quiet);
        let remote = Remote::connect(&self.reference, &options)?;
        let image = registry::pull(&store, &remote, self.platform.as_ref(), &|event| progress.show(&event));
        progress.clear();
        writeln!(std::io::stdout(), "{} {}", self.reference, image?.descriptor.digest)?;
        Ok(ExitCode::SUCCESS)
    }
}
