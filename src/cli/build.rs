//! `shipimg build`: from a recipe to what it says, from a Dockerfile to an image.

use super::dockerfile::Docker;
use super::import::source_date;
use super::phases::{Phases, spelled};
use super::rebuild::{self, Read};
use super::settings::variable;
use super::transfer::Network;
use super::verify::{Reports, failed};
use super::{Context, Result, tidily};
use crate::bundle::Origin;
use crate::debian::Progress;
use crate::oci::{Image, Platform, Reference};
use crate::output::Written;
use crate::recipe::{
    self, Access, Builder, Built, Cache, Choices, How, Lock, Moved, Options, Overlays, Plan, Recipe, Shell,
    Step, Target, Wish,
};
use crate::store::{Lease, Store};
use crate::sys::sandbox::private_mounts;
use crate::sys::{selfexe, signal};
use crate::verify::{self, Report, Second};
use indicatif::HumanBytes;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
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
    /// Set a label of the image, over what a recipe or a Dockerfile says
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    label: Vec<String>,
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
    /// So many stages at once that do not need each other [default: this machine's processors]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Open a shell where a step has failed, on this terminal; stages are built one after the other
    #[arg(long)]
    shell_on_error: bool,
    /// Look for results of steps in this repository too; may be given again
    #[arg(long, value_name = "REPOSITORY")]
    cache_from: Vec<Reference>,
    /// Look for results of steps in this repository, and put there what is done
    #[arg(long, value_name = "REPOSITORY")]
    cache_to: Option<Reference>,
    /// Fail where a cache does
    #[arg(long)]
    cache_required: bool,
    /// Do not look at the recipe's checks
    #[arg(long)]
    no_verify: bool,
    /// Build all a second time and fail where that gives other bytes (exit code 5)
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    reports: Reports,
}

/// What a recipe is read with.
#[derive(Debug, clap::Args)]
pub(super) struct Chosen {
    /// Set a variable of the recipe
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    set: Vec<String>,
    /// Build for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

impl Chosen {
    pub(super) fn choices(&self, platform: &Platform) -> Choices {
        let set =
            self.set.iter().filter_map(|s| s.split_once('=')).map(|(n, v)| (n.to_string(), v.to_string()));
        Choices { set: set.collect(), platform: platform.clone(), epoch: source_date() }
    }

    /// For which platform is built.
    pub(super) fn platform(&self) -> Platform {
        self.platform.clone().unwrap_or_else(Platform::host)
    }

    /// An option that was given, where it makes no sense.
    pub(super) fn given(&self) -> Option<&'static str> {
        let set = (!self.set.is_empty()).then_some("--set");
        set.or_else(|| self.platform.is_some().then_some("--platform"))
    }
}

/// How a recipe and its lock are read.
#[derive(Debug, clap::Args)]
pub(super) struct Reading {
    #[command(flatten)]
    pub(super) chosen: Chosen,
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
    /// Something that a recipe does not write.
    #[error("{} writes no {}", .0.display(), .1.display())]
    NoOutput(PathBuf, PathBuf),
    /// An option that recipes do not have.
    #[error("{0} is for Dockerfiles")]
    OfDockerfiles(&'static str),
    /// An option that lists of packages do not have.
    #[error("{0} is for recipes and Dockerfiles")]
    OfRecipes(&'static str),
}

impl Reading {
    /// The recipe in a file.
    pub(super) fn recipe(&self, path: &Path) -> Result<Recipe> {
        self.recipe_for(path, &self.chosen.platform())
    }

    /// The recipe in a file, for a platform.
    pub(super) fn recipe_for(&self, path: &Path, platform: &Platform) -> Result<Recipe> {
        Ok(Recipe::read(path, &self.chosen.choices(platform))?)
    }

    pub(super) fn access(&self, store: &Store) -> Access {
        Access { registry: self.network.options(store.limits()), offline: self.offline }
    }

    /// How the lock comes about.
    pub(super) fn wish(&self) -> Wish {
        if self.frozen { Wish::Frozen } else { Wish::Keep }
    }

    /// The lock of a recipe.
    pub(super) fn lock(&self, recipe: &Recipe, place: (&Store, &Lease)) -> Result<Lock> {
        let old = Lock::read(&Lock::beside(&recipe.file))?;
        let (wish, access) = (self.wish(), self.access(place.0));
        Ok(Lock::of(recipe, old.as_ref(), &wish, &access, place, &Phases::new())?)
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
        let store = context.store()?;
        // Steps of a build that was killed are taken away, also where this one runs none.
        context.runtime()?.sweep()?;
        let lease = store.lease()?;
        let (access, place, phases) = (self.reading.access(&store), (&store, &lease), Phases::new());
        let file = (self.recipe.as_path(), &self.docker);
        let Read { mut recipe, lock, changed } = Read::of(file, &self.reading, &access, place, &phases)?;
        recipe.add_tags(&self.tag);
        recipe.add_labels(self.label.iter().filter_map(|label| label.split_once('=')));
        let targets = if self.dry_run { Vec::new() } else { Target::all(&recipe)? };
        let plan = Plan::of(&recipe, &lock)?;
        if self.dry_run {
            return self.print(&plan);
        }
        if let Some(beside) = changed {
            lock.write(&beside)?;
        }
        // Mounts made from here on are seen by no other process and end with this one.
        private_mounts()?;
        let options = self.options(access);
        let built = Builder::new(&plan, &lock, place, &options, &phases).build();
        if built.is_err() {
            // Where a signal has stopped it, all is taken away now.
            signal::give_in();
        }
        let built = built?;
        let asked = recipe.checks.iter().any(|c| c.check.reproducible.is_some()) && !self.no_verify;
        let second = if self.rebuild || asked {
            let (access, overlays) = (options.access.clone(), options.overlays.clone());
            let anew = Options { access, overlays, no_cache: true, jobs: self.jobs(), ..Options::default() };
            let second = Builder::new(&plan, &lock, place, &anew, &phases).build();
            if second.is_err() {
                signal::give_in();
            }
            Some(second?.image)
        } else {
            None
        };
        let checked = self.verify(&recipe, &store, &built.image, second.as_ref(), &phases)?;
        let (made, checked) = ((&built, &options.cache.moved), checked.as_ref());
        if let Some(code) = checked.and_then(failed) {
            self.report(&plan, made, checked, &[], &phases)?;
            return Ok(code);
        }
        // Workspaces lie in folders of the user's, where no later command may come to sweep.
        tidily(|| {
            let written = recipe::write(&targets, &built.image, &plan, place, &options, &phases)?;
            let written: Vec<_> = targets.iter().zip(written).collect();
            self.report(&plan, made, checked, &written, &phases)
        })
    }

    /// How the build is done.
    fn options(&self, access: Access) -> Options {
        let (from, to) = if access.offline {
            (Vec::new(), None)
        } else {
            (self.cache_from.clone(), self.cache_to.clone())
        };
        let cache = Cache::new(from, to, self.cache_required, access.registry.clone());
        let shell = if self.shell_on_error { Shell::OnError } else { Shell::Never };
        Options {
            access,
            cache,
            no_cache: self.no_cache,
            shell,
            overlays: Overlays::default(),
            jobs: self.jobs(),
        }
    }

    /// How many stages are built at once.
    fn jobs(&self) -> usize {
        self.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
    }

    /// What came out of the recipe's checks, told; none where there are none.
    fn verify(
        &self,
        recipe: &Recipe,
        store: &Store,
        image: &Image,
        second: Option<&Image>,
        phases: &Phases,
    ) -> Result<Option<Report>> {
        let mut checks = if self.no_verify { Vec::new() } else { recipe.checks.clone() };
        if second.is_some() {
            rebuild::ask(&mut checks);
        }
        if checks.is_empty() {
            return Ok(None);
        }
        phases.phase("verify", None);
        let target = Origin::Image(None, Box::new(image.clone()));
        // Containers are taken away first.
        signal::put_off();
        let checked = verify::verify(
            store,
            &target,
            &checks,
            &verify::Options { again: second.is_some(), second: second.map(Second::Image) },
        );
        if checked.is_err() {
            signal::give_in();
        }
        let report = Report { target: recipe.name.clone(), ..checked? };
        if self.format == Form::Table && !self.reports.on_output() {
            let _ = std::io::stderr().write_all(verify::Format::Text.write(&report).as_bytes());
        }
        self.reports.write(&report)?;
        Ok(Some(report))
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

    /// Tells what was built, and for people which outputs there are now.
    fn report(
        &self,
        plan: &Plan,
        (built, moved): (&Built, &Moved),
        checked: Option<&Report>,
        written: &[(&Target, Written)],
        phases: &Phases,
    ) -> Result<()> {
        let times = phases.finish();
        let mut out = std::io::stdout();
        if self.format == Form::Json {
            let step = |(step, how): (&Step, &How)| json!({"step": step.work.to_string(), "place": step.place.short(), "key": step.key, "result": how});
            let output = |(t, w): &(&Target, Written)| json!({"output": t.output.to_string(), "size": w.size, "digest": w.manifest});
            let seconds = times.iter().map(|(name, time)| (name.to_string(), json!(time.as_secs_f64())));
            let value = json!({"name": plan.recipe.name, "digest": built.image.descriptor.digest,
                "steps": plan.steps.iter().zip(&built.steps).map(step).collect::<Vec<_>>(),
                "done": built.done(), "fetched": moved.fetched.get(), "pushed": moved.pushed.get(),
                "checks": checked, "outputs": written.iter().map(output).collect::<Vec<_>>(),
                "seconds": seconds.collect::<serde_json::Map<_, _>>()});
            writeln!(out, "{value:#}")?;
            return Ok(());
        }
        let (steps, done) = (built.steps.len(), built.done());
        let times = if times.is_empty() { String::new() } else { format!(": {} s", spelled(&times)) };
        say!("{}: {done} of {steps} steps done{times}", plan.recipe.name);
        for (target, written) in written {
            let size = written.size.map(|s| format!(" {}", HumanBytes(s))).unwrap_or_default();
            let digest = written.manifest.as_ref().map(|d| format!(" {d}")).unwrap_or_default();
            writeln!(out, "{}{size}{digest}", target.output)?;
        }
        Ok(())
    }
}
