//! Results of checks, as a file with a JSON array of them tells.

use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One check. Fields that are not known are not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it is called.
    pub name: String,
    /// Whether all was as wanted.
    pub passed: bool,
    /// What was wanted.
    #[serde(default)]
    pub wanted: Option<String>,
    /// What was found.
    #[serde(default)]
    pub found: Option<String>,
    /// Where: a path, a program.
    #[serde(default)]
    pub place: Option<String>,
}

impl Check {
    /// Reads the file `path`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Checks`].
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        let text = std::fs::read(path);
        let text = text.map_err(|source| Error::Io { action: "read", path: path.to_path_buf(), source })?;
        serde_json::from_slice(&text).map_err(|source| Error::Checks { path: path.to_path_buf(), source })
    }
}
