//! What a build does, before it is done: steps with their keys. Pure.
//!
//! A key is the digest of all that a step's result depends on: the step itself in canonical JSON, the
//! keys of the steps before it, the digests of its inputs, what the lock says of its base, the platform,
//! the time that files get, how layers are compressed, and [`FORMAT`]. A result that is kept under the key
//! stands for the work. Names of stages, lines and the recipe's own folder are in no key.

use super::inputs;
use super::lock::{Lock, request};
use super::mounts::Bind;
use super::read::{Action, Placed, Recipe, Stage};
use super::types::{Base, Copy, Image};
use super::{Error, Result};
use crate::layer::Coding;
use crate::oci::{Compression, Digest};
use crate::verify::Place;
use serde_json::{Value, json};
use std::fmt::{self, Write};

/// Which way steps are done: to be counted up when the same steps give other bytes than before.
pub const FORMAT: u32 = 1;

/// A plan.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The steps, each after those that it needs; the last is what comes out.
    pub steps: Vec<Step<'a>>,
    /// How layers are compressed.
    pub coding: Coding,
}

/// A step.
#[derive(Debug)]
pub struct Step<'a> {
    /// The stage.
    pub stage: &'a Stage,
    /// What is done.
    pub work: Work<'a>,
    /// Where it stands.
    pub place: &'a Place,
    /// Steps whose results it needs, by their index; the first, where there is one, is what it works on.
    pub needs: Vec<usize>,
    /// When its files are made, in seconds since 1970.
    pub time: i64,
    /// The digest of all that the result depends on.
    pub key: Digest,
}

/// What a step does.
#[derive(Debug)]
pub enum Work<'a> {
    /// Makes the base.
    Base(&'a Base),
    /// Changes files.
    Action(&'a Action),
    /// Says how the image is run.
    Settings(&'a Image),
}

impl<'a> Plan<'a> {
    /// What a build of `recipe` with `lock` does.
    ///
    /// # Errors
    /// [`Error::Stale`] where the lock does not have all that the recipe needs.
    pub fn of(recipe: &'a Recipe, lock: &Lock) -> Result<Self> {
        let coding = coding(recipe)?;
        let mut plan = Self { recipe, steps: Vec::new(), coding };
        let mut last: Vec<(&str, usize)> = Vec::new();
        for stage in &recipe.stages {
            let index = plan.add_stage(stage, lock, &last)?;
            last.push((&stage.name, index));
        }
        Ok(plan)
    }

    /// When what comes out is made, in seconds since 1970.
    #[must_use]
    pub fn time(&self) -> i64 {
        self.steps.last().map_or(0, |s| s.time)
    }

    /// Adds the steps of a stage; gives the index of its last one.
    fn add_stage(&mut self, stage: &'a Stage, lock: &Lock, done: &[(&str, usize)]) -> Result<usize> {
        let of_stage = |name: &str| done.iter().find(|(n, _)| *n == name).map(|(_, index)| *index);
        let place = &stage.base.place;
        let (time, base) = self.base(stage, lock)?;
        let mut at = match &stage.base.value {
            Base::Stage(name) => of_stage(name).ok_or_else(|| place.error(format!("no stage {name}")))?,
            other => self.add(stage, Work::Base(other), place, Vec::new(), time, &base),
        };
        let time = self.steps[at].time;
        for step in &stage.steps {
            let Placed { place, value } = step;
            let mut needs = vec![at];
            let mut facts = json!({});
            if let Action::Copy(Copy { stage: Some(name), .. }) = value {
                needs.extend(of_stage(name));
            }
            if let Action::Copy(Copy { image: Some(name), .. }) = value {
                facts["image"] = json!(pinned(name, lock, self.recipe)?.0);
            }
            if let Action::Run(run) = value {
                needs.extend(run.bind.iter().filter_map(|bind| bind.stage.as_deref()).filter_map(of_stage));
                // Which of them is which.
                let what = |bind: &Bind| match &bind.image {
                    Some(name) => Ok(json!(pinned(name, lock, self.recipe)?.0)),
                    None => Ok(json!(if bind.docker.is_some() { "context" } else { "stage" })),
                };
                let binds = run.bind.iter().map(what).collect::<Result<Vec<_>>>()?;
                if !binds.is_empty() {
                    facts["binds"] = json!(binds);
                }
            }
            for name in inputs::names(self.recipe, step) {
                let digest = lock.inputs.get(&name).ok_or_else(|| stale(&name, self.recipe))?;
                facts["inputs"][&name] = json!(digest);
            }
            at = self.add(stage, Work::Action(value), place, needs, time, &facts);
        }
        if stage.image != Image::default() {
            at = self.add(stage, Work::Settings(&stage.image), place, vec![at], time, &json!({}));
        }
        Ok(at)
    }

    fn add(
        &mut self,
        stage: &'a Stage,
        work: Work<'a>,
        place: &'a Place,
        needs: Vec<usize>,
        time: i64,
        facts: &Value,
    ) -> usize {
        let what = match &work {
            Work::Base(_) => json!("base"),
            Work::Action(action) => canonical(action),
            Work::Settings(image) => json!({"settings": Image { compression: None, ..(*image).clone() }}),
        };
        let below: Vec<&Digest> = needs.iter().map(|&i| &self.steps[i].key).collect();
        let all = json!({
            "format": FORMAT, "platform": self.recipe.platform.to_string(), "time": time, "coding": format!("{:?}", self.coding),
            "step": what, "facts": facts, "needs": below,
        });
        let key = Digest::of(all.to_string().as_bytes());
        self.steps.push(Step { stage, work, place, needs, time, key });
        self.steps.len() - 1
    }

    /// The time of a base, and what its key depends on.
    fn base(&self, stage: &Stage, lock: &Lock) -> Result<(i64, Value)> {
        let recipe = self.recipe;
        let epoch = recipe.epoch;
        Ok(match &stage.base.value {
            Base::Debian(_) => {
                let packages = lock.packages(&stage.name, &recipe.platform);
                let packages =
                    packages.ok_or_else(|| stale(&format!("the packages of {}", stage.name), recipe))?;
                let Some(request) = request(recipe, stage)? else { return Ok((0, json!({}))) };
                (request.time(packages), json!({"debian": request.key(packages)?}))
            }
            Base::Image(name) => {
                let (digest, created) = pinned(name, lock, recipe)?;
                (epoch.unwrap_or(created), json!({"image": digest}))
            }
            Base::Dir(dir) => {
                let name = inputs::name(recipe, &stage.base.place.beside(dir));
                let digest = lock.inputs.get(&name).ok_or_else(|| stale(&name, recipe))?;
                (epoch.unwrap_or(0), json!({"dir": digest}))
            }
            Base::Scratch(_) | Base::Recipe(_) | Base::Stage(_) => {
                (epoch.unwrap_or(0), json!({"scratch": true}))
            }
        })
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let step = |(index, step): (usize, &Step)| {
            json!({"index": index, "stage": step.stage.name, "step": step.work.to_string(),
                "place": step.place.short(), "key": step.key, "needs": step.needs})
        };
        let outputs = self.recipe.outputs.iter().map(|o| {
            json!({"kind": o.value.kind, "path": o.value.path, "tag": o.value.tag, "place": o.place.short()})
        });
        json!({"name": self.recipe.name, "platform": self.recipe.platform.to_string(),
            "steps": self.steps.iter().enumerate().map(step).collect::<Vec<_>>(),
            "outputs": outputs.collect::<Vec<_>>()})
    }

    /// As a graph for graphviz.
    #[must_use]
    pub fn dot(&self) -> String {
        let mut text = "digraph plan {\n  rankdir=LR;\n  node [shape=box];\n".to_string();
        for (index, step) in self.steps.iter().enumerate() {
            let label = format!("{}\n{}\n{}", step.stage.name, step.work, step.place.short());
            let _ = writeln!(text, "  s{index} [label={}];", json!(label));
            for need in &step.needs {
                let _ = writeln!(text, "  s{need} -> s{index};");
            }
        }
        for (index, output) in self.recipe.outputs.iter().enumerate() {
            let _ = writeln!(
                text,
                "  o{index} [shape=note, label={}];",
                json!(super::output_text(&output.value))
            );
            let _ = writeln!(text, "  s{} -> o{index};", self.steps.len() - 1);
        }
        text + "}\n"
    }
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let key = &step.key.hex()[..12];
            writeln!(f, "{key}  {:<12} {:<20} {}", step.stage.name, step.place.short(), step.work)?;
        }
        for output in &self.recipe.outputs {
            writeln!(
                f,
                "{:12}  {:<12} {:<20} {}",
                "",
                "",
                output.place.short(),
                super::output_text(&output.value)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base(base) => match base {
                Base::Debian(d) => write!(f, "debian {} {}", d.suite, d.variant.name()),
                Base::Image(name) => write!(f, "image {name}"),
                Base::Dir(path) | Base::Recipe(path) => write!(f, "dir {}", path.display()),
                Base::Scratch(_) => f.write_str("scratch"),
                Base::Stage(name) => write!(f, "stage {name}"),
            },
            Self::Action(action) => action.fmt(f),
            Self::Settings(_) => f.write_str("settings"),
        }
    }
}

/// The first line of a text, of 80 characters at most.
fn brief(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let short: String = line.chars().take(80).collect();
    if short.len() < text.trim().len() { short + " …" } else { short }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy(copy) => {
                let what =
                    copy.from.iter().chain(&copy.program).map(String::as_str).collect::<Vec<_>>().join(" ");
                let what = if copy.content.is_some() { "text" } else { &what };
                let whence = copy.stage.as_ref().map(|s| format!(" of stage {s}"));
                let whence =
                    whence.or_else(|| copy.image.as_ref().map(|i| format!(" of {i}"))).unwrap_or_default();
                write!(f, "copy {}{whence} to {}", brief(what), copy.to)
            }
            Self::Run(run) => {
                let script = run.script.as_ref().map(|s| s.display().to_string());
                let text = run
                    .shell
                    .clone()
                    .or(script)
                    .or_else(|| run.program.clone())
                    .unwrap_or_else(|| run.command.join(" "));
                write!(f, "run {}", brief(&text))
            }
            Self::Group(group) => write!(f, "group {}", group.name),
            Self::User(user) => write!(f, "user {}", user.name),
            Self::Directory(directory) => write!(f, "directory {}", directory.path),
        }
    }
}

/// A step without what only names something.
fn canonical(action: &Action) -> Value {
    let mut value = json!(action);
    if let Some(copy) = value.get_mut("copy").and_then(Value::as_object_mut) {
        copy.remove("stage");
        copy.remove("image");
    }
    value
}

fn stale(what: &str, recipe: &Recipe) -> Error {
    Error::Stale { what: what.to_string(), lock: Lock::beside(&recipe.file) }
}

fn pinned(name: &str, lock: &Lock, recipe: &Recipe) -> Result<(Digest, i64)> {
    let pinned = lock.images.get(name).ok_or_else(|| stale(&format!("the image {name}"), recipe))?;
    Ok((pinned.digest.clone(), pinned.created))
}

/// How layers are compressed: as the main stage says, else by gzip where an image comes out.
fn coding(recipe: &Recipe) -> Result<Coding> {
    let Some(main) = recipe.stages.last() else { return Ok(Coding::default()) };
    match &main.image.compression {
        Some(text) => text.parse().map_err(|e| main.base.place.error(format!("compression: {e}"))),
        None if recipe.outputs.iter().any(|o| o.value.kind.is_image()) => Ok(Coding::default()),
        None => Ok(Coding { compression: Compression::None, level: 0 }),
    }
}
