//! Control data: paragraphs of `Field: value` (deb822(5)), dependency fields, the
//! `Packages` index.
//!
//! An index of a whole suite has 60,000 paragraphs and 50 MB: it is read line by line from
//! a stream, never held as a whole. Of each paragraph the lines that a plan may need are
//! kept as text ([`Listed`]); a [`Package`] is made of them when somebody asks for it.

use super::version::Relation;
use std::cell::OnceCell;
use std::cmp::Ordering;
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
    /// The archive that it comes from.
    pub origin: Arc<Origin>,
}

/// Where the packages of an index come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The archive's address, below which file names are.
    pub uri: String,
    /// The names of the suite: as asked for, and those of its Release file.
    pub suites: Vec<String>,
    /// Whether its packages are taken without being asked for by suite or version, as those
    /// of experimental and backports are not (`NotAutomatic`).
    pub automatic: bool,
    /// The fingerprint of the key that signed its Release file; none where nobody asked.
    pub signer: Option<String>,
}

impl Default for Origin {
    fn default() -> Self {
        Self { uri: String::new(), suites: Vec::new(), automatic: true, signer: None }
    }
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

/// The fields of an index that are kept.
const KEPT: [&[u8]; 14] = [
    b"Package",
    b"Version",
    b"Architecture",
    b"Filename",
    b"Size",
    b"SHA256",
    b"Installed-Size",
    b"Priority",
    b"Essential",
    b"Pre-Depends",
    b"Depends",
    b"Provides",
    b"Conflicts",
    b"Breaks",
];

/// A paragraph of an index.
#[derive(Debug)]
pub struct Listed {
    /// Its lines of [`KEPT`] fields, none of which is ever folded.
    text: Box<str>,
    origin: Arc<Origin>,
    package: OnceCell<Box<Package>>,
}

impl Listed {
    /// The value of a field, empty where there is none.
    fn get(&self, name: &str) -> &str {
        let value = |line| str::strip_prefix(line, name)?.strip_prefix(':');
        self.text.lines().find_map(value).unwrap_or_default().trim()
    }

    /// Its name; most indexes begin with it.
    fn name(&self) -> &str {
        let first = self.text.strip_prefix("Package:").and_then(|rest| rest.split('\n').next());
        first.map_or_else(|| self.get("Package"), str::trim)
    }

    fn package(&self) -> &Package {
        self.package.get_or_init(|| Box::new(package(&self.text, Arc::clone(&self.origin))))
    }

    /// Which of two of one name goes first.
    fn preferred(&self, other: &Self) -> Ordering {
        let versions = || super::version::compare(other.get("Version"), self.get("Version"));
        other.origin.automatic.cmp(&self.origin.automatic).then_with(versions)
    }
}

/// Reads an index; paragraphs without a name, file name or hash are left out.
///
/// # Errors
/// Those of `index`; `InvalidData` for text that is not UTF-8.
pub fn packages(mut index: impl BufRead, origin: &Arc<Origin>) -> io::Result<Vec<Listed>> {
    let (mut all, mut text, mut start, mut end) = (Vec::new(), Vec::new(), 0, false);
    while !end {
        end = index.read_until(b'\n', &mut text)? == 0;
        let line = &text[start..];
        if end || line.trim_ascii().is_empty() {
            text.truncate(start);
            let kept = str::from_utf8(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            let listed = Listed { text: kept.into(), origin: Arc::clone(origin), package: OnceCell::new() };
            let whole = ["Package", "Filename"].iter().all(|f| !listed.get(f).is_empty());
            if whole && listed.get("SHA256").len() == 64 {
                all.push(listed);
            }
            text.clear();
        } else if !line.iter().position(|b| *b == b':').is_some_and(|colon| KEPT.contains(&&line[..colon])) {
            text.truncate(start);
        }
        start = text.len();
    }
    Ok(all)
}

/// The package that the control file of a .deb describes, without where it lies.
pub(super) fn described(control: &str) -> Package {
    let lines = fields(control).map(|(name, value)| format!("{name}: {}\n", value.replace('\n', " ")));
    package(&lines.collect::<String>(), Arc::default())
}

fn package(paragraph: &str, origin: Arc<Origin>) -> Package {
    let mut package = Package { origin, ..Package::default() };
    for line in paragraph.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let text = || value.trim().to_string();
        match name {
            "Package" => package.name = text(),
            "Version" => package.version = text(),
            "Architecture" => package.architecture = text(),
            "Filename" => package.filename = text(),
            "Size" => package.size = value.trim().parse().unwrap_or(0),
            "SHA256" => package.sha256 = value.trim().to_ascii_lowercase(),
            "Installed-Size" => package.installed_size = value.trim().parse().unwrap_or(0),
            "Priority" => package.priority = text(),
            "Essential" => package.essential = value.trim() == "yes",
            "Pre-Depends" => package.pre_depends = text(),
            "Depends" => package.depends = text(),
            "Provides" => package.provides = text(),
            "Conflicts" | "Breaks" if package.conflicts.is_empty() => package.conflicts = text(),
            "Conflicts" | "Breaks" => {
                package.conflicts.push_str(", ");
                package.conflicts.push_str(value.trim());
            }
            _ => {}
        }
    }
    package
}

/// All packages of several indexes, in all their versions.
#[derive(Debug, Default)]
pub struct Universe {
    /// Sorted by name; of one name the preferred first, of equal ones the first archive's.
    packages: Vec<Listed>,
    /// Virtual names, to the places of those that provide them.
    providers: HashMap<Box<str>, Vec<u32>>,
}

impl Universe {
    /// Gathers packages.
    #[must_use]
    pub fn new(all: impl IntoIterator<Item = Listed>) -> Self {
        let mut packages: Vec<Listed> = all.into_iter().collect();
        packages.sort_by(|a, b| a.name().cmp(b.name()).then_with(|| a.preferred(b)));
        let mut providers: HashMap<Box<str>, Vec<u32>> = HashMap::new();
        for (at, listed) in (0..).zip(&packages) {
            for atom in dependencies(listed.get("Provides")).into_iter().flatten() {
                providers.entry(atom.name.into()).or_default().push(at);
            }
        }
        Self { packages, providers }
    }

    /// The preferred package of this name: the highest version that is taken automatically.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.versions(name).next()
    }

    /// All packages of this name, the preferred first.
    pub fn versions(&self, name: &str) -> impl Iterator<Item = &Package> {
        let start = self.packages.partition_point(|p| p.name() < name);
        self.packages[start..].iter().take_while(move |p| p.name() == name).map(Listed::package)
    }

    /// The packages of which a field has this value, each as `get` gives it, sorted by name.
    pub fn with(&self, field: &str, value: &str) -> impl Iterator<Item = &Package> {
        let same = self.packages.chunk_by(|a, b| a.name() == b.name()).filter_map(|same| same.first());
        same.filter(move |p| p.get(field) == value).map(Listed::package)
    }

    /// The packages that provide the virtual name, sorted by name.
    pub fn providers(&self, name: &str) -> impl Iterator<Item = &Package> {
        let places = self.providers.get(name).into_iter().flatten();
        places.filter_map(|at| self.packages.get(usize::try_from(*at).ok()?)).map(Listed::package)
    }
}

/// What dpkg's file `diversions` says: where the file of a path lies in place of it, but for the package that has it
/// moved; lines by three (dpkg-divert(1)).
#[must_use]
pub fn diverted(text: &str) -> HashMap<&str, (&str, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    lines.as_chunks::<3>().0.iter().map(|[from, to, by]| (*from, (*to, *by))).collect()
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
        let origin = Arc::default();
        let universe = Universe::new(packages(text.as_bytes(), &origin).unwrap());
        assert_eq!(universe.get("a").unwrap().version, "1.10");
        assert_eq!(universe.versions("a").map(|p| p.version.as_str()).collect::<Vec<_>>(), ["1.10", "1.9"]);
        assert_eq!(universe.providers("v").map(|p| p.name.as_str()).collect::<Vec<_>>(), ["a", "a", "b"]);
        assert!(universe.get("broken").is_none());
        let text = "Conflicts: x\nDescription: d\nBreaks: y (<< 1)\n".to_string()
            + &p("c", "1")
            + "\n"
            + &p("d", "2");
        let universe = Universe::new(packages(text.as_bytes(), &origin).unwrap());
        assert_eq!(universe.get("c").unwrap().conflicts, "x, y (<< 1)");
        assert_eq!(universe.with("Version", "2").map(|p| p.name.as_str()).collect::<Vec<_>>(), ["d"]);
        assert!(packages(&b"Package: \xff\n"[..], &origin).is_err());
    }
}
