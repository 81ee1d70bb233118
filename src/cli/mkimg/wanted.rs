//! The options that say which packages a system is made of, and where they come from.
//!
//! `mkimg` has them all; another command that asks for packages flattens them too.

use super::super::Result;
use super::super::import::source_date;
use crate::debian::{self, Archive, Settings, Variant};
use crate::recipe::Recipe;
use std::path::PathBuf;

/// Packages and their archives.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Packages")]
pub struct Wanted {
    /// The suite [default: the file's name]
    #[arg(long)]
    pub(super) suite: Option<String>,
    /// Packages on top of the variant, with what they depend on
    #[arg(long, value_delimiter = ',', value_name = "PACKAGES")]
    include: Vec<String>,
    /// The archive of the main suite [default: the host's apt source for the distribution, or the distribution's own]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// What the system holds before anything is included
    #[arg(long, value_enum, default_value = "minbase")]
    variant: VariantName,
    /// The architecture, in dpkg's words [default: this machine's]
    #[arg(long)]
    arch: Option<String>,
    /// The keyring that the archives must be signed with [default: the distribution's]
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// Take the main suite only, without updates and security
    #[arg(long)]
    no_updates: bool,
    /// Leave apt's lists and package files in the system
    #[arg(long)]
    keep_apt: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum VariantName {
    /// Required packages and apt
    Minbase,
    /// Essential packages and what they need
    Essential,
}

impl From<VariantName> for Variant {
    fn from(name: VariantName) -> Self {
        match name {
            VariantName::Minbase => Self::Minbase,
            VariantName::Essential => Self::Essential,
        }
    }
}

impl Wanted {
    /// What is asked of the archives of `suite`.
    pub(in crate::cli) fn request(&self, suite: &str) -> Result<debian::Request> {
        Ok(debian::Request {
            archive: self.archive(suite)?,
            variant: self.variant.into(),
            include: self.include.clone(),
            arch: self.arch.clone().unwrap_or_else(|| debian::host_arch().to_string()),
            settings: Settings::of_host(),
            epoch: source_date(),
            keep_apt: self.keep_apt,
        })
    }

    fn archive(&self, suite: &str) -> Result<Archive> {
        let mut archive = Recipe::embedded(suite)?.archive();
        if let Some(mirror) = &self.mirror {
            archive.use_mirror(mirror);
        }
        if self.no_updates {
            archive.main_only();
        }
        if let Some(keyring) = &self.keyring {
            archive.use_keyring(keyring);
        }
        Ok(archive)
    }
}
