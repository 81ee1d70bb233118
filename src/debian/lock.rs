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

use super::control::Package;
use super::plan::Variant;
use super::{Error, Request, Result};
use crate::oci::Digest;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What a lock's file begins with, for people.
const HEAD: &str = "# The packages of a root filesystem, exactly. Made by shipimg; brought up to date by `shipimg lock --update`.\n";

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
    /// Suites and components of each archive.
    pub archives: Vec<String>,
    /// The state of the archives that was taken, where it was not the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
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
        let text = match std::fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|e| Error::io("read", path, e))?,
        };
        let bad = |reason: String| Error::Lock { path: path.to_path_buf(), reason };
        let lock: Self = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if lock.version != 1 {
            return Err(bad(format!("version {} is not known, this shipimg reads version 1", lock.version)));
        }
        let hex =
            |s: &str| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        match lock.packages.iter().find(|p| !hex(&p.sha256)) {
            Some(p) => Err(bad(format!("{} has no SHA-256", p.name))),
            None => Ok(Some(lock)),
        }
    }

    /// Writes it in place of what is there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self).map_err(|e| Error::io("write", path, std::io::Error::other(e)))?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || {
            let file = tempfile::Builder::new().permissions(permissions()).tempfile_in(parent)?;
            std::fs::write(file.path(), format!("{HEAD}{text}"))?;
            file.persist(path).map(drop).map_err(|e| e.error)
        };
        write().map_err(|e| Error::io("write", path, e))
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

fn permissions() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::Permissions::from_mode(0o644)
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = toml::to_string(self).unwrap_or_default();
        f.write_str(&text.trim().replace('\n', ", "))
    }
}

impl Asked {
    pub(super) fn new(request: &Request) -> Self {
        let archive = &request.archive;
        let line = |r: &super::Repo| {
            let unsigned = if r.trusted { "unsigned " } else { "" };
            format!("{unsigned}{} {}", r.suites.join(" "), r.components.join(" ")).trim_end().to_string()
        };
        Self {
            suite: archive.suite.clone(),
            arch: request.arch.clone(),
            variant: request.variant,
            include: request.include.clone(),
            exclude: request.exclude.clone(),
            archives: archive.repos.iter().map(line).collect(),
            snapshot: archive.snapshot.as_ref().map(|s| s.id.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        let hash = "0123456789abcdef".repeat(4);
        let asked = Asked {
            suite: "bookworm".into(),
            arch: "amd64".into(),
            variant: Variant::Minbase,
            include: vec!["tini".into()],
            exclude: vec![],
            archives: vec!["bookworm main".into()],
            snapshot: None,
        };
        let release = Locked {
            uri: "http://deb.example/debian".into(),
            suite: "bookworm".into(),
            components: vec!["main".into()],
            date: 5,
            sha256: hash.clone(),
            signer: None,
        };
        let pin = Pin {
            name: "a".into(),
            version: "1:2-3~x+y".into(),
            architecture: "all".into(),
            sha256: hash,
            size: 7,
            url: "http://deb.example/debian/a.deb".into(),
            base: true,
        };
        Lock::new(
            asked,
            "deb http://deb.example/debian bookworm main\n",
            vec![release],
            vec![pin.clone(), Pin { name: "b".into(), base: false, ..pin }],
        )
    }

    #[test]
    fn written_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        assert!(Lock::read(&path).unwrap().is_none());
        lock().write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap().unwrap(), lock());
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("version = 1\n", "version = 2\n"),
            ("[request]", "[reqest]"),
            ("sha256 = \"0123", "sha256 = \"123"),
            ("size = 7", "size = -7"),
        ] {
            assert!(text.contains(from), "{text}");
            std::fs::write(&path, text.replace(from, to)).unwrap();
            assert!(matches!(Lock::read(&path), Err(Error::Lock { .. })), "{to}");
        }
    }

    #[test]
    fn keys_tell_roots_apart() {
        let one = lock();
        let mut other = lock();
        other.packages[1].base = true;
        assert_eq!(one.key("x"), lock().key("x"));
        assert!(one.key("x") != one.key("y") && one.key("x") != other.key("x"));
        assert_eq!(one.sources_list(), "deb http://deb.example/debian bookworm main\n");
    }
}
