//! The options that say which packages a system is made of, and where they come from.
//!
//! `mkimg` has them all; another command that asks for packages flattens them too.

use super::super::Result;
use crate::debian::{self, Archive, Lock, Repo, Settings, Snapshot, Variant};
use crate::recipe;
use std::path::PathBuf;

/// Packages and their archives.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Packages")]
pub struct Wanted {
    /// The suite [default: the file's name]
    #[arg(long)]
    pub(in crate::cli) suite: Option<String>,
    /// What the system holds before anything is included [default: minbase]
    #[arg(long, value_enum)]
    variant: Option<VariantName>,
    /// Packages on top of the variant, with what they depend on: NAME, NAME=VERSION or NAME/SUITE
    #[arg(long, value_delimiter = ',', value_name = "PACKAGES")]
    include: Vec<String>,
    /// Packages that are never taken, whoever depends on them
    #[arg(long, value_delimiter = ',', value_name = "PACKAGES")]
    exclude: Vec<String>,
    /// The architecture, in dpkg's words [default: this machine's]
    #[arg(long)]
    arch: Option<String>,
    /// Take the main suite only, without updates and security
    #[arg(long)]
    no_updates: bool,
    #[command(flatten)]
    sources: Sources,
}

/// Where packages come from.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sources of packages")]
struct Sources {
    /// The archive of the main suite, given again the next one where that fails [default: the host's apt
    /// source for the distribution, or the distribution's own]
    #[arg(long, value_name = "URL")]
    mirror: Vec<String>,
    /// The components of all of the suite's archives [default: main; of Ubuntu main,universe]
    #[arg(long, value_delimiter = ',')]
    components: Vec<String>,
    /// One more archive: 'deb [signed-by=/KEYRING] URL SUITE COMPONENT…'
    #[arg(long, value_name = "LINE")]
    repo: Vec<String>,
    /// The archives as they were at this time, as 20260901T000000Z: from the distribution's server of
    /// snapshots, or a mirror with @SNAPSHOTID@ in its address
    #[arg(long, value_name = "TIME")]
    snapshot: Option<Snapshot>,
    /// The keyring that the archives must be signed with [default: the distribution's]
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// Take archives past their date
    #[arg(long)]
    ignore_valid_until: bool,
    /// Take archives whoever signed them, or nobody: anyone on the way chooses what is installed
    #[arg(long)]
    insecure_no_signature: bool,
    /// The proxy of all downloads [default: apt's, or that of the environment]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum VariantName {
    /// Required packages and apt
    Minbase,
    /// Essential packages and what they need
    Essential,
    /// Minbase and build-essential
    Buildd,
    /// Minbase and all packages of priorities important and standard
    Standard,
    /// The included packages alone, files only: no dependencies, no package database, no scripts
    Custom,
}

impl From<VariantName> for Variant {
    fn from(name: VariantName) -> Self {
        match name {
            VariantName::Minbase => Self::Minbase,
            VariantName::Essential => Self::Essential,
            VariantName::Buildd => Self::Buildd,
            VariantName::Standard => Self::Standard,
            VariantName::Custom => Self::Custom,
        }
    }
}

impl Wanted {
    /// What is asked of the archives of `suite`.
    pub(in crate::cli) fn request(&self, suite: &str) -> Result<debian::Request> {
        let arch = self.arch.clone().unwrap_or_else(|| debian::host_arch().to_string());
        let archive = self.archive(suite, &arch)?;
        Ok(debian::Request {
            variant: self.variant.map(Into::into).unwrap_or_default(),
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            arch,
            settings: self.sources.settings(),
            ..debian::Request::new(archive)
        })
    }

    /// What was asked for when `lock` was made; where from and through which proxy may be said anew.
    pub(in crate::cli) fn again(&self, lock: &Lock) -> Result<debian::Request> {
        let mut request = lock.again(recipe::archive(&lock.request.suite)?);
        request.archive.use_mirrors(&self.sources.mirror)?;
        request.settings = self.sources.settings();
        Ok(request)
    }

    /// An option that was given, beside the suite, that says which packages there are to be.
    pub(in crate::cli) fn chooses(&self) -> Option<&'static str> {
        let sources = &self.sources;
        let given = [
            (self.variant.is_some(), "--variant"),
            (!self.include.is_empty(), "--include"),
            (!self.exclude.is_empty(), "--exclude"),
            (self.arch.is_some(), "--arch"),
            (self.no_updates, "--no-updates"),
            (!sources.components.is_empty(), "--components"),
            (!sources.repo.is_empty(), "--repo"),
            (sources.snapshot.is_some(), "--snapshot"),
            (sources.keyring.is_some(), "--keyring"),
        ];
        given.into_iter().find_map(|(given, option)| given.then_some(option))
    }

    /// Whether archives are taken whoever signed them.
    pub(in crate::cli) const fn takes_unsigned(&self) -> bool {
        self.sources.insecure_no_signature
    }

    fn archive(&self, suite: &str, arch: &str) -> Result<Archive> {
        let mut archive = recipe::archive(suite)?;
        if self.no_updates {
            archive.main_only();
        }
        self.sources.apply(&mut archive, arch)?;
        Ok(archive)
    }
}

impl Sources {
    fn apply(&self, archive: &mut Archive, arch: &str) -> Result<()> {
        if let Some(snapshot) = &self.snapshot {
            archive.use_snapshot(snapshot.clone());
        }
        archive.use_mirrors(&self.mirror)?;
        if !self.components.is_empty() {
            archive.use_components(&self.components);
        }
        if let Some(keyring) = &self.keyring {
            archive.use_keyring(keyring);
        }
        for line in &self.repo {
            archive.repos.push(self.added(line, arch)?);
        }
        if self.insecure_no_signature {
            tracing::warn!("signatures are not checked: packages may come from anyone");
            archive.repos.iter_mut().for_each(|r| r.trusted = true);
        }
        Ok(())
    }

    /// An archive that is added to the suite's; it needs a keyring of its own, or `--keyring`.
    fn added(&self, line: &str, arch: &str) -> Result<Repo> {
        let mut repo = Repo::parse(line, arch)?;
        if repo.trusted {
            tracing::warn!("signatures of {} are not checked", repo.uri);
        } else if repo.signed_by.is_empty() && !self.insecure_no_signature {
            let none = || debian::Error::NoSignedBy { line: line.to_string() };
            repo.signed_by = vec![self.keyring.clone().ok_or_else(none)?];
            repo.carries_keyring = true;
        }
        Ok(repo)
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::of_host();
        settings.check_valid_until &= !self.ignore_valid_until;
        if let Some(proxy) = &self.proxy {
            settings.proxies.http = Some(proxy.clone());
            settings.proxies.https = Some(proxy.clone());
        }
        settings
    }
}
