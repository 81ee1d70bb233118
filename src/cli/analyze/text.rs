//! The tables of `shipimg analyze`.

use super::super::{Result, printable, table};
use crate::analyze::{self, Comparison, Report};
use indicatif::{HumanBytes, HumanCount};
use std::io::Write;

/// How much of a command is shown, in characters.
const WIDTH: usize = 60;

/// Prints tables of an image.
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
    writeln!(out)?;
    let layers: Vec<_> = report
        .layers
        .iter()
        .enumerate()
        .map(|(number, layer)| {
            let by = layer.created_by.as_deref().filter(|by| !by.is_empty()).or(layer.comment.as_deref());
            [
                (number + 1).to_string(),
                HumanBytes(layer.sum.bytes).to_string(),
                HumanCount(layer.sum.files).to_string(),
                HumanBytes(layer.sum.waste).to_string(),
                layer.size.map_or("-".to_string(), |size| HumanBytes(size).to_string()),
                short(by.unwrap_or("-")),
            ]
        })
        .collect();
    table::print(out, ["LAYER", "BYTES", "FILES", "WASTE", "COMPRESSED", "MADE BY"], &layers)?;
    let directories: Vec<_> = main_directories(report);
    let directories: Vec<_> = directories.into_iter().map(|d| sum_row(&d.path.to_string(), d.sum)).collect();
    section(out, most, ["DIRECTORY", "BYTES", "FILES", "WASTE"], &directories)?;
    let mut packages: Vec<_> =
        report.packages.iter().map(|(p, sum)| (p.name.as_str(), p.version.as_str(), *sum)).collect();
    if !packages.is_empty() && report.loose.files > 0 {
        packages.push(("(no package)", "", report.loose));
    }
    packages.sort_by_key(|(.., sum)| std::cmp::Reverse(sum.bytes));
    let rows: Vec<_> = packages
        .into_iter()
        .map(|(name, version, sum)| {
            [
                printable(name),
                printable(version),
                HumanBytes(sum.bytes).to_string(),
                HumanCount(sum.files).to_string(),
            ]
        })
        .collect();
    section(out, most, ["PACKAGE", "VERSION", "BYTES", "FILES"], &rows)?;
    let wasted: Vec<_> = report
        .wasted()
        .into_iter()
        .map(|(_, file)| {
            [
                file.path.to_string(),
                HumanBytes(file.bytes).to_string(),
                (file.layer + 1).to_string(),
                report.reason(file),
            ]
        })
        .collect();
    section(out, most, ["WASTED", "BYTES", "LAYER", "WHY"], &wasted)
}

/// Prints tables of what is different.
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
    let layers: Vec<_> = found
        .layers
        .iter()
        .map(|row| {
            let number = |n: Option<usize>| n.map_or("-".to_string(), |n| (n + 1).to_string());
            let layer = row.what.new.map(|n| &new.layers[n]).or_else(|| row.what.old.map(|n| &old.layers[n]));
            let by = layer.and_then(|l| l.created_by.as_deref()).unwrap_or("-");
            let (change, growth) = (found.layer_change(row).to_string(), growth(row.sums.growth()));
            [number(row.what.old), number(row.what.new), change, growth, short(by)]
        })
        .collect();
    all(out, ["OLD", "NEW", "LAYER", "GROWTH", "MADE BY"], &layers)?;
    let mut directories: Vec<_> = found.directories.iter().filter(|d| d.sums.growth() != 0).collect();
    directories.sort_by_key(|d| std::cmp::Reverse(d.sums.growth().unsigned_abs()));
    let rows: Vec<_> =
        directories.into_iter().map(|d| [d.what.to_string(), growth(d.sums.growth())]).collect();
    section(out, most, ["DIRECTORY", "GROWTH"], &rows)?;
    let rows: Vec<_> = found
        .packages
        .iter()
        .map(|row| {
            let pair = found.package(row);
            let version = |p: Option<&analyze::Package>| p.map_or("-".to_string(), |p| printable(&p.version));
            let name = pair.either().map_or(String::new(), |p| printable(&p.name));
            [
                name,
                row.what.change().to_string(),
                version(pair.old),
                version(pair.new),
                growth(row.sums.growth()),
            ]
        })
        .collect();
    // Each of them: this is what one looks for.
    all(out, ["PACKAGE", "CHANGE", "OLD", "NEW", "GROWTH"], &rows)?;
    let mut files: Vec<_> = found.files.iter().collect();
    files.sort_by_key(|d| std::cmp::Reverse(d.sums.growth().unsigned_abs()));
    let rows: Vec<_> = files
        .into_iter()
        .map(|row| {
            let path = found.file(row).either().map_or(String::new(), |f| f.path.to_string());
            [path, row.what.change().to_string(), growth(row.sums.growth())]
        })
        .collect();
    section(out, most, ["FILE", "CHANGE", "GROWTH"], &rows)
}

/// A table of the first rows, at `most` so many, and how many there are more.
fn section<const N: usize>(
    out: &mut impl Write,
    most: usize,
    heads: [&str; N],
    rows: &[[String; N]],
) -> Result<()> {
    all(out, heads, &rows[..rows.len().min(most)])?;
    if rows.len() > most {
        writeln!(out, "and {} more", HumanCount((rows.len() - most) as u64))?;
    }
    Ok(())
}

fn all<const N: usize>(out: &mut impl Write, heads: [&str; N], rows: &[[String; N]]) -> Result<()> {
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

fn sum_row(name: &str, sum: analyze::Sum) -> [String; 4] {
    [
        name.to_string(),
        HumanBytes(sum.bytes).to_string(),
        HumanCount(sum.files).to_string(),
        HumanBytes(sum.waste).to_string(),
    ]
}

/// The directories that tell most, the largest first: none of which all but a tenth is in one directory
/// below, for that one tells more, and not the root.
fn main_directories(report: &Report) -> Vec<&analyze::Directory> {
    let all = &report.directories;
    let mut largest = vec![0; all.len()];
    for directory in all {
        if let Some(parent) = directory.parent {
            largest[parent] = largest[parent].max(directory.sum.bytes);
        }
    }
    let tells = |(d, largest): &(&analyze::Directory, u64)| {
        d.parent.is_some() && d.sum.bytes > 0 && *largest < d.sum.bytes - d.sum.bytes / 10
    };
    let mut main: Vec<_> = all.iter().zip(largest).filter(tells).map(|(d, _)| d).collect();
    main.sort_by(|a, b| b.sum.bytes.cmp(&a.sum.bytes).then_with(|| a.path.cmp(&b.path)));
    main
}
