//! `shipimg recipe`: about recipes themselves.

use super::Result;
use crate::recipe::File;
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `recipe`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the JSON Schema of recipes, by which editors complete and check them
    Schema,
}

impl Args {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let Command::Schema = self.command;
        writeln!(std::io::stdout(), "{}", schema())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The JSON Schema of a recipe's file.
fn schema() -> String {
    format!("{:#}", schemars::schema_for!(File).to_value())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kept_schema_is_that_of_the_types() {
        let kept = include_str!("../../recipes/schema.json");
        assert_eq!(kept.trim(), super::schema(), "shipimg recipe schema > recipes/schema.json");
    }
}
