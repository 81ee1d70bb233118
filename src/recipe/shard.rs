//! Builds spread over workers: pure.
//!
//! A job is a recipe for a platform, and costs as much as it has steps. Jobs that have steps in common go to one
//! worker as long as that does not make it the last to be ready: what is done twice before the first result is published
//! costs more than what is unequal.

use super::Plan;
use crate::oci::Digest;
use serde::Serialize;
use std::collections::BTreeSet;

/// A recipe to be built for a platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// The recipe's file.
    pub recipe: String,
    /// The platform.
    pub platform: String,
    /// The keys of its steps.
    #[serde(skip)]
    pub keys: BTreeSet<Digest>,
}

/// What a worker does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shard {
    /// Its number, from 1.
    pub shard: usize,
    /// Its jobs.
    pub jobs: Vec<Job>,
    /// How many steps that are.
    pub steps: usize,
}

impl Job {
    /// The job of a plan; `recipe` names its file.
    #[must_use]
    pub fn of(plan: &Plan, recipe: String) -> Self {
        let keys = plan.steps.iter().map(|s| s.key.clone()).collect();
        Self { recipe, platform: plan.recipe.platform.to_string(), keys }
    }
}

/// Spreads `jobs` over at most `workers`.
#[must_use]
pub fn shards(mut jobs: Vec<Job>, workers: usize) -> Vec<Shard> {
    jobs.sort_by(|a, b| {
        b.keys.len().cmp(&a.keys.len()).then_with(|| (&a.recipe, &a.platform).cmp(&(&b.recipe, &b.platform)))
    });
    let count = workers.max(1).min(jobs.len());
    let mut shards: Vec<(BTreeSet<Digest>, Vec<Job>)> = vec![Default::default(); count];
    for job in jobs {
        // What a shard would have to do with the job; where that is equal, the one that shares more.
        let load = |(keys, _): &(BTreeSet<Digest>, Vec<Job>)| {
            let shared = keys.intersection(&job.keys).count();
            (keys.len() + job.keys.len() - shared, usize::MAX - shared)
        };
        let best = shards.iter_mut().min_by_key(|shard| load(shard));
        if let Some((keys, jobs)) = best {
            keys.extend(job.keys.iter().cloned());
            jobs.push(job);
        }
    }
    let filled = shards.into_iter().filter(|(_, jobs)| !jobs.is_empty());
    filled.enumerate().map(|(i, (keys, jobs))| Shard { shard: i + 1, steps: keys.len(), jobs }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, keys: &[&str]) -> Job {
        let keys = keys.iter().map(|k| Digest::of(k.as_bytes())).collect();
        Job { recipe: name.to_string(), platform: "linux/amd64".to_string(), keys }
    }

    #[test]
    fn what_is_shared_stays_together_and_the_rest_is_spread() {
        let jobs = || {
            vec![
                job("a", &["base", "a1", "a2"]),
                job("b", &["base", "b1", "a2x"]),
                job("c", &["other", "c1", "c2"]),
                job("d", &["other", "c1", "c2", "d1"]),
            ]
        };
        let names = |shards: &[Shard]| -> Vec<Vec<String>> {
            shards.iter().map(|s| s.jobs.iter().map(|j| j.recipe.clone()).collect()).collect()
        };
        let two = shards(jobs(), 2);
        assert_eq!(names(&two), [vec!["d", "c"], vec!["a", "b"]]);
        assert_eq!(two.iter().map(|s| s.steps).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(shards(jobs(), 1)[0].jobs.len(), 4);
        assert_eq!(shards(jobs(), 9).len(), 4, "no worker without a job");
        assert!(shards(Vec::new(), 3).is_empty());
    }
}
