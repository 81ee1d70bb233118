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
use crate::run::{self, Bounds, Held, Keep, Launch, Notify, Runtime};
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
    /// Delete the container after its end, which is the default without --detach
    #[arg(long, conflicts_with = "keep")]
    rm: bool,
    /// Do not wait for its end; what it prints is kept for `logs` and `attach`
    #[arg(short, long)]
    detach: bool,
    /// What is kept of its output: max-size=SIZE of a file, max-file=N of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = log_option, requires = "detach")]
    log_opt: Vec<LogOption>,
    /// Known to callers of runc, whose subreaper is not needed here
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// Pass on standard input, which is the default without --detach
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal [default: where standard input and output are one]
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    tty: Option<bool>,
    /// Kill the container after so many seconds
    #[arg(long, value_name = "SECONDS")]
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
    /// What the process that stays with a container would hold, too.
    #[error("--preserve-fds is for containers that are waited for, and for --bundle")]
    Held,
    /// Called as other runtimes are, nothing stays with the container.
    #[error("with --detach and --bundle nothing stays with the container that could do what {0} asks for")]
    Unkept(&'static str),
    /// A bundle's settings are in its `config.json`.
    #[error("{0} is a bundle, what it is run with stands in its config.json")]
    Configured(String),
    /// What only this runner does.
    #[error("{0} is not done by another runtime")]
    Own(&'static str),
}

/// What to launch, where, and what goes away after it.
struct Plan {
    launch: Launch,
    held: Option<Held>,
    throw_away: Option<Bundle>,
}

impl Plan {
    fn of(launch: Launch) -> Self {
        Self { launch, held: None, throw_away: None }
    }
}

/// An option of `--log-opt`.
#[derive(Debug, Clone, Copy)]
enum LogOption {
    Size(u64),
    Files(u32),
}

fn log_option(text: &str) -> std::result::Result<LogOption, String> {
    let size = |value: &str| u64::try_from(bundle::size(value)?).map_err(|e| e.to_string());
    match text.split_once('=') {
        Some(("max-size", value)) => size(value).map(LogOption::Size),
        Some(("max-file", value)) => match value.parse() {
            Ok(number @ 1..=1000) => Ok(LogOption::Files(number)),
            _ => Err("wanted 1 to 1000 files".to_string()),
        },
        _ => Err("wanted max-size=SIZE or max-file=N".to_string()),
    }
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode> {
        self.launch(context).map_err(|e| Error::Launch(Box::new(e)))
    }

    fn launch(self, context: &Context) -> Result<ExitCode> {
        selfexe::protect()?;
        if self.runtime.is_some()
            && let Some(own) = self.settings.own_network()
        {
            return Err(Usage::Own(own).into());
        }
        if self.detach && self.options.bundle.is_none() && self.options.preserve_fds > 0 {
            return Err(Usage::Held.into());
        }
        let containers = context.runtime()?;
        let (keep, detach, print, runtime) =
            (self.keep, self.detach, self.print_config, self.runtime.clone());
        let (kept, kept_as) = (self.options.bundle.is_none(), self.kept_as());
        let Plan { launch, held, throw_away } = self.plan(&context.store()?, &containers)?;
        if throw_away.is_none() && held.is_none() {
            create::mount(&launch.bundle)?;
        }
        if detach && kept {
            launch.detach(&containers, held, kept_as)?;
            writeln!(std::io::stdout(), "{}", launch.id)?;
            return Ok(ExitCode::SUCCESS);
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
            launch.run(&containers, held, keep).map_err(Error::from).map(Some)
        };
        if let Some(bundle) = throw_away {
            bundle.remove()?;
        }
        Ok(exit?.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit.code())))
    }

    /// How the process that stays with a detached container keeps it.
    fn kept_as(&self) -> Keep {
        let mut log = Bounds::default();
        for option in &self.log_opt {
            match option {
                LogOption::Size(size) => log.size = *size,
                LogOption::Files(files) => log.files = *files,
            }
        }
        Keep { log, interactive: self.interactive, remove: self.rm }
    }

    fn plan(self, store: &Store, containers: &Runtime) -> Result<Plan> {
        let plain = |this: Self| -> Result<Plan> {
            if this.detach && this.timeout.is_some() {
                return Err(Usage::Unkept("--timeout").into());
            }
            if this.detach && this.rm {
                return Err(Usage::Unkept("--rm").into());
            }
            if this.settings.any() {
                let bundle = this.options.bundle.unwrap_or_else(|| ".".into());
                return Err(Usage::Configured(bundle.display().to_string()).into());
            }
            let id = this.name.clone().unwrap_or_else(|| this.what.clone());
            Ok(Plan::of(this.launch_as(id, this.tty)?))
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
                self.over_origin(store, containers, &Origin::Image(Some(name.clone()), Box::new(image)))
            });
        }
        match found {
            Ok(Target::Origin(origin)) => self.over_origin(store, containers, &origin),
            Ok(Target::Named(bundle)) => {
                bundle.mount(if self.ephemeral { Access::Read } else { Access::Write })?;
                // Another runtime has the terminal that config.json says.
                let here = self.runtime.is_none().then(|| self.terminal());
                let terminal = self.tty.or(here);
                self.in_bundle(store, containers, bundle.path(), bundle.name().to_string(), terminal)
            }
            Ok(Target::Folder(path)) => {
                let (id, terminal) = (run::id_of(&path), self.tty);
                self.in_bundle(store, containers, &path, id, terminal)
            }
            Err(_) if Path::new("config.json").exists() => plain(self),
            Err(e) => Err(e),
        }
    }

    fn launch_as(&self, id: String, terminal: Option<bool>) -> Result<Launch> {
        let timeout = self.timeout.map(Duration::from_secs);
        Ok(Launch { args: self.command.clone(), terminal, timeout, ..self.options.clone().launch(id)? })
    }

    fn in_bundle(
        mut self,
        store: &Store,
        containers: &Runtime,
        path: &Path,
        id: String,
        terminal: Option<bool>,
    ) -> Result<Plan> {
        if self.ephemeral {
            return self.over_origin(store, containers, &Origin::Directory(path.join("rootfs")));
        }
        if self.settings.any() {
            return Err(Usage::Configured(self.what).into());
        }
        self.options = self.options.of(path);
        Ok(Plan::of(self.launch_as(self.name.clone().unwrap_or(id), terminal)?))
    }

    fn over_origin(mut self, store: &Store, containers: &Runtime, origin: &Origin) -> Result<Plan> {
        let in_place = matches!(origin, Origin::Directory(_)) && !self.ephemeral;
        let driver = if in_place { None } else { Some(target::driver(store, origin, &self.driver)?) };
        let name = self.name.clone().unwrap_or_else(|| made_up(origin));
        let mut settings = self.settings.settings(&self.command, self.terminal())?;
        if self.print_config {
            // Nothing of the host is changed for that.
            settings.mounts = settings.mounts.iter().map(bundle::plain).collect();
        }
        let held = if self.detach || self.keep { Some(containers.reserve(&name)?) } else { None };
        let bundle = match &held {
            Some(held) => {
                held.owns(&Bundle::place(store, &name)?)?;
                Bundle::for_container(store, &name, origin, driver, &settings)?
            }
            None => Bundle::throw_away(store, &name, origin, driver, &settings)?,
        };
        self.options = self.options.of(bundle.path());
        let launch = Launch { args: Vec::new(), ..self.launch_as(name, None)? };
        Ok(Plan { launch, throw_away: held.is_none().then_some(bundle), held })
    }

    /// Whether the program gets a terminal: as asked for, else where there is one.
    fn terminal(&self) -> bool {
        let there = || std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        self.tty.unwrap_or_else(|| !self.detach && there())
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
