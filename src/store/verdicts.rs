//! What was found out about images: a document for each, in the store that has the image.
//!
//! `ROOT/shipimg/verdicts/ALGORITHM-HEX` is the document about the manifest of that digest. Its form is
//! that of the room that writes it. It goes with the manifest.

use super::{Error, Result, Store, io_error};
use crate::oci::Digest;
use std::fs;
use std::io;
use std::path::PathBuf;

impl Store {
    fn verdicts_path(&self, manifest: &Digest) -> PathBuf {
        self.root().join("shipimg/verdicts").join(manifest.to_string().replace(':', "-"))
    }

    /// What is kept about the image `manifest`; none where nothing is.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn verdicts(&self, manifest: &Digest) -> Result<Option<Vec<u8>>> {
        let path = self.verdicts_path(manifest);
        match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            read => io_error("read", &path, read).map(Some),
        }
    }

    /// Keeps `text` about the image `manifest`, in place of what was kept.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn keep_verdicts(&self, manifest: &Digest, text: &[u8]) -> Result<()> {
        let dir = self.root().join("shipimg/verdicts");
        let path = self.verdicts_path(manifest);
        io_error("create", &dir, fs::create_dir_all(&dir))?;
        let file = io_error("create a file in", &dir, tempfile::NamedTempFile::new_in(&dir))?;
        io_error("write", file.path(), fs::write(file.path(), text))?;
        file.persist(&path).map(drop).map_err(|e| Error::Io { action: "rename", path, source: e.error })
    }

    /// Forgets what is kept about the image `manifest`.
    pub(super) fn drop_verdicts(&self, manifest: &Digest) -> Result<()> {
        let path = self.verdicts_path(manifest);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => io_error("remove", &path, removed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_and_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        assert_eq!(store.verdicts(&one).unwrap(), None);
        store.keep_verdicts(&one, b"a").unwrap();
        store.keep_verdicts(&one, b"b").unwrap();
        assert_eq!(store.verdicts(&one).unwrap().unwrap(), b"b");
        store.drop_verdicts(&two).unwrap();
        store.drop_verdicts(&one).unwrap();
        assert_eq!(store.verdicts(&one).unwrap(), None);
    }
}
