//! `shipimg verify`: checks of an image, a folder, a bundle or a file with a filesystem.

use super::import::archive_source;
use super::rebuild::{self, Rebuild, Rebuilt};
use super::target::{self, Target};
use super::{Context, Result};
use crate::archive::{self, Reader};
use crate::bundle::Origin;
use crate::error::{Kind, NOT_REPRODUCIBLE};
use crate::oci::Platform;
use crate::rootfs::Access;
use crate::store::Store;
use crate::sys::signal;
use crate::transfer::{self, FromArchive, Location, ToStore};
use crate::verify::{self, Format, Options, Outcome, Report};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An image, an archive (oci:DIR, docker-archive:FILE, …), a bundle, a folder, or a file with a filesystem
    #[arg(value_name = "TARGET")]
    subject: String,
    /// A file of checks: TOML, YAML or JSON
    #[arg(long, value_name = "FILE", required_unless_present = "rebuild")]
    checks: Vec<PathBuf>,
    #[command(flatten)]
    rebuild: Rebuild,
    #[command(flatten)]
    reports: Reports,
    /// Put the report into the store as a referrer of the image
    #[arg(long)]
    attach: bool,
    /// Check again what was checked before
    #[arg(long)]
    again: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = super::table::Format::Table)]
    format: super::table::Format,
}

/// In which forms a report is written.
#[derive(Debug, clap::Args)]
pub(super) struct Reports {
    /// Write a report: text, json, junit, tap, sarif, markdown or github; - for standard output
    #[arg(long, value_name = "FORM=FILE")]
    report: Vec<Wanted>,
}

/// A report that is asked for.
#[derive(Debug, Clone)]
struct Wanted {
    format: Format,
    /// None for standard output.
    file: Option<PathBuf>,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (form, file) = text.split_once('=').ok_or("wanted FORM=FILE")?;
        let file = if file == "-" { None } else { Some(PathBuf::from(file)) };
        Ok(Self { format: form.parse()?, file })
    }
}

/// The exit code of checks that do not all hold: of its own where it is the second build alone that came out
/// otherwise.
pub(super) fn failed(report: &Report) -> Option<ExitCode> {
    let mut failed = report.verdicts.iter().filter(|v| v.outcome != Outcome::Passed).peekable();
    failed.peek()?;
    let other_bytes = failed.all(|v| v.kind == "reproducible" && v.outcome == Outcome::Failed);
    Some(ExitCode::from(if other_bytes { NOT_REPRODUCIBLE } else { Kind::Checks.exit_code() }))
}

/// What is checked.
#[derive(Debug)]
enum Subject {
    /// What a bundle can be made from.
    Origin(Origin),
    /// The bundle in this folder.
    Bundle(PathBuf),
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        let mut checks = Vec::new();
        for file in &self.checks {
            checks.extend(verify::read(file)?);
        }
        // An image from an archive has no name; it is held as long as this is.
        let unnamed = ToStore::nameless(&store);
        let target = self.target(&store, &unnamed)?;
        let lease = store.lease()?;
        let rebuilt = self.rebuild.build(context, (&store, &lease), self.first(&target))?;
        if rebuilt.is_some() {
            rebuild::ask(&mut checks);
        }
        let second = rebuilt.as_ref().map(Rebuilt::second);
        let options = Options { again: self.again, second };
        // Containers are taken away first.
        signal::put_off();
        let checked = match &target {
            Subject::Origin(origin) => verify::verify(&store, origin, &checks, &options),
            Subject::Bundle(folder) => verify::verify_bundle(&store, folder, &checks, &options),
        };
        if checked.is_err() {
            signal::give_in();
        }
        let mut report = checked?;
        report.target.clone_from(&self.subject);
        if self.attach {
            let Subject::Origin(Origin::Image(Some(name), image)) = &target else {
                return Err(verify::Error::Nameless(self.subject.clone()).into());
            };
            let attached = verify::attach(&store, name, image, &report)?;
            say!("attached {}", attached.digest);
        }
        let printed = match self.format {
            super::table::Format::Table => Format::Text,
            super::table::Format::Json => Format::Json,
        };
        if !self.reports.on_output() {
            std::io::stdout().write_all(printed.write(&report).as_bytes())?;
        }
        self.reports.write(&report)?;
        Ok(failed(&report).unwrap_or(ExitCode::SUCCESS))
    }

    /// The file or folder that a second build is to be like; none where that is an image.
    fn first(&self, target: &Subject) -> Option<PathBuf> {
        let path = match (self.subject.parse(), target) {
            // Of these nothing but the file is the same each time: they have no manifest.
            (Ok(Location::Archive { kind: archive::Kind::DockerArchive, path, .. }), _) => path,
            (_, Subject::Origin(Origin::Image(..))) => return None,
            (_, Subject::Origin(Origin::Directory(path) | Origin::File(path)) | Subject::Bundle(path)) => {
                path.clone()
            }
        };
        Some(path.canonicalize().unwrap_or(path))
    }

    /// What is checked.
    fn target(&self, store: &Store, unnamed: &ToStore) -> Result<Subject> {
        if let Ok(Location::Archive { kind, path, name }) = self.subject.parse() {
            let scratch = store.scratch()?;
            let options =
                archive::Options { kind: Some(kind), limits: *store.limits(), ..archive::Options::default() };
            let reader = Reader::open(&archive_source(&path)?, scratch.path(), &options)?;
            let from = FromArchive::new(&reader, reader.image(name.as_deref())?);
            let copied = transfer::copy(&from, unnamed, &transfer::Options::default(), store, &|_| ())?;
            let image = store.image(&copied.root, &Platform::host())?;
            return Ok(Subject::Origin(Origin::Image(None, Box::new(image))));
        }
        Ok(match target::find(store, self.subject.strip_prefix("store:").unwrap_or(&self.subject))? {
            Target::Origin(origin) => Subject::Origin(origin),
            Target::Folder(folder) => Subject::Bundle(folder),
            Target::Named(bundle) => {
                bundle.mount(Access::Read)?;
                Subject::Bundle(bundle.path().to_path_buf())
            }
        })
    }
}

impl Reports {
    /// Whether one is for standard output.
    pub(super) fn on_output(&self) -> bool {
        self.report.iter().any(|wanted| wanted.file.is_none())
    }

    /// Writes the report in the forms that were asked for, and for GitHub where this is a job there.
    pub(super) fn write(&self, report: &Report) -> Result<()> {
        let mut out = std::io::stdout().lock();
        for wanted in &self.report {
            let text = wanted.format.write(report);
            match &wanted.file {
                None => out.write_all(text.as_bytes())?,
                Some(path) => std::fs::write(path, text)
                    .map_err(|source| verify::Error::Write { path: path.clone(), source })?,
            }
        }
        out.flush()?;
        if std::env::var_os("GITHUB_ACTIONS").is_some_and(|v| v == "true") {
            // On standard error, where they are read too: standard output may be a document.
            let _ = std::io::stderr().write_all(Format::Github.write(report).as_bytes());
        }
        Ok(())
    }
}
