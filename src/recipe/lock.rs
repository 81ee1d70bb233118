//! `recipe.lock`: all that a build takes from elsewhere, exactly.
//!
//! ```toml
//! version = 1
//! [image."docker.io/library/debian:bookworm"]
//! digest = "sha256:…"           # of the manifest or index
//! created = 1757146000          # seconds since 1970
//! [input]
//! "site/" = "sha256:…"
//! [debian.web.amd64]            # a lock of packages for each stage with a Debian base, and architecture
//! …
//! ```
//!
//! It lies beside the recipe, under the recipe's name with `.lock`. The same recipe and lock give the
//! same bytes. What is in it stays until [`Wish::Update`] asks for anew, but for what the recipe does not
//! ask for any more, and for inputs, which are what they are.

use super::dockerfile::Inherited;
use super::inputs::{self, Inputs};
use super::read::{Action, Recipe, Stage};
use super::types::{Base, Copy};
use super::{Error, Result};
use crate::debian::{self, Progress, Request};
use crate::error::Kind;
use crate::oci::{Digest, Image, Name, Platform, Reference, parse_rfc3339};
use crate::registry;
use crate::store::{self, Lease, Store};
use crate::transfer::{self, FromRegistry, Platforms, ToStore};
use crate::verify::Place;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a lock's file begins with, for people.
const HEAD: &str = "# What a build takes from elsewhere, exactly. Made by shipimg; brought up to date by `shipimg lock --update`.\n";

/// The exact inputs of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// Images, by the reference that names them.
    #[serde(default, rename = "image")]
    pub images: BTreeMap<String, Pinned>,
    /// Digests of files.
    #[serde(default, rename = "input")]
    pub inputs: Inputs,
    /// The packages of stages, by the stage's name and dpkg's name of the architecture. Those of other
    /// architectures than are built for stay.
    #[serde(default)]
    pub debian: BTreeMap<String, BTreeMap<String, debian::Lock>>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// Of its manifest or index.
    pub digest: Digest,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

/// How a lock comes about.
#[derive(Debug, Clone, Default)]
pub enum Wish {
    /// What is locked stays, what is missing is looked up.
    #[default]
    Keep,
    /// Everything must be locked, and be as it is there.
    Frozen,
    /// These names, images or packages, are looked up anew; all where there are none.
    Update(Vec<String>),
}

/// Where images and packages come from.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// How registries are spoken to.
    pub registry: registry::Options,
    /// No server is asked for anything.
    pub offline: bool,
}

impl Default for Lock {
    fn default() -> Self {
        Self { version: 1, images: BTreeMap::new(), inputs: Inputs::new(), debian: BTreeMap::new() }
    }
}

impl Lock {
    /// Where the lock of a recipe or Dockerfile lies.
    #[must_use]
    pub fn beside(recipe: &Path) -> PathBuf {
        if recipe.extension().is_some_and(|e| e == "toml") {
            return recipe.with_extension("lock");
        }
        let mut name = recipe.as_os_str().to_os_string();
        name.push(".lock");
        name.into()
    }

    /// What a Dockerfile inherits from an image, which is pinned for it where it is not yet.
    ///
    /// # Errors
    /// [`Error::Stale`] for [`Wish::Frozen`]; an image that is not found.
    pub fn inherited(
        &mut self,
        (name, file): (&str, &Path),
        wish: &Wish,
        platform: &Platform,
        access: &Access,
        place: (&Store, &Lease),
    ) -> Result<Inherited> {
        if !self.images.contains_key(name) {
            if matches!(wish, Wish::Frozen) {
                return Err(Error::Stale { what: format!("the image {name}"), lock: Self::beside(file) });
            }
            let pinned = pin(name, false, platform, access, place)?;
            self.images.insert(name.to_string(), pinned);
        }
        let image = below(name, self, platform, access, place)?;
        let config = place.0.document(&image.config_descriptor)?;
        Ok(Inherited::of(&serde_json::from_slice(&config).unwrap_or_default()))
    }

    /// Reads a lock; none where there is no such file.
    ///
    /// # Errors
    /// [`debian::Error::Lock`], [`debian::Error::Io`].
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let lock: Option<Self> = debian::lock::read(path, |lock: &Self| {
            if lock.version != 1 {
                return Err(format!("version {} is not known, this shipimg reads version 1", lock.version));
            }
            lock.debian.values().flat_map(BTreeMap::values).try_for_each(debian::Lock::check)
        })?;
        Ok(lock)
    }

    /// Writes it in place of what is there.
    ///
    /// # Errors
    /// [`debian::Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self).unwrap_or_default();
        Ok(debian::lock::replace(path, &format!("{HEAD}{text}"))?)
    }

    /// The lock of `recipe`, which keeps what `old` has as far as `wish` says.
    ///
    /// # Errors
    /// [`Error::Stale`]; inputs that cannot be read, images and packages that are not found.
    pub fn of(
        recipe: &Recipe,
        old: Option<&Self>,
        wish: &Wish,
        access: &Access,
        (store, lease): (&Store, &Lease),
        progress: &dyn Progress,
    ) -> Result<Self> {
        let none = Self::default();
        let was = old.unwrap_or(&none);
        let mut new = Self { inputs: inputs::inputs(recipe)?, ..Self::default() };
        let stale =
            |what: &str| Err(Error::Stale { what: what.to_string(), lock: Self::beside(&recipe.file) });
        let anew = |name: &str| match wish {
            Wish::Update(names) => names.is_empty() || names.iter().any(|n| n == name),
            Wish::Keep | Wish::Frozen => false,
        };
        for (name, at) in images(recipe) {
            let pinned = match was.images.get(&name).filter(|_| !anew(&name)) {
                Some(pinned) => pinned.clone(),
                None if matches!(wish, Wish::Frozen) => return stale(&format!("the image {name}")),
                None => pin(&name, anew(&name), &recipe.platform, access, (store, lease))
                    .map_err(|e| e.of_image(at, &name))?,
            };
            new.images.insert(name, pinned);
        }
        for stage in &recipe.stages {
            let Some(mut request) = request(recipe, stage)? else { continue };
            // No script will run.
            request.foreign = true;
            let mut all = was.debian.get(&stage.name).cloned().unwrap_or_default();
            let fits = all.get(&request.arch).filter(|lock| lock.request == request.asked());
            let lock = match (fits, wish) {
                (Some(lock), Wish::Keep | Wish::Frozen) => lock.clone(),
                (None, Wish::Frozen) => return stale(&format!("the packages of {}", stage.name)),
                (Some(lock), Wish::Update(names)) if !names.is_empty() => {
                    let mine: Vec<String> = names
                        .iter()
                        .filter(|n| lock.packages.iter().any(|p| p.name == **n))
                        .cloned()
                        .collect();
                    if mine.is_empty() {
                        lock.clone()
                    } else {
                        debian::update(lock, Some(&mine), &request, store, progress)?.0
                    }
                }
                _ if access.offline => {
                    return Err(Error::Offline { what: format!("the packages of {}", stage.name) });
                }
                _ => debian::resolve(&request, store, progress)?,
            };
            all.insert(request.arch, lock);
            new.debian.insert(stage.name.clone(), all);
        }
        if matches!(wish, Wish::Frozen) {
            let changed = new.inputs.iter().find(|(name, digest)| was.inputs.get(*name) != Some(digest));
            if let Some((name, _)) = changed {
                return stale(name);
            }
        }
        Ok(new)
    }
}

impl Lock {
    /// The packages of a stage for a platform.
    #[must_use]
    pub fn packages(&self, stage: &str, platform: &Platform) -> Option<&debian::Lock> {
        self.debian.get(stage)?.get(debian::arch_of(platform))
    }

    /// Whether an image or a package is called `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let mut packages = self.debian.values().flat_map(BTreeMap::values).flat_map(|lock| &lock.packages);
        self.images.contains_key(name) || packages.any(|package| package.name == name)
    }

    /// What is different from `old`: packages, images, inputs.
    #[must_use]
    pub fn changes(&self, old: Option<&Self>) -> Vec<debian::Change> {
        let none = Self::default();
        let old = old.unwrap_or(&none);
        let mut changes = Vec::new();
        for (stage, all) in &self.debian {
            for (arch, lock) in all {
                changes.extend(debian::changes(old.debian.get(stage).and_then(|old| old.get(arch)), lock));
            }
        }
        let pins = |lock: &Self| -> BTreeMap<String, String> {
            let images = lock.images.iter().map(|(name, pin)| (name.clone(), pin.digest.to_string()));
            images
                .chain(lock.inputs.iter().map(|(name, digest)| (name.clone(), digest.to_string())))
                .collect()
        };
        let (was, is) = (pins(old), pins(self));
        let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for name in names {
            let (old, new) = (was.get(name).cloned(), is.get(name).cloned());
            if old != new {
                changes.push(debian::Change { name: name.clone(), old, new, reason: None });
            }
        }
        changes
    }
}

/// All images that a recipe takes from, and where it does.
fn images(recipe: &Recipe) -> Vec<(String, &Place)> {
    let bases = recipe.stages.iter().filter_map(|s| match &s.base.value {
        Base::Image(name) => Some((name.clone(), &s.base.place)),
        _ => None,
    });
    let steps = recipe.stages.iter().flat_map(|s| &s.steps);
    let taken = steps.flat_map(|s| {
        let names = match &s.value {
            Action::Copy(Copy { image, .. }) => image.iter().collect(),
            Action::Run(run) => run.bind.iter().filter_map(|bind| bind.image.as_ref()).collect(),
            _ => Vec::new(),
        };
        names.into_iter().map(|name| (name.clone(), &s.place))
    });
    bases.chain(taken).collect()
}

/// Finds an image: in the store, or else in its registry; with `anew` in the registry first, unless that
/// does not have it.
fn pin(
    name: &str,
    anew: bool,
    platform: &Platform,
    access: &Access,
    (store, lease): (&Store, &Lease),
) -> Result<Pinned> {
    let kept = store.find(&name.parse::<Name>()?);
    let fetched = match &kept {
        _ if access.offline => None,
        Ok(_) if !anew => None,
        Err(e) if !matches!(e, store::Error::NoImage { .. }) => None,
        _ => Some(fetch(&name.parse()?, platform, access, store)),
    };
    let descriptor = match (fetched, kept) {
        (Some(Ok(found)), _) => found,
        (Some(Err(e)), Ok(entry)) if e.kind() == Kind::Missing || e.kind() == Kind::Network => {
            tracing::warn!("{name} is taken from the store: {e}");
            entry.descriptor
        }
        (Some(Err(e)), _) => return Err(e),
        (None, kept) => kept?.descriptor,
    };
    lease.hold(&descriptor.digest)?;
    let image = store.image(&descriptor, platform)?;
    Ok(Pinned { digest: descriptor.digest, created: created(store, &image)? })
}

/// Brings an image into the store under its name.
fn fetch(
    name: &Reference,
    platform: &Platform,
    access: &Access,
    store: &Store,
) -> Result<crate::oci::Descriptor> {
    let host = *platform == Platform::host();
    let platforms = if host { Platforms::Host } else { Platforms::One(platform.clone()) };
    let options =
        transfer::Options { platforms, registry: access.registry.clone(), ..transfer::Options::default() };
    let source = FromRegistry::connect(name, &options.registry)?;
    Ok(transfer::copy(&source, &ToStore::new(store, name.clone()), &options, store, &|_| ())?.root)
}

/// When an image was made, in seconds since 1970; 0 where it does not say.
fn created(store: &Store, image: &Image) -> Result<i64> {
    let config: serde_json::Value =
        serde_json::from_slice(&store.document(&image.config_descriptor)?).unwrap_or_default();
    let seconds = config["created"].as_str().and_then(parse_rfc3339).map(|(seconds, _)| seconds);
    Ok(seconds.and_then(|s| i64::try_from(s).ok()).unwrap_or(0))
}

/// As [`locked`], of an image to build on: it is for the same system and architecture, or says nothing of them.
pub(super) fn below(
    name: &str,
    lock: &Lock,
    platform: &Platform,
    access: &Access,
    place: (&Store, &Lease),
) -> Result<Image> {
    let image = locked(name, lock, platform, access, place)?;
    let is = image.platform();
    let serves = |is: &str, wanted: &str| is.is_empty() || is == wanted;
    if serves(&is.os, &platform.os) && serves(&is.architecture, &platform.architecture) {
        Ok(image)
    } else {
        Err(Error::Platform { is: is.into(), wanted: platform.clone().into() })
    }
}

/// The image of the store that a lock has under `name`; it is brought there where it is missing.
pub(super) fn locked(
    name: &str,
    lock: &Lock,
    platform: &Platform,
    access: &Access,
    (store, lease): (&Store, &Lease),
) -> Result<Image> {
    let Some(pinned) = lock.images.get(name) else {
        return Err(Error::Stale { what: format!("the image {name}"), lock: PathBuf::from("the lock") });
    };
    lease.hold(&pinned.digest)?;
    let there = store.by_digest(&pinned.digest).ok();
    if let Some(image) =
        there.and_then(|d| store.check_whole(&d).and_then(|()| store.image(&d, platform)).ok())
    {
        return Ok(image);
    }
    if access.offline {
        return Err(Error::Offline { what: format!("the image {name}") });
    }
    let reference: Reference = name.parse()?;
    let descriptor = fetch(&reference.at(&pinned.digest), platform, access, store)?;
    Ok(store.image(&descriptor, platform)?)
}

/// What a stage with a Debian base asks of the archives; none of another.
///
/// # Errors
/// A suite that is not known, an address or snapshot that is none.
pub fn request(recipe: &Recipe, stage: &Stage) -> Result<Option<Request>> {
    let Base::Debian(base) = &stage.base.value else { return Ok(None) };
    let place = &stage.base.place;
    let mut request = Request::new(super::archives::of_stage(base, &stage.repos, place)?);
    request.variant = base.variant;
    request.include.clone_from(&stage.packages.include);
    request.exclude.clone_from(&stage.packages.exclude);
    request.arch = debian::arch_of(&recipe.platform).to_string();
    request.epoch = recipe.epoch;
    request.keep_apt = base.keep_apt;
    for pattern in &base.path_exclude {
        match pattern.strip_prefix('!') {
            Some(pattern) => request.filters.include(pattern),
            None => request.filters.exclude(pattern),
        }
    }
    Ok(Some(request))
}
