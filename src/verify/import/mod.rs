//! Checks of other programs: container-structure-test's and goss' files, as checks of our own.
//!
//! What has no counterpart here is an error with its line, never passed over.

mod goss;
mod structure;

use super::Result;
use super::check::Check;
use super::value::{Pattern, Several, Text};
use super::written::{from_yaml, line_of, syntax};
use serde_json::Value;
use serde_saphyr::Location;
use std::collections::HashMap;
use std::path::Path;

/// Whose a file of checks is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Own,
    Structure,
    Goss,
}

/// Reads the checks of a YAML document that is not of our own form; none where it is.
pub(super) fn read(text: &str, path: &Path) -> Result<Option<Vec<(usize, Check)>>> {
    let keys: HashMap<String, Value> = from_yaml(text, path)?;
    let form = if keys.contains_key("schemaVersion") {
        Form::Structure
    } else if keys.contains_key("check") || keys.is_empty() {
        Form::Own
    } else {
        Form::Goss
    };
    match form {
        Form::Own => Ok(None),
        Form::Structure => structure::read(text, path).map(Some),
        Form::Goss => goss::read(text, path).map(Some),
    }
}

/// Where a foreign check stands, for what is wrong with it.
#[derive(Debug, Clone, Copy)]
struct At<'a> {
    path: &'a Path,
    line: usize,
}

impl<'a> At<'a> {
    fn new(path: &'a Path, location: Location) -> Self {
        Self { path, line: line_of(location) }
    }

    /// The value, or the error with its line.
    fn say<T>(&self, value: std::result::Result<T, String>) -> Result<T> {
        value.map_err(|reason| syntax(self.path, self.line, reason))
    }

    /// What is not supported.
    fn refuse<T>(&self, what: &str) -> Result<T> {
        self.say(Err(format!("{what} is not supported")))
    }

    /// Patterns as they are written; none where there are none.
    fn patterns(&self, texts: &[String]) -> Result<Option<Several<Text<Pattern>>>> {
        let all = texts.iter().map(|text| self.say(Text::new(text.as_str()))).collect::<Result<Vec<_>>>()?;
        Ok(Some(Several(all)).filter(|all| !all.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use std::path::Path;

    /// The checks of a document in a line each, as JSON, with their lines.
    pub fn translated(yaml: &str) -> Result<Vec<String>, String> {
        let all = parse(yaml, Path::new("x.yaml")).map_err(|e| e.to_string())?;
        let line = |p: &super::super::Placed| {
            let place = p.place.as_ref().unwrap();
            format!("{} {}", place.line, serde_json::Value::Object(p.check.keys()))
        };
        Ok(all.iter().map(line).collect())
    }
}
