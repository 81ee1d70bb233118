//! The tables of `shipimg analyze`.

use super::super::{Result, printable, table};
use crate::analyze::{Comparison, Difference, Directory, LayerRow, Pair, Report, Sum};
use crate::packages::Package;
use indicatif::{HumanBytes, HumanCount};
use std::io::Write;

/// How much of a command is shown, in characters.
const WIDTH: usize = 60;

/// Prints tables of an image, of at most so many rows each where there may be many.
pub fn print(report: &Report, most: usize, out: &mut impl Write) -> Result<()> {
    let all: u64 = report.layers.iter().fold(0, |sum, l| sum.saturating_add(l.sum.bytes));
    let total = report.total;
    writeln!(out, "{}", heading(report))?;
    writeln!(
        out,
        "{} in {} files, {} packages; waste {} of {} in all layers",
        HumanBytes(total.bytes),
        HumanCount(total.files),
        HumanCount(report.packages.len() as u64),
        HumanBytes(total.waste),
        HumanBytes(all)
    )?;
    notes(report, out)?;
    let layers: Vec<_> = report.layers.iter().enumerate().map(layer).collect();
    all_of(out, ["LAYER", "BYTES", "FILES", "WASTE", "COMPRESSED", "MADE BY"], &layers)?;
    let row = |number: usize| directory(report.directory(number), report.directories[number].sum);
    let directories = main_directories(report).into_iter().map(row);
    first_of(out, most, ["DIRECTORY", "BYTES", "FILES", "WASTE"], directories)?;
    first_of(out, most, ["PACKAGE", "VERSION", "BYTES", "FILES"], packages(report).into_iter())?;
    let wasted = report.wasted().into_iter().map(|(_, file)| {
        let (bytes, layer) = (HumanBytes(file.bytes).to_string(), (file.layer + 1).to_string());
        [file.path.to_string(), bytes, layer, report.reason(file)]
    });
    first_of(out, most, ["WASTED", "BYTES", "LAYER", "WHY"], wasted)
}

fn layer((number, layer): (usize, &LayerRow)) -> [String; 6] {
    let by = layer.created_by.as_deref().filter(|by| !by.is_empty()).or(layer.comment.as_deref());
    [
        (number + 1).to_string(),
        HumanBytes(layer.sum.bytes).to_string(),
        HumanCount(layer.sum.files).to_string(),
        HumanBytes(layer.sum.waste).to_string(),
        layer.size.map_or("-".to_string(), |size| HumanBytes(size).to_string()),
        short(by.unwrap_or("-")),
    ]
}

fn directory(path: String, Sum { bytes, files, waste }: Sum) -> [String; 4] {
    let (bytes, files) = (HumanBytes(bytes).to_string(), HumanCount(files).to_string());
    [path, bytes, files, HumanBytes(waste).to_string()]
}

/// The packages, the largest first, and the files of none as if they were one.
fn packages(report: &Report) -> Vec<[String; 4]> {
    let mut all: Vec<_> =
        report.packages.iter().map(|(p, sum)| (p.name.as_str(), p.version.as_str(), *sum)).collect();
    if !all.is_empty() && report.loose.files > 0 {
        all.push(("(no package)", "", report.loose));
    }
    all.sort_by_key(|(.., sum)| std::cmp::Reverse(sum.bytes));
    let row = |(name, version, sum): (&str, &str, Sum)| {
        let (bytes, files) = (HumanBytes(sum.bytes).to_string(), HumanCount(sum.files).to_string());
        [printable(name), printable(version), bytes, files]
    };
    all.into_iter().map(row).collect()
}

/// Prints tables of what is different, of at most so many rows each where there may be many.
pub fn print_compared(found: &Comparison, most: usize, out: &mut impl Write) -> Result<()> {
    let (old, new) = (found.old, found.new);
    writeln!(out, "from {}\nto   {}", heading(old), heading(new))?;
    writeln!(
        out,
        "{} -> {} in {} -> {} files; waste {} -> {}",
        HumanBytes(old.total.bytes),
        HumanBytes(new.total.bytes),
        HumanCount(old.total.files),
        HumanCount(new.total.files),
        HumanBytes(old.total.waste),
        HumanBytes(new.total.waste)
    )?;
    notes(old, out)?;
    notes(new, out)?;
    let layers: Vec<_> = found.layers.iter().map(|row| compared_layer(found, row)).collect();
    all_of(out, ["OLD", "NEW", "LAYER", "GROWTH", "MADE BY"], &layers)?;
    let mut directories: Vec<_> = found.directories.iter().filter(|d| d.sums.growth() != 0).collect();
    directories.sort_by_key(|d| std::cmp::Reverse(d.sums.growth().unsigned_abs()));
    let rows = directories.into_iter().map(|d| [found.directory(d), growth(d.sums.growth())]);
    first_of(out, most, ["DIRECTORY", "GROWTH"], rows)?;
    // Each of them: this is what one looks for.
    let packages: Vec<_> = found.packages.iter().map(|row| compared_package(found, row)).collect();
    all_of(out, ["PACKAGE", "CHANGE", "OLD", "NEW", "GROWTH"], &packages)?;
    let mut files: Vec<_> = found.files.iter().collect();
    files.sort_by_key(|d| std::cmp::Reverse(d.sums.growth().unsigned_abs()));
    let rows = files.into_iter().map(|row| {
        let path = found.file(row).either().map_or(String::new(), |f| f.path.to_string());
        [path, row.what.change().to_string(), growth(row.sums.growth())]
    });
    first_of(out, most, ["FILE", "CHANGE", "GROWTH"], rows)
}

fn compared_layer(found: &Comparison, row: &Difference<Pair<usize>>) -> [String; 5] {
    let number = |n: Option<usize>| n.map_or("-".to_string(), |n| (n + 1).to_string());
    let new = row.what.new.map(|n| &found.new.layers[n]);
    let layer = new.or_else(|| row.what.old.map(|n| &found.old.layers[n]));
    let by = layer.and_then(|l| l.created_by.as_deref()).unwrap_or("-");
    let (change, growth) = (found.layer_change(row).to_string(), growth(row.sums.growth()));
    [number(row.what.old), number(row.what.new), change, growth, short(by)]
}

fn compared_package(found: &Comparison, row: &Difference<Pair<usize>>) -> [String; 5] {
    let pair = found.package(row);
    let version = |p: Option<&Package>| p.map_or("-".to_string(), |p| printable(&p.version));
    let name = pair.either().map_or(String::new(), |p| printable(&p.name));
    let (change, growth) = (row.what.change().to_string(), growth(row.sums.growth()));
    [name, change, version(pair.old), version(pair.new), growth]
}

/// A table of the first rows, at `most` so many, and how many there are more.
fn first_of<const N: usize>(
    out: &mut impl Write,
    most: usize,
    heads: [&str; N],
    rows: impl ExactSizeIterator<Item = [String; N]>,
) -> Result<()> {
    let count = rows.len();
    all_of(out, heads, &rows.take(most).collect::<Vec<_>>())?;
    if count > most {
        writeln!(out, "and {} more", HumanCount((count - most) as u64))?;
    }
    Ok(())
}

fn all_of<const N: usize>(out: &mut impl Write, heads: [&str; N], rows: &[[String; N]]) -> Result<()> {
    if !rows.is_empty() {
        writeln!(out)?;
    }
    Ok(table::print(out, heads, rows)?)
}

fn heading(report: &Report) -> String {
    let mut text = printable(&report.name);
    if let (Some(digest), Some(platform)) = (&report.digest, &report.platform) {
        text = format!("{text} {digest} {}", printable(platform));
    }
    report.size.map_or(text.clone(), |size| format!("{text}, {} compressed", HumanBytes(size)))
}

fn notes(report: &Report, out: &mut impl Write) -> Result<()> {
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

/// The beginning of a command, as one line.
fn short(text: &str) -> String {
    let text = printable(text).split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= WIDTH { text } else { text.chars().take(WIDTH - 1).chain(['…']).collect() }
}

fn growth(bytes: i128) -> String {
    let size = HumanBytes(u64::try_from(bytes.unsigned_abs()).unwrap_or(u64::MAX));
    match bytes {
        0 => "0".to_string(),
        1.. => format!("+{size}"),
        _ => format!("-{size}"),
    }
}

/// The directories that tell most, the largest first: none of which all but a tenth is in one directory
/// below, for that one tells more, and not the root.
fn main_directories(report: &Report) -> Vec<usize> {
    let all = &report.directories;
    let mut largest = vec![0; all.len()];
    for directory in all {
        if let Some(parent) = directory.parent {
            largest[parent] = largest[parent].max(directory.sum.bytes);
        }
    }
    let tells = |(d, largest): &(&Directory, u64)| {
        d.parent.is_some() && d.sum.bytes > 0 && *largest < d.sum.bytes - d.sum.bytes / 10
    };
    let mut main: Vec<_> = (0..all.len()).filter(|n| tells(&(&all[*n], largest[*n]))).collect();
    main.sort_by_key(|n| std::cmp::Reverse(all[*n].sum.bytes));
    main
}
