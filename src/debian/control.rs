//! Control data: paragraphs of `Field: value` (deb822(5)), dependency fields, the
//! `Packages` index.
//!
//! An index of a whole suite has 60,000 paragraphs and 50 MB: it is read line by line from
//! a stream, never held as a whole, and only the fields that a plan needs are kept.

use super::version::Relation;
use std::collections::HashMap;
use std::io::{self, BufRead};
use std::sync::Arc;

/// The paragraphs of `text`, without the empty lines between them.
pub fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['\n', '\r']);
        if rest.is_empty() {
            return None;
        }
        let end = memchr_blank_line(rest);
        let (paragraph, tail) = rest.split_at(end);
        rest = tail;
        Some(paragraph)
    })
}

/// Where the first empty line of `text` begins.
fn memchr_blank_line(text: &str) -> usize {
    text.find("\n\n").map_or(text.len(), |i| i + 1)
}

/// The fields of a paragraph: name and value; the lines of a folded value are joined by `\n`
/// as they stand. Comments (`#`) are left out.
pub fn fields(paragraph: &str) -> impl Iterator<Item = (&str, String)> {
    let mut lines = paragraph.lines().filter(|l| !l.starts_with('#')).peekable();
    std::iter::from_fn(move || {
        loop {
            let line = lines.next()?;
            let Some((name, value)) = line.split_once(':') else { continue };
            let mut value = value.trim().to_string();
            while let Some(more) = lines.next_if(|l| l.starts_with([' ', '\t'])) {
                value.push('\n');
                value.push_str(more.trim_end());
            }
            return Some((name, value));
        }
    })
}

/// The value of one field of a paragraph; names match in any case.
#[must_use]
pub fn field(paragraph: &str, name: &str) -> Option<String> {
    fields(paragraph).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
}

/// One alternative of a dependency: `name:arch (>= version)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Atom {
    /// The package's name, or that of a virtual one.
    pub name: String,
    /// The version it must have.
    pub version: Option<(Relation, String)>,
}

impl std::fmt::Display for Atom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        match &self.version {
            Some((relation, version)) => write!(f, " ({relation} {version})"),
            None => Ok(()),
        }
    }
}

/// A dependency: any one of its alternatives.
pub type Dependency = Vec<Atom>;

/// Reads a relationship field (deb-control(5)): `a, b (>= 1) | c:any [amd64]`.
///
/// Restrictions to other architectures do not occur in binary packages and are skipped.
#[must_use]
pub fn dependencies(value: &str) -> Vec<Dependency> {
    let alternatives = |group: &str| group.split('|').filter_map(atom).collect::<Dependency>();
    value.split(',').map(alternatives).filter(|d| !d.is_empty()).collect()
}

fn atom(text: &str) -> Option<Atom> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_whitespace() || c == '(' || c == '[').unwrap_or(text.len());
    let name = text[..end].split(':').next()?;
    if name.is_empty() {
        return None;
    }
    let version = text[end..].split_once('(').and_then(|(_, r)| r.split_once(')')).and_then(|(inner, _)| {
        let inner = inner.trim();
        let split = inner.find(|c: char| !matches!(c, '<' | '>' | '='))?;
        Some((Relation::parse(&inner[..split])?, inner[split..].trim().to_string()))
    });
    Some(Atom { name: name.to_string(), version })
}

/// A package of an index.
#[derive(Debug, Clone, Default)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// Where it lies, below the archive's URI.
    pub filename: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// Its unpacked size in KiB, as its maker estimated.
    pub installed_size: u64,
    /// `required`, `important`, `standard`, `optional`.
    pub priority: String,
    /// Whether the system does not work without it.
    pub essential: bool,
    /// `Pre-Depends`, as text.
    pub pre_depends: String,
    /// `Depends`, as text.
    pub depends: String,
    /// `Provides`, as text.
    pub provides: String,
    /// `Conflicts` and `Breaks`, as text.
    pub conflicts: String,
    /// The URI of the archive that it comes from.
    pub uri: Arc<str>,
}

impl Package {
    /// What it depends on, before unpacking or before configuration.
    #[must_use]
    pub fn all_depends(&self) -> Vec<Dependency> {
        let mut all = dependencies(&self.pre_depends);
        all.extend(dependencies(&self.depends));
        all
    }

    /// What it provides: names, with a version where one is given.
    #[must_use]
    pub fn provided(&self) -> Vec<Atom> {
        dependencies(&self.provides).into_iter().flatten().collect()
    }
}

/// Reads an index; paragraphs without a name, file name or hash are left out.
///
/// # Errors
/// Those of `index`; `InvalidData` for a field that is not UTF-8.
pub fn packages(mut index: impl BufRead, uri: &str) -> io::Result<Vec<Package>> {
    let whole = |p: &Package| !p.name.is_empty() && !p.filename.is_empty() && p.sha256.len() == 64;
    let uri: Arc<str> = uri.into();
    let fresh = || Package { uri: Arc::clone(&uri), ..Package::default() };
    let (mut all, mut package, mut line) = (Vec::new(), fresh(), Vec::new());
    loop {
        line.clear();
        let end = index.read_until(b'\n', &mut line)? == 0;
        if !line.trim_ascii().is_empty() {
            take(&mut package, &line)?;
            continue;
        }
        let done = std::mem::replace(&mut package, fresh());
        if whole(&done) {
            all.push(done);
        }
        if end {
            return Ok(all);
        }
    }
}

/// Takes a line of a paragraph; the fields that a plan needs are never folded.
fn take(package: &mut Package, line: &[u8]) -> io::Result<()> {
    let Some(colon) = line.iter().position(|b| *b == b':') else { return Ok(()) };
    let field = match &line[..colon] {
        b"Package" => &mut package.name,
        b"Version" => &mut package.version,
        b"Architecture" => &mut package.architecture,
        b"Filename" => &mut package.filename,
        b"SHA256" => &mut package.sha256,
        b"Priority" => &mut package.priority,
        b"Pre-Depends" => &mut package.pre_depends,
        b"Depends" => &mut package.depends,
        b"Provides" => &mut package.provides,
        b"Conflicts" | b"Breaks" => &mut package.conflicts,
        name => {
            let value = || str::from_utf8(&line[colon + 1..]).unwrap_or_default().trim();
            match name {
                b"Size" => package.size = value().parse().unwrap_or(0),
                b"Installed-Size" => package.installed_size = value().parse().unwrap_or(0),
                b"Essential" => package.essential = value() == "yes",
                _ => {}
            }
            return Ok(());
        }
    };
    let value = str::from_utf8(&line[colon + 1..]);
    let value = value.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?.trim();
    if !field.is_empty() && matches!(&line[..colon], b"Conflicts" | b"Breaks") {
        *field += ", ";
    } else {
        field.clear();
    }
    *field += value;
    field.shrink_to_fit();
    if &line[..colon] == b"SHA256" {
        field.make_ascii_lowercase();
    }
    Ok(())
}

/// All packages of several indexes, by name; of two of one name the higher version stays.
#[derive(Debug, Default)]
pub struct Universe {
    /// Real packages.
    packages: Vec<Package>,
    /// Their names, to the places in `packages`.
    names: HashMap<Box<str>, usize>,
    /// Virtual names, to the real packages that provide them, sorted by name.
    providers: HashMap<String, Vec<String>>,
}

impl Universe {
    /// Gathers packages.
    #[must_use]
    pub fn new(all: impl IntoIterator<Item = Package>) -> Self {
        let mut universe = Self::default();
        for package in all {
            match universe.names.get(package.name.as_str()) {
                Some(&at) => {
                    let old = &mut universe.packages[at];
                    if super::version::compare(&package.version, &old.version).is_gt() {
                        *old = package;
                    }
                }
                None => {
                    universe.names.insert(package.name.as_str().into(), universe.packages.len());
                    universe.packages.push(package);
                }
            }
        }
        for package in universe.packages.iter().filter(|p| !p.provides.is_empty()) {
            for atom in package.provided() {
                universe.providers.entry(atom.name).or_default().push(package.name.clone());
            }
        }
        universe.providers.values_mut().for_each(|v| v.sort_unstable());
        universe
    }

    /// The package of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.names.get(name).map(|&at| &self.packages[at])
    }

    /// All packages, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter()
    }

    /// The packages that provide the virtual name.
    #[must_use]
    pub fn providers(&self, name: &str) -> &[String] {
        self.providers.get(name).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_and_paragraphs() {
        let text = "A: 1\nB: x\n y\n\tz\n# no\nC:\n\n\nA: 2\n";
        let all: Vec<_> = paragraphs(text).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(field(all[0], "b").unwrap(), "x\n y\n\tz");
        assert_eq!(field(all[0], "C").unwrap(), "");
        assert_eq!(field(all[1], "A").unwrap(), "2");
    }

    #[test]
    fn reads_dependencies() {
        let deps = dependencies("libc6 (>= 2.36), perl:any | a(<<1:2-3)|b [amd64], , c");
        let shown: Vec<String> =
            deps.iter().map(|d| d.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")).collect();
        assert_eq!(shown, ["libc6 (>= 2.36)", "perl | a (<< 1:2-3) | b", "c"]);
    }

    #[test]
    fn keeps_the_newest() {
        let sha = "0".repeat(64);
        let p = |n: &str, v: &str| {
            format!("Package: {n}\nVersion: {v}\nFilename: f\nSHA256: {sha}\nProvides: v (= 1)\n\n")
        };
        let text = p("a", "1.9") + &p("a", "1.10") + &p("b", "1") + "Package: broken\n";
        let universe = Universe::new(packages(text.as_bytes(), "u").unwrap());
        assert_eq!(universe.get("a").unwrap().version, "1.10");
        assert_eq!(universe.providers("v"), ["a", "b"]);
        assert!(universe.get("broken").is_none());
        let text = p("c", "1") + "Conflicts: x\nBreaks: y (<< 1)\n\n\n" + &p("d", "1").replace("d", "\u{e9}");
        let all = packages(text.as_bytes(), "u").unwrap();
        assert_eq!((all.len(), all[0].conflicts.as_str()), (2, ""));
        assert!(packages(&b"Package: \xff\n"[..], "u").is_err());
    }
}
