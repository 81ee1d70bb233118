//! Files of checks: TOML with `[[check]]`, the same in YAML or JSON, and where in them a check stands.

use super::check::Check;
use super::import;
use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most bytes that a file of checks may have.
const MOST: u64 = 4 << 20;

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A check and where it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The check.
    pub check: Check,
    /// Where it stands.
    pub place: Option<Place>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Toml {
    #[serde(default)]
    check: Vec<toml::Spanned<Check>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Yaml {
    check: Vec<serde_saphyr::Spanned<Check>>,
}

/// Reads the checks in the file `path`, in whatever form they are.
///
/// # Errors
/// [`Error::Read`]; [`Error::Syntax`] with the line.
pub fn read(path: &Path) -> Result<Vec<Placed>> {
    let failed = |source| Error::Read { path: path.to_path_buf(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    let read = file.take(MOST + 1).read_to_string(&mut text).map_err(failed)?;
    if read as u64 > MOST {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    parse(&text, path)
}

/// Parses the text of a file of checks, which `path` names.
///
/// # Errors
/// [`Error::Syntax`] with the line.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Placed>> {
    let of_yaml = ["yaml", "yml", "json"].iter().any(|e| path.extension().is_some_and(|x| x == *e));
    let checks = if of_yaml { yaml(text, path)? } else { toml(text, path)? };
    let at = |(line, check): (usize, Check)| {
        check.kind().map_err(|reason| syntax(path, line, reason))?;
        Ok(Placed { check, place: Some(Place { file: path.to_path_buf(), line }) })
    };
    if checks.is_empty() {
        return Err(syntax(path, 1, "no check in it"));
    }
    checks.into_iter().map(at).collect()
}

pub(super) fn syntax(path: &Path, line: usize, reason: impl Into<String>) -> Error {
    Error::Syntax { path: path.to_path_buf(), line, reason: reason.into() }
}

fn toml(text: &str, path: &Path) -> Result<Vec<(usize, Check)>> {
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line = |offset: usize| ends.partition_point(|end| *end < offset) + 1;
    let file: Toml = toml::from_str(text)
        .map_err(|e| syntax(path, line(e.span().map_or(0, |s| s.start)), e.message().trim()))?;
    Ok(file.check.into_iter().map(|c| (line(c.span().start), c.into_inner())).collect())
}

fn yaml(text: &str, path: &Path) -> Result<Vec<(usize, Check)>> {
    if let Some(foreign) = import::read(text, path)? {
        return Ok(foreign);
    }
    let file: Yaml = from_yaml(text, path)?;
    Ok(file.check.into_iter().map(|c| (line_of(c.referenced), c.value)).collect())
}

/// The line of a place in YAML, from 1.
pub(super) fn line_of(location: serde_saphyr::Location) -> usize {
    usize::try_from(location.line()).unwrap_or(usize::MAX).max(1)
}

/// Reads a value from YAML, with the line in the error.
pub(super) fn from_yaml<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    serde_saphyr::from_str(text).map_err(|e| {
        let line = e.location().map_or(1, line_of);
        let reason = e.without_snippet().to_string();
        syntax(path, line, reason.lines().next().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, name: &str) -> std::result::Result<Vec<usize>, String> {
        let all = parse(text, Path::new(name)).map_err(|e| e.to_string())?;
        Ok(all.iter().map(|p| p.place.as_ref().unwrap().line).collect())
    }

    #[test]
    fn places() {
        let toml = "# x\n[[check]]\nfile = '/a'\n\n[[check]]\nport = 80\n";
        assert_eq!(lines(toml, "c.toml").unwrap(), [2, 5]);
        let yaml = "check:\n  - file: /a\n  - port: 80\n";
        assert_eq!(lines(yaml, "c.yaml").unwrap(), [2, 3]);
        let json = "{\"check\": [\n{\"file\": \"/a\"},\n{\"port\": 80}]}";
        assert_eq!(lines(json, "c.json").unwrap(), [2, 3]);
    }

    #[test]
    fn errors_have_lines() {
        for (name, text, want) in [
            ("c.toml", "[[check]]\nfile = '/a'\n[[check]]\nfiel = '/a'\n", "c.toml:4: unknown field `fiel`"),
            ("c.toml", "[[check]]\nfile = '/a'\n[[check]]\nname = 'x'\n", "c.toml:3: a check is of no kind"),
            ("c.toml", "[[check]\n", "c.toml:1: "),
            ("c.toml", "# later\n", "c.toml:1: no check in it"),
            ("c.yaml", "check: []\n", "c.yaml:1: no check in it"),
            ("c.toml", "[[check]]\nfile = '/a'\nmode = '9'\n", "c.toml:3: mode \"9\" is not octal"),
            ("c.yaml", "check:\n  - file: /a\n  - fiel: /a\n", "c.yaml:3: "),
            ("c.yaml", "check:\n  - file: /a\n  - name: x\n", "c.yaml:3: a check is of no kind"),
            ("c.json", "{\"check\": [\n{\"file\": 1.5}]}", "c.json:2: "),
        ] {
            let e = lines(text, name).unwrap_err();
            assert!(e.starts_with(want), "{text}: {e}");
        }
    }
}
