//! What `unpack` remembers of a directory, to find later what has changed in it: its names, and a
//! time after which nothing had changed. It costs little, for no file is looked at.
//!
//! ```text
//! SECONDS NUL NANOSECONDS NUL        nothing had changed after this time (ctime)
//! PATH NUL …                         of what is no directory
//! PATH / NUL INODE NUL …             of a directory, the root first
//! ```
//!
//! A file that gets another name changes, what lies in a directory that does not: so the inodes.
//!
//! It holds for this very directory, not for a copy, whose files are all new. A file that was changed
//! and changed back counts as changed. A clock that was set back by hand can make a change look old.

use super::scan::{Scan, TICK, changed};
use super::{Result, signal_pending};
use crate::sys::{Call, dir::Dir};
use crate::tree::diff::Change;
use crate::tree::{Time, Tree, TreePath};
use rustix::fs::FileType;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// The names in a directory, and since when they hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    settled: Time,
    names: HashSet<Vec<u8>>,
    /// The inodes of directories.
    folders: HashMap<Vec<u8>, u64>,
}

/// Writes the record of the directory `root` into the new file `path` on the same filesystem.
///
/// # Errors
/// The first failed call.
pub fn write_record(root: &Path, path: &Path) -> Result<()> {
    let call = |what| move || format!("{what}({})", path.display());
    let file = File::create_new(path).call(call("open"))?;
    // It was made after all else.
    let settled = changed(&rustix::fs::fstat(&file).call(call("fstat"))?);
    let mut out = BufWriter::with_capacity(256 << 10, file);
    write!(out, "{}\0{}\0", settled.seconds, settled.nanos).call(call("write"))?;
    let top = Dir::open(root)?;
    let mut work = vec![TreePath::root()];
    while let Some(path) = work.pop() {
        signal_pending()?;
        let dir = top.below(path.as_path())?;
        let inode = dir.stat_self()?.st_ino;
        let written = out.write_all(path.as_bytes()).and_then(|()| write!(out, "/\0{inode}\0"));
        written.call(call("write"))?;
        dir.each(|name, kind| {
            let child = path.join(name);
            if kind == FileType::Directory {
                work.push(child);
                return Ok(());
            }
            let written = out.write_all(child.as_bytes()).and_then(|()| out.write_all(b"\0"));
            Ok::<_, super::Error>(written.call(call("write"))?)
        })?;
    }
    out.flush().call(call("write"))?;
    // What changes from here on is later.
    std::thread::sleep(TICK);
    Ok(())
}

impl Record {
    /// Reads the file that [`write_record`] wrote; none where there is none.
    ///
    /// # Errors
    /// The failed call; `EINVAL` where it is something else.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let read = match std::fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.and_then(|bytes| Self::parse(&bytes).ok_or_else(|| rustix::io::Errno::INVAL.into())),
        };
        Ok(Some(read.call(|| format!("read({})", path.display()))?))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        fn number<N: std::str::FromStr>(field: &[u8]) -> Option<N> {
            std::str::from_utf8(field).ok()?.parse().ok()
        }
        let mut fields = bytes.strip_suffix(b"\0")?.split(|&b| b == 0);
        let settled = Time { seconds: number(fields.next()?)?, nanos: number(fields.next()?)? };
        let (mut names, mut folders) = (HashSet::new(), HashMap::new());
        while let Some(field) = fields.next() {
            match field.strip_suffix(b"/") {
                Some(folder) => drop(folders.insert(folder.to_vec(), number(fields.next()?)?)),
                None => drop(names.insert(field.to_vec())),
            }
        }
        Some(Self { settled, names, folders })
    }

    /// What has changed since in the directory `root`, and all that is there; none where it is
    /// another directory.
    ///
    /// # Errors
    /// The first failed call.
    pub fn changes(&self, root: &Path) -> Result<Option<(BTreeMap<TreePath, Change>, Tree)>> {
        if self.folders.get(&b""[..]) != Some(&Dir::open(root)?.stat_self()?.st_ino) {
            return Ok(None);
        }
        let (now, later) = Scan::since(root, self.settled)?;
        let mut found: BTreeMap<_, _> = later.into_iter().map(|p| (p, Change::Changed(Vec::new()))).collect();
        let is_other = |path: &TreePath| match (self.folders.get(path.as_bytes()), now.get(path)) {
            (Some(inode), Some(node)) => node.inode != Some(*inode),
            _ => false,
        };
        let others: HashSet<_> = now.keys().filter(|p| is_other(p)).collect();
        let is_known = |name: &[u8]| self.names.contains(name) || self.folders.contains_key(name);
        for path in now.keys() {
            if !is_known(path.as_bytes()) {
                found.insert(path.clone(), Change::Added);
            } else if !others.is_empty() && path.prefixes().any(|p| others.contains(&p)) {
                found.insert(path.clone(), Change::Changed(Vec::new()));
            }
        }
        for name in self.names.iter().chain(self.folders.keys()) {
            let path = TreePath::parse_link(name).ok().filter(|path| !now.contains_key(path));
            found.extend(path.map(|path| (path, Change::Deleted)));
        }
        Ok(Some((found, now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn finds_what_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("moved/in")).unwrap();
        for name in ["a/b/c", "a/same", "gone", "moved/in/f", "mode", "content"] {
            fs::write(root.join(name), "1").unwrap();
        }
        let file = dir.path().join("record");
        write_record(&root, &file).unwrap();
        let record = Record::read(&file).unwrap().unwrap();
        let (found, now) = record.changes(&root).unwrap().unwrap();
        assert!(found.is_empty() && now.len() == 11, "{found:?} {now:?}");

        let modified = fs::metadata(root.join("content")).unwrap().modified().unwrap();
        fs::write(root.join("content"), "2").unwrap();
        File::options().write(true).open(root.join("content")).unwrap().set_modified(modified).unwrap();
        fs::rename(root.join("moved"), root.join("there")).unwrap();
        fs::remove_file(root.join("gone")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(root.join("mode"), mode).unwrap();
        fs::hard_link(root.join("a/b/c"), root.join("a/new")).unwrap();
        let (found, _) = record.changes(&root).unwrap().unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(p, c)| match c {
                Change::Added => format!("A{p}"),
                Change::Changed(_) => format!("C{p}"),
                Change::Deleted => format!("D{p}"),
            })
            .collect();
        let want = "C/ C/a C/a/b/c A/a/new C/content D/gone C/mode D/moved D/moved/in D/moved/in/f A/there A/there/in A/there/in/f";
        assert_eq!(found.join(" "), want);

        let copy = dir.path().join("copy");
        fs::create_dir(&copy).unwrap();
        assert!(record.changes(&copy).unwrap().is_none());
        assert!(Record::read(&copy.join("none")).unwrap().is_none());
        fs::write(&file, "x\0").unwrap();
        assert!(Record::read(&file).is_err());
    }
}
