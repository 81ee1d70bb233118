//! What lists of images show, remembered, so that a list of thousands reads one file.
//!
//! `ROOT/shipimg/summaries` holds a line of JSON for each manifest, by digest. It is derived
//! from the blobs and never stale, since a digest means one content; a line that cannot be read
//! is made anew. It grows under the lock; a prune takes out what it removes.

use super::{Result, Store, blob, io_error};
use crate::oci::{Descriptor, Digest, Platform};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};

/// What a manifest and its configuration say in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The manifest.
    digest: Digest,
    /// For which platform; none for an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Its blobs, each once: the manifest, the configuration, the layers, and their bytes.
    pub blobs: Vec<(Digest, u64)>,
}

/// The fields of a configuration that are shown.
#[derive(Deserialize)]
struct Config {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    created: Option<String>,
}

impl Store {
    /// The summaries of these manifests; of one that is missing or damaged there is none, and
    /// `failed` is told.
    ///
    /// # Errors
    /// [`super::Error::Io`] where those that are remembered cannot be read.
    pub fn summaries(
        &self,
        manifests: &[&Descriptor],
        mut failed: impl FnMut(&Digest, super::Error),
    ) -> Result<HashMap<Digest, Summary>> {
        let mut known: HashMap<Digest, Summary> = self.remembered()?;
        let mut new = Vec::new();
        for descriptor in manifests {
            if known.contains_key(&descriptor.digest) {
                continue;
            }
            match self.summarise(descriptor) {
                Ok(summary) => {
                    serde_json::to_writer(&mut new, &summary).map_err(io::Error::from).unwrap_or_default();
                    new.push(b'\n');
                    known.insert(descriptor.digest.clone(), summary);
                }
                Err(e) => failed(&descriptor.digest, e),
            }
        }
        if !new.is_empty()
            && let Err(e) = self.remember(&new)
        {
            // A store that may only be read is listed all the same.
            tracing::debug!("{e}");
        }
        Ok(known)
    }

    fn summarise(&self, descriptor: &Descriptor) -> Result<Summary> {
        let missing = || super::Error::NoBlob { digest: descriptor.digest.clone(), root: self.root().into() };
        let links = self.links(&descriptor.digest)?.ok_or_else(missing)?;
        let mut seen = BTreeSet::from([descriptor.digest.clone()]);
        let leaves = links.leaves().filter(|l| seen.insert(l.digest.clone()));
        let leaves: Vec<(Digest, u64)> = leaves.map(|l| (l.digest.clone(), l.size)).collect();
        let config = leaves.first().map(|(d, size)| Descriptor::new("", d.clone(), *size));
        let config = config.and_then(|c| self.document(&c).ok());
        let config = config.and_then(|c| serde_json::from_slice::<Config>(&c).ok());
        let platform = config.as_ref().and_then(|c| {
            let (os, architecture) = (c.os.clone()?, c.architecture.clone()?);
            Some(Platform { os, architecture, variant: c.variant.clone() }.to_string())
        });
        let blobs = std::iter::once((descriptor.digest.clone(), descriptor.size)).chain(leaves).collect();
        let created = config.and_then(|c| c.created);
        Ok(Summary { digest: descriptor.digest.clone(), platform, created, blobs })
    }

    fn remembered(&self) -> Result<HashMap<Digest, Summary>> {
        let path = self.root().join("shipimg/summaries");
        let text = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
            text => io_error("read", &path, text)?,
        };
        let parse = |text: &[u8]| -> Vec<Summary> {
            text.split(|&b| b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect()
        };
        // Half of it on a thread of its own: of thousands of images this takes most of the time.
        let middle =
            text[text.len() / 2..].iter().position(|&b| b == b'\n').map_or(0, |n| text.len() / 2 + n);
        let (first, second) = text.split_at(middle);
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| parse(first));
            let second = parse(second);
            (first.join().unwrap_or_default(), second)
        });
        Ok(first.into_iter().chain(second).map(|s| (s.digest.clone(), s)).collect())
    }

    fn remember(&self, lines: &[u8]) -> Result<()> {
        let path = self.root().join("shipimg/summaries");
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let mut file = io_error("open", &path, OpenOptions::new().append(true).create(true).open(&path))?;
        io_error("write", &path, file.write_all(lines))
    }

    /// Takes the lines of these digests out; the caller holds the lock.
    pub(super) fn forget(&self, gone: &HashSet<&Digest>) -> Result<()> {
        let mut known = self.remembered()?;
        let before = known.len();
        known.retain(|d, _| !gone.contains(d));
        if known.len() == before {
            return Ok(());
        }
        let path = self.root().join("shipimg/summaries");
        let mut text = Vec::new();
        for summary in known.values() {
            io_error("write", &path, serde_json::to_writer(&mut text, summary).map_err(io::Error::from))?;
            text.push(b'\n');
        }
        blob::write_atomic(&path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type;
    use serde_json::json;

    #[test]
    fn remembers_and_forgets() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layer = store.put(media_type::LAYER, b"layer").unwrap();
        let config =
            json!({"os": "linux", "architecture": "arm64", "variant": "v8", "created": "2024-01-01"});
        let config = store.put(media_type::CONFIG, config.to_string().as_bytes()).unwrap();
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer, layer]});
        let manifest = store.put(media_type::MANIFEST, manifest.to_string().as_bytes()).unwrap();
        let absent = Descriptor::of(media_type::MANIFEST, b"absent");
        let list = || {
            let mut failed = Vec::new();
            let all = store.summaries(&[&manifest, &absent], |d, _| failed.push(d.clone())).unwrap();
            assert_eq!(failed, std::slice::from_ref(&absent.digest));
            all[&manifest.digest].clone()
        };
        let first = list();
        assert_eq!(first.platform.as_deref(), Some("linux/arm64/v8"));
        assert_eq!(first.blobs.len(), 3);
        let path = dir.path().join("shipimg/summaries");
        fs::write(&path, [b"torn".to_vec(), fs::read(&path).unwrap()].concat()).unwrap();
        assert_eq!(list(), first, "an unreadable line is made anew");
        fs::remove_file(store.blob_path(&manifest.digest)).unwrap();
        assert_eq!(list(), first, "from what is remembered");
        store.forget(&[&manifest.digest].into()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
}
