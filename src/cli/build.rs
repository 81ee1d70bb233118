//! `shipimg build`: from a recipe to what it says.

use super::phases::{Phases, spelled};
use super::{Context, Result};
use crate::recipe::Recipe;
use crate::sys::sandbox::private_mounts;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recipe's file
    recipe: PathBuf,
    /// Print the steps and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let recipe = Recipe::read(&self.recipe)?;
        if self.dry_run {
            for action in recipe.plan() {
                writeln!(std::io::stdout(), "{action}")?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        // Mounts made from here on are seen by no other process and end with this one.
        private_mounts()?;
        let phases = Phases::new();
        recipe.build(&context.store()?, &phases)?;
        say!("{}: {} s", recipe.name, spelled(&phases.finish()));
        for output in &recipe.outputs {
            writeln!(std::io::stdout(), "{}", output.path.display())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
