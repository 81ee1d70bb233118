//! A recipe of its files: what they say put together, stage by stage, as far as its conditions hold.

use super::read::{Action, Choices, MAX_DEPTH, Parsed, Placed, Recipe, Stage, place};
use super::types::{
    At, Base, Copy, Group, Image, Output, OutputKind, Packages, Repo, Run, Stage as Body, User, When,
};
use super::{Result, suggest};
use crate::debian;
use crate::oci::{Platform, Reference};
use crate::verify::{self, Check, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Puts files together.
pub(super) fn assemble(
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
        one!(entrypoint cmd workdir user stop_signal shell onbuild author healthcheck compression);
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

    /// Gives the image these labels, over its own.
    pub fn add_labels<'a>(&mut self, labels: impl Iterator<Item = (&'a str, &'a str)>) {
        let Some(main) = self.stages.last_mut() else { return };
        main.image.labels.extend(labels.map(|(name, value)| (name.to_string(), value.to_string())));
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
                match &mut step.value {
                    Action::Copy(copy) => copy.stage.iter_mut().for_each(rename),
                    Action::Run(run) => run.bind.iter_mut().filter_map(|b| b.stage.as_mut()).for_each(rename),
                    _ => {}
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
