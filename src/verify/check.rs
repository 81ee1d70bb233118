//! What a check says: the shape of one in a file.

use super::value::{Bytes, Glob, Mode, Pattern, Port, Several, Sha256, Span, Text, Versions, WantedTexts};
use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// A command line: program and arguments.
pub type Words = Vec<String>;

/// One check, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Check {
    /// What reports call it; made of its kind and value where it has none.
    pub name: Option<String>,

    /// A file, by its path.
    pub file: Option<String>,
    /// All files whose paths fit; what is said of one file is said of each.
    pub files: Option<Text<Glob>>,
    /// It is not there; of a port: nothing listens.
    pub absent: Option<bool>,
    /// file, dir, link, char, block or fifo.
    #[serde(rename = "type")]
    pub type_: Option<FileType>,
    /// Permission bits in octal.
    pub mode: Option<Text<Mode>>,
    /// USER, USER:GROUP or :GROUP, by name or number.
    pub owner: Option<String>,
    /// The least bytes.
    pub min_size: Option<Text<Bytes>>,
    /// The most bytes: of the file, or of all files of the image.
    pub max_size: Option<Text<Bytes>>,
    /// The SHA-256 of its content.
    pub sha256: Option<Text<Sha256>>,
    /// Patterns that are all found in its content.
    pub contains: Option<Several<Text<Pattern>>>,
    /// Patterns none of which is found in its content, or in the log.
    pub lacks: Option<Several<Text<Pattern>>>,
    /// Values in a JSON document by their JSON pointers (RFC 6901).
    pub json: Option<BTreeMap<String, Value>>,
    /// The same in a YAML document.
    pub yaml: Option<BTreeMap<String, Value>>,
    /// Where the symbolic link leads, as it is written.
    pub link: Option<String>,
    /// The permitted capabilities of the file, as `net_bind_service`.
    pub capability: Option<Several<String>>,
    /// How many files there are.
    pub count: Option<u64>,
    /// How many there are at least.
    pub min_count: Option<u64>,
    /// How many there are at most.
    pub max_count: Option<u64>,

    /// An installed package.
    pub package: Option<String>,
    /// Its version.
    pub version: Option<Text<Versions>>,

    /// A user of /etc/passwd.
    pub user: Option<String>,
    /// The user's number.
    pub uid: Option<u32>,
    /// The user's or the group's number.
    pub gid: Option<u32>,
    /// The user's folder.
    pub home: Option<String>,
    /// The user's shell.
    pub shell: Option<String>,
    /// Groups that the user is in.
    pub groups: Option<Several<String>>,
    /// A group of /etc/group.
    pub group: Option<String>,

    /// The image's configuration.
    pub config: Option<Config>,

    /// The most layers.
    pub max_layers: Option<u64>,
    /// The most bytes in files that a later layer hides or that repeat others, as `analyze` counts them.
    pub max_wasted: Option<Text<Bytes>>,
    /// The only files that may be set-uid or set-gid.
    pub only_setuid: Option<Several<Text<Glob>>>,
    /// No private keys and no tokens.
    pub no_secrets: Option<bool>,
    /// No files that everybody may write.
    pub no_world_writable: Option<bool>,
    /// Files that are not looked at.
    pub except: Option<Several<Text<Glob>>>,
    /// Two builds give the same image.
    pub reproducible: Option<bool>,

    /// A program that runs in the image, or in the container where `run` is given.
    pub command: Option<Words>,
    /// Environment on top of the image's.
    pub env: Option<BTreeMap<String, String>>,
    /// Its exit code [default: 0].
    pub exit: Option<u8>,
    /// Patterns that are all found in its standard output.
    pub stdout: Option<Several<Text<Pattern>>>,
    /// Patterns none of which is found there.
    pub stdout_lacks: Option<Several<Text<Pattern>>>,
    /// Its standard output, but for white space at the end.
    pub stdout_is: Option<String>,
    /// Patterns that are all found in its standard error.
    pub stderr: Option<Several<Text<Pattern>>>,
    /// Patterns none of which is found there.
    pub stderr_lacks: Option<Several<Text<Pattern>>>,
    /// Its standard error, but for white space at the end.
    pub stderr_is: Option<String>,

    /// Start the image's own program, true or with settings; the check looks at that container.
    #[serde(deserialize_with = "run")]
    #[schemars(with = "Option<RunShape>")]
    pub run: Option<Run>,
    /// A request over HTTP that the container answers.
    pub http: Option<Http>,
    /// A port on which something listens: 80 or "53/udp".
    pub port: Option<Text<Port>>,
    /// A process, by its name.
    pub process: Option<String>,
    /// The user as whom a process or a command runs, by name or number.
    #[serde(rename = "as")]
    pub as_: Option<String>,
    /// Patterns that are all found in what the container prints.
    pub log: Option<Several<Text<Pattern>>>,
    /// The only paths that are written.
    pub writes_only: Option<Several<Text<Glob>>>,
    /// How soon it ends after its stop signal.
    pub stops_within: Option<Text<Span>>,

    /// How long it is waited for [default: 10s]; of what is looked at last, how long the program has run
    /// by then [default: 1s].
    pub within: Option<Text<Span>>,
    /// How many more times it is tried [default: of a command 0, else until the time is over].
    pub retry: Option<u32>,
    /// Commands in the same container before.
    pub setup: Option<Vec<Words>>,
    /// Commands in the same container after, whatever came out.
    pub teardown: Option<Vec<Words>>,
}

/// What sort of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// What the image's configuration says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// Environment variables, some of them.
    pub env: WantedTexts,
    /// Labels, some of them.
    pub labels: WantedTexts,
    /// The entrypoint, all of it.
    pub entrypoint: Option<Words>,
    /// The default arguments, all of them.
    pub cmd: Option<Words>,
    /// The user.
    pub user: Option<String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// The signal that ends it.
    pub stop_signal: Option<String>,
    /// Ports, some of them, as `80/tcp`.
    pub ports: Vec<Text<Port>>,
    /// Ports that are not exposed.
    pub no_ports: Vec<Text<Port>>,
    /// Volumes, some of them.
    pub volumes: Vec<String>,
    /// Paths that are no volumes.
    pub no_volumes: Vec<String>,
}

/// How a container is started. Checks with equal settings share one.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Run {
    /// Program and arguments instead of the image's.
    pub args: Words,
    /// Environment on top of the image's.
    pub env: BTreeMap<String, String>,
    /// `USER[:GROUP]` instead of the image's.
    pub user: Option<String>,
    /// A read-only root filesystem.
    pub read_only: bool,
}

/// What `run` may be.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "it is a shape alone")]
enum RunShape {
    Yes(bool),
    With(Run),
}

/// `true`, or settings.
fn run<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Run>, D::Error> {
    struct Reader;
    impl<'de> Visitor<'de> for Reader {
        type Value = Option<Run>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, or settings of the container")
        }

        fn visit_bool<E: de::Error>(self, run: bool) -> Result<Option<Run>, E> {
            run.then(|| Some(Run::default())).ok_or_else(|| E::custom("`run = false` says nothing"))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<Run>, A::Error> {
            Run::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    deserializer.deserialize_any(Reader)
}

/// A request, and what the answer is to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Http {
    /// The port in the container.
    pub port: u16,
    /// Path and query.
    #[serde(default = "root")]
    pub path: String,
    /// The request's method.
    #[serde(default = "get")]
    pub method: String,
    /// The name of the host in the request.
    #[serde(default = "localhost")]
    pub host: String,
    /// The answer's status.
    #[serde(default = "ok")]
    pub status: u16,
    /// Headers of the answer, some of them.
    #[serde(default)]
    pub headers: WantedTexts,
    /// Patterns that are all found in the answer's body.
    #[serde(default)]
    pub body: Option<Several<Text<Pattern>>>,
}

fn root() -> String {
    "/".to_string()
}

fn get() -> String {
    "GET".to_string()
}

fn localhost() -> String {
    "localhost".to_string()
}

const fn ok() -> u16 {
    200
}
