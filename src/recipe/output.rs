//! What a recipe writes, as outputs of images and their files.

use super::read::{Placed, Recipe};
use super::types::{Output, OutputKind};
use super::{Error, Options, Overlays, Plan, Result};
use crate::archive;
use crate::bundle::{self, Bundle};
use crate::debian::{self, Progress};
use crate::disk::ext4::Size;
use crate::layer::Coding;
use crate::oci::{Compression, Image, Reference};
use crate::output::{self, Files, Kind, Root, Settings, Written};
use crate::store::{Entry, Lease, Store};
use crate::transfer::{self, FromStore, ToRegistry};
use std::path::Path;

/// An output with what it needs.
#[derive(Debug)]
pub struct Target {
    /// The output.
    pub output: output::Output,
    size: Size,
    label: String,
    /// Whether the image is pushed where its name says.
    pub push: Option<Reference>,
}

/// An output, for people.
#[must_use]
pub fn output_text(output: &Output) -> String {
    let kind = serde_json::to_value(output.kind).unwrap_or_default();
    let kind = kind.as_str().unwrap_or_default().to_string();
    let what = output.path.as_ref().map(|p| p.display().to_string()).or_else(|| output.tag.clone());
    format!("write {kind} {}", what.unwrap_or_default())
}

impl Target {
    /// The outputs of `recipe`, looked at before anything is done.
    ///
    /// # Errors
    /// A size or a name that is none, a place that cannot be written to.
    pub fn all(recipe: &Recipe) -> Result<Vec<Self>> {
        let targets = recipe.outputs.iter().map(|output| Self::of(output, recipe));
        let mut targets = targets.collect::<Result<Vec<_>>>()?;
        let outputs: Vec<_> = targets.iter().map(|t| t.output.clone()).collect();
        let checked = output::check(&outputs, Size::Auto { free: None }, false)?;
        for (target, output) in targets.iter_mut().zip(checked) {
            output::check_size(std::slice::from_ref(&output), target.size, 0)?;
            target.output = output;
        }
        Ok(targets)
    }

    /// What `recipe` writes to the path `place`, to be written to `elsewhere` instead, a subvolume as a folder;
    /// none where it writes nothing there.
    ///
    /// # Errors
    /// Those of [`Target::all`].
    pub fn elsewhere(recipe: &Recipe, place: &Path, elsewhere: &Path) -> Result<Option<Self>> {
        let is_there = |o: &&Placed<Output>| {
            o.value.path.as_ref().is_some_and(|path| path.canonicalize().is_ok_and(|path| path == place))
        };
        let Some(output) = recipe.outputs.iter().find(is_there) else { return Ok(None) };
        let kind = match output.value.kind {
            OutputKind::Subvolume => OutputKind::Dir,
            kind => kind,
        };
        let value = Output { path: Some(elsewhere.to_path_buf()), kind, ..output.value.clone() };
        let mut target = Self::of(&Placed { place: output.place.clone(), value }, recipe)?;
        for output in output::check(std::slice::from_ref(&target.output), Size::Auto { free: None }, false)? {
            target.output = output;
        }
        Ok(Some(target))
    }

    fn of(placed: &Placed<Output>, recipe: &Recipe) -> Result<Self> {
        let Placed { place, value } = placed;
        let path = value.path.clone().unwrap_or_default();
        let bytes = |text: &String, what: &str| {
            bundle::size(text)
                .ok()
                .and_then(|n| u64::try_from(n).ok())
                .ok_or_else(|| place.error(format!("{what}: {text:?} is no size, wanted as 64M or 2G")))
        };
        let size = match (&value.size, &value.free) {
            (Some(size), _) => Size::Fixed(bytes(size, "size")?),
            (None, free) => Size::Auto { free: free.as_ref().map(|f| bytes(f, "free")).transpose()? },
        };
        let file = |kind| output::Output::File(kind, path.clone());
        let archived = |kind| output::Output::Archive { kind, path: path.clone(), name: value.tag.clone() };
        let tar = |compression, level| Kind::Tar(Coding { compression, level });
        let mut push = None;
        let output = match value.kind {
            OutputKind::Oci => {
                let tag = value.tag.as_deref().unwrap_or_default();
                let reference: Reference = tag.parse().map_err(|e| place.error(format!("tag: {e}")))?;
                push = value.push.then(|| reference.clone());
                output::Output::Image(reference)
            }
            OutputKind::OciLayout => archived(archive::Kind::Oci),
            OutputKind::OciArchive => archived(archive::Kind::OciArchive),
            OutputKind::DockerArchive => archived(archive::Kind::DockerArchive),
            OutputKind::Dir => file(Kind::Dir),
            OutputKind::Subvolume => file(Kind::Subvolume),
            OutputKind::Ext4 => file(Kind::Ext4),
            OutputKind::Ext2 => file(Kind::Ext2),
            OutputKind::Disk => file(Kind::Disk),
            OutputKind::Btrfs => file(Kind::Btrfs),
            OutputKind::Squashfs => file(Kind::Squashfs),
            OutputKind::Erofs => file(Kind::Erofs),
            OutputKind::Tar => file(tar(Compression::None, 0)),
            OutputKind::TarGz => file(tar(Compression::Gzip, 6)),
            OutputKind::TarZst => file(tar(Compression::Zstd, 3)),
        };
        let label = value.label.clone().unwrap_or_else(|| recipe.name.clone());
        Ok(Self { output, size, label, push })
    }

    /// Whether it is an image, of which no files are looked at.
    const fn is_image(&self) -> bool {
        matches!(self.output, output::Output::Image(_) | output::Output::Archive { .. })
    }

    fn settings(&self, image: &Image, plan: &Plan) -> Settings {
        Settings {
            size: self.size,
            mounted: false,
            arch: debian::arch_of(&plan.recipe.platform).to_string(),
            label: self.label.clone(),
            seed: image.chain_id().clone(),
            time: plan.time(),
            coding: plan.coding,
        }
    }
}

/// Writes all outputs of `image`.
///
/// # Errors
/// Those of writing; what was in an output's place is as it was.
pub fn write(
    targets: &[Target],
    image: &Image,
    plan: &Plan,
    (store, lease): (&Store, &Lease),
    options: &Options,
    progress: &dyn Progress,
) -> Result<Vec<Written>> {
    let looked_at = targets.iter().any(|t| !t.is_image());
    let root = looked_at.then(|| Mounted::of(image, store, &options.overlays)).transpose()?;
    let written = write_all(targets, image, plan, (store, lease), (root.as_ref(), progress));
    root.and_then(|r| r.bundle).map_or(Ok(()), Bundle::remove)?;
    let written = written?;
    let access = &options.access;
    for reference in targets.iter().filter_map(|t| t.push.as_ref()) {
        if access.offline {
            return Err(Error::Offline { what: format!("the registry of {reference}") });
        }
        progress.phase("push", None);
        let entry = Entry::nameless(image.descriptor.clone());
        let sink = ToRegistry::connect(reference, &access.registry)?;
        let options = transfer::Options { registry: access.registry.clone(), ..transfer::Options::default() };
        transfer::copy(&FromStore::new(store, entry), &sink, &options, store, &|_| ())?;
    }
    Ok(written)
}

/// The files of an image where they lie: in its plain layer, or below an overlay over its layers.
struct Mounted {
    files: Files,
    bundle: Option<Bundle>,
}

impl Mounted {
    fn of(image: &Image, store: &Store, overlays: &Overlays) -> Result<Self> {
        if let Some(files) = Files::of_image(store, image)? {
            return Ok(Self { files, bundle: None });
        }
        let bundle = overlays.over(image.clone(), store, "files", &bundle::Settings::default())?;
        let files = Files::of_folder(&bundle.rootfs(), None)?;
        Ok(Self { files, bundle: Some(bundle) })
    }
}

fn write_all(
    targets: &[Target],
    image: &Image,
    plan: &Plan,
    (store, lease): (&Store, &Lease),
    (root, progress): (Option<&Mounted>, &dyn Progress),
) -> Result<Vec<Written>> {
    let root = root.map(|m| Root::new(store, lease, image, &m.files));
    let mut written = Vec::new();
    for target in targets {
        progress.detail(&target.output.to_string());
        let manifest = Some(image.descriptor.digest.clone());
        written.push(match (&target.output, &root) {
            (output::Output::Image(name), _) => {
                store.tag(name, &image.descriptor)?;
                Written { size: None, manifest }
            }
            (output::Output::Archive { kind, path, name }, _) => {
                output::archived(store, &image.descriptor, (*kind, path, name.as_deref()), plan.time())?;
                Written { size: None, manifest }
            }
            (file, Some(root)) => file.write(root, &target.settings(image, plan))?,
            (_, None) => unreachable!("files were looked at"),
        });
    }
    Ok(written)
}
