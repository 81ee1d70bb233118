//! Checks of images, folders and running containers, and what came out of them.
//!
//! ```toml
//! [[check]]
//! name = "serves"
//! run = true                    # the image's own program runs meanwhile
//! http = { port = 80, body = "hello" }
//! [[check]]
//! file = "/etc/passwd"
//! mode = "0644"
//! contains = "^web:"
//! ```
//!
//! A [`Check`] is one value of serde, the same in TOML, YAML and JSON, and embedded in recipes; it is of
//! one kind ([`kind::KINDS`] is the table). [`verify`] takes what a bundle can be made from and gives a
//! [`Report`], which [`Format`] writes. Three sorts of work:
//!
//! - files and documents are read, nothing is started (`files`, `accounts`, `packages`, `config`,
//!   `hygiene`, `layers`), several checks at once;
//! - commands run in throw-away containers of their own (`live`);
//! - the image's own program is started once for all checks with equal settings, and looked at from
//!   outside: nothing is put into the image.
//!
//! Containers have no network but their own loopback and no new privileges, and go with the value that
//! stands for them. They are started by executing this program again: a container cannot be started in
//! a process with threads.
//!
//! Verdicts about an image are kept in the store by the digests of its manifest and of the check
//! (`kept`) and not found out again. Those about folders and files are not kept: these change.

mod accounts;
mod attach;
mod capability;
pub mod check;
mod config;
mod container;
mod files;
mod http;
mod hygiene;
mod import;
mod kept;
pub mod kind;
mod layers;
mod live;
mod outside;
mod packages;
mod report;
mod second;
mod subject;
pub mod value;
mod writers;
mod written;

pub use attach::{REPORT_TYPE, attach};
pub use check::Check;
pub use kind::{Kind, Phase};
pub use report::{Finding, Outcome, Report, Source, Verdict};
pub use second::Second;
pub use writers::Format;
pub use written::{Place, Placed, parse, read};

use crate::bundle::{Origin, Settings};
use crate::store::Store;
use crate::sys::signal;
use crate::{analyze, bundle, error, layer, oci, rootfs, run, store, sys};
use kept::Kept;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use subject::Subject;

/// What goes wrong with checks.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A report cannot be written.
    #[error("write {}: {source}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A file of checks is malformed.
    #[error("{}:{line}: {reason}", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A check without a place is malformed.
    #[error("check {name}: {reason}")]
    Check {
        /// What it is called.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something is asked of an image that a folder or a file has not.
    #[error("only an image has {0}")]
    NoImage(&'static str),
    /// A report refers to an image by its name.
    #[error("{0} is no image of the store with a name, to which a report could be attached")]
    Nameless(String),
    /// A database of packages that is not read.
    #[error(transparent)]
    Packages(#[from] crate::packages::Unread),
    /// The layers of the image.
    #[error("{0}")]
    Layers(String),
    /// Files that were not prepared.
    #[error("the files were not prepared")]
    Unprepared,
    /// A container could not be started.
    #[error("the container did not start: {0}")]
    Start(String),
    /// A command before or after the check failed.
    #[error("{what} {command}: {how}")]
    Around {
        /// Setup or teardown.
        what: &'static str,
        /// The command.
        command: String,
        /// How it ended.
        how: String,
    },
    /// What is written is not told apart from what was there.
    #[error("what a container writes is known of overlays alone: this driver is {0}")]
    NoUpper(String),
    /// Nobody built a second time.
    #[error("two builds are compared by `build`, and by `verify --rebuild`")]
    OneBuild,
    /// A thread ended early.
    #[error("a thread panicked")]
    Panic,
    /// The process was asked to end.
    #[error("interrupted")]
    Interrupted,
    /// A bundle.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// A container.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// A root filesystem.
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    /// A layer, or files.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// What layers are made of.
    #[error(transparent)]
    Analyze(#[from] analyze::Error),
    /// A document.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A syscall.
    #[error(transparent)]
    Sys(#[from] sys::Error),
}

/// Result of checking.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> error::Kind {
        use error::Kind;
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => Kind::of_io(source),
            Self::Syntax { .. }
            | Self::Check { .. }
            | Self::NoImage(_)
            | Self::Nameless(_)
            | Self::OneBuild => Kind::Input,
            Self::Packages(e) => e.kind(),
            Self::NoUpper(_) => Kind::Unsupported,
            Self::Layers(_) => Kind::Integrity,
            Self::Unprepared | Self::Panic | Self::Interrupted | Self::Start(_) | Self::Around { .. } => {
                Kind::Internal
            }
            Self::Bundle(e) => e.kind(),
            Self::Run(e) => e.kind(),
            Self::Rootfs(e) => e.kind(),
            Self::Layer(e) => e.kind(),
            Self::Analyze(e) => e.kind(),
            Self::Oci(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Sys(e) => e.kind(),
        }
    }

    /// What is wrong, without where.
    fn reason(&self) -> String {
        match self {
            Self::Syntax { line, reason, .. } => format!("line {line}: {reason}"),
            other => other.to_string(),
        }
    }
}

/// How to check.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// Find out anew what is kept.
    pub again: bool,
    /// The same, built a second time.
    pub second: Option<Second<'a>>,
}

/// Checks `target`. To be called while this process has one thread. The checks need not be valid yet.
///
/// # Errors
/// [`Error::Check`] or [`Error::Syntax`] for one whose keys do not go together, [`Error::Interrupted`], and
/// what keeps the target from being read. What keeps a single check from its end is its verdict.
pub fn verify(store: &Store, target: &Origin, checks: &[Placed], options: &Options) -> Result<Report> {
    verify_with(store, target, &Settings::default(), checks, options)
}

/// As [`verify`], of the bundle in `folder`, whose `config.json` says what runs.
///
/// # Errors
/// Those of [`verify`]; a `config.json` that is none.
pub fn verify_bundle(store: &Store, folder: &Path, checks: &[Placed], options: &Options) -> Result<Report> {
    let target = Origin::Directory(folder.join("rootfs"));
    verify_with(store, &target, &container::process_of(folder)?, checks, options)
}

/// `base` says what runs where neither the image nor a check does.
fn verify_with(
    store: &Store,
    target: &Origin,
    base: &Settings,
    checks: &[Placed],
    options: &Options,
) -> Result<Report> {
    let kinds = checks.iter().map(Placed::kind).collect::<Result<Vec<_>>>()?;
    let mut verdicts: Vec<Option<Verdict>> = vec![None; checks.len()];
    let manifest = match target {
        Origin::Image(_, image) => Some(&image.descriptor.digest),
        Origin::Directory(_) | Origin::File(_) => None,
    };
    let kept = manifest.map(|manifest| Kept::of(store, manifest)).transpose()?.unwrap_or_default();
    if !options.again {
        verdicts = checks.iter().zip(&kinds).map(|(check, kind)| kept.get(check, kind)).collect();
    }
    let needs_files = |(kind, verdict): (&&Kind, &Option<Verdict>)| {
        verdict.is_none() && (kind.phase == Phase::Files || kind.key == "writes-only")
    };
    let with_files = kinds.iter().zip(&verdicts).any(needs_files);
    let subject = Subject::prepare(store, target, with_files)?;
    // What mounts comes before any thread.
    let jobs = live::jobs(store, target, base, checks, &kinds, &verdicts);
    static_checks(&subject, checks, &kinds, options, &mut verdicts)?;
    live::run(jobs, &live::Work { checks, kinds: &kinds, subject: &subject }, &mut verdicts)?;
    for finding in verdicts.iter_mut().flatten().flat_map(|v| &mut v.findings) {
        if let (Some(at), Some(layers)) = (finding.at.take(), &subject.layers) {
            finding.layer = layers.source(&at);
        }
    }
    subject.close()?;
    let verdicts: Vec<Verdict> = verdicts.into_iter().flatten().collect();
    if let Some(manifest) = manifest {
        let found = checks.iter().zip(kinds).zip(&verdicts).map(|((check, kind), v)| (check, kind, v));
        kept.keep(store, manifest, found);
    }
    Ok(Report { target: target.to_string(), digest: manifest.cloned(), verdicts })
}

impl Placed {
    /// The kind of the check.
    ///
    /// # Errors
    /// [`Error::Syntax`], [`Error::Check`].
    pub fn kind(&self) -> Result<&'static Kind> {
        self.check.kind().map_err(|reason| match &self.place {
            Some(Place { file, line }) => written::syntax(file, *line, reason),
            None => Error::Check { name: self.check.title(), reason },
        })
    }

    /// The verdict on it, which took until now.
    fn verdict(&self, kind: &Kind, begun: Instant, findings: Result<Vec<Finding>>) -> Result<Verdict> {
        let (outcome, findings) = match findings {
            Ok(findings) if findings.is_empty() => (Outcome::Passed, findings),
            Ok(findings) => (Outcome::Failed, findings),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(e) => (Outcome::Error, vec![Finding::new(self.check.title(), e.to_string())]),
        };
        Ok(Verdict {
            name: self.check.title(),
            kind: kind.key.to_string(),
            outcome,
            findings,
            place: self.place.clone(),
            seconds: begun.elapsed().as_secs_f64(),
            kept: None,
        })
    }
}

/// The checks for which nothing is started, several at once.
fn static_checks(
    subject: &Subject,
    checks: &[Placed],
    kinds: &[&'static Kind],
    options: &Options,
    verdicts: &mut [Option<Verdict>],
) -> Result<()> {
    let is_static = |i: &usize| {
        verdicts[*i].is_none() && matches!(kinds[*i].phase, Phase::Image | Phase::Files | Phase::Caller)
    };
    let todo: Vec<usize> = (0..checks.len()).filter(is_static).collect();
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Verdict)>> {
        let mut done = Vec::new();
        while let Some(&i) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
            if signal::pending().is_some() {
                return Err(Error::Interrupted);
            }
            let begun = Instant::now();
            let findings = static_check(subject, &checks[i].check, kinds[i], options);
            done.push((i, checks[i].verdict(kinds[i], begun, findings)?));
        }
        Ok(done)
    };
    let workers = std::thread::available_parallelism().map_or(2, usize::from).min(todo.len());
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().map_err(|_| Error::Panic)?).collect::<Result<Vec<_>>>()
    })?;
    for (i, verdict) in all.into_iter().flatten() {
        verdicts[i] = Some(verdict);
    }
    Ok(())
}

fn static_check(subject: &Subject, check: &Check, kind: &Kind, options: &Options) -> Result<Vec<Finding>> {
    let (layers, files) = (subject.layers.as_ref(), || subject.files());
    match kind.key {
        "file" => files::file(check, files()?),
        "files" => files::all_files(check, files()?),
        "package" => packages::package(check, files()?),
        "user" => accounts::user(check, files()?),
        "group" => accounts::group(check, files()?),
        "only-setuid" => Ok(hygiene::only_setuid(check, files()?)),
        "no-secrets" => hygiene::no_secrets(check, files()?),
        "no-world-writable" => Ok(hygiene::no_world_writable(check, files()?)),
        "max-size" => Ok(files::max_size(check, files()?)),
        "config" => config::config(check, subject.image),
        "max-layers" => layers::max_layers(check, layers),
        "max-wasted" => layers::max_wasted(check, layers),
        _ => second::reproducible(layers, options.second),
    }
}
