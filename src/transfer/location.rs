//! Places that images are copied from and to (containers-transports(5)).

use super::{Error, Result};
use crate::oci::Name;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A place, as it is typed: `docker://REFERENCE`, `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`,
/// `docker-archive:FILE[:NAME]`, `dir:DIR`, `store:NAME`; a text without any of these is a name in
/// the store. The file `-` is standard input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A registry, by a reference as typed: short names are resolved later.
    Registry(String),
    /// A file or folder.
    Archive {
        /// What it is or shall be.
        kind: Kind,
        /// Where; `-` for standard input or output.
        path: PathBuf,
        /// Which image in it.
        name: Option<String>,
    },
    /// The store.
    Store(Name),
}

/// The kinds of files and folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An OCI image layout.
    Oci,
    /// The tar of one.
    OciArchive,
    /// The tar of `docker save`.
    DockerArchive,
    /// A folder of one image's blobs.
    Dir,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Oci, Self::OciArchive, Self::DockerArchive, Self::Dir];

    const fn name(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
            Self::Dir => "dir",
        }
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fail = |reason| Error::Location { text: text.chars().take(300).collect(), reason };
        if let Some(reference) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(reference.to_string()));
        }
        for kind in Kind::ALL {
            let Some(rest) = text.strip_prefix(kind.name()).and_then(|r| r.strip_prefix(':')) else {
                continue;
            };
            // A path with a colon cannot be typed; nor can it with other tools.
            let (path, name) = match rest.split_once(':') {
                Some((path, name)) if kind != Kind::Dir => (path, Some(name.to_string())),
                _ => (rest, None),
            };
            if path.is_empty() {
                return Err(fail("it has no path"));
            }
            return Ok(Self::Archive { kind, path: path.into(), name: name.filter(|n| !n.is_empty()) });
        }
        let name = text.strip_prefix("store:").unwrap_or(text);
        let parsed = name.parse().map_err(|source| Error::Document { name: "the store".into(), source });
        parsed.map(Self::Store)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "docker://{reference}"),
            Self::Archive { kind, path, name } => {
                write!(f, "{}:{}", kind.name(), path.display())?;
                name.as_ref().map_or(Ok(()), |n| write!(f, ":{n}"))
            }
            Self::Store(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (text, shown) in [
            ("docker://localhost:5000/a:b", "Registry"),
            ("oci:/tmp/x:latest", "Oci, path: \"/tmp/x\", name: Some(\"latest\")"),
            ("oci-archive:x.tar", "OciArchive, path: \"x.tar\", name: None"),
            (
                "docker-archive:-:debian:bookworm",
                "DockerArchive, path: \"-\", name: Some(\"debian:bookworm\")",
            ),
            ("dir:/a:b", "Dir, path: \"/a:b\""),
            ("alpine", "Store"),
            ("store:alpine", "Store"),
        ] {
            let place: Location = text.parse().unwrap();
            assert!(format!("{place:?}").contains(shown), "{text}: {place:?}");
            assert_eq!(place.to_string().parse::<Location>().unwrap(), place, "{text}");
        }
        for bad in ["oci:", "dir:", "ftp://x", ""] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }
}
