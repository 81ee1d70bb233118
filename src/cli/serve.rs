//! `shipimg serve`: the store as a registry.

use super::{Context, Result};
use crate::serve::{self, Options, Users};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// Let nobody push or delete
    #[arg(long)]
    read_only: bool,
    /// Let only the users of this file in, with passwords hashed by `htpasswd -B`
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// Speak https with this certificate (PEM, the chain in one file)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode> {
        let options = Options {
            listen: self.listen,
            read_only: self.read_only,
            users: self.htpasswd.as_deref().map(Users::read).transpose()?,
            tls: self.tls_cert.zip(self.tls_key),
        };
        // Served whether or not anybody reads the line.
        serve::run(&context.store()?, options, |url| {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "listening on {url}").and_then(|()| out.flush());
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
