//! The exact set of packages of a root, as a value and as a file.
//!
//! A lock has what was asked for, the Release files that promised the packages, and each package
//! with its version, SHA-256, size and address. A root is made from a lock alone: no index is read,
//! and each package is checked against the lock. The same lock gives the same root.
//!
//! ```toml
//! version = 1
//! sources = ["deb http://deb.example/debian bookworm main"]
//! [request]
//! suite = "bookworm"
//! arch = "amd64"
//! variant = "minbase"
//! include = ["tini"]
//! [[request.archive]]
//! suites = ["bookworm"]
//! components = ["main"]
//! [[release]]
//! uri = "http://deb.example/debian"
//! suite = "bookworm"
//! components = ["main"]
//! date = 1757146000
//! sha256 = "…"                  # of InRelease
//! signer = "4CB5…"              # fingerprint; none where it was not signed
//! [[package]]
//! name = "adduser"
//! version = "3.134"
//! …
//! ```
//!
//! The request has no addresses of the suite's own archives, since these are each machine's: a lock
//! made with one mirror fits where there is another. `sources` has them, one entry for each suite of
//! the request's archives, in their order.

use super::control::Package;
use super::plan::Variant;
use super::sources::{Archive, Line, Repo, is_own};
use super::{Error, Request, Result, Snapshot};
use crate::oci::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a lock's file begins with, for people.
const HEAD: &str = "# The packages of a root filesystem, exactly. Made by shipimg; brought up to date by `shipimg lock --update`.\n";

/// The largest file that is read, in bytes: a lock of 10,000 packages has 4 MB.
const MAX: u64 = 16 << 20;

/// The exact set of packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of the format, 1.
    version: u32,
    /// The image's own apt sources: one-line entries (sources.list(5)).
    pub sources: Vec<String>,
    /// What was asked for.
    pub request: Asked,
    /// The Release files.
    #[serde(rename = "release")]
    pub releases: Vec<Locked>,
    /// The packages, sorted by name.
    #[serde(rename = "package", default)]
    pub packages: Vec<Pin>,
}

/// A request, as far as the set of packages depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Asked {
    /// The suite.
    pub suite: String,
    /// dpkg's name of the architecture.
    pub arch: String,
    /// The variant.
    pub variant: Variant,
    /// Packages on top of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Packages that are never taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// The state of the archives that was taken, where it was not the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The archives.
    #[serde(rename = "archive")]
    pub archives: Vec<Source>,
}

/// An archive, as far as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Source {
    /// The address of one that is none of the suite's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Its suites.
    pub suites: Vec<String>,
    /// Their components; none of a flat archive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
    /// Its keyrings, where they are not the distribution's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<PathBuf>,
    /// Whether it is taken whoever signed it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsigned: bool,
}

/// A Release file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Locked {
    /// The archive's address.
    pub uri: String,
    /// The suite.
    pub suite: String,
    /// Its components that were looked at.
    pub components: Vec<String>,
    /// When it was made, in seconds since 1970.
    pub date: i64,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// The fingerprint of the key that signed it; none where that was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// The SHA-256 of its file, in hexadecimal.
    pub sha256: String,
    /// The size of its file in bytes.
    pub size: u64,
    /// Where it lies.
    pub url: String,
    /// Whether it belongs to the base, whose files are placed before any script runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub base: bool,
}

impl Pin {
    pub(super) fn new(package: &Package, base: bool) -> Self {
        Self {
            name: package.name.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
            sha256: package.sha256.clone(),
            size: package.size,
            url: format!("{}/{}", package.origin.uri, package.filename),
            base,
        }
    }

    /// The name that apt gives the file in its cache.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version.replace(':', "%3a"), self.architecture)
    }
}

impl Lock {
    pub(super) fn new(request: Asked, sources: &str, releases: Vec<Locked>, packages: Vec<Pin>) -> Self {
        let sources = sources.lines().map(str::to_string).collect();
        Self { version: 1, sources, request, releases, packages }
    }

    /// Reads a lock; none where there is no such file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Lock`].
    pub fn read(path: &Path) -> Result<Option<Self>> {
        read(path, Self::check)
    }

    /// Looks at what its form does not tell.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> std::result::Result<(), String> {
        if self.version != 1 {
            return Err(format!("version {} is not known, this shipimg reads version 1", self.version));
        }
        let mut names = BTreeSet::new();
        for pin in &self.packages {
            pin.check()?;
            if !names.insert(&pin.name) {
                return Err(format!("{} is there twice", pin.name));
            }
        }
        let lines: Option<Vec<Line>> = self.sources.iter().map(|line| Line::read(line)).collect();
        let found = lines.iter().flatten().flat_map(|line| &line.repo.suites);
        if lines.is_none() || !found.eq(self.request.archives.iter().flat_map(|a| &a.suites)) {
            return Err("sources are not those of the request's archives".to_string());
        }
        let asked = self.request.snapshot.as_ref().map(|id| id.parse::<Snapshot>()).transpose();
        asked.map_err(|e| format!("snapshot: {e}"))?;
        let clean = !self.sources.iter().any(|line| line.chars().any(char::is_control));
        clean.then_some(()).ok_or_else(|| "a source with a control character".to_string())
    }

    /// What it was made for, to be asked again of the archives where it was found. `own` are the
    /// suite's own archives as this machine has them: those of the lock go first.
    #[must_use]
    pub fn again(&self, mut own: Archive) -> Request {
        let asked = &self.request;
        if let Some(snapshot) = asked.snapshot.as_ref().and_then(|id| id.parse().ok()) {
            own.use_snapshot(snapshot);
        }
        let mut lines = self.sources.iter().filter_map(|line| Line::read(line));
        let repo = |from: &Source| {
            let uri = lines.by_ref().take(from.suites.len()).map(|l| l.repo.uri).reduce(|first, _| first);
            from.repo(uri.unwrap_or_default(), &own.repos)
        };
        own.repos = asked.archives.iter().map(repo).collect();
        Request {
            variant: asked.variant,
            include: asked.include.clone(),
            exclude: asked.exclude.clone(),
            arch: asked.arch.clone(),
            ..Request::new(own)
        }
    }

    /// Where a package may be had: where it was found, then below the archives of this machine.
    pub(super) fn everywhere(&self, pin: &Pin, archive: &Archive) -> Vec<String> {
        let lines: Vec<Line> = self.sources.iter().filter_map(|line| Line::read(line)).collect();
        let found = self.releases.iter().map(|r| r.uri.as_str());
        archive.everywhere(&pin.url, found.chain(lines.iter().map(|l| l.repo.uri.as_str())))
    }

    /// Writes it in place of what is there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        replace(path, &format!("{HEAD}{}", self.text()))
    }

    /// Its text. Values of its types always have one.
    fn text(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// Digest of the whole of it.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }

    /// The newest of the Release files' dates, in seconds since 1970.
    #[must_use]
    pub fn date(&self) -> i64 {
        self.releases.iter().map(|r| r.date).max().unwrap_or(0)
    }

    /// The image's `sources.list`.
    #[must_use]
    pub fn sources_list(&self) -> String {
        self.sources.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// Digest of all in it that a root depends on, and of `more` that does.
    #[must_use]
    pub fn key(&self, more: &str) -> Digest {
        let packages = self.packages.iter().map(|p| format!("{} {} {}\n", p.name, p.sha256, p.base));
        let text: String = packages.collect();
        Digest::of(format!("{}\n{}{}\n{more}", self.request.suite, self.sources_list(), text).as_bytes())
    }
}

/// Reads a lock's file, of at most 16 MiB; none where there is no such file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Lock`] also for what `check` finds.
pub fn read<T: DeserializeOwned>(
    path: &Path,
    check: impl FnOnce(&T) -> std::result::Result<(), String>,
) -> Result<Option<T>> {
    let file = match std::fs::File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| Error::io("read", path, e))?,
    };
    let bad = |reason: String| Error::Lock { path: path.to_path_buf(), reason };
    let mut text = String::new();
    file.take(MAX + 1).read_to_string(&mut text).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => bad("not UTF-8".to_string()),
        _ => Error::io("read", path, e),
    })?;
    if text.len() as u64 > MAX {
        return Err(bad(format!("larger than {} MiB", MAX >> 20)));
    }
    let lock = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
    check(&lock).map_err(bad)?;
    Ok(Some(lock))
}

/// Writes a lock's file in place of what is there.
///
/// # Errors
/// [`Error::Io`].
pub fn replace(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let permissions = std::fs::Permissions::from_mode(0o644);
        let file = tempfile::Builder::new().permissions(permissions).tempfile_in(parent)?;
        std::fs::write(file.path(), text)?;
        file.persist(path).map(drop).map_err(|e| e.error)
    };
    write().map_err(|e| Error::io("write", path, e))
}

impl Pin {
    /// What is wrong with it. Its name is part of names of files.
    fn check(&self) -> std::result::Result<(), String> {
        let word = |s: &str, first: fn(&u8) -> bool, more: &[u8]| {
            s.as_bytes().first().is_some_and(first)
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let is =
            |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("{:?} {what}", self.name)) };
        is(word(&self.name, u8::is_ascii_alphanumeric, b"+-."), "is no name of a package")?;
        is(word(&self.version, u8::is_ascii_alphanumeric, b".+-:~_"), "has no version")?;
        is(word(&self.architecture, u8::is_ascii_alphanumeric, b"-"), "has no architecture")?;
        is(self.sha256.len() == 64 && self.sha256.bytes().all(hex), "has no SHA-256")?;
        is(!self.url.chars().any(|c| c.is_control() || c == ' '), "has no address")
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = toml::to_string(self).unwrap_or_default();
        let lines = text.trim().lines().filter(|l| !l.is_empty()).collect::<Vec<_>>();
        f.write_str(&lines.join(", ").replace("[[archive]], ", "archive of "))
    }
}

impl Asked {
    pub(super) fn new(request: &Request) -> Self {
        let archive = &request.archive;
        Self {
            suite: archive.suite.clone(),
            arch: request.arch.clone(),
            variant: request.variant,
            include: request.include.clone(),
            exclude: request.exclude.clone(),
            snapshot: archive.snapshot.as_ref().map(|s| s.id.clone()),
            archives: archive.repos.iter().map(Source::new).collect(),
        }
    }
}

impl Source {
    fn new(repo: &Repo) -> Self {
        Self {
            uri: repo.added.then(|| repo.uri.clone()),
            suites: repo.suites.clone(),
            components: repo.components.clone(),
            signed_by: repo.signed_by.iter().filter(|k| repo.added || !is_own(k)).cloned().collect(),
            unsigned: repo.trusted,
        }
    }

    /// The archive, at `uri`; `own` are those of the suite on this machine.
    fn repo(&self, uri: String, own: &[Repo]) -> Repo {
        let added = self.uri.is_some();
        let here = own.iter().find(|r| !added && r.suites.first() == self.suites.first());
        let mirrors = here.into_iter().flat_map(Repo::addresses).filter(|a| *a != uri);
        let mut signed_by = self.signed_by.clone();
        let carries_keyring = !signed_by.is_empty();
        if let Some(here) = here.filter(|_| signed_by.is_empty()) {
            signed_by.clone_from(&here.signed_by);
        }
        Repo {
            mirrors: mirrors.map(str::to_string).collect(),
            uri,
            suites: self.suites.clone(),
            components: self.components.clone(),
            signed_by,
            trusted: self.unsigned,
            carries_keyring,
            added,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
