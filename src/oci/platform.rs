//! Platforms (OCI image-spec, image-index.md, "platform").

use super::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Operating system, architecture and variant, in Go's names: `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v8`, `v7`, …; none for most.
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_string(),
            architecture: architecture.to_string(),
            variant: variant.map(str::to_string),
        }
    }

    /// How well an image of platform `other` serves on this one; `None` where it does not run.
    /// The same variant is best, then no variant, then the newest older one.
    #[must_use]
    pub fn fits(&self, other: &Self) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        let number = |v: &Option<String>| v.as_deref().and_then(|v| v.strip_prefix('v')?.parse::<u32>().ok());
        match (&self.variant, &other.variant) {
            (a, b) if a == b => Some(1000),
            (_, None) => Some(999),
            (None, Some(_)) => Some(500),
            (a, b) => match (number(a), number(b)) {
                (Some(mine), Some(theirs)) if theirs < mine => Some(theirs),
                _ => None,
            },
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, arch] => (os, arch, None),
            [os, arch, variant] => (os, arch, Some(variant)),
            _ => return Err(Error::Platform { text: text.to_string() }),
        };
        if parts.iter().any(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')) {
            return Err(Error::Platform { text: text.to_string() });
        }
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Self {
            os: os.to_string(),
            architecture: architecture.to_string(),
            variant: variant.map(str::to_string),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_variant() {
        let p = |s: &str| s.parse::<Platform>().unwrap();
        let host = p("linux/arm/v7");
        let mut have = [p("linux/arm/v5"), p("linux/arm/v6"), p("linux/arm64"), p("linux/arm/v8")];
        have.sort_by_key(|o| std::cmp::Reverse(host.fits(o)));
        assert_eq!(have[0].to_string(), "linux/arm/v6");
        assert_eq!(host.fits(&p("linux/arm/v8")), None);
        assert_eq!(host.fits(&p("windows/arm")), None);
        assert!("linux".parse::<Platform>().is_err() && "linux//x".parse::<Platform>().is_err());
    }
}
