//! What is wrong with a stage though each part of it has the right form.

use super::read::{Action, Recipe, Stage};
use super::types::{Base, Copy, Run};
use super::{Result, mounts, suggest};
use crate::layer::Coding;
use crate::verify::Place;

/// Checks `stage`, which is to come after those of `recipe`.
pub(super) fn stage(stage: &Stage, recipe: &Recipe) -> Result<()> {
    let names: Vec<&str> = recipe.stages.iter().map(|s| s.name.as_str()).collect();
    let there = |name: &str, place: &Place| {
        if names.contains(&name) {
            return Ok(());
        }
        Err(place.error(format!("no stage {name} before this one{}", suggest(name, &names))))
    };
    match &stage.base.value {
        Base::Stage(name) => there(name, &stage.base.place)?,
        Base::Scratch(false) => return Err(stage.base.place.error("wanted scratch = true")),
        _ => {}
    }
    let suite = stage.suite();
    if let (None, Some(repo)) = (suite, stage.repos.first()) {
        return Err(repo.place.error("archives are for the packages of a Debian base"));
    }
    if let Some(text) = &stage.image.compression {
        text.parse::<Coding>().map_err(|e| stage.base.place.error(format!("compression: {e}")))?;
    }
    for step in &stage.steps {
        let wrong = match &step.value {
            Action::Copy(copy) => {
                if let Some(name) = &copy.stage {
                    there(name, &step.place)?;
                }
                copy_of(copy)
            }
            Action::Run(run) => {
                if let Some(name) = run.secrets.iter().find(|name| !recipe.secrets.contains_key(*name)) {
                    let known: Vec<&str> = recipe.secrets.keys().map(String::as_str).collect();
                    return Err(step
                        .place
                        .error(format!("no secret {name} in [secrets]{}", suggest(name, &known))));
                }
                for name in run.bind.iter().filter_map(|bind| bind.stage.as_ref()) {
                    there(name, &step.place)?;
                }
                run_of(run).or_else(|| mounts::wrong(run))
            }
            Action::Group(group) => name_of(&group.name),
            Action::User(user) => name_of(&user.name),
            Action::Directory(_) => None,
        };
        wrong.map_or(Ok(()), |reason| Err(step.place.error(reason)))?;
    }
    Ok(())
}

fn copy_of(copy: &Copy) -> Option<&'static str> {
    let given = [!copy.from.is_empty(), copy.content.is_some(), !copy.program.is_empty()];
    let elsewhere = copy.stage.is_some() || copy.image.is_some();
    if given.iter().filter(|g| **g).count() != 1 {
        Some("a copy has one of from, content, program")
    } else if copy.stage.is_some() && copy.image.is_some() {
        Some("a copy has stage or image, not both")
    } else if elsewhere && copy.from.is_empty() {
        Some("stage and image are for from")
    } else if !copy.to.starts_with('/') {
        Some("to is an absolute path in the root")
    } else if copy.content.is_some() && copy.to.ends_with('/') {
        Some("content goes into a file, not a folder")
    } else if copy
        .from
        .iter()
        .any(|from| std::path::Path::new(from).components().any(|c| c == std::path::Component::ParentDir))
        && !elsewhere
    {
        Some("from lies beside the recipe or below, without ..")
    } else if copy.mode.is_some() && copy.bits().is_none() {
        Some("mode is octal, as 0644")
    } else {
        None
    }
}

fn run_of(run: &Run) -> Option<&'static str> {
    let given = [!run.command.is_empty(), run.shell.is_some(), run.script.is_some(), run.program.is_some()];
    let mut files = run.script.iter().chain(&run.inputs);
    if given.iter().filter(|g| **g).count() != 1 {
        Some("a run has one of command, shell, script")
    } else if files.any(|f| f.is_absolute() || f.components().any(|c| c == std::path::Component::ParentDir)) {
        Some("scripts and inputs lie beside the recipe or below, without ..")
    } else if run.workdir.as_ref().is_some_and(|w| !w.starts_with('/')) {
        Some("workdir is an absolute path in the root")
    } else {
        None
    }
}

fn name_of(name: &str) -> Option<&'static str> {
    let fit = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    (!first || name.len() > 32 || !name.bytes().all(fit))
        .then_some("not a name: letters, digits, `.`, `_`, `-`, at most 32")
}
