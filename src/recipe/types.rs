//! The shape of a recipe's file.

use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;

/// A recipe, as its file says it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// Version of the format, 1.
    pub version: u32,
    /// Name, for messages.
    pub name: String,
    /// What to start from.
    pub base: Base,
    /// Packages on top of the base.
    #[serde(default)]
    pub packages: Packages,
    /// Where packages come from; those of the suite's own recipe where there are none.
    #[serde(default, rename = "repo")]
    pub repos: Vec<Repo>,
    /// Commands run in the new root, in order.
    #[serde(default, rename = "run")]
    pub steps: Vec<Step>,
    /// What is written.
    #[serde(default, rename = "output")]
    pub outputs: Vec<Output>,
}

/// What a root is made from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Debian packages.
    pub debian: Debian,
}

/// A Debian or Ubuntu base.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// The suite, as `bookworm`.
    pub suite: String,
    /// Which packages belong to the base.
    #[serde(default)]
    pub variant: Variant,
    /// Packages that belong to the base of this suite whatever their priority.
    #[serde(default)]
    pub extra: Vec<String>,
}

/// Which packages belong to a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Essential and required packages and apt, as `debootstrap --variant=minbase`.
    #[default]
    Minbase,
    /// Essential packages only, with what they depend on.
    Essential,
    /// Exactly the included packages, without what they depend on; unpacked, not configured.
    Custom,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Minbase => "minbase",
            Self::Essential => "essential",
            Self::Custom => "custom",
        })
    }
}

/// Packages on top of the base.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// Their names.
    #[serde(default)]
    pub include: Vec<String>,
}

/// Suites of one archive.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Repo {
    /// The archive's address.
    pub uri: String,
    /// Suites, as `bookworm`, `bookworm-updates`.
    pub suites: Vec<String>,
    /// Components, as `main`.
    pub components: Vec<String>,
    /// Keyring files; a Release file must be signed by a key of one of them.
    pub signed_by: Vec<PathBuf>,
}

/// A command that runs in the new root.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Program and arguments.
    pub command: Vec<String>,
}

/// Something that a build writes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// In which form.
    pub kind: OutputKind,
    /// Where to, relative to the current folder.
    pub path: PathBuf,
}

/// The form of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// A folder.
    Dir,
    /// A file with an ext4 filesystem.
    Ext4,
}

impl fmt::Display for OutputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dir => "dir",
            Self::Ext4 => "ext4",
        })
    }
}
