//! `shipimg commit`: what was changed in a bundle or a container, as a layer of a new image.

use super::back::{Error, Known, Layering, Work, write_options};
use super::{Context, Result};
use crate::bundle::{self, Bundle, Unpacked};
use crate::error::Kind;
use crate::layer;
use crate::oci::{Digest, Reference};
use crate::rootfs::{Access, DriverKind};
use crate::store::Store;
use std::path::PathBuf;
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

/// The files of a bundle or a container.
pub(super) struct Files {
    /// The root filesystem.
    pub root: PathBuf,
    /// The image that it was made from.
    pub image: Option<Digest>,
    /// The upper directory of its overlay.
    upper: Option<PathBuf>,
}

impl Files {
    /// Of a bundle, mounted.
    pub(super) fn of(bundle: &Bundle) -> Result<Self> {
        bundle.mount(Access::Read)?;
        let overlaid = matches!(bundle.driver(), Some(DriverKind::Overlay | DriverKind::Image));
        let upper = overlaid.then(|| bundle.path().join("upper"));
        let own = bundle.rootfs();
        // One without a driver is the folder that it was made from.
        let root = if own.is_dir() { own } else { PathBuf::from(bundle.origin()) };
        Ok(Self { root, image: bundle.needs().image, upper })
    }

    /// Of the bundle `name`, or else the container `name`, if there is one.
    pub(super) fn named(context: &Context, store: &Store, name: &str) -> Result<Option<Self>> {
        if let Some(bundle) = Bundle::find(store, name)? {
            return Self::of(&bundle).map(Some);
        }
        let state = match context.runtime()?.get(name).and_then(|c| c.state()) {
            Ok(state) => state,
            Err(e) if matches!(e.kind(), Kind::Missing | Kind::Input) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        if let Some(bundle) = Bundle::in_folder(&state.bundle)? {
            return Self::of(&bundle).map(Some);
        }
        let image = Unpacked::read(&state.bundle)?.map(|u| u.image);
        Ok(Some(Self { root: state.rootfs, image, upper: None }))
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let Some(files) = Files::named(context, &store, &self.source)? else {
            return Err(bundle::Error::Missing(self.source.clone()).into());
        };
        let image = files.image.ok_or_else(|| Error::NoImage(self.source.clone()))?;
        let descriptor = store.by_digest(&image)?;
        let mut work = Work::of(store, &descriptor, &self.options.stepping)?;
        match files.upper {
            Some(upper) => work.add_layer("commit", &self.options, |tar| {
                layer::write_upper(&upper, tar, &write_options(None)).map(drop)
            })?,
            None => work.add_difference("commit", &self.options, &files.root, &Known::Nothing)?,
        }
        work.publish(&self.name)?;
        Ok(ExitCode::SUCCESS)
    }
}
