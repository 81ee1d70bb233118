//! Results of checks, as the JSON report of `verify` and `build` has them.

use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is called.
    pub name: String,
    /// Whether all was as wanted.
    pub passed: bool,
    /// What was wanted and not so, a line for each.
    pub wanted: Option<String>,
    /// What was found instead.
    pub found: Option<String>,
    /// Where the check is written: file and line.
    pub place: Option<String>,
}

/// A report. Fields that are not known are not read.
#[derive(Debug, Deserialize)]
struct Report {
    verdicts: Vec<Verdict>,
}

#[derive(Debug, Deserialize)]
struct Verdict {
    name: String,
    outcome: String,
    #[serde(default)]
    findings: Vec<Finding>,
    place: Option<Place>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    wanted: String,
    found: String,
    path: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Place {
    file: String,
    line: usize,
}

impl Check {
    /// Reads the report in the file `path`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Checks`].
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        let text = std::fs::read(path);
        let text = text.map_err(|source| Error::Io { action: "read", path: path.to_path_buf(), source })?;
        let report: Report = serde_json::from_slice(&text)
            .map_err(|source| Error::Checks { path: path.to_path_buf(), source })?;
        Ok(report.verdicts.into_iter().map(Self::of).collect())
    }

    fn of(verdict: Verdict) -> Self {
        let lines = |part: &dyn Fn(&Finding) -> String| {
            let lines: Vec<String> = verdict.findings.iter().map(part).filter(|t| !t.is_empty()).collect();
            (!lines.is_empty()).then(|| lines.join("\n"))
        };
        let of_file = |f: &Finding| f.path.as_ref().map_or_else(String::new, |path| format!("{path}: "));
        Self {
            passed: verdict.outcome == "passed",
            wanted: lines(&|f| of_file(f) + &f.wanted),
            found: lines(&|f| f.found.clone()),
            place: verdict.place.as_ref().map(|p| format!("{}:{}", p.file, p.line)),
            name: verdict.name,
        }
    }
}
