//! `shipimg export`: images of the store as archives and folders, and their files as a tar.

use super::back::write_options;
use super::import::{platforms, source_date};
use super::progress::{Progress, Style};
use super::{Context, Result, tidily};
use crate::archive::{self, Kind, Target, Writer};
use crate::layer;
use crate::oci::{Name, Platform};
use crate::store::Store;
use crate::transfer::{self, FromStore, Platforms, ToArchive};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is wrong with the arguments of `export`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An archive on a terminal.
    #[error("an archive is not written to a terminal: give a file with -o, or redirect the output")]
    Terminal,
    /// Several images where one fits.
    #[error("a {0} is made of one image")]
    OneImage(Kind),
}

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images of the store: references, ends of them, or digests
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<Name>,
    /// What to write: oci-archive, docker-archive, oci, dir, or rootfs, the files of the image
    #[arg(long, default_value_t = Kind::OciArchive)]
    kind: Kind,
    /// The file or folder [default: standard output]
    #[arg(long, short, value_name = "FILE|DIR")]
    output: Option<PathBuf>,
    /// Of an index take this image only
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// How to show progress, on standard error
    #[arg(long, value_enum, default_value_t = Style::Auto, value_name = "STYLE")]
    progress: Style,
}

/// Where `path` is; `-` stands for standard output, which must not be a terminal.
pub(super) fn archive_target(path: &Path) -> Result<Target> {
    if path.as_os_str() != "-" {
        return Ok(Target::Path(path.to_path_buf()));
    }
    if std::io::stdout().is_terminal() { Err(Error::Terminal.into()) } else { Ok(Target::Stdout) }
}

impl Args {
    /// Whether the files of an image are read, not only its blobs.
    pub(super) fn reads_files(&self) -> bool {
        self.kind == Kind::Rootfs
    }

    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        if self.names.len() > 1 && matches!(self.kind, Kind::Dir | Kind::Rootfs) {
            return Err(Error::OneImage(self.kind).into());
        }
        let target = archive_target(self.output.as_deref().unwrap_or(Path::new("-")))?;
        // The workspace lies in a folder of the user's, where no later command may come to sweep.
        tidily(|| {
            let store = context.store()?;
            let progress = Progress::new(if self.quiet { Style::None } else { self.progress });
            let exported = match self.kind {
                Kind::Rootfs => self.rootfs(&store, &target),
                _ => self.images(&store, &target, &progress),
            };
            progress.clear();
            exported
        })
    }

    fn images(&self, store: &Store, target: &Target, progress: &Progress) -> Result<()> {
        let scratch = store.scratch_aside()?;
        let time = source_date().unwrap_or(0);
        let writer = Writer::create(self.kind, target, scratch.path(), time, *store.limits())?;
        for name in &self.names {
            let entry = store.find(name)?;
            let names = entry.reference.iter().map(ToString::to_string).collect();
            let (from, to) = (FromStore::new(store, entry), ToArchive::new(&writer, names));
            let platforms = match self.kind {
                // It has no room for an index.
                Kind::DockerArchive if self.platform.is_none() => Platforms::Host,
                _ => platforms(&from, &|child| Ok(store.has(child)?), self.platform.as_ref())?,
            };
            let options = transfer::Options { platforms, ..transfer::Options::default() };
            transfer::copy(&from, &to, &options, store, &|event| progress.show(&event))?;
        }
        Ok(writer.finish()?)
    }

    fn rootfs(&self, store: &Store, target: &Target) -> Result<()> {
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        for name in &self.names {
            let image = store.image(&store.find(name)?.descriptor, &platform)?;
            let scratch = store.scratch_aside()?;
            let tree = scratch.path().join("rootfs");
            let owners = layer::unpack_owned(store, &image, &tree)?;
            archive::write_rootfs(&tree, target, &write_options(Some(owners)))?;
        }
        Ok(())
    }
}
