//! `shipimg.json`: what the folder of `unpack` was made from, so that `repack` knows.

use super::{Result, io_error, write_json};
use crate::oci::{Descriptor, Digest};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Its name in the folder.
const FILE: &str = "shipimg.json";

/// The name of the record of its files.
pub const RECORD: &str = "shipimg.names";

/// The record of a folder that `unpack` made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unpacked {
    /// The manifest of the image.
    pub image: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// The manifest of the files, where one was written: absolute, or relative to the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtree: Option<PathBuf>,
}

impl Unpacked {
    /// Of an image's manifest.
    #[must_use]
    pub fn of(image: &Descriptor, mtree: Option<PathBuf>) -> Self {
        Self { image: image.digest.clone(), media_type: image.media_type.clone(), size: image.size, mtree }
    }

    /// The image's manifest.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.image.clone(), self.size)
    }

    /// Reads it from the folder `dir`; none where it is not there.
    ///
    /// # Errors
    /// [`super::Error::Io`].
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let file = dir.join(FILE);
        match fs::read(&file) {
            Ok(text) => {
                io_error("parse", &file, serde_json::from_slice(&text).map_err(io::Error::from)).map(Some)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => io_error("read", &file, Err(e)),
        }
    }

    /// Writes it into the folder `dir`.
    ///
    /// # Errors
    /// [`super::Error::Io`].
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join(FILE), self)
    }
}
