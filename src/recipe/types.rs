//! The shape of a recipe's file, and its JSON Schema.
//!
//! A file is its head (name, variables, outputs…) and its main stage, side by side at the top; other
//! stages are `[[stage]]`s. What stands in lists knows where it stands ([`At`]).

use super::context::DockerCopy;
use super::mounts::{Bind, InMemory, KeptFolder, Short, short};
use crate::debian::Variant;
use crate::verify::Check;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Something of a file, with the byte where it begins there.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// The byte.
    pub start: usize,
    /// What stands there.
    pub value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(d)?;
        Ok(Self { start: spanned.span().start, value: spanned.into_inner() })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A recipe: what goes into a root filesystem, what comes out, and how that is proven.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "recipe", deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used: both parts are read by themselves")]
pub struct File {
    #[schemars(flatten)]
    head: Head,
    #[schemars(flatten)]
    main: Stage,
    /// What else is built, for other stages to take from; in this order.
    #[schemars(default)]
    stage: Vec<Named>,
    /// What is to hold of what comes out; where something does not, nothing is written.
    #[schemars(default)]
    check: Vec<Conditional>,
}

/// A check, and on what it depends.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
struct Conditional {
    #[schemars(default)]
    when: When,
    #[schemars(flatten)]
    check: Check,
}

/// A stage with a name.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
struct Named {
    /// Its name.
    name: String,
    #[schemars(flatten)]
    stage: Stage,
}

/// What a recipe has once.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[allow(dead_code, reason = "version, extends and env are looked at before the rest is read")]
pub struct Head {
    /// Version of the format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// Name of the result, in messages and as label of filesystems; the file's name where there is none.
    pub name: Option<String>,
    /// A recipe that this one builds on, relative to it: its tables are taken where this one has none,
    /// its lists go before those of this one, its outputs and checks count where this one has none.
    pub extends: Option<PathBuf>,
    /// Variables, `${var:NAME}` in texts, and what they are without `--set NAME=VALUE`.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// Variables of the caller's environment that texts may name as `${env:NAME}`, and what they are where unset.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Secrets for run steps. None of them is part of a key, of a layer or of a message.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// What is written.
    #[serde(default, rename = "output")]
    pub outputs: Vec<At<Output>>,
}

/// Keys of [`Head`], by which the two parts of a file are told apart.
pub const HEAD: [&str; 7] = ["version", "name", "extends", "vars", "env", "secrets", "output"];

/// Where a secret comes from; exactly one of both.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Secret {
    /// A variable of the caller's environment.
    Env(String),
    /// A file, relative to the recipe.
    File(PathBuf),
}

/// What a root filesystem is made from. Copies, runs, groups and users are steps, taken in the order in
/// which they stand in the file; each makes a layer.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Stage {
    /// What it starts from.
    pub base: Option<At<Base>>,
    /// Debian packages on top of the base.
    // A single table was made a list before.
    #[serde(default)]
    #[schemars(with = "OneOrMany<Packages>")]
    pub packages: Vec<At<Packages>>,
    /// Archives of packages. Where one of them has the base's suite itself they are all that there
    /// are, else they are added to the suite's own.
    #[serde(default, rename = "repo")]
    pub repos: Vec<At<Repo>>,
    /// Files that are copied into it.
    #[serde(default, rename = "copy")]
    pub copies: Vec<At<Copy>>,
    /// Commands that run in it.
    #[serde(default, rename = "run")]
    pub runs: Vec<At<Run>>,
    /// Groups that are added.
    #[serde(default, rename = "group")]
    pub groups: Vec<At<Group>>,
    /// Users that are added.
    #[serde(default, rename = "user")]
    pub users: Vec<At<User>>,
    /// How it is run.
    pub image: Option<Image>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(untagged, inline)]
#[allow(dead_code, reason = "only its schema is used")]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// What a stage starts from; exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Base {
    /// Debian or Ubuntu packages.
    Debian(Debian),
    /// An image: of the store, or else of a registry.
    Image(String),
    /// A folder, relative to the recipe.
    Dir(PathBuf),
    /// Nothing: `scratch = true`.
    Scratch(bool),
    /// What another recipe makes, relative to this one.
    Recipe(PathBuf),
    /// Another stage of this recipe.
    Stage(String),
}

/// A Debian or Ubuntu base.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Debian {
    /// The suite, as `bookworm`.
    pub suite: String,
    /// Which packages belong to the base.
    #[serde(default)]
    pub variant: Variant,
    /// Packages that belong to the base of this suite whatever their priority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra: Vec<String>,
    /// The archives as they were at this time, as `20260901T000000Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The components of all of the suite's archives, as `main`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
    /// Whether updates and security suites are taken.
    #[serde(default = "yes")]
    pub updates: bool,
    /// Paths of packages that are left out, as dpkg's `path-exclude`; after a `!` such as are taken after all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path_exclude: Vec<String>,
    /// Whether apt's lists and caches stay.
    #[serde(default)]
    pub keep_apt: bool,
}

const fn yes() -> bool {
    true
}

/// On what a part of a recipe depends: it counts where all that is given holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct When {
    /// One of these architectures, in dpkg's or in OCI's words.
    #[serde(default)]
    pub arch: Vec<String>,
    /// One of these suites is the Debian base's.
    #[serde(default)]
    pub suite: Vec<String>,
    /// Variables that have these values.
    #[serde(default)]
    pub var: BTreeMap<String, String>,
}

/// Packages on top of the base.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Packages {
    /// `NAME`, `NAME=VERSION` or `NAME/SUITE`, with what they depend on.
    #[serde(default)]
    pub include: Vec<String>,
    /// Packages that are never taken, whoever depends on them.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// On what it depends.
    #[serde(default)]
    pub when: When,
}

/// Suites of one archive.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Repo {
    /// The archive's address.
    pub uri: String,
    /// Suites, as `bookworm`, `bookworm-updates`.
    pub suites: Vec<String>,
    /// Components.
    #[serde(default = "main")]
    pub components: Vec<String>,
    /// Keyring files, relative to the recipe; a Release file must be signed by a key of one of them.
    #[serde(deserialize_with = "one_or_several")]
    #[schemars(with = "OneOrMany<PathBuf>")]
    pub signed_by: Vec<PathBuf>,
    /// On what it depends.
    #[serde(default)]
    pub when: When,
}

fn main() -> Vec<String> {
    vec!["main".to_string()]
}

/// A text, or a list of texts.
fn one_or_several<'de, D: Deserializer<'de>, T: From<String>>(d: D) -> Result<Vec<T>, D::Error> {
    struct Texts;
    impl<'de> serde::de::Visitor<'de> for Texts {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("a text or a list of texts")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.to_string()])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = list.next_element()? {
                texts.push(text);
            }
            Ok(texts)
        }
    }
    Ok(d.deserialize_any(Texts)?.into_iter().map(T::from).collect())
}

/// Files that are copied into the root. Exactly one of `from`, `content`, `program`; `stage` and `image`
/// say where `from` lies, if not beside the recipe.
///
/// Files are dated as all that a recipe makes. Those from beside the recipe have mode 0755 where they are
/// executable or directories, else 0644, and are root's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Copy {
    /// Files or folders; of a path that ends in a slash what is in the folder.
    #[serde(default, deserialize_with = "one_or_several", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "OneOrMany<String>")]
    pub from: Vec<String>,
    /// The content of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Programs of this machine, by name or path, with the libraries that they need. They go where they lie here; the
    /// programs into the folder `to` where that is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub program: Vec<String>,
    /// The stage that `from` lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The image that `from` lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Where to: a folder where it ends in a slash or several files are copied, else the new name.
    #[serde(default = "root", skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// Whose they become, `USER[:GROUP]`, by name or number in the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Permission bits of the files, as `0644`; directories get x where r is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Patterns of paths below `from` that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// How it is done where it stands in a Dockerfile.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub docker: Option<DockerCopy>,
    /// On what it depends.
    #[serde(default, skip_serializing)]
    pub when: When,
}

fn root() -> String {
    "/".to_string()
}

impl Copy {
    /// Its permission bits; none where they are not given, or no octal number of twelve bits.
    #[must_use]
    pub fn bits(&self) -> Option<u32> {
        let digits = self.mode.as_ref()?.trim_start_matches("0o");
        u32::from_str_radix(digits, 8).ok().filter(|bits| *bits <= 0o7777)
    }
}

/// A command that runs in the root. Exactly one of `command`, `shell`, `script`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Run {
    /// Program and arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Lines for the root's `/bin/sh -e`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// A program beside the recipe; without a `#!` line it is run by `/bin/sh -e`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<PathBuf>,
    /// The text of a program, which is run as a file.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub program: Option<String>,
    /// Files and folders beside the recipe that the result depends on. The step sees these alone, read-only, below
    /// the folder that the variable RECIPE names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<PathBuf>,
    /// Whether it is on the host's network, else on none.
    #[serde(default)]
    pub network: bool,
    /// Variables on top of those of the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets of the recipe, as files `/run/secrets/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Where secrets lie elsewhere, as a Dockerfile may say.
    #[serde(skip_deserializing, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(skip)]
    pub targets: BTreeMap<String, PathBuf>,
    /// Directories that are kept in the store from one build to the next, and are in no layer: paths, or tables.
    #[serde(default, deserialize_with = "short", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Short<KeptFolder>>")]
    pub cache: Vec<KeptFolder>,
    /// Files of stages and images that are there while it runs, and are in no layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bind: Vec<Bind>,
    /// Filesystems in memory: paths, or tables.
    #[serde(default, deserialize_with = "short", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Short<InMemory>>")]
    pub tmpfs: Vec<InMemory>,
    /// Who runs it, `USER[:GROUP]`, instead of root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The working directory, instead of `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// On what it depends.
    #[serde(default, skip_serializing)]
    pub when: When,
}

/// A group that is added to `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number; the next free one from 1000 on, or from 100 on where `system`.
    pub gid: Option<u32>,
    /// Whether it is none of people.
    #[serde(default)]
    pub system: bool,
    /// On what it depends.
    #[serde(default, skip_serializing)]
    pub when: When,
}

/// A user that is added to `/etc/passwd`, without a password.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// The name.
    pub name: String,
    /// The number; the next free one from 1000 on, or from 100 on where `system`.
    pub uid: Option<u32>,
    /// The group, by name or number; one of the user's name and number, made where missing, without it.
    pub group: Option<String>,
    /// More groups, which must be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The home directory, which is made where it is given and missing; `/nonexistent` where `system`,
    /// else `/home/NAME`.
    pub home: Option<String>,
    /// The shell; `/usr/sbin/nologin` where `system`, else `/bin/sh`.
    pub shell: Option<String>,
    /// The full name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether it is no person.
    #[serde(default)]
    pub system: bool,
    /// On what it depends.
    #[serde(default, skip_serializing)]
    pub when: When,
}

/// How an image is run, and what it says of itself (image-spec, config.md). What is not given stays as in the base.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// The program.
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments of the program, or the program.
    pub cmd: Option<Vec<String>>,
    /// Variables of the environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Ports that it listens on, `PORT[/PROTOCOL]`.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Paths where containers keep data.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// Who runs it, `USER[:GROUP]`.
    pub user: Option<String>,
    /// The signal that ends it.
    pub stop_signal: Option<String>,
    /// Program and arguments that a Dockerfile on top of it runs lines by.
    pub shell: Option<Vec<String>>,
    /// Instructions for a Dockerfile on top of it, as a Dockerfile has them.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub onbuild: Option<Vec<String>>,
    /// The author.
    pub author: Option<String>,
    /// How to find out whether it is well.
    pub healthcheck: Option<Healthcheck>,
    /// How layers are compressed: `none`, `gzip[:1-9]` or `zstd[:1-22]`; gzip where an image comes out, else none.
    pub compression: Option<String>,
}

/// A health check. Times are as `30s`, `1m30s`, `500ms`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Healthcheck {
    /// Program and arguments; neither this nor `shell` turns off the base's.
    #[serde(default)]
    pub command: Vec<String>,
    /// Lines for the root's shell, instead of a command.
    pub shell: Option<String>,
    /// From the end of a check to the next.
    pub interval: Option<String>,
    /// After which a check has failed.
    pub timeout: Option<String>,
    /// In which failures do not count.
    pub start_period: Option<String>,
    /// From the end of a check to the next in that time.
    pub start_interval: Option<String>,
    /// How many failures in a row make it unhealthy.
    pub retries: Option<u32>,
}

/// Something that a build writes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Output {
    /// In which form.
    pub kind: OutputKind,
    /// Where to, relative to the current folder; of all kinds but `oci`.
    pub path: Option<PathBuf>,
    /// The image's name: in the store, or in the archive.
    pub tag: Option<String>,
    /// Of `oci`: whether it is pushed to the registry of its name, too.
    #[serde(default)]
    pub push: bool,
    /// The size of a filesystem that can be written to, as `2G`.
    pub size: Option<String>,
    /// Free space in such a filesystem, where no size is given, as `64M`.
    pub free: Option<String>,
    /// The filesystem's label, instead of the recipe's name.
    pub label: Option<String>,
    /// On what it depends.
    #[serde(default)]
    pub when: When,
}

/// The form of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// An image in the store.
    #[default]
    Oci,
    /// An image in an OCI layout.
    OciLayout,
    /// An image in a tar of an OCI layout.
    OciArchive,
    /// An image in a tar for docker.
    DockerArchive,
    /// A folder.
    Dir,
    /// A btrfs subvolume.
    Subvolume,
    /// A file with an ext4 filesystem.
    Ext4,
    /// A file with an ext2 filesystem.
    Ext2,
    /// A disk with an ext4 filesystem, from which a machine starts.
    Disk,
    /// A file with a btrfs filesystem.
    Btrfs,
    /// A file with a squashfs filesystem.
    Squashfs,
    /// A file with an EROFS filesystem.
    Erofs,
    /// A tar.
    Tar,
    /// A tar, compressed by gzip.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// A tar, compressed by zstd.
    #[serde(rename = "tar.zst")]
    TarZst,
}

impl OutputKind {
    /// Whether it is an image with layers.
    #[must_use]
    pub const fn is_image(self) -> bool {
        matches!(self, Self::Oci | Self::OciLayout | Self::OciArchive | Self::DockerArchive)
    }
}
