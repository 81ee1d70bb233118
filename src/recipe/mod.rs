//! Recipes: one declarative file says what goes into a root filesystem and what comes out.
//!
//! ```text
//! file ─ read ─→ Recipe ─ lock ─→ Lock ─ plan (pure) ─→ Plan ─ build ─→ image ─ output ─→ files, images
//! ```
//!
//! ```toml
//! version = 1
//! name = "web"
//! [base]                                    # what to start from
//! debian = { suite = "bookworm" }
//! [packages]
//! include = ["nginx-light"]
//! [[copy]]                                  # steps, in order; each makes a layer
//! from = "site/"
//! to = "/var/www/html/"
//! [[run]]
//! shell = "nginx -t"
//! [image]
//! cmd = ["nginx", "-g", "daemon off;"]
//! [[output]]
//! kind = "oci"
//! tag = "localhost/web:latest"
//! ```
//!
//! A Dockerfile becomes the same values (`dockerfile.rs`), and from there on all is the same.
//!
//! A file is parsed once: unknown keys are refused with their line. [`Lock`] pins what comes from
//! elsewhere, [`Plan`] gives each step a key, [`Builder`] does those whose results are not kept in the
//! store. The recipes of the suites are embedded in the binary ([`archive`]): they are the data behind
//! `mkimg SUITE.img`, and a recipe that gives no archives takes those of its suite.

mod accounts;
mod archives;
mod assemble;
mod base;
mod build;
mod cache;
mod check;
mod command;
mod context;
mod dockerfile;
mod files;
mod inputs;
mod lock;
mod mounts;
mod output;
mod overlays;
mod plan;
mod read;
mod settings;
mod shard;
mod stages;
mod types;
mod variables;

pub use archives::archive;
pub use base::System;
pub use build::{Builder, Built, How, Options};
pub use cache::{Cache, Moved, prune};
pub use command::Shell;
pub use context::{Directory, DockerCopy};
pub use dockerfile::{Dockerfile, Ignore, Inherited, NAMES as DOCKERFILES};
pub use lock::{Access, Lock, Pinned, Wish, request};
pub use mounts::{Bind, InMemory, KeptFolder};
pub use output::{Target, output_text, write};
pub use overlays::Overlays;
pub use plan::{FORMAT, Plan, Step, Work};
pub use read::{Action, Choices, Placed, Recipe, Stage};
pub use shard::{Job, Shard, shards};
pub use types::{Base, Copy, File, Group, Image, Output, OutputKind, Run, Secret, User};

use crate::error::Kind;
use crate::oci::Platform;
use crate::verify::Place;
use crate::{bundle, debian, disk, layer, oci, registry, run, store, sys, transfer};
use std::ffi::OsString;
use std::path::PathBuf;

/// What is wrong with a recipe, or with what it builds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// The recipe's file.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The text is no recipe.
    #[error("{place}: {reason}")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong there.
        reason: String,
    },
    /// A variable to be set that the recipe does not have.
    #[error("no variable {name} in the recipe{near}")]
    NoVariable {
        /// Its name.
        name: String,
        /// What may have been meant.
        near: String,
    },
    /// Files that a step takes cannot be read.
    #[error("{place}: {source}")]
    Input {
        /// The step.
        place: Place,
        /// Why.
        source: Box<layer::Error>,
    },
    /// A secret that is not there.
    #[error("secret {name} is not set")]
    NoSecret {
        /// Its name.
        name: String,
    },
    /// An image to build on that is for another platform.
    #[error("it is for {is}, not for {wanted}")]
    Platform {
        /// What it is for.
        is: Box<Platform>,
        /// What is built for.
        wanted: Box<Platform>,
    },
    /// A name that no file in a layer can have.
    #[error("{name:?} cannot be the name of a file")]
    Name {
        /// The name.
        name: OsString,
    },
    /// A file of users or groups cannot be added to.
    #[error("etc/{file}: {reason}")]
    Accounts {
        /// The file.
        file: &'static str,
        /// Why.
        reason: String,
    },
    /// Something else than a step's result under its name.
    #[error("{name} is not the result of a step")]
    NoResult {
        /// The name.
        name: String,
    },
    /// A lock that is not the one of what is asked for.
    #[error("{what} is not in {} as it is now", lock.display())]
    Stale {
        /// What.
        what: String,
        /// The lock.
        lock: PathBuf,
    },
    /// Something that is not there without asking a server.
    #[error("{what}: no server is asked (--offline)")]
    Offline {
        /// What.
        what: String,
    },
    /// The command of a step failed.
    #[error("{}: {}: {}", .0.place, .0.what, ended(.0.exit))]
    Failed(Box<Failed>),
    /// A stage that was built beside others.
    #[error("{message}")]
    Stage {
        /// What went wrong.
        message: String,
        /// Of which kind.
        kind: Kind,
        /// What the program that failed printed.
        output: String,
    },
    /// A step could not be done.
    #[error("{place}: {what}: {source}")]
    Step {
        /// The step.
        place: Place,
        /// What it does.
        what: String,
        /// Why.
        source: Box<Error>,
    },
    /// A reference, a document.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A copy of an image.
    #[error(transparent)]
    Transfer(#[from] Box<transfer::Error>),
    /// Packages.
    #[error(transparent)]
    Debian(#[from] debian::Error),
    /// A bundle for a command.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// A command.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// Files of an image.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// A filesystem image.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// What comes out.
    #[error(transparent)]
    Output(#[from] crate::output::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A syscall.
    #[error(transparent)]
    Sys(#[from] sys::Error),
    /// No recipe of this suite is embedded.
    #[error("unknown suite {suite:?}, known are {}", archives::known().collect::<Vec<_>>().join(", "))]
    UnknownSuite {
        /// The suite as asked for.
        suite: String,
    },
}

/// A command that failed.
#[derive(Debug)]
pub struct Failed {
    /// The step.
    pub place: Place,
    /// What it runs.
    pub what: String,
    /// How it ended.
    pub exit: run::Exit,
    /// What it printed, where that was not shown.
    pub output: String,
}

impl From<transfer::Error> for Error {
    fn from(e: transfer::Error) -> Self {
        Self::Transfer(Box::new(e))
    }
}

/// Result of reading or building a recipe.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What the program that failed printed, where that was not shown.
    #[must_use]
    pub fn output(&self) -> &str {
        match self {
            Self::Failed(failed) => &failed.output,
            Self::Stage { output, .. }
            | Self::Debian(debian::Error::Configure { output, .. } | debian::Error::Hook { output, .. }) => {
                output
            }
            _ => "",
        }
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } if source.kind() != std::io::ErrorKind::InvalidData => {
                Kind::of_io(source)
            }
            Self::Read { .. }
            | Self::Syntax { .. }
            | Self::NoVariable { .. }
            | Self::UnknownSuite { .. }
            | Self::Name { .. }
            | Self::Accounts { .. } => Kind::Input,
            Self::NoResult { .. } => Kind::Integrity,
            Self::NoSecret { .. } | Self::Offline { .. } | Self::Platform { .. } => Kind::Missing,
            Self::Stale { .. } => Kind::Stale,
            Self::Stage { kind, .. } => *kind,
            Self::Failed(_) => Kind::Internal,
            Self::Input { source, .. } => source.kind(),
            Self::Step { source, .. } => source.kind(),
            Self::Oci(e) => e.kind(),
            Self::Registry(e) => e.kind(),
            Self::Transfer(e) => e.kind(),
            Self::Debian(e) => e.kind(),
            Self::Bundle(e) => e.kind(),
            Self::Run(e) => e.kind(),
            Self::Layer(e) => e.kind(),
            Self::Disk(e) => e.kind(),
            Self::Output(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Sys(e) => e.kind(),
        }
    }
}

fn ended(exit: run::Exit) -> String {
    match exit {
        run::Exit::Code(code) => format!("exit code {code}"),
        run::Exit::Signal(signal) => format!("ended by signal {signal}"),
    }
}

/// What may have been meant by `word`, as the end of a sentence; nothing where nothing known is near.
fn suggest(word: &str, known: &[&str]) -> String {
    let near = known.iter().map(|k| (strsim::damerau_levenshtein(word, k), k));
    let best = near.filter(|(distance, k)| *distance <= 1 + k.len() / 3).min();
    best.map_or_else(String::new, |(_, k)| format!(", did you mean {k}?"))
}

impl Error {
    /// The same, told with the step that it is of, unless it tells that itself.
    fn of_step(self, step: &Step) -> Self {
        match self {
            Self::Failed(_)
            | Self::Syntax { .. }
            | Self::Input { .. }
            | Self::Step { .. }
            | Self::Debian(_)
            | Self::Stale { .. }
            | Self::Offline { .. } => self,
            other => {
                let (place, what) = (step.place.clone(), step.work.to_string());
                Self::Step { place, what, source: Box::new(other) }
            }
        }
    }
}

impl Error {
    /// The same, told with the image that it is about and the place that names it.
    fn of_image(self, place: &Place, name: &str) -> Self {
        match self {
            Self::Syntax { .. } | Self::Step { .. } | Self::Stale { .. } | Self::Offline { .. } => self,
            other => {
                Self::Step { place: place.clone(), what: format!("image {name}"), source: Box::new(other) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const BASE: &str = "version = 1\n[base]\ndebian = { suite = \"bookworm\" }\n";

    fn read(text: &str) -> Result<Recipe> {
        Recipe::parse(text, Path::new("r.toml"), &Choices::default())
    }

    #[test]
    fn says_the_line_and_what_was_meant() {
        for (text, line, reason) in [
            (format!("{BASE}[packges]\n"), 4, "unknown field `packges`, did you mean packages?"),
            (format!("{BASE}[[output]]\nkind = \"ext5\"\npath = \"x\"\n"), 5, "did you mean ext"),
            (format!("{BASE}[[run]]\nshel = \"x\"\n"), 5, "did you mean shell?"),
            (format!("{BASE}[[run]]\n"), 4, "one of command, shell, script"),
            (
                format!(
                    "{BASE}[[copy]]\nstage = \"biuld\"\nfrom = \"/x\"\n[[stage]]\nname = \"build\"\nbase = {{ scratch = true }}\n"
                ),
                4,
                "did you mean build?",
            ),
            (format!("{BASE}[[run]]\nshell = \"echo ${{var:x}}\"\n"), 5, "no variable x in [vars]"),
            (format!("{BASE}[[run]]\nshell = \"x\"\nsecrets = [\"t\"]\n"), 4, "no secret t"),
            (format!("{BASE}[[output]]\nkind = \"oci\"\n"), 4, "needs a tag"),
            (format!("{BASE}[[user]]\nname = \"a:b\"\n"), 4, "not a name"),
            ("version = 1\n[base]\nimage = \"a\"\nscratch = true\n".into(), 2, ""),
            ("version = 1\n".into(), 1, "no [base]"),
            ("version = 2\n[base]\nscratch = true\n".into(), 1, "version is not known"),
            ("version = 1\nname = \n".into(), 2, ""),
        ] {
            let e = read(&text).unwrap_err().to_string();
            assert!(e.starts_with(&format!("r.toml:{line}: ")) && e.contains(reason), "{text}: {e}");
        }
    }

    #[test]
    fn steps_keep_their_order_and_conditions_hold() {
        let text = format!(
            "{BASE}[vars]\nmode = \"fast\"\n[[run]]\nshell = \"one\"\n[[copy]]\ncontent = \"${{var:mode}} $${{var:mode}} ${{HOME}}\"\nto = \"/a\"\n\
             [[run]]\nshell = \"two\"\nwhen = {{ arch = [\"vax\"] }}\n[[user]]\nname = \"u\"\nwhen = {{ suite = [\"bookworm\"], var = {{ mode = \"fast\" }} }}\n\
             [[run]]\nshell = \"three\"\n"
        );
        let recipe = read(&text).unwrap();
        let steps: Vec<String> = recipe.stages[0].steps.iter().map(|s| s.value.to_string()).collect();
        assert_eq!(steps, ["run one", "copy text to /a", "user u", "run three"]);
        let Action::Copy(copy) = &recipe.stages[0].steps[1].value else { panic!() };
        assert_eq!(copy.content.as_deref(), Some("fast ${var:mode} ${HOME}"));
        assert_eq!(recipe.stages[0].steps[3].place.line, 17);
        let set = |value: &str| {
            let set = [("mode".to_string(), value.to_string())].into();
            Recipe::parse(&text, Path::new("r.toml"), &Choices { set, ..Choices::default() }).unwrap()
        };
        assert_eq!(set("slow").stages[0].steps.len(), 3);
        let wrong = Choices { set: [("mod".to_string(), String::new())].into(), ..Choices::default() };
        let e = Recipe::parse(&text, Path::new("r.toml"), &wrong).unwrap_err().to_string();
        assert_eq!(e, "no variable mod in the recipe, did you mean mode?");
    }

    #[test]
    fn recipes_extend_and_stand_on_others() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "base.toml",
            "version = 1\n[vars]\nx = \"1\"\n[base]\nscratch = true\n[[copy]]\ncontent = \"${var:x}\"\nto = \"/x\"\n[image]\ncmd = [\"/x\"]\n[[output]]\nkind = \"tar\"\npath = \"x.tar\"\n",
        );
        write(
            "more.toml",
            "version = 1\nextends = \"base.toml\"\n[vars]\nx = \"2\"\n[[copy]]\ncontent = \"y\"\nto = \"/y\"\n[image]\nenv = { A = \"b\" }\n",
        );
        write(
            "on.toml",
            "version = 1\n[base]\nrecipe = \"base.toml\"\n[[copy]]\ncontent = \"y\"\nto = \"/y\"\n",
        );
        write("loop.toml", "version = 1\nextends = \"loop.toml\"\n");
        let read = |name: &str| Recipe::read(&dir.path().join(name), &Choices::default());
        let more = read("more.toml").unwrap();
        let Action::Copy(copy) = &more.stages[0].steps[0].value else { panic!() };
        assert_eq!(
            (copy.content.as_deref(), more.stages[0].steps.len(), more.outputs.len()),
            (Some("2"), 2, 1)
        );
        let image = &more.stages[0].image;
        assert!(image.cmd.is_some() && image.env.contains_key("A"));
        let on = read("on.toml").unwrap();
        assert_eq!((on.stages.len(), on.outputs.len()), (2, 0));
        let keys = |r: &Recipe| {
            let lock = Lock::default();
            Plan::of(r, &lock).unwrap().steps.into_iter().map(|s| s.key).collect::<Vec<_>>()
        };
        let (base, on) = (keys(&read("base.toml").unwrap()), keys(&on));
        assert_eq!(base[..], on[..base.len()], "the same steps are the same wherever they stand");
        assert!(read("loop.toml").unwrap_err().to_string().contains("extends itself"));
    }

    #[test]
    fn suites_are_known() {
        for suite in archives::known() {
            let archive = archive(suite).unwrap();
            assert!(archive.repos[0].uri.contains(
                if ["jammy", "noble", "resolute", "stonking"].contains(&suite) { "ubuntu" } else { "debian" }
            ));
            assert!(archive.distribution.contains(&suite.to_string()));
        }
        assert!(archive("woody").unwrap_err().to_string().contains("bookworm, trixie"));
        let repo = |suite: &str| {
            format!(
                "{BASE}[[repo]]\nuri = \"http://127.0.0.1/x/\"\nsuites = [\"{suite}\"]\nsigned-by = \"k.gpg\"\n"
            )
        };
        let uris = |text: &str| {
            let recipe = read(text).unwrap();
            let request = request(&recipe, &recipe.stages[0]).unwrap().unwrap();
            request.archive.repos.iter().map(|r| r.uri.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            uris(&repo("bookworm")),
            ["http://127.0.0.1/x"],
            "it has the suite itself: there is no other"
        );
        assert!(
            uris(&repo("extra")).len() > 1 && uris(&repo("extra")).last().unwrap() == "http://127.0.0.1/x"
        );
    }
}
