//! Dockerfiles: the common subset of docker's format, translated into the same values as recipes.
//!
//! ```text
//! Dockerfile ─ lines ─→ instructions ─ stages ─→ Recipe ─→ plan, build, outputs as of any recipe
//! ```
//!
//! Nothing here does anything: RUN becomes a run step, COPY and ADD copy steps, WORKDIR a directory step, what
//! remains is how the image is run. Variables are replaced here, and what instructions inherit from an image is
//! asked of the caller. Stages that the result does not need are left out. What is not known is an error
//! with its line. `docs/dockerfile.md` tells what is different from docker.

mod ignore;
mod lines;
mod mounts;
mod stage;
#[cfg(test)]
mod tests;
mod words;

pub use ignore::Ignore;

use super::read::{Choices, Placed, Recipe, Stage};
use super::types::{Base, Packages, Secret};
use super::{Result, context, suggest};
use crate::oci::Platform;
use crate::verify::Place;
use lines::Line;
use serde_json::Value;
use stage::{Builder, Scope};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use words::{Expander, Values};

/// The names under which a folder has its Dockerfile.
pub const NAMES: [&str; 2] = ["Dockerfile", "Containerfile"];

/// `PATH` in an image that stands on nothing, as docker has it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Arguments that are there without an ARG, where they are given.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// What is built from a Dockerfile.
#[derive(Debug, Clone, Default)]
pub struct Dockerfile {
    /// The file.
    pub file: PathBuf,
    /// The folder that COPY and ADD take from.
    pub context: PathBuf,
    /// The stage that comes out, by name or number; the last where none is given.
    pub target: Option<String>,
    /// Secrets by their ids.
    pub secrets: BTreeMap<String, Secret>,
}

/// What instructions inherit from the image that they stand on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub workdir: String,
    /// Who runs commands.
    pub user: String,
    /// By what lines are run; nothing where it does not say.
    pub shell: Vec<String>,
    /// Instructions for those who build on it.
    pub onbuild: Vec<String>,
}

impl Inherited {
    /// What the configuration of an image says.
    #[must_use]
    pub fn of(config: &Value) -> Self {
        let config = &config["config"];
        let texts = |key: &str| -> Vec<String> {
            let list = config[key].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_string).collect()
        };
        let text = |key: &str| config[key].as_str().unwrap_or_default().to_string();
        let env = texts("Env");
        let env = env.iter().filter_map(|e| e.split_once('=')).map(|(n, v)| (n.to_string(), v.to_string()));
        Self {
            env: env.collect(),
            workdir: text("WorkingDir"),
            user: text("User"),
            shell: texts("Shell"),
            onbuild: texts("OnBuild"),
        }
    }
}

/// Arguments before the first FROM.
struct Globals {
    /// Their values, where they have one.
    args: BTreeMap<String, Option<String>>,
    /// Of platforms, known without an ARG.
    platforms: BTreeMap<String, String>,
}

impl Values for Globals {
    fn value(&self, name: &str) -> Option<&str> {
        let own = self.args.get(name).and_then(Option::as_deref);
        own.or_else(|| self.platforms.get(name).map(String::as_str))
    }
}

/// A stage as it is written.
struct Written<'a> {
    from: &'a Line,
    lines: &'a [Line],
    /// The word after FROM, its variables replaced.
    image: String,
    /// The name, or the number.
    name: String,
}

impl Recipe {
    /// Reads a Dockerfile. `look` tells what an image that it stands on has for it to inherit.
    ///
    /// # Errors
    /// [`super::Error::Read`], [`super::Error::Syntax`]; those of `look`.
    pub fn of_dockerfile(
        dockerfile: &Dockerfile,
        choices: &Choices,
        look: &mut dyn FnMut(&str) -> Result<Inherited>,
    ) -> Result<Self> {
        let read = |path: &PathBuf| context::text(&dockerfile.context, path);
        let text = read(&dockerfile.file)?;
        let beside = format!("{}.dockerignore", dockerfile.file.display()).into();
        let ignores = [beside, dockerfile.context.join(".dockerignore")];
        let ignore = ignores.iter().find(|path: &&PathBuf| path.exists()).map(read);
        let ignore = Ignore::parse(&ignore.transpose()?.unwrap_or_default());
        translate(&text, dockerfile, &ignore, choices, look)
    }
}

/// The recipe that the text of a Dockerfile stands for.
fn translate(
    text: &str,
    dockerfile: &Dockerfile,
    ignore: &Ignore,
    choices: &Choices,
    look: &mut dyn FnMut(&str) -> Result<Inherited>,
) -> Result<Recipe> {
    let file = dockerfile.file.clone();
    let at = |line: usize| Place { file: file.clone(), line };
    let (lines, escape) = lines::read(text).map_err(|(line, reason)| at(line).error(reason))?;
    let (globals, rest) = globals(&lines, escape, choices, &at)?;
    let stages = written(rest, escape, &globals, &at)?;
    let target = target(&stages, dockerfile.target.as_deref(), &at)?;
    let needed = needed(&stages, target);
    for name in choices.set.keys() {
        let declared =
            lines.iter().any(|l| l.name == "ARG" && stage::arguments(l, escape).any(|n| n == *name));
        if !declared && !PROXIES.contains(&name.to_ascii_uppercase().as_str()) {
            tracing::warn!("no ARG {name} in {}", file.display());
        }
    }
    let folder = std::path::absolute(&dockerfile.context).unwrap_or_default();
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut recipe = Recipe {
        file: file.clone(),
        name,
        platform: choices.platform.clone(),
        epoch: choices.epoch,
        secrets: dockerfile.secrets.iter().map(|(n, s)| (n.clone(), (s.clone(), file.clone()))).collect(),
        stages: Vec::new(),
        outputs: Vec::new(),
        checks: Vec::new(),
    };
    let mut ends: BTreeMap<usize, Scope> = BTreeMap::new();
    for (index, written) in stages.iter().enumerate().take(target + 1).filter(|(i, _)| needed.contains(i)) {
        let place = at(written.from.number);
        let below = stage_of(&stages[..index], &written.image).map(|i| (i, ends[&i].clone()));
        let (base, mut scope) = match below {
            Some((below, scope)) => (Base::Stage(stages[below].name.clone()), scope),
            None if written.image == "scratch" => (Base::Scratch(true), Scope::default()),
            None => {
                let inherited = look(&written.image).map_err(|e| e.of_image(&place, &written.image))?;
                (Base::Image(written.image.clone()), Scope::of(inherited))
            }
        };
        for (name, value) in &choices.set {
            if PROXIES.contains(&name.to_ascii_uppercase().as_str()) {
                scope.args.insert(name.clone(), value.clone());
            }
        }
        let mut builder = Builder::new(scope, &stages[..index], dockerfile, ignore, escape, &at);
        if matches!(base, Base::Scratch(_)) {
            builder.set_env("PATH", PATH);
        }
        let triggers = builder.triggers(written.from.number).map_err(|reason| place.error(reason))?;
        for line in triggers.iter().chain(written.lines) {
            builder.add(line, &globals, choices)?;
        }
        let (steps, image, scope) = builder.finish();
        ends.insert(index, scope);
        let base = Placed { place, value: base };
        let (packages, repos) = (Packages::default(), Vec::new());
        let stage = Stage { name: written.name.clone(), base, packages, repos, steps, image };
        super::check::stage(&stage, &recipe)?;
        recipe.stages.push(stage);
    }
    Ok(recipe)
}

/// The arguments before the first FROM, and the lines from there on.
fn globals<'a>(
    lines: &'a [Line],
    escape: char,
    choices: &Choices,
    at: &dyn Fn(usize) -> Place,
) -> Result<(Globals, &'a [Line])> {
    let mut globals = Globals { args: BTreeMap::new(), platforms: platforms(&choices.platform) };
    let first = lines.iter().position(|line| line.name == "FROM");
    let first = first.ok_or_else(|| at(lines.first().map_or(1, |l| l.number)).error("no FROM"))?;
    for line in &lines[..first] {
        if line.name != "ARG" {
            return Err(at(line.number).error(format!("{} before the first FROM", line.name)));
        }
        for word in words::split(&line.rest, escape) {
            let expander = Expander { values: &globals, escape, quotes: true };
            let word = expander.expand(&word).map_err(|e| at(line.number).error(e))?;
            let (name, default) = word.split_once('=').map_or((word.as_str(), None), |(n, v)| (n, Some(v)));
            let value = choices.set.get(name).cloned().or_else(|| default.map(str::to_string));
            globals.args.insert(name.to_string(), value);
        }
    }
    Ok((globals, &lines[first..]))
}

/// What docker tells of platforms.
fn platforms(target: &Platform) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (prefix, platform) in [("TARGET", target), ("BUILD", &Platform::host())] {
        values.insert(format!("{prefix}PLATFORM"), platform.to_string());
        values.insert(format!("{prefix}OS"), platform.os.clone());
        values.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        values.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    values
}

/// The stages.
fn written<'a>(
    lines: &'a [Line],
    escape: char,
    globals: &Globals,
    at: &dyn Fn(usize) -> Place,
) -> Result<Vec<Written<'a>>> {
    let mut stages: Vec<Written> = Vec::new();
    let starts = lines.iter().enumerate().filter(|(_, line)| line.name == "FROM").map(|(i, _)| i);
    let starts: Vec<usize> = starts.chain([lines.len()]).collect();
    for (number, window) in starts.windows(2).enumerate() {
        let [start, end] = *window else { continue };
        let (from, wrong) = (&lines[start], |reason: String| at(lines[start].number).error(reason));
        let expander = Expander { values: globals, escape, quotes: true };
        let words = words::split(&from.rest, escape);
        let (image, name) = match words.as_slice() {
            [image] => (image, number.to_string()),
            [image, word, name] if word.eq_ignore_ascii_case("as") => (image, name.to_ascii_lowercase()),
            _ => return Err(wrong("wanted FROM IMAGE [AS NAME]".into())),
        };
        let fit = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if words.len() == 3 && !(name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(fit))
        {
            return Err(wrong(format!("{name:?} is no name of a stage")));
        }
        if stages.iter().any(|s| s.name == name) {
            return Err(wrong(format!("a stage {name} is there already")));
        }
        let image = expander.expand(image).map_err(wrong)?;
        if image.is_empty() {
            return Err(wrong(format!("FROM {}: this is empty", words[0])));
        }
        for (flag, value) in &from.flags {
            let value = expander.expand(value.as_deref().unwrap_or_default()).map_err(wrong)?;
            let platform = value.parse::<Platform>();
            let same =
                platform.is_ok_and(|p| Some(p.to_string().as_str()) == globals.value("TARGETPLATFORM"));
            if flag != "platform" {
                return Err(wrong(format!("FROM --{flag} is not known")));
            } else if !same {
                let reason = "another platform than the build's, for which there is --platform";
                return Err(wrong(format!("--platform={value}: {reason}")));
            }
        }
        stages.push(Written { from, lines: &lines[start + 1..end], image, name });
    }
    Ok(stages)
}

/// The stage with a name or number.
fn stage_of(stages: &[Written], name: &str) -> Option<usize> {
    stages.iter().position(|s| s.name.eq_ignore_ascii_case(name))
}

/// The stage that COPY takes from: of numbers, also one that has a name.
fn source_of(stages: &[Written], name: &str) -> Option<usize> {
    stage_of(stages, name).or_else(|| name.parse().ok().filter(|index| *index < stages.len()))
}

fn target(stages: &[Written], name: Option<&str>, at: &dyn Fn(usize) -> Place) -> Result<usize> {
    let Some(name) = name else { return Ok(stages.len() - 1) };
    source_of(stages, name).ok_or_else(|| {
        let known: Vec<&str> = stages.iter().map(|s| s.name.as_str()).collect();
        at(stages[0].from.number).error(format!("no stage {name}{}", suggest(name, &known)))
    })
}

/// The stages that `target` needs, itself too.
fn needed(stages: &[Written], target: usize) -> BTreeSet<usize> {
    let (mut needed, mut work) = (BTreeSet::new(), vec![target]);
    while let Some(index) = work.pop() {
        if !needed.insert(index) {
            continue;
        }
        let before = &stages[..index];
        work.extend(stage_of(before, &stages[index].image));
        let flags = stages[index].lines.iter().flat_map(|line| &line.flags);
        let froms = flags.filter_map(|(name, value)| match name.as_str() {
            "from" => value.as_deref(),
            "mount" => value.as_deref()?.split(',').find_map(|option| option.strip_prefix("from=")),
            _ => None,
        });
        work.extend(froms.filter_map(|name| source_of(before, name)));
    }
    needed
}
