//! Which packages meet all needs: greedy as apt is, and a search where that meets a wall.
//!
//! Needs are taken depth first, in the order of their fields, as apt takes them: what is in
//! the set meets them first, else the first candidate (alternatives in their order; of a
//! name the best version; then those that provide it). A candidate is refused where it is
//! excluded, where another version of it is in the set, and where it and one in the set
//! conflict. Where none is left, the search goes back to the latest choice that had a part in
//! this (conflict-directed backjumping) and takes the next candidate there. An error is what
//! was in the way of the first candidates of the last choice that could not be made.
//!
//! Only what is reached is looked at, and nothing is kept of what was undone.

use super::control::{Atom, Dependency, Package, Universe, dependencies};
use super::{Error, Result};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// After so many refused or tried candidates a search is given up: seconds, not hours.
const MAX_STEPS: usize = 200_000;

/// How many failures of alternatives an error shows.
const SHOWN: usize = 3;

/// A package that is to be in the set, in any one of these forms; the best first.
#[derive(Debug)]
pub(super) struct Root<'u> {
    /// How it was asked for.
    pub name: String,
    /// The packages that would do.
    pub candidates: Vec<&'u Package>,
}

/// Finds packages that meet the roots and all that these need, without the excluded names,
/// in the order in which they were chosen.
///
/// # Errors
/// [`Error::Unsatisfiable`], [`Error::Conflict`], [`Error::Alternatives`].
pub(super) fn solve<'u>(
    universe: &'u Universe,
    roots: &[Root<'u>],
    excluded: &[String],
) -> Result<Vec<&'u Package>> {
    let mut search = Search {
        universe,
        roots,
        excluded,
        chosen: Vec::new(),
        offers: HashMap::new(),
        against: HashMap::new(),
        open: Some(Rc::new(Open { owner: None, next: 0, below: None })),
        branches: Vec::new(),
        steps: 0,
    };
    while let Some(need) = search.next() {
        let candidates = search.candidates(need);
        search.choose(need, candidates)?;
    }
    Ok(search.chosen.into_iter().map(|c| c.package).collect())
}

/// Whether the package of this name, or one that provides it, is what `atom` asks for.
pub(super) fn fits(package: &Package, atom: &Atom) -> bool {
    (package.name == atom.name && version_fits(package, atom)) || provides(package, atom)
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

/// A package in the set.
struct Choice<'u> {
    package: &'u Package,
    /// Whose need it meets; none for a root.
    by: Option<usize>,
    /// The number of branches when it was chosen: 1 for the first.
    level: usize,
    needs: Vec<Dependency>,
    conflicts: Vec<Atom>,
}

/// A need: of a chosen package, or a root, by its place.
type Need = (Option<usize>, usize);

/// The needs that are still to be looked at, those on top first. Shared by the branches.
struct Open {
    owner: Option<usize>,
    next: usize,
    below: Option<Rc<Open>>,
}

/// A choice that was made, and what is needed to make another one.
struct Branch<'u> {
    need: Need,
    open: Option<Rc<Open>>,
    chosen: usize,
    left: std::vec::IntoIter<&'u Package>,
    /// The levels that had a part in the failures so far.
    blame: BTreeSet<usize>,
    failures: Vec<Error>,
}

struct Search<'u, 's> {
    universe: &'u Universe,
    roots: &'s [Root<'u>],
    excluded: &'s [String],
    chosen: Vec<Choice<'u>>,
    /// Names, real and provided, to the chosen packages that have them.
    offers: HashMap<String, Vec<usize>>,
    /// Names to the chosen packages that conflict with some version of them.
    against: HashMap<String, Vec<usize>>,
    open: Option<Rc<Open>>,
    branches: Vec<Branch<'u>>,
    steps: usize,
}

impl<'u> Search<'u, '_> {
    /// The next need that nothing in the set meets.
    fn next(&mut self) -> Option<Need> {
        while let Some(top) = self.open.take() {
            let (owner, next) = (top.owner, top.next);
            let count = owner.map_or(self.roots.len(), |o| self.chosen[o].needs.len());
            if next == count {
                self.open.clone_from(&top.below);
                if owner.is_none() {
                    // All roots are in the set before what they need is looked at.
                    for i in (0..self.chosen.len()).rev() {
                        self.push(i);
                    }
                }
                continue;
            }
            self.open = Some(Rc::new(Open { owner, next: next + 1, below: top.below.clone() }));
            let met = match owner {
                None => self.roots[next].candidates.iter().any(|p| self.has(p)),
                Some(o) => self.chosen[o].needs[next].iter().any(|atom| self.meets(atom)),
            };
            if !met {
                return Some((owner, next));
            }
        }
        None
    }

    fn push(&mut self, owner: usize) {
        self.open = Some(Rc::new(Open { owner: Some(owner), next: 0, below: self.open.take() }));
    }

    fn offering(&self, name: &str) -> impl Iterator<Item = usize> + '_ {
        self.offers.get(name).into_iter().flatten().copied()
    }

    fn has(&self, package: &Package) -> bool {
        let same = |p: &Package| p.name == package.name && p.version == package.version;
        self.offering(&package.name).any(|i| same(self.chosen[i].package))
    }

    fn meets(&self, atom: &Atom) -> bool {
        self.offering(&atom.name).any(|i| fits(self.chosen[i].package, atom))
    }

    /// All packages that would meet the need, the preferred first.
    fn candidates(&self, (owner, next): Need) -> Vec<&'u Package> {
        let Some(owner) = owner else { return self.roots[next].candidates.clone() };
        let mut all: Vec<&'u Package> = Vec::new();
        for atom in &self.chosen[owner].needs[next] {
            let real = self.universe.versions(&atom.name).filter(|p| version_fits(p, atom));
            let mut virtual_: Vec<_> =
                self.universe.providers(&atom.name).filter(|p| provides(p, atom)).collect();
            virtual_.sort_by_key(|p| rank(p));
            all.extend(real.chain(virtual_));
        }
        all
    }

    /// Takes the first candidate that nothing is against; goes back where there is none.
    fn choose(&mut self, need: Need, candidates: Vec<&'u Package>) -> Result<()> {
        let blame = need.0.map(|owner| self.chosen[owner].level).into_iter().collect();
        self.branches.push(Branch {
            need,
            open: self.open.clone(),
            chosen: self.chosen.len(),
            left: candidates.into_iter(),
            blame,
            failures: Vec::new(),
        });
        while let Some(top) = self.branches.last_mut() {
            let (need, candidate) = (top.need, top.left.next());
            let Some(candidate) = candidate else {
                self.back()?;
                continue;
            };
            self.steps += 1;
            let refused = self.refused(need, candidate);
            match (refused, self.branches.last_mut()) {
                (None, _) => {
                    self.add(candidate, need.0);
                    break;
                }
                (Some((level, failure)), Some(top)) => {
                    top.blame.extend(level);
                    top.failures.push(failure);
                }
                (Some((_, failure)), None) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Undoes the branches down to the latest that had a part in the failure of the last one.
    fn back(&mut self) -> Result<()> {
        let Some(Branch { need, mut blame, failures, .. }) = self.branches.pop() else { return Ok(()) };
        let failure = if failures.is_empty() { self.nothing(need) } else { merged(failures) };
        let Some(level) = blame.pop_last().filter(|_| self.steps < MAX_STEPS) else { return Err(failure) };
        self.branches.truncate(level);
        let Some(branch) = self.branches.last_mut() else { return Err(failure) };
        branch.blame.extend(blame);
        branch.failures.push(failure);
        self.open.clone_from(&branch.open);
        for undone in self.chosen.drain(branch.chosen..).rev() {
            for name in offered(undone.package) {
                self.offers.get_mut(&name).map(Vec::pop);
            }
            for atom in undone.conflicts {
                self.against.get_mut(&atom.name).map(Vec::pop);
            }
        }
        Ok(())
    }

    fn add(&mut self, package: &'u Package, by: Option<usize>) {
        let at = self.chosen.len();
        let conflicts: Vec<Atom> = dependencies(&package.conflicts).into_iter().flatten().collect();
        for name in offered(package) {
            self.offers.entry(name).or_default().push(at);
        }
        for atom in &conflicts {
            self.against.entry(atom.name.clone()).or_default().push(at);
        }
        let (needs, level) = (package.all_depends(), self.branches.len());
        self.chosen.push(Choice { package, by, level, needs, conflicts });
        if by.is_some() {
            self.push(at);
        }
    }

    /// Why a candidate cannot be in the set, and the level of the choice that is in its way.
    fn refused(&self, need: Need, package: &Package) -> Option<(Option<usize>, Error)> {
        let because = |reason: String| Error::Unsatisfiable { chain: self.wanted(need), reason };
        if self.excluded.contains(&package.name) {
            return Some((None, because(format!("{} is excluded", package.name))));
        }
        if let Some(i) = self.offering(&package.name).find(|&i| self.chosen[i].package.name == package.name) {
            let version = &self.chosen[i].package.version;
            let reason = format!("{} is in the set as {version}: {}", package.name, self.chain(i));
            return Some((Some(self.chosen[i].level), because(reason)));
        }
        let one = || match need.0 {
            Some(owner) => format!("{} → {}", self.chain(owner), package.name),
            None => package.name.clone(),
        };
        for atom in dependencies(&package.conflicts).iter().flatten() {
            if let Some(i) = self.offering(&atom.name).find(|&i| fits(self.chosen[i].package, atom)) {
                let other = self.chain(i);
                let failure = Error::Conflict { one: one(), conflict: atom.to_string(), other };
                return Some((Some(self.chosen[i].level), failure));
            }
        }
        for i in offered(package).iter().filter_map(|name| self.against.get(name)).flatten().copied() {
            let choice = &self.chosen[i];
            if let Some(atom) = choice.conflicts.iter().find(|atom| fits(package, atom)) {
                let failure =
                    Error::Conflict { one: self.chain(i), conflict: atom.to_string(), other: one() };
                return Some((Some(choice.level), failure));
            }
        }
        None
    }

    /// The error of a need for which there is no candidate at all.
    fn nothing(&self, need: Need) -> Error {
        let reason = need.0.and_then(|owner| {
            let name = &self.chosen[owner].needs[need.1].first()?.name;
            let has: Vec<_> = self.universe.versions(name).map(|p| p.version.as_str()).collect();
            (!has.is_empty()).then(|| format!("the archive has {name} {}", has.join(", ")))
        });
        let reason = reason.unwrap_or_else(|| "the archive has no such package".to_string());
        Error::Unsatisfiable { chain: self.wanted(need), reason }
    }

    /// `included → a → b (>= 2)`: a need and who has it.
    fn wanted(&self, (owner, next): Need) -> String {
        let Some(owner) = owner else { return self.roots[next].name.clone() };
        let alternatives: Vec<_> = self.chosen[owner].needs[next].iter().map(ToString::to_string).collect();
        format!("{} → {}", self.chain(owner), alternatives.join(" | "))
    }

    /// `included → a → b`: how a package came into the set.
    fn chain(&self, at: usize) -> String {
        let by = |i: &usize| self.chosen[*i].by;
        let mut names: Vec<&str> =
            std::iter::successors(Some(at), by).map(|i| self.chosen[i].package.name.as_str()).collect();
        names.reverse();
        names.join(" → ")
    }
}

/// What is in the way of several candidates, each reason once: versions of one name often share it.
fn merged(failures: Vec<Error>) -> Error {
    let mut different: Vec<(String, Error)> = Vec::new();
    let each = failures.into_iter().flat_map(|failure| match failure {
        Error::Alternatives(all) => all,
        one => vec![one],
    });
    for failure in each {
        let text = failure.to_string();
        if different.len() < SHOWN && !different.iter().any(|(t, _)| *t == text) {
            different.push((text, failure));
        }
    }
    if different.len() == 1 {
        different.remove(0).1
    } else {
        Error::Alternatives(different.into_iter().map(|(_, e)| e).collect())
    }
}

/// The names of a package, its own and those that it provides, each once.
pub(super) fn offered(package: &Package) -> Vec<String> {
    let mut names = vec![package.name.clone()];
    for atom in package.provided() {
        if !names.contains(&atom.name) {
            names.push(atom.name);
        }
    }
    names
}

/// Of several that provide a name, the most important; else in the order of the universe.
fn rank(package: &Package) -> usize {
    const ORDER: [&str; 4] = ["required", "important", "standard", "optional"];
    ORDER.iter().position(|o| *o == package.priority).unwrap_or(ORDER.len())
}

#[cfg(test)]
mod tests;
