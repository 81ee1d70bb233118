//! `shipimg layer`: single layers of images.

use super::back::{Layering, Tagging, Work, sniff};
use super::{Context, Result};
use crate::layer::{self, Decoder};
use crate::oci::Name;
use crate::store::{self, Exceeded};
use std::fs::File;
use std::io;
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
        let read = |source| store::Error::Io { action: "read", path: add.tar.clone(), source };
        let mut file = File::open(&add.tar).map_err(read)?;
        let compression = sniff(&mut file).map_err(read)?;
        let (size, limits) = (file.metadata().map_err(read)?.len(), context.limits);
        let tar = Decoder::new(file, compression, limits.zstd_window_log).map_err(read)?;
        work.add_tar("layer add", &add.options, |out| {
            let copied = io::copy(&mut limits.guard(tar, size), out).map(drop);
            copied.map_err(|e| match e.downcast::<Exceeded>() {
                Ok(source) => layer::Error::File { path: add.tar.clone(), source },
                Err(e) => layer::Error::Output(e),
            })
        })?;
        work.publish(&new)?;
        Ok(ExitCode::SUCCESS)
    }
}
