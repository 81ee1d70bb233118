//! What came out: a verdict for each check.

use super::written::Place;
use crate::oci::Digest;
use crate::tree::{TreePath, steers};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not.
    Failed,
    /// It could not be found out.
    Error,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Error => "error",
        })
    }
}

/// Text as one line that steers nothing: neither terminals, nor the direction of what is shown, nor the workflows
/// of GitHub, which look for `##[` anywhere in a line.
pub(super) fn plain(text: &str) -> String {
    let one = |c: char| if steers(c) { c.escape_default().to_string() } else { c.to_string() };
    text.replace("##[", "##\\[").chars().map(one).collect()
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was wanted.
    pub wanted: String,
    /// What was found.
    pub found: String,
    /// Which file it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The layer that brought the file, or took it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Source>,
    /// The file, to be looked up in the layers.
    #[serde(skip)]
    pub(super) at: Option<TreePath>,
}

impl Finding {
    /// One that is about no file. What comes from an image may hold anything, and is made one line that steers nothing.
    #[must_use]
    pub fn new(wanted: impl AsRef<str>, found: impl AsRef<str>) -> Self {
        Self {
            wanted: plain(wanted.as_ref()),
            found: plain(found.as_ref()),
            path: None,
            layer: None,
            at: None,
        }
    }

    /// The same about the file `path`.
    pub(super) fn at(self, path: &TreePath) -> Self {
        Self { path: Some(path.to_string()), at: Some(path.clone()), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.iter().filter(|path| !self.wanted.contains(*path));
        path.into_iter().try_for_each(|path| write!(f, "{path}: "))?;
        write!(f, "wanted {}, found {}", self.wanted, self.found)?;
        self.layer.iter().try_for_each(|layer| write!(f, " ({layer})"))
    }
}

/// A layer and what made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its blob.
    pub digest: Digest,
    /// Whether it took the file away rather than bringing it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// What made the layer: a line of a recipe, or the text of the image's history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.removed { "removed" } else { "brought" };
        write!(f, "{verb} by layer {}", self.digest.short())?;
        self.by.as_ref().map_or(Ok(()), |by| write!(f, ", {by}"))
    }
}

/// What came out for one check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What the check is called.
    pub name: String,
    /// Of which kind it is.
    pub kind: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What is not as it should be; of an error, why it could not be found out.
    pub findings: Vec<Finding>,
    /// Where the check is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// How long it took.
    pub seconds: f64,
    /// When it was found out, RFC 3339, where that was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// What came out for all checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was checked.
    pub target: String,
    /// The manifest of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Verdicts in the order of the checks.
    pub verdicts: Vec<Verdict>,
}

impl Verdict {
    /// What is wrong, a line for each finding.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |finding: &Finding| match self.outcome {
            Outcome::Error => finding.found.clone(),
            _ => finding.to_string(),
        };
        self.findings.iter().map(line).collect()
    }
}

impl Report {
    /// How many came out so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.verdicts.iter().filter(|v| v.outcome == outcome).count()
    }

    /// Whether all checks hold.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.verdicts.iter().all(|v| v.outcome == Outcome::Passed)
    }

    /// How long it all took, in seconds of each check's own.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.verdicts.iter().map(|v| v.seconds).sum()
    }
}
