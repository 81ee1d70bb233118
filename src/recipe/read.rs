//! A recipe's file read: variables put in, parts told apart, what it extends put before it.

use super::assemble::assemble;
use super::context::Directory;
use super::types::{
    Base, Copy, Group, HEAD, Head, Image, Output, Packages, Repo, Run, Secret, Stage as Body, User, When,
};
use super::variables::{Variables, Wrong, own_variables};
use super::{Error, Result, suggest};
use crate::oci::Platform;
use crate::verify::{self, Check, Place};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// How many recipes may stand behind one, by `extends` and as bases.
pub(super) const MAX_DEPTH: usize = 16;
/// The largest recipe, in bytes.
const MAX_SIZE: u64 = 4 << 20;

impl Place {
    /// `path` beside the file that this stands in.
    #[must_use]
    pub fn beside(&self, path: impl AsRef<Path>) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// The file's name and the line, which are the same wherever the recipe lies.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}:{}", self.file.file_name().unwrap_or_default().to_string_lossy(), self.line)
    }

    /// An error of what stands here.
    #[must_use]
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::Syntax { place: self.clone(), reason: reason.into() }
    }
}

/// Something with its place.
#[derive(Debug, Clone)]
pub struct Placed<T> {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub value: T,
}

/// What is decided when a recipe is read.
#[derive(Debug, Clone)]
pub struct Choices {
    /// Values of variables, instead of the recipe's own.
    pub set: BTreeMap<String, String>,
    /// For which platform.
    pub platform: Platform,
    /// When all is made, in seconds since 1970, instead of when its base was (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
}

impl Default for Choices {
    fn default() -> Self {
        Self { set: BTreeMap::new(), platform: Platform::host(), epoch: None }
    }
}

/// A recipe as it counts.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Its file.
    pub file: PathBuf,
    /// Its name.
    pub name: String,
    /// The platform.
    pub platform: Platform,
    /// When all is made, in seconds since 1970, instead of when its base was.
    pub epoch: Option<i64>,
    /// Secrets by name, and where they are declared.
    pub secrets: BTreeMap<String, (Secret, PathBuf)>,
    /// The stages, each after those that it takes from; the last is what comes out.
    pub stages: Vec<Stage>,
    /// What is written.
    pub outputs: Vec<Placed<Output>>,
    /// What is to hold of what comes out.
    pub checks: Vec<verify::Placed>,
}

/// A stage of a recipe.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Its name; of the main stage the recipe's.
    pub name: String,
    /// What it starts from: no recipe any more, those are stages.
    pub base: Placed<Base>,
    /// Packages on top of the base.
    pub packages: Packages,
    /// Archives of packages.
    pub repos: Vec<Placed<Repo>>,
    /// The steps, in order.
    pub steps: Vec<Placed<Action>>,
    /// How it is run.
    pub image: Image,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Copies files.
    Copy(Copy),
    /// Runs a command.
    Run(Run),
    /// Adds a group.
    Group(Group),
    /// Adds a user.
    User(User),
    /// Makes a directory.
    Directory(Directory),
}

/// One file, before it is put together with others.
pub(super) struct Parsed {
    pub file: PathBuf,
    pub text: String,
    pub head: Head,
    pub stages: Vec<(Placed<String>, Body)>,
    pub checks: Vec<Placed<(When, Check)>>,
    pub main: Body,
}

impl Recipe {
    /// Reads the recipe in the file `path`.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Syntax`].
    pub fn read(path: &Path, choices: &Choices) -> Result<Self> {
        Self::of_file(path, choices, 0)
    }

    /// Reads a recipe's text; `path` names it.
    ///
    /// # Errors
    /// [`Error::Syntax`] with the line.
    pub fn parse(text: &str, path: &Path, choices: &Choices) -> Result<Self> {
        Self::of_text(text.to_string(), path, choices, 0)
    }

    pub(super) fn of_file(path: &Path, choices: &Choices, depth: usize) -> Result<Self> {
        Self::of_text(read_text(path)?, path, choices, depth)
    }

    fn of_text(text: String, path: &Path, choices: &Choices, depth: usize) -> Result<Self> {
        let mut vars = choices.set.clone();
        let parsed = Parsed::chain(text, path, &mut vars, &mut BTreeSet::new(), depth)?;
        if let Some((name, _)) =
            choices.set.iter().find(|(name, _)| !parsed.iter().any(|p| p.head.vars.contains_key(*name)))
        {
            let known: Vec<&str> =
                parsed.iter().flat_map(|p| p.head.vars.keys().map(String::as_str)).collect();
            return Err(Error::NoVariable { name: name.clone(), near: suggest(name, &known) });
        }
        assemble(parsed, &vars, choices, depth)
    }
}

/// The text of a recipe's or a Dockerfile's file.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let error = |source| Error::Read { path: path.to_path_buf(), source };
    let meta = std::fs::metadata(path).map_err(error)?;
    if !meta.is_file() || meta.len() > MAX_SIZE {
        return Err(error(too_large()));
    }
    std::fs::read_to_string(path).map_err(error)
}

/// The text of an open file, as [`read_text`].
pub(super) fn text_of(file: File) -> std::io::Result<String> {
    let mut text = String::new();
    file.take(MAX_SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SIZE { Err(too_large()) } else { Ok(text) }
}

pub(super) fn too_large() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, "not a file of at most 4 MiB")
}

impl Parsed {
    /// The file and those that it extends, the first of all first. `vars` are values that count more
    /// than the file's own.
    fn chain(
        text: String,
        path: &Path,
        vars: &mut BTreeMap<String, String>,
        met: &mut BTreeSet<PathBuf>,
        depth: usize,
    ) -> Result<Vec<Self>> {
        let file = path.to_path_buf();
        let syntax = |at: usize, reason: String| Error::Syntax { place: place(&file, &text, at), reason };
        let toml = |e: toml::de::Error| syntax(e.span().map_or(0, |s| s.start), reason(e.message()));
        let mut table = DeTable::parse(&text).map_err(toml)?;
        let version = table.get_ref().get("version");
        if let Some(version) = version.filter(|v| v.get_ref().as_integer().is_some_and(|i| i.as_str() != "1"))
        {
            let reason = "this version is not known, this shipimg reads version 1";
            return Err(syntax(version.span().start, reason.to_string()));
        }
        let own = own_variables(table.get_mut(), vars).map_err(|(at, reason)| syntax(at, reason))?;
        let extends = table.get_ref().get("extends").and_then(|v| v.get_ref().as_str()).map(str::to_string);
        let above = extends.map(|parent| {
            let parent = path.parent().unwrap_or(Path::new("")).join(parent);
            if met.len() + depth >= MAX_DEPTH || !met.insert(parent.clone()) {
                return Err(syntax(0, format!("it extends itself by {}", parent.display())));
            }
            Self::chain(read_text(&parent)?, &parent, vars, met, depth)
        });
        let mut chain = above.transpose()?.unwrap_or_default();
        let known = Variables { vars, env: &own };
        known.fill(table.get_mut(), &["vars", "env"]).map_err(|(at, reason)| syntax(at, reason))?;
        list_packages(table.get_mut());
        let stages = named_stages(table.get_mut()).map_err(|(at, reason)| syntax(at, reason))?;
        let checks = take_checks(table.get_mut()).map_err(|(at, reason)| syntax(at, reason))?;
        let checks = checks.into_iter().map(|(when, start, check)| {
            let when = When::deserialize(toml::de::ValueDeserializer::from(when)).map_err(toml)?;
            let check = Check::deserialize(toml::de::Deserializer::from(check)).map_err(toml)?;
            let place = place(&file, &text, start);
            check.kind().map_err(|reason| place.error(reason))?;
            Ok(Placed { place, value: (when, check) })
        });
        let checks = checks.collect::<Result<_>>()?;
        let mut head = DeTable::new();
        for key in HEAD {
            if let Some((key, value)) = table.get_mut().remove_entry(key) {
                head.insert(key, value);
            }
        }
        let span = table.span();
        let head = Head::deserialize(toml::de::Deserializer::from(Spanned::new(span.clone(), head)))
            .map_err(toml)?;
        let main = table.into_inner();
        let body = |table| Body::deserialize(toml::de::Deserializer::from(table)).map_err(toml);
        let main = body(Spanned::new(span, main))?;
        let stages = stages.into_iter().map(|(name, start, table)| {
            let name = Placed { place: place(&file, &text, start), value: name };
            Ok((name, body(table)?))
        });
        let stages = stages.collect::<Result<_>>()?;
        chain.push(Self { file, text, head, stages, checks, main });
        Ok(chain)
    }
}

/// Takes the stages out of a file: name, begin, and the rest of each.
fn named_stages<'i>(
    table: &mut DeTable<'i>,
) -> std::result::Result<Vec<(String, usize, Spanned<DeTable<'i>>)>, Wrong> {
    let Some(stages) = table.remove("stage") else { return Ok(Vec::new()) };
    let (at, wanted) = (stages.span().start, || "wanted [[stage]] tables, each with a name".to_string());
    let DeValue::Array(stages) = stages.into_inner() else { return Err((at, wanted())) };
    let named = stages.into_iter().map(|stage| {
        let span = stage.span();
        let DeValue::Table(mut table) = stage.into_inner() else { return Err((span.start, wanted())) };
        let name = table.remove("name").and_then(|n| n.get_ref().as_str().map(str::to_string));
        let name = name.filter(|n| !n.is_empty()).ok_or_else(|| (span.start, wanted()))?;
        list_packages(&mut table);
        Ok((name, span.start, Spanned::new(span, table)))
    });
    named.collect()
}

type Conditional<'i> = (Spanned<DeValue<'i>>, usize, Spanned<DeTable<'i>>);

/// Takes the checks out of a file: what each depends on, its begin, and the rest of it.
fn take_checks<'i>(table: &mut DeTable<'i>) -> std::result::Result<Vec<Conditional<'i>>, Wrong> {
    let Some(checks) = table.remove("check") else { return Ok(Vec::new()) };
    let (at, wanted) = (checks.span().start, || "wanted [[check]] tables".to_string());
    let DeValue::Array(checks) = checks.into_inner() else { return Err((at, wanted())) };
    let taken = checks.into_iter().map(|check| {
        let span = check.span();
        let DeValue::Table(mut table) = check.into_inner() else { return Err((span.start, wanted())) };
        let always = || Spanned::new(span.clone(), DeValue::Table(DeTable::new()));
        Ok((table.remove("when").unwrap_or_else(always), span.start, Spanned::new(span.clone(), table)))
    });
    taken.collect()
}

/// Makes `[packages]` what `[[packages]]` is.
fn list_packages(table: &mut DeTable) {
    if let Some(packages) = table.get_mut("packages")
        && packages.get_ref().is_table()
    {
        let (span, value) = (packages.span(), std::mem::replace(packages.get_mut(), DeValue::Boolean(false)));
        let mut list = DeArray::new();
        list.push(Spanned::new(span, value));
        *packages.get_mut() = DeValue::Array(list);
    }
}

pub(super) fn place(file: &Path, text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or(text);
    Place { file: file.to_path_buf(), line: before.matches('\n').count() + 1 }
}

/// The parser's message, with what may have been meant by a key that is not known.
fn reason(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let known = if message.starts_with("unknown field") {
        [&HEAD[..], &["stage", "check"]].concat()
    } else {
        Vec::new()
    };
    match quoted.split_first() {
        Some((word, expected)) if message.starts_with("unknown ") => {
            let near = suggest(word, &[expected, &known].concat());
            if near.is_empty() {
                message.to_string()
            } else {
                format!("{}{near}", message.split(',').next().unwrap_or(message))
            }
        }
        _ => message.to_string(),
    }
}
