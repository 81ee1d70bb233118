//! The databases of dpkg(1): its own, and that of distroless images, which have one without dpkg.
//!
//! Licences are those that `copyright` files list, where they are written for programs (DEP-5).

use super::{Manager, Package, Reader, Source};
use crate::debian::control::{diverted, field, paragraphs};
use crate::tree::TreePath;

const STATUS: &str = "var/lib/dpkg/status";
const STATUS_D: &str = "var/lib/dpkg/status.d";
/// Behind the name of a package.
const SUMS: &str = ".md5sums";
const DIVERSIONS: &str = "var/lib/dpkg/diversions";
const INFO: &str = "var/lib/dpkg/info";
const DOC: &str = "usr/share/doc";
/// How many licences of one package are named.
const LICENCES: usize = 8;

pub(super) fn is_database(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    match folder {
        STATUS_D => true,
        INFO => name.rsplit_once('.').is_some_and(|(_, end)| end == "list"),
        _ if name == "copyright" => folder.starts_with(DOC),
        _ => [STATUS, DIVERSIONS].contains(&path),
    }
}

/// Reads the packages of dpkg.
pub(super) fn read<S: Source>(reader: &mut Reader<S>) -> Result<(), S::Error> {
    let status = reader.text(STATUS)?;
    let diversions = if reader.wants_files() { reader.text(DIVERSIONS)? } else { "".into() };
    let diverted = diverted(&diversions);
    for paragraph in paragraphs(&status) {
        let Some(mut package) = described(paragraph).filter(|_| is_there(paragraph)) else { continue };
        package.configured = is_configured(paragraph);
        let mut list = "".into();
        if reader.wants_files() {
            package.licence = licence(reader, &package.name)?;
            let Package { name, architecture, .. } = &package;
            let own = format!("{INFO}/{name}:{architecture}.list");
            let path = if reader.source.has(&own) { own } else { format!("{INFO}/{name}.list") };
            list = reader.text(&path)?;
        }
        let name = package.name.clone();
        let place = |path: &str| match diverted.get(path) {
            Some((to, by)) if *by != name => parse(to),
            _ => parse(path),
        };
        reader.add(STATUS, package, || list.lines().filter_map(place));
    }
    for name in reader.source.names(STATUS_D).into_iter().filter(|name| !name.ends_with(SUMS)) {
        let path = format!("{STATUS_D}/{name}");
        let text = reader.text(&path)?;
        let Some(mut package) = described(&text) else { continue };
        let mut sums = "".into();
        if reader.wants_files() {
            package.licence = licence(reader, &package.name)?;
            sums = reader.text(&format!("{path}{SUMS}"))?;
        }
        let file = |line: &str| parse(line.split_once("  ")?.1);
        reader.add(STATUS_D, package, || sums.lines().filter_map(file));
    }
    Ok(())
}

fn parse(path: &str) -> Option<TreePath> {
    TreePath::parse_link(path.as_bytes()).ok()
}

fn described(paragraph: &str) -> Option<Package> {
    let get = |name| field(paragraph, name).unwrap_or_default();
    Some(Package {
        name: field(paragraph, "Package")?,
        version: get("Version"),
        architecture: get("Architecture"),
        licence: None,
        manager: Manager::Dpkg,
        configured: true,
    })
}

/// The state of a package (dpkg(1), "Package states").
fn state(paragraph: &str) -> String {
    let status = field(paragraph, "Status").unwrap_or_default();
    status.split_whitespace().nth(2).unwrap_or_default().to_string()
}

/// Whether files of the package are there.
fn is_there(paragraph: &str) -> bool {
    !["", "not-installed", "config-files"].contains(&state(paragraph).as_str())
}

/// Whether all was done for it; triggers are other packages' work.
fn is_configured(paragraph: &str) -> bool {
    ["installed", "triggers-awaited", "triggers-pending"].contains(&state(paragraph).as_str())
}

fn licence<S: Source>(reader: &Reader<S>, package: &str) -> Result<Option<String>, S::Error> {
    let copyright = reader.source.content(&format!("{DOC}/{package}/copyright"))?;
    Ok(copyright.and_then(|bytes| licences(&String::from_utf8_lossy(&bytes))))
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
        if names.len() > LICENCES {
            names[LICENCES] = "…".to_string();
            break;
        }
    }
    (!names.is_empty()).then(|| names.join(", "))
}
