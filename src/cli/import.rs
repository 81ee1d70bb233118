//! `shipimg import`: images of archives and folders, and tars of files, into the store.

use super::progress::{Progress, Style};
use super::settings::variable;
use super::table::Format;
use super::{Context, Result};
use crate::archive::{Found, Kind, Options, Reader, Settings, Source};
use crate::oci::{Descriptor, Digest, Document, Platform, Reference, rfc3339};
use crate::store::Store;
use crate::transfer::{self, FromArchive, Location, Platforms, ToStore};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is wrong with the arguments of `import`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An archive from a terminal.
    #[error("an archive is not read from a terminal: give a file, or redirect the input")]
    Terminal,
    /// An image without a name.
    #[error("image {digest} of {archive} has no name")]
    NoName {
        /// The archive.
        archive: String,
        /// The image.
        digest: Digest,
    },
    /// An option that describes an image made of files, and an archive that has its own images.
    #[error("{archive} is a {kind}: its images keep their configuration")]
    Configured {
        /// The archive.
        archive: String,
        /// What it is.
        kind: Kind,
    },
}

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file, a folder, or - for standard input; also KIND:FILE, as `copy` has it
    #[arg(value_name = "FILE")]
    source: PathBuf,
    /// The name that the image gets, or of several images the one to take
    name: Option<Reference>,
    /// What FILE is: oci, oci-archive, docker-archive, dir, rootfs or aci [default: found out]
    #[arg(long)]
    kind: Option<Kind>,
    /// Of an index take this image only; of a tar of files: what it is for [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// How to show progress, on standard error
    #[arg(long, value_enum, default_value_t = Style::Auto, value_name = "STYLE")]
    progress: Style,
    #[command(flatten)]
    settings: Config,
}

/// The configuration of an image that is made of a tar of files.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "For a tar of files")]
struct Config {
    /// The program: words, or a JSON array
    #[arg(long, value_name = "WORDS", value_parser = words, allow_hyphen_values = true)]
    entrypoint: Option<Words>,
    /// Default arguments of the program, or the program: words, or a JSON array
    #[arg(long, value_name = "WORDS", value_parser = words, allow_hyphen_values = true)]
    cmd: Option<Words>,
    /// Set an environment variable
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// The working directory
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// User and group, as names or numbers
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Set a label
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    label: Vec<String>,
    /// A comment for the image's history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
}

/// A command line, parsed.
#[derive(Debug, Clone)]
pub struct Words(pub Vec<String>);

/// Reads words, or a JSON array of strings.
pub fn words(text: &str) -> std::result::Result<Words, String> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .map(Words)
            .map_err(|e| format!("wanted a JSON array of strings: {e}"));
    }
    Ok(Words(text.split_whitespace().map(str::to_string).collect()))
}

impl Config {
    fn is_given(&self) -> bool {
        let Self { entrypoint, cmd, env, workdir, user, label, message } = self;
        let text = [workdir, user, message].iter().any(|t| t.is_some());
        text || entrypoint.is_some() || cmd.is_some() || !env.is_empty() || !label.is_empty()
    }

    fn settings(&self, platform: Option<Platform>) -> Settings {
        let words = |words: &Option<Words>| words.as_ref().map(|w| w.0.clone()).unwrap_or_default();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = source_date().and_then(|s| u64::try_from(s).ok()).map_or(since, Duration::from_secs);
        Settings {
            entrypoint: words(&self.entrypoint),
            cmd: words(&self.cmd),
            env: self.env.clone(),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            labels: self.label.clone(),
            platform,
            message: self.message.clone(),
            created: Some(rfc3339(time.as_secs(), time.subsec_nanos())),
        }
    }
}

/// The time that `SOURCE_DATE_EPOCH` asks for, in seconds since 1970.
pub fn source_date() -> Option<i64> {
    std::env::var("SOURCE_DATE_EPOCH").ok()?.parse().ok()
}

/// What is copied of `root`: the image for a wanted platform; otherwise all, or where an index
/// names images that are not there, the one that serves this machine.
pub fn platforms(
    source: &dyn transfer::Source,
    has: &dyn Fn(&Descriptor) -> Result<bool>,
    wanted: Option<&Platform>,
) -> Result<Platforms> {
    if let Some(platform) = wanted {
        return Ok(Platforms::One(platform.clone()));
    }
    let root = source.root()?;
    if let Ok(Document::Index(index)) = Document::parse(&root.bytes, &root.descriptor.media_type) {
        for child in &index.manifests {
            if !has(child)? {
                return Ok(Platforms::Host);
            }
        }
    }
    Ok(Platforms::All)
}

/// What `path` is; `-` stands for standard input, which must not be a terminal.
pub(super) fn archive_source(path: &Path) -> Result<Source> {
    if path.as_os_str() != "-" {
        return Ok(Source::Path(path.to_path_buf()));
    }
    if std::io::stdin().is_terminal() { Err(Error::Terminal.into()) } else { Ok(Source::Stdin) }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let (kind, path) = self.place();
        let source = archive_source(&path)?;
        let store = context.store()?;
        let scratch = store.scratch()?;
        let options = Options {
            kind,
            limits: *store.limits(),
            settings: self.settings.settings(self.platform.clone()),
        };
        let reader = Reader::open(&source, scratch.path(), &options)?;
        if reader.kind() != Kind::Rootfs && self.settings.is_given() {
            let kind = reader.kind();
            return Err(Error::Configured { archive: source.to_string(), kind }.into());
        }
        let progress = Progress::new(if self.quiet { Style::None } else { self.progress });
        let copied = self.copy_all(&store, &source, &reader, &progress);
        progress.clear();
        print(self.format, &copied?)
    }

    /// What is read, and what it is said to be: a file of that name counts more than a kind before a `:`.
    fn place(&self) -> (Option<Kind>, PathBuf) {
        let text = self.source.to_string_lossy();
        match text.parse() {
            Ok(Location::Archive { kind, path, name: None })
                if self.kind.is_none() && !self.source.exists() =>
            {
                (Some(kind), path)
            }
            _ => (self.kind, self.source.clone()),
        }
    }

    /// Copies the wanted images into the store; gives their names.
    fn copy_all(
        &self,
        store: &Store,
        source: &Source,
        reader: &Reader,
        progress: &Progress,
    ) -> Result<Vec<(Reference, Descriptor)>> {
        let mut rows = Vec::new();
        for (found, names) in self.wanted(source, reader)? {
            let from = FromArchive::new(reader, found);
            let platforms = platforms(&from, &|child| Ok(reader.has(child)?), self.platform.as_ref())?;
            let options = transfer::Options { platforms, ..transfer::Options::default() };
            for name in names {
                let to = ToStore::new(store, name.clone());
                let copied = transfer::copy(&from, &to, &options, store, &|event| progress.show(&event))?;
                rows.push((name, copied.root));
            }
        }
        Ok(rows)
    }

    /// The images to take, each with the names that it gets.
    fn wanted<'a>(&self, source: &Source, reader: &'a Reader) -> Result<Vec<(&'a Found, Vec<Reference>)>> {
        if let Some(name) = &self.name {
            let found = match reader.images() {
                [_] => reader.image(None)?,
                _ => reader.image(Some(&name.to_string()))?,
            };
            return Ok(vec![(found, vec![name.clone()])]);
        }
        if reader.images().is_empty() {
            reader.image(None)?;
        }
        let named = reader.images().iter().map(|found| match found.references() {
            names if names.is_empty() => {
                Err(Error::NoName { archive: source.to_string(), digest: found.descriptor.digest.clone() }
                    .into())
            }
            names => Ok((found, names)),
        });
        named.collect()
    }
}

fn print(format: Format, rows: &[(Reference, Descriptor)]) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Table => {
            for (name, root) in rows {
                writeln!(out, "{name} {}", root.digest)?;
            }
        }
        Format::Json => {
            let rows =
                rows.iter().map(|(name, root)| json!({"name": name.to_string(), "digest": root.digest}));
            writeln!(out, "{:#}", Value::from(rows.collect::<Vec<_>>()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
