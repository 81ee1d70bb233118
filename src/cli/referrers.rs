//! `shipimg referrers`: the artifacts that refer to an image.

use super::table::{self, Format};
use super::transfer::Network;
use super::{Context, Result, printable};
use crate::registry::{Config, Remote};
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `referrers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image at a registry
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Only artifacts of this type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    #[command(flatten)]
    network: Network,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode> {
        let options = self.network.options(&context.limits);
        let (reference, subject, found) = Config::load()?.first(&self.image, |reference| {
            let remote = Remote::connect(reference, &options)?;
            let subject = match reference.digest() {
                Some(digest) => digest.clone(),
                None => remote.root()?.0.digest,
            };
            let found = remote.referrers(&subject, self.artifact_type.as_deref())?;
            Ok((reference.clone(), subject, found))
        })?;
        let mut out = std::io::stdout().lock();
        if self.format == Format::Json {
            let json = json!({ "reference": reference.to_string(), "digest": subject, "referrers": found });
            writeln!(out, "{json:#}")?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<[String; 3]> = found
            .iter()
            .map(|d| {
                let kind = d.artifact_type.as_ref().unwrap_or(&d.media_type);
                [d.digest.to_string(), d.size.to_string(), printable(kind)]
            })
            .collect();
        table::print(&mut out, ["DIGEST", "SIZE", "TYPE"], &rows)?;
        Ok(ExitCode::SUCCESS)
    }
}
