//! New layers: from a difference, from the upper directory of an overlay, from files that are put
//! somewhere. All are written as in `write`: sorted, in one form, the same bytes for the same files.

use super::node::{self, is_whiteout};
use super::write::{Form, Tree};
use super::{Coding, Decoder, Encoder, Error, Result, TarWriter, WriteOptions, rewrite};
use crate::oci::{Compression, Descriptor, Digest, Layer, media_type};
use crate::store::{Exceeded, Hashed, Lease, Store};
use crate::sys::Call;
use crate::sys::dir::Dir;
use crate::tree::diff::Delta;
use crate::tree::{Meta, TreePath};
use rustix::fs::FileType;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Writes what `delta` says of the tree in the directory `root`.
///
/// # Errors
/// [`Error::Unwritable`] for a file that no layer can hold, the first failed call,
/// [`Error::Output`] where `out` fails.
pub fn write_delta<W: Write>(
    root: &Path,
    delta: &Delta,
    out: &mut TarWriter<W>,
    options: &WriteOptions,
) -> Result<u64> {
    let top = Dir::open(root)?;
    let mut tree = Tree::new(out, options);
    let entries = delta.entries.iter().map(|p| (p, true));
    let mut paths: Vec<_> = entries.chain(delta.whiteouts.iter().map(|p| (p, false))).collect();
    paths.sort();
    let mut open: Option<(TreePath, Dir)> = None;
    for (path, there) in paths {
        if !there {
            tree.hide(path)?;
            continue;
        }
        let Some((parent, name)) = path.split() else {
            tree.node(&top, OsStr::new("."), path, &top.stat_self()?)?;
            continue;
        };
        check_name(path, name)?;
        let dir = match open.take() {
            Some((at, dir)) if at == parent => dir,
            _ => top.below(parent.as_path())?,
        };
        if let Some(stat) = dir.stat(name)? {
            if is_whiteout(&stat) {
                let reason = "a character device 0/0 means a whiteout to overlayfs";
                return Err(Error::Unwritable { path: path.clone(), reason });
            }
            tree.node(&dir, name, path, &stat)?;
        }
        open = Some((parent, dir));
    }
    Ok(tree.entries)
}

fn check_name(path: &TreePath, name: &OsStr) -> Result<()> {
    if name.as_bytes().starts_with(b".wh.") {
        let reason = "a name that begins with .wh. means a whiteout";
        return Err(Error::Unwritable { path: path.clone(), reason });
    }
    Ok(())
}

/// Writes the upper directory of an overlay, as it is.
///
/// # Errors
/// As [`write_delta`].
pub fn write_upper<W: Write>(upper: &Path, out: &mut TarWriter<W>, options: &WriteOptions) -> Result<u64> {
    let mut tree = Tree::new(out, options);
    tree.walk(&Dir::open(upper)?, &TreePath::root(), Form::Upper)?;
    Ok(tree.entries)
}

/// Writes the file or directory `source` with all that is in it as `target`; with `opaque` what
/// layers below have in that directory is gone. Links are written, not followed.
///
/// # Errors
/// As [`write_delta`].
pub fn write_inserted<W: Write>(
    source: &Path,
    target: &TreePath,
    opaque: bool,
    out: &mut TarWriter<W>,
    options: &WriteOptions,
) -> Result<u64> {
    let meta = source.symlink_metadata().call(|| format!("lstat({})", source.display()))?;
    if meta.is_dir() {
        let entries = write_at(&Dir::open(source)?, OsStr::new("."), target, out, options)?;
        let mut tree = Tree::new(out, options);
        if opaque {
            tree.empty(target)?;
        }
        return Ok(entries + tree.entries);
    }
    let parent = source.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    write_at(&Dir::open(parent)?, source.file_name().unwrap_or_default(), target, out, options)
}

/// Writes the file or directory `name` of `dir` with all that is in it as `target`. Links are
/// written, not followed.
///
/// # Errors
/// As [`write_delta`].
pub fn write_at<W: Write>(
    dir: &Dir,
    name: &OsStr,
    target: &TreePath,
    out: &mut TarWriter<W>,
    options: &WriteOptions,
) -> Result<u64> {
    let mut tree = Tree::new(out, options);
    match dir.stat(name)? {
        Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            tree.walk(&dir.child(name)?, target, Form::Plain)?;
        }
        Some(stat) => tree.node(dir, name, target, &stat)?,
        None => {}
    }
    Ok(tree.entries)
}

/// Owner, mode, time and attributes of `name` in `dir`, as they are in a layer; none where nothing is.
///
/// # Errors
/// The first failed call.
pub fn meta(dir: &Dir, name: &OsStr) -> Result<Option<Meta>> {
    let stat = dir.stat(name)?;
    Ok(stat.map(|stat| node::read(dir, name, &stat)).transpose()?.map(|(_, meta)| meta))
}

/// Writes that `path` is gone.
///
/// # Errors
/// As [`write_delta`].
pub fn write_whiteout<W: Write>(path: &TreePath, out: &mut TarWriter<W>) -> Result<()> {
    Tree::new(out, &WriteOptions::default()).hide(path)
}

/// Puts the tar that `write` writes into the store, compressed; gives the blob and its diff id.
///
/// # Errors
/// Those of `write`, [`Error::Store`].
pub fn store_layer(
    lease: &Lease,
    coding: Coding,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<(Descriptor, Digest)> {
    let mut made = Err(Error::Stopped);
    let media_type = coding.media_type(&Descriptor::of(media_type::LAYER, b""));
    let blob = lease.put_with(media_type, |out| {
        let mut out = Hashed::new(Encoder::new(out, coding)?);
        let written = write(&mut out);
        let (encoder, diff_id, _) = out.finish();
        made = written.map(|()| diff_id);
        match &made {
            Ok(_) => encoder.finish().map(drop),
            Err(_) => Err(io::ErrorKind::Other.into()),
        }
    });
    // What `write` says is more than that writing failed.
    let diff_id = made?;
    Ok((blob?, diff_id))
}

/// Puts the compressed tar `file` into the store as it is; gives the blob and its diff id. What is
/// in it is for [`check_layer`].
///
/// # Errors
/// [`Error::Store`]; [`Error::Read`] where it cannot be decompressed.
pub fn keep_layer(
    store: &Store,
    lease: &Lease,
    file: &mut impl io::Read,
    path: &Path,
    compression: Compression,
) -> Result<(Descriptor, Digest)> {
    let coding = Coding { compression, ..Coding::default() };
    let media_type = coding.media_type(&Descriptor::of(media_type::LAYER, b""));
    let blob = lease.put_with(media_type, |out| io::copy(file, out).map(drop))?;
    let read = |source| Error::Read { layer: (&blob.digest).into(), source };
    let limits = store.limits();
    let tar = Decoder::new(store.blob(&blob)?, compression, limits.zstd_window_log).map_err(read)?;
    let mut tar = limits.guard(tar, blob.size);
    let mut sum = Hashed::new(io::sink());
    io::copy(&mut tar, &mut sum).map_err(|e| match e.downcast::<Exceeded>() {
        Ok(source) => Error::File { path: path.to_path_buf(), source },
        Err(e) => read(e),
    })?;
    let (_, diff_id, _) = sum.finish();
    Ok((blob, diff_id))
}

/// Reads a layer of the store to its end, which has to be as one can be unpacked.
///
/// # Errors
/// Any [`Error`].
pub fn check_layer(store: &Store, layer: &Layer) -> Result<()> {
    let compression = layer.descriptor.layer_compression().map_err(Error::MediaType)?;
    let read = |source| Error::Read { layer: (&layer.descriptor.digest).into(), source };
    let limits = *store.limits();
    let blob = store.blob(&layer.descriptor)?;
    let tar = Decoder::new(blob, compression, limits.zstd_window_log).map_err(read)?;
    rewrite(tar, layer, limits, &mut TarWriter::new(io::sink()), &|_| None)
}

/// How a stream that begins with `start` is compressed.
#[must_use]
pub fn compression_of(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}
