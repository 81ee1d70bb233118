//! A recipe's file read: variables put in, parts told apart, what it extends put before it.

use super::context::Directory;
use super::types::{
    At, Base, Copy, Group, HEAD, Head, Image, Output, OutputKind, Packages, Repo, Run, Secret, Stage as Body,
    User, When,
};
use super::{Error, Result, suggest};
use crate::debian;
use crate::oci::{Platform, Reference};
use crate::verify::{self, Check, Place};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// How many recipes may stand behind one, by `extends` and as bases.
const MAX_DEPTH: usize = 16;
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
struct Parsed {
    file: PathBuf,
    text: String,
    head: Head,
    stages: Vec<(Placed<String>, Body)>,
    checks: Vec<Placed<(When, Check)>>,
    main: Body,
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

    fn of_file(path: &Path, choices: &Choices, depth: usize) -> Result<Self> {
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
        return Err(error(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "not a file of at most 4 MiB",
        )));
    }
    std::fs::read_to_string(path).map_err(error)
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

/// What is wrong, and the byte where.
type Wrong = (usize, String);

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

/// The variables of the environment that a file declares; its own variables are added to `vars`.
fn own_variables(
    table: &DeTable,
    vars: &mut BTreeMap<String, String>,
) -> std::result::Result<BTreeMap<String, String>, Wrong> {
    let texts = |key: &str| {
        let entries = table.get(key).and_then(|v| v.get_ref().as_table()).into_iter().flatten();
        entries.filter_map(|(name, value)| {
            Some((name.get_ref().to_string(), value.get_ref().as_str()?.to_string(), value.span().start))
        })
    };
    let env = texts("env").map(|(name, default, _)| {
        let value = std::env::var(&name).unwrap_or(default);
        (name, value)
    });
    let env: BTreeMap<_, _> = env.collect();
    for (name, value, at) in texts("vars") {
        let value =
            Variables { vars: &BTreeMap::new(), env: &env }.expand(&value).map_err(|reason| (at, reason))?;
        vars.entry(name).or_insert(value);
    }
    Ok(env)
}

/// Variables and their values.
struct Variables<'a> {
    vars: &'a BTreeMap<String, String>,
    env: &'a BTreeMap<String, String>,
}

impl Variables<'_> {
    /// Puts them into all texts of `table`, but for what is below the keys `except`.
    fn fill(&self, table: &mut DeTable, except: &[&str]) -> std::result::Result<(), Wrong> {
        let mut values = table.iter_mut().filter(|(key, _)| !except.contains(&&**key.get_ref()));
        values.try_for_each(|(_, value)| self.fill_value(value))
    }

    fn fill_value(&self, value: &mut Spanned<DeValue>) -> std::result::Result<(), Wrong> {
        let at = value.span().start;
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => {
                *text = self.expand(text).map_err(|reason| (at, reason))?.into();
                Ok(())
            }
            DeValue::Array(list) => list.iter_mut().try_for_each(|v| self.fill_value(v)),
            DeValue::Table(table) => self.fill(table, &[]),
            _ => Ok(()),
        }
    }

    /// `${var:NAME}` and `${env:NAME}` as what they stand for, `$${` as `${`; all other is as it was.
    fn expand(&self, text: &str) -> std::result::Result<String, String> {
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let tail = &rest[at + 2..];
            let word = tail.split_once('}').map(|(word, _)| word);
            if out.ends_with('$') {
                out.push('{');
                rest = tail;
                continue;
            }
            let known = [("var:", self.vars, "[vars]"), ("env:", self.env, "[env]")];
            let named = known.into_iter().find_map(|(prefix, table, place)| {
                let name = word?.strip_prefix(prefix).filter(|n| is_name(n))?;
                Some((name, table, place))
            });
            let Some((name, table, place)) = named else {
                out.push_str("${");
                rest = tail;
                continue;
            };
            let value = table.get(name).ok_or_else(|| {
                let known: Vec<&str> = table.keys().map(String::as_str).collect();
                format!("no variable {name} in {place}{}", suggest(name, &known))
            })?;
            out.push_str(value);
            rest = &tail[name.len() + 5..];
        }
        Ok(out + rest)
    }
}

fn is_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn place(file: &Path, text: &str, at: usize) -> Place {
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

/// Puts files together.
fn assemble(
    chain: Vec<Parsed>,
    vars: &BTreeMap<String, String>,
    choices: &Choices,
    depth: usize,
) -> Result<Recipe> {
    let Some(last) = chain.last() else { unreachable!("a chain has its own file") };
    let file = last.file.clone();
    let stem = || file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = chain.iter().rev().find_map(|p| p.head.name.clone()).unwrap_or_else(stem);
    let deciding = Deciding { vars, platform: &choices.platform };
    let mut recipe = Recipe {
        file: file.clone(),
        name: name.clone(),
        platform: choices.platform.clone(),
        epoch: choices.epoch,
        secrets: BTreeMap::new(),
        stages: Vec::new(),
        outputs: Vec::new(),
        checks: Vec::new(),
    };
    let mut checks = Vec::new();
    let mut main = Merged::default();
    let mut named: Vec<(Placed<String>, Merged)> = Vec::new();
    for parsed in chain {
        let at = |start| place(&parsed.file, &parsed.text, start);
        let secrets = parsed.head.secrets.iter().map(|(n, s)| (n.clone(), (s.clone(), parsed.file.clone())));
        recipe.secrets.extend(secrets);
        if !parsed.head.outputs.is_empty() {
            let outputs = parsed.head.outputs.into_iter();
            recipe.outputs = outputs.map(|o| Placed { place: at(o.start), value: o.value }).collect();
        }
        if !parsed.checks.is_empty() {
            checks = parsed.checks;
        }
        for (name, body) in parsed.stages {
            if named.iter().any(|(other, _)| other.value == name.value) {
                return Err(name.place.error(format!("a stage {} is there already", name.value)));
            }
            let mut merged = Merged::default();
            merged.add(body, &at);
            named.push((name, merged));
        }
        main.add(parsed.main, &at);
    }
    let first = Place { file, line: 1 };
    let main = (Placed { place: first, value: name }, main);
    for (name, merged) in named.into_iter().chain([main]) {
        recipe.add_stage(name, merged, &deciding, choices, depth)?;
    }
    let suite = recipe.stages.last().and_then(Stage::suite).map(str::to_string);
    recipe.outputs = deciding.counting(recipe.outputs, suite.as_deref(), |o| &o.when)?;
    for output in &recipe.outputs {
        check_output(output)?;
    }
    let checks = deciding.counting(checks, suite.as_deref(), |(when, _)| when)?;
    let placed = |c: Placed<(When, Check)>| verify::Placed { check: c.value.1, place: Some(c.place) };
    recipe.checks = checks.into_iter().map(placed).collect();
    Ok(recipe)
}

/// Bodies of one stage from several files.
#[derive(Default)]
struct Merged {
    base: Option<Placed<Base>>,
    packages: Vec<Placed<Packages>>,
    repos: Vec<Placed<Repo>>,
    steps: Vec<Placed<Action>>,
    image: Image,
}

impl Merged {
    fn add(&mut self, body: Body, at: &dyn Fn(usize) -> Place) {
        fn placed<T>(list: Vec<At<T>>, at: &dyn Fn(usize) -> Place) -> impl Iterator<Item = Placed<T>> {
            list.into_iter().map(|x| Placed { place: at(x.start), value: x.value })
        }
        if let Some(base) = body.base {
            self.base = Some(Placed { place: at(base.start), value: base.value });
        }
        self.packages.extend(placed(body.packages, at));
        self.repos.extend(placed(body.repos, at));
        let mut steps: Vec<At<Action>> = Vec::new();
        let step = |x: usize, value| At { start: x, value };
        steps.extend(body.copies.into_iter().map(|x| step(x.start, Action::Copy(x.value))));
        steps.extend(body.runs.into_iter().map(|x| step(x.start, Action::Run(x.value))));
        steps.extend(body.groups.into_iter().map(|x| step(x.start, Action::Group(x.value))));
        steps.extend(body.users.into_iter().map(|x| step(x.start, Action::User(x.value))));
        steps.sort_by_key(|s| s.start);
        self.steps.extend(placed(steps, at));
        if let Some(image) = body.image {
            self.image.merge(image);
        }
    }
}

impl Image {
    /// Puts what `over` gives in the place of what is there.
    fn merge(&mut self, over: Self) {
        macro_rules! one {
            ($($field:ident)*) => { $(if over.$field.is_some() { self.$field = over.$field; })* };
        }
        one!(entrypoint cmd workdir user stop_signal shell author healthcheck compression);
        self.env.extend(over.env);
        self.labels.extend(over.labels);
        self.annotations.extend(over.annotations);
        self.expose.extend(over.expose);
        self.volumes.extend(over.volumes);
    }
}

impl Stage {
    /// The suite of its Debian base.
    #[must_use]
    pub fn suite(&self) -> Option<&str> {
        if let Base::Debian(debian) = &self.base.value { Some(&debian.suite) } else { None }
    }
}

impl Action {
    const fn when(&self) -> &When {
        match self {
            Self::Directory(_) => &ALWAYS,
            Self::Copy(Copy { when, .. })
            | Self::Run(Run { when, .. })
            | Self::Group(Group { when, .. })
            | Self::User(User { when, .. }) => when,
        }
    }
}

/// The condition of what has none.
static ALWAYS: When = When { arch: Vec::new(), suite: Vec::new(), var: BTreeMap::new() };

/// What conditions are asked of.
struct Deciding<'a> {
    vars: &'a BTreeMap<String, String>,
    platform: &'a Platform,
}

impl Deciding<'_> {
    fn counting<T>(
        &self,
        list: Vec<Placed<T>>,
        suite: Option<&str>,
        when: impl Fn(&T) -> &When,
    ) -> Result<Vec<Placed<T>>> {
        let mut counting = Vec::new();
        for item in list {
            if self.holds(when(&item.value), suite).map_err(|reason| item.place.error(reason))? {
                counting.push(item);
            }
        }
        Ok(counting)
    }

    fn holds(&self, when: &When, suite: Option<&str>) -> std::result::Result<bool, String> {
        let arch =
            |name: &String| *name == self.platform.architecture || *name == debian::arch_of(self.platform);
        if !when.suite.is_empty() && suite.is_none() {
            return Err("when.suite: only a Debian base has a suite".to_string());
        }
        for (name, value) in &when.var {
            let Some(has) = self.vars.get(name) else {
                let known: Vec<&str> = self.vars.keys().map(String::as_str).collect();
                return Err(format!("no variable {name} in [vars]{}", suggest(name, &known)));
            };
            if has != value {
                return Ok(false);
            }
        }
        let arch = when.arch.is_empty() || when.arch.iter().any(arch);
        Ok(arch && (when.suite.is_empty() || when.suite.iter().any(|s| Some(s.as_str()) == suite)))
    }
}

impl Recipe {
    fn add_stage(
        &mut self,
        name: Placed<String>,
        merged: Merged,
        deciding: &Deciding,
        choices: &Choices,
        depth: usize,
    ) -> Result<()> {
        let none = || name.place.error("no [base]: debian, image, dir, scratch, recipe or stage");
        let mut base = merged.base.ok_or_else(none)?;
        if let Base::Recipe(path) = &base.value {
            if depth >= MAX_DEPTH {
                return Err(base.place.error("recipes stand on each other without end"));
            }
            let choices = Choices { set: BTreeMap::new(), ..choices.clone() };
            let below = Self::of_file(&base.place.beside(path), &choices, depth + 1)?;
            base.value = Base::Stage(self.take_in(below, path));
        }
        let suite = if let Base::Debian(debian) = &base.value { Some(debian.suite.as_str()) } else { None };
        let mut packages = Packages::default();
        let all = deciding.counting(merged.packages, suite, |p| &p.when)?;
        let at = all.first().map(|p| p.place.clone());
        for more in all {
            packages.include.extend(more.value.include);
            packages.exclude.extend(more.value.exclude);
        }
        if let Some(at) = at.filter(|_| suite.is_none()) {
            return Err(at.error("packages are for a Debian base: another one installs them by a run step"));
        }
        let repos = deciding.counting(merged.repos, suite, |r| &r.when)?;
        let steps = deciding.counting(merged.steps, suite, Action::when)?;
        let stage = Stage { name: name.value, base, packages, repos, steps, image: merged.image };
        super::check::stage(&stage, self)?;
        self.stages.push(stage);
        Ok(())
    }

    /// Has the image kept in the store under these names, too.
    pub fn add_tags(&mut self, names: &[Reference]) {
        let place = Place { file: self.file.clone(), line: 1 };
        self.outputs.extend(names.iter().map(|name| {
            let value = Output { kind: OutputKind::Oci, tag: Some(name.to_string()), ..Output::default() };
            Placed { place: place.clone(), value }
        }));
    }

    /// Takes the stages of another recipe in, under names of their own; gives the name of the last.
    fn take_in(&mut self, below: Self, path: &Path) -> String {
        let prefix = path.display();
        let local: BTreeSet<String> = below.stages.iter().map(|s| s.name.clone()).collect();
        let rename = |name: &mut String| {
            if local.contains(name) {
                *name = format!("{prefix}/{name}");
            }
        };
        for mut stage in below.stages {
            rename(&mut stage.name);
            if let Base::Stage(name) = &mut stage.base.value {
                rename(name);
            }
            for step in &mut stage.steps {
                if let Action::Copy(Copy { stage: Some(name), .. }) = &mut step.value {
                    rename(name);
                }
            }
            if self.stages.iter().all(|s| s.name != stage.name) {
                self.stages.push(stage);
            }
        }
        for (name, secret) in below.secrets {
            self.secrets.entry(name).or_insert(secret);
        }
        self.stages.last().map(|s| s.name.clone()).unwrap_or_default()
    }
}

/// Whether an output has what it needs.
fn check_output(output: &Placed<Output>) -> Result<()> {
    let Output { kind, path, tag, push, size, free, .. } = &output.value;
    let reason = match kind {
        OutputKind::Oci if tag.is_none() => "an oci output needs a tag",
        OutputKind::Oci if path.is_some() => "an oci output has a tag, no path",
        OutputKind::Oci => return Ok(()),
        _ if *push => "an oci output alone is pushed",
        _ if path.is_none() => "it needs a path",
        kind if tag.is_some() && !kind.is_image() => "only images have a tag",
        OutputKind::Ext4 | OutputKind::Ext2 | OutputKind::Disk | OutputKind::Btrfs
            if size.is_some() && free.is_some() =>
        {
            "size or free, not both"
        }
        OutputKind::Ext4 | OutputKind::Ext2 | OutputKind::Disk | OutputKind::Btrfs => return Ok(()),
        _ if size.is_some() || free.is_some() => "only a filesystem that can be written to has a size",
        _ => return Ok(()),
    };
    Err(output.place.error(reason))
}
