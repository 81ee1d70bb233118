//! A report, or a comparison of two, as one page of HTML that needs nothing else: no file, no server.
//!
//! Names in an image are made by whoever made the image. They stand in a block of JSON that is no
//! script, in which `<`, `>` and `&` are escaped, and the page shows them as text alone, never as
//! markup. Its policy (CSP) allows the scripts and the style that are in it, by their digests, and no
//! request. The chart library is Apache `ECharts`, as `scripts/assets` bundles it.
//!
//! The page groups the files itself, when somebody looks. Of more than 150,000 files the smaller ones are
//! added up by directory, so that a browser holds them.

mod rows;

use super::compare::Comparison;
use super::directories::Directories;
use super::fold::Fate;
use super::report::{LayerRow, Report, Sum};
use super::{Check, Difference, Pair};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use indicatif::{HumanBytes, HumanCount};
use rows::{Columns, Dirs, Row, shown};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::io::{self, Write};

const BODY: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const CHARTS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/dist/charts.js"));

/// How many wasted files, and directories that are different, have a row.
const MOST_ROWS: usize = 200;

/// States of files, as the script has them by number: those of an image, then those of a comparison.
const STATES: [&str; 7] = [
    "",
    "has the content of another file",
    "deleted by a later layer",
    "replaced by a later layer",
    "written again by a later layer, with the same content",
    "grew, or is new",
    "shrank, or is gone",
];

const GREW: u8 = 5;
const SHRANK: u8 = 6;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    mode: &'a str,
    kind: String,
    title: String,
    digest: Option<&'a str>,
    facts: Vec<Fact>,
    notes: Vec<&'a str>,
    states: [&'a str; 7],
    layers: Vec<Layer<'a>>,
    dirs: Dirs,
    packages: Vec<Package<'a>>,
    files: Columns,
    wasted: Vec<Wasted>,
    wasted_count: usize,
    changes: Vec<Changed>,
    checks: Option<&'a [Check]>,
    footer: String,
}

#[derive(Serialize)]
struct Layer<'a> {
    rank: String,
    digest: Option<&'a str>,
    size: Option<u64>,
    #[serde(flatten)]
    sum: Sum,
    created: Option<&'a str>,
    by: Option<&'a str>,
    comment: Option<&'a str>,
    change: Option<&'a str>,
}

impl<'a> Layer<'a> {
    fn of(rank: String, row: &'a LayerRow, change: Option<&'a str>) -> Self {
        let by = row.created_by.as_deref().filter(|by| !by.trim().is_empty());
        Self {
            rank,
            digest: row.digest.as_deref(),
            size: row.size,
            sum: row.sum,
            created: row.created.as_deref(),
            by,
            comment: row.comment.as_deref(),
            change,
        }
    }
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    architecture: &'a str,
    licence: Option<&'a str>,
    #[serde(flatten)]
    sum: Sum,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_bytes: Option<u64>,
}

impl<'a> Package<'a> {
    fn of((package, sum): &'a (crate::packages::Package, Sum)) -> Self {
        let (name, version, architecture) = (&package.name, &package.version, &package.architecture);
        Self {
            name,
            version,
            architecture,
            licence: package.licence.as_deref(),
            sum: *sum,
            ..Self::default()
        }
    }
}

#[derive(Serialize)]
struct Wasted {
    path: String,
    bytes: u64,
    layer: usize,
    why: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    path: String,
    old_bytes: Option<u64>,
    new_bytes: Option<u64>,
}

fn percent(part: u64, whole: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "one digit is shown")]
    let share = 100.0 * part as f64 / whole.max(1) as f64;
    format!("{share:.1} %")
}

fn footer() -> String {
    format!(
        "Made by {} {}. Bytes are those of the contents of regular files; a file with several names counts once.",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION")
    )
}

/// Writes the page of an image, with the results of checks if there are any.
///
/// # Errors
/// Those of `out`.
pub fn page(report: &Report, checks: Option<&[Check]>, out: &mut dyn Write) -> io::Result<()> {
    let wasted = report.wasted();
    let shown_waste = wasted.iter().take(MOST_ROWS).map(|(_, file)| Wasted {
        path: file.path.to_string(),
        bytes: file.bytes,
        layer: file.layer + 1,
        why: report.reason(file),
    });
    let layer = |(n, row)| Layer::of(format!("{}", n + 1), row, None);
    let data = Data {
        mode: "image",
        kind: report.platform.clone().map_or("Files".to_string(), |p| format!("Image for {p}")),
        title: report.name.clone(),
        digest: report.digest.as_deref(),
        facts: facts(report),
        notes: report.notes.iter().map(String::as_str).collect(),
        states: STATES,
        layers: report.layers.iter().enumerate().map(layer).collect(),
        dirs: Dirs::of(&report.directories),
        packages: report.packages.iter().map(Package::of).collect(),
        files: files(report),
        wasted: shown_waste.collect(),
        wasted_count: wasted.len(),
        changes: Vec::new(),
        checks,
        footer: footer(),
    };
    write(&data, out)
}

/// A figure of the head of the page: what it is, the figure, and what is said of it.
type Fact = (&'static str, String, String);

fn facts(report: &Report) -> Vec<Fact> {
    let total = report.total;
    let all: u64 = report.layers.iter().fold(0, |sum, l| sum.saturating_add(l.sum.bytes));
    let (human, count) = (|n| HumanBytes(n).to_string(), |n| HumanCount(n).to_string());
    let mut facts = Vec::new();
    if let Some(size) = report.size {
        facts.push(("As compressed", human(size), "all blobs of the image".to_string()));
    }
    facts.push(("Files' content", human(total.bytes), "seen in the image".to_string()));
    facts.push(("Files", count(total.files), "regular files".to_string()));
    if report.digest.is_some() {
        facts.push(("Layers", count(report.layers.len() as u64), format!("{} in all of them", human(all))));
    }
    let loose = format!("{} in no package", percent(report.loose.bytes, total.bytes));
    facts.push(("Packages", count(report.packages.len() as u64), loose));
    facts.push(("Waste", human(total.waste), format!("{} of all layers", percent(total.waste, all))));
    facts
}

fn files(report: &Report) -> Columns {
    let rows = report.files.iter().zip(&report.places).map(|(file, (dir, package))| Row {
        dir: *dir,
        name: file.path.split().map_or(String::new(), |(_, name)| shown(name)),
        bytes: file.bytes,
        layer: file.layer,
        package: *package,
        state: match file.fate {
            Fate::Kept => 0,
            Fate::Repeated(_) => 1,
            Fate::Deleted(_) => 2,
            Fate::Replaced(_) => 3,
            Fate::Rewritten(_) => 4,
        },
        count: 1,
    });
    Columns::of(rows.collect())
}

/// Writes the page of a comparison, with the results of checks if there are any.
///
/// # Errors
/// Those of `out`.
pub fn compared_page(found: &Comparison, checks: Option<&[Check]>, out: &mut dyn Write) -> io::Result<()> {
    let (old, new) = (found.old, found.new);
    let (files, dirs) = changed_files(found);
    let mut changes: Vec<_> = found.directories.iter().filter(|d| d.sums.growth() != 0).collect();
    changes.sort_by_key(|d| std::cmp::Reverse(d.sums.growth().unsigned_abs()));
    let bytes = |sum: Option<Sum>| sum.map(|s| s.bytes);
    let changes = changes.into_iter().take(MOST_ROWS).map(|d| Changed {
        path: found.directory(d),
        old_bytes: bytes(d.sums.old),
        new_bytes: bytes(d.sums.new),
    });
    let data = Data {
        mode: "compare",
        kind: "Two images compared".to_string(),
        title: format!("{} → {}", old.name, new.name),
        digest: None,
        facts: compared_facts(found),
        notes: old.notes.iter().chain(&new.notes).map(String::as_str).collect(),
        states: STATES,
        layers: found.layers.iter().filter_map(|d| compared_layer(found, d)).collect(),
        dirs,
        packages: all_packages(found),
        files,
        wasted: Vec::new(),
        wasted_count: 0,
        changes: changes.collect(),
        checks,
        footer: footer(),
    };
    write(&data, out)
}

fn compared_facts(found: &Comparison) -> Vec<Fact> {
    let (old, new) = (found.old, found.new);
    let grown = |what, a, b| (what, growth(a, b), format!("{} → {}", HumanBytes(a), HumanBytes(b)));
    let differ = |what, n: usize, a: u64, b: u64| {
        (what, HumanCount(n as u64).to_string(), format!("{} → {} in all", HumanCount(a), HumanCount(b)))
    };
    let sizes = old.size.zip(new.size).map(|(a, b)| grown("As compressed", a, b));
    let (a, b) = (old.total, new.total);
    let packages = (old.packages.len() as u64, new.packages.len() as u64);
    let others = [
        grown("Files' content", a.bytes, b.bytes),
        differ("Files that differ", found.files.len(), a.files, b.files),
        differ("Packages that differ", found.packages.len(), packages.0, packages.1),
        grown("Waste", a.waste, b.waste),
    ];
    sizes.into_iter().chain(others).collect()
}

fn growth(old: u64, new: u64) -> String {
    let sign = match new.cmp(&old) {
        std::cmp::Ordering::Less => "−",
        std::cmp::Ordering::Equal => "±",
        std::cmp::Ordering::Greater => "+",
    };
    format!("{sign}{}", HumanBytes(new.abs_diff(old)))
}

fn compared_layer<'a>(found: &'a Comparison, row: &Difference<Pair<usize>>) -> Option<Layer<'a>> {
    let change = Some(found.layer_change(row));
    let new = row.what.new.map(|n| Layer::of(format!("{}", n + 1), &found.new.layers[n], change));
    new.or_else(|| row.what.old.map(|n| Layer::of(format!("({})", n + 1), &found.old.layers[n], change)))
}

/// All packages of the second image, then those that only the first has: files know theirs by number.
fn all_packages<'a>(found: &'a Comparison) -> Vec<Package<'a>> {
    let mut all: Vec<_> = found.new.packages.iter().map(Package::of).collect();
    let bytes = |sum: Option<Sum>| sum.map(|s| s.bytes);
    for row in &found.packages {
        let pair = found.package(row);
        let number = row.what.new.unwrap_or_else(|| {
            all.extend(row.what.old.map(|n| Package { version: "", ..Package::of(&found.old.packages[n]) }));
            all.len() - 1
        });
        if let Some(package) = all.get_mut(number) {
            package.change = Some(row.what.change());
            package.old_version = pair.old.map(|p| p.version.as_str());
            (package.old_bytes, package.new_bytes) = (bytes(row.sums.old), bytes(row.sums.new));
        }
    }
    all
}

/// Of each package of the first image, where [`all_packages`] has it.
fn old_packages(found: &Comparison) -> Vec<usize> {
    let key = |p: &'_ crate::packages::Package| (p.name.clone(), p.architecture.clone());
    let mut numbers: HashMap<_, _> =
        found.new.packages.iter().zip(0..).map(|((p, _), n)| (key(p), n)).collect();
    let gone = found.packages.iter().filter(|d| d.what.new.is_none()).filter_map(|d| d.what.old);
    for (n, old) in gone.enumerate() {
        numbers.insert(key(&found.old.packages[old].0), found.new.packages.len() + n);
    }
    found.old.packages.iter().map(|(p, _)| numbers.get(&key(p)).copied().unwrap_or(0)).collect()
}

/// Files that grew or shrank, by how much.
fn changed_files(found: &Comparison) -> (Columns, Dirs) {
    let mut directories = Directories::default();
    let old_packages = old_packages(found);
    let mut rows = Vec::new();
    for row in &found.files {
        let Some(file) = found.file(row).either().copied() else { continue };
        let growth = row.sums.growth();
        // Packages and layers stand in the page as `all_packages` and `Comparison::layers` have them.
        let package = match (row.what.new, row.what.old) {
            (Some(n), _) => found.new.places[n].1,
            (None, Some(n)) => found.old.places[n].1.map(|p| old_packages[p]),
            (None, None) => None,
        };
        let is_its = |d: &Difference<Pair<usize>>| match row.what.new {
            Some(_) => d.what.new == Some(file.layer),
            None => d.what.old == Some(file.layer),
        };
        rows.push(Row {
            dir: directories.add(&file.path, Sum::default()),
            name: file.path.split().map_or(String::new(), |(_, name)| shown(name)),
            bytes: u64::try_from(growth.unsigned_abs()).unwrap_or(u64::MAX),
            layer: found.layers.iter().position(is_its).unwrap_or(0),
            package,
            state: if growth < 0 { SHRANK } else { GREW },
            count: 1,
        });
    }
    (Columns::of(rows), Dirs::of(&directories.summed()))
}

/// Writes JSON so that HTML sees nothing in it.
struct Escaped<'a>(&'a mut dyn Write);

impl Write for Escaped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|b| b"<>&".contains(b)) {
            match part.split_last() {
                Some((last @ (b'<' | b'>' | b'&'), before)) => {
                    self.0.write_all(before)?;
                    write!(self.0, "\\u{:04x}", u32::from(*last))?;
                }
                _ => self.0.write_all(part)?,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A digest as a policy has it (CSP, "Source Lists").
fn source(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text.as_bytes())))
}

fn write(data: &Data, out: &mut dyn Write) -> io::Result<()> {
    let (charts, script, style) = (source(CHARTS), source(SCRIPT), source(STYLE));
    let policy = format!(
        "default-src 'none'; script-src {charts} {script}; style-src {style}; base-uri 'none'; form-action 'none'"
    );
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>shipimg analyze</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{BODY}\
         <script type=\"application/json\" id=\"data\">"
    )?;
    serde_json::to_writer(Escaped(out), data)?;
    write!(out, "</script>\n<script>{CHARTS}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// What a browser takes for the data.
    fn data(page: &str) -> serde_json::Value {
        let (_, rest) = page.split_once("id=\"data\">").unwrap();
        serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
    }

    #[test]
    fn names_do_not_become_markup() {
        let hostile = "</script><script>alert(1)</script>\"'&\u{202e}<!--\u{2028}\u{7}";
        let mut report = report(&[&[(hostile, 10, 1)]]);
        report.name = hostile.to_string();
        report.layers[0].created_by = Some(hostile.to_string());
        let package =
            crate::packages::Package { name: hostile.to_string(), ..crate::packages::Package::default() };
        report.packages = vec![(package, Sum::default())];
        let check = Check {
            name: hostile.to_string(),
            passed: false,
            wanted: Some(hostile.to_string()),
            found: None,
            place: None,
        };
        let page = text(|out| page(&report, Some(&[check]), out));
        assert_eq!(page.matches("<script").count(), 3);
        assert_eq!(page.matches("</script").count(), 3);
        assert!(!page.contains("alert(1)<"));
        let data = data(&page);
        for place in ["/title", "/layers/0/by", "/packages/0/name", "/checks/0/wanted"] {
            assert_eq!(data.pointer(place).unwrap(), hostile, "{place}");
        }
        // Names of files are plain ASCII, as everywhere.
        assert!(data["files"]["name"][0].as_str().unwrap().is_ascii());
    }

    #[test]
    fn the_policy_names_what_is_in_the_page() {
        let page = text(|out| page(&report(&[&[("a", 1, 1)]]), None, out));
        let (_, policy) = page.split_once("Content-Security-Policy\" content=\"").unwrap();
        let policy = policy.split_once('"').unwrap().0;
        for block in [CHARTS, SCRIPT, STYLE] {
            assert!(page.contains(block) && policy.contains(&source(block)));
        }
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"));
        // Nothing of it ends a block early.
        assert!([CHARTS, SCRIPT].iter().all(|s| !s.contains("</script") && !s.contains("<!--")));
    }

    #[test]
    fn comparisons_have_what_differs() {
        let old = report(&[&[("a/x", 10, 1), ("b/y", 20, 2)], &[("gone/z", 5, 3)]]);
        let new = report(&[&[("a/x", 10, 1), ("b/y", 50, 4)]]);
        let page = text(|out| compared_page(&Comparison::new(&old, &new), None, out));
        let data = data(&page);
        assert_eq!(data["files"]["name"], serde_json::json!(["y", "z"]));
        assert_eq!(data["files"]["bytes"], serde_json::json!([30, 5]));
        assert_eq!(data["files"]["state"], serde_json::json!([GREW, SHRANK]));
        assert_eq!(data["layers"][1]["change"], "removed");
        assert_eq!(data["files"]["layer"], serde_json::json!([0, 1]));
        assert_eq!(data["changes"][0]["path"], "/b");
    }
}
