//! Which packages a root gets: pure, from an index and wishes to a list.
//!
//! The base of all variants but `essential` follows debootstrap's own simple rule, so that the
//! set is the same: all packages of priority `required`, then `apt`, each closed over the first
//! alternative of `Pre-Depends` and `Depends`, names that no real package has left out. What
//! is included on top, and what the other variants have beyond that, is resolved in full
//! (`solve.rs`).

use super::control::{Package, Universe};
use super::solve::{Root, solve};
use super::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a root holds before anything is included.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// `Priority: required` and apt, as debootstrap's variant of this name.
    #[default]
    Minbase,
    /// `Essential: yes` and what that needs.
    Essential,
    /// Minbase and `build-essential`.
    Buildd,
    /// Minbase and all of priority `important` and `standard`.
    Standard,
    /// Nothing, and of what is included the files only: no dependencies, no database, no scripts.
    Custom,
}

impl Variant {
    /// Its name, as people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minbase => "minbase",
            Self::Essential => "essential",
            Self::Buildd => "buildd",
            Self::Standard => "standard",
            Self::Custom => "custom",
        }
    }
}

/// Wishes for a root.
#[derive(Debug, Default)]
pub struct Wishes<'a> {
    /// The base.
    pub variant: Variant,
    /// Packages on top of it: `NAME`, `NAME=VERSION` or `NAME/SUITE`.
    pub include: &'a [String],
    /// Packages that are never taken, whoever needs them.
    pub exclude: &'a [String],
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

/// Finds the packages of a root.
///
/// # Errors
/// [`Error::NoPackage`] for an included name that does not exist, [`Error::NoVersion`],
/// [`Error::Virtual`], and those of the search: [`Error::Unsatisfiable`], [`Error::Conflict`],
/// [`Error::Alternatives`].
pub fn plan(universe: &Universe, wishes: &Wishes) -> Result<Plan> {
    let included = wishes.include.iter().map(|wish| root(universe, wish)).collect::<Result<Vec<_>>>()?;
    if wishes.variant == Variant::Custom {
        return Ok(Plan { packages: exactly(&included), base: BTreeSet::new() });
    }
    let base = base(universe, wishes)?;
    let mut roots: Vec<Root> = base.iter().map(|p| preferred(universe, p)).collect();
    match wishes.variant {
        Variant::Buildd => roots.push(root(universe, "build-essential")?),
        Variant::Standard => {
            let more = ["important", "standard"].into_iter().flat_map(|p| universe.with("Priority", p));
            roots.extend(more.filter(|p| !wishes.exclude.contains(&p.name)).map(|p| preferred(universe, p)));
        }
        Variant::Minbase | Variant::Essential | Variant::Custom => {}
    }
    let essential = (wishes.variant == Variant::Essential).then(|| solve(universe, &roots, wishes.exclude));
    let base = essential.transpose()?.unwrap_or(base).into_iter().map(|p| p.name.clone()).collect();
    roots.extend(included);
    let mut packages: Vec<Package> = solve(universe, &roots, wishes.exclude)?.into_iter().cloned().collect();
    packages.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(Plan { packages, base })
}

/// The best of exactly the named packages, sorted by name.
fn exactly(roots: &[Root]) -> Vec<Package> {
    let best = roots.iter().filter_map(|r| r.candidates.first());
    best.map(|p| (p.name.as_str(), (*p).clone())).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// A wish: `NAME`, `NAME=VERSION`, `NAME/SUITE`; a virtual name where one package provides it.
fn root<'u>(universe: &'u Universe, wish: &str) -> Result<Root<'u>> {
    let (name, version, suite) = match (wish.split_once('='), wish.split_once('/')) {
        (Some((name, version)), _) => (name, Some(version), None),
        (_, Some((name, suite))) => (name, None, Some(suite)),
        _ => (wish, None, None),
    };
    let mut all: Vec<&Package> = universe.versions(name).collect();
    if all.is_empty() {
        let mut providers: Vec<&Package> = universe.providers(name).collect();
        providers.dedup_by(|a, b| a.name == b.name);
        match providers[..] {
            [] => return Err(Error::NoPackage { name: name.to_string() }),
            [only] => all = universe.versions(&only.name).collect(),
            _ => {
                let providers = providers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
                return Err(Error::Virtual { name: name.to_string(), providers });
            }
        }
    }
    let fits = |p: &&&Package| {
        version.is_none_or(|v| p.version == v)
            && suite.is_none_or(|s| p.origin.suites.iter().any(|own| own == s))
    };
    let candidates: Vec<&Package> = all.iter().filter(fits).copied().collect();
    if candidates.is_empty() {
        let has = all.iter().map(|p| format!("{} ({})", p.version, p.origin.suites.join(", ")));
        return Err(Error::NoVersion { wish: wish.to_string(), has: has.collect::<Vec<_>>().join(", ") });
    }
    Ok(Root { name: wish.to_string(), candidates })
}

fn preferred<'u>(universe: &'u Universe, package: &'u Package) -> Root<'u> {
    Root { name: package.name.clone(), candidates: universe.versions(&package.name).collect() }
}

/// The base, sorted by name; of `essential` only what it begins with.
fn base<'u>(universe: &'u Universe, wishes: &Wishes) -> Result<Vec<&'u Package>> {
    let mut chosen = BTreeMap::new();
    let essential = wishes.variant == Variant::Essential;
    let (field, value) = if essential { ("Essential", "yes") } else { ("Priority", "required") };
    let mut queue: VecDeque<&Package> = universe.with(field, value).collect();
    queue.extend(names(universe, wishes.extra_base)?);
    close_like_debootstrap(universe, &mut chosen, queue, wishes);
    if !essential {
        close_like_debootstrap(universe, &mut chosen, names(universe, &["apt".to_string()])?, wishes);
    }
    Ok(chosen.into_values().collect())
}

fn names<'u>(universe: &'u Universe, names: &[String]) -> Result<VecDeque<&'u Package>> {
    let get = |name: &String| universe.get(name).ok_or_else(|| Error::NoPackage { name: name.clone() });
    names.iter().map(get).collect()
}

fn close_like_debootstrap<'u>(
    universe: &'u Universe,
    chosen: &mut BTreeMap<&'u str, &'u Package>,
    mut queue: VecDeque<&'u Package>,
    wishes: &Wishes,
) {
    while let Some(package) = queue.pop_front() {
        if wishes.exclude.contains(&package.name) || chosen.insert(&package.name, package).is_some() {
            continue;
        }
        if wishes.variant != Variant::Essential {
            let first = package.all_depends().into_iter().map(|mut d| d.swap_remove(0).name);
            queue.extend(first.filter(|n| !wishes.never.contains(n)).filter_map(|n| universe.get(&n)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::packages;
    use super::*;
    use std::sync::Arc;

    /// `name version [R|I|S]|fields` lines, `;` between fields.
    fn universe(lines: &[&str]) -> Universe {
        use std::fmt::Write as _;
        let mut text = String::new();
        for line in lines {
            let (head, fields) = line.split_once('|').unwrap_or((line, ""));
            let mut words = head.split_whitespace();
            let (name, version) = (words.next().unwrap(), words.next().unwrap());
            let priority = match words.next() {
                Some("R") => "required",
                Some("I") => "important",
                Some("S") => "standard",
                _ => "optional",
            };
            let fields = fields.replace(';', "\n").replace('/', "|");
            let sha = "0".repeat(64);
            let _ = write!(
                text,
                "Package: {name}\nVersion: {version}\nPriority: {priority}\nFilename: f\nSHA256: {sha}\n{fields}\n\n"
            );
        }
        Universe::new(packages(text.as_bytes(), &Arc::default()).unwrap())
    }

    fn names(lines: &[&str], include: &[&str]) -> Result<String> {
        let include: Vec<String> = include.iter().map(ToString::to_string).collect();
        let never = ["bad".to_string()];
        let wishes = Wishes { include: &include, never: &never, ..Wishes::default() };
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

    #[test]
    fn variants() {
        let lines = [
            "a 1 R|Depends: b / c, virtual",
            "b 1",
            "c 1",
            "e 1|Essential: yes;Depends: c / b",
            "apt 1",
            "m 1|Provides: virtual",
            "i 1 I|Depends: no / c",
            "s 1 S",
            "build-essential 1|Depends: d",
            "d 1",
        ];
        let universe = universe(&lines);
        let (include, exclude) = (["d".to_string()], ["s".to_string()]);
        for (variant, want) in [
            (Variant::Minbase, "a apt b d m"),
            (Variant::Essential, "c d e"),
            (Variant::Buildd, "a apt b build-essential d m"),
            (Variant::Standard, "a apt b c d i m"),
            (Variant::Custom, "d"),
        ] {
            let wishes = Wishes { variant, include: &include, exclude: &exclude, ..Wishes::default() };
            let plan = plan(&universe, &wishes).unwrap();
            let names: Vec<&str> = plan.packages.iter().map(|p| p.name.as_str()).collect();
            assert_eq!(names.join(" "), want, "{variant:?}");
        }
    }
}
