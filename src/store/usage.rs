//! What things take on disk.

use super::{Result, io_error};
use crate::sys::btrfs;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Counts blocks on disk, in bytes; a file with several hard links once in all that one value
/// is asked about. What is mounted somewhere below does not count, nor what may not be read.
#[derive(Debug, Default)]
pub struct Usage {
    seen: HashSet<(u64, u64)>,
}

impl Usage {
    /// What the file or folder takes with all that is in it; nothing where it is not there.
    ///
    /// # Errors
    /// [`super::Error::Io`] where `path` itself cannot be looked at.
    pub fn of(&mut self, path: &Path) -> Result<u64> {
        let root = match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            meta => io_error("stat", path, meta)?,
        };
        let mut size = self.blocks(&root);
        let mut todo: Vec<(PathBuf, u64)> = Vec::new();
        if root.is_dir() {
            todo.push((path.to_path_buf(), root.dev()));
        }
        while let Some((folder, device)) = todo.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                // A subvolume has a device number of its own, as a mount has.
                let foreign = meta.dev() != device;
                if foreign && !btrfs::is_subvolume(&entry.path()).unwrap_or(false) {
                    continue;
                }
                size += self.blocks(&meta);
                if meta.is_dir() {
                    todo.push((entry.path(), meta.dev()));
                }
            }
        }
        Ok(size)
    }

    fn blocks(&mut self, meta: &fs::Metadata) -> u64 {
        let again = meta.nlink() > 1 && !meta.is_dir() && !self.seen.insert((meta.dev(), meta.ino()));
        if again { 0 } else { meta.blocks() * 512 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        let empty = Usage::default().of(dir.path()).unwrap();
        let file = dir.path().join("d/f");
        fs::write(&file, vec![1; 64 << 10]).unwrap();
        fs::hard_link(&file, dir.path().join("link")).unwrap();
        fs::File::create(dir.path().join("sparse")).unwrap().set_len(1 << 30).unwrap();
        let mut usage = Usage::default();
        let size = usage.of(dir.path()).unwrap() - empty;
        assert!((64 << 10..=80 << 10).contains(&size), "{size}");
        assert_eq!(usage.of(&file).unwrap(), 0);
        assert_eq!(usage.of(&dir.path().join("none")).unwrap(), 0);
    }
}
