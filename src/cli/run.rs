//! `shipimg run`: create, start, wait, delete.
//!
//! `run -b BUNDLE ID`, as other runtimes have it, or `run WHAT [-- CMD…]`, where WHAT is a
//! bundle of the store, an image, an image file, or a folder ([`target`] says how a word
//! is read). From an image or a file a throw-away bundle is made; with --ephemeral from a
//! folder or a bundle too. The exit code is the program's; 128 and the signal where one
//! ended it; 125 where shipimg failed, 126 where the program cannot be executed, 127 where
//! it is not there.

use super::create::{self, Options};
use super::pulling::{Found, Pulling};
use super::target::{self, Target};
use super::{Context, Error, Result, settings};
use crate::bundle::{Bundle, Origin};
use crate::rootfs::Access;
use crate::run::{self, Launch};
use crate::store::Store;
use crate::sys::selfexe;
use crate::transfer::Platforms;
use std::hash::{BuildHasher, RandomState};
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A bundle, an image, an image file or a folder; with --bundle, the container's name
    #[arg(value_name = "WHAT|ID")]
    what: String,
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
    /// Do not wait for its end
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    pulling: Pulling,
    #[command(flatten)]
    settings: settings::Overrides,
    /// Program and arguments instead of the bundle's
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
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
        let runtime = context.runtime()?;
        let (keep, detach) = (self.keep, self.detach);
        let Plan { launch, throw_away } = self.plan(&context.store()?)?;
        if throw_away.is_none() {
            create::mount(&launch.bundle)?;
        }
        if detach {
            let container = launch.create(&runtime)?;
            if let Err(e) = container.start() {
                container.delete(true)?;
                return Err(e.into());
            }
            return Ok(ExitCode::SUCCESS);
        }
        let exit = launch.run(&runtime, keep);
        if let Some(bundle) = throw_away {
            bundle.remove()?;
        }
        Ok(ExitCode::from(exit?.code()))
    }

    fn plan(self, store: &Store) -> Result<Plan> {
        let plain = |options: Options, id: String, args: Vec<String>| -> Result<Plan> {
            Ok(Plan { launch: Launch { args, ..options.launch(id)? }, throw_away: None })
        };
        if self.options.bundle.is_some() {
            return plain(self.options, self.name.unwrap_or(self.what), self.command);
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
                self.in_bundle(store, bundle.path(), bundle.name().to_string(), Some(terminal()))
            }
            Ok(Target::Folder(path)) => {
                let id = run::id_of(&path);
                self.in_bundle(store, &path, id, None)
            }
            Err(_) if Path::new("config.json").exists() => plain(self.options, self.what, self.command),
            Err(e) => Err(e),
        }
    }

    fn in_bundle(self, store: &Store, path: &Path, id: String, terminal: Option<bool>) -> Result<Plan> {
        if self.ephemeral {
            return self.over_origin(store, &Origin::Directory(path.join("rootfs")));
        }
        if self.settings.any() {
            return Err(Usage::Configured(self.what).into());
        }
        let launch = self.options.of(path).launch(self.name.unwrap_or(id))?;
        Ok(Plan { launch: Launch { args: self.command, terminal, ..launch }, throw_away: None })
    }

    fn over_origin(self, store: &Store, origin: &Origin) -> Result<Plan> {
        if self.detach || self.keep {
            return Err(Usage::Outlives(self.what).into());
        }
        let in_place = matches!(origin, Origin::Directory(_)) && !self.ephemeral;
        let driver = if in_place { None } else { Some(target::driver(store, origin, &self.driver)?) };
        let name = self.name.unwrap_or_else(|| made_up(origin));
        let settings = self.settings.settings(&self.command, terminal())?;
        let bundle = Bundle::throw_away(store, &name, origin, driver, &settings)?;
        Ok(Plan { launch: self.options.of(bundle.path()).launch(name)?, throw_away: Some(bundle) })
    }
}

/// Whether there is a terminal to give to the container.
fn terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
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
