//! `shipimg tags`: the tags of a repository, all pages.

use super::table::Format;
use super::transfer::Network;
use super::{Context, Result, printable};
use crate::registry::{Config, Remote};
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `tags`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Repository, as alpine or localhost:5000/app
    #[arg(value_name = "REPOSITORY")]
    repository: String,
    /// Print so many at most
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, hide_default_value = true)]
    limit: usize,
    #[command(flatten)]
    network: Network,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode> {
        let options = self.network.options(&context.limits);
        let (name, tags) = Config::load()?.first(&self.repository, |reference| {
            let tags = Remote::connect(reference, &options)?.tags(self.limit)?;
            Ok((reference.full_name(), tags))
        })?;
        let mut text = String::new();
        match self.format {
            Format::Json => text = format!("{:#}\n", json!({ "repository": name, "tags": tags })),
            Format::Table => tags.iter().for_each(|t| text.extend([&printable(t), "\n"])),
        }
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}
