//! `shipimg index`: images for several platforms under one name.

use super::{Context, Result};
use crate::oci::{Descriptor, Name, Reference};
use crate::store::{Entry, Store};
use crate::transfer::{self, Member};
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `index`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make an index of images of the store
    Create {
        /// Its name
        name: Reference,
        /// Images of the store; an index gives all of its images
        #[arg(value_name = "IMAGE")]
        images: Vec<Name>,
    },
    /// Add images of the store to an index, each in place of the one for its platform
    Add {
        /// The index in the store
        name: Name,
        /// Images of the store
        #[arg(value_name = "IMAGE", required = true)]
        images: Vec<Name>,
    },
    /// Take images out of an index
    Remove {
        /// The index in the store
        name: Name,
        /// The digest or platform of an image
        #[arg(value_name = "DIGEST|PLATFORM", required = true)]
        members: Vec<Member>,
    },
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let (name, made) = match &self.command {
            Command::Create { name, images } => {
                (name.clone(), transfer::create_index(&store, name, &find_all(&store, images)?)?)
            }
            Command::Add { name, images } => edit(&store, name, &find_all(&store, images)?, &[])?,
            Command::Remove { name, members } => edit(&store, name, &[], members)?,
        };
        writeln!(std::io::stdout(), "{name} {}", made.digest)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn find_all(store: &Store, names: &[Name]) -> Result<Vec<Entry>> {
    names.iter().map(|name| Ok(store.find(name)?)).collect()
}

fn edit(store: &Store, name: &Name, images: &[Entry], remove: &[Member]) -> Result<(Reference, Descriptor)> {
    let entry = store.find(name)?;
    let reference = match &entry.reference {
        Some(reference) => reference.clone(),
        None => name.reference()?,
    };
    let made = transfer::edit_index(store, &reference, &entry, images, remove)?;
    Ok((reference, made))
}
