//! A copy of a directory tree with everything: owners, modes, times, attributes, hard links,
//! devices; blocks shared where the filesystem can.

use super::node::{self, finish_file, meta_of};
use crate::sys;
use crate::sys::dir::Dir;
use crate::tree::TreePath;
use rustix::fs::FileType;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;

/// Gives the directory `to` the owner, mode, times and attributes of `from`.
///
/// # Errors
/// The failed call.
pub fn copy_meta(from: &Path, to: &Path) -> sys::Result<()> {
    finish_file(Dir::open(to)?, &meta_of(Dir::open(from)?)?)
}

/// Copies what is in the directory `from` into the empty directory `to`, and its metadata.
/// Links are copied, never followed; other filesystems mounted below are not entered.
///
/// # Errors
/// The first failed call; `to` is then incomplete.
pub fn copy_tree(from: &Path, to: &Path) -> sys::Result<()> {
    let (from, to) = (Dir::open(from)?, Dir::open(to)?);
    let device = from.stat_self()?.st_dev;
    // Files with several names: where the first copy is.
    let mut copied: HashMap<u64, TreePath> = HashMap::new();
    let mut work = vec![(TreePath::root(), false)];
    while let Some((path, entered)) = work.pop() {
        let (source, target) = (from.below(path.as_path())?, to.below(path.as_path())?);
        if entered {
            finish_file(&target, &meta_of(&source)?)?;
            continue;
        }
        work.push((path.clone(), true));
        source.each(|name: &OsStr, kind| {
            let Some(stat) = source.stat(name)? else { return Ok(()) };
            if kind == FileType::Directory {
                target.mkdir(name)?;
                if stat.st_dev == device {
                    work.push((path.join(name), false));
                }
                return Ok(());
            }
            let first = if stat.st_nlink > 1 { copied.get(&stat.st_ino) } else { None };
            if let Some((parent, old)) = first.and_then(TreePath::split) {
                return target.link(name, &to.below(parent.as_path())?, old);
            }
            if stat.st_nlink > 1 {
                copied.insert(stat.st_ino, path.join(name));
            }
            node::copy(&source, name, &target, name)
        })?;
    }
    Ok(())
}
