//! What is built a second time, to see whether it comes out the same: of `build` and of `verify`.

use super::build::{self, Reading};
use super::dockerfile::Docker;
use super::phases::Phases;
use super::{Context, Error, Result};
use crate::oci::Image;
use crate::recipe::{self, Access, Builder, Lock, Options, Plan, Recipe, Target};
use crate::store::{Lease, Scratch, Store};
use crate::sys::sandbox::private_mounts;
use crate::sys::{selfexe, signal};
use crate::verify::{Check, Placed, Second};
use std::path::{Path, PathBuf};

/// Which recipe is built anew, and how that is read.
#[derive(Debug, clap::Args)]
#[command(mut_group("Docker", |group| group.requires("rebuild")))]
#[command(mut_arg("set", |arg| arg.requires("rebuild")), mut_arg("platform", |arg| arg.requires("rebuild")))]
#[command(mut_arg("frozen", |arg| arg.requires("rebuild")), mut_arg("offline", |arg| arg.requires("rebuild")))]
pub(super) struct Rebuild {
    /// Build this recipe, Dockerfile, or folder of one anew, and fail where that gives other bytes (exit code 5)
    #[arg(id = "rebuild", long = "rebuild", value_name = "RECIPE|FOLDER")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    docker: Docker,
    #[command(flatten)]
    reading: Reading,
}

/// What a build begins with.
pub(super) struct Read {
    pub recipe: Recipe,
    pub lock: Lock,
    /// Where the lock is to be written, if it is another one than is there.
    pub changed: Option<PathBuf>,
}

impl Read {
    /// Reads the recipe or the Dockerfile, and what it is locked to.
    pub fn of(
        (path, docker): (&Path, &Docker),
        reading: &Reading,
        access: &Access,
        place: (&Store, &Lease),
        phases: &Phases,
    ) -> Result<Self> {
        let dockerfile = docker.of(path)?;
        let mut choices = reading.chosen.choices(&reading.chosen.platform());
        let beside = Lock::beside(dockerfile.as_ref().map_or(path, |d| &d.file));
        let (wish, old) = (reading.wish(), Lock::read(&beside)?);
        let mut known = old.clone().unwrap_or_default();
        let recipe = match &dockerfile {
            None => Recipe::read(path, &choices)?,
            Some(dockerfile) => {
                choices.set.extend(docker.given.arguments());
                let platform = choices.platform.clone();
                Recipe::of_dockerfile(dockerfile, &choices, &mut |name| {
                    known.inherited((name, &dockerfile.file), &wish, &platform, access, place)
                })?
            }
        };
        let lock = Lock::of(&recipe, Some(&known), &wish, access, place, phases)?;
        // A Dockerfile has a lock where somebody has made one.
        let own = dockerfile.is_none() || old.is_some();
        let changed = Some(beside).filter(|_| own && old.as_ref() != Some(&lock));
        Ok(Self { recipe, lock, changed })
    }
}

/// Has the checks ask whether both builds are the same.
pub(super) fn ask(checks: &mut Vec<Placed>) {
    if checks.iter().all(|c| c.check.reproducible.is_none()) {
        checks.push(Placed { check: Check { reproducible: Some(true), ..Check::default() }, place: None });
    }
}

/// What was built anew.
pub(super) enum Rebuilt {
    /// The image.
    Image(Box<Image>),
    /// The file or folder that was written from it, and the one that it is to be like.
    Files { first: PathBuf, second: PathBuf, _scratch: Scratch },
}

impl Rebuilt {
    pub fn second(&self) -> Second<'_> {
        match self {
            Self::Image(image) => Second::Image(image),
            Self::Files { first, second, .. } => Second::Files { first, second },
        }
    }
}

impl Rebuild {
    /// Builds an image anew, or what the recipe writes to the path `first`; none where that was not asked for.
    /// To be called while this process has one thread.
    pub fn build(
        &self,
        context: &Context,
        place: (&Store, &Lease),
        first: Option<PathBuf>,
    ) -> Result<Option<Rebuilt>> {
        let built = self.recipe.as_ref().map(|file| self.build_file(file, context, place, first)).transpose();
        if built.is_err() {
            // Where a signal has stopped it, all is taken away now.
            signal::give_in();
        }
        built
    }

    fn build_file(
        &self,
        file: &Path,
        context: &Context,
        place: (&Store, &Lease),
        first: Option<PathBuf>,
    ) -> Result<Rebuilt> {
        selfexe::protect()?;
        context.runtime()?.sweep()?;
        let (access, phases) = (self.reading.access(place.0), Phases::new());
        let Read { recipe, lock, .. } =
            Read::of((file, &self.docker), &self.reading, &access, place, &phases)?;
        let plan = Plan::of(&recipe, &lock)?;
        // Before work is done whose result could not be compared.
        let scratch = place.0.scratch_aside()?;
        let second = scratch.path().join("second");
        let target = first.as_ref().map(|first| {
            let target = Target::elsewhere(&recipe, first, &second)?;
            Ok::<_, Error>(target.ok_or_else(|| build::Error::NoOutput(file.to_path_buf(), first.clone()))?)
        });
        let target = target.transpose()?;
        // Mounts made from here on are seen by no other process and end with this one.
        private_mounts()?;
        let options = Options { access, no_cache: true, ..Options::default() };
        let image = Builder::new(&plan, &lock, place, &options, &phases).build()?.image;
        let rebuilt = match (first, target) {
            (Some(first), Some(target)) => {
                signal::put_off();
                recipe::write(&[target], &image, &plan, place, &options, &phases)?;
                Rebuilt::Files { first, second, _scratch: scratch }
            }
            _ => Rebuilt::Image(Box::new(image)),
        };
        phases.finish();
        Ok(rebuilt)
    }
}
