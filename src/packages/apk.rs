//! The database of apk(8): records between empty lines, fields of one letter
//! (<https://wiki.alpinelinux.org/wiki/Apk_spec>).

use super::{Manager, Package, Reader, Source};
use crate::debian::control::paragraphs;
use crate::tree::TreePath;

/// Where it lies, before and after `/lib` became a link.
pub(super) const PATHS: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];

/// Reads the packages of apk.
pub(super) fn read<S: Source>(reader: &mut Reader<S>) -> Result<(), S::Error> {
    let Some(path) = PATHS.into_iter().find(|path| reader.source.has(path)) else { return Ok(()) };
    let text = reader.text(path)?;
    for record in paragraphs(&text) {
        let mut package = Package { manager: Manager::Apk, configured: true, ..Package::default() };
        for (key, value) in record.lines().filter_map(|line| line.split_once(':')) {
            match key {
                "P" => package.name = value.to_string(),
                "V" => package.version = value.to_string(),
                "A" => package.architecture = value.to_string(),
                "L" => package.licence = Some(value.to_string()),
                _ => {}
            }
        }
        if !package.name.is_empty() {
            reader.add(path, package, || files(record));
        }
    }
    Ok(())
}

fn files(record: &str) -> impl Iterator<Item = TreePath> {
    let mut directory = "";
    record.lines().filter_map(|line| line.split_once(':')).filter_map(move |(key, value)| {
        match key {
            "F" => directory = value,
            "R" => return TreePath::parse_link(format!("{directory}/{value}").as_bytes()).ok(),
            _ => {}
        }
        None
    })
}
