//! What is different between two images: by layer, by directory, by package, by file.

use super::directories;
use super::fold::File;
use super::report::{Report, Rows, Sum};
use crate::packages::Package;
use crate::tree::TreePath;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::collections::{BTreeMap, HashMap};

/// Something of the one and of the other image; at least one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<T> {
    /// Of the first image.
    pub old: Option<T>,
    /// Of the second.
    pub new: Option<T>,
}

impl<T> Pair<T> {
    /// `added`, `removed`, or `changed`.
    #[must_use]
    pub const fn change(&self) -> &'static str {
        match (&self.old, &self.new) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        }
    }

    /// The one of the second image, or else that of the first.
    pub fn either(&self) -> Option<&T> {
        self.new.as_ref().or(self.old.as_ref())
    }

    fn map<U>(&self, f: impl Fn(&T) -> U) -> Pair<U> {
        Pair { old: self.old.as_ref().map(&f), new: self.new.as_ref().map(&f) }
    }
}

impl Pair<Sum> {
    /// By how many bytes it grew; fewer than 0 where it shrank.
    #[must_use]
    pub fn growth(&self) -> i128 {
        let bytes = |sum: Option<Sum>| sum.map_or(0, |s| i128::from(s.bytes));
        bytes(self.new) - bytes(self.old)
    }
}

/// A row of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference<K> {
    /// What it is about.
    pub what: K,
    /// Its files in both images.
    pub sums: Pair<Sum>,
}

/// Two reports side by side.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// The first.
    pub old: &'a Report,
    /// The second.
    pub new: &'a Report,
    /// Layers by their numbers in both: those of the second in their order, each with one of the first
    /// of the same content, then what only the first has.
    pub layers: Vec<Difference<Pair<usize>>>,
    /// Directories of which the bytes or the number of files is different, by their numbers in both.
    pub directories: Vec<Difference<Pair<usize>>>,
    /// Packages of which the version or the files are, by name, by their numbers in both.
    pub packages: Vec<Difference<Pair<usize>>>,
    /// Files that are different, by path, by their numbers in both.
    pub files: Vec<Difference<Pair<usize>>>,
}

impl<'a> Comparison<'a> {
    /// Compares two images.
    #[must_use]
    pub fn new(old: &'a Report, new: &'a Report) -> Self {
        Self {
            old,
            new,
            layers: layers(old, new),
            directories: directories(old, new),
            packages: packages(old, new),
            files: files(old, new),
        }
    }

    /// What became of the layer of a row: `added`, `removed`, `same`; `changed` of two folders.
    #[must_use]
    pub fn layer_change(&self, row: &Difference<Pair<usize>>) -> &'static str {
        let known = row.what.old.is_some_and(|n| self.old.layers[n].diff_id.is_some());
        match row.what.change() {
            "changed" if known => "same",
            other => other,
        }
    }

    /// The path of the directory of a row.
    #[must_use]
    pub fn directory(&self, row: &Difference<Pair<usize>>) -> String {
        let new = row.what.new.map(|n| self.new.directory(n));
        new.or_else(|| row.what.old.map(|n| self.old.directory(n))).unwrap_or_default()
    }

    /// The packages of a row.
    #[must_use]
    pub fn package(&self, row: &Difference<Pair<usize>>) -> Pair<&'a Package> {
        let get = |report: &'a Report, n: Option<usize>| n.map(|n| &report.packages[n].0);
        Pair { old: get(self.old, row.what.old), new: get(self.new, row.what.new) }
    }

    /// The files of a row.
    #[must_use]
    pub fn file(&self, row: &Difference<Pair<usize>>) -> Pair<&'a File> {
        let get = |report: &'a Report, n: Option<usize>| n.map(|n| &report.files[n]);
        Pair { old: get(self.old, row.what.old), new: get(self.new, row.what.new) }
    }
}

/// Rows of what `key` finds in both.
fn paired<K: Ord, V: Copy>(
    old: impl Iterator<Item = (K, V)>,
    new: impl Iterator<Item = (K, V)>,
) -> BTreeMap<K, Pair<V>> {
    let mut pairs: BTreeMap<K, Pair<V>> = BTreeMap::new();
    let none = Pair { old: None, new: None };
    for (key, value) in old {
        pairs.entry(key).or_insert(none).old = Some(value);
    }
    for (key, value) in new {
        pairs.entry(key).or_insert(none).new = Some(value);
    }
    pairs
}

fn layers(old: &Report, new: &Report) -> Vec<Difference<Pair<usize>>> {
    let mut left: HashMap<&str, Vec<usize>> = HashMap::new();
    for (number, layer) in old.layers.iter().enumerate().rev() {
        left.entry(layer.diff_id.as_deref().unwrap_or("")).or_default().push(number);
    }
    let row = |o: Option<usize>, n: Option<usize>| Difference {
        what: Pair { old: o, new: n },
        sums: Pair { old: o.map(|o| old.layers[o].sum), new: n.map(|n| new.layers[n].sum) },
    };
    let mut rows = Vec::new();
    for (number, layer) in new.layers.iter().enumerate() {
        let same = left.get_mut(layer.diff_id.as_deref().unwrap_or("")).and_then(Vec::pop);
        rows.push(row(same, Some(number)));
    }
    let mut gone: Vec<usize> = left.into_values().flatten().collect();
    gone.sort_unstable();
    rows.extend(gone.into_iter().map(|number| row(Some(number), None)));
    rows
}

fn directories(old: &Report, new: &Report) -> Vec<Difference<Pair<usize>>> {
    // One that has hidden files alone is not there.
    let there = |report: &Report, number: Option<usize>| {
        number.filter(|n| report.directories[*n].sum.files > 0).map(|n| (n, report.directories[n].sum))
    };
    let count = |of: Option<(usize, Sum)>| of.map(|(_, sum)| (sum.bytes, sum.files));
    let row = |(o, n)| {
        let (o, n) = (there(old, o), there(new, n));
        (count(o) != count(n)).then(|| Difference {
            what: Pair { old: o.map(|o| o.0), new: n.map(|n| n.0) },
            sums: Pair { old: o.map(|o| o.1), new: n.map(|n| n.1) },
        })
    };
    directories::pairs(&old.directories, &new.directories).into_iter().filter_map(row).collect()
}

fn packages(old: &Report, new: &Report) -> Vec<Difference<Pair<usize>>> {
    fn numbered(report: &Report) -> impl Iterator<Item = ((&str, &str), usize)> {
        let all = report.packages.iter().enumerate();
        all.map(|(number, (package, _))| ((package.name.as_str(), package.architecture.as_str()), number))
    }
    let mut rows = Vec::new();
    for (_, what) in paired(numbered(old), numbered(new)) {
        let get = |report: &Report, n: Option<usize>| n.map(|n| report.packages[n].1);
        let sums = Pair { old: get(old, what.old), new: get(new, what.new) };
        let version = |report: &'_ Report, n: Option<usize>| n.map(|n| report.packages[n].0.version.clone());
        let count = |sum: Option<Sum>| sum.map(|s| (s.bytes, s.files));
        if version(old, what.old) != version(new, what.new) || count(sums.old) != count(sums.new) {
            rows.push(Difference { what, sums });
        }
    }
    rows
}

fn files(old: &Report, new: &Report) -> Vec<Difference<Pair<usize>>> {
    fn seen(report: &Report) -> impl Iterator<Item = (&TreePath, usize)> {
        let all = report.files.iter().enumerate().filter(|(_, f)| f.fate.is_seen());
        all.map(|(number, file)| (&*file.path, number))
    }
    let sum = |file: &File| Sum { bytes: file.bytes, files: 1, waste: 0 };
    let mut rows = Vec::new();
    for (_, what) in paired(seen(old), seen(new)) {
        let (a, b) = (what.old.map(|n| &old.files[n]), what.new.map(|n| &new.files[n]));
        let same = |a: &File, b: &File| a.bytes == b.bytes && a.sha256 == b.sha256;
        if !a.zip(b).is_some_and(|(a, b)| same(a, b)) {
            rows.push(Difference { what, sums: Pair { old: a.map(sum), new: b.map(sum) } });
        }
    }
    rows
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    change: &'a str,
    old: Option<Sum>,
    new: Option<Sum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_layer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_layer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    architecture: Option<&'a str>,
}

impl Row<'_> {
    const fn of(change: &'static str, sums: Pair<Sum>) -> Self {
        Self {
            path: None,
            name: None,
            change,
            old: sums.old,
            new: sums.new,
            old_layer: None,
            new_layer: None,
            old_version: None,
            new_version: None,
            architecture: None,
        }
    }
}

#[derive(serde::Serialize)]
struct Side<'a> {
    name: &'a str,
    digest: Option<&'a str>,
    size: Option<u64>,
    #[serde(flatten)]
    sum: Sum,
    notes: &'a [String],
}

impl<'a> Side<'a> {
    fn of(report: &'a Report) -> Self {
        let Report { name, digest, size, total, notes, .. } = report;
        Self { name, digest: digest.as_deref(), size: *size, sum: *total, notes }
    }
}

impl Serialize for Comparison<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let layer = |d: &Difference<Pair<usize>>| Row {
            old_layer: d.what.old,
            new_layer: d.what.new,
            ..Row::of(self.layer_change(d), d.sums)
        };
        let directory = |d: &Difference<Pair<usize>>| Row {
            path: Some(self.directory(d)),
            ..Row::of(d.sums.change(), d.sums)
        };
        let package = |d: &Difference<Pair<usize>>| {
            let pair = self.package(d);
            let version = pair.map(|p| p.version.as_str());
            let name = pair.either().map(|p| p.name.as_str());
            let architecture = pair.either().map(|p| p.architecture.as_str());
            let (old_version, new_version) = (version.old, version.new);
            Row { name, old_version, new_version, architecture, ..Row::of(d.what.change(), d.sums) }
        };
        let file = |d: &Difference<Pair<usize>>| {
            let path = self.file(d).either().map(|f| f.path.to_string());
            Row { path, ..Row::of(d.what.change(), d.sums) }
        };
        let mut object = serializer.serialize_struct("Comparison", 6)?;
        object.serialize_field("old", &Side::of(self.old))?;
        object.serialize_field("new", &Side::of(self.new))?;
        object.serialize_field("layers", &Rows(|| self.layers.iter().map(layer)))?;
        object.serialize_field("directories", &Rows(|| self.directories.iter().map(directory)))?;
        object.serialize_field("packages", &Rows(|| self.packages.iter().map(package)))?;
        object.serialize_field("files", &Rows(|| self.files.iter().map(file)))?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn rows() {
        let old = report(&[&[("a/x", 10, 1), ("b/y", 20, 2)], &[("gone/z", 5, 3)]]);
        let mut new = report(&[&[("a/x", 10, 1), ("b/y", 20, 2)], &[("b/y", 20, 4), ("b/new", 7, 5)]]);
        new.layers[1].diff_id = Some("sha256:other".to_string());
        let package = |version: &str| {
            (Package { name: "p".into(), version: version.into(), ..Package::default() }, Sum::default())
        };
        let only = (Package { name: "q".into(), ..Package::default() }, Sum::default());
        let (mut old, mut new) = (Report { packages: vec![package("1")], ..old }, new);
        new.packages = vec![package("2"), only.clone()];
        let found = Comparison::new(&old, &new);
        let layers: Vec<_> = found.layers.iter().map(|d| (d.what.old, d.what.new, d.sums.growth())).collect();
        assert_eq!(layers, [(Some(0), Some(0), 0), (None, Some(1), 27), (Some(1), None, -5)]);
        let directories: Vec<_> =
            found.directories.iter().map(|d| (found.directory(d), d.sums.growth())).collect();
        assert_eq!(directories, [("/".to_string(), 2), ("/b".to_string(), 7), ("/gone".to_string(), -5)]);
        let packages: Vec<_> = found
            .packages
            .iter()
            .map(|d| (found.package(d).either().unwrap().name.as_str(), d.what.change()))
            .collect();
        assert_eq!(packages, [("p", "changed"), ("q", "added")]);
        let files: Vec<_> = found
            .files
            .iter()
            .map(|d| (found.file(d).either().unwrap().path.to_string(), d.what.change(), d.sums.growth()))
            .collect();
        assert_eq!(
            files,
            [
                ("/b/new".to_string(), "added", 7),
                ("/b/y".to_string(), "changed", 0),
                ("/gone/z".to_string(), "removed", -5)
            ]
        );
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(
            (&json["layers"][0]["change"], &json["packages"][0]["oldVersion"]),
            (&"same".into(), &"1".into())
        );
        old.packages = vec![package("2"), only];
        assert!(Comparison::new(&old, &new).packages.is_empty());
    }
}
