//! `shipimg import`: images of archives and folders, and tars of files, into the store.

use super::choose::{Documents, choose, walk};
use super::images::Format;
use super::settings::variable;
use super::{Context, Result};
use crate::archive::{self, Found, Kind, Limits, Options, Reader, Settings, Source};
use crate::error;
use crate::oci::{Descriptor, Digest, Platform, Reference, rfc3339};
use crate::store::{Ingest, Store};
use serde_json::{Value, json};
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Size of the buffer for copying, in bytes.
const CHUNK: usize = 256 << 10;

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
    /// The image is for another platform.
    #[error("image {digest} is for {is}, not for {wanted}")]
    Platform {
        /// The image.
        digest: Digest,
        /// Its platform.
        is: Box<Platform>,
        /// The wanted one.
        wanted: Box<Platform>,
    },
}

impl Error {
    /// The kind of failure.
    #[must_use]
    pub const fn kind(&self) -> error::Kind {
        match self {
            Self::Terminal | Self::NoName { .. } | Self::Configured { .. } => error::Kind::Input,
            Self::Platform { .. } => error::Kind::Missing,
        }
    }
}

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file, a folder, or - for standard input
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
    /// Give up where a compressed archive inflates to more
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().inflated)]
    max_inflated: u64,
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
struct Words(Vec<String>);

fn words(text: &str) -> std::result::Result<Words, String> {
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

impl Documents for Reader {
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        Ok(Self::document(self, descriptor)?)
    }

    fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(Self::has(self, descriptor)?)
    }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let source = match self.source.as_os_str() {
            dash if dash == "-" && std::io::stdin().is_terminal() => return Err(Error::Terminal.into()),
            dash if dash == "-" => Source::Stdin,
            path => Source::Path(path.into()),
        };
        let store = context.store()?;
        let scratch = store.scratch()?;
        let options = Options {
            kind: self.kind,
            limits: Limits { inflated: self.max_inflated, ..Limits::default() },
            settings: self.settings.settings(self.platform.clone()),
        };
        let reader = Reader::open(&source, scratch.path(), &options)?;
        if reader.kind() != Kind::Rootfs && self.settings.is_given() {
            let kind = reader.kind();
            return Err(Error::Configured { archive: source.to_string(), kind }.into());
        }
        let mut rows: Vec<(Reference, Descriptor)> = Vec::new();
        for (found, names) in self.wanted(&source, &reader)? {
            let root = choose(&reader, &found.descriptor, self.platform.as_ref())?;
            copy(&reader, &store, &root)?;
            self.check_platform(&store, &root)?;
            rows.extend(names.into_iter().map(|name| (name, root.clone())));
        }
        // All or nothing.
        for (name, root) in &rows {
            store.tag(name, root)?;
        }
        print(self.format, &rows)
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

    /// An image without an index says only itself for which platform it is.
    fn check_platform(&self, store: &Store, root: &Descriptor) -> Result<()> {
        let Some(wanted) = &self.platform else { return Ok(()) };
        let is = store.image(root, wanted)?.platform();
        if wanted.fits(&is).is_some() {
            return Ok(());
        }
        let (is, wanted) = (Box::new(is), Box::new(wanted.clone()));
        Err(Error::Platform { digest: root.digest.clone(), is, wanted }.into())
    }
}

/// Copies all that `root` consists of into the store.
fn copy(reader: &Reader, store: &Store, root: &Descriptor) -> Result<()> {
    walk(reader, root, &mut |descriptor, bytes| {
        let Ingest::Missing(mut writer) = store.ingest(descriptor)? else { return Ok(()) };
        writer.restart()?;
        if let Some(bytes) = bytes {
            writer.append(bytes)?;
            return Ok(writer.commit()?);
        }
        let mut blob = reader.blob(descriptor, 0)?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = blob.read(&mut buffer);
            let failed = |source| archive::Error::Read { archive: descriptor.digest.to_string(), source };
            match read.map_err(failed)? {
                0 => return Ok(writer.commit()?),
                n => writer.append(&buffer[..n])?,
            }
        }
    })
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
