//! `shipimg lock`: makes a lock, tells whether it is what the archives have, brings it up to date.

use super::build::{self, Chosen};
use super::dockerfile::{Docker, Given, is_dockerfile};
use super::mkimg::Wanted;
use super::phases::Phases;
use super::table::{self, Format};
use super::{Context, Result, printable};
use crate::debian::{self, Change, Lock, Request};
use crate::error::Kind;
use crate::recipe::{self, Access, Recipe, Wish};
use crate::registry;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `lock`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --suite, a lock of what is asked for is made in a new FILE, or an old one is compared with it. Without,
FILE is compared with what the archives give today for what it was made for; the exit code is 4 where that
is something else. Nothing that is there is written without --update.

With a recipe as FILE, its name ends in .toml, or a Dockerfile, all the same is said of the lock beside it, which has
images and inputs besides packages.

  shipimg lock bookworm.lock --suite bookworm --include tini
  shipimg lock bookworm.lock
  shipimg lock bookworm.lock --update openssl,libc6
  shipimg lock web.toml --update debian:bookworm,openssl
  shipimg lock web.toml --update --platform linux/arm64
  shipimg lock Dockerfile --build-arg TAG=bookworm
  shipimg mkimg bookworm.img --include tini --lock bookworm.lock --frozen")]
pub struct Args {
    /// The lock's file [default: the only *.lock of this folder, else SUITE.lock]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write the lock with these packages as they are today, and with what that makes necessary; without
    /// names, with all
    #[arg(long, value_name = "PACKAGE", num_args = 0.., value_delimiter = ',')]
    update: Option<Vec<String>>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    docker: Given,
    #[command(flatten)]
    chosen: Chosen,
}

/// What is wrong with the arguments.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No lock was named, and there is none.
    #[error("no *.lock in this folder")]
    None,
    /// No lock was named, and there are several.
    #[error("several locks in this folder: {}", .0.join(", "))]
    Several(Vec<String>),
    /// A lock that is not there, and nothing to make it of.
    #[error("no lock {}", .0.display())]
    NoLock(PathBuf),
    /// What is to be brought up to date is not in the lock.
    #[error("no package or image {name} in {}", path.display())]
    NotLocked {
        /// Its name.
        name: String,
        /// The lock's file.
        path: PathBuf,
    },
    /// Other packages were asked for, but a lock says by itself what it was made for.
    #[error("{option} without --suite: {} says itself what it was made for", path.display())]
    Asked {
        /// An option.
        option: &'static str,
        /// The lock's file.
        path: PathBuf,
    },
    /// Some packages were to be brought up to date in a lock of another request.
    #[error("{}: made for {was}, asked for is {asked}: not some of its packages alone", path.display())]
    Another {
        /// The lock's file.
        path: PathBuf,
        /// What it was made for.
        was: String,
        /// What is asked for.
        asked: String,
    },
    /// A lock of archives whose signatures nobody checked.
    #[error("{}: made of unsigned archives, with --insecure-no-signature or [trusted=yes]", .0.display())]
    Unsigned(PathBuf),
}

impl Error {
    /// The kind of failure.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::None | Self::NoLock(_) | Self::NotLocked { .. } => Kind::Missing,
            Self::Several(_) | Self::Asked { .. } => Kind::Input,
            Self::Another { .. } => Kind::Stale,
            Self::Unsigned(_) => Kind::Integrity,
        }
    }

    /// A command that may help.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::None => Some("shipimg lock bookworm.lock --suite bookworm".to_string()),
            Self::NoLock(path) => Some(format!("shipimg lock {} --suite SUITE", path.display())),
            Self::Several(all) => all.first().map(|name| format!("shipimg lock {name}")),
            Self::Another { path, .. } => {
                Some(format!("shipimg lock {} --suite SUITE … --update", path.display()))
            }
            Self::NotLocked { .. } | Self::Asked { .. } => None,
            Self::Unsigned(_) => Some("--insecure-no-signature takes them again".to_string()),
        }
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let path = self.file()?;
        if path.extension().is_some_and(|e| e == "toml") || is_dockerfile(&path) {
            return self.of_recipe(&path, context);
        }
        self.docker.nothing()?;
        if let Some(option) = self.chosen.given() {
            return Err(build::Error::OfRecipes(option).into());
        }
        let old = Lock::read(&path)?;
        let mut request = self.request(old.as_ref(), &path)?;
        // No script will run.
        request.foreign = true;
        let names = self.names(old.as_ref(), &request, &path)?;
        let (store, phases) = (context.store()?, Phases::new());
        let (new, changes) = if let Some(old) = &old {
            debian::update(old, names, &request, &store, &phases)?
        } else {
            let new = debian::resolve(&request, &store, &phases)?;
            let changes = debian::changes(None, &new);
            (new, changes)
        };
        phases.finish();
        let current = changes.is_empty() && old.as_ref().is_some_and(|old| old.request == new.request);
        let written = old.is_none() || (self.update.is_some() && !current);
        if written {
            new.write(&path)?;
        }
        self.print(&path, &changes, current, written, old.is_none())?;
        Ok(ExitCode::from(if current || written { 0 } else { Kind::Stale.exit_code() }))
    }

    /// The lock of the recipe or Dockerfile in the file `path`.
    fn of_recipe(&self, path: &Path, context: &Context) -> Result<ExitCode> {
        if let Some(option) = self.wanted.chooses() {
            return Err(Error::Asked { option, path: path.to_path_buf() }.into());
        }
        let mut choices = self.chosen.choices(&self.chosen.platform());
        choices.set.extend(self.docker.arguments());
        let (store, phases, file) = (context.store()?, Phases::new(), recipe::Lock::beside(path));
        let lease = store.lease()?;
        let access = Access {
            registry: registry::Options { document: store.limits().document, ..Default::default() },
            offline: false,
        };
        let old = recipe::Lock::read(&file)?;
        let anew = self.update.clone().or_else(|| old.is_none().then(Vec::new));
        let wish = Wish::Update(anew.unwrap_or_default());
        let recipe = match (Docker { file: None, given: self.docker.clone() }).of(path)? {
            None => Recipe::read(path, &choices)?,
            Some(dockerfile) => {
                let mut known = old.clone().unwrap_or_default();
                let platform = choices.platform.clone();
                Recipe::of_dockerfile(&dockerfile, &choices, &mut |name| {
                    known.inherited((name, path), &wish, &platform, &access, (&store, &lease))
                })?
            }
        };
        let new = recipe::Lock::of(&recipe, old.as_ref(), &wish, &access, (&store, &lease), &phases)?;
        phases.finish();
        if let Some(name) = self.update.iter().flatten().find(|name| !new.has(name)) {
            return Err(Error::NotLocked { name: (*name).clone(), path: file }.into());
        }
        let changes = new.changes(old.as_ref());
        let current = old.as_ref() == Some(&new);
        let written = !current && (old.is_none() || self.update.is_some());
        if written {
            new.write(&file)?;
        }
        self.print(&file, &changes, current, written, old.is_none())?;
        Ok(ExitCode::from(if current || written { 0 } else { Kind::Stale.exit_code() }))
    }

    /// The lock's file.
    fn file(&self) -> Result<PathBuf> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let entries = std::fs::read_dir(".")?.collect::<std::io::Result<Vec<_>>>()?;
        let names = entries.iter().map(|e| e.file_name().to_string_lossy().into_owned());
        let is_lock = |name: &String| Path::new(name).extension().is_some_and(|e| e == "lock");
        let mut locks: Vec<String> = names.filter(is_lock).collect();
        locks.sort();
        match (&locks[..], &self.wanted.suite) {
            ([], None) => Err(Error::None.into()),
            ([], Some(suite)) => Ok(format!("{suite}.lock").into()),
            ([only], _) => Ok(only.into()),
            _ => Err(Error::Several(locks).into()),
        }
    }

    /// What is asked of the archives: what the options say, or what the lock was made for.
    fn request(&self, old: Option<&Lock>, path: &Path) -> Result<Request> {
        if let Some(suite) = &self.wanted.suite {
            return self.wanted.request(suite);
        }
        let Some(lock) = old else { return Err(Error::NoLock(path.to_path_buf()).into()) };
        if let Some(option) = self.wanted.chooses() {
            return Err(Error::Asked { option, path: path.to_path_buf() }.into());
        }
        let unsigned = lock.request.archives.iter().any(|a| a.unsigned);
        if unsigned && !self.wanted.takes_unsigned() {
            return Err(Error::Unsigned(path.to_path_buf()).into());
        }
        self.wanted.again(lock)
    }

    /// The packages that may change; none where all may.
    fn names(&self, old: Option<&Lock>, request: &Request, path: &Path) -> Result<Option<&[String]>> {
        let Some(names) = self.update.as_deref().filter(|names| !names.is_empty()) else { return Ok(None) };
        let path = || path.to_path_buf();
        let lock = old.ok_or_else(|| Error::NoLock(path()))?;
        let asked = request.asked();
        if lock.request != asked {
            let (was, asked) = (lock.request.to_string(), asked.to_string());
            return Err(Error::Another { path: path(), was, asked }.into());
        }
        match names.iter().find(|n| lock.packages.iter().all(|p| p.name != **n)) {
            Some(name) => Err(Error::NotLocked { name: name.clone(), path: path() }.into()),
            None => Ok(Some(names)),
        }
    }

    fn print(&self, path: &Path, changes: &[Change], current: bool, written: bool, made: bool) -> Result<()> {
        let mut out = std::io::stdout();
        if self.format == Format::Json {
            let change = |c: &Change| json!({"name": c.name, "old": c.old, "new": c.new, "reason": c.reason});
            let packages: Vec<_> = changes.iter().map(change).collect();
            let value = json!({"lock": path, "current": current, "written": written, "packages": packages});
            writeln!(out, "{value:#}")?;
            return Ok(());
        }
        let count = changes.len();
        match (made, current, written) {
            (true, ..) => say!("{}: {count} packages", path.display()),
            (_, true, _) if self.update.as_ref().is_some_and(|names| !names.is_empty()) => {
                say!("{}: these packages are up to date", path.display());
            }
            (_, true, _) => say!("{}: up to date", path.display()),
            (.., true) => say!("{}: {count} packages changed", path.display()),
            _ if count == 0 => say!("{}: made for something else", path.display()),
            _ => say!("{}: {count} packages would change", path.display()),
        }
        let cell = |text: &Option<String>| text.as_ref().map_or("-".to_string(), |t| printable(t));
        let row = |c: &Change| [printable(&c.name), cell(&c.old), cell(&c.new), cell(&c.reason)];
        let rows: Vec<_> = changes.iter().filter(|_| !made).map(row).collect();
        if changes.iter().any(|c| c.reason.is_some()) {
            return Ok(table::print(&mut out, ["PACKAGE", "OLD", "NEW", "BECAUSE"], &rows)?);
        }
        let rows: Vec<_> = rows.into_iter().map(|[name, old, new, _]| [name, old, new]).collect();
        Ok(table::print(&mut out, ["PACKAGE", "OLD", "NEW"], &rows)?)
    }
}
