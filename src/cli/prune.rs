//! `shipimg prune`: what nothing needs any more goes.

use super::sweep::{self, Options, Refusal, Removal, User};
use super::{Context, Result};
use crate::oci::{Digest, span};
use crate::store::{Entry, Scope, Store, Survey};
use std::collections::HashSet;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// How long the result of a step is kept that nothing asks for.
const IDLE: Duration = Duration::from_hours(30 * 24);

/// Arguments of `prune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove the images, too, that no bundle and no container uses
    #[arg(short, long)]
    all: bool,
    /// Keep images that were pulled or tagged within this time, as 12h, 7d or 2w
    #[arg(long, value_name = "TIME", value_parser = span)]
    keep_since: Option<Duration>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    options: Options,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let ask = !self.yes && !self.options.dry_run;
        if ask && !sweep::can_ask() {
            return Err(Refusal::Unasked.into());
        }
        let since =
            self.keep_since.map(|s| SystemTime::now().checked_sub(s).unwrap_or(SystemTime::UNIX_EPOCH));
        sweep::remove(&store, &self.options, ask, |survey| {
            removal(context, &store, survey, self.all, since)
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What a prune removes: entries without a name that refer to nothing that stays or, with `all`,
/// entries of any name; those of them that nobody uses and that were not named after `since`; and
/// all that nothing leads to then.
pub fn removal(
    context: &Context,
    store: &Store,
    survey: &Survey,
    all: bool,
    since: Option<SystemTime>,
) -> Result<Removal> {
    let users = sweep::users(context, store)?;
    let used = used(survey, &users);
    let named = survey.entries().iter().filter(|e| !all && e.reference.is_some()).flat_map(Entry::digests);
    let kept = survey.documents(named.chain(&used).cloned())?;
    // Signatures and the like have no name and go with what they are about.
    let refers = |e: &Entry| {
        e.reference.is_none()
            && matches!(store.subject(&e.descriptor.digest), Ok(Some(s)) if kept.contains(&s))
    };
    let drop = |e: &Entry| {
        (all || e.reference.is_none())
            && !e.digests().any(|d| used.contains(d))
            && !refers(e)
            && since.is_none_or(|s| store.named_at(e) < s)
    };
    let idle = if all { Duration::ZERO } else { IDLE };
    let idle = SystemTime::now().checked_sub(idle).unwrap_or(SystemTime::UNIX_EPOCH);
    let idle = since.map_or(idle, |s| s.min(idle));
    Removal::new(store, survey, Scope::All, drop, &users, idle)
}

/// The manifests of what bundles, containers and running commands use, and the indexes that
/// lead to one of them.
fn used(survey: &Survey, users: &[User]) -> HashSet<Digest> {
    let images = users.iter().filter_map(|u| u.needs.image.as_ref());
    let mut used: HashSet<Digest> = images.chain(survey.held()).cloned().collect();
    for entry in survey.entries().iter().filter(|e| e.descriptor.is_index()) {
        if sweep::manifests(survey, entry).iter().any(|d| used.contains(d)) {
            used.insert(entry.descriptor.digest.clone());
        }
    }
    used
}
