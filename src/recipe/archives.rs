//! Where the packages of a Debian base come from.

use super::read::{Choices, Placed, Recipe};
use super::types::{Base, Debian, Repo};
use super::{Error, Result};
use crate::debian::{self, Archive};
use crate::verify::Place;
use std::path::Path;

/// The recipes that the binary carries: name and text.
const EMBEDDED: &[(&str, &str)] = &[
    ("bookworm", include_str!("../../recipes/bookworm.toml")),
    ("trixie", include_str!("../../recipes/trixie.toml")),
    ("forky", include_str!("../../recipes/forky.toml")),
    ("sid", include_str!("../../recipes/sid.toml")),
    ("jammy", include_str!("../../recipes/jammy.toml")),
    ("noble", include_str!("../../recipes/noble.toml")),
    ("resolute", include_str!("../../recipes/resolute.toml")),
    ("stonking", include_str!("../../recipes/stonking.toml")),
];

/// The archives of a suite, as its recipe in the binary has them. The host's apt sources for the
/// distribution go first.
///
/// # Errors
/// [`Error::UnknownSuite`] where there is none.
pub fn archive(suite: &str) -> Result<Archive> {
    let base = Debian { suite: suite.to_string(), updates: true, ..Debian::default() };
    of_stage(&base, &[], &Place { file: Path::new("").into(), line: 1 })
}

/// The suites that have a recipe in the binary.
pub(super) fn known() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(name, _)| *name)
}

/// The base and the archives of a suite's recipe.
fn embedded(suite: &str) -> Result<(Debian, Vec<Placed<Repo>>)> {
    let unknown = || Error::UnknownSuite { suite: suite.to_string() };
    let (name, text) = EMBEDDED.iter().find(|(name, _)| *name == suite).ok_or_else(unknown)?;
    let file = format!("recipes/{name}.toml");
    let mut recipe = Recipe::parse(text, Path::new(&file), &Choices::default())?;
    let stage = recipe.stages.pop().ok_or_else(unknown)?;
    let Base::Debian(base) = stage.base.value else { return Err(unknown()) };
    Ok((base, stage.repos))
}

/// The archives of a stage's base. `repos` are all where one of them has the suite itself, else they
/// are added to the suite's own.
pub(super) fn of_stage(base: &Debian, repos: &[Placed<Repo>], place: &Place) -> Result<Archive> {
    let (whole, suite) = (repos.iter().any(|r| r.value.suites.contains(&base.suite)), &base.suite);
    let known = embedded(suite);
    let is_own = |own: &[Placed<Repo>]| own.iter().map(|r| &r.value).eq(repos.iter().map(|r| &r.value));
    let of_suite = known.as_ref().is_ok_and(|(_, own)| !whole || is_own(own));
    let (own, added, extra) = match known {
        _ if whole => (repos.to_vec(), &[][..], Vec::new()),
        Ok((known, own)) => (own, repos, known.extra),
        Err(e) => return Err(e),
    };
    let mut archive = Archive {
        suite: suite.clone(),
        repos: own.iter().map(repo).collect(),
        distribution: debian::sources::siblings(suite),
        extra_base: extra.into_iter().chain(base.extra.iter().cloned()).collect(),
        never: vec!["usrmerge".to_string()],
        snapshot: None,
    };
    if of_suite {
        archive.use_host(&debian::host::host_repos(Path::new("/etc/apt")));
    }
    if !base.updates {
        archive.main_only();
    }
    if !base.components.is_empty() {
        archive.use_components(&base.components);
    }
    if let Some(snapshot) = &base.snapshot {
        archive.use_snapshot(snapshot.parse().map_err(|e| place.error(format!("snapshot: {e}")))?);
    }
    let added = added.iter().map(|r| debian::Repo { carries_keyring: true, ..repo(r) });
    archive.repos.extend(added);
    Ok(archive)
}

fn repo(repo: &Placed<Repo>) -> debian::Repo {
    let Placed { place, value } = repo;
    debian::Repo {
        uri: value.uri.trim_end_matches('/').to_string(),
        suites: value.suites.clone(),
        components: value.components.clone(),
        signed_by: value.signed_by.iter().map(|key| place.beside(key)).collect(),
        ..debian::Repo::default()
    }
}
