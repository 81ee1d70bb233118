//! The options that say what is done with packages: which of their files are taken, what else
//! runs, and how far it goes.

use super::Error;
use crate::debian::{Filters, Hook, Request};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::io::IsTerminal;

/// Steps of a system's making.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Steps")]
pub(super) struct Steps {
    #[command(flatten)]
    paths: Paths,
    /// A command of this machine's shell at a stage (setup, extract or customize), with the system's
    /// folder as $1
    #[arg(long, value_name = "STAGE=COMMAND")]
    hook: Vec<Hook>,
    /// Leave the packages unpacked, to be configured on a machine of their architecture by
    /// /var/lib/dpkg/shipimg-configure
    #[arg(long)]
    foreign: bool,
    /// A shell in the system, on this terminal, when a script or a hook has failed
    #[arg(long)]
    shell_on_error: bool,
}

impl Steps {
    /// Adds the steps to what is asked for.
    pub(super) fn apply(&self, request: &mut Request) -> Result<(), Error> {
        if self.shell_on_error && !std::io::stdin().is_terminal() {
            return Err(Error::NoTerminal);
        }
        request.filters = self.paths.0.clone();
        request.hooks.clone_from(&self.hook);
        request.foreign = self.foreign;
        request.shell_on_error = self.shell_on_error;
        Ok(())
    }
}

/// `--path-exclude` and `--path-include`, whose order among each other counts.
#[derive(Debug)]
struct Paths(Filters);

const EXCLUDE: &str = "path-exclude";
const INCLUDE: &str = "path-include";

impl clap::Args for Paths {
    fn augment_args(command: Command) -> Command {
        let arg = |name: &'static str, help: &'static str| {
            Arg::new(name).long(name).value_name("GLOB").action(ArgAction::Append).help(help)
        };
        command
            .arg(arg(
                EXCLUDE,
                "Leave out these paths of packages, as dpkg does; the last that matches counts",
            ))
            .arg(arg(INCLUDE, "Take these paths of packages after all"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Paths {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name| {
            let values = matches.get_many::<String>(name).into_iter().flatten();
            matches.indices_of(name).into_iter().flatten().zip(values).map(move |(at, glob)| (at, name, glob))
        };
        let mut rules: Vec<_> = given(EXCLUDE).chain(given(INCLUDE)).collect();
        rules.sort_unstable();
        let mut filters = Filters::default();
        for (_, name, glob) in rules {
            if name == INCLUDE { filters.include(glob) } else { filters.exclude(glob) }
        }
        Ok(Self(filters))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    #[test]
    fn filters_keep_their_order() {
        let words = ["x", "--path-exclude=/a/*", "--path-include", "/a/b", "--path-exclude", "/a/b/c"];
        let matches = Paths::augment_args(Command::new("x")).get_matches_from(words);
        let Paths(filters) = Paths::from_arg_matches(&matches).unwrap();
        assert_eq!(filters.config(), "path-exclude=/a/*\npath-include=/a/b\npath-exclude=/a/b/c\n");
    }
}
