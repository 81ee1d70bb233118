//! `shipimg repack`: what was changed in a folder of `unpack`, as a layer of a new image.

use super::back::{Error, Known, Layering, Work, read_manifest};
use super::{Context, Result};
use crate::bundle::{RECORD, Unpacked};
use crate::layer::Record;
use crate::oci::Reference;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `repack`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that `unpack` has made
    dir: PathBuf,
    /// The new image's name
    #[arg(value_name = "IMAGE")]
    name: Reference,
    #[command(flatten)]
    options: Layering,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let unpacked = Unpacked::read(&self.dir)?.ok_or_else(|| Error::NotUnpacked(self.dir.clone()))?;
        let root = self.dir.join("rootfs");
        let known = match &unpacked.mtree {
            Some(mtree) => Known::Manifest(read_manifest(&self.dir.join(mtree))?),
            None => Record::read(&self.dir.join(RECORD))?.map_or(Known::Nothing, Known::Record),
        };
        let mut work = Work::of(context.store()?, &unpacked.descriptor(), &self.options.stepping)?;
        work.add_difference("repack", &self.options, &root, &known)?;
        work.publish(&self.name)?;
        Ok(ExitCode::SUCCESS)
    }
}
