//! `pull`: an image of a registry into the store.

use super::retry::Backoff;
use super::{Error, Fetched, Remote, Result};
use crate::oci::{self, Descriptor, Document, Image, Manifest, Platform, media_type};
use crate::store::{self, BlobWriter, Ingest, Store};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many layers are fetched at once.
const PARALLEL: usize = 4;

/// How many bytes a connection must bring for its failure not to count.
const PROGRESS: u64 = 64 << 10;

/// What a pull tells while it runs, from several threads.
#[derive(Debug)]
pub enum Event<'a> {
    /// The layer is in the store already, or another process has put it there meanwhile.
    Present(&'a Descriptor),
    /// So many bytes of the layer are there, from now or from an earlier attempt.
    Bytes(&'a Descriptor, u64),
    /// The layer is there, whole and verified.
    Done(&'a Descriptor),
    /// The layer's transfer broke off and goes on.
    Retry(&'a Descriptor, &'a Error),
}

/// Pulls the image of `remote` for `platform` (`None`: this machine's) and gives it its
/// name in the store. The name leads to the platform's manifest, never to an index, so
/// that readers that know no platforms find an image. A Docker schema 2 manifest is stored as the
/// OCI manifest of the same blobs, under its own digest: other readers of OCI layouts see no
/// other kind.
///
/// # Errors
/// [`Error::NotImage`], [`Error::Foreign`], [`Error::NoPlatform`], [`Error::Document`], those
/// of [`Remote::manifest`], of transfers and of the store. Whole layers and parts of others
/// stay in the store for the next pull; the name is given last.
pub fn pull(
    store: &Store,
    remote: &Remote,
    platform: Option<&Platform>,
    watch: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Image> {
    let host = Platform::host();
    let fetched = remote.manifest(platform.unwrap_or(&host))?;
    check_is_image(remote, &fetched.manifest)?;
    let fetched = as_oci(fetched).map_err(|e| remote.malformed(e))?;
    let config = &fetched.manifest.config;
    let config_bytes = if store.has(config)? && config.size <= store::MAX_DOCUMENT {
        store.document(config)?
    } else {
        remote.small_blob(config, "configuration")?
    };
    let image = Image::new(fetched.descriptor.clone(), fetched.manifest.clone(), &config_bytes)
        .map_err(|e| remote.malformed(e))?;
    check_platform(remote, &image, platform)?;
    fetch_layers(store, remote, &image, watch)?;
    store.put_as(config, &config_bytes)?;
    store.put_as(&fetched.descriptor, &fetched.bytes)?;
    store.tag(remote.reference(), &fetched.descriptor)?;
    Ok(image)
}

fn as_oci(fetched: Fetched) -> oci::Result<Fetched> {
    if fetched.descriptor.media_type != media_type::DOCKER_MANIFEST {
        return Ok(fetched);
    }
    let bytes = Manifest::docker_to_oci(&fetched.bytes)?;
    let platform = fetched.descriptor.platform;
    let descriptor = Descriptor { platform, ..Descriptor::of(media_type::MANIFEST, &bytes) };
    match Document::parse(&bytes, media_type::MANIFEST)? {
        Document::Manifest(manifest) => Ok(Fetched { descriptor, bytes, manifest }),
        Document::Index(_) => Err(oci::Error::MediaType(media_type::INDEX.to_string())),
    }
}

fn check_is_image(remote: &Remote, manifest: &Manifest) -> Result<()> {
    let reference = || Box::new(remote.reference().clone());
    let not_image = |media_type: &str| {
        Err(Error::NotImage { reference: reference(), media_type: media_type.chars().take(200).collect() })
    };
    // Docker's earliest schema 2 manifests call their configuration octet-stream.
    let configs = [media_type::CONFIG, media_type::DOCKER_CONFIG, "application/octet-stream"];
    if !configs.contains(&manifest.config.media_type.as_str()) {
        return not_image(&manifest.config.media_type);
    }
    for layer in &manifest.layers {
        if layer.layer_compression().is_err() {
            return not_image(&layer.media_type);
        }
        if let Some(url) = layer.urls.first() {
            let url = url.chars().take(200).collect();
            return Err(Error::Foreign { reference: reference(), digest: layer.digest.clone(), url });
        }
    }
    Ok(())
}

/// A manifest without an index says for which platform it is only here.
fn check_platform(remote: &Remote, image: &Image, wanted: Option<&Platform>) -> Result<()> {
    let is = image.platform();
    let host = Platform::host();
    if wanted.unwrap_or(&host).fits(&is).is_some() {
        return Ok(());
    }
    if let Some(wanted) = wanted {
        return Err(remote.no_platform(wanted, vec![is.to_string()]));
    }
    tracing::warn!("{} is for {is:?}, this machine is {host}", remote.reference());
    Ok(())
}

fn fetch_layers(
    store: &Store,
    remote: &Remote,
    image: &Image,
    watch: &(dyn Fn(Event<'_>) + Sync),
) -> Result<()> {
    let mut seen = BTreeSet::new();
    let layers: Vec<&Descriptor> =
        image.layers.iter().map(|l| &l.descriptor).filter(|d| seen.insert(&d.digest)).collect();
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(e) = fetch_layer(store, remote, layer, &stop, watch) {
                stop.store(true, Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..layers.len().min(PARALLEL) {
            scope.spawn(work);
        }
        work();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

fn fetch_layer(
    store: &Store,
    remote: &Remote,
    layer: &Descriptor,
    stop: &AtomicBool,
    watch: &(dyn Fn(Event<'_>) + Sync),
) -> Result<()> {
    loop {
        let Ingest::Missing(mut writer) = store.ingest(layer)? else {
            watch(Event::Present(layer));
            return Ok(());
        };
        let resumed = !writer.is_empty();
        if !complete(remote, layer, &mut writer, stop, watch)? {
            return Ok(());
        }
        match writer.commit() {
            Ok(()) => {
                watch(Event::Done(layer));
                return Ok(());
            }
            // What an earlier process left was damaged; it is gone now.
            Err(store::Error::Verify(e)) if resumed => tracing::debug!("{e}; starting again"),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Fills `writer`, over as many connections as it takes; `false` where another layer failed.
fn complete(
    remote: &Remote,
    layer: &Descriptor,
    writer: &mut BlobWriter,
    stop: &AtomicBool,
    watch: &(dyn Fn(Event<'_>) + Sync),
) -> Result<bool> {
    let mut backoff = Backoff::default();
    let progress = |len: u64| {
        watch(Event::Bytes(layer, len));
        !stop.load(Ordering::Relaxed)
    };
    watch(Event::Bytes(layer, writer.len()));
    while writer.len() < layer.size {
        let before = writer.len();
        match remote.fill(layer, writer, &progress) {
            Ok(()) if stop.load(Ordering::Relaxed) => return Ok(false),
            Ok(()) => {}
            Err(e) => {
                if writer.len().saturating_sub(before) >= PROGRESS {
                    backoff.progress();
                }
                if e.kind() == crate::error::Kind::Integrity {
                    writer.restart()?;
                }
                if e.is_transient() {
                    watch(Event::Retry(layer, &e));
                }
                backoff.pause(e)?;
            }
        }
    }
    Ok(true)
}
