//! `shipimg rmi`: images go, by their names.

use super::sweep::{self, Options, Refusal, Removal};
use super::{Context, Result};
use crate::oci::{Match, Name};
use crate::store::{Entry, Scope, Store};
use std::process::ExitCode;

/// Arguments of `rmi`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images of the store; by a digest all names of the image go
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<Name>,
    /// Remove what bundles and containers are made from, too
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    options: Options,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let key = |e: &Entry| (e.reference.clone(), e.descriptor.digest.clone());
        sweep::remove(&store, &self.options, false, |survey| {
            let users = if self.force { Vec::new() } else { sweep::users(context, &store)? };
            let mut gone = Vec::new();
            for name in &self.names {
                for entry in meant(&store, name)? {
                    let users = sweep::users_of(survey, &entry, &users)?;
                    // Another name may keep the image; then nothing is lost.
                    if !users.is_empty() && is_last(survey.entries(), &entry, &gone) {
                        let users = users.into_iter().map(String::from).collect();
                        return Err(Refusal::Used { image: entry.name(), users }.into());
                    }
                    gone.push(key(&entry));
                }
            }
            Removal::new(context, survey, Scope::Dropped, |e| gone.contains(&key(e)))
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

type Key = (Option<crate::oci::Reference>, crate::oci::Digest);

fn is_last(entries: &[Entry], entry: &Entry, gone: &[Key]) -> bool {
    let others = entries.iter().filter(|e| {
        let key = (e.reference.clone(), e.descriptor.digest.clone());
        e.descriptor.digest == entry.descriptor.digest
            && e.reference != entry.reference
            && !gone.contains(&key)
    });
    others.count() == 0
}

/// The entries that a name means: one, or by digest all of the image.
fn meant(store: &Store, name: &Name) -> Result<Vec<Entry>> {
    let found = store.find(name)?;
    let by_name = found.digests().filter_map(|d| name.matches(found.reference.as_ref(), d)).min();
    if by_name != Some(Match::Digest) {
        return Ok(vec![found]);
    }
    let same = |e: &Entry| e.descriptor.digest == found.descriptor.digest;
    Ok(store.entries()?.into_iter().filter(same).collect())
}
