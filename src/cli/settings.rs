//! The options of a container, the same for `bundle create` and `run`.

use super::Result;
use crate::bundle::{self, Net, Settings};

/// Options that change what the image says.
#[derive(Debug, clap::Args)]
pub struct Overrides {
    /// Set an environment variable
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// Host name inside [default: the container's name]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Add capabilities, as `NET_RAW,NET_ADMIN`
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    cap_add: Vec<String>,
    /// Network: none, host, private (a veth pair) or ns:NAME (join `/run/netns/NAME`)
    #[arg(long, value_name = "NET")]
    net: Option<String>,
    /// Make the root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// Make the root filesystem writable, which is the default
    #[arg(long, overrides_with = "read_only")]
    rw: bool,
}

/// An environment variable as a process has it.
///
/// # Errors
/// A text without a name or without `=`.
pub fn variable(text: &str) -> std::result::Result<String, String> {
    if text.find('=').is_some_and(|at| at > 0) {
        Ok(text.to_string())
    } else {
        Err("wanted NAME=VALUE".to_string())
    }
}

impl Overrides {
    /// Whether any option is given.
    pub fn any(&self) -> bool {
        !self.env.is_empty()
            || !self.cap_add.is_empty()
            || self.hostname.is_some()
            || self.net.is_some()
            || self.read_only
            || self.rw
    }

    /// The settings, with the program and its arguments.
    ///
    /// # Errors
    /// [`bundle::Error::Setting`].
    pub fn settings(&self, args: &[String], terminal: bool) -> Result<Settings> {
        let cap_add = self.cap_add.iter().map(|c| bundle::capability(c));
        Ok(Settings {
            args: args.to_vec(),
            env: self.env.clone(),
            hostname: self.hostname.clone(),
            cap_add: cap_add.collect::<bundle::Result<_>>()?,
            net: self.net.as_deref().map_or(Ok(Net::None), str::parse)?,
            read_only: self.read_only && !self.rw,
            terminal,
        })
    }
}
