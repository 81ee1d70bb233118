//! The engine: blobs several at once, then the documents, the name last.

use super::rewrite::{self, Work};
use super::select::{self, Blob, From, Selection, select};
use super::{Error, Event, Put, Result, Sink, Source, ToStore, Watch};
use crate::layer::Coding;
use crate::oci::{Descriptor, Digest, Image, Platform, Reference};
use crate::registry::{self, Foreign};
use crate::store::Store;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many blobs are under way at once.
const PARALLEL: usize = 4;

/// What of an index is copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Platforms {
    /// The image that serves best on this machine; where there is no choice, what there is.
    #[default]
    Host,
    /// The image for this platform, and no other.
    One(Platform),
    /// The index itself and all of its images.
    All,
}

/// How to copy.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What of an index.
    pub platforms: Platforms,
    /// How layers shall be compressed; those that are otherwise are written anew.
    pub coding: Option<Coding>,
    /// Whether foreign layers are fetched from their URLs.
    pub foreign_layers: bool,
    /// How servers of such URLs are spoken to.
    pub registry: registry::Options,
}

/// What was copied.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The manifest or index, as it is at its destination.
    pub root: Descriptor,
    /// All blobs that belong to it, and their bytes.
    pub blobs: usize,
    /// Their size in bytes.
    pub size: u64,
    /// How many bytes of them were transferred.
    pub transferred: u64,
}

/// Copies the image of `source` to `sink`. `store` lends a scratch folder where layers are
/// written anew.
///
/// # Errors
/// What source and sink fail with. Whole blobs, and in the store parts of others, stay for the
/// next try; the name is given last.
pub fn copy(
    source: &dyn Source,
    sink: &dyn Sink,
    options: &Options,
    store: &Store,
    watch: Watch<'_>,
) -> Result<Copied> {
    let job = Job::plan(source, sink, options, store, watch)?;
    let transferred = job.blobs()?;
    job.finish(transferred)
}

/// Copies the image of `source`, for one platform, into `store`, and has `along` make of it what it
/// makes meanwhile: the handle on the store that it gets gives the blobs as they come. The name is
/// given when both are through.
///
/// # Errors
/// Those of [`copy`] or of `along`, whichever fails first; the other one gives up then.
pub fn copy_along<T, E: std::convert::From<Error>>(
    source: &dyn Source,
    name: Reference,
    options: &Options,
    store: &Store,
    watch: Watch<'_>,
    along: impl FnOnce(&Store, Image) -> std::result::Result<T, E>,
) -> std::result::Result<(Copied, T), E> {
    let store = &store.awaiting();
    let sink = ToStore::new(store, name);
    let job = Job::plan(source, &sink, options, store, watch)?;
    let (image, _) = job.selection.image(source)?;
    let (transferred, made) = std::thread::scope(|scope| {
        let blobs = scope.spawn(|| {
            let transferred = job.blobs();
            store.nothing_more();
            transferred
        });
        let made = along(store, image);
        let failed_first = made.is_err() && !store.broke_off() && !job.stop.swap(true, Ordering::Relaxed);
        let transferred = blobs.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (if failed_first { Ok(0) } else { transferred }, made)
    });
    let (transferred, made) = (transferred?, made?);
    Ok((job.finish(transferred)?, made))
}

struct Job<'a> {
    source: &'a dyn Source,
    sink: &'a dyn Sink,
    selection: Selection,
    work: Work<'a>,
    options: &'a Options,
    watch: Watch<'a>,
    stop: AtomicBool,
}

impl<'a> Job<'a> {
    /// Reads the documents, and writes layers anew where that is needed.
    fn plan(
        source: &'a dyn Source,
        sink: &'a dyn Sink,
        options: &'a Options,
        store: &'a Store,
        watch: Watch<'a>,
    ) -> Result<Self> {
        let mut selection = select(source, &|d| sink.known(d), &options.platforms, store.limits())?;
        let mut work = Work::new(store);
        rewrite::rewrite(&mut selection, source, sink.wants_oci(), options.coding, &mut work, watch)?;
        Ok(Self { source, sink, selection, work, options, watch, stop: AtomicBool::new(false) })
    }

    fn size(&self) -> u64 {
        self.selection.blobs.iter().map(|b| b.descriptor.size).sum()
    }

    /// Puts all blobs; gives how many bytes went over.
    fn blobs(&self) -> Result<u64> {
        let blobs = &self.selection.blobs;
        (self.watch)(Event::Plan(blobs.len(), self.size()));
        // What could not be fetched at all fails before anything is; configurations come last.
        self.check_foreign(blobs)?;
        let (read, mut others): (Vec<_>, Vec<_>) =
            blobs.iter().partition(|b| matches!(b.from, From::Bytes(_)));
        if !self.sink.in_order() {
            // The largest first, so that none of them is alone at the end.
            others.sort_by_key(|b| std::cmp::Reverse(b.descriptor.size));
        }
        Ok(self.run(&others)? + self.run(&read)?)
    }

    /// Puts the documents and gives the name.
    fn finish(self, transferred: u64) -> Result<Copied> {
        let (size, blobs) = (self.size(), self.selection.blobs.len());
        let Some((root, documents)) = self.selection.documents.split_last() else {
            return Err(select::nothing(self.source));
        };
        for document in documents {
            self.sink.put_document(document)?;
        }
        self.sink.finish(root)?;
        Ok(Copied { root: root.descriptor.clone(), blobs, size, transferred })
    }

    /// Puts these blobs; gives how many bytes went over.
    fn run(&self, blobs: &[&Blob]) -> Result<u64> {
        let next = AtomicUsize::new(0);
        let outcome: Mutex<(u64, Option<Error>)> = Mutex::default();
        let work = || {
            while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                let put = self.put(blob);
                let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                match put {
                    Ok(Put::Present) => {}
                    Ok(Put::Written) => outcome.0 += blob.descriptor.size,
                    Err(e) => {
                        self.stop.store(true, Ordering::Relaxed);
                        outcome.1.get_or_insert(e);
                    }
                }
            }
        };
        let parallel = if self.sink.in_order() { 1 } else { PARALLEL };
        std::thread::scope(|scope| {
            for _ in 1..blobs.len().min(parallel) {
                scope.spawn(work);
            }
            work();
        });
        let (transferred, failure) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(transferred), Err)
    }

    fn put(&self, blob: &Blob) -> Result<Put> {
        let d = &blob.descriptor;
        let open = |from: u64| -> Result<Box<dyn Read + Send + '_>> {
            let inner = match &blob.from {
                From::Bytes(bytes) => {
                    let rest = usize::try_from(from).ok().and_then(|from| bytes.get(from..));
                    Box::new(rest.unwrap_or_default())
                }
                From::Rewritten => self.work.open(d, from)?,
                From::Source if d.urls.is_empty() => self.source.blob(d, from, self.watch)?,
                From::Source => Box::new(Foreign::open(&d.urls, from, &self.options.registry)?),
            };
            (self.watch)(Event::Bytes(d, from));
            Ok(Box::new(Watched { inner, descriptor: d, at: from, watch: self.watch, stop: &self.stop }))
        };
        let put = self.sink.put_blob(d, &open, self.source)?;
        (self.watch)(match put {
            Put::Present => Event::Present(d),
            Put::Written => Event::Done(d),
        });
        Ok(put)
    }

    fn check_foreign(&self, blobs: &[Blob]) -> Result<()> {
        let foreign = |b: &&Blob| !b.descriptor.urls.is_empty();
        match blobs.iter().find(foreign).filter(|_| !self.options.foreign_layers) {
            Some(Blob { descriptor: Descriptor { digest, urls, .. }, .. }) => {
                let url = urls[0].chars().take(200).collect();
                Err(Error::Foreign { name: self.source.name(), digest: digest.clone(), url })
            }
            None => Ok(()),
        }
    }
}

/// Tells of what is read, and ends where another blob has failed.
struct Watched<'a> {
    inner: Box<dyn Read + Send + 'a>,
    descriptor: &'a Descriptor,
    at: u64,
    watch: Watch<'a>,
    stop: &'a AtomicBool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another blob failed"));
        }
        let n = self.inner.read(buf)?;
        self.at += n as u64;
        if n > 0 {
            (self.watch)(Event::Bytes(self.descriptor, self.at));
        }
        Ok(n)
    }
}

/// Whether `digest`, which a destination's name may have, is that of the root.
pub(super) fn check_digest(name: &dyn std::fmt::Display, want: Option<&Digest>, got: &Digest) -> Result<()> {
    match want {
        Some(want) if want != got => {
            Err(Error::OtherDigest { name: name.to_string(), want: want.clone(), got: got.clone() })
        }
        _ => Ok(()),
    }
}
