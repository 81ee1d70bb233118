//! Folders of images, written: OCI layouts and `dir:`.
//!
//! A layout that is there is added to: a blob is written under another name and renamed; the
//! index is replaced last, under a lock (flock(2)) of the folder, or of the store where the
//! layout is one. All other folders are built beside their place.

use super::writer::{Target, copy, rename};
use super::{Error, FULL_NAME, Kind, REF_NAME, Result, io_error};
use crate::oci::{Descriptor, media_type};
use crate::sys::Call;
use crate::sys::workspace::Workspace;
use rustix::fs::FlockOperation;
use serde_json::{Value, json};
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What containers/image writes into the file `version`.
const DIR_VERSION: &str = "Directory Transport Version: 1.1\n";

/// A folder being filled.
#[derive(Debug)]
pub(super) struct Folder {
    kind: Kind,
    target: PathBuf,
    /// Where it is filled: the target itself, or in the workspace.
    dir: PathBuf,
    /// Where files are until they are whole: in a layout that is there, or beside the target.
    work: Workspace,
    images: Mutex<Vec<(Descriptor, Vec<String>)>>,
}

impl Folder {
    /// Whether an OCI image layout is written.
    pub(super) fn is_layout(&self) -> bool {
        self.kind == Kind::Oci
    }

    pub(super) fn create(kind: Kind, target: &Path) -> Result<Self> {
        let (target, images) = (target.to_path_buf(), Mutex::default());
        if kind == Kind::Oci && is_layout(&target)? {
            let work = Workspace::beside(&target.join("index.json"))?;
            return Ok(Self { kind, dir: target.clone(), target, work, images });
        }
        match fs::read_dir(&target).map(|mut d| d.next().is_some()) {
            Ok(true) => return Err(Error::Exists(target)),
            Ok(false) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Err(Error::Exists(target)),
            Err(e) => return io_error("read", &target, Err(e)),
        }
        let work = Workspace::beside(&target)?;
        let dir = work.path().join("folder");
        io_error("create", &dir, fs::create_dir(&dir))?;
        Ok(Self { kind, target, dir, work, images })
    }

    fn path(&self, descriptor: &Descriptor) -> PathBuf {
        let digest = &descriptor.digest;
        if self.kind == Kind::Oci {
            return self.dir.join("blobs").join(digest.algorithm().as_str()).join(digest.hex());
        }
        let is_manifest = media_type::DOCUMENTS.contains(&descriptor.media_type.as_str());
        self.dir.join(if is_manifest {
            format!("{}.manifest.json", digest.hex())
        } else {
            digest.hex().into()
        })
    }

    pub(super) fn has(&self, descriptor: &Descriptor) -> bool {
        let there = fs::symlink_metadata(self.path(descriptor));
        there.is_ok_and(|m| m.is_file() && m.len() == descriptor.size)
    }

    pub(super) fn put(&self, descriptor: &Descriptor, content: &mut dyn Read) -> Result<()> {
        if self.has(descriptor) {
            return Ok(());
        }
        self.write(&self.path(descriptor), content)
    }

    /// Replaces `path` by a file with `content`, whole or not at all.
    fn write(&self, path: &Path, content: &mut dyn Read) -> Result<()> {
        let dir = path.parent().unwrap_or(path);
        io_error("create", dir, fs::create_dir_all(dir))?;
        let new = tempfile::NamedTempFile::new_in(self.work.path());
        let mut file = io_error("create a file in", self.work.path(), new)?;
        copy(&Target::Path(path.to_path_buf()), content, &mut file)?;
        io_error("chmod", path, file.as_file().set_permissions(Permissions::from_mode(0o644)))?;
        io_error("replace", path, file.persist(path).map(drop).map_err(|e| e.error))
    }

    pub(super) fn add(&self, root: &Descriptor, names: &[String]) -> Result<()> {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if self.kind == Kind::Dir && !images.is_empty() {
            let what = "a dir holds one image";
            return Err(Error::Unsupported { archive: self.target.display().to_string(), what });
        }
        images.push((root.clone(), names.to_vec()));
        Ok(())
    }

    pub(super) fn finish(self) -> Result<()> {
        let images = std::mem::take(&mut *self.images.lock().unwrap_or_else(PoisonError::into_inner));
        if self.kind == Kind::Dir {
            if let Some((root, _)) = images.first() {
                let name = format!("{}.manifest.json", root.digest.hex());
                rename(&self.dir.join(name), &self.dir.join("manifest.json"))?;
            }
            self.write(&self.dir.join("version"), &mut DIR_VERSION.as_bytes())?;
        } else {
            let _lock = lock(&self.dir)?;
            let marker = self.dir.join("oci-layout");
            if !marker.exists() {
                self.write(&marker, &mut &br#"{"imageLayoutVersion":"1.0.0"}"#[..])?;
            }
            let path = self.dir.join("index.json");
            let index = with_images(read_index(&path)?, &images);
            self.write(&path, &mut format!("{index:#}\n").as_bytes())?;
        }
        if self.dir == self.target { Ok(()) } else { rename(&self.dir, &self.target) }
    }
}

/// Whether an OCI layout is there.
fn is_layout(dir: &Path) -> Result<bool> {
    let text = match fs::read(dir.join("oci-layout")) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        text => io_error("read", &dir.join("oci-layout"), text)?,
    };
    let marker = serde_json::from_slice::<Value>(&text).unwrap_or_default();
    if marker["imageLayoutVersion"] == "1.0.0" {
        return Ok(true);
    }
    let what = "the OCI layout is not of version 1.0.0";
    Err(Error::Unsupported { archive: dir.display().to_string(), what })
}

/// The lock under which the index is replaced.
fn lock(dir: &Path) -> Result<File> {
    let store = dir.join("shipimg/lock");
    let path = if store.is_file() { &store } else { dir };
    let file = io_error("open", path, File::open(path))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).call(|| format!("flock({})", path.display()))?;
    Ok(file)
}

fn read_index(path: &Path) -> Result<Value> {
    let text = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": []}));
        }
        text => io_error("read", path, text)?,
    };
    let archive = path.parent().unwrap_or(path).display().to_string();
    let index: Value = serde_json::from_slice(&text).map_err(|source| Error::Json {
        archive: archive.clone(),
        name: "index.json".into(),
        source,
    })?;
    if index.is_object() && index["manifests"].is_array() {
        return Ok(index);
    }
    Err(Error::Unsupported { archive, what: "its index.json is no image index" })
}

/// The index with these images, each name once; what else there is stays.
pub(super) fn with_images(mut index: Value, images: &[(Descriptor, Vec<String>)]) -> Value {
    let Some(manifests) = index["manifests"].as_array_mut() else { return index };
    for (root, names) in images {
        let mut entry = root.clone();
        entry.annotations.remove(REF_NAME);
        entry.annotations.remove(FULL_NAME);
        if names.is_empty() && !manifests.iter().any(|m| m["digest"] == root.digest.to_string()) {
            manifests.push(json!(entry));
        }
        for name in names {
            manifests.retain(|m| m["annotations"][REF_NAME] != *name);
            for key in [REF_NAME, FULL_NAME] {
                entry.annotations.insert(key.to_string(), name.clone());
            }
            manifests.push(json!(entry));
        }
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_once() {
        let (one, two) =
            (Descriptor::of(media_type::MANIFEST, b"1"), Descriptor::of(media_type::MANIFEST, b"2"));
        let index = json!({"schemaVersion": 2, "x": 1, "manifests": []});
        let names = |n: &[&str]| n.iter().map(ToString::to_string).collect::<Vec<_>>();
        let index = with_images(index, &[(one.clone(), names(&["a:1", "a:2"])), (two.clone(), names(&[]))]);
        let index = with_images(index, &[(two.clone(), names(&["a:1"])), (one.clone(), names(&[]))]);
        let list: Vec<_> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| (m["annotations"][REF_NAME].as_str().unwrap_or("-"), m["digest"].as_str().unwrap()))
            .collect();
        let (one, two) = (one.digest.to_string(), two.digest.to_string());
        assert_eq!(list, [("a:2", &*one), ("-", &*two), ("a:1", &*two)]);
        assert_eq!(index["x"], 1);
    }
}
