//! `shipimg layer`: single layers of images.

use super::back::{Layering, Tagging, Work};
use super::{Context, Result};
use crate::oci::Name;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `layer`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Put a tar on top of an image as a layer, whiteouts and all
    Add(Add),
}

#[derive(Debug, clap::Args)]
struct Add {
    /// The image: a reference, the end of one, or a digest
    name: Name,
    /// The tar; it may be compressed by gzip or zstd
    tar: PathBuf,
    #[command(flatten)]
    tagging: Tagging,
    #[command(flatten)]
    options: Layering,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let Command::Add(add) = &self.command;
        let stepping = &add.options.stepping;
        let (mut work, new) = Work::named(context, &add.name, &add.tagging, stepping)?;
        work.add_tar("layer add", &add.options, &add.tar)?;
        work.publish(&new)?;
        Ok(ExitCode::SUCCESS)
    }
}
