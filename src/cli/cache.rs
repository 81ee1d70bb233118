//! `shipimg cache`: results of steps that are kept in registries.

use super::build::Reading;
use super::{Context, Result};
use crate::oci::Reference;
use crate::recipe::{self, Plan};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `cache`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Delete results from a registry that are no step of these recipes, as they and their locks are now
    Prune(Prune),
}

#[derive(Debug, clap::Args)]
struct Prune {
    /// The repository, as localhost:5000/cache
    repository: Reference,
    /// Recipes whose steps' results stay
    #[arg(value_name = "RECIPE", required_unless_present = "all")]
    recipes: Vec<PathBuf>,
    /// Delete all results
    #[arg(long, conflicts_with = "recipes")]
    all: bool,
    #[command(flatten)]
    reading: Reading,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let Command::Prune(prune) = &self.command;
        let store = context.store()?;
        let lease = store.lease()?;
        let mut keys = BTreeSet::new();
        for path in &prune.recipes {
            let recipe = prune.reading.recipe(path)?;
            let lock = prune.reading.lock(&recipe, (&store, &lease))?;
            keys.extend(Plan::of(&recipe, &lock)?.steps.into_iter().map(|step| step.key));
        }
        let registry = prune.reading.access(&store).registry;
        let (there, deleted) = recipe::prune(&prune.repository, &keys, &registry)?;
        writeln!(std::io::stdout(), "{deleted} of {there} results deleted")?;
        Ok(ExitCode::SUCCESS)
    }
}
