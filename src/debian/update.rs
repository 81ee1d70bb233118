//! A lock brought up to date: as a whole, or as little as some packages need.
//!
//! What the archives give today ([`super::resolve`]) is a set that fits together; so was the lock.
//! In between, packages of the lock are exchanged for today's one by one, until all needs are met
//! and nothing conflicts: the named ones first, then what their new versions need and what cannot
//! stay beside them. Each exchange is of one that is not as today, so that this ends, at worst with
//! all as today. Packages of the lock that today's set has not go when nothing needs them any more.

use super::bootstrap::{download, resolved, verified};
use super::control::{Atom, Dependency, Package, dependencies, described};
use super::fetch::Fetcher;
use super::lock::{Lock, Pin};
use super::plan::Variant;
use super::solve::{fits, offered};
use super::{Progress, Request, Result};
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};

/// A package that is not the same in two locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// Its version before; none where it was not there.
    pub old: Option<String>,
    /// Its version now; none where it is gone.
    pub new: Option<String>,
    /// What led to it, as `tool → lib (>= 2)`, `lib → not other (<< 3)` where they would conflict; none
    /// where all packages were looked at.
    pub reason: Option<String>,
}

/// The lock of what `old` was made for, with today's packages in place of the named ones and of those
/// that these need; without names, of all. What is different, sorted by name.
///
/// # Errors
/// Those of [`super::resolve`], and of downloads: of packages that the archives have in other versions
/// only, the dependencies are read in their files.
pub fn update(
    old: &Lock,
    names: Option<&[String]>,
    request: &Request,
    store: &Store,
    progress: &dyn Progress,
) -> Result<(Lock, Vec<Change>)> {
    let (mut lock, full, universe) = resolved(request, store, progress)?;
    let mut reasons = BTreeMap::new();
    if let Some(names) = names {
        let now = |p: &Pin| full.iter().find(|f| f.sha256 == p.sha256);
        let listed = |p: &Pin| universe.versions(&p.name).find(|f| f.sha256 == p.sha256);
        let known: Vec<Option<Package>> =
            old.packages.iter().map(|p| now(p).or_else(|| listed(p)).cloned()).collect();
        let missing: Vec<Pin> =
            old.packages.iter().zip(&known).filter(|(_, k)| k.is_none()).map(|(p, _)| p.clone()).collect();
        let read = relations(&missing, old, request, store, progress)?;
        let mut read = read.into_iter();
        let known = known.into_iter().filter_map(|k| k.or_else(|| read.next()));
        let plain = request.variant == Variant::Custom;
        let node = |(package, pin): (Package, &Pin)| Node::new(&package, pin, plain);
        let before: Vec<Node> = known.zip(&old.packages).map(node).collect();
        let today: Vec<Node> = full.iter().cloned().zip(&lock.packages).map(node).collect();
        (lock.packages, reasons) = exchange(&before, &today, names);
    }
    keep(old, &mut lock);
    let mut changes = changes(Some(old), &lock);
    for change in &mut changes {
        change.reason = reasons.remove(&change.name);
    }
    Ok((lock, changes))
}

/// Packages of `lock` with their relations, read in their files.
fn relations(
    pins: &[Pin],
    lock: &Lock,
    request: &Request,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Vec<Package>> {
    if pins.is_empty() {
        return Ok(Vec::new());
    }
    let fetcher = Fetcher::new(request.settings.proxies.clone());
    let files = download(pins, lock, &request.archive, store, &fetcher, progress)?;
    let read = verified(pins, &files, false)?;
    Ok(read.into_iter().map(|job| described(&job.control.paragraph)).collect())
}

/// Where a package of the old lock has the same file as in the new one, its address stays.
fn keep(old: &Lock, new: &mut Lock) {
    let before: BTreeMap<&str, &Pin> = old.packages.iter().map(|p| (p.name.as_str(), p)).collect();
    for pin in &mut new.packages {
        if let Some(same) = before.get(pin.name.as_str()).filter(|b| b.sha256 == pin.sha256) {
            pin.url.clone_from(&same.url);
        }
    }
}

/// What is different between two locks, sorted by name; all where there was none. Packages of one
/// version with other files are.
#[must_use]
pub fn changes(old: Option<&Lock>, new: &Lock) -> Vec<Change> {
    let pins = |lock: &'_ Lock| lock.packages.iter().map(|p| (p.name.clone(), p.clone())).collect();
    let (old, new): (BTreeMap<String, Pin>, BTreeMap<String, Pin>) =
        (old.map_or_else(BTreeMap::new, pins), pins(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |name: &String| {
        let (old, new) = (old.get(name), new.get(name));
        let version = |p: Option<&Pin>| p.map(|p| p.version.clone());
        let change = Change { name: name.clone(), old: version(old), new: version(new), reason: None };
        (old.map(|p| &p.sha256) != new.map(|p| &p.sha256)).then_some(change)
    };
    names.into_iter().filter_map(change).collect()
}

/// A package with its relations.
#[derive(Debug)]
struct Node {
    package: Package,
    pin: Pin,
    needs: Vec<Dependency>,
    conflicts: Vec<Atom>,
}

impl Node {
    /// With `plain` its relations do not count.
    fn new(package: &Package, pin: &Pin, plain: bool) -> Self {
        let (mut needs, mut conflicts) = (Vec::new(), Vec::new());
        if !plain {
            needs = package.all_depends();
            conflicts = dependencies(&package.conflicts).into_iter().flatten().collect();
        }
        Self { package: package.clone(), pin: pin.clone(), needs, conflicts }
    }

    fn meets(&self, need: &[Atom]) -> bool {
        need.iter().any(|atom| fits(&self.package, atom))
    }
}

/// A set of packages on its way from a lock's to today's.
struct Set<'n> {
    now: BTreeMap<&'n str, &'n Node>,
    today: BTreeMap<&'n str, &'n Node>,
    /// What led to the exchange of each that was exchanged.
    chains: BTreeMap<&'n str, String>,
}

/// The packages after the exchange, sorted by name, and the reasons by name.
fn exchange(old: &[Node], today: &[Node], names: &[String]) -> (Vec<Pin>, BTreeMap<String, String>) {
    let by_name =
        |nodes| -> BTreeMap<_, _> { Iterator::map(nodes, |n: &Node| (n.pin.name.as_str(), n)).collect() };
    let mut set = Set { now: by_name(old.iter()), today: by_name(today.iter()), chains: BTreeMap::new() };
    for node in old.iter().filter(|n| names.contains(&n.pin.name)) {
        set.exchange(&node.pin.name, node.pin.name.clone());
    }
    while let Some((name, chain)) = set.broken() {
        set.exchange(name, chain);
    }
    set.sweep();
    let reason = |(name, chain): (&str, String)| {
        let reason = if chain == name { "asked for".to_string() } else { chain };
        (name.to_string(), reason)
    };
    let packages = set.now.values().map(|n| n.pin.clone()).collect();
    (packages, set.chains.into_iter().map(reason).collect())
}

impl<'n> Set<'n> {
    fn exchange(&mut self, name: &'n str, chain: String) {
        match self.today.get(name) {
            Some(node) => self.now.insert(name, node),
            None => self.now.remove(name),
        };
        self.chains.insert(name, chain);
    }

    fn is_todays(&self, node: &Node) -> bool {
        self.today.get(node.pin.name.as_str()).is_some_and(|t| t.pin.sha256 == node.pin.sha256)
    }

    fn chain(&self, node: &Node) -> String {
        let name = node.pin.name.as_str();
        self.chains.get(name).cloned().unwrap_or_else(|| name.to_string())
    }

    /// Names, real and provided, to who has them.
    fn offers(&self) -> BTreeMap<String, Vec<&'n Node>> {
        let mut offers: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
        for node in self.now.values() {
            for name in offered(&node.package) {
                offers.entry(name).or_default().push(node);
            }
        }
        offers
    }

    /// A package that has to be exchanged, and why; none where all fits.
    fn broken(&self) -> Option<(&'n str, String)> {
        let offers = self.offers();
        let offering = |atom: &Atom| offers.get(&atom.name).into_iter().flatten().copied();
        let meeting = |atom: &Atom| offering(atom).find(|n| fits(&n.package, atom));
        for &node in self.now.values() {
            let unmet = node.needs.iter().filter(|need| !need.iter().any(|atom| meeting(atom).is_some()));
            if let Some(found) = unmet.into_iter().find_map(|need| self.unmet(node, need)) {
                return Some(found);
            }
            let hurt = |atom| offering(atom).find(|n| n.pin.name != node.pin.name && fits(&n.package, atom));
            let pairs = node.conflicts.iter().filter_map(|atom| Some((atom, hurt(atom)?)));
            if let Some(found) = pairs.into_iter().find_map(|(atom, other)| self.conflict(node, atom, other))
            {
                return Some(found);
            }
        }
        None
    }

    /// Who is exchanged where `node` needs what is not there.
    fn unmet(&self, node: &'n Node, need: &Dependency) -> Option<(&'n str, String)> {
        let text = need.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        if self.is_todays(node) {
            let meets = |atom: &Atom| self.today.values().find(|n| fits(&n.package, atom)).copied();
            let found = need.iter().find_map(meets).filter(|n| !self.now_has(n))?;
            return Some((&found.pin.name, format!("{} → {text}", self.chain(node))));
        }
        let gone = need.iter().find_map(|atom| self.chains.get(atom.name.as_str()));
        let because = gone.map_or(String::new(), |chain| format!("{chain} → "));
        let (name, version) = (&node.pin.name, &node.pin.version);
        Some((name, format!("{because}{name}, whose {version} needs {text}")))
    }

    fn now_has(&self, node: &Node) -> bool {
        self.now.get(node.pin.name.as_str()).is_some_and(|n| n.pin.sha256 == node.pin.sha256)
    }

    /// Who is exchanged where `node` conflicts with `other`.
    fn conflict(&self, node: &'n Node, atom: &Atom, other: &'n Node) -> Option<(&'n str, String)> {
        if !self.is_todays(other) {
            return Some((&other.pin.name, format!("{} → not {atom}", self.chain(node))));
        }
        let (name, version) = (&node.pin.name, &node.pin.version);
        let chain = || format!("{} → {name}, whose {version} conflicts with {atom}", self.chain(other));
        (!self.is_todays(node)).then(|| (name.as_str(), chain()))
    }

    /// Takes away what is not of today and what nothing needs.
    fn sweep(&mut self) {
        let (offers, mut needed) = (self.offers(), BTreeSet::new());
        let mut open: Vec<&Node> =
            self.now.values().filter(|n| self.today.contains_key(n.pin.name.as_str())).copied().collect();
        while let Some(node) = open.pop() {
            if !needed.insert(node.pin.name.as_str()) {
                continue;
            }
            for need in &node.needs {
                let names = need.iter().filter_map(|atom| offers.get(&atom.name)).flatten();
                open.extend(names.filter(|n| n.meets(need)));
            }
        }
        for name in self.now.keys().copied().filter(|n| !needed.contains(n)) {
            self.chains.insert(name, "nothing needs it any more".to_string());
        }
        self.now.retain(|name, _| needed.contains(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name version|fields` lines, `;` between fields.
    fn nodes(lines: &[&str]) -> Vec<Node> {
        let node = |line: &&str| {
            let (head, fields) = line.split_once('|').unwrap_or((line, ""));
            let (name, version) = head.split_once(' ').unwrap();
            let control = format!("Package: {name}\nVersion: {version}\n{}\n", fields.replace(';', "\n"));
            let pin = Pin {
                name: name.to_string(),
                version: version.to_string(),
                architecture: "all".to_string(),
                sha256: line.to_string(),
                size: 1,
                url: String::new(),
                base: false,
            };
            Node::new(&described(&control), &pin, false)
        };
        lines.iter().map(node).collect()
    }

    #[test]
    fn as_little_as_is_needed() {
        type Case = (&'static [&'static str], &'static [&'static str], &'static str, &'static str, Why);
        type Why = &'static [(&'static str, &'static str)];
        const OLD: [&str; 3] = ["a 1", "b 1", "c 1"];
        const NEW: [&str; 3] = ["a 2", "b 2", "c 2"];
        let table: &[Case] = &[
            (&OLD, &NEW, "b", "a 1, b 2, c 1", &[("b", "asked for")]),
            (&OLD, &NEW, "a b", "a 2, b 2, c 1", &[]),
            // A new dependency, and one of that.
            (
                &OLD,
                &["a 2|Depends: n", "b 2", "c 2", "n 1|Depends: b (>= 2)"],
                "a",
                "a 2, b 2, c 1, n 1",
                &[("n", "a → n"), ("b", "a → n → b (>= 2)")],
            ),
            // A pin too old for it, by the second alternative; one that provides a name.
            (&OLD, &["a 2|Depends: x / c (>= 2)", "b 2", "c 2"], "a", "a 2, b 1, c 2", &[]),
            (&OLD, &["a 2|Depends: v", "b 2", "c 2", "p 1|Provides: v"], "a", "a 2, b 1, c 1, p 1", &[]),
            // Conflicts in both directions.
            (
                &OLD,
                &["a 2|Breaks: b (<< 2)", "b 2", "c 2"],
                "a",
                "a 2, b 2, c 1",
                &[("b", "a → not b (<< 2)")],
            ),
            (
                &["a 1", "b 1|Conflicts: a (>> 1)", "c 1"],
                &NEW,
                "a",
                "a 2, b 2, c 1",
                &[("b", "a → b, whose 1 conflicts with a (>> 1)")],
            ),
            (&OLD, &["a 2|Conflicts: b", "c 2"], "a", "a 2, c 1", &[("b", "a → not b")]),
            // A pin that needs what went.
            (
                &["a 1", "b 1|Depends: a (= 1)", "c 1|Depends: b"],
                &["a 2", "b 2|Depends: a (= 2)", "c 2|Depends: b"],
                "a",
                "a 2, b 2, c 1",
                &[("b", "a → b, whose 1 needs a (= 1)")],
            ),
            // What nothing needs any more, also in a circle.
            (
                &["a 1|Depends: b", "b 1|Depends: c", "c 1|Depends: b", "d 1"],
                &["a 2", "d 2"],
                "a",
                "a 2, d 1",
                &[("b", "nothing needs it any more"), ("c", "nothing needs it any more")],
            ),
            // What today's set has not, but the lock's needs, stays.
            (&["a 1|Depends: b", "b 1", "d 1"], &["a 2", "d 2"], "d", "a 1|Depends: b, b 1, d 2", &[]),
            (&OLD, &OLD, "a", "a 1, b 1, c 1", &[]),
        ];
        for (old, new, names, want, reasons) in table {
            let slash =
                |lines: &[&str]| -> Vec<String> { lines.iter().map(|l| l.replace(" / ", " | ")).collect() };
            let new: Vec<String> = slash(new);
            let (old, new) = (nodes(old), nodes(&new.iter().map(String::as_str).collect::<Vec<_>>()));
            let names: Vec<String> = names.split(' ').map(str::to_string).collect();
            let (pins, why) = exchange(&old, &new, &names);
            let want: Vec<&str> = want.split(", ").map(|w| w.split('|').next().unwrap()).collect();
            let got: Vec<String> = pins.iter().map(|p| format!("{} {}", p.name, p.version)).collect();
            assert_eq!(got, want);
            for (name, reason) in *reasons {
                assert_eq!(why.get(*name).map(String::as_str), Some(*reason));
            }
        }
    }
}
