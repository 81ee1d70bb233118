//! What a run step has mounted in its root, and no layer has: caches, files of elsewhere, memory.
//!
//! A cache is a directory of the store; what is in it is in no key, where it lies is: what is written there
//! is in no layer. Files of a stage or an image lie below an overlay of their own, those of a Dockerfile's
//! context are copied as COPY does it. Names are resolved in the root that they are of, so that no link leads a mount
//! to the host's files; what a step writes there is gone with it.

use super::build::Builder;
use super::context::{self, DockerCopy};
use super::plan::Step;
use super::types::{Copy, Run};
use super::{Result, files, lock};
use crate::bundle::{Bundle, Settings};
use crate::oci::Image;
use crate::store::{Cache, Limits, Owned, Scratch, Sharing};
use crate::sys::Call;
use crate::sys::inroot::Root;
use oci_spec::runtime::{Mount, MountBuilder};
use rustix::fs::OFlags;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The permission bits of a kept directory, where none are given.
const USUAL: u32 = 0o755;

/// A directory that is kept in the store from one build to the next, in no layer.
// What is not serialized is in no key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KeptFolder {
    /// Where it is mounted.
    pub target: String,
    /// Steps that name the same have the same directory; `target` where it is not given.
    #[serde(skip_serializing)]
    pub id: Option<String>,
    /// Whether others may use it at the same time.
    #[serde(default, skip_serializing)]
    pub sharing: Sharing,
    /// The user that it is made for.
    #[serde(default, skip_serializing)]
    pub uid: u32,
    /// The group that it is made for.
    #[serde(default, skip_serializing)]
    pub gid: u32,
    /// The permission bits that it is made with, `0755` where they are not given.
    #[serde(skip_serializing)]
    pub mode: Option<String>,
}

/// Files of a stage or an image, mounted while the step runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bind {
    /// The stage that they lie in.
    #[serde(skip_serializing)]
    pub stage: Option<String>,
    /// The image that they lie in.
    #[serde(skip_serializing)]
    pub image: Option<String>,
    /// A file or a folder there.
    #[serde(default = "root")]
    pub from: String,
    /// Where it is mounted.
    pub target: String,
    /// Whether the step may write to it; what it writes is gone after the step.
    #[serde(default)]
    pub write: bool,
    /// The context that they lie in, of a Dockerfile.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub docker: Option<DockerCopy>,
}

fn root() -> String {
    "/".to_string()
}

/// A filesystem in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InMemory {
    /// Where it is mounted.
    pub target: String,
    /// Its size at most, as `64m`; half of the memory where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
}

/// One of these, or its target alone.
#[derive(Debug)]
pub(super) struct Short<T>(T);

impl<T: From<String>> From<String> for Short<T> {
    fn from(target: String) -> Self {
        Self(target.into())
    }
}

impl KeptFolder {
    /// Its permission bits; none where they are no octal number of twelve bits.
    fn bits(&self) -> Option<u32> {
        let Some(mode) = &self.mode else { return Some(USUAL) };
        u32::from_str_radix(mode, 8).ok().filter(|bits| *bits <= 0o7777)
    }

    /// By what it is known.
    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.target)
    }
}

impl From<String> for KeptFolder {
    fn from(target: String) -> Self {
        Self { target, ..Self::default() }
    }
}

impl From<String> for InMemory {
    fn from(target: String) -> Self {
        Self { target, size: None }
    }
}

impl<'de, T: Deserialize<'de> + From<String>> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct TextOrTable<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + From<String>> Visitor<'de> for TextOrTable<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a path or a table with a target")
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<T, E> {
                Ok(text.to_string().into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        d.deserialize_any(TextOrTable(PhantomData)).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for Short<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("short {}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let whole = generator.subschema_for::<T>();
        schemars::json_schema!({"anyOf": [{"type": "string"}, whole]})
    }
}

/// A list of them.
pub(super) fn short<'de, D, T>(d: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + From<String>,
{
    Ok(Vec::<Short<T>>::deserialize(d)?.into_iter().map(|short| short.0).collect())
}

/// What is wrong with the mounts of a step.
pub(super) fn wrong(run: &Run) -> Option<&'static str> {
    let targets = run.cache.iter().map(|c| &c.target).chain(run.tmpfs.iter().map(|t| &t.target));
    let clean = |path: &str| path.starts_with('/') && !path.split('/').any(|part| part == "..");
    let size = |text: &str| {
        let digits = text.trim_end_matches(['k', 'm', 'g', 'K', 'M', 'G', '%']);
        text.len() - digits.len() < 2 && digits.parse::<u64>().is_ok()
    };
    let one = |bind: &Bind| {
        [bind.stage.is_some(), bind.image.is_some(), bind.docker.is_some()].iter().filter(|b| **b).count()
            == 1
    };
    if targets.chain(run.bind.iter().map(|b| &b.target)).any(|path| !clean(path) || path == "/") {
        Some("a mount has an absolute path in the root as its target, without ..")
    } else if run.cache.iter().any(|c| c.bits().is_none()) {
        Some("mode is octal, as 0755")
    } else if !run.tmpfs.iter().filter_map(|t| t.size.as_deref()).all(size) {
        Some("size is a number of bytes, as 64m")
    } else if !run.bind.iter().all(one) {
        Some("a bind has one of stage, image: files beside the recipe are inputs")
    } else {
        None
    }
}

/// The mounts of a step, while it runs.
#[derive(Default)]
pub(super) struct Mounted {
    /// What is mounted into the container.
    pub mounts: Vec<Mount>,
    caches: BTreeMap<String, Cache>,
    roots: Vec<Bundle>,
    copies: Vec<Scratch>,
}

impl Mounted {
    /// Takes away what was made for them.
    pub fn close(self) -> Result<()> {
        self.roots.into_iter().try_for_each(|root| Ok(root.remove()?))
    }
}

impl Builder<'_> {
    /// Makes what a step has mounted; `stages` are the images of those that it takes from, in order.
    pub(super) fn mounted(&self, run: &Run, step: &Step, stages: &[Image]) -> Result<Mounted> {
        let mut mounted = Mounted::default();
        // In one order, whatever theirs is: two steps that wait for each other would wait for ever.
        let caches: BTreeMap<&str, &KeptFolder> = run.cache.iter().map(|c| (c.id(), c)).collect();
        for (id, cache) in caches {
            let owned = Owned { uid: cache.uid, gid: cache.gid, mode: cache.bits().unwrap_or(USUAL) };
            mounted.caches.insert(id.to_string(), self.store.cache(id, cache.sharing, owned)?);
        }
        for cache in &run.cache {
            let kept = &mounted.caches[cache.id()];
            mounted.mounts.extend(bind(kept.path(), &cache.target, true));
        }
        let mut stages = stages.iter();
        for from in &run.bind {
            let source = if let Some(docker) = &from.docker {
                let copy = self.store.scratch()?;
                let source = copied(&from.from, docker, step, (copy.path(), self.store.limits()))?;
                mounted.copies.push(copy);
                source
            } else {
                let image = match &from.image {
                    Some(name) => {
                        let (access, place) = (&self.options.access, (self.store, self.lease));
                        Some(lock::locked(name, self.lock, &self.plan.recipe.platform, access, place)?)
                    }
                    None => stages.next().cloned(),
                };
                let Some(image) = image else { continue };
                let root = self.options.overlays.over(image, self.store, "bind", &Settings::default())?;
                let source = inside(&root.rootfs(), &from.from);
                mounted.roots.push(root);
                source?
            };
            mounted.mounts.extend(bind(&source, &from.target, from.write));
        }
        for memory in &run.tmpfs {
            let mut options = ["nosuid", "nodev"].map(String::from).to_vec();
            options.extend(memory.size.iter().map(|size| format!("size={size}")));
            let mount = MountBuilder::default().source("tmpfs").destination(&memory.target).typ("tmpfs");
            mounted.mounts.extend(mount.options(options).build());
        }
        // One that lies in another comes after it.
        mounted.mounts.sort_by(|a, b| a.destination().cmp(b.destination()));
        Ok(mounted)
    }
}

fn bind(source: &Path, target: &str, write: bool) -> Option<Mount> {
    let options = ["bind", if write { "rw" } else { "ro" }, "nosuid", "nodev"].map(String::from).to_vec();
    MountBuilder::default().source(source).destination(target).typ("bind").options(options).build().ok()
}

/// Copies what a context has under this name into the new folder `to`, as COPY does; gives where it is.
fn copied(from: &str, docker: &DockerCopy, step: &Step, (to, limits): (&Path, &Limits)) -> Result<PathBuf> {
    let copy = Copy {
        from: vec![from.to_string()],
        to: "/files".to_string(),
        docker: Some(docker.clone()),
        ..Copy::default()
    };
    files::copy(&copy, step, None, to, (&context::kept(), limits))?;
    Ok(to.join("files"))
}

/// Where `path` leads to in the root of an image: links are followed there, and never out of it.
fn inside(root: &Path, path: &str) -> Result<PathBuf> {
    let folder = File::open(root).call(|| format!("open({})", root.display()))?;
    let found = Root::new(folder.into()).open(Path::new(path), OFlags::PATH)?;
    let name = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(std::fs::read_link(&name).call(|| format!("readlink({name})"))?)
}
