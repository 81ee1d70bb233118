//! Leases: what a running command reads or puts together is not pruned under its hands.
//!
//! `ROOT/shipimg/leases/RANDOM` holds one digest a line and is locked (flock) by its owner for
//! as long as it counts; one that nobody locks was left by a killed process. It is made and
//! written to under a shared lock of `ROOT/shipimg/lock`, which `prune` takes exclusively from
//! its first look at the store to its last deletion. So a digest that was held before the
//! store was asked for it stays: either `prune` reads the lease, or it is through, and the
//! store says truly what is left.

use super::{Error, Result, Store, io_error};
use crate::error::Kind;
use crate::oci::{Descriptor, Digest, Edit};
use crate::sys::Call;
use rustix::fs::FlockOperation;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// Protects blobs, there or not yet there, and all that they lead to, from `prune`.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    /// None where the store cannot be written to: it cannot be pruned from here either.
    file: Option<(PathBuf, File)>,
}

impl Store {
    /// A lease that holds nothing yet, gone with the value. In a store that may only be read it
    /// holds nothing ever.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Sys`].
    pub fn lease(&self) -> Result<Lease> {
        match self.new_lease() {
            Ok(file) => Ok(Lease { store: self.clone(), file: Some(file) }),
            Err(e) if e.kind() == Kind::Privilege => Ok(Lease { store: self.clone(), file: None }),
            Err(e) => Err(e),
        }
    }

    fn new_lease(&self) -> Result<(PathBuf, File)> {
        let dir = self.leases();
        io_error("create", &dir, fs::create_dir_all(&dir))?;
        self.sweep_leases();
        let _lock = self.lock(FlockOperation::LockShared)?;
        loop {
            let path = dir.join(format!("{:016x}", RandomState::new().hash_one("lease")));
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                file => {
                    let file = io_error("create", &path, file)?;
                    flock(&file, FlockOperation::LockExclusive, &path)?;
                    return Ok((path, file));
                }
            }
        }
    }

    /// Removes what killed processes left, where nobody is in the way. One that is just being made
    /// is not locked yet, its maker holds the store's lock.
    fn sweep_leases(&self) {
        if let Ok(_lock) = self.lock(FlockOperation::NonBlockingLockExclusive)
            && let Ok((_, dead)) = self.held()
        {
            for path in dead {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn leases(&self) -> PathBuf {
        self.root().join("shipimg/leases")
    }

    /// Takes the lock of the store: shared to hold something, exclusively to replace
    /// `index.json` or to prune. It goes with the file.
    pub(super) fn lock(&self, how: FlockOperation) -> Result<File> {
        let path = self.root().join("shipimg/lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = io_error("open", &path, open)?;
        flock(&file, how, &path)?;
        Ok(file)
    }

    /// What the leases hold, and the files of those that nobody holds any more.
    pub(super) fn held(&self) -> Result<(Vec<Digest>, Vec<PathBuf>)> {
        let dir = self.leases();
        let (mut digests, mut dead) = (Vec::new(), Vec::new());
        for path in super::list(&dir)? {
            let Ok(mut file) = File::open(&path) else { continue };
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                dead.push(path);
                continue;
            }
            let mut text = String::new();
            io_error("read", &path, file.read_to_string(&mut text))?;
            digests.extend(text.lines().filter_map(|l| l.parse::<Digest>().ok()));
        }
        Ok((digests, dead))
    }
}

impl Lease {
    /// Protects the blob `digest`, whether it is there or not, and where it is a manifest or an
    /// index also all that it names. To be called before the store is asked whether it is there.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Sys`].
    pub fn hold(&self, digest: &Digest) -> Result<()> {
        let Some((path, file)) = &self.file else { return Ok(()) };
        let _lock = self.store.lock(FlockOperation::LockShared)?;
        let mut file = file;
        io_error("write", path, file.write_all(format!("{digest}\n").as_bytes()))
    }

    /// [`Store::put`] of a blob that is held.
    ///
    /// # Errors
    /// Those of [`Store::put`].
    pub fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        self.hold(&Digest::of(bytes))?;
        self.store.put(media_type, bytes)
    }

    /// Puts the documents of a changed image, which are held; gives the manifest's descriptor.
    ///
    /// # Errors
    /// Those of [`Store::put`].
    pub fn put_image(&self, edit: Edit) -> Result<Descriptor> {
        let ((config, config_bytes), (manifest, manifest_bytes)) = edit.finish();
        self.put(&config.media_type, &config_bytes)?;
        self.put(&manifest.media_type, &manifest_bytes)
    }

    /// [`Store::put_with`] of a blob that is held.
    ///
    /// # Errors
    /// Those of [`Store::put_with`].
    pub fn put_with(
        &self,
        media_type: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Descriptor> {
        self.store.put_known(media_type, write, |digest| self.hold(digest))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.file
            && let Err(e) = fs::remove_file(path)
        {
            tracing::debug!("{}", Error::Io { action: "remove", path: path.clone(), source: e });
        }
    }
}

pub(super) fn flock(file: &File, how: FlockOperation, path: &std::path::Path) -> Result<()> {
    Ok(rustix::fs::flock(file, how).call(|| format!("flock({})", path.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_as_long_as_it_lives() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lease = store.lease().unwrap();
        let d = lease.put("x", b"hello").unwrap();
        let r = lease.put_with("x", |out| out.write_all(b"other")).unwrap();
        assert_eq!(store.held().unwrap(), (vec![d.digest, r.digest], vec![]));
        let left = store.leases().join("0123");
        fs::write(&left, "sha256:").unwrap();
        assert_eq!(store.held().unwrap().1, [left]);
        drop(lease);
        assert!(store.held().unwrap().0.is_empty());
    }

    #[test]
    fn a_torn_line_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lease = store.lease().unwrap();
        let d = lease.put("x", b"hello").unwrap();
        let (path, _) = lease.file.as_ref().unwrap();
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"sha256:01").unwrap();
        assert_eq!(store.held().unwrap().0, [d.digest]);
    }
}
