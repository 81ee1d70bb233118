//! Sources of a Dockerfile's COPY and ADD: patterns below a folder, the context or the root of an image.
//!
//! A link is followed where it is a source itself or leads to one, as by a process whose root the folder is: nothing
//! outside is ever opened. Below a source links are what they are.

use super::dockerfile::Ignore;
use super::inputs::digest_at;
use super::read::{read_text, text_of, too_large};
use super::{Error, Result};
use crate::layer::{self, Shape, WriteOptions};
use crate::oci::{Compression, Digest};
use crate::store::Limits;
use crate::sys::Call;
use crate::sys::dir::Dir;
use crate::tree::{TreePath, fnmatch};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use serde::Serialize;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most links on the way to one source.
const MAX_LINKS: usize = 40;
/// The most bytes of memory that an xz stream may want.
const XZ_MEMORY: u64 = 128 << 20;

/// What is different in a Dockerfile's COPY and ADD: `from` are patterns below a folder that no link leads out of, of
/// folders is copied what is in them, and modes stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DockerCopy {
    /// The folder; of a stage or an image its root.
    #[serde(skip)]
    pub context: PathBuf,
    /// What of that folder is not seen. The digest of what is copied tells it too.
    #[serde(skip)]
    pub ignore: Ignore,
    /// Whether tars are unpacked.
    pub unpack: bool,
}

/// A directory that is made where it is missing, as WORKDIR does. No recipe has it: there what needs one makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Directory {
    /// Where.
    pub path: String,
    /// Whose it becomes, `USER[:GROUP]`.
    pub owner: Option<String>,
}

/// A source.
pub(super) struct Found {
    /// The directory that it lies in; of a directory that itself.
    pub dir: Dir,
    /// Its name there; of a directory `.`.
    pub name: OsString,
    /// What it is.
    pub stat: Stat,
    /// The name that it was found by.
    pub called: OsString,
    /// What below it is left out.
    left_out: Arc<BTreeSet<TreePath>>,
}

impl Found {
    pub fn is_dir(&self) -> bool {
        self.name == OsStr::new(".")
    }

    /// How it is written.
    pub fn options(&self, options: &WriteOptions) -> WriteOptions {
        let shape = Shape { left_out: self.left_out.clone(), bare: self.is_dir(), ..options.shape.clone() };
        WriteOptions { shape, ..options.clone() }
    }
}

/// The text of a Dockerfile, or of a `.dockerignore`. Of one that lies in `context` no link leads out of that, as of
/// its other files: its words are told in messages, and who wrote a context may not read the files of who builds it.
///
/// # Errors
/// [`Error::Read`].
pub(super) fn text(context: &Path, path: &Path) -> Result<String> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let whole = absolute(path);
    let Ok(inside) = whole.strip_prefix(absolute(context)) else { return read_text(path) };
    let found = one(&Dir::open(context)?, inside, &Ignore::default())?;
    let nothing = || io::Error::new(io::ErrorKind::NotFound, "there is no such file in the context");
    let text = match found.map(|found| found.dir.regular(&found.name)).transpose()? {
        Some(Some((file, _))) => text_of(file),
        Some(None) => Err(too_large()),
        None => Err(nothing()),
    };
    text.map_err(|source| Error::Read { path: path.to_path_buf(), source })
}

/// All that `pattern` names below `root`, by name; one at least, but of a pattern that has wildcards.
pub(super) fn find(root: &Dir, pattern: &str, docker: &DockerCopy) -> layer::Result<Vec<Found>> {
    let mut paths = vec![PathBuf::new()];
    for part in Path::new(pattern).components() {
        let std::path::Component::Normal(part) = part else { continue };
        let wild = is_wild(part.as_bytes());
        let mut next = Vec::new();
        for path in paths {
            if !wild {
                next.push(path.join(part));
                continue;
            }
            // One that is no directory has nothing in it.
            let Ok(dir) = root.in_root(&path) else { continue };
            let mut names: Vec<_> = dir.list()?.into_iter().map(|(name, _)| name).collect();
            names.sort();
            next.extend(
                names
                    .into_iter()
                    .filter(|name| fnmatch(part.as_bytes(), name.as_bytes()))
                    .map(|name| path.join(name)),
            );
        }
        paths = next;
    }
    let mut found = Vec::new();
    for path in paths {
        if let Some(source) = one(root, &path, &docker.ignore)? {
            found.push(source);
        }
    }
    if found.is_empty() && !is_wild(pattern.as_bytes()) {
        return missing(pattern, docker);
    }
    Ok(found)
}

/// Whether a pattern of COPY may name several files.
pub(super) fn is_wild(pattern: &[u8]) -> bool {
    pattern.iter().any(|b| b"*?[\\".contains(b))
}

/// The error that nothing is there to be copied.
pub(super) fn missing<T>(pattern: &str, docker: &DockerCopy) -> layer::Result<T> {
    let seen = if docker.ignore == Ignore::default() { "" } else { ", of what .dockerignore leaves" };
    Ok(Err(Errno::NOENT).call(|| format!("find({pattern}{seen})"))?)
}

/// What lies at `path`; none where nothing does, or nothing that is seen.
fn one(root: &Dir, path: &Path, ignore: &Ignore) -> layer::Result<Option<Found>> {
    let mut at = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let Some(name) = at.file_name().map(OsStr::to_os_string) else { break };
        let Ok(dir) = root.in_root(at.parent().unwrap_or(Path::new(""))) else { return Ok(None) };
        let Some(stat) = dir.stat(&name)? else { return Ok(None) };
        let called = path.file_name().unwrap_or_default().to_os_string();
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target = dir.readlink(&name)?;
                at = at.parent().unwrap_or(Path::new("")).join(target);
            }
            FileType::Directory => break,
            _ if ignore.skips(&path.to_string_lossy()) => return Ok(None),
            _ => return Ok(Some(Found { dir, name, stat, called, left_out: Arc::default() })),
        }
    }
    let dir = root.in_root(&at)?;
    let stat = dir.stat_self()?;
    let (left_out, any) = if *ignore == Ignore::default() {
        Default::default()
    } else {
        hidden(&dir, path, &TreePath::root(), ignore)?
    };
    if !any && !path.as_os_str().is_empty() && ignore.skips(&path.to_string_lossy()) {
        return Ok(None);
    }
    let called = path.file_name().unwrap_or_default().to_os_string();
    Ok(Some(Found { dir, name: ".".into(), stat, called, left_out: Arc::new(left_out) }))
}

/// What is left out of the directory `below` of `top`, which is `path` of the context; whether anything is not.
fn hidden(
    top: &Dir,
    path: &Path,
    below: &TreePath,
    ignore: &Ignore,
) -> layer::Result<(BTreeSet<TreePath>, bool)> {
    let (mut left_out, mut any) = (BTreeSet::new(), false);
    let listed = top.below(below.as_path())?.list()?;
    for (name, kind) in listed {
        let (child, inner) = (path.join(&name), below.join(&name));
        let skipped = ignore.skips(&child.to_string_lossy());
        if kind == FileType::Directory && (!skipped || ignore.takes_back()) {
            let (more, some) = hidden(top, &child, &inner, ignore)?;
            if some || !skipped {
                left_out.extend(more);
                any = true;
                continue;
            }
        }
        if skipped {
            left_out.insert(inner);
        } else {
            any = true;
        }
    }
    Ok((left_out, any))
}

/// How files of a context are written: as they are, but root's and of one time.
pub(super) fn kept() -> WriteOptions {
    let shape = Shape { time: Some(0), owner: Some((0, 0)), ..Shape::default() };
    WriteOptions { shape, ..WriteOptions::default() }
}

/// The digest of all that `pattern` names in the context.
pub(super) fn digest(pattern: &str, docker: &DockerCopy) -> layer::Result<Digest> {
    let (mut text, options) = (String::new(), kept());
    for found in find(&Dir::open(&docker.context)?, pattern, docker)? {
        let digest = digest_at(&found.dir, &found.name, &found.options(&options))?;
        let _ = writeln!(text, "{} {digest}", found.called.as_bytes().escape_ascii());
    }
    Ok(Digest::of(text.as_bytes()))
}

/// The tar in a file, inflated but for what a layer may be; none where it is no tar.
pub(super) fn tar_in(file: &File) -> io::Result<Option<(Box<dyn Read + Send>, Compression)>> {
    let begin = |reader: &mut dyn Read| {
        let mut block = Vec::new();
        reader.take(512).read_to_end(&mut block).map(|_| block)
    };
    let again = || {
        let mut file = file.try_clone()?;
        file.rewind().map(|()| file)
    };
    let magic = begin(&mut again()?)?;
    let xz = |file| -> io::Result<liblzma::read::XzDecoder<File>> {
        let stream = liblzma::stream::Stream::new_auto_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
        Ok(liblzma::read::XzDecoder::new_stream(file, stream))
    };
    let (compression, is_xz) = match magic.as_slice() {
        [0x1f, 0x8b, ..] => (Compression::Gzip, false),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => (Compression::Zstd, false),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => (Compression::None, true),
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', ..] => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a bzip2 file: ADD unpacks gzip, xz, zstd",
            ));
        }
        _ => (Compression::None, false),
    };
    let reader = || -> io::Result<Box<dyn Read + Send>> {
        Ok(if is_xz { Box::new(xz(again()?)?) } else { Box::new(again()?) })
    };
    let first = if is_xz {
        begin(&mut *reader()?)
    } else {
        begin(&mut layer::Decoder::new(again()?, compression, Limits::none().zstd_window_log)?)
    };
    // A compressed file that is damaged or no tar is a file as any other.
    let is_tar = first.is_ok_and(|block| block.get(257..262) == Some(b"ustar"));
    if is_tar { Ok(Some((reader()?, compression))) } else { Ok(None) }
}
