//! Blobs that a push has brought or found, kept from `prune` until its manifest comes.

use crate::oci::Digest;
use crate::store::{Lease, Result, Store};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one lease takes in digests.
const OPEN: Duration = Duration::from_mins(10);

/// How long a lease holds them.
const KEEP: Duration = Duration::from_hours(1);

/// Leases by age, the youngest last.
#[derive(Debug, Default)]
pub struct Holds(Mutex<Vec<Hold>>);

#[derive(Debug)]
struct Hold {
    lease: Lease,
    since: Instant,
    digests: HashSet<Digest>,
}

impl Holds {
    /// How many of the leases hold `digest`.
    pub fn count(&self, digest: &Digest) -> usize {
        let holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        holds.iter().filter(|hold| hold.digests.contains(digest)).count()
    }

    /// Holds `digest` for the next while; lets go of what was held long ago.
    ///
    /// # Errors
    /// Those of the lease.
    pub fn add(&self, store: &Store, digest: &Digest) -> Result<()> {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|hold| hold.since.elapsed() < KEEP);
        if holds.last().is_none_or(|hold| hold.since.elapsed() > OPEN) {
            holds.push(Hold { lease: store.lease()?, since: Instant::now(), digests: HashSet::new() });
        }
        let Some(hold) = holds.last_mut() else { return Ok(()) };
        if hold.digests.contains(digest) {
            return Ok(());
        }
        hold.lease.hold(digest)?;
        hold.digests.insert(digest.clone());
        Ok(())
    }
}
