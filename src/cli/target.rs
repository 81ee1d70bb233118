//! What a word on the command line means: a bundle, an image, a file or a folder.
//!
//! A word with a `/` that exists as a path is that path; one that begins with `/`, `./` or
//! `../` is never anything else. Otherwise a word is, in this order, a bundle of the store,
//! an image of the store, a path.

use super::{Error, Result};
use crate::bundle::{Bundle, Origin};
use crate::oci::{Name, Platform};
use crate::rootfs::{self, DriverKind};
use crate::store::{self, Store};
use std::path::{Path, PathBuf};

/// Something that can be run.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one lives, once")]
pub enum Target {
    /// A bundle of the store.
    Named(Bundle),
    /// A folder with a `config.json`.
    Folder(PathBuf),
    /// What a bundle can be made from.
    Origin(Origin),
}

/// Finds what `word` means.
///
/// # Errors
/// Where it means nothing, the store's error that no such image is there.
pub fn find(store: &Store, word: &str) -> Result<Target> {
    if word.contains('/')
        && let Some(target) = path(word)?
    {
        return Ok(target);
    }
    if let Some(bundle) = Bundle::find(store, word)? {
        return Ok(Target::Named(bundle));
    }
    match image(store, word) {
        Ok(origin) => Ok(Target::Origin(origin)),
        Err(e) => path(word)?.ok_or(e),
    }
}

/// Finds what `word` means where a bundle does not count.
///
/// # Errors
/// As [`find`].
pub fn origin(store: &Store, word: &str) -> Result<Origin> {
    let by_path = || -> Result<Option<Origin>> {
        Ok(match path(word)? {
            Some(Target::Origin(origin)) => Some(origin),
            Some(Target::Folder(folder)) => Some(Origin::Directory(folder.join("rootfs"))),
            Some(Target::Named(_)) | None => None,
        })
    };
    if word.contains('/')
        && let Some(origin) = by_path()?
    {
        return Ok(origin);
    }
    image(store, word).or_else(|e| by_path()?.ok_or(e))
}

/// The driver that `word` names; for `auto` the choice and its reason go to standard error.
///
/// # Errors
/// An unknown driver.
pub fn driver(store: &Store, origin: &Origin, word: &str) -> Result<DriverKind> {
    if word != "auto" {
        return Ok(word.parse::<DriverKind>()?);
    }
    let (driver, why) = rootfs::choose(store, &origin.source())?;
    say!("driver {driver}: {why}");
    Ok(driver)
}

fn image(store: &Store, word: &str) -> Result<Origin> {
    let entry = store.find(&word.parse::<Name>()?)?;
    let image = store.image(&entry.descriptor, &Platform::host())?;
    Ok(Origin::Image(entry.reference, Box::new(image)))
}

fn path(word: &str) -> Result<Option<Target>> {
    let only_path = ["/", "./", "../"].iter().any(|start| word.starts_with(start));
    let path = match Path::new(word).canonicalize() {
        Ok(path) => path,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !only_path => return Ok(None),
        Err(source) => {
            let path = PathBuf::from(word);
            return Err(Error::Store(store::Error::Io { action: "resolve", path, source }));
        }
    };
    Ok(Some(if path.join("config.json").is_file() {
        Target::Folder(path)
    } else if path.is_dir() {
        Target::Origin(Origin::Directory(path))
    } else {
        Target::Origin(Origin::File(path))
    }))
}
