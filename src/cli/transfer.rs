//! The options of commands that transfer images.

use super::Result;
use super::progress::{Progress, Style};
use crate::oci::{self, Platform, Reference};
use crate::registry::{self, Credentials};
use crate::store::{self, Limits, Store};
use crate::sys::signal;
use crate::transfer::{self, Copied, FromRegistry, Options, Platforms, Sink, Source};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// An image at a registry, as typed: a reference, which may be a short name.
#[derive(Debug, Clone)]
pub struct Wanted(String);

impl FromStr for Wanted {
    type Err = oci::Error;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        text.parse::<Reference>().map(|_| Self(text.to_string()))
    }
}

impl Wanted {
    /// The image, found by the machine's `registries.conf`, and its full name.
    pub fn find(&self, options: &registry::Options) -> Result<(Reference, FromRegistry)> {
        Ok(FromRegistry::find(&self.0, options)?)
    }
}

/// Has `words` said when the user breaks a transfer off, on a terminal below the bars.
pub fn interrupted(words: &'static str) {
    signal::explain(if std::io::stderr().is_terminal() { words } else { words.trim_start() });
}

/// Which images of an index.
#[derive(Debug, clap::Args)]
pub struct Selection {
    /// Take the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Take the index and the images for all platforms
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
}

impl Selection {
    /// The platforms; without any option `default`.
    pub fn platforms(&self, default: Platforms) -> Platforms {
        match (&self.platform, self.all_platforms) {
            (Some(platform), _) => Platforms::One(platform.clone()),
            (None, true) => Platforms::All,
            (None, false) => default,
        }
    }
}

/// How servers are spoken to.
#[derive(Debug, Clone, clap::Args)]
pub struct Network {
    /// Log in with these instead of the credentials in podman's and docker's files
    #[arg(long, value_name = "USER:PASSWORD", env = "SHIPIMG_CREDS", hide_env_values = true)]
    creds: Option<Credentials>,
    /// With false: accept any certificate, and plain http from any host
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    tls_verify: bool,
    /// Give up on a connection that brings nothing for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    stall_timeout: u64,
    #[command(flatten)]
    connections: Connections,
}

/// How large blobs are fetched.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Connections {
    /// Fetch each blob of more than 32 MiB over so many connections, by ranges
    #[arg(long = "connections-per-blob", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    count: u8,
}

impl Connections {
    /// Their number.
    pub fn count(self) -> usize {
        self.count.into()
    }
}

impl Network {
    /// The options of the registry room.
    pub fn options(&self, limits: &Limits) -> registry::Options {
        registry::Options {
            credentials: self.creds.clone(),
            tls_verify: self.tls_verify,
            stall: Duration::from_secs(self.stall_timeout),
            connections: self.connections.count(),
            document: limits.document,
        }
    }
}

/// What a transfer shows and writes.
#[derive(Debug, clap::Args)]
pub struct Report {
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// How to show progress, on standard error
    #[arg(long, value_enum, default_value_t = Style::Auto, value_name = "STYLE")]
    progress: Style,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write the digest of the result into this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// One line: name and digest
    Text,
    /// An object, see docs/json.md
    Json,
}

impl Report {
    /// Copies, with progress.
    pub fn copy(
        &self,
        store: &Store,
        source: &dyn Source,
        sink: &dyn Sink,
        options: &Options,
    ) -> Result<Copied> {
        let progress = Progress::new(if self.quiet { Style::None } else { self.progress });
        let copied = transfer::copy(source, sink, options, store, &|event| progress.show(&event));
        progress.clear();
        Ok(copied?)
    }

    /// Prints what was copied to `name`; to standard error where standard output is the image's.
    pub fn print(&self, name: &str, copied: &Copied, to_stderr: bool) -> Result<()> {
        if let Some(file) = &self.digestfile {
            std::fs::write(file, format!("{}\n", copied.root.digest)).map_err(|source| {
                let path = file.clone();
                store::Error::Io { action: "write", path, source }
            })?;
        }
        let text = match self.format {
            Format::Text => format!("{name} {}", copied.root.digest),
            Format::Json => format!("{:#}", describe(name, copied)),
        };
        if to_stderr {
            say!("{text}");
        } else {
            writeln!(std::io::stdout(), "{text}")?;
        }
        Ok(())
    }
}

fn describe(name: &str, copied: &Copied) -> Value {
    json!({
        "name": name,
        "digest": copied.root.digest,
        "mediaType": copied.root.media_type,
        "blobs": copied.blobs,
        "size": copied.size,
        "transferred": copied.transferred,
    })
}
