//! Results of steps in registries: for each key one plain image, under the tag `cache-KEY`.
//!
//! While results are found only their manifests and configurations are fetched; layers come when a step works on
//! them, or when they are written out. A step's image is pushed as soon as it is made, layers first and the tag last, so
//! that a worker that dies leaves whole results. A registry's failure makes a build slower, never wrong: it is told once and
//! the registry is left alone from then on, unless the cache is required.

use super::{Error, Result};
use crate::error::Kind;
use crate::oci::{Descriptor, Digest, Document, Image, Platform, Reference};
use crate::registry::{self, Options, Remote};
use crate::store::{Entry, Lease, Store, Verified};
use crate::transfer::{self, Copied, FromRegistry, FromStore, ToRegistry, ToStore};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::Read;
use std::time::Duration;

/// How often the push of a result is tried again that the registry has refused.
const RETRIES: u32 = 3;

/// What tags of results begin with.
const PREFIX: &str = "cache-";

/// Where results of steps are looked for and put.
#[derive(Debug, Default)]
pub struct Cache {
    /// Repositories that are looked at, the first one first.
    pub from: Vec<Reference>,
    /// The repository that results are put into.
    pub to: Option<Reference>,
    /// Whether a registry's failure is the build's.
    pub required: bool,
    /// How registries are spoken to.
    pub registry: Options,
    /// Those that have failed.
    broken: RefCell<BTreeSet<String>>,
    /// What went over the network, in bytes.
    pub moved: Moved,
}

/// Bytes of layers and documents.
#[derive(Debug, Default)]
pub struct Moved {
    /// From registries.
    pub fetched: Cell<u64>,
    /// To registries.
    pub pushed: Cell<u64>,
}

/// What another process has learned of caches.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Passed {
    fetched: u64,
    pushed: u64,
    broken: BTreeSet<String>,
}

impl Passed {
    /// What came after `before`.
    pub(super) fn since(self, before: &Self) -> Self {
        Self { fetched: self.fetched - before.fetched, pushed: self.pushed - before.pushed, ..self }
    }
}

/// A result at a registry: its documents are in the store, its layers may not be.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The image.
    pub image: Image,
    reference: Reference,
}

impl Cache {
    /// A cache of these repositories.
    #[must_use]
    pub fn new(from: Vec<Reference>, to: Option<Reference>, required: bool, registry: Options) -> Self {
        Self { from, to, required, registry, ..Self::default() }
    }

    /// What is known of it now.
    pub(super) fn passed(&self) -> Passed {
        let (fetched, pushed) = (self.moved.fetched.get(), self.moved.pushed.get());
        Passed { fetched, pushed, broken: self.broken.borrow().clone() }
    }

    /// Adds what another process has learned.
    pub(super) fn add(&self, passed: Passed) {
        self.moved.fetched.update(|n| n + passed.fetched);
        self.moved.pushed.update(|n| n + passed.pushed);
        self.broken.borrow_mut().extend(passed.broken);
    }

    /// The result of the step with this key.
    pub(super) fn find(
        &self,
        key: &Digest,
        platform: &Platform,
        (store, lease): (&Store, &Lease),
    ) -> Result<Option<Found>> {
        for repository in self.from.iter().chain(&self.to) {
            let reference = named(repository, key)?;
            let found =
                self.heeded(repository, || match documents(&reference, &self.registry, (store, lease)) {
                    Err(e) if e.kind() == Kind::Missing => Ok(None),
                    other => Ok(Some(store.image(&other?, platform)?)),
                })?;
            if let Some(image) = found.flatten() {
                self.moved.fetched.update(|n| n + image.descriptor.size + image.config_descriptor.size);
                return Ok(Some(Found { image, reference }));
            }
        }
        Ok(None)
    }

    /// Brings the layers of a result into the store; false where they cannot be had.
    pub(super) fn complete(&self, found: &Found, store: &Store) -> Result<bool> {
        let fetched = self.heeded(&found.reference, || {
            let exact = found.reference.at(&found.image.descriptor.digest);
            let source = FromRegistry::connect(&exact, &self.registry)?;
            let sink = ToStore::nameless(store);
            Ok(transfer::copy(&source, &sink, &self.copying(), store, &|_| ())?)
        })?;
        if let Some(copied) = &fetched {
            self.moved.fetched.update(|n| n + copied.transferred);
        }
        Ok(fetched.is_some())
    }

    /// Puts the result of a step there, unless it is there.
    pub(super) fn publish(&self, key: &Digest, image: &Image, store: &Store) -> Result<()> {
        let Some(repository) = &self.to else { return Ok(()) };
        let reference = named(repository, key)?;
        let pushed = self.heeded(repository, || {
            let mut tries = 0;
            loop {
                match self.push(&reference, image, store) {
                    // Some registries trip over two who upload one blob: by now it may be there.
                    Err(e) if tries < RETRIES && is_answer(&e) => tries += 1,
                    other => return other,
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        })?;
        if let Some(copied) = pushed.flatten() {
            self.moved.pushed.update(|n| n + copied.transferred);
        }
        Ok(())
    }

    /// Pushes a result; none where it is there.
    fn push(&self, reference: &Reference, image: &Image, store: &Store) -> Result<Option<Copied>> {
        match Remote::connect(reference, &self.registry)?.root() {
            Ok(_) => return Ok(None),
            Err(e) if e.kind() == Kind::Missing => {}
            Err(e) => return Err(e.into()),
        }
        let entry = Entry::nameless(image.descriptor.clone());
        let sink = ToRegistry::connect(reference, &self.registry)?;
        Ok(Some(transfer::copy(&FromStore::new(store, entry), &sink, &self.copying(), store, &|_| ())?))
    }

    fn copying(&self) -> transfer::Options {
        transfer::Options { registry: self.registry.clone(), ..transfer::Options::default() }
    }

    /// What `ask` gives; none where the registry has failed, now or before.
    fn heeded<T>(&self, repository: &Reference, ask: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        let name = repository.full_name();
        if self.broken.borrow().contains(&name) {
            return Ok(None);
        }
        match ask() {
            Ok(answer) => Ok(Some(answer)),
            Err(e) if self.required => Err(e),
            Err(e) => {
                tracing::warn!("the cache {name} is left alone: {e}");
                self.broken.borrow_mut().insert(name);
                Ok(None)
            }
        }
    }
}

/// Whether the registry has answered, though not as it should.
fn is_answer(e: &Error) -> bool {
    let answer = |e: &registry::Error| matches!(e, registry::Error::Status { .. });
    match e {
        Error::Registry(e) => answer(e),
        Error::Transfer(e) => matches!(&**e, transfer::Error::Registry(e) if answer(e)),
        _ => false,
    }
}

/// The tag of a result.
fn tag(key: &Digest) -> String {
    format!("{PREFIX}{}", key.hex())
}

/// The name of a result in a repository.
fn named(repository: &Reference, key: &Digest) -> Result<Reference> {
    Ok(repository.tagged(&tag(key))?)
}

/// Brings manifest and configuration of an image into the store; gives the manifest's descriptor.
fn documents(
    reference: &Reference,
    options: &Options,
    (store, lease): (&Store, &Lease),
) -> Result<Descriptor> {
    let remote = Remote::connect(reference, options)?;
    let (descriptor, bytes) = remote.root()?;
    let Document::Manifest(manifest) = Document::parse(&bytes, &descriptor.media_type)? else {
        return Err(Error::NoResult { name: reference.to_string() });
    };
    let config = &manifest.config;
    if config.size > options.document {
        return Err(Error::NoResult { name: reference.to_string() });
    }
    lease.hold(&config.digest)?;
    if !store.has(config)? {
        let mut text = Vec::new();
        let mut blob = Verified::new(remote.blob(config, 0, Box::new(|_| ())), config);
        let read = |source| Error::Read { path: reference.to_string().into(), source };
        blob.read_to_end(&mut text).map_err(read)?;
        lease.put(&config.media_type, &text)?;
    }
    Ok(lease.put(&descriptor.media_type, &bytes)?)
}

/// Deletes all results of a repository that are none of `keys`; gives how many there were and how many are deleted.
///
/// # Errors
/// Those of the registry, which may not delete at all.
pub fn prune(repository: &Reference, keys: &BTreeSet<Digest>, options: &Options) -> Result<(usize, usize)> {
    let kept: BTreeSet<String> = keys.iter().map(tag).collect();
    let tags = Remote::connect(repository, options)?.tags(usize::MAX)?;
    let results: Vec<&String> = tags.iter().filter(|tag| tag.starts_with(PREFIX)).collect();
    let remote = |tag: &str| -> Result<(Remote, Descriptor)> {
        let remote = Remote::connect(&repository.tagged(tag)?, options)?;
        let (descriptor, _) = remote.root()?;
        Ok((remote, descriptor))
    };
    // Two keys may have one image: what one of the kept has is not deleted by the other.
    let mut used = BTreeSet::new();
    for tag in results.iter().filter(|tag| kept.contains(**tag)) {
        used.insert(remote(tag)?.1.digest);
    }
    let mut deleted = 0;
    for tag in results.iter().filter(|tag| !kept.contains(**tag)) {
        let (remote, descriptor) = match remote(tag) {
            // Another key's image went with it, or another prune was faster.
            Err(e) if e.kind() == Kind::Missing => continue,
            found => found?,
        };
        if !used.contains(&descriptor.digest) {
            remote.delete_document(&descriptor.digest)?;
            deleted += 1;
        }
    }
    Ok((results.len(), deleted))
}
