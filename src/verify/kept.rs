//! Verdicts that are kept: what an image was found to be it stays, for its digest is its content.
//!
//! A verdict is kept by the digest of the check without its name, and of the version of the program that
//! found it out. Errors are not kept, nor failures of what runs, nor what depends on more than
//! the image.

use super::Result;
use super::check::Check;
use super::kind::{Kind, Phase};
use super::report::{Finding, Outcome, Verdict};
use super::written::Placed;
use crate::oci::{Digest, rfc3339};
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is known of an image, by the key of the check.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Kept(BTreeMap<String, Known>);

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    outcome: Outcome,
    findings: Vec<Finding>,
    when: String,
}

fn key(check: &Check) -> String {
    let mut keys = check.keys();
    keys.remove("name");
    let text = format!("{} {}", env!("CARGO_PKG_VERSION"), serde_json::Value::Object(keys));
    Digest::of(text.as_bytes()).to_string()
}

impl Kept {
    /// What is known of the image `manifest`; nothing where that is damaged.
    pub(super) fn of(store: &Store, manifest: &Digest) -> Result<Self> {
        let text = store.verdicts(manifest)?.unwrap_or_default();
        Ok(serde_json::from_slice(&text).unwrap_or_default())
    }

    /// The verdict on the check.
    pub(super) fn get(&self, placed: &Placed, kind: &Kind) -> Option<Verdict> {
        let known = self.0.get(&key(&placed.check))?;
        Some(Verdict {
            name: placed.check.title(),
            kind: kind.key.to_string(),
            outcome: known.outcome,
            findings: known.findings.clone(),
            place: placed.place.clone(),
            seconds: 0.0,
            kept: Some(known.when.clone()),
        })
    }

    /// Takes what was found out now, and keeps it all. A store that may only be read is no reason to fail.
    pub(super) fn keep<'a>(
        mut self,
        store: &Store,
        manifest: &Digest,
        found: impl Iterator<Item = (&'a Placed, &'a Kind, &'a Verdict)>,
    ) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let when = rfc3339(now, 0).replace(".000000000", "");
        let lasting = |kind: &Kind, verdict: &Verdict| {
            // A machine that is slow today may be why something that runs has failed.
            let sure = verdict.outcome == Outcome::Passed
                || (verdict.outcome == Outcome::Failed && matches!(kind.phase, Phase::Image | Phase::Files));
            sure && kind.phase != Phase::Caller && verdict.kept.is_none()
        };
        let mut changed = false;
        for (placed, _, verdict) in found.filter(|(_, kind, verdict)| lasting(kind, verdict)) {
            let known =
                Known { outcome: verdict.outcome, findings: verdict.findings.clone(), when: when.clone() };
            self.0.insert(key(&placed.check), known);
            changed = true;
        }
        if !changed {
            return;
        }
        let kept = serde_json::to_vec(&self).map(|text| store.keep_verdicts(manifest, &text));
        if let Ok(Err(e)) = kept {
            tracing::debug!("{e}");
        }
    }
}
