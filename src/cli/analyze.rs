//! `shipimg analyze`: what an image is made of, what of it is waste, and what is different in another.
//!
//! An image of the store is read from its blobs, one of an archive from a store that is made for it in a
//! scratch folder. A file with a filesystem is mounted, read-only and where nobody else sees it.

mod text;

use super::commit::Files;
use super::import::archive_source;
use super::target::{self, Target};
use super::{Context, Error, Result};
use crate::analyze::{self, Check, Comparison, Report};
use crate::archive::{self, Reader};
use crate::bundle::Origin;
use crate::oci::{Image, Platform, Reference};
use crate::rootfs;
use crate::store::Store;
use crate::sys::sandbox::private_mounts;
use crate::transfer::{self, FromArchive, Location, Platforms, ToStore};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `analyze`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An image of the store, a bundle, an archive or a folder of images (with a name in it as in
    /// oci:DIR:NAME), a folder of files, or a file with a filesystem (ext4, btrfs, squashfs, erofs)
    #[arg(value_name = "A")]
    old: String,
    /// Another: show what is different in it
    #[arg(value_name = "B")]
    new: Option<String>,
    /// Of an index take this image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// How many rows the tables of the text have, at most
    #[arg(long, value_name = "N", default_value_t = 12)]
    rows: usize,
    /// Write a page with a map of all files into this file, - for standard output, and print nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Show the results of checks in the page: a report of verify or build, written with --report json=FILE
    #[arg(long, value_name = "FILE", requires = "html")]
    checks_report: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// Tables
    Text,
    /// An object, see docs/json.md
    Json,
}

impl Args {
    /// Whether files of a root filesystem may be read: only of archives it is known that none are.
    pub(super) fn reads_files(&self) -> bool {
        let is_archive = |word: &String| matches!(word.parse(), Ok(Location::Archive { .. }));
        !std::iter::once(&self.old).chain(&self.new).all(is_archive)
    }

    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let store = context.store()?;
        // Before work is done whose result could not be shown.
        let checks = self.checks_report.as_deref().map(Check::read).transpose()?;
        let old = self.report(&store, &self.old)?;
        let new = self.new.as_ref().map(|word| self.report(&store, word)).transpose()?;
        let found = new.as_ref().map(|new| Comparison::new(&old, new));
        if let Some(path) = &self.html {
            write_page(path, |out| match &found {
                Some(found) => analyze::compared_page(found, checks.as_deref(), out),
                None => analyze::page(&old, checks.as_deref(), out),
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = BufWriter::new(std::io::stdout().lock());
        match (self.format, &found) {
            (Format::Json, Some(found)) => {
                serde_json::to_writer_pretty(&mut out, found).map_err(std::io::Error::from)?;
            }
            (Format::Json, None) => {
                serde_json::to_writer_pretty(&mut out, &old).map_err(std::io::Error::from)?;
            }
            (Format::Text, Some(found)) => text::print_compared(found, self.rows, &mut out)?,
            (Format::Text, None) => text::print(&old, self.rows, &mut out)?,
        }
        if matches!(self.format, Format::Json) {
            writeln!(out)?;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    /// What `word` means, read.
    fn report(&self, store: &Store, word: &str) -> Result<Report> {
        if let Ok(Location::Archive { kind, path, name }) = word.parse() {
            return self.archived(store, &path, (Some(kind), name.as_deref()), word);
        }
        if let Some(platform) = &self.platform
            && let Ok(entry) = word.parse().map_err(Error::from).and_then(|name| Ok(store.find(&name)?))
        {
            return stored(store, &store.image(&entry.descriptor, platform)?, &entry.name());
        }
        let folder = |root: &Path| Ok(analyze::folder(root, None, word)?);
        match target::find(store, word)? {
            Target::Named(bundle) => folder(&Files::of(&bundle)?.root),
            Target::Folder(bundle) => folder(&bundle.join("rootfs")),
            Target::Origin(Origin::Directory(path)) => {
                if ["oci-layout", "manifest.json"].iter().any(|name| path.join(name).is_file()) {
                    return self.archived(store, &path, (None, None), word);
                }
                folder(&path)
            }
            Target::Origin(Origin::File(file)) => self.file(store, &file, word),
            Target::Origin(Origin::Image(name, image)) => {
                stored(store, &image, &name.map_or(word.to_string(), |name| name.to_string()))
            }
        }
    }

    /// A filesystem, or an archive.
    fn file(&self, store: &Store, file: &Path, word: &str) -> Result<Report> {
        let scratch = store.scratch_aside()?;
        let root = scratch.path().join("rootfs");
        std::fs::create_dir(&root)?;
        // Mounts made from here on are seen by no other process and end with this one.
        private_mounts()?;
        match rootfs::mount_file(file, &root) {
            Err(rootfs::Error::NotAnImage(_)) => self.archived(store, file, (None, None), word),
            mounted => {
                let _mount = mounted?;
                Ok(analyze::folder(&root, None, word)?)
            }
        }
    }

    /// The image of an archive of this kind that is called so, by way of a store in a scratch folder.
    fn archived(
        &self,
        store: &Store,
        path: &Path,
        (kind, name): (Option<archive::Kind>, Option<&str>),
        word: &str,
    ) -> Result<Report> {
        let scratch = store.scratch_aside()?;
        let options = archive::Options { kind, limits: *store.limits(), ..archive::Options::default() };
        let reader = Reader::open(&archive_source(path)?, scratch.path(), &options)?;
        let copy = Store::open(&scratch.path().join("store"))?.within(*store.limits());
        let platforms = self.platform.clone().map_or(Platforms::Host, Platforms::One);
        let options = transfer::Options { platforms, ..transfer::Options::default() };
        let from = FromArchive::new(&reader, reader.image(name)?);
        let to = ToStore::new(&copy, "localhost/analyze:it".parse::<Reference>()?);
        let copied = transfer::copy(&from, &to, &options, &copy, &|_| ())?;
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        Ok(analyze::image(&copy, &copy.image(&copied.root, &platform)?, word)?)
    }
}

/// An image of the store; no other command removes it meanwhile.
fn stored(store: &Store, image: &Image, name: &str) -> Result<Report> {
    let lease = store.lease()?;
    lease.hold(&image.descriptor.digest)?;
    Ok(analyze::image(store, image, name)?)
}

/// Writes the file `path` in place of what is there, when it is whole.
fn write_page(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let fail = |source| analyze::Error::Io { action: "write", path: path.to_path_buf(), source };
    if path.as_os_str() == "-" {
        let mut out = BufWriter::new(std::io::stdout().lock());
        return Ok(write(&mut out).and_then(|()| out.flush())?);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Less the umask, as a file that is just opened.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let file = tempfile::Builder::new().permissions(mode).tempfile_in(folder).map_err(fail)?;
    let mut out = BufWriter::new(file);
    write(&mut out).map_err(fail)?;
    let file = out.into_inner().map_err(|e| fail(e.into_error()))?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}
