//! Images made by code: an OCI image layout with layers given as tar bytes.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A layer's blob as it will lie in the layout.
pub struct Blob {
    /// The bytes as stored.
    pub bytes: Vec<u8>,
    /// Media type for the descriptor.
    pub media_type: String,
    /// `sha256:…` of the uncompressed tar.
    pub diff_id: String,
}

impl Blob {
    /// An uncompressed layer.
    pub fn tar(tar: &[u8]) -> Self {
        Self {
            bytes: tar.to_vec(),
            media_type: "application/vnd.oci.image.layer.v1.tar".into(),
            diff_id: sha256(tar),
        }
    }

    /// A gzip layer.
    pub fn gzip(tar: &[u8]) -> Self {
        Self::gzip_at(tar, flate2::Compression::fast())
    }

    /// A gzip layer, as small as can be.
    pub fn gzip_best(tar: &[u8]) -> Self {
        Self::gzip_at(tar, flate2::Compression::best())
    }

    fn gzip_at(tar: &[u8], level: flate2::Compression) -> Self {
        let mut z = flate2::write::GzEncoder::new(Vec::new(), level);
        z.write_all(tar).unwrap();
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip".into();
        Self { bytes: z.finish().unwrap(), media_type, diff_id: sha256(tar) }
    }

    /// A zstd layer.
    pub fn zstd(tar: &[u8]) -> Self {
        let media_type = "application/vnd.oci.image.layer.v1.tar+zstd".into();
        Self { bytes: zstd::encode_all(tar, 1).unwrap(), media_type, diff_id: sha256(tar) }
    }
}

impl Blob {
    /// `sha256:…` of the blob.
    pub fn digest(&self) -> String {
        sha256(&self.bytes)
    }
}

/// `sha256:…` of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// An OCI image layout being filled.
pub struct Layout {
    path: PathBuf,
}

impl Layout {
    /// A new layout in the folder `path`.
    pub fn new(path: &Path) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": []});
        fs::write(path.join("index.json"), index.to_string()).unwrap();
        Self { path: path.to_path_buf() }
    }

    /// The one that is there.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a blob in; gives its descriptor.
    pub fn put(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        fs::write(self.path.join("blobs/sha256").join(&digest[7..]), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Adds an image of these layers under `name`; `config` is the config's `config` object.
    /// Gives the manifest's digest.
    pub fn add(&self, name: &str, layers: &[Blob], config: &Value) -> String {
        let diff_ids: Vec<&str> = layers.iter().map(|l| l.diff_id.as_str()).collect();
        self.add_as(name, layers, config, &diff_ids)
    }

    /// Adds an image whose configuration claims these diff ids.
    pub fn add_as(&self, name: &str, layers: &[Blob], config: &Value, diff_ids: &[&str]) -> String {
        let config = json!({"architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = self.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let layers: Vec<Value> = layers.iter().map(|l| self.put(&l.media_type, &l.bytes)).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers});
        self.name(name, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())
    }

    /// Adds a document under `name`; gives its digest.
    pub fn name(&self, name: &str, media_type: &str, document: &[u8]) -> String {
        let mut entry = self.put(media_type, document);
        let digest = entry["digest"].as_str().unwrap().to_string();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let path = self.path.join("index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        index["manifests"].as_array_mut().unwrap().push(entry);
        fs::write(&path, index.to_string()).unwrap();
        digest
    }
}

/// A tar being written, entry by entry, with nothing checked: names go in as they are.
pub struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    /// An empty one.
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Any entry; `link` is its link target, `data` its content. A long name or link gets a GNU header.
    pub fn entry(mut self, kind: tar::EntryType, name: &str, mode: u32, link: &str, data: &[u8]) -> Self {
        let mut h = tar::Header::new_gnu();
        h.set_entry_type(kind);
        h.set_mode(mode);
        h.set_size(data.len() as u64);
        h.set_mtime(1_700_000_000);
        h.set_uid(0);
        h.set_gid(0);
        let old = h.as_old_mut();
        if name.len() <= 100 && link.len() <= 100 {
            old.name[..name.len()].copy_from_slice(name.as_bytes());
            old.linkname[..link.len()].copy_from_slice(link.as_bytes());
            h.set_cksum();
            self.0.append(&h, data).unwrap();
            return self;
        }
        for (flag, text) in [(b'L', name), (b'K', link)] {
            if text.len() > 100 {
                let mut long = tar::Header::new_gnu();
                long.set_entry_type(tar::EntryType::new(flag));
                long.set_size(text.len() as u64 + 1);
                long.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
                long.set_cksum();
                let bytes: Vec<u8> = text.bytes().chain([0]).collect();
                self.0.append(&long, &bytes[..]).unwrap();
            }
        }
        let old = h.as_old_mut();
        let (n, l) = (name.len().min(100), link.len().min(100));
        old.name[..n].copy_from_slice(&name.as_bytes()[..n]);
        old.linkname[..l].copy_from_slice(&link.as_bytes()[..l]);
        h.set_cksum();
        self.0.append(&h, data).unwrap();
        self
    }

    /// A regular file, mode 0644.
    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(tar::EntryType::Regular, name, 0o644, "", data)
    }

    /// A directory, mode 0755.
    pub fn dir(self, name: &str) -> Self {
        self.entry(tar::EntryType::Directory, name, 0o755, "", b"")
    }

    /// A symbolic link.
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, name, 0o777, target, b"")
    }

    /// A hard link.
    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, name, 0o644, target, b"")
    }

    /// A header of anybody's making, for which only the checksum is put right.
    pub fn header(mut self, header: &tar::Header) -> Self {
        let mut header = header.clone();
        header.set_cksum();
        self.0.append(&header, &b""[..]).unwrap();
        self
    }

    /// PAX records for the next entry.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    /// The bytes, with the end marker.
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}
