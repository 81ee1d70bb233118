//! `shipimg fsck`: is the store whole?

use super::table::Format;
use super::transfer::Network;
use super::{Context, Result, printable};
use crate::oci::Reference;
use crate::store::{Damage, Entry, Fault, Ingest, Store};
use crate::transfer::{FromRegistry, Source};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// A store that is not whole.
#[derive(Debug, thiserror::Error)]
#[error("{faults} of the store's blobs {}, {images} {}", if *faults == 1 { "is wrong" } else { "are wrong" },
    if *images == 1 { "image is broken" } else { "images are broken" })]
pub struct Broken {
    faults: usize,
    images: usize,
    /// Whether `--repair` could not help.
    pub(super) tried: bool,
    /// One of the images.
    pub(super) name: Option<String>,
}

/// How often what a repaired document leads to is repaired in turn.
const ROUNDS: usize = 4;

/// Arguments of `fsck`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Move damaged blobs away and fetch them again from where their images came from
    #[arg(long)]
    repair: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    network: Network,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let mut damaged = hash(&store)?;
        let mut faults = store.faults(&damaged)?;
        let found = faults.clone();
        for _ in 0..ROUNDS {
            if !self.repair || faults.is_empty() {
                break;
            }
            let before: BTreeSet<_> = faults.iter().map(|f| f.descriptor.digest.clone()).collect();
            for digest in std::mem::take(&mut damaged) {
                store.set_aside(&digest)?;
            }
            for fault in &faults {
                self.fetch(&store, fault);
            }
            faults = store.faults(&damaged)?;
            if faults.iter().all(|f| before.contains(&f.descriptor.digest)) && faults.len() == before.len() {
                break;
            }
        }
        print(&store, self.format, &found, &faults)?;
        if faults.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let images: BTreeSet<String> = faults.iter().flat_map(|f| &f.entries).map(Entry::name).collect();
        let name = images.first().cloned();
        Err(Broken { faults: faults.len(), images: images.len(), tried: self.repair, name }.into())
    }

    /// Fetches a blob from where one of its images came from; says why none of them has it.
    fn fetch(&self, store: &Store, fault: &Fault) {
        if fault.damage == Damage::Size {
            return;
        }
        let mut refusals = Vec::new();
        for entry in &fault.entries {
            let Some(reference) = &entry.reference else { continue };
            let fetched = match &entry.shadow {
                // What this store made by itself it makes again.
                Some(shadow) if shadow.digest == fault.descriptor.digest => {
                    store.tag(reference, &entry.descriptor).map_err(Into::into)
                }
                _ => self.fetch_from(store, reference, fault),
            };
            match fetched {
                Ok(()) => return,
                Err(e) => refusals.push(format!("{reference} does not give it: {e}")),
            }
        }
        for refusal in refusals {
            say!("{}: {}", fault.descriptor.digest.short(), printable(&refusal));
        }
    }

    fn fetch_from(
        &self,
        store: &Store,
        reference: &Reference,
        fault: &Fault,
    ) -> std::result::Result<(), Box<dyn std::error::Error>> {
        let source = FromRegistry::connect(reference, &self.network.options(store.limits()))?;
        let d = &fault.descriptor;
        if fault.is_document {
            return Ok(store.put_as(d, &source.document(d)?)?);
        }
        let Ingest::Missing(mut writer) = store.ingest(d)? else { return Ok(()) };
        let mut content = source.blob(d, writer.len(), &|_| ())?;
        std::io::copy(&mut content, &mut writer)?;
        Ok(writer.commit()?)
    }
}

/// Hashes all blobs, with a bar on a terminal.
fn hash(store: &Store) -> Result<BTreeSet<crate::oci::Digest>> {
    let total = store.blobs()?.iter().map(|(_, w)| w.size).sum();
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(total) } else { ProgressBar::hidden() };
    let template = "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
    let damaged = store.damaged(threads, &|n| bar.inc(n));
    bar.finish_and_clear();
    Ok(damaged?)
}

fn print(store: &Store, format: Format, found: &[Fault], left: &[Fault]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let is_left = |f: &Fault| left.iter().any(|l| l.descriptor.digest == f.descriptor.digest);
    let later = left.iter().filter(|l| found.iter().all(|f| f.descriptor.digest != l.descriptor.digest));
    let faults = found.iter().chain(later);
    match format {
        Format::Json => {
            let describe = |f: &Fault| {
                let images: BTreeSet<String> = f.entries.iter().map(Entry::name).collect();
                json!({"digest": f.descriptor.digest, "problem": f.damage.to_string(),
                    "repaired": !is_left(f), "images": images})
            };
            let faults: Vec<Value> = faults.map(describe).collect();
            let blobs = store.blobs()?;
            writeln!(out, "{:#}", json!({"blobs": blobs.len(), "whole": left.is_empty(), "faults": faults}))?;
        }
        Format::Table => {
            for fault in faults {
                let repaired = if is_left(fault) { "" } else { ", fetched again" };
                writeln!(out, "{} is {}{repaired}", fault.descriptor.digest, fault.damage)?;
                let images: BTreeSet<String> = fault.entries.iter().map(Entry::name).collect();
                for image in images {
                    writeln!(out, "    breaks {}", printable(&image))?;
                }
            }
            if left.is_empty() {
                let blobs = store.blobs()?;
                let size = blobs.iter().map(|(_, w)| w.size).sum();
                writeln!(out, "{} blobs, {}, all whole", blobs.len(), HumanBytes(size))?;
            }
        }
    }
    Ok(())
}
