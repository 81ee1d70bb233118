//! Places that images are copied from and to (containers-transports(5)).

use super::{Error, Result};
use crate::archive::Kind;
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
        /// What it is or shall be; `rootfs` and `aci` are read only.
        kind: Kind,
        /// Where; `-` for standard input or output.
        path: PathBuf,
        /// Which image in it.
        name: Option<String>,
    },
    /// The store.
    Store(Name),
}

impl Location {
    /// The name in the store.
    ///
    /// # Errors
    /// [`Error::Location`] for other places.
    pub fn in_store(&self) -> Result<Name> {
        match self {
            Self::Store(name) => Ok(name.clone()),
            Self::Registry(_) | Self::Archive { .. } => {
                Err(Error::Location { text: self.to_string(), reason: "it is not in the store" })
            }
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
        if let Some((kind, rest)) = text.split_once(':')
            && let Ok(kind) = kind.parse::<Kind>()
        {
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
                write!(f, "{kind}:{}", path.display())?;
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
            ("oci:/tmp/x:latest", "kind: Oci, path: \"/tmp/x\", name: Some(\"latest\")"),
            ("oci-archive:x.tar", "kind: OciArchive, path: \"x.tar\", name: None"),
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
