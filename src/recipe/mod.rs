//! Recipes: one declarative file says what goes into a root filesystem and what comes out.
//!
//! ```toml
//! version = 1
//! name = "busybox"
//! [base]                                    # what to start from
//! debian = { suite = "bookworm", variant = "custom" }
//! [packages]
//! include = ["busybox-static"]
//! [[run]]                                   # steps in the new root, in order, without network
//! command = ["/bin/busybox", "--install", "-s", "/bin"]
//! [[output]]
//! kind = "dir"                              # or "ext4"
//! path = "busybox"                          # relative to the current folder
//! ```
//!
//! Text is parsed once ([`Recipe::parse`]): unknown keys are refused with their line. The
//! recipes of the suites are embedded in the binary ([`Recipe::embedded`]): they are the data
//! behind `mkimg SUITE.img`, and a recipe that gives no `[[repo]]` takes those of its suite.

mod base;
mod build;
mod types;

pub use base::System;
pub use build::Action;
pub use types::{Base, Debian, Output, OutputKind, Packages, Recipe, Repo, Step, Variant};

use crate::error::Kind;
use crate::{bundle, debian, disk, layer, output, run, store, sys};
use std::path::{Path, PathBuf};

/// The recipes that the binary carries: name and text.
const EMBEDDED: &[(&str, &str)] = &[
    ("bookworm", include_str!("../../recipes/bookworm.toml")),
    ("trixie", include_str!("../../recipes/trixie.toml")),
    ("sid", include_str!("../../recipes/sid.toml")),
    ("jammy", include_str!("../../recipes/jammy.toml")),
    ("noble", include_str!("../../recipes/noble.toml")),
    ("busybox", include_str!("../../recipes/busybox.toml")),
];

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
    #[error("{}:{line}: {reason}", path.display())]
    Syntax {
        /// The recipe's file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// Two outputs of one kind.
    #[error("{}: more than one output of kind dir", path.display())]
    Outputs {
        /// The recipe's file.
        path: PathBuf,
    },
    /// A folder that should be made is there.
    #[error("{} already exists", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A command of the recipe failed.
    #[error("run {command}: {}", ended(*exit))]
    Step {
        /// The command.
        command: String,
        /// How it ended.
        exit: run::Exit,
    },
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
    Output(#[from] output::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A syscall.
    #[error(transparent)]
    Sys(#[from] sys::Error),
    /// No recipe of this suite is embedded.
    #[error("unknown suite {suite:?}, known are {}", known().join(", "))]
    UnknownSuite {
        /// The suite as asked for.
        suite: String,
    },
}

/// Result of reading or building a recipe.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => Kind::of_io(source),
            Self::Syntax { .. } | Self::UnknownSuite { .. } | Self::Outputs { .. } | Self::Exists { .. } => {
                Kind::Input
            }
            Self::Step { .. } => Kind::Internal,
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

/// The names of the suites that have a recipe in the binary.
fn known() -> Vec<&'static str> {
    EMBEDDED.iter().map(|(name, _)| *name).filter(|name| *name != "busybox").collect()
}

impl Recipe {
    /// Reads the recipe in the file `path`.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Syntax`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text, path)
    }

    /// Parses a recipe's text; `path` names it in errors.
    ///
    /// # Errors
    /// [`Error::Syntax`] with the line.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let syntax = |at: usize, reason: String| Error::Syntax {
            path: path.to_path_buf(),
            line: text[..at.min(text.len())].matches('\n').count() + 1,
            reason,
        };
        let mut recipe: Self = toml::from_str(text)
            .map_err(|e| syntax(e.span().map_or(0, |s| s.start), e.message().to_string()))?;
        if recipe.version != 1 {
            let reason = format!("version {} is not known, this shipimg reads version 1", recipe.version);
            return Err(syntax(text.find("version").unwrap_or(0), reason));
        }
        if recipe.outputs.iter().filter(|o| o.kind == OutputKind::Dir).count() > 1 {
            return Err(Error::Outputs { path: path.to_path_buf() });
        }
        if recipe.repos.is_empty() {
            recipe.repos = Self::embedded(&recipe.base.debian.suite)?.repos;
        }
        Ok(recipe)
    }

    /// The embedded recipe `name`.
    ///
    /// # Errors
    /// [`Error::UnknownSuite`] where there is none.
    pub fn embedded(name: &str) -> Result<Self> {
        let found = EMBEDDED.iter().find(|(n, _)| *n == name);
        let (name, text) = found.ok_or_else(|| Error::UnknownSuite { suite: name.to_string() })?;
        Self::parse(text, Path::new(&format!("recipes/{name}.toml")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_recipes_parse() {
        for (name, _) in EMBEDDED {
            let recipe = Recipe::embedded(name).unwrap();
            assert_eq!(recipe.name, *name);
            assert!(recipe.repos.iter().any(|r| r.suites.contains(&recipe.base.debian.suite)), "{name}");
        }
        assert!(Recipe::embedded("woody").unwrap_err().to_string().contains("bookworm, trixie"));
    }

    #[test]
    fn says_the_line() {
        let base = "version = 1\nname = \"x\"\n[base]\ndebian = { suite = \"bookworm\" }\n";
        for (text, line, reason) in [
            (format!("{base}[packges]\n"), 5, "unknown field `packges`"),
            (format!("{base}[[output]]\nkind = \"ext5\"\npath = \"x\"\n"), 6, "unknown variant `ext5`"),
            ("version = 2\nname = \"x\"\n[base]\ndebian = { suite = \"bookworm\" }\n".into(), 1, "version 2"),
            ("version = 1\nname = \n".into(), 2, ""),
        ] {
            let e = Recipe::parse(&text, Path::new("r.toml")).unwrap_err().to_string();
            assert!(e.starts_with(&format!("r.toml:{line}: ")) && e.contains(reason), "{e}");
        }
    }
}
