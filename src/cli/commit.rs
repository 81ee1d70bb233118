//! `shipimg commit`: what was changed in a bundle or a container, as a layer of a new image.

use super::back::{Error, Layering, Work, write_options};
use super::{Context, Result};
use crate::bundle::Bundle;
use crate::layer;
use crate::oci::Reference;
use crate::rootfs::DriverKind;
use crate::store::Store;
use std::process::ExitCode;

/// Arguments of `commit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A bundle of the store, or a container
    #[arg(value_name = "BUNDLE|CONTAINER")]
    source: String,
    /// The new image's name
    #[arg(value_name = "IMAGE")]
    name: Reference,
    #[command(flatten)]
    options: Layering,
}

/// The bundle `name`, or that of the container `name`.
pub(super) fn bundle_of(context: &Context, store: &Store, name: &str) -> Result<Option<Bundle>> {
    if let Some(bundle) = Bundle::find(store, name)? {
        return Ok(Some(bundle));
    }
    match context.runtime()?.get(name) {
        Ok(container) => Ok(Bundle::in_folder(&container.state()?.bundle)?),
        Err(_) => Ok(None),
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let bundle = match bundle_of(context, &store, &self.source)? {
            Some(bundle) => bundle,
            // Says that it is not there.
            None => Bundle::open(&store, &self.source)?,
        };
        let image = bundle.needs().image.ok_or_else(|| Error::NoImage(self.source.clone()))?;
        let descriptor = store.by_digest(&image)?;
        let mut work = Work::of(store, &descriptor, &self.options.stepping)?;
        match bundle.driver() {
            Some(DriverKind::Overlay | DriverKind::Image) => {
                let upper = bundle.path().join("upper");
                work.add_layer("commit", &self.options, |tar| {
                    layer::write_upper(&upper, tar, &write_options()).map(drop)
                })?;
            }
            _ => work.add_difference("commit", &self.options, &bundle.rootfs(), None)?,
        }
        work.publish(&self.name)?;
        Ok(ExitCode::SUCCESS)
    }
}
