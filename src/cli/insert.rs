//! `shipimg insert`: a file or a folder into an image, as a layer.

use super::back::{Layering, Tagging, Work, image_path, write_options};
use super::{Context, Result};
use crate::layer;
use crate::oci::Name;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `insert`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: a reference, the end of one, or a digest
    name: Name,
    /// The file or folder; with --whiteout the path in the image that goes
    source: PathBuf,
    /// What it is called in the image
    #[arg(value_name = "TARGET", required_unless_present = "whiteout", conflicts_with = "whiteout")]
    target: Option<PathBuf>,
    /// The folder replaces what the image has there
    #[arg(long)]
    opaque: bool,
    /// Delete a path of the image instead
    #[arg(long, conflicts_with = "opaque")]
    whiteout: bool,
    #[command(flatten)]
    tagging: Tagging,
    #[command(flatten)]
    options: Layering,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let stepping = &self.options.stepping;
        let (mut work, new) = Work::named(context, &self.name, &self.tagging, stepping)?;
        let path = image_path(self.target.as_ref().unwrap_or(&self.source))?;
        work.add_layer("insert", &self.options, |tar| match &self.target {
            None => layer::write_whiteout(&path, tar),
            Some(_) => {
                layer::write_inserted(&self.source, &path, self.opaque, tar, &write_options(None)).map(drop)
            }
        })?;
        work.publish(&new)?;
        Ok(ExitCode::SUCCESS)
    }
}
