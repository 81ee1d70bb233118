//! Are all blobs what their names say, and is all there that the names lead to?
//!
//! Every blob is hashed, several at once; then the documents are walked from `index.json`.
//! Manifests of an index may be missing as long as one is there. What vanishes meanwhile was
//! pruned by another process and is no fault.

use super::{Entry, Result, Store, Survey, io_error};
use crate::oci::{Descriptor, Digest, Hasher};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How much is read at once, in bytes.
const CHUNK: usize = 256 << 10;

/// What is wrong with a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// Its content has another digest, or cannot be read.
    Damaged,
    /// It is not there.
    Missing,
    /// It has another size than the document says that names it.
    Size,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Size => "not of the promised size",
        })
    }
}

/// A blob that is wrong.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Media type as far as it is known, digest, promised size.
    pub descriptor: Descriptor,
    /// What is wrong.
    pub damage: Damage,
    /// Whether it is a manifest or an index.
    pub is_document: bool,
    /// The images that it breaks.
    pub entries: Vec<Entry>,
}

impl Store {
    /// Hashes all blobs, on `threads` threads; `watch` is told of the bytes read. Gives the
    /// digests of those that are damaged.
    ///
    /// # Errors
    /// [`super::Error::Io`] where a folder cannot be read.
    pub fn damaged(&self, threads: usize, watch: &(dyn Fn(u64) + Sync)) -> Result<BTreeSet<Digest>> {
        let blobs = self.blobs()?;
        let next = AtomicUsize::new(0);
        let damaged = Mutex::new(BTreeSet::new());
        let work = || {
            let mut buf = vec![0; CHUNK];
            while let Some((digest, waste)) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !is_whole(&waste.path, digest, &mut buf, watch) {
                    damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone());
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(blobs.len()) {
                scope.spawn(work);
            }
            work();
        });
        Ok(damaged.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is wrong in the store, given which blobs are `damaged`.
    ///
    /// # Errors
    /// [`super::Error::Io`], [`super::Error::Layout`].
    pub fn faults(&self, damaged: &BTreeSet<Digest>) -> Result<Vec<Fault>> {
        // Under the lock nothing comes and goes; a store that may only be read has no lock.
        let survey = self.pruning().or_else(|_| self.survey())?;
        let mut faults = Faults { store: self, damaged, found: BTreeMap::new() };
        for digest in damaged {
            faults.add(&Descriptor::new("", digest.clone(), 0), Damage::Damaged, false, None);
        }
        faults.walk(&survey)?;
        Ok(faults.found.into_values().collect())
    }

    /// Takes a damaged blob out of the way, to where a prune removes it.
    ///
    /// # Errors
    /// [`super::Error::Io`].
    pub fn set_aside(&self, digest: &Digest) -> Result<()> {
        let dir = self.root().join("shipimg/damaged");
        io_error("create", &dir, fs::create_dir_all(&dir))?;
        let (from, to) = (self.blob_path(digest), dir.join(digest.to_string().replace(':', "-")));
        match fs::rename(&from, to) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => io_error("move away", &from, renamed),
        }
    }
}

fn is_whole(path: &Path, digest: &Digest, buf: &mut [u8], watch: &(dyn Fn(u64) + Sync)) -> bool {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) => return e.kind() == io::ErrorKind::NotFound,
    };
    let mut hasher = Hasher::new(digest.algorithm());
    loop {
        match file.read(buf) {
            Ok(0) => return hasher.finish() == *digest,
            Ok(n) => {
                hasher.update(&buf[..n]);
                watch(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

struct Faults<'a> {
    store: &'a Store,
    damaged: &'a BTreeSet<Digest>,
    found: BTreeMap<Digest, Fault>,
}

impl Faults<'_> {
    fn add(&mut self, d: &Descriptor, damage: Damage, is_document: bool, entry: Option<&Entry>) {
        let new = Fault { descriptor: d.clone(), damage, is_document, entries: Vec::new() };
        let fault = self.found.entry(d.digest.clone()).or_insert(new);
        fault.is_document |= is_document;
        if fault.descriptor.size == 0 {
            fault.descriptor = d.clone();
        }
        fault.entries.extend(entry.cloned());
    }

    fn walk(&mut self, survey: &Survey) -> Result<()> {
        for entry in survey.entries() {
            let mut seen = BTreeSet::new();
            let mut todo: Vec<Descriptor> = vec![entry.descriptor.clone()];
            todo.extend(entry.shadow.clone());
            while let Some(d) = todo.pop() {
                if !seen.insert(d.digest.clone()) || !self.is_sound(&d, true, entry)? {
                    continue;
                }
                let Some(links) = self.store.links(&d.digest)? else { continue };
                for leaf in links.leaves().filter(|l| l.urls.is_none()) {
                    if seen.insert(leaf.digest.clone()) {
                        self.is_sound(&leaf.descriptor(), false, entry)?;
                    }
                }
                let members: Vec<Descriptor> = links.members().map(super::gc::Link::descriptor).collect();
                let mut there = members.clone();
                there
                    .retain(|m| self.damaged.contains(&m.digest) || self.store.blob_path(&m.digest).exists());
                todo.extend(if there.is_empty() { members } else { there });
            }
        }
        Ok(())
    }

    fn is_sound(&mut self, d: &Descriptor, is_document: bool, entry: &Entry) -> Result<bool> {
        let path = self.store.blob_path(&d.digest);
        let size = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            meta => Some(io_error("stat", &path, meta)?.len()),
        };
        let damage = match size {
            _ if self.damaged.contains(&d.digest) => Damage::Damaged,
            None => Damage::Missing,
            Some(size) if size != d.size => Damage::Size,
            Some(_) => return Ok(true),
        };
        self.add(d, damage, is_document, Some(entry));
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type;
    use serde_json::json;

    #[test]
    fn says_what_breaks_which_image() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let base = store.put(media_type::LAYER, b"base").unwrap();
        let config = store.put(media_type::CONFIG, b"{}").unwrap();
        let manifest = |layers: &[&Descriptor]| {
            let m = json!({"schemaVersion": 2, "config": config, "layers": layers});
            store.put(media_type::MANIFEST, m.to_string().as_bytes()).unwrap()
        };
        let own = store.put(media_type::LAYER, b"own").unwrap();
        let (one, two) = (manifest(&[&base]), manifest(&[&base, &own]));
        let absent = Descriptor::of(media_type::MANIFEST, b"other platform");
        let index = json!({"schemaVersion": 2, "manifests": [one, absent]});
        let index = store.put(media_type::INDEX, index.to_string().as_bytes()).unwrap();
        for (name, d) in [("one", &one), ("two", &two), ("index", &index)] {
            store.tag(&name.parse().unwrap(), d).unwrap();
        }
        let check = || {
            let damaged = store.damaged(2, &|_| ()).unwrap();
            let name = |f: &Fault| {
                let names: Vec<_> = f
                    .entries
                    .iter()
                    .map(|e| e.reference.as_ref().unwrap().repository().to_string())
                    .collect();
                format!("{} {} {}", f.descriptor.size, f.damage, names.join(" "))
            };
            store.faults(&damaged).unwrap().iter().map(name).collect::<BTreeSet<_>>()
        };
        assert!(check().is_empty());
        let path = store.blob_path(&base.digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"BASE").unwrap();
        fs::remove_file(store.blob_path(&own.digest)).unwrap();
        let all = "library/one library/two library/index";
        let want = [format!("4 damaged {all}"), "3 missing library/two".to_string()];
        assert_eq!(check(), want.into());
        store.set_aside(&base.digest).unwrap();
        assert!(!path.exists() && check().contains(&format!("4 missing {all}")));
        fs::remove_file(store.blob_path(&one.digest)).unwrap();
        assert!(check().iter().any(|f| f.contains("missing library/one library/index")), "{:?}", check());
    }
}
