//! `shipimg run`: create, start, wait, delete.
//!
//! `run -b BUNDLE ID`, as other runtimes have it, or `run WHAT [CMD…]`, where WHAT is a
//! bundle of the store, an image, an image file, or a folder ([`target`] says how a word
//! is read). From the first word after WHAT that is no option on, all words are the program's;
//! after a `--` all are. From an image or a file a throw-away bundle is made; with --ephemeral
//! from a folder or a bundle too. The exit code is the program's; 128 and the signal where one
//! ended it; 125 where shipimg failed, 126 where the program cannot be executed, 127 where it
//! is not there.

use super::create::{self, Options};
use super::pulling::{Found, Pulling};
use super::target::{self, Target};
use super::{Context, Error, Result, settings};
use crate::bundle::{self, Bundle, Origin};
use crate::rootfs::Access;
use crate::run::{self, Launch, Notify};
use crate::store::Store;
use crate::sys::selfexe;
use crate::transfer::Platforms;
use std::hash::{BuildHasher, RandomState};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "options on a command line")]
pub struct Args {
    /// A bundle, an image, an image file or a folder; with --bundle, the container's name
    #[arg(value_name = "WHAT|ID")]
    what: String,
    /// Program and arguments instead of the bundle's
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    command: Vec<String>,
    /// The container's name [default: the bundle's, or one made up]
    #[arg(long)]
    name: Option<String>,
    /// Throw away what is written, of a folder or a bundle too
    #[arg(long)]
    ephemeral: bool,
    /// How a throw-away root filesystem is made: auto, copy, overlay, btrfs or image
    #[arg(long, default_value = "auto")]
    driver: String,
    /// Do not delete the container after its end
    #[arg(long)]
    keep: bool,
    /// Delete the container after its end, which is the default
    #[arg(long, conflicts_with_all = ["keep", "detach"])]
    rm: bool,
    /// Do not wait for its end
    #[arg(short, long)]
    detach: bool,
    /// Known to callers of runc, whose subreaper is not needed here
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// Pass on standard input, which is the default
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal [default: where standard input and output are one]
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    tty: Option<bool>,
    /// Kill the container after so many seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "detach")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Hand the bundle to another runtime: runc, crun or a path
    #[arg(long, value_name = "RUNTIME", conflicts_with_all = ["keep", "detach", "timeout", "init"])]
    #[arg(conflicts_with_all = ["config", "console_socket", "pid_file", "preserve_fds", "no_pivot"])]
    #[arg(conflicts_with_all = ["no_new_keyring", "cgroup_manager", "systemd_cgroup"])]
    runtime: Option<PathBuf>,
    /// Print the config.json and run nothing
    #[arg(long, conflicts_with_all = ["detach", "keep"])]
    print_config: bool,
    #[command(flatten)]
    pulling: Pulling,
    #[command(flatten)]
    settings: settings::Overrides,
    #[command(flatten)]
    options: Options,
}

/// Options that do not go together.
#[derive(Debug, thiserror::Error)]
pub enum Usage {
    /// A throw-away bundle would outlive the command.
    #[error("{0} cannot run with --detach or --keep, nothing would take its throw-away bundle down")]
    Outlives(String),
    /// A bundle's settings are in its `config.json`.
    #[error("{0} is a bundle, what it is run with stands in its config.json")]
    Configured(String),
    /// What only this runner does.
    #[error("{0} is not done by another runtime")]
    Own(&'static str),
}

/// What to launch and what goes away after it.
struct Plan {
    launch: Launch,
    throw_away: Option<Bundle>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode> {
        self.launch(context).map_err(|e| Error::Launch(Box::new(e)))
    }

    fn launch(self, context: &Context) -> Result<ExitCode> {
        selfexe::protect()?;
        if self.runtime.is_some() && self.settings.own_network() {
            return Err(Usage::Own("--net private").into());
        }
        let containers = context.runtime()?;
        let (keep, detach, print, runtime) =
            (self.keep, self.detach, self.print_config, self.runtime.clone());
        let Plan { launch, throw_away } = self.plan(&context.store()?)?;
        if throw_away.is_none() {
            create::mount(&launch.bundle)?;
        }
        if detach {
            let launch = Launch { notify: Notify::inherited(), ..launch };
            let container = launch.create(&containers)?;
            if let Err(e) = container.start(launch.notify.as_ref()) {
                container.delete(true)?;
                return Err(e.into());
            }
            return Ok(ExitCode::SUCCESS);
        }
        let exit = if print {
            launch
                .text()
                .map_err(Error::from)
                .and_then(|text| Ok(std::io::stdout().write_all(&text)?))
                .map(|()| None)
        } else if let Some(runtime) = runtime {
            launch.hand_over(&runtime).map_err(Error::from).map(Some)
        } else {
            launch.run(&containers, keep).map_err(Error::from).map(Some)
        };
        if let Some(bundle) = throw_away {
            bundle.remove()?;
        }
        Ok(exit?.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit.code())))
    }

    fn plan(self, store: &Store) -> Result<Plan> {
        let plain = |this: Self| -> Result<Plan> {
            if this.settings.any() {
                let bundle = this.options.bundle.unwrap_or_else(|| ".".into());
                return Err(Usage::Configured(bundle.display().to_string()).into());
            }
            let id = this.name.clone().unwrap_or_else(|| this.what.clone());
            let launch = this.launch_as(id, this.tty)?;
            Ok(Plan { launch, throw_away: None })
        };
        if self.options.bundle.is_some() {
            return plain(self);
        }
        let found = target::find(store, &self.what);
        let known = match &found {
            Ok(Target::Origin(Origin::Image(name, _))) => Found::Image(name.as_ref()),
            Ok(_) => Found::Other,
            Err(e) => Found::failed(e),
        };
        if let Some(name) = self.pulling.wanted(&self.what, known) {
            return self.pulling.clone().fetch(store, &name, Platforms::Host, |store, name, image| {
                self.over_origin(store, &Origin::Image(Some(name.clone()), Box::new(image)))
            });
        }
        match found {
            Ok(Target::Origin(origin)) => self.over_origin(store, &origin),
            Ok(Target::Named(bundle)) => {
                bundle.mount(if self.ephemeral { Access::Read } else { Access::Write })?;
                // Another runtime has the terminal that config.json says.
                let here = self.runtime.is_none().then(|| self.terminal());
                let terminal = self.tty.or(here);
                self.in_bundle(store, bundle.path(), bundle.name().to_string(), terminal)
            }
            Ok(Target::Folder(path)) => {
                let (id, terminal) = (run::id_of(&path), self.tty);
                self.in_bundle(store, &path, id, terminal)
            }
            Err(_) if Path::new("config.json").exists() => plain(self),
            Err(e) => Err(e),
        }
    }

    fn launch_as(&self, id: String, terminal: Option<bool>) -> Result<Launch> {
        let timeout = self.timeout.map(Duration::from_secs);
        Ok(Launch { args: self.command.clone(), terminal, timeout, ..self.options.clone().launch(id)? })
    }

    fn in_bundle(mut self, store: &Store, path: &Path, id: String, terminal: Option<bool>) -> Result<Plan> {
        if self.ephemeral {
            return self.over_origin(store, &Origin::Directory(path.join("rootfs")));
        }
        if self.settings.any() {
            return Err(Usage::Configured(self.what).into());
        }
        self.options = self.options.of(path);
        let launch = self.launch_as(self.name.clone().unwrap_or(id), terminal)?;
        Ok(Plan { launch, throw_away: None })
    }

    fn over_origin(mut self, store: &Store, origin: &Origin) -> Result<Plan> {
        if self.detach || self.keep {
            return Err(Usage::Outlives(self.what).into());
        }
        let in_place = matches!(origin, Origin::Directory(_)) && !self.ephemeral;
        let driver = if in_place { None } else { Some(target::driver(store, origin, &self.driver)?) };
        let name = self.name.clone().unwrap_or_else(|| made_up(origin));
        let mut settings = self.settings.settings(&self.command, self.terminal())?;
        if self.print_config {
            // Nothing of the host is changed for that.
            settings.mounts = settings.mounts.iter().map(bundle::plain).collect();
        }
        let bundle = Bundle::throw_away(store, &name, origin, driver, &settings)?;
        self.options = self.options.of(bundle.path());
        let launch = Launch { args: Vec::new(), ..self.launch_as(name, None)? };
        Ok(Plan { launch, throw_away: Some(bundle) })
    }

    /// Whether the program gets a terminal: as asked for, else where there is one.
    fn terminal(&self) -> bool {
        self.tty.unwrap_or_else(|| std::io::stdin().is_terminal() && std::io::stdout().is_terminal())
    }
}

/// A name from the origin's last word and four random digits.
fn made_up(origin: &Origin) -> String {
    let text = match origin {
        Origin::Image(Some(reference), _) => reference.repository().to_string(),
        other => other.to_string(),
    };
    let word = text.rsplit('/').next().unwrap_or_default();
    let word = word.strip_suffix(".img").unwrap_or(word);
    let fit = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let word: String = word.chars().filter(fit).skip_while(|c| *c == '-').take(40).collect();
    let random = RandomState::new().hash_one(std::process::id()) & 0xffff;
    if word.is_empty() { format!("box-{random:04x}") } else { format!("{word}-{random:04x}") }
}
