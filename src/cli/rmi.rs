//! `shipimg rmi`: images go, by their names.

use super::sweep::{self, Options, Refusal, Removal};
use super::{Context, Result};
use crate::oci::{Digest, Match, Name, Reference};
use crate::store::{Entry, Scope, Survey};
use std::collections::HashSet;
use std::process::ExitCode;
use std::time::SystemTime;

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
        sweep::remove(&store, &self.options, false, |survey| {
            let users = if self.force { Vec::new() } else { sweep::users(context, &store)? };
            let mut gone = HashSet::new();
            for name in &self.names {
                for entry in meant(survey, name)? {
                    let users = sweep::users_of(survey, &entry, &users);
                    gone.insert(key(&entry));
                    // Another name may keep the image; then nothing is lost.
                    let keeps =
                        |e: &Entry| e.descriptor.digest == entry.descriptor.digest && !gone.contains(&key(e));
                    if !users.is_empty() && !survey.entries().iter().any(keeps) {
                        let users = users.into_iter().map(String::from).collect();
                        return Err(Refusal::Used { image: entry.name(), users }.into());
                    }
                }
            }
            let drop = |e: &Entry| gone.contains(&key(e));
            Removal::new(&store, survey, Scope::Dropped, drop, &users, SystemTime::UNIX_EPOCH)
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn key(entry: &Entry) -> (Option<Reference>, Digest) {
    (entry.reference.clone(), entry.descriptor.digest.clone())
}

/// The entries that a name means: one, or by digest all of the image.
fn meant(survey: &Survey, name: &Name) -> Result<Vec<Entry>> {
    let found = survey.find(name)?;
    let how = found.digests().filter_map(|d| name.matches(found.reference.as_ref(), d)).min();
    if how != Some(Match::Digest) {
        return Ok(vec![found]);
    }
    let same = |e: &&Entry| e.descriptor.digest == found.descriptor.digest;
    Ok(survey.entries().iter().filter(same).cloned().collect())
}
