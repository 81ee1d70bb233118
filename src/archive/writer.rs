//! Writing: one face for the four kinds, and the file that an archive is written into.

use super::folder::Folder;
use super::tarball::Tarball;
use super::{Error, Kind, Result, io_error, spool};
use crate::layer::{TarWriter, WriteOptions, write_tree};
use crate::oci::Descriptor;
use crate::store::{Exceeded, Limits, Verified, VerifyError};
use crate::sys::Call;
use crate::sys::workspace::Workspace;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Size of the buffer before the file, in bytes.
const BUFFER: usize = 256 << 10;

/// Where an archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file or folder.
    Path(PathBuf),
    /// Standard output; for archives only.
    Stdout,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Stdout => f.write_str("standard output"),
        }
    }
}

impl Target {
    /// The error for a failed write.
    pub(super) fn failed(&self, e: io::Error) -> Error {
        let archive = self.to_string();
        let e = match e.downcast::<VerifyError>() {
            Ok(source) => return Error::Verify { archive, source },
            Err(e) => e,
        };
        match e.downcast::<Exceeded>() {
            Ok(source) => Error::Limit { archive, source },
            Err(source) => Error::Write { archive, source },
        }
    }
}

/// A sink of documents and blobs that becomes an archive or a folder of images.
#[derive(Debug)]
pub struct Writer(Form);

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one lives at a time")]
enum Form {
    Folder(Folder),
    Tarball(Tarball),
}

impl Writer {
    /// Begins to write an archive of `kind`, which is no [`Kind::Rootfs`] or [`Kind::Aci`]. Files
    /// without names are laid down in the folder `scratch`; members of a tar have the time `time`,
    /// in seconds since 1970. Layers are inflated within `limits`.
    ///
    /// # Errors
    /// [`Error::Exists`] where a folder has something else in it, [`Error::NotOfKind`] for a folder
    /// to standard output, [`Error::Unsupported`] for a kind that is not written.
    pub fn create(kind: Kind, target: &Target, scratch: &Path, time: i64, limits: Limits) -> Result<Self> {
        let archive = || target.to_string();
        match (kind, target) {
            (Kind::Oci | Kind::Dir, Target::Path(path)) => {
                Folder::create(kind, path).map(|f| Self(Form::Folder(f)))
            }
            (Kind::Oci | Kind::Dir, Target::Stdout) => {
                Err(Error::NotOfKind { archive: archive(), kind, is: "stream" })
            }
            (Kind::OciArchive | Kind::DockerArchive, _) => {
                Tarball::create(kind, target, scratch, time, limits).map(|t| Self(Form::Tarball(t)))
            }
            (Kind::Rootfs | Kind::Aci, _) => {
                let what = "this kind of archive is not made of documents and blobs";
                Err(Error::Unsupported { archive: archive(), what })
            }
        }
    }

    /// Whether its readers know OCI documents only, no Docker ones: the layouts.
    #[must_use]
    pub fn wants_oci(&self) -> bool {
        match &self.0 {
            Form::Folder(f) => f.is_layout(),
            Form::Tarball(t) => t.is_layout(),
        }
    }

    /// Whether blobs lie one after the other as they are put: a put then waits for the one before.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        matches!(self.0, Form::Tarball(_))
    }

    /// Whether the blob is there already and need not be put.
    #[must_use]
    pub fn has(&self, descriptor: &Descriptor) -> bool {
        match &self.0 {
            Form::Folder(f) => f.has(descriptor),
            Form::Tarball(t) => t.has(descriptor),
        }
    }

    /// Puts a blob: a layer, a configuration, an artifact's file. It is verified on the way.
    ///
    /// # Errors
    /// [`Error::Verify`], [`Error::Write`]; of a tar nothing can become then.
    pub fn put_blob(&self, descriptor: &Descriptor, content: &mut dyn Read) -> Result<()> {
        let mut content = Verified::new(content, descriptor);
        match &self.0 {
            Form::Folder(f) => f.put(descriptor, &mut content),
            Form::Tarball(t) => t.put(descriptor, &mut content),
        }
    }

    /// Puts a manifest, an index or a configuration.
    ///
    /// # Errors
    /// As [`Writer::put_blob`].
    pub fn put_document(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        self.put_blob(descriptor, &mut &bytes[..])
    }

    /// Names the image or index `root`, all of which has been put. Called once for each image.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an index or an artifact in a docker-archive, and for a second
    /// image in a [`Kind::Dir`].
    pub fn add(&self, root: &Descriptor, names: &[String]) -> Result<()> {
        match &self.0 {
            Form::Folder(f) => f.add(root, names),
            Form::Tarball(t) => t.add(root, names),
        }
    }

    /// Publishes the archive; dropped without, it leaves nothing.
    ///
    /// # Errors
    /// Any of writing.
    pub fn finish(self) -> Result<()> {
        match self.0 {
            Form::Folder(f) => f.finish(),
            Form::Tarball(t) => t.finish(),
        }
    }
}

/// The file that an archive is written into: beside its target until it is whole.
#[derive(Debug)]
pub(super) struct Output {
    file: BufWriter<File>,
    /// Where the file is and where it goes; none for what is no file, as a pipe.
    publish: Option<(Workspace, PathBuf)>,
}

impl Output {
    /// Opens a file for `target`.
    pub(super) fn create(target: &Target) -> Result<Self> {
        let path = match target {
            Target::Stdout => {
                let fd = io::stdout().as_fd().try_clone_to_owned().map_err(|e| target.failed(e))?;
                return Ok(Self::new(File::from(fd), None));
            }
            Target::Path(path) => path,
        };
        match fs::metadata(path) {
            Ok(m) if m.is_dir() => return Err(Error::Exists(path.clone())),
            Ok(m) if !m.is_file() => {
                let open = fs::OpenOptions::new().write(true).open(path);
                return Ok(Self::new(io_error("open", path, open)?, None));
            }
            _ => {}
        }
        // A link stays, as /dev/stdout where that is a file; what it leads to is replaced.
        let path = &path.canonicalize().unwrap_or_else(|_| path.clone());
        let work = Workspace::beside(path)?;
        let new = work.path().join("archive");
        let file = io_error("create", &new, File::create(&new))?;
        Ok(Self::new(file, Some((work, path.clone()))))
    }

    fn new(file: File, publish: Option<(Workspace, PathBuf)>) -> Self {
        Self { file: BufWriter::with_capacity(BUFFER, file), publish }
    }

    /// Moves the file to its place.
    pub(super) fn publish(mut self, target: &Target) -> Result<()> {
        self.file.flush().map_err(|e| target.failed(e))?;
        let Some((work, path)) = &self.publish else { return Ok(()) };
        rename(&work.path().join("archive"), path)
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Moves what is whole to its place; an empty folder or a file there is replaced.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    Ok(rustix::fs::rename(from, to).call(|| format!("rename({}, {})", from.display(), to.display()))?)
}

/// Writes the files in the folder `tree` as a [`Kind::Rootfs`]; gives how many there are.
///
/// # Errors
/// Those of [`write_tree`], [`Error::Write`].
pub fn write_rootfs(tree: &Path, target: &Target, options: &WriteOptions) -> Result<u64> {
    let mut out = TarWriter::new(Output::create(target)?);
    let entries = match write_tree(tree, &mut out, options) {
        Err(crate::layer::Error::Output(e)) => return Err(target.failed(e)),
        entries => entries?,
    };
    out.finish().map_err(|e| target.failed(e))?.publish(target)?;
    Ok(entries)
}

/// Copies, naming the target in an error.
pub(super) fn copy(target: &Target, from: &mut dyn Read, to: &mut dyn Write) -> Result<u64> {
    spool::copy(from, to).map_err(|e| target.failed(e))
}
