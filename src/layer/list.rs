//! A layer as the list of its entries, for whoever counts files and writes none.

use super::Result;
use super::archive::Archive;
use super::contents::{MAX_HOLES, Sum};
use super::stream::Tar;
use crate::oci::Layer;
use crate::store::Store;
use crate::tree::{Entry, Kind};

/// What a layer has of a regular file.
#[derive(Debug, Default)]
pub struct Held {
    /// Bytes of its content in the tar: without holes.
    pub bytes: u64,
    /// SHA-256 of the content; none where more than 1 GiB is in holes.
    pub sha256: Option<[u8; 32]>,
    /// The content itself, where it was wanted.
    pub content: Option<Vec<u8>>,
}

/// Reads `layer` to its end, verified, and gives each entry to `each`, in the order of the tar, with
/// what there is of regular files. Of those for which `wanted` says so, knowing how many bytes they
/// have, the content too; one with holes has none to give. Gives the bytes of the tar.
///
/// # Errors
/// Any [`super::Error`] of a damaged or malformed layer; what `each` was given is then worthless.
pub fn list(
    store: &Store,
    layer: &Layer,
    wanted: &dyn Fn(&Entry) -> bool,
    each: &mut dyn FnMut(Entry, Held),
) -> Result<u64> {
    walk(store, layer, |archive, entry| {
        let held =
            if entry.kind == Kind::File { held(archive, &entry, wanted(&entry))? } else { Held::default() };
        each(entry, held);
        Ok(())
    })
}

/// The same without looking at contents.
///
/// # Errors
/// As [`list`].
pub fn entries(store: &Store, layer: &Layer, each: &mut dyn FnMut(Entry)) -> Result<()> {
    let entry = |_: &mut Archive, entry| {
        each(entry);
        Ok(())
    };
    walk(store, layer, entry).map(drop)
}

/// Reads `layer` to its end, verified; gives the bytes of its tar.
fn walk(
    store: &Store,
    layer: &Layer,
    mut each: impl FnMut(&mut Archive, Entry) -> Result<()>,
) -> Result<u64> {
    std::thread::scope(|scope| {
        let mut archive = Archive::new(Tar::open(scope, store, layer)?);
        while let Some(entry) = archive.next()? {
            each(&mut archive, entry)?;
        }
        archive.tar.finish()
    })
}

fn held(archive: &mut Archive, entry: &Entry, wanted: bool) -> Result<Held> {
    let holes = archive.holes(entry.size);
    let mut held = Held { bytes: entry.size - holes, ..Held::default() };
    if holes > MAX_HOLES {
        return Ok(held);
    }
    archive.count_holes(entry.size)?;
    let mut sum = Sum::new();
    let mut content = (wanted && holes == 0).then(Vec::new);
    archive.content(|offset, bytes| {
        sum.feed(offset, bytes);
        if let Some(content) = &mut content {
            content.extend_from_slice(bytes);
        }
        Ok(())
    })?;
    held.sha256 = sum.finish(entry.size);
    held.content = content;
    Ok(held)
}
