//! What steps made: images by the key of the step that they are the result of.
//!
//! `ROOT/shipimg/results/ALGORITHM-HEX` holds the digest of an image's manifest. A key is the digest
//! of all that the result depends on, so that a result with it can stand for the work. The file's
//! time tells when it was used last, for `prune`, which keeps the images of the results that stay.

use super::{Error, Lease, Result, Store, io_error, list};
use crate::oci::{Digest, Image, Platform};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

/// A result that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The file that says so.
    pub path: PathBuf,
    /// The image's manifest.
    pub manifest: Digest,
    /// When it was used last.
    pub used: SystemTime,
}

impl Store {
    fn results(&self) -> PathBuf {
        self.root().join("shipimg/results")
    }

    fn result_path(&self, key: &Digest) -> PathBuf {
        self.results().join(key.to_string().replace(':', "-"))
    }

    /// The result of the step with this key, held by `lease`; none where it is not kept, or not whole.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Sys`].
    pub fn result(&self, key: &Digest, lease: &Lease) -> Result<Option<Image>> {
        let path = self.result_path(key);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => io_error("read", &path, text)?,
        };
        let Ok(manifest) = text.trim().parse::<Digest>() else { return Ok(None) };
        lease.hold(&manifest)?;
        let Ok(descriptor) = self.by_digest(&manifest) else { return Ok(None) };
        if self.check_whole(&descriptor).is_err() {
            return Ok(None);
        }
        let image = self.image(&descriptor, &Platform::host()).ok();
        if image.is_some()
            && let Ok(file) = File::options().write(true).open(&path)
        {
            // In a store that may only be read the time stays.
            let _ = file.set_modified(SystemTime::now());
        }
        Ok(image)
    }

    /// Keeps the image `manifest`, whose blobs are all there and held, as the result of the step.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn keep_result(&self, key: &Digest, manifest: &Digest) -> Result<()> {
        let (dir, path) = (self.results(), self.result_path(key));
        io_error("create", &dir, fs::create_dir_all(&dir))?;
        let file = io_error("create a file in", &dir, tempfile::NamedTempFile::new_in(&dir))?;
        io_error("write", file.path(), fs::write(file.path(), format!("{manifest}\n")))?;
        file.persist(&path).map(drop).map_err(|e| Error::Io { action: "rename", path, source: e.error })
    }

    /// All results.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn kept(&self) -> Result<Vec<Kept>> {
        let mut all = Vec::new();
        for path in list(&self.results())? {
            let (Ok(text), Ok(used)) =
                (fs::read_to_string(&path), fs::metadata(&path).and_then(|m| m.modified()))
            else {
                continue;
            };
            if let Ok(manifest) = text.trim().parse() {
                all.push(Kept { path, manifest, used });
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type;
    use serde_json::json;

    #[test]
    fn kept_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lease = store.lease().unwrap();
        let key = Digest::of(b"step");
        assert!(store.result(&key, &lease).unwrap().is_none());
        let config =
            json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
        let config = lease.put(media_type::CONFIG, config.to_string().as_bytes()).unwrap();
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": []});
        let manifest = lease.put(media_type::MANIFEST, manifest.to_string().as_bytes()).unwrap();
        store.keep_result(&key, &manifest.digest).unwrap();
        assert_eq!(store.result(&key, &lease).unwrap().unwrap().descriptor.digest, manifest.digest);
        assert_eq!(store.kept().unwrap()[0].manifest, manifest.digest);
        fs::remove_file(store.blob_path(&config.digest)).unwrap();
        assert!(store.result(&key, &lease).unwrap().is_none(), "not whole");
    }
}
