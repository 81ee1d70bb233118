//! A plan carried out: each step whose result is not kept is done, and its result kept.
//!
//! A step works in an overlay over the image of the step before it; what lies in the upper directory
//! afterwards is its layer, no file is looked for. Files that a step makes or changes have the time of
//! their stage, so that the same step gives the same layer.

use super::accounts;
use super::cache::{Cache, Found};
use super::command::{self, Shell};
use super::context;
use super::files;
use super::inputs::plain;
use super::lock::{self, Access, Lock};
use super::mounts::Mounted;
use super::overlays::Overlays;
use super::plan::{Plan, Step as Planned, Work};
use super::read::Action;
use super::types::{Base, Image as Configured};
use super::{Error, Result, System, request, settings};
use crate::bundle::{Bundle, Settings};
use crate::debian::Progress;
use crate::layer::{self, Shape, TarWriter, WriteOptions};
use crate::oci::{Compression, Descriptor, Edit, Image, Step, media_type, rfc3339};
use crate::store::{Lease, Store};
use crate::sys::dir::Dir;
use serde_json::json;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// How a build is done.
#[derive(Debug, Default)]
pub struct Options {
    /// Where images and packages come from.
    pub access: Access,
    /// Where else results are kept.
    pub cache: Cache,
    /// Steps are done anew though their results are kept.
    pub no_cache: bool,
    /// When a command has failed a shell is opened where it ran.
    pub shell: Shell,
    /// In what steps work.
    pub overlays: Overlays,
    /// How many stages are done at once, where they do not need each other.
    pub jobs: usize,
}

/// What a build has done.
#[derive(Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// How each step of the plan came about.
    pub steps: Vec<How>,
}

/// How the result of a step came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Nobody needed it.
    Unneeded,
    /// It was kept in the store.
    Kept,
    /// It was fetched from a cache.
    Fetched,
    /// It was done.
    Done,
}

impl Built {
    /// How many steps had to be done.
    #[must_use]
    pub fn done(&self) -> usize {
        self.steps.iter().filter(|how| **how == How::Done).count()
    }
}

/// A result of a step.
#[derive(Clone)]
pub(super) enum Known {
    /// In the store.
    Here(Image),
    /// In a cache.
    There(Found),
}

/// A build.
pub struct Builder<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) lock: &'a Lock,
    pub(super) store: &'a Store,
    pub(super) lease: &'a Lease,
    pub(super) options: &'a Options,
    pub(super) progress: &'a dyn Progress,
    /// Results of steps, as far as they are known.
    pub(super) known: Vec<Option<Known>>,
    pub(super) how: Vec<How>,
    /// Whether this is a copy beside others, see `stages`: what a failed step printed is told again at the end.
    pub(super) apart: bool,
}

impl<'a> Builder<'a> {
    /// A build of `plan` that has not begun. `lease` protects what it makes.
    #[must_use]
    pub fn new(
        plan: &'a Plan<'a>,
        lock: &'a Lock,
        (store, lease): (&'a Store, &'a Lease),
        options: &'a Options,
        progress: &'a dyn Progress,
    ) -> Self {
        let known = plan.steps.iter().map(|_| None).collect();
        let how = vec![How::Unneeded; plan.steps.len()];
        Self { plan, lock, store, lease, options, progress, known, how, apart: false }
    }

    /// Does what is missing.
    ///
    /// # Errors
    /// [`Error::Failed`] where a step failed; what was done before it is kept.
    pub fn build(mut self) -> Result<Built> {
        let last = self.plan.steps.len() - 1;
        self.stages(last)?;
        let image = self.whole(last)?;
        self.publish_kept()?;
        let image = self.named_steps(&image, last)?;
        Ok(Built { image, steps: self.how })
    }

    /// The image of the step `index`, all of it in the store.
    pub(super) fn whole(&mut self, index: usize) -> Result<Image> {
        if !self.find(index)? {
            return self.done(index);
        }
        match self.known[index].clone() {
            Some(Known::Here(image)) => {
                if self.how[index] == How::Unneeded {
                    self.how[index] = How::Kept;
                }
                Ok(image)
            }
            Some(Known::There(found)) if self.options.cache.complete(&found, self.store)? => {
                self.store.keep_result(&self.plan.steps[index].key, &found.image.descriptor.digest)?;
                self.known[index] = Some(Known::Here(found.image.clone()));
                self.how[index] = How::Fetched;
                Ok(found.image)
            }
            _ => self.done(index),
        }
    }

    /// Looks for a result that is kept: here, or in a cache.
    pub(super) fn find(&mut self, index: usize) -> Result<bool> {
        if self.known[index].is_none() && !self.options.no_cache {
            let key = &self.plan.steps[index].key;
            let here = self.store.result(key, self.lease)?.map(Known::Here);
            self.known[index] = if here.is_some() {
                here
            } else {
                let (platform, place) = (&self.plan.recipe.platform, (self.store, self.lease));
                self.options.cache.find(key, platform, place)?.map(Known::There)
            };
        }
        Ok(self.known[index].is_some())
    }

    /// Does the step `index`, and before that what it needs; keeps its result.
    fn done(&mut self, index: usize) -> Result<Image> {
        let step = &self.plan.steps[index];
        let needs = step.needs.iter().map(|&need| self.whole(need)).collect::<Result<Vec<_>>>()?;
        let made = self.make(step, &needs).map_err(|e| e.of_step(step))?;
        self.how[index] = How::Done;
        self.store.keep_result(&step.key, &made.digest)?;
        let image = self.store.image(&made, &self.plan.recipe.platform)?;
        self.options.cache.publish(&step.key, &image, self.store)?;
        self.known[index] = Some(Known::Here(image.clone()));
        Ok(image)
    }

    /// Puts what was kept here into the cache, too.
    fn publish_kept(&self) -> Result<()> {
        if self.options.cache.to.is_none() || self.options.no_cache {
            return Ok(());
        }
        for step in &self.plan.steps {
            if let Some(image) = self.store.result(&step.key, self.lease)? {
                self.options.cache.publish(&step.key, &image, self.store)?;
            }
        }
        Ok(())
    }

    /// Does a step on the images that it needs; gives the manifest of its image.
    fn make(&self, step: &Planned, needs: &[Image]) -> Result<Descriptor> {
        match (&step.work, needs) {
            (Work::Base(base), _) => self.base(step, base),
            (Work::Settings(image), [below, ..]) => self.configured(step, image, below),
            (Work::Action(action), [below, more @ ..]) => {
                self.progress.phase("step", None);
                let stage =
                    Some(&step.stage.name).filter(|_| !self.apart && self.plan.recipe.stages.len() > 1);
                self.progress.detail(&stage.map_or_else(|| action.to_string(), |s| format!("{s}: {action}")));
                self.act(step, action, below, more)
            }
            _ => unreachable!("a step works on something"),
        }
    }

    fn base(&self, step: &Planned, base: &Base) -> Result<Descriptor> {
        let (store, lease) = (self.store, self.lease);
        match base {
            Base::Image(name) => {
                let access = &self.options.access;
                Ok(lock::below(name, self.lock, &self.plan.recipe.platform, access, (store, lease))?
                    .descriptor)
            }
            Base::Debian(_) => {
                let request = request(self.plan.recipe, step.stage)?;
                let packages = self.lock.packages(&step.stage.name, &self.plan.recipe.platform);
                let (Some(request), Some(packages)) = (request, packages) else {
                    unreachable!("the plan was made of the lock")
                };
                let made =
                    System::debian(&request, packages, self.options.no_cache, store, lease, self.progress)?;
                self.compressed(&made.image, step)
            }
            Base::Dir(dir) => {
                let path = step.place.beside(dir);
                let shape = Shape { time: Some(step.time), ..Shape::default() };
                let options = WriteOptions { shape, ..WriteOptions::default() };
                self.add(step, None, &|tar| layer::write_tree(&path, tar, &options).map(drop))
            }
            Base::Scratch(_) | Base::Recipe(_) | Base::Stage(_) => {
                Ok(self.lease.put_image(self.nothing(step)?)?)
            }
        }
    }

    /// The documents of an image without layers.
    fn nothing(&self, step: &Planned) -> Result<Edit> {
        let platform = &self.plan.recipe.platform;
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "layers": []});
        let mut config = json!({"created": created(step.time), "architecture": platform.architecture,
            "os": platform.os, "config": {}, "rootfs": {"type": "layers", "diff_ids": []}});
        if let Some(variant) = &platform.variant {
            config["variant"] = json!(variant);
        }
        Ok(Edit::of(manifest.to_string().as_bytes(), config.to_string().as_bytes())?)
    }

    /// The image with its one plain layer compressed as all others.
    fn compressed(&self, image: &Image, step: &Planned) -> Result<Descriptor> {
        let [plain] = image.layers.as_slice() else { return Ok(image.descriptor.clone()) };
        if self.plan.coding.compression == Compression::None {
            return Ok(image.descriptor.clone());
        }
        let path = self.store.blob_path(&plain.descriptor.digest);
        let read = |source| Error::Read { path: path.clone(), source };
        let mut tar = File::open(&path).map_err(read)?;
        let (blob, diff_id) = layer::store_layer(self.lease, self.plan.coding, |out| {
            io::copy(&mut tar, out).map(drop).map_err(layer::Error::Output)
        })?;
        let mut edit = self.store.edit(image)?;
        edit.clear_layers();
        edit.add_layer(&blob, &diff_id, &history(step));
        Ok(self.lease.put_image(edit)?)
    }

    /// `below`, or nothing, with the layer that `write` writes.
    fn add(
        &self,
        step: &Planned,
        below: Option<&Image>,
        write: &dyn Fn(&mut TarWriter<&mut dyn Write>) -> layer::Result<()>,
    ) -> Result<Descriptor> {
        let mut edit =
            below.map_or_else(|| self.nothing(step), |image| self.store.edit(image).map_err(Error::from))?;
        let (blob, diff_id) = layer::store_layer(self.lease, self.plan.coding, |out| {
            let mut tar = TarWriter::new(out);
            write(&mut tar)?;
            tar.finish().map(drop).map_err(layer::Error::Output)
        })?;
        edit.add_layer(&blob, &diff_id, &history(step));
        Ok(self.lease.put_image(edit)?)
    }

    fn configured(&self, step: &Planned, image: &Configured, below: &Image) -> Result<Descriptor> {
        let mut edit = self.store.edit(below)?;
        settings::apply(image, &mut edit).map_err(|reason| step.place.error(reason))?;
        edit.note(&history(step));
        Ok(self.lease.put_image(edit)?)
    }

    /// Does a step in an overlay over `below`; what is different then is its layer.
    fn act(&self, step: &Planned, action: &Action, below: &Image, more: &[Image]) -> Result<Descriptor> {
        let (mut settings, secrets, mounted) = match action {
            Action::Run(run) => (
                command::settings(run, step)?,
                command::secrets(self.plan.recipe, run, step, self.store)?,
                self.mounted(run, step, more)?,
            ),
            _ => (Settings::default(), None, Mounted::default()),
        };
        settings.mounts.extend(mounted.mounts.iter().cloned());
        settings.mounts.extend(secrets.iter().flat_map(|s| s.mounts.iter().cloned()));
        let overlays = &self.options.overlays;
        let bundle = overlays.over(without_volumes(below), self.store, "build", &settings)?;
        let done = self.change(step, action, &bundle, more);
        let written = done.and_then(|()| self.difference(step, below, &bundle));
        drop(secrets);
        let removed = bundle.remove();
        let closed = mounted.close();
        let written = written?;
        removed?;
        closed?;
        Ok(written)
    }

    /// Changes the root of `bundle`.
    fn change(&self, step: &Planned, action: &Action, bundle: &Bundle, more: &[Image]) -> Result<()> {
        let root = bundle.rootfs();
        match action {
            Action::Run(run) => command::run(run, step, bundle, self.store, (self.options.shell, self.apart)),
            Action::Group(group) => accounts::group(&root, group, step),
            Action::User(user) => accounts::user(&root, user, step),
            Action::Directory(directory) => files::make_directory(directory, &root, step.time),
            Action::Copy(copy) => {
                if let Some(name) = &copy.image {
                    let access = &self.options.access;
                    let place = (self.store, self.lease);
                    let image = lock::locked(name, self.lock, &self.plan.recipe.platform, access, place)?;
                    return self.copy_of(step, copy, &image, &root);
                }
                if let (Some(_), [image]) = (&copy.stage, more) {
                    return self.copy_of(step, copy, image, &root);
                }
                let options = if copy.docker.is_some() { context::kept() } else { plain(&copy.exclude) };
                files::copy(copy, step, None, &root, (&options, self.store.limits()))
            }
        }
    }

    /// Copies files out of another image.
    fn copy_of(&self, step: &Planned, copy: &super::types::Copy, image: &Image, root: &Path) -> Result<()> {
        let other = self.options.overlays.over(image.clone(), self.store, "from", &Settings::default())?;
        let shape = Shape { exclude: copy.exclude.clone(), ..Shape::default() };
        let options = WriteOptions { shape, latest: Some(step.time), ..WriteOptions::default() };
        let copied = files::copy(copy, step, Some(&other.rootfs()), root, (&options, self.store.limits()));
        let removed = other.remove();
        copied?;
        Ok(removed?)
    }

    /// The layer of what was changed in `bundle`; none where nothing was.
    fn difference(&self, step: &Planned, below: &Image, bundle: &Bundle) -> Result<Descriptor> {
        let upper = bundle.path().join("upper");
        let empty = Dir::open(&upper)?.list()?.is_empty();
        if empty {
            let mut edit = self.store.edit(below)?;
            edit.note(&history(step));
            return Ok(self.lease.put_image(edit)?);
        }
        let options = WriteOptions { latest: Some(step.time), ..WriteOptions::default() };
        self.add(step, Some(below), &|tar| layer::write_upper(&upper, tar, &options).map(drop))
    }

    /// The image of the last step, whose history tells for each step where in the recipe it stands. That is
    /// in no step's own image, since lines change where steps do not.
    fn named_steps(&self, image: &Image, last: usize) -> Result<Image> {
        let mut chain = vec![last];
        while let Some(&below) = chain.last().and_then(|&i| self.plan.steps[i].needs.first()) {
            chain.push(below);
        }
        let places: Vec<String> = chain
            .iter()
            .map(|&i| &self.plan.steps[i])
            .filter(|s| !matches!(s.work, Work::Base(Base::Image(_) | Base::Scratch(_))))
            .map(|s| s.place.short())
            .collect();
        let mut edit = self.store.edit(image)?;
        edit.comment_last(&places);
        let descriptor = self.lease.put_image(edit)?;
        Ok(self.store.image(&descriptor, &self.plan.recipe.platform)?)
    }
}

/// The image as a step sees it: what is written where it has a volume is the step's as all else.
fn without_volumes(image: &Image) -> Image {
    let mut image = image.clone();
    let mut config = image.config.config().clone();
    if let Some(config) = &mut config {
        config.set_volumes(None);
    }
    image.config.set_config(config);
    image
}

fn created(time: i64) -> String {
    rfc3339(u64::try_from(time).unwrap_or(0), 0)
}

/// A step in the history of its image.
fn history(step: &Planned) -> Step {
    Step { created: created(step.time), created_by: step.work.to_string(), ..Step::default() }
}
