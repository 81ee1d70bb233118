//! squashfs, by sqfstar.

use super::{Files, Result, stash, write_error};
use crate::disk::{self, Source};
use crate::sys::program;
use crate::sys::workspace::Workspace;
use crate::tree::Kind;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;

/// sqfstar reads the tar: from a folder it could not be told of device nodes that are not there. The
/// root itself it takes from its options; before version 4.6 its time is that of the filesystem. No
/// file is newer than the filesystem, whose time is therefore that of the newest.
pub(super) fn write(files: &Files, path: &Path) -> Result<u64> {
    if let Some((path, _)) = files.tree().iter().find(|(_, node)| cut(&node.kind)) {
        let reason = "sqfstar would cut the beginning of a link of more than 100 bytes";
        return Err(disk::Error::Unfit { path: path.clone(), reason }.into());
    }
    let work = Workspace::beside(path)?;
    let new = work.path().join("image");
    let root = files.root();
    let time = files.tree().values().map(|node| node.meta.mtime.seconds).max().unwrap_or(0).max(0);
    let (mode, root_time) = (format!("{:o}", root.mode), root.mtime.seconds.max(0).to_string());
    let args = ["-comp", "zstd", "-quiet", "-no-progress", "-exit-on-error", "-root-mode", &mode];
    let args = args.into_iter().chain(["-root-time", &root_time]).collect::<Vec<_>>();
    let args: Vec<_> = args.iter().map(OsStr::new).chain([new.as_os_str()]).collect();
    let mut failed = None;
    let fill = |out: &mut dyn Write| files.write_tar(out).or_else(|e| stash(e, &mut failed));
    let done = program::piped("sqfstar", &args, time, fill);
    done.map_err(|e| failed.unwrap_or_else(|| e.into()))?;
    let size = fs::metadata(&new).map_err(write_error(path))?.len();
    fs::rename(&new, path).map_err(write_error(path))?;
    Ok(size)
}

/// Whether sqfstar makes another link of it: of what is too long for a tar's header it skips what
/// leads out of a folder.
fn cut(kind: &Kind) -> bool {
    let Kind::Symlink(to) = kind else { return false };
    to.len() > 100 && ["/", "./", "../"].iter().any(|begin| to.starts_with(begin.as_bytes()))
}
