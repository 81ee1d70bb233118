//! Who is on the bridge of this network namespace, and that all of them know each other.
//!
//! ```text
//! /run/shipimg/network.lock         locked (flock) by whoever looks at a bridge or changes it
//! /run/shipimg/network-INODE/       of the network namespace with that inode
//!   LINK.json                       a container's address, its names, and where its hosts file is
//! ```
//!
//! A record counts as long as its link is there; the folder goes with the bridge. The part of a hosts
//! file up to [`OTHERS`] belongs to its container. The file is changed in place, since it is mounted.

use super::super::lifecycle::PATIENCE;
use super::super::{Error, Result, io_error};
use crate::sys::netlink::Route;
use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where all of this is.
const FOLDER: &str = "/run/shipimg";
/// The line of a hosts file that the names of others come after.
pub const OTHERS: &str = "# Containers on shipimg0; what is below is written anew when one comes or goes.\n";
/// How many others may come before this one, each for less than a second, in seconds.
const QUEUE: u64 = 60;
/// The longest hosts file that is changed, in bytes.
const LONGEST: u64 = 1 << 20;

/// A container as the others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its names.
    pub names: Vec<String>,
    /// Its hosts file.
    pub hosts: PathBuf,
}

/// The network namespace of this process, locked.
#[derive(Debug)]
pub struct Host {
    _lock: File,
    route: Route,
    inode: u64,
    dir: PathBuf,
}

impl Host {
    /// Waits until no other command is at it.
    ///
    /// # Errors
    /// [`Error::Timeout`]; the failed call.
    pub fn lock() -> Result<Self> {
        let folder = Path::new(FOLDER);
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            other => io_error("create", folder, other)?,
        }
        let path = folder.join("network.lock");
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = io_error("open", &path, file)?;
        let end = Instant::now() + Duration::from_secs(PATIENCE + QUEUE);
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() > end {
                let what = "other commands did not let go of the bridge".to_string();
                return Err(Error::Timeout { what, seconds: PATIENCE + QUEUE });
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        let own = Path::new("/proc/self/ns/net");
        let inode = io_error("stat", own, fs::metadata(own))?.ino();
        let dir = folder.join(format!("network-{inode}"));
        Ok(Self { _lock: lock, route: Route::open()?, inode, dir })
    }

    /// To talk to the kernel.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// What tells the namespace from others.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Remembers the container behind the link `veth`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&self, veth: &str, neighbour: &Neighbour) -> Result<()> {
        io_error("create", &self.dir, fs::create_dir_all(&self.dir))?;
        let path = self.dir.join(format!("{veth}.json"));
        let text =
            serde_json::to_vec(neighbour).map_err(|source| Error::Config { path: path.clone(), source })?;
        io_error("write", &path, fs::write(&path, text))
    }

    /// Forgets the containers whose links are not among `live`, and tells all others of each other.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn introduce(&self, live: &[&str]) -> Result<()> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let is_live = name.strip_suffix(".json").is_some_and(|veth| live.contains(&veth));
            if !is_live {
                io_error("remove", &entry.path(), fs::remove_file(entry.path()))?;
            } else if let Ok(neighbour) = read(&entry.path()) {
                all.push(neighbour);
            }
        }
        all.sort_by_key(|n: &Neighbour| n.address);
        for one in &all {
            let lines = lines(all.iter().filter(|other| other.address != one.address));
            match rewrite(&one.hosts, &lines) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                other => io_error("write", &one.hosts, other)?,
            }
        }
        Ok(())
    }

    /// Forgets all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            other => io_error("remove", &self.dir, other),
        }
    }
}

fn read(path: &Path) -> Result<Neighbour> {
    let text = io_error("read", path, fs::read(path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Config { path: path.to_path_buf(), source })
}

fn lines<'a>(others: impl Iterator<Item = &'a Neighbour>) -> String {
    others.fold(String::new(), |mut text, other| {
        let _ = writeln!(text, "{}\t{}", other.address, other.names.join(" "));
        text
    })
}

/// Puts `others` in the place of what the file has of them. A file without the line that they
/// come after was changed from inside, and stays as it is.
fn rewrite(hosts: &Path, others: &str) -> std::io::Result<()> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let file = File::options().read(true).write(true).custom_flags(flags).open(hosts)?;
    let mut old = Vec::new();
    (&file).take(LONGEST).read_to_end(&mut old)?;
    let Some(start) = old.windows(OTHERS.len()).position(|w| w == OTHERS.as_bytes()) else { return Ok(()) };
    let start = start + OTHERS.len();
    if &old[start..] == others.as_bytes() {
        return Ok(());
    }
    let offset = u64::try_from(start).unwrap_or(LONGEST);
    file.write_all_at(others.as_bytes(), offset)?;
    file.set_len(offset + u64::try_from(others.len()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_the_end_of_a_hosts_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        for (old, new) in [
            (format!("own\n{OTHERS}1.2.3.4\tlong-name\n"), format!("own\n{OTHERS}5.6.7.8\ta b\n")),
            (format!("own\n{OTHERS}"), format!("own\n{OTHERS}5.6.7.8\ta b\n")),
            ("changed inside\n".to_string(), "changed inside\n".to_string()),
            (String::new(), String::new()),
        ] {
            fs::write(&path, old).unwrap();
            let inode = fs::metadata(&path).unwrap().ino();
            rewrite(&path, "5.6.7.8\ta b\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), new);
            assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        }
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(rewrite(&link, "x").is_err());
    }
}
