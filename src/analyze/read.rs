//! Layers and folders as lists of entries: each read once, layers several at once.

use super::Result;
use super::fold::{Item, What};
use crate::layer::{self, Held, Owners};
use crate::oci::Layer;
use crate::packages::{MOST_DATABASE, is_database};
use crate::store::Store;
use crate::sys::Call;
use crate::sys::dir::Dir;
use crate::tree::{Entry, Kind, Name, TreePath};
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How many bytes of databases are held at once, of all layers together.
const MOST_TEXT: u64 = MOST_DATABASE;

/// A layer, read.
#[derive(Debug)]
pub struct Listing {
    /// Its entries, in the order of its tar.
    pub items: Vec<Item>,
    /// Bytes of its tar; none of a folder.
    pub tar: Option<u64>,
}

/// The layers in their order, and whether all parts of databases could be held.
///
/// # Errors
/// Those of a damaged or malformed layer.
pub fn layers(store: &Store, layers: &[Layer]) -> Result<(Vec<Listing>, bool)> {
    let workers = thread::available_parallelism().map_or(2, usize::from).clamp(1, layers.len().max(1));
    let (next, budget) = (AtomicUsize::new(0), Budget::new());
    let work = || {
        let mut mine = Vec::new();
        loop {
            // From the top: what a layer has of a database, those below need not hold.
            let number = layers.len().checked_sub(next.fetch_add(1, Ordering::Relaxed) + 1);
            let Some((number, layer)) = number.and_then(|n| Some((n, layers.get(n)?))) else {
                return Ok(mine);
            };
            let read = list(store, (number, layer), &budget);
            mine.push((number, read.inspect_err(|_| next.store(layers.len(), Ordering::Relaxed))?));
        }
    };
    let read: Result<Vec<_>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Result<Vec<_>>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().map(join).collect()
    });
    let mut all: Vec<(usize, Listing)> = read?.into_iter().flatten().collect();
    all.sort_by_key(|(number, _)| *number);
    Ok((all.into_iter().map(|(_, listing)| listing).collect(), !budget.is_spent()))
}

/// What may still be held of databases.
struct Budget {
    left: AtomicU64,
    /// The highest layer that has a file.
    highest: Mutex<HashMap<TreePath, usize>>,
}

impl Budget {
    const SPENT: u64 = u64::MAX;

    fn new() -> Self {
        Self { left: AtomicU64::new(MOST_TEXT), highest: Mutex::default() }
    }

    /// Whether the file is a part of a database, no layer above hides it that is known, and it may be held.
    fn take(&self, layer: usize, path: &TreePath, bytes: u64) -> bool {
        if !is_database(path) {
            return false;
        }
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        match highest.get(path) {
            Some(above) if *above > layer => return false,
            _ => drop(highest.insert(path.clone(), layer)),
        }
        let left = |left: u64| {
            if left == Self::SPENT { None } else { Some(left.checked_sub(bytes).unwrap_or(Self::SPENT)) }
        };
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        before.is_ok_and(|before| before >= bytes)
    }

    fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == Self::SPENT
    }
}

fn list(store: &Store, (number, layer): (usize, &Layer), budget: &Budget) -> Result<Listing> {
    let mut items = Vec::new();
    let wanted = |entry: &Entry| match &entry.name {
        Name::Entry(path) => budget.take(number, path, entry.size),
        _ => false,
    };
    let tar = layer::list(store, layer, &wanted, &mut |entry, held| items.extend(item(entry, held)))?;
    items.shrink_to_fit();
    Ok(Listing { items, tar: Some(tar) })
}

fn item(entry: Entry, held: Held) -> Option<Item> {
    let (path, what) = match entry.name {
        Name::Whiteout(path) => (path, What::Whiteout),
        Name::Opaque(path) => (path, What::Opaque),
        Name::Ignored => return None,
        Name::Entry(path) => {
            let what = match entry.kind {
                Kind::File => What::File {
                    bytes: held.bytes,
                    sha256: held.sha256,
                    text: held.content.map(Vec::into_boxed_slice),
                },
                Kind::Directory => What::Directory,
                Kind::Link(target) => What::Link(target),
                Kind::Symlink(target) => What::Symlink(target),
                Kind::Char(..) | Kind::Block(..) | Kind::Fifo => What::Special,
                Kind::Socket => return None,
            };
            (path, what)
        }
    };
    Some(Item { path, what })
}

/// The files of the folder `root`, as one layer. `owners` may know what they do not tell.
///
/// # Errors
/// The first failed call.
pub fn folder(root: &Path, owners: Option<std::sync::Arc<Owners>>) -> Result<Listing> {
    let tree = layer::manifest(root, None, &layer::Options { owners, ..layer::Options::default() })?.tree;
    let (top, budget) = (Dir::open(root)?, Budget::new());
    let mut items = Vec::with_capacity(tree.len());
    for (path, node) in tree {
        let what = match (node.kind, node.same) {
            (Kind::File, Some(first)) if first != path => What::Link(first),
            (Kind::File, _) => {
                let wanted = budget.take(0, &path, node.size);
                let text =
                    if wanted { Some(content(&top, &path, node.size)?.into_boxed_slice()) } else { None };
                What::File { bytes: node.size, sha256: node.sha256, text }
            }
            (Kind::Directory, _) => What::Directory,
            (Kind::Symlink(target), _) => What::Symlink(target),
            _ => What::Special,
        };
        items.push(Item { path, what });
    }
    Ok(Listing { items, tar: None })
}

fn content(top: &Dir, path: &TreePath, size: u64) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    if let Some((parent, name)) = path.split() {
        let file = top.below(parent.as_path())?.file(name)?;
        file.take(size).read_to_end(&mut content).call(|| format!("read({path})"))?;
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_has_a_limit() {
        let path = |text: &str| TreePath::parse_link(text.as_bytes()).unwrap();
        let (status, list) = (path("var/lib/dpkg/status"), path("var/lib/dpkg/info/a.list"));
        let budget = Budget { left: AtomicU64::new(10), highest: Mutex::default() };
        assert!(!budget.take(1, &path("etc/passwd"), 1));
        assert!(budget.take(1, &status, 4) && !budget.take(0, &status, 4), "what is hidden is not held");
        assert!(budget.take(0, &list, 6) && !budget.is_spent());
        assert!(!budget.take(2, &status, 1) && budget.is_spent());
        assert!(!budget.take(3, &list, 0), "once spent, nothing more is held");
    }
}
