//! Which package a file belongs to: what the databases of dpkg(1) and apk(8) say in the image.
//!
//! | database | packages | their files |
//! |---|---|---|
//! | `var/lib/dpkg/status` | paragraphs that are installed | `var/lib/dpkg/info/NAME[:ARCH].list` |
//! | `var/lib/dpkg/status.d/NAME` | a paragraph each (distroless images) | `NAME.md5sums` beside it |
//! | `lib/apk/db/installed` | records of `P:` `V:` `A:` `L:` | `F:` a directory, `R:` a file in it |
//!
//! Databases name files as the packages had them: since `/bin` is a link to `/usr/bin`, the directories
//! of these names are resolved in the image; what dpkg-divert(1) moved is where that says. Licences of Debian packages are those that their
//! `copyright` files list, where they are written for programs (DEP-5). Databases of rpm are binary
//! and not read; that they are there is noted.

use super::fold::Folded;
use crate::debian::control::{field, paragraphs};
use crate::tree::TreePath;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;

const STATUS: &str = "var/lib/dpkg/status";
const STATUS_D: &str = "var/lib/dpkg/status.d";
/// Behind the name of a package.
const SUMS: &str = ".md5sums";
const DIVERSIONS: &str = "var/lib/dpkg/diversions";
const INFO: &str = "var/lib/dpkg/info";
const DOC: &str = "usr/share/doc";
/// Where apk keeps its database.
pub const APK: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];

/// Where rpm keeps its database: sqlite, ndb and Berkeley DB, after and before it moved.
pub const RPM: [&str; 6] = [
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "usr/lib/sysimage/rpm/Packages.db",
    "usr/lib/sysimage/rpm/Packages",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/Packages",
];

/// How many licences of one package are named.
const LICENCES: usize = 8;

/// A package of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// Its licences, where they are known.
    pub licence: Option<String>,
    /// Whose database names it: `dpkg` or `apk`.
    pub manager: &'static str,
}

/// The packages of an image and the files that they own.
#[derive(Debug, Default)]
pub struct Packages {
    /// Sorted by name.
    pub list: Vec<Package>,
    /// What could not be read.
    pub notes: Vec<String>,
    owners: HashMap<TreePath, usize>,
}

/// Whether `path` is a part of a database.
#[must_use]
pub fn is_database(path: &TreePath) -> bool {
    let Ok(path) = str::from_utf8(path.as_bytes()) else { return false };
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    match folder {
        STATUS_D => true,
        INFO => name.rsplit_once('.').is_some_and(|(_, end)| end == "list"),
        _ if name == "copyright" => folder.starts_with(DOC),
        _ => [STATUS, DIVERSIONS].contains(&path) || APK.contains(&path),
    }
}

/// A package as it is read: itself, and its files as the database has them.
type Read = (Package, Vec<TreePath>);

impl Packages {
    /// The packages of the image.
    #[must_use]
    pub fn new(image: &Folded) -> Self {
        let mut all = dpkg(image);
        all.extend(distroless(image));
        for (package, _) in &mut all {
            let doc = parse(format!("{DOC}/{}", package.name).as_bytes()).unwrap_or_default();
            let file = image.get(&image.resolve(&doc).join(OsStr::new("copyright")));
            let copyright = file.and_then(|f| f.text.as_deref()).map(String::from_utf8_lossy);
            package.licence = copyright.and_then(|text| licences(&text));
        }
        let apk = APK.iter().find_map(|path| text(image, path));
        all.extend(apk.iter().flat_map(|text| apk_packages(text)));
        let mut packages = Self::of(all, |directory| image.resolve(directory));
        for path in RPM.iter().filter(|p| parse(p.as_bytes()).is_some_and(|p| image.get(&p).is_some())) {
            packages.notes.push(format!("the packages of rpm are not read: /{path}"));
        }
        packages
    }

    /// These packages, the paths of whose directories are resolved by `resolve`. A file of several
    /// belongs to the first.
    fn of(mut all: Vec<Read>, resolve: impl Fn(&TreePath) -> TreePath) -> Self {
        all.sort_by(|(a, _), (b, _)| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
        let mut packages = Self::default();
        let mut directories: BTreeMap<TreePath, TreePath> = BTreeMap::new();
        for (number, (package, paths)) in all.into_iter().enumerate() {
            packages.list.push(package);
            for path in paths {
                let Some((parent, name)) = path.split() else { continue };
                let real = match directories.get(&parent) {
                    Some(real) => real,
                    None => directories.entry(parent.clone()).or_insert(resolve(&parent)),
                };
                packages.owners.entry(real.join(name)).or_insert(number);
            }
        }
        packages
    }

    /// The package that owns `path`, by its number in the list.
    #[must_use]
    pub fn owner(&self, path: &TreePath) -> Option<usize> {
        self.owners.get(path).copied()
    }
}

fn parse(path: &[u8]) -> Option<TreePath> {
    TreePath::parse_link(path).ok()
}

/// A file of a database of the image.
fn text(image: &Folded, path: &str) -> Option<String> {
    let file = image.get(&parse(path.as_bytes())?)?;
    file.text.as_deref().map(|text| String::from_utf8_lossy(text).into_owned())
}

/// The packages that dpkg has installed.
fn dpkg(image: &Folded) -> Vec<Read> {
    let status = text(image, STATUS).unwrap_or_default();
    let diversions = text(image, DIVERSIONS).unwrap_or_default();
    let diverted = diverted(&diversions);
    let mut all = Vec::new();
    for paragraph in paragraphs(&status).filter(|p| is_installed(p)) {
        let Some(package) = described(paragraph) else { continue };
        let (name, arch) = (&package.name, &package.architecture);
        let own = text(image, &format!("{INFO}/{name}:{arch}.list"));
        let list = own.or_else(|| text(image, &format!("{INFO}/{name}.list"))).unwrap_or_default();
        let place = |path: &str| match diverted.get(path) {
            Some((to, by)) if by != name => parse(to.as_bytes()),
            _ => parse(path.as_bytes()),
        };
        let paths = list.lines().filter_map(place).collect();
        all.push((package, paths));
    }
    all
}

/// Where the file of this path lies in place of it, but for the package that has it moved: lines by
/// three (dpkg-divert(1)).
fn diverted(text: &str) -> HashMap<&str, (&str, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    lines.chunks_exact(3).map(|lines| (lines[0], (lines[1], lines[2]))).collect()
}

/// The packages of a distroless image.
fn distroless(image: &Folded) -> Vec<Read> {
    let mut all = Vec::new();
    for (path, _) in image.seen() {
        let Ok(path) = str::from_utf8(path.as_bytes()) else { continue };
        if !path.strip_prefix(STATUS_D).is_some_and(|name| name.starts_with('/')) || path.ends_with(SUMS) {
            continue;
        }
        let Some(package) = text(image, path).as_deref().and_then(described) else { continue };
        let sums = text(image, &format!("{path}{SUMS}")).unwrap_or_default();
        let paths = sums.lines().filter_map(|line| parse(line.split_once("  ")?.1.as_bytes()));
        all.push((package, paths.collect()));
    }
    all
}

fn described(paragraph: &str) -> Option<Package> {
    let get = |name| field(paragraph, name).unwrap_or_default();
    let package = Package {
        name: field(paragraph, "Package")?,
        version: get("Version"),
        architecture: get("Architecture"),
        licence: None,
        manager: "dpkg",
    };
    Some(package)
}

/// Whether the files of a package are there (dpkg(1), "Package states").
fn is_installed(paragraph: &str) -> bool {
    let status = field(paragraph, "Status").unwrap_or_default();
    let state = status.split_whitespace().nth(2).unwrap_or_default();
    !["", "not-installed", "config-files"].contains(&state)
}

/// The licences that a machine-readable copyright file names for files.
fn licences(copyright: &str) -> Option<String> {
    let mut all = paragraphs(copyright);
    let format = field(all.next()?, "Format")?;
    if !format.contains("copyright-format") {
        return None;
    }
    let mut names: Vec<String> = Vec::new();
    for paragraph in all.filter(|p| field(p, "Files").is_some()) {
        let licence = field(paragraph, "License").unwrap_or_default();
        let name = licence.lines().next().unwrap_or_default().trim().to_string();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > LICENCES {
        names.truncate(LICENCES);
        names.push("…".to_string());
    }
    (!names.is_empty()).then(|| names.join(", "))
}

/// The packages of apk's database: records between empty lines, fields of one letter.
fn apk_packages(text: &str) -> impl Iterator<Item = Read> + '_ {
    paragraphs(text).filter_map(|record| {
        let mut package = Package { manager: "apk", ..Package::default() };
        let (mut paths, mut directory) = (Vec::new(), "");
        for (key, value) in record.lines().filter_map(|l| l.split_once(':')) {
            match key {
                "P" => package.name = value.to_string(),
                "V" => package.version = value.to_string(),
                "A" => package.architecture = value.to_string(),
                "L" => package.licence = Some(value.to_string()),
                "F" => directory = value,
                "R" => paths.extend(parse(format!("{directory}/{value}").as_bytes())),
                _ => {}
            }
        }
        (!package.name.is_empty()).then_some((package, paths))
    })
}

#[cfg(test)]
mod tests {
    use super::super::fold::{Folded, Item, What};
    use super::*;

    fn image(files: &[(&str, &str)], links: &[(&str, &str)]) -> Folded {
        let path = |p: &str| TreePath::parse_link(p.as_bytes()).unwrap();
        let file = |(p, text): &(&str, &str)| {
            let text = Some(text.as_bytes().to_vec());
            Item { path: path(p), what: What::File { bytes: 1, sha256: None, text } }
        };
        let link =
            |(p, to): &(&str, &str)| Item { path: path(p), what: What::Symlink(to.as_bytes().to_vec()) };
        Folded::new(vec![files.iter().map(file).chain(links.iter().map(link)).collect()])
    }

    fn owner(packages: &Packages, path: &str) -> String {
        let number = packages.owner(&TreePath::parse_link(path.as_bytes()).unwrap());
        number.map_or("-".to_string(), |n| packages.list[n].name.clone())
    }

    #[test]
    fn dpkg() {
        let status = "Package: b\nStatus: install ok installed\nVersion: 1-2\nArchitecture: amd64\n\n\
            Package: a\nStatus: install ok unpacked\nVersion: 2\nArchitecture: all\n\n\
            Package: gone\nStatus: deinstall ok config-files\nVersion: 3\nArchitecture: all\n\nno package\n";
        let dep5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
            Files: *\nLicense: GPL-2+\n text\n\nFiles: x\nLicense: MIT\n\nFiles: y\nLicense: GPL-2+\n\n\
            License: GPL-3\n";
        let packages = Packages::new(&image(
            &[
                (STATUS, status),
                ("var/lib/dpkg/info/b:amd64.list", "/.\n/bin\n/bin/x\n/lib/y\n/shared\n"),
                ("var/lib/dpkg/info/a.list", "/usr/share/a\n/opt/l/z\n/shared\n"),
                ("var/lib/dpkg/info/gone.list", "/etc/gone\n"),
                (DIVERSIONS, "/shared\n/shared.distrib\nb\n/usr/share/a\n/usr/share/a.real\n:\n"),
                ("usr/share/doc/common/copyright", dep5),
                ("usr/share/doc/b/copyright", "free text\n"),
            ],
            &[("bin", "usr/bin"), ("lib", "/usr/lib"), ("opt/l", "../srv"), ("usr/share/doc/a", "common")],
        ));
        let rows: Vec<_> = packages
            .list
            .iter()
            .map(|p| (p.name.as_str(), p.version.as_str(), p.licence.as_deref()))
            .collect();
        assert_eq!(rows, [("a", "2", Some("GPL-2+, MIT")), ("b", "1-2", None)]);
        for (path, want) in [
            // The list says /bin/x, the file lies at /usr/bin/x.
            ("usr/bin/x", "b"),
            ("bin/x", "-"),
            ("usr/lib/y", "b"),
            ("srv/z", "a"),
            // Moved by b, and by whoever looks after the machine.
            ("shared", "b"),
            ("shared.distrib", "a"),
            ("usr/share/a.real", "a"),
            ("usr/share/a", "-"),
            ("etc/gone", "-"),
        ] {
            assert_eq!(owner(&packages, path), want, "{path}");
        }
    }

    #[test]
    fn distroless_and_apk() {
        let packages = Packages::new(&image(
            &[
                ("var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 12\nArchitecture: amd64\n"),
                ("var/lib/dpkg/status.d/base.md5sums", "0123  etc/issue\n4567  usr/lib/os release\n"),
                (
                    APK[0],
                    "C:Q1\nP:musl\nV:1.2-r0\nA:x86_64\nL:MIT\nF:lib\nR:ld.so\na:0:0:755\nF:\nR:top\n\nP:none\n",
                ),
                ("var/lib/rpm/Packages", ""),
            ],
            &[],
        ));
        let names: Vec<_> = packages.list.iter().map(|p| (p.name.as_str(), p.manager)).collect();
        assert_eq!(names, [("base-files", "dpkg"), ("musl", "apk"), ("none", "apk")]);
        assert_eq!(packages.list[1].licence.as_deref(), Some("MIT"));
        for (path, want) in [
            ("etc/issue", "base-files"),
            ("usr/lib/os release", "base-files"),
            ("lib/ld.so", "musl"),
            ("top", "musl"),
        ] {
            assert_eq!(owner(&packages, path), want, "{path}");
        }
        assert_eq!(packages.notes, ["the packages of rpm are not read: /var/lib/rpm/Packages"]);
    }

    #[test]
    fn databases_are_known_by_name() {
        for (path, want) in [
            ("var/lib/dpkg/status", true),
            ("var/lib/dpkg/status-old", false),
            ("var/lib/dpkg/info/x.list", true),
            ("var/lib/dpkg/info/x.postinst", false),
            ("usr/share/doc/x/copyright", true),
            ("usr/share/doc/x/changelog.gz", false),
            ("lib/apk/db/installed", true),
        ] {
            assert_eq!(is_database(&TreePath::parse_link(path.as_bytes()).unwrap()), want, "{path}");
        }
    }
}
