//! What each layer of an image did: which one brought or removed a file, and what was for nothing.

use super::check::Check;
use super::report::{Finding, Source, plain};
use super::{Error, Result};
use crate::oci::Image;
use crate::store::Store;
use crate::tree::{Name, TreePath};
use crate::{analyze, layer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// The layers of an image, read when somebody asks.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    pub(super) store: &'a Store,
    pub(super) image: &'a Image,
    pub(super) read: OnceLock<std::result::Result<Vec<Work>, String>>,
}

/// What a layer does, by path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// What it brings.
    brings: BTreeSet<TreePath>,
    /// What it takes from the layers below.
    removes: BTreeMap<TreePath, Gone>,
}

/// What of a path a layer takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// All of it.
    All,
    /// What is below it.
    Below,
}

impl Layers<'_> {
    fn work(&self) -> Result<&[Work]> {
        let read = || -> Result<Vec<Work>> {
            std::thread::scope(|scope| {
                let one = |layer| scope.spawn(move || Work::read(self.store, layer));
                let mut all = Vec::new();
                // A few at a time: each has a thread that inflates, too.
                for some in self.image.layers.chunks(4) {
                    let threads: Vec<_> = some.iter().map(one).collect();
                    for thread in threads {
                        all.push(thread.join().map_err(|_| Error::Panic)??);
                    }
                }
                Ok(all)
            })
        };
        let read = self.read.get_or_init(|| read().map_err(|e| e.to_string()));
        read.as_deref().map_err(|e| Error::Layers(e.clone()))
    }

    /// The layer that brought the file, or the one that took it away.
    pub(super) fn source(&self, path: &TreePath) -> Option<Source> {
        let work = self.work().ok()?;
        let (layer, removed) = source(work, path)?;
        let by = self.made_by(layer);
        Some(Source { digest: self.image.layers.get(layer)?.descriptor.digest.clone(), removed, by })
    }

    /// What the image's history says of the layer.
    pub(super) fn made_by(&self, layer: usize) -> Option<String> {
        let history = self.image.config.history().iter().flatten();
        let step = history.filter(|h| h.empty_layer() != Some(true)).nth(layer)?;
        // Of what a recipe has made, the comment is where it says so.
        let words: Vec<&str> =
            [step.comment(), step.created_by()].into_iter().flatten().map(String::as_str).collect();
        let text = Some(words.join(": ")).filter(|t| !t.is_empty())?;
        let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        Some(plain(&text))
    }
}

impl Work {
    fn read(store: &Store, layer: &crate::oci::Layer) -> Result<Self> {
        let mut work = Self::default();
        layer::entries(store, layer, &mut |entry| match entry.name {
            Name::Entry(path) => drop(work.brings.insert(path)),
            Name::Whiteout(path) => drop(work.removes.insert(path, Gone::All)),
            Name::Opaque(path) => drop(work.removes.insert(path, Gone::Below)),
            Name::Ignored => {}
        })?;
        Ok(work)
    }

    /// Whether it takes `path` from the layers below.
    fn takes(&self, path: &TreePath) -> bool {
        let of = |path: &TreePath| self.removes.get(path).copied();
        of(path) == Some(Gone::All)
            || path.prefixes().filter(|p| p != path).chain([TreePath::root()]).any(|p| of(&p).is_some())
    }
}

/// The topmost layer that did something to `path`, and whether it took it away.
fn source(work: &[Work], path: &TreePath) -> Option<(usize, bool)> {
    work.iter().enumerate().rev().find_map(|(i, layer)| {
        if layer.brings.contains(path) {
            return Some((i, false));
        }
        layer.takes(path).then_some((i, true))
    })
}

/// `max-layers`.
pub(super) fn max_layers(check: &Check, layers: Option<&Layers>) -> Result<Vec<Finding>> {
    let found = layers.ok_or(Error::NoImage("layers"))?.image.layers.len() as u64;
    let most = check.max_layers.unwrap_or(u64::MAX);
    Ok((found > most)
        .then(|| Finding::new(format!("at most {most} layers"), found.to_string()))
        .into_iter()
        .collect())
}

/// `max-wasted`: what `analyze` counts.
pub(super) fn max_wasted(check: &Check, layers: Option<&Layers>) -> Result<Vec<Finding>> {
    let layers = layers.ok_or(Error::NoImage("layers"))?;
    let report = analyze::image(layers.store, layers.image, "")?;
    let total = report.total.waste;
    let Some(most) = check.max_wasted.as_ref().filter(|most| total > most.0) else { return Ok(Vec::new()) };
    let wasted = report.wasted();
    let limit = format!("at most {most} in files that a later layer hides or that repeat others");
    let mut findings = vec![Finding::new(limit, format!("{total} bytes in {} files", wasted.len()))];
    for (_, file) in wasted.into_iter().take(10) {
        let by = layers.made_by(file.layer);
        let digest = layers.image.layers.get(file.layer).map(|l| l.descriptor.digest.clone());
        let source = digest.map(|digest| Source { digest, removed: false, by });
        let found = format!("{} bytes for nothing: {}", file.bytes, report.reason(file));
        let finding = Finding::new("a file that is of use", found);
        // It is the layer that has the file that is named, not the one that hides it.
        findings.push(Finding { path: Some(file.path.to_string()), layer: source, ..finding });
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse_link(text.as_bytes()).unwrap()
    }

    /// `+a` brings, `-a` removes, `~a` hides what is below.
    fn work(layers: &[&str]) -> Vec<Work> {
        let one = |text: &&str| {
            let mut work = Work::default();
            for word in text.split_whitespace() {
                let (sign, name) = word.split_at(1);
                match sign {
                    "+" => drop(work.brings.insert(path(name))),
                    "-" => drop(work.removes.insert(path(name), Gone::All)),
                    _ => drop(work.removes.insert(path(name), Gone::Below)),
                }
            }
            work
        };
        layers.iter().map(one).collect()
    }

    #[test]
    fn who_did_it() {
        let layers = work(&["+a +d +d/x +d/y", "+a -d/x", "~d +d +d/z"]);
        for (name, want) in [
            ("a", Some((1, false))),
            ("d", Some((2, false))),
            ("d/x", Some((2, true))),
            ("d/z", Some((2, false))),
            ("e", None),
        ] {
            assert_eq!(source(&layers, &path(name)), want, "{name}");
        }
    }
}
