//! The command line: one file per command, terminal output, exit codes.
//!
//! A command is a struct of arguments with `run(self, &Context) -> Result<ExitCode>`.
//! Output that a program may read goes to standard output; progress, notes and errors
//! go to standard error. An error is one line, `error: …`, with its causes joined by
//! colons; in a terminal a `help:` line may follow, a command that can be pasted.

/// Says a line on standard error. One that is closed or full is no reason to fail: unlike
/// `eprintln!` this does not panic.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod analyze;
mod attach;
mod back;
mod build;
mod bundle;
mod cache;
mod commit;
mod config;
mod copy;
mod cp;
mod create;
mod delete;
mod df;
mod diff;
mod dockerfile;
mod doctor;
mod error;
mod events;
mod exec;
mod export;
mod features;
mod fsck;
mod history;
mod images;
mod import;
mod index;
mod insert;
mod inspect;
mod kill;
mod layer;
mod limits;
mod list;
mod lock;
mod log;
mod login;
mod logout;
mod logs;
mod mkimg;
mod net;
mod pause;
mod phases;
mod plan;
mod progress;
mod prune;
mod ps;
mod pull;
mod pulling;
mod push;
mod rebuild;
mod recipe;
mod referrers;
mod repack;
mod resume;
mod rmi;
mod run;
mod search;
mod serve;
mod settings;
mod spec;
mod squash;
mod start;
mod state;
mod stop;
mod store;
mod sweep;
mod table;
mod tag;
mod tags;
mod target;
mod transfer;
mod unpack;
mod unshare;
mod update;
mod verify;
mod wait;

pub use error::Error;

use crate::store::{Limits, Store, mount_backing};
use crate::sys::{self, Call, process, selfexe, signal, userns};
use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// Result of a command.
pub type Result<T> = std::result::Result<T, Error>;

/// Pulls, bootstraps, unpacks, bundles and runs root filesystems.
#[derive(Debug, Parser)]
#[command(name = "shipimg", version, about, disable_help_subcommand = true, args_override_self = true)]
struct Cli {
    /// The store's folder [default: /var/lib/shipimg; for others than root, `$XDG_DATA_HOME/shipimg`]
    #[arg(long, global = true, env = "SHIPIMG_ROOT", value_name = "DIR")]
    root: Option<PathBuf>,
    /// Of an ordinary user: use no subordinate ids; all files are owned by the user
    #[arg(long, global = true, env = "SHIPIMG_SINGLE_ID", value_parser = clap::builder::FalseyValueParser::new())]
    single_id: bool,
    #[command(flatten)]
    log: log::Options,
    #[command(flatten)]
    limits: limits::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one lives, once")]
enum Command {
    /// Pull an image from a registry into the store
    Pull(pull::Args),
    /// Push an image of the store to a registry
    Push(push::Args),
    /// Copy an image between registries, archives, folders and the store
    Copy(copy::Args),
    /// List the tags of a repository
    Tags(tags::Args),
    /// Find repositories in registries
    Search(search::Args),
    /// List what refers to an image: signatures, SBOMs
    Referrers(referrers::Args),
    /// Check credentials for a registry and keep them
    Login(login::Args),
    /// Forget the credentials for a registry
    Logout(logout::Args),
    /// Serve the store as a registry
    Serve(serve::Args),
    /// List the images of the store
    Images(images::Args),
    /// Show an image of the store: platform, configuration, layers
    Inspect(inspect::Args),
    /// Show how an image of the store was made
    History(history::Args),
    /// Show what is different between images, folders, bundles and containers
    Diff(diff::Args),
    /// Check an image, a folder, a bundle or a file with a filesystem
    Verify(verify::Args),
    /// Show what an image is made of and what it wastes, by layer, directory and package
    Analyze(analyze::Args),
    /// Give an image of the store more names
    Tag(tag::Args),
    /// Take names away
    Untag(tag::Untag),
    /// Put images for several platforms under one name
    Index(index::Args),
    /// Remove images of the store by name
    Rmi(rmi::Args),
    /// Remove what nothing needs any more: blobs, partial downloads, unpacked layers
    Prune(prune::Args),
    /// Check that all blobs of the store are whole
    Fsck(fsck::Args),
    /// Explain what the store takes on disk
    Df(df::Args),
    /// Make a store, on a btrfs of its own where wanted
    Store(store::Args),
    /// Take images from an archive, a folder of images or a tar of files into the store
    Import(import::Args),
    /// Write images of the store as an archive or a folder, or their files as a tar
    Export(export::Args),
    /// Unpack an image of the store into a folder
    Unpack(unpack::Args),
    /// Make an image of what was changed in a folder of unpack
    Repack(repack::Args),
    /// Make an image of what was changed in a bundle or a container
    Commit(commit::Args),
    /// Put a file or a folder into an image
    Insert(insert::Args),
    /// Put a tar on top of an image
    Layer(layer::Args),
    /// Change the settings of an image
    Config(config::Args),
    /// Make one layer of all layers of an image
    Squash(squash::Args),
    /// Build what a recipe or a Dockerfile says
    Build(build::Args),
    /// Spread builds of several recipes over workers
    Plan(plan::Args),
    /// Delete results of steps from a registry
    Cache(cache::Args),
    /// Print the JSON Schema of recipes
    Recipe(recipe::Args),
    /// Make an image file of a Debian or Ubuntu system
    Mkimg(mkimg::Args),
    /// Make the list of exact packages of a system, compare it with the archives, bring it up to date
    Lock(lock::Args),
    /// Make, list and remove named bundles
    Bundle(bundle::Args),
    /// Write a default config.json
    Spec(spec::Args),
    /// Create, start, wait for and delete a container
    Run(run::Args),
    /// Create a container from a bundle; it waits for start
    Create(create::Args),
    /// Start a created container
    Start(start::Args),
    /// Execute a program in a running container
    Exec(exec::Args),
    /// Copy files into a container or out of it
    Cp(cp::Args),
    /// Show the state of a container
    State(state::Args),
    /// List containers
    List(list::Args),
    /// List the processes of a container
    #[command(visible_alias = "top")]
    Ps(ps::Args),
    /// Show what a detached container has printed
    Logs(logs::Args),
    /// Join the standard streams of a detached container
    Attach(attach::Args),
    /// Wait for the end of containers and print their exit codes
    Wait(wait::Args),
    /// Ask containers to end, and kill those that do not
    Stop(stop::Args),
    /// Send a signal to a container
    Kill(kill::Args),
    /// Freeze the processes of a container
    Pause(pause::Args),
    /// Let the processes of a paused container go on
    Resume(resume::Args),
    /// Change the limits of a container that runs
    Update(update::Args),
    /// Show what a container uses, time and again
    Events(events::Args),
    /// Delete containers
    #[command(visible_alias = "rm")]
    Delete(delete::Args),
    /// Show what containers may ask for
    Features(features::Args),
    /// Run a program in the user namespace in which an ordinary user's commands work
    Unshare(unshare::Args),
    /// Try what the commands need of this host, and say what helps
    Doctor(doctor::Args),
}

/// Where a command of an ordinary user works.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    /// Nowhere else: it works with the store's blobs, with registries and processes.
    Here,
    /// In a user namespace: files of root filesystems have owners.
    Users,
    /// In the user namespace of a container, as long as that runs.
    Container(&'a str),
}

impl Command {
    /// The table of where commands work; a new one that makes, reads or deletes files of root
    /// filesystems belongs to the first line.
    fn place(&self) -> Place<'_> {
        use Command as C;
        match self {
            C::Diff(_)
            | C::Rmi(_)
            | C::Prune(_)
            | C::Df(_)
            | C::Unpack(_)
            | C::Repack(_)
            | C::Commit(_)
            | C::Insert(_)
            | C::Squash(_)
            | C::Build(_)
            | C::Mkimg(_)
            | C::Bundle(_)
            | C::Run(_)
            | C::Create(_)
            | C::Verify(_)
            | C::Unshare(_) => Place::Users,
            C::Export(args) if args.reads_files() => Place::Users,
            C::Analyze(args) if args.reads_files() => Place::Users,
            C::Exec(args) => Place::Container(args.container()),
            C::Attach(args) => Place::Container(&args.id),
            C::Kill(args) => Place::Container(&args.id),
            C::Stop(args) => args.container().map_or(Place::Here, Place::Container),
            C::Cp(args) => args.container().map_or(Place::Here, Place::Container),
            C::Delete(args) => args.container().map_or(Place::Users, Place::Container),
            _ => Place::Here,
        }
    }

    /// What keeps the command from its work, before that has begun.
    fn failed(&self, e: Error) -> Error {
        match self {
            Self::Run(_) | Self::Exec(_) | Self::Attach(_) | Self::Unshare(_) => Error::Launch(Box::new(e)),
            _ => e,
        }
    }

    fn run(self, context: &Context) -> Result<ExitCode> {
        match self {
            Self::Pull(args) => args.run(context),
            Self::Push(args) => args.run(context),
            Self::Copy(args) => args.run(context),
            Self::Tags(args) => args.run(context),
            Self::Search(args) => args.run(context),
            Self::Referrers(args) => args.run(context),
            Self::Login(args) => args.run(),
            Self::Logout(args) => args.run(),
            Self::Serve(args) => args.run(context),
            Self::Images(args) => args.run(context),
            Self::Inspect(args) => args.run(context),
            Self::History(args) => args.run(context),
            Self::Diff(args) => args.run(context),
            Self::Verify(args) => args.run(context),
            Self::Analyze(args) => args.run(context),
            Self::Tag(args) => args.run(context),
            Self::Untag(args) => args.run(context),
            Self::Index(args) => args.run(context),
            Self::Rmi(args) => args.run(context),
            Self::Prune(args) => args.run(context),
            Self::Fsck(args) => args.run(context),
            Self::Df(args) => args.run(context),
            Self::Store(args) => args.run(context),
            Self::Import(args) => args.run(context),
            Self::Export(args) => args.run(context),
            Self::Unpack(args) => args.run(context),
            Self::Repack(args) => args.run(context),
            Self::Commit(args) => args.run(context),
            Self::Insert(args) => args.run(context),
            Self::Layer(args) => args.run(context),
            Self::Config(args) => args.run(context),
            Self::Squash(args) => args.run(context),
            Self::Build(args) => args.run(context),
            Self::Plan(args) => args.run(context),
            Self::Cache(args) => args.run(context),
            Self::Recipe(args) => args.run(),
            Self::Mkimg(args) => args.run(context),
            Self::Lock(args) => args.run(context),
            Self::Bundle(args) => args.run(context),
            Self::Spec(args) => args.run(context),
            Self::Run(args) => args.run(context),
            Self::Create(args) => args.run(context),
            Self::Start(args) => args.run(context),
            Self::Exec(args) => args.run(context),
            Self::Cp(args) => args.run(context),
            Self::State(args) => args.run(context),
            Self::List(args) => args.run(context),
            Self::Ps(args) => args.run(context),
            Self::Logs(args) => args.run(context),
            Self::Attach(args) => args.run(context),
            Self::Wait(args) => args.run(context),
            Self::Stop(args) => args.run(context),
            Self::Kill(args) => args.run(context),
            Self::Pause(args) => args.run(context),
            Self::Resume(args) => args.run(context),
            Self::Update(args) => args.run(context),
            Self::Events(args) => args.run(context),
            Self::Delete(args) => args.run(context),
            Self::Features(args) => args.run(context),
            Self::Unshare(args) => args.run(context),
            Self::Doctor(args) => args.run(context),
        }
    }
}

/// What every command may need of its surroundings.
#[derive(Debug)]
pub struct Context {
    root: PathBuf,
    systemd_cgroup: bool,
    limits: Limits,
}

impl Context {
    /// Opens the store; mounts the image that it lies in, should a reboot have taken that away.
    ///
    /// # Errors
    /// Those of [`mount_backing`] and [`Store::open`].
    pub fn store(&self) -> Result<Store> {
        mount_backing(&self.root)?;
        Ok(Store::open(&self.root)?.within(self.limits))
    }

    /// Goes where an ordinary user's command works.
    fn enter(&self, place: &Place, single_id: bool) -> Result<()> {
        let init = match place {
            Place::Here => return Ok(()),
            Place::Users => None,
            Place::Container(id) => {
                self.runtime()?.get(id).and_then(|c| c.state()).ok().and_then(|s| s.pidfd())
            }
        };
        // One that has just ended has no namespace to join.
        let ended = |joined: &sys::Result<bool>| {
            joined.as_ref().is_err_and(|e| e.errno() == Some(rustix::io::Errno::SRCH))
        };
        let joined = init.map(userns::join).filter(|joined| !ended(joined));
        if !joined.unwrap_or_else(|| userns::enter(single_id))? {
            return Ok(());
        }
        // What is executed from here on is root, and has to mean the same store.
        let root = std::path::absolute(&self.root).call(|| "getcwd".to_string())?;
        process::set_variable("SHIPIMG_ROOT", root.as_os_str());
        Ok(())
    }

    /// The containers. They lie in the store's folder, which need not be a store: callers of
    /// OCI runtimes name a folder for the state.
    ///
    /// # Errors
    /// Those of [`mount_backing`] and [`crate::run::Runtime::open`].
    pub fn runtime(&self) -> Result<crate::run::Runtime> {
        mount_backing(&self.root)?;
        if self.root.join("oci-layout").exists() {
            // Takes away what killed commands left.
            Store::open(&self.root)?;
        }
        Ok(crate::run::Runtime::open(&self.root)?.by_systemd(self.systemd_cgroup))
    }
}

/// Parses the command line, runs the command, reports an error; gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    if std::env::args_os()
        .any(|word| ["run", "create", "exec", "build"].iter().any(|command| word == *command))
    {
        // It executes this program anew, which is better done before the command line, whose parsing
        // takes most of a launch's first millisecond, is read. The commands see to it in any case.
        let _ = selfexe::protect();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let code = u8::try_from(e.exit_code()).unwrap_or(2);
            return match e.print() {
                Err(failed) if !e.use_stderr() => report(&failed.into()),
                _ => ExitCode::from(code),
            };
        }
    };
    let log = match cli.log.begin() {
        Ok(log) => log,
        Err(e) => return report(&e),
    };
    let root = cli.root.unwrap_or_else(Store::default_root);
    let (systemd_cgroup, limits) = (cli.log.systemd_cgroup, cli.limits.limits());
    let context = Context { root, systemd_cgroup, limits };
    let entered = context.enter(&cli.command.place(), cli.single_id);
    let result = entered.map_err(|e| cli.command.failed(e)).and_then(|()| cli.command.run(&context));
    result.unwrap_or_else(|e| {
        if let Some(log) = log {
            log.error(&e);
        }
        report(&e)
    })
}

/// Does work that looks whether a signal has come and takes away what is half-made then; this
/// process ends by that signal afterwards.
fn tidily(work: impl FnOnce() -> Result<()>) -> Result<ExitCode> {
    signal::put_off();
    let done = work();
    if done.is_err() {
        signal::give_in();
    }
    done.map(|()| ExitCode::SUCCESS)
}

/// Says what went wrong; gives the exit code.
fn report(e: &Error) -> ExitCode {
    if !e.is_unread() {
        say!("error: {}", printable(&e.to_string()));
        for line in e.output().lines() {
            say!("    {}", printable(line));
        }
        if let Some(hint) = e.hint()
            && std::io::stderr().is_terminal()
        {
            say!("help: {}", printable(&hint));
        }
    }
    ExitCode::from(e.exit_code())
}

/// Text that may come from an image or a server, as one line that steers no terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if crate::tree::steers(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        <super::Cli as clap::CommandFactory>::command().debug_assert();
    }
}
