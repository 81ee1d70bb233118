//! `shipimg tag` and `untag`: names of images.

use super::{Context, Result};
use crate::oci::{Name, Reference};
use crate::store;
use std::process::ExitCode;

/// Arguments of `tag`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image in the store
    #[arg(value_name = "IMAGE")]
    source: Name,
    /// Names to give it; whoever has one of them loses it
    #[arg(required = true, value_name = "NEW")]
    names: Vec<Reference>,
}

/// Arguments of `untag`.
#[derive(Debug, clap::Args)]
pub struct Untag {
    /// Full names, or the ends of names; the images stay until they are pruned
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Name>,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let entry = store.find(&self.source)?;
        let lease = store.lease()?;
        lease.hold(&entry.descriptor.digest)?;
        for name in &self.names {
            store.tag(name, &entry.descriptor)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Untag {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let mut names = Vec::new();
        for name in &self.names {
            let nameless = || store::Error::NoImage { name: name.to_string(), root: store.root().into() };
            names.push(store.find(name)?.reference.ok_or_else(nameless)?);
        }
        store.untag(&names)?;
        Ok(ExitCode::SUCCESS)
    }
}
