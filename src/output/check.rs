//! What can be known of targets before anything is made of them.
//!
//! A target's folder must be there and writable, what has its name must be what it may replace, no
//! two outputs have one place, the programs that write them are there, and a fixed size is not
//! hopeless. What killed commands left beside a target is removed.

use super::{Error, Kind, Output, Result};
use crate::archive;
use crate::disk;
use crate::disk::ext4::{self, Size};
use crate::sys::{self, btrfs, program, userns, workspace};
use crate::tree::{Kind as FileKind, Meta, Node, Tree, TreePath};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Checks `outputs`, ext4 among them `mounted` or not, all of filesystems of `size`; gives them with
/// the paths that links lead to.
///
/// # Errors
/// [`Error::Exists`], [`Error::NotAFile`], [`Error::Twice`], [`Error::NeedsRoot`],
/// [`disk::Error::TooSmall`], [`sys::Error::NoProgram`]; a target's folder that cannot be written
/// to.
pub fn check(outputs: &[Output], size: Size, mounted: bool) -> Result<Vec<Output>> {
    let mut places = BTreeSet::new();
    let mut checked = Vec::new();
    for output in outputs {
        if mounted && output.is_ext() && !userns::ids().is_host() {
            return Err(Error::NeedsRoot);
        }
        let output = output.resolved()?;
        if !places.insert(output.place()) {
            return Err(Error::Twice(output.to_string()));
        }
        output.programs()?;
        checked.push(output);
    }
    check_size(&checked, size, 0)?;
    Ok(checked)
}

/// Whether writing the outputs, ext4 among them `mounted` or not, mounts anything: then the process is
/// to have [private mounts](crate::sys::sandbox::private_mounts), so that nothing is left of them.
#[must_use]
pub fn mounts(outputs: &[Output], mounted: bool) -> bool {
    let by_kernel = |o: &Output| match o {
        Output::File(Kind::Btrfs, _) => userns::ids().is_host(),
        o => mounted && o.is_ext(),
    };
    outputs.iter().any(by_kernel)
}

/// Checks that filesystems of `size` can hold files of `least` bytes.
///
/// # Errors
/// [`disk::Error::TooSmall`], [`disk::Error::TooLarge`].
pub fn check_size(outputs: &[Output], size: Size, least: u64) -> Result<()> {
    let Size::Fixed(bytes) = size else { return Ok(()) };
    if outputs.iter().any(|o| matches!(o, Output::File(Kind::Btrfs, _)))
        && bytes < least.max(super::btrfs::LEAST)
    {
        return Err(disk::Error::TooSmall { size: bytes, needed: least.max(super::btrfs::LEAST) }.into());
    }
    for output in outputs.iter().filter(|o| o.is_ext()) {
        let ext2 = matches!(output, Output::File(Kind::Ext2, _));
        let kind = if ext2 { ext4::Kind::Ext2 } else { ext4::Kind::Ext4 };
        let (uuid, hash_seed) = ([0; 16], [0; 16]);
        ext4::layout(
            &empty(),
            &ext4::Options { kind, size, label: String::new(), uuid, hash_seed, time: 0 },
        )?;
        if bytes < least {
            return Err(disk::Error::TooSmall { size: bytes, needed: least }.into());
        }
    }
    Ok(())
}

/// A root without files.
fn empty() -> Tree {
    let meta = Meta { mode: 0o755, ..Meta::default() };
    let root = Node { kind: FileKind::Directory, meta, size: 0, sha256: None, same: None, inode: None };
    Tree::from([(TreePath::root(), root)])
}

impl Output {
    const fn is_ext(&self) -> bool {
        matches!(self, Self::File(Kind::Ext4 | Kind::Ext2 | Kind::Disk, _))
    }

    /// What no other output has.
    fn place(&self) -> (PathBuf, Option<String>) {
        match self {
            Self::Image(name) => (PathBuf::new(), Some(name.to_string())),
            // A layout holds several images.
            Self::Archive { kind: archive::Kind::Oci, path, name } => (path.clone(), name.clone()),
            Self::File(_, path) | Self::Archive { path, .. } => (path.clone(), None),
        }
    }

    /// The same with the path of its place.
    fn resolved(&self) -> Result<Self> {
        Ok(match self {
            Self::File(kind @ (Kind::Dir | Kind::Subvolume), path) => {
                if path.symlink_metadata().is_ok() {
                    return Err(Error::Exists(path.clone()));
                }
                let path = place(path)?;
                if *kind == Kind::Subvolume && !btrfs::is_btrfs(folder(&path))? {
                    return Err(Error::NotBtrfs(path));
                }
                Self::File(*kind, path)
            }
            Self::File(kind, path) => Self::File(*kind, file(path)?),
            Self::Archive { kind: kind @ archive::Kind::Oci, path, name } => {
                let path = place(path)?;
                let full = fs::read_dir(&path).map(|mut d| d.next().is_some());
                let full = full.unwrap_or_else(|e| e.kind() == std::io::ErrorKind::NotADirectory);
                if full && !path.join("oci-layout").exists() {
                    return Err(Error::Exists(path));
                }
                Self::Archive { kind: *kind, path, name: name.clone() }
            }
            // Whoever reads a pipe gets it as it is made.
            Self::Archive { path, .. } if fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) => {
                self.clone()
            }
            Self::Archive { kind, path, name } => {
                Self::Archive { kind: *kind, path: file(path)?, name: name.clone() }
            }
            Self::Image(name) => Self::Image(name.clone()),
        })
    }

    /// Looks for the programs that write it.
    fn programs(&self) -> Result<()> {
        let tried = match self {
            Self::File(Kind::Squashfs, _) => program::output("sqfstar", &["-version"]),
            Self::File(Kind::Btrfs, _) => program::output("mkfs.btrfs", &["--version"]),
            _ => return Ok(()),
        };
        match tried {
            Err(e @ sys::Error::NoProgram { .. }) => Err(e.into()),
            _ => Ok(()),
        }
    }
}

/// The place of a file that may be replaced. A link stays; what it leads to is replaced.
fn file(path: &Path) -> Result<PathBuf> {
    match fs::metadata(path) {
        Ok(m) if m.is_dir() => return Err(Error::Exists(path.to_path_buf())),
        Ok(m) if !m.is_file() => return Err(Error::NotAFile(path.to_path_buf())),
        _ => {}
    }
    place(&path.canonicalize().unwrap_or_else(|_| path.to_path_buf()))
}

/// The path without links, in a folder that can be written to, where nothing is that killed
/// commands have left.
fn place(path: &Path) -> Result<PathBuf> {
    // Of `x/` the parent is not `x`.
    let path: PathBuf = path.components().collect();
    let name = path.file_name().ok_or_else(|| Error::Exists(path.clone()))?;
    let folder = folder(&path).canonicalize().map_err(super::write_error(&path))?;
    let mode = Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, &folder, mode, AtFlags::EACCESS).map_err(|e| super::write_error(&path)(e.into()))?;
    workspace::sweep(&folder)?;
    Ok(folder.join(name))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
