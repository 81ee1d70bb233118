//! `shipimg build`: from a recipe to what it says, from a Dockerfile to an image.

use super::dockerfile::Docker;
use super::import::source_date;
use super::phases::{Phases, spelled};
use super::settings::variable;
use super::transfer::Network;
use super::{Context, Result, tidily};
use crate::oci::{Platform, Reference};
use crate::output::Written;
use crate::recipe::{
    self, Access, Builder, Built, Choices, Lock, Options, Plan, Recipe, Shell, Target, Wish,
};
use crate::store::Store;
use crate::sys::sandbox::private_mounts;
use crate::sys::selfexe;
use indicatif::HumanBytes;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `build`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
  shipimg build web.toml
  shipimg build --tag localhost/web .                         # the Dockerfile of this folder
  shipimg build -f web.dockerfile --target test --build-arg VERSION=2 .")]
#[allow(clippy::struct_excessive_bools, reason = "options on a command line")]
pub struct Args {
    /// The recipe's file; or a Dockerfile, or the folder of one
    #[arg(value_name = "RECIPE|FOLDER")]
    recipe: PathBuf,
    #[command(flatten)]
    docker: Docker,
    /// The name of the image in the store, besides what a recipe writes
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<Reference>,
    #[command(flatten)]
    reading: Reading,
    /// Print the steps with their keys and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print: table or json; with --dry-run also dot
    #[arg(long, value_enum, default_value_t = Form::Table)]
    format: Form,
    /// Do all steps anew, though their results are kept
    #[arg(long)]
    no_cache: bool,
    /// Open a shell where a step has failed, on this terminal
    #[arg(long)]
    shell_on_error: bool,
}

/// How a recipe and its lock are read.
#[derive(Debug, clap::Args)]
struct Reading {
    /// Set a variable of the recipe
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    set: Vec<String>,
    /// Build for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Fail where the lock is not what the recipe asks for now (exit code 4)
    #[arg(long)]
    frozen: bool,
    /// Ask no server for anything
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    network: Network,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Table,
    Json,
    Dot,
}

/// Options that do not go together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A shell needs a terminal.
    #[error("--shell-on-error needs a terminal")]
    NoTerminal,
    /// A graph of something else than a plan.
    #[error("--format dot is for --dry-run")]
    NoPlan,
    /// A folder without a Dockerfile.
    #[error("no Dockerfile and no Containerfile in {}", .0.display())]
    NoDockerfile(PathBuf),
    /// A folder to copy from that is none.
    #[error("{} is no folder for a Dockerfile to copy from", .0.display())]
    NoContext(PathBuf),
    /// An option that recipes do not have.
    #[error("{0} is for Dockerfiles")]
    OfDockerfiles(&'static str),
}

impl Reading {
    fn choices(&self) -> Choices {
        let set =
            self.set.iter().filter_map(|s| s.split_once('=')).map(|(n, v)| (n.to_string(), v.to_string()));
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        Choices { set: set.collect(), platform, epoch: source_date() }
    }

    fn access(&self, store: &Store) -> Access {
        Access { registry: self.network.options(store.limits()), offline: self.offline }
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        if self.shell_on_error && !std::io::stdin().is_terminal() {
            return Err(Error::NoTerminal.into());
        }
        if self.format == Form::Dot && !self.dry_run {
            return Err(Error::NoPlan.into());
        }
        selfexe::protect()?;
        let dockerfile = self.docker.of(&self.recipe)?;
        let mut choices = self.reading.choices();
        let beside = Lock::beside(dockerfile.as_ref().map_or(&self.recipe, |d| &d.file));
        let (wish, old) = (if self.reading.frozen { Wish::Frozen } else { Wish::Keep }, Lock::read(&beside)?);
        let store = context.store()?;
        let lease = store.lease()?;
        let (access, place) = (self.reading.access(&store), (&store, &lease));
        let phases = Phases::new();
        let mut known = old.clone().unwrap_or_default();
        let mut recipe = match &dockerfile {
            None => Recipe::read(&self.recipe, &choices)?,
            Some(dockerfile) => {
                choices.set.extend(self.docker.arguments());
                let platform = choices.platform.clone();
                Recipe::of_dockerfile(dockerfile, &choices, &mut |name| {
                    known.inherited((name, &dockerfile.file), &wish, &platform, &access, place)
                })?
            }
        };
        recipe.add_tags(&self.tag);
        let targets = if self.dry_run { Vec::new() } else { Target::all(&recipe)? };
        let lock = Lock::of(&recipe, Some(&known), &wish, &access, place, &phases)?;
        let plan = Plan::of(&recipe, &lock)?;
        if self.dry_run {
            return self.print(&plan);
        }
        // A Dockerfile has a lock where somebody has made one.
        if old.as_ref() != Some(&lock) && (dockerfile.is_none() || old.is_some()) {
            lock.write(&beside)?;
        }
        // Mounts made from here on are seen by no other process and end with this one.
        private_mounts()?;
        let shell = if self.shell_on_error { Shell::OnError } else { Shell::Never };
        let options = Options { access, no_cache: self.no_cache, shell };
        let built = Builder::new(&plan, &lock, place, &options, &phases).build()?;
        // Workspaces lie in folders of the user's, where no later command may come to sweep.
        tidily(|| {
            let written = recipe::write(&targets, &built.image, &plan, place, &phases)?;
            self.report(&recipe, &built, &targets, &written, &phases)
        })
    }

    fn print(&self, plan: &Plan) -> Result<ExitCode> {
        let mut out = std::io::stdout();
        match self.format {
            Form::Table => write!(out, "{plan}")?,
            Form::Json => writeln!(out, "{:#}", plan.json())?,
            Form::Dot => write!(out, "{}", plan.dot())?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn report(
        &self,
        recipe: &Recipe,
        built: &Built,
        targets: &[Target],
        written: &[Written],
        phases: &Phases,
    ) -> Result<()> {
        let times = phases.finish();
        let mut out = std::io::stdout();
        if self.format == Form::Json {
            let output = |(t, w): (&Target, &Written)| json!({"output": t.output.to_string(), "size": w.size, "digest": w.manifest});
            let seconds = times.iter().map(|(name, time)| (name.to_string(), json!(time.as_secs_f64())));
            let value = json!({"name": recipe.name, "digest": built.image.descriptor.digest,
                "steps": built.steps, "done": built.done,
                "outputs": targets.iter().zip(written).map(output).collect::<Vec<_>>(),
                "seconds": seconds.collect::<serde_json::Map<_, _>>()});
            writeln!(out, "{value:#}")?;
            return Ok(());
        }
        let kept = built.steps - built.done;
        let times = if times.is_empty() { String::new() } else { format!(": {} s", spelled(&times)) };
        say!("{}: {} steps, {kept} of them kept{times}", recipe.name, built.steps);
        for (target, written) in targets.iter().zip(written) {
            let size = written.size.map(|s| format!(" {}", HumanBytes(s))).unwrap_or_default();
            let digest = written.manifest.as_ref().map(|d| format!(" {d}")).unwrap_or_default();
            writeln!(out, "{}{size}{digest}", target.output)?;
        }
        Ok(())
    }
}
