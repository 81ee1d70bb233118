//! Which packages a root gets: pure, from an index and wishes to a list.
//!
//! The base of `minbase` follows debootstrap's own simple rule, so that the set is the same:
//! all packages of priority `required`, then `apt`, each closed over the first alternative
//! of `Pre-Depends` and `Depends`, names that no real package has left out. What is
//! included on top, and all of `essential`, is resolved in full: alternatives in their
//! order, versions, `Provides`; what is in the set already is preferred. There is no
//! search: a choice once made stays, and a conflict in the result is an error.

use super::control::{Atom, Dependency, Package, Universe, dependencies};
use super::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a root holds before anything is included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// `Priority: required` and apt, as debootstrap's variant of this name.
    Minbase,
    /// `Essential: yes` and what that needs.
    Essential,
}

/// Wishes for a root.
#[derive(Debug)]
pub struct Wishes<'a> {
    /// The base.
    pub variant: Variant,
    /// Packages on top of it.
    pub include: &'a [String],
    /// Packages that belong to the base of this suite whatever their priority.
    pub extra_base: &'a [String],
    /// Packages that no dependency of the base brings in.
    pub never: &'a [String],
}

/// The packages of a root.
#[derive(Debug)]
pub struct Plan {
    /// All packages, sorted by name.
    pub packages: Vec<Package>,
    /// The names of the base, whose files may be placed before any script runs.
    pub base: BTreeSet<String>,
}

/// The set while it grows: name to who asked for it.
#[derive(Default)]
struct Chosen<'u> {
    packages: BTreeMap<&'u str, (&'u Package, Option<&'u str>)>,
    queue: VecDeque<&'u Package>,
}

impl<'u> Chosen<'u> {
    fn add(&mut self, package: &'u Package, wanted_by: Option<&'u str>) {
        if !self.packages.contains_key(package.name.as_str()) {
            self.packages.insert(&package.name, (package, wanted_by));
            self.queue.push_back(package);
        }
    }

    /// Whether a chosen package is, or provides, what `atom` asks for.
    fn satisfies(&self, universe: &Universe, atom: &Atom) -> bool {
        let real = self.packages.get(atom.name.as_str()).is_some_and(|(p, _)| version_fits(p, atom));
        real || universe
            .providers(&atom.name)
            .iter()
            .any(|p| self.packages.get(p.as_str()).is_some_and(|(provider, _)| provides(provider, atom)))
    }

    /// `included → a → b`: how `name` came into the set.
    fn chain(&self, name: &'u str) -> String {
        let mut names = vec![name];
        while let Some((_, Some(by))) = self.packages.get(names[names.len() - 1])
            && !names.contains(by)
        {
            names.push(by);
        }
        names.reverse();
        names.join(" → ")
    }
}

fn version_fits(package: &Package, atom: &Atom) -> bool {
    atom.version.as_ref().is_none_or(|(relation, bound)| relation.holds(&package.version, bound))
}

/// A versioned dependency is met by a provider only with a version of its own (deb-control(5)).
fn provides(package: &Package, atom: &Atom) -> bool {
    package.provided().iter().filter(|p| p.name == atom.name).any(|p| match (&atom.version, &p.version) {
        (None, _) => true,
        (Some((relation, bound)), Some((_, version))) => relation.holds(version, bound),
        (Some(_), None) => false,
    })
}

/// Finds the packages of a root.
///
/// # Errors
/// [`Error::NoPackage`] for an included name that does not exist, [`Error::Unsatisfiable`],
/// [`Error::Conflict`].
pub fn plan(universe: &Universe, wishes: &Wishes) -> Result<Plan> {
    let mut chosen = Chosen::default();
    match wishes.variant {
        Variant::Minbase => {
            seed(universe, &mut chosen, "Priority", "required");
            named(universe, &mut chosen, wishes.extra_base)?;
            close_like_debootstrap(universe, &mut chosen, wishes.never);
            named(universe, &mut chosen, &["apt".to_string()])?;
            close_like_debootstrap(universe, &mut chosen, wishes.never);
        }
        Variant::Essential => {
            seed(universe, &mut chosen, "Essential", "yes");
            named(universe, &mut chosen, wishes.extra_base)?;
            close(universe, &mut chosen)?;
        }
    }
    let base = chosen.packages.keys().map(ToString::to_string).collect();
    named(universe, &mut chosen, wishes.include)?;
    // The base again: its virtual dependencies have to be met by something.
    chosen.queue = chosen.packages.values().map(|(p, _)| *p).collect();
    close(universe, &mut chosen)?;
    check_conflicts(&chosen)?;
    Ok(Plan { packages: chosen.packages.values().map(|(p, _)| (*p).clone()).collect(), base })
}

/// Exactly the named packages, without what they depend on, sorted by name.
///
/// # Errors
/// [`Error::NoPackage`].
pub fn exactly(universe: &Universe, names: &[String]) -> Result<Vec<Package>> {
    let mut chosen = Chosen::default();
    named(universe, &mut chosen, names)?;
    Ok(chosen.packages.values().map(|(p, _)| (*p).clone()).collect())
}

fn seed<'u>(universe: &'u Universe, chosen: &mut Chosen<'u>, field: &str, value: &str) {
    let mut found: Vec<_> = universe.with(field, value).collect();
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    for package in found {
        chosen.add(package, None);
    }
}

fn named<'u>(universe: &'u Universe, chosen: &mut Chosen<'u>, names: &[String]) -> Result<()> {
    for name in names {
        let real = universe.get(name).or_else(|| match universe.providers(name) {
            [only] => universe.get(only),
            _ => None,
        });
        let package = real.ok_or_else(|| Error::NoPackage { name: name.clone() })?;
        chosen.add(package, None);
    }
    Ok(())
}

fn close_like_debootstrap<'u>(universe: &'u Universe, chosen: &mut Chosen<'u>, never: &[String]) {
    while let Some(package) = chosen.queue.pop_front() {
        for dependency in package.all_depends() {
            let first = &dependency[0].name;
            if let Some(needed) = universe.get(first).filter(|_| !never.contains(first)) {
                chosen.add(needed, Some(&package.name));
            }
        }
    }
}

fn close<'u>(universe: &'u Universe, chosen: &mut Chosen<'u>) -> Result<()> {
    while let Some(package) = chosen.queue.pop_front() {
        for dependency in package.all_depends() {
            if dependency.iter().any(|atom| chosen.satisfies(universe, atom)) {
                continue;
            }
            let candidate = dependency.iter().find_map(|atom| candidate(universe, atom));
            match candidate {
                Some(needed) => chosen.add(needed, Some(&package.name)),
                None => return Err(unsatisfiable(universe, chosen, package, &dependency)),
            }
        }
    }
    Ok(())
}

/// The real package of that name, or the provider of best priority, then first by name.
fn candidate<'u>(universe: &'u Universe, atom: &Atom) -> Option<&'u Package> {
    const ORDER: [&str; 4] = ["required", "important", "standard", "optional"];
    if let Some(package) = universe.get(&atom.name).filter(|p| version_fits(p, atom)) {
        return Some(package);
    }
    let rank = |p: &&Package| ORDER.iter().position(|o| *o == p.priority).unwrap_or(ORDER.len());
    let providers = universe.providers(&atom.name).iter().filter_map(|p| universe.get(p));
    providers.filter(|p| provides(p, atom)).min_by_key(rank)
}

fn unsatisfiable<'u>(
    universe: &Universe,
    chosen: &Chosen<'u>,
    package: &'u Package,
    dependency: &Dependency,
) -> Error {
    let shown = dependency.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
    let reason = match universe.get(&dependency[0].name) {
        Some(found) => format!("the archive has {} {}", found.name, found.version),
        None => "the archive has no such package".to_string(),
    };
    Error::Unsatisfiable { chain: format!("{} → {shown}", chosen.chain(&package.name)), reason }
}

fn check_conflicts(chosen: &Chosen) -> Result<()> {
    for (package, _) in chosen.packages.values().filter(|(p, _)| !p.conflicts.is_empty()) {
        for atom in dependencies(&package.conflicts).iter().flatten() {
            let hit = |other: &Package| {
                other.name != package.name
                    && ((other.name == atom.name && version_fits(other, atom)) || provides(other, atom))
            };
            if let Some((other, _)) = chosen.packages.values().find(|(other, _)| hit(other)) {
                return Err(Error::Conflict {
                    one: chosen.chain(&package.name),
                    conflict: atom.to_string(),
                    other: chosen.chain(&other.name),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::control::packages;
    use super::*;

    /// `name version [R] fields` lines, `;` between fields.
    fn universe(lines: &[&str]) -> Universe {
        use std::fmt::Write as _;
        let mut text = String::new();
        for line in lines {
            let (head, fields) = line.split_once('|').unwrap_or((line, ""));
            let mut words = head.split_whitespace();
            let (name, version) = (words.next().unwrap(), words.next().unwrap());
            let priority = if words.next() == Some("R") { "required" } else { "optional" };
            let fields = fields.replace(';', "\n").replace('/', "|");
            let sha = "0".repeat(64);
            let _ = write!(
                text,
                "Package: {name}\nVersion: {version}\nPriority: {priority}\nFilename: f\nSHA256: {sha}\n{fields}\n\n"
            );
        }
        Universe::new(packages(text.as_bytes(), "").unwrap())
    }

    fn names(lines: &[&str], include: &[&str]) -> Result<String> {
        let include: Vec<String> = include.iter().map(ToString::to_string).collect();
        let never = ["bad".to_string()];
        let wishes = Wishes { variant: Variant::Minbase, include: &include, extra_base: &[], never: &never };
        let plan = plan(&universe(lines), &wishes)?;
        Ok(plan.packages.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn plans() {
        let base =
            ["a 1 R|Depends: b / c, virtual", "b 1", "c 1", "m 1 R|Provides: virtual", "apt 2|Depends: b"];
        let table: &[(&[&str], &[&str], &str)] = &[
            (&[], &[], "a apt b m"),
            (&["x 1|Depends: nope / c"], &["x"], "a apt b c m x"),
            (&["x 1|Depends: c (>= 2) / virtual"], &["x"], "a apt b m x"),
            (&["x 1|Depends: y", "y 1|Depends: x"], &["x"], "a apt b m x y"),
            (&["x 1|Depends: v (>= 2)", "p 1|Provides: v", "q 1|Provides: v (= 3)"], &["x"], "a apt b m q x"),
            (&["p 1|Provides: v"], &["v"], "a apt b m p"),
        ];
        for (more, include, want) in table {
            let lines: Vec<&str> = base.iter().chain(more.iter()).copied().collect();
            assert_eq!(names(&lines, include).unwrap(), *want);
        }
    }

    #[test]
    fn explains_failures() {
        let table: &[(&[&str], &str)] = &[
            (&["x 1|Depends: y", "y 1|Depends: z (>= 9)", "z 1"], "x → y → z (>= 9): the archive has z 1"),
            (&["x 1|Depends: z / w"], "x → z | w: the archive has no such package"),
            (&["x 1|Depends: y", "y 1|Conflicts: a"], "x → y conflicts with a: a"),
            (&[], "no package x"),
        ];
        for (more, want) in table {
            let lines: Vec<&str> = ["a 1 R", "apt 1"].iter().chain(more.iter()).copied().collect();
            let e = names(&lines, &["x"]).unwrap_err().to_string();
            assert!(e.contains(want), "{e}");
        }
    }

    #[test]
    fn never_of_the_base() {
        assert_eq!(
            names(&["a 1 R|Depends: bad / good", "bad 1", "good 1", "apt 1"], &["good"]).unwrap(),
            "a apt good"
        );
    }
}
