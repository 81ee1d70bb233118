//! A configured root made ready for others: no identity, no caches, no traces of when and where.

use super::database::{make, put};
use super::lock::Lock;
use super::sources::{Archive, ROOT_KEYRINGS};
use super::{Error, Result};
use crate::sys::Call;
use crate::sys::dir::Dir;
use rustix::fs::{FileType, Stat, Timestamps};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;

/// What tells times: emptied.
const LOGS: [&str; 6] = [
    "var/log/alternatives.log",
    "var/log/dpkg.log",
    "var/log/apt/history.log",
    "var/log/apt/term.log",
    "var/log/apt/eipp.log.xz",
    "var/log/bootstrap.log",
];

/// What tells of inode numbers, or is random: made again when it is missing.
const TRACES: [&str; 3] =
    ["var/cache/ldconfig/aux-cache", "var/lib/systemd/random-seed", "var/lib/dbus/machine-id"];

/// Leaves the root for others to use: its own sources, no caches, no identity.
pub(super) fn finish(root: &Dir, lock: &Lock, archive: &Archive, keep_apt: bool) -> Result<()> {
    let etc = root.in_root(Path::new("etc"))?;
    if etc.stat(OsStr::new("apt"))?.is_some() {
        let apt = root.in_root(Path::new("etc/apt"))?;
        put(&apt, "sources.list", 0o644, lock.sources_list().as_bytes())?;
        for (keyring, name) in archive.root_keyrings() {
            let bytes = std::fs::read(keyring).map_err(|e| Error::io("read", keyring, e))?;
            put(&make(root, ROOT_KEYRINGS)?, &name, 0o644, &bytes)?;
        }
    }
    if etc.stat(OsStr::new("machine-id"))?.is_some() {
        put(&etc, "machine-id", 0o444, b"")?;
    }
    for name in ["resolv.conf", "hostname"] {
        if etc
            .stat(OsStr::new(name))?
            .is_some_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_file())
        {
            etc.unlink(OsStr::new(name))?;
        }
    }
    if etc.stat(OsStr::new("ssh"))?.is_some() {
        // Keys made here would be the same in every copy of the image.
        let ssh = root.in_root(Path::new("etc/ssh"))?;
        for (name, _) in ssh.list()? {
            if name.as_encoded_bytes().starts_with(b"ssh_host_") {
                ssh.remove(&name)?;
            }
        }
    }
    let caches: [(&str, &[&str]); 3] = [
        ("var/lib/apt/lists", &["partial", "auxfiles", "lock"]),
        ("var/cache/apt", &["archives"]),
        ("var/cache/apt/archives", &["partial", "lock"]),
    ];
    for (path, keep) in caches.into_iter().filter(|_| !keep_apt) {
        if let Ok(dir) = root.in_root(Path::new(path)) {
            let keep: HashSet<&OsStr> = keep.iter().map(OsStr::new).collect();
            dir.clear(&keep.into_iter().collect::<Vec<_>>())?;
        }
    }
    for path in LOGS {
        let Some((folder, name)) = path.rsplit_once('/') else { continue };
        if let Ok(dir) = root.in_root(Path::new(folder))
            && let Some(stat) = dir.stat(OsStr::new(name))?
        {
            put(&dir, name, stat.st_mode & 0o7777, b"")?;
            dir.chown(OsStr::new(name), stat.st_uid, stat.st_gid)?;
        }
    }
    for path in TRACES {
        let Some((folder, name)) = path.rsplit_once('/') else { continue };
        if let Ok(dir) = root.in_root(Path::new(folder)) {
            dir.remove(OsStr::new(name))?;
        }
    }
    rustix::fs::fchmod(root, rustix::fs::Mode::from_raw_mode(0o755)).call(|| "fchmod(root)".to_string())?;
    Ok(())
}

/// Dates what is newer than `latest`, in seconds since 1970, to that: what scripts have made.
pub(super) fn settle(root: &Dir, latest: i64) -> Result<()> {
    let time = rustix::fs::Timespec { tv_sec: latest, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let newer = |s: &Stat| (s.st_mtime, s.st_mtime_nsec) > (latest, 0);
    let mut work = vec![root.again()?];
    while let Some(dir) = work.pop() {
        for (name, _) in dir.list()? {
            let Some(stat) = dir.stat(&name)? else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                work.push(dir.child(&name)?);
            }
            if newer(&stat) {
                dir.utimens(&name, &times)?;
            }
        }
    }
    if newer(&root.stat_self()?) {
        root.utimens(OsStr::new("."), &times)?;
    }
    Ok(())
}
