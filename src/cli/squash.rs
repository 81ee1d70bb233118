//! `shipimg squash`: an image with all its layers in one.

use super::back::{Layering, Tagging, Work, write_options};
use super::{Context, Result};
use crate::layer;
use crate::oci::Name;
use std::process::ExitCode;

/// Arguments of `squash`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: a reference, the end of one, or a digest
    name: Name,
    #[command(flatten)]
    tagging: Tagging,
    #[command(flatten)]
    options: Layering,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let stepping = &self.options.stepping;
        let (mut work, new) = Work::named(context, &self.name, &self.tagging, stepping)?;
        let scratch = work.store.scratch()?;
        let root = scratch.path().join("rootfs");
        let owners = work.unpack(&root)?;
        work.edit.clear_layers();
        work.add_layer("squash", &self.options, |tar| {
            layer::write_tree(&root, tar, &write_options(Some(owners))).map(drop)
        })?;
        work.publish(&new)?;
        Ok(ExitCode::SUCCESS)
    }
}
