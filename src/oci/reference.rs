//! References: which image, where (the distribution project's reference grammar).
//!
//! ```text
//! reference = [registry "/"] path [":" tag] ["@" digest]
//! ```
//! The first component is a registry when it contains a `.` or a `:`, or is
//! `localhost`; otherwise the registry is docker.io, and a path of one component is
//! below `library/`, as in every container tool.

use super::{Digest, Error, Result};
use std::fmt;
use std::str::FromStr;

/// The registry of short names.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The longest repository name that the grammar allows, in characters.
const MAX_NAME: usize = 255;
/// The longest tag, in characters.
const MAX_TAG: usize = 128;

/// A fully qualified reference: `registry/repository[:tag][@digest]`.
///
/// Without a tag and without a digest in the text, the tag is `latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and optional port, as `docker.io` or `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path within the registry, as `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Registry and repository, as `docker.io/library/alpine`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What `digest` is in the same repository.
    #[must_use]
    pub fn at(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// What `tag` names in the same repository.
    ///
    /// # Errors
    /// [`Error::Reference`] where it is no tag.
    pub fn tagged(&self, tag: &str) -> Result<Self> {
        format!("{}:{tag}", self.full_name()).parse()
    }

    /// The tag; `None` only where there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Whether `text` says in which registry the image is.
    #[must_use]
    pub fn names_registry(text: &str) -> bool {
        text.split_once('/').is_some_and(|(first, _)| is_registry(first))
    }

    /// `text` in two: the name, and the tag and digest with their `:` and `@`.
    #[must_use]
    pub fn split_name(text: &str) -> (&str, &str) {
        let end = text.find('@').unwrap_or(text.len());
        let colon = text[..end].rfind(':').filter(|at| !text[*at..end].contains('/'));
        text.split_at(colon.unwrap_or(end))
    }

    /// The digest that the manifest must have.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fail =
            |at: usize, reason| Error::Reference { text: text.chars().take(300).collect(), at, reason };
        if text.is_empty() {
            return Err(fail(0, "it is empty"));
        }
        if let Some(at) = text.find("://") {
            return Err(fail(at, "an image is named without docker:// or https://"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, d)) => {
                let digest = d
                    .parse::<Digest>()
                    .map_err(|_| fail(rest.len() + 1, "wanted a digest, sha256:<64 hex digits>"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => {
                check_tag(tag).map_err(|(at, reason)| fail(path.len() + 1 + at, reason))?;
                (path, Some(tag.to_string()))
            }
            _ => (rest, None),
        };
        let (registry, repository, offset) = match path.split_once('/') {
            Some((first, repository)) if is_registry(first) => {
                check_registry(first).map_err(|(at, reason)| fail(at, reason))?;
                (first, repository, first.len() + 1)
            }
            _ => (DEFAULT_REGISTRY, path, 0),
        };
        check_repository(repository).map_err(|(at, reason)| fail(offset + at, reason))?;
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_string()
        };
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_string()));
        Ok(Self { registry: registry.to_string(), repository, tag, digest })
    }
}

/// What a user types to mean an image that is already in the store.
///
/// A reference like any other, or a digest (`sha256:…`), or its leading hex digits,
/// or the end of a name (`debian` for `localhost:5000/debian:latest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The text as typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The reference that it is when taken for one.
    ///
    /// # Errors
    /// [`Error::Reference`].
    pub fn reference(&self) -> Result<Reference> {
        self.0.parse()
    }

    /// Whether it means the image of this reference and manifest digest, and how well:
    /// the exact reference first, then a digest, then the end of the name.
    #[must_use]
    pub fn matches(&self, reference: Option<&Reference>, digest: &Digest) -> Option<Match> {
        let text = self.0.as_str();
        if let (Some(have), Ok(want)) = (reference, self.reference()) {
            let tag = want.tag.is_none() || want.tag == have.tag;
            // The reference's own digest is that of an index where the image came through one.
            let same_digest =
                want.digest.as_ref().is_none_or(|d| d == digest || have.digest.as_ref() == Some(d));
            if want.registry == have.registry && want.repository == have.repository && tag && same_digest {
                return Some(Match::Reference);
            }
            let typed = text.split_once('@').map_or(text, |(n, _)| n);
            let typed = match typed.rsplit_once(':') {
                Some((n, t)) if !t.contains('/') => n,
                _ => typed,
            };
            let full = have.full_name();
            if tag && same_digest && full.strip_suffix(typed).is_some_and(|p| p.ends_with('/')) {
                return Some(Match::Suffix);
            }
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let is_digest = hex.len() >= 6 && digest.hex().starts_with(hex);
        is_digest.then_some(Match::Digest)
    }
}

/// How a [`Name`] means an image; the smaller, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// The whole reference.
    Reference,
    /// The manifest's digest or at least six of its leading digits.
    Digest,
    /// The last components of the name.
    Suffix,
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_id = text.strip_prefix("sha256:").unwrap_or(text).bytes().all(|b| b.is_ascii_hexdigit());
        if !is_id || text.is_empty() {
            text.parse::<Reference>()?;
        }
        Ok(Self(text.to_string()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Check = std::result::Result<(), (usize, &'static str)>;

fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn check_registry(registry: &str) -> Check {
    let (host, port) = if let Some(end) = registry.find(']').filter(|_| registry.starts_with('[')) {
        if let Some(at) = registry[1..end].find(|c: char| !c.is_ascii_hexdigit() && c != ':') {
            return Err((at + 1, "wanted an IPv6 address"));
        }
        ("", registry[end + 1..].strip_prefix(':').map(|p| (end + 2, p)))
    } else {
        match registry.split_once(':') {
            Some((host, port)) => (host, Some((host.len() + 1, port))),
            None => (registry, None),
        }
    };
    if let Some(at) = host.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.') {
        return Err((at, "this character cannot be in a registry's host name"));
    }
    if !registry.starts_with('[')
        && host.split('.').any(|l| l.is_empty() || l.starts_with('-') || l.ends_with('-'))
    {
        return Err((0, "the registry's host name is malformed"));
    }
    match port {
        Some((at, p)) if p.parse::<u16>().is_err() => Err((at, "wanted a port number")),
        _ => Ok(()),
    }
}

fn check_repository(path: &str) -> Check {
    if path.len() > MAX_NAME {
        return Err((MAX_NAME, "the repository's name is too long"));
    }
    let mut start = 0;
    for component in path.split('/') {
        check_component(component).map_err(|(at, reason)| (start + at, reason))?;
        start += component.len() + 1;
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn check_component(c: &str) -> Check {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = c.as_bytes();
    if bytes.is_empty() {
        return Err((0, "a component of the name is empty"));
    }
    let mut i = 0;
    while i < bytes.len() {
        if alnum(bytes[i]) {
            i += 1;
            continue;
        }
        let separator = &c[i..];
        let run = match bytes[i] {
            b'.' => 1,
            b'_' => separator.bytes().take_while(|&b| b == b'_').count().min(2),
            b'-' => separator.bytes().take_while(|&b| b == b'-').count(),
            b'A'..=b'Z' => return Err((i, "upper case is not allowed in a repository's name")),
            _ => return Err((i, "this character cannot be in a repository's name")),
        };
        let between = i > 0 && bytes.get(i + run).copied().is_some_and(alnum);
        if !between {
            return Err((i, "a separator must stand between letters or digits"));
        }
        i += run;
    }
    Ok(())
}

/// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`
fn check_tag(tag: &str) -> Check {
    if tag.is_empty() {
        return Err((0, "the tag is empty"));
    }
    if tag.len() > MAX_TAG {
        return Err((MAX_TAG, "the tag is too long"));
    }
    let bad = tag
        .char_indices()
        .find(|&(i, c)| !(c.is_ascii_alphanumeric() || c == '_' || (i > 0 && (c == '.' || c == '-'))));
    bad.map_or(Ok(()), |(at, _)| Err((at, "this character cannot be in a tag")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_short_names() {
        let d = format!("sha256:{}", "0".repeat(64));
        for (text, want) in [
            ("alpine", "docker.io/library/alpine:latest".to_string()),
            ("alpine:3.20", "docker.io/library/alpine:3.20".to_string()),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest".to_string()),
            ("grafana/grafana", "docker.io/grafana/grafana:latest".to_string()),
            ("localhost/x", "localhost/x:latest".to_string()),
            ("localhost:5000/a/b:T", "localhost:5000/a/b:T".to_string()),
            ("127.0.0.1:5000/a__b--c.d", "127.0.0.1:5000/a__b--c.d:latest".to_string()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_string()),
            (&format!("alpine@{d}"), format!("docker.io/library/alpine@{d}")),
            (&format!("alpine:3@{d}"), format!("docker.io/library/alpine:3@{d}")),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), want);
            assert_eq!(want.parse::<Reference>().unwrap().to_string(), want, "stable");
        }
    }

    #[test]
    fn explains_at_the_character() {
        for (text, at, reason) in [
            ("", 1, "empty"),
            ("docker://alpine", 7, "without docker://"),
            ("Alpine", 1, "upper case"),
            ("a/bC", 4, "upper case"),
            ("alpine:", 8, "tag is empty"),
            ("alpine:a b", 9, "tag"),
            ("a//b", 3, "component"),
            ("a..b", 2, "separator"),
            ("a___b", 2, "separator"),
            ("-a", 1, "separator"),
            ("a/../b", 3, "separator"),
            ("localhost:x/a", 11, "port"),
            ("ex_ample.com/a", 3, "host name"),
            ("alpine@sha256:12", 8, "digest"),
        ] {
            let e = text.parse::<Reference>().unwrap_err().to_string();
            assert!(e.contains(reason) && e.ends_with(&format!("at character {at}")), "{text}: {e}");
        }
    }

    #[test]
    fn names_mean_images() {
        let digest = Digest::of(b"");
        let have: Reference = "localhost:5000/lab/debian:bookworm".parse().unwrap();
        for (text, want) in [
            ("localhost:5000/lab/debian:bookworm", Some(Match::Reference)),
            ("debian:bookworm", Some(Match::Suffix)),
            ("lab/debian:bookworm", Some(Match::Suffix)),
            ("debian", None),
            ("ian:bookworm", None),
            ("e3b0c4", Some(Match::Digest)),
            ("sha256:e3b0c44298fc", Some(Match::Digest)),
            ("e3b0", None),
        ] {
            assert_eq!(text.parse::<Name>().unwrap().matches(Some(&have), &digest), want, "{text}");
        }
    }
}
