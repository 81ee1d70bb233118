//! The files of a page, by columns.

use super::super::Directory;
use indicatif::HumanCount;
use serde::Serialize;
use std::collections::BTreeMap;

/// How many files the page has by name.
const MOST_FILES: usize = 150_000;

/// Directories: the number of the one that each lies in, and its own name.
#[derive(Serialize)]
pub struct Dirs {
    parent: Vec<usize>,
    name: Vec<String>,
}

impl Dirs {
    pub fn of(directories: &[Directory]) -> Self {
        let name = |d: &Directory| d.name.escape_ascii().to_string();
        Self {
            parent: directories.iter().map(|d| d.parent.unwrap_or(0)).collect(),
            name: directories.iter().map(name).collect(),
        }
    }
}

/// A name as [`crate::tree::TreePath`] shows it.
pub fn shown(name: &std::ffi::OsStr) -> String {
    name.as_encoded_bytes().escape_ascii().to_string()
}

/// A file, or several that are too small to be told apart.
pub struct Row {
    pub dir: usize,
    pub name: String,
    pub bytes: u64,
    pub layer: usize,
    pub package: Option<usize>,
    pub state: u8,
    pub count: u64,
}

/// Files by columns, which are shorter than objects.
#[derive(Serialize, Default)]
pub struct Columns {
    dir: Vec<usize>,
    name: Vec<String>,
    bytes: Vec<u64>,
    layer: Vec<usize>,
    package: Vec<i64>,
    state: Vec<u8>,
    count: Vec<u64>,
}

impl Columns {
    pub fn of(rows: Vec<Row>) -> Self {
        let mut columns = Self::default();
        for row in gathered(rows, MOST_FILES) {
            columns.dir.push(row.dir);
            columns.name.push(row.name);
            columns.bytes.push(row.bytes);
            columns.layer.push(row.layer);
            columns.package.push(row.package.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1));
            columns.state.push(row.state);
            columns.count.push(row.count);
        }
        columns
    }
}

/// The `most` largest rows; of the others those of one directory, layer, package and state together.
fn gathered(mut rows: Vec<Row>, most: usize) -> Vec<Row> {
    if rows.len() <= most {
        return rows;
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    let mut together: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for row in rows.drain(most..) {
        let sum = together.entry((row.dir, row.layer, row.package, row.state)).or_default();
        *sum = (sum.0.saturating_add(row.bytes), sum.1 + row.count);
    }
    rows.extend(together.into_iter().map(|((dir, layer, package, state), (bytes, count))| {
        let name = format!("{} small files", HumanCount(count));
        Row { dir, name, bytes, layer, package, state, count }
    }));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_gathered() {
        let row =
            |dir, bytes| Row { dir, name: "x".into(), bytes, layer: 0, package: None, state: 0, count: 1 };
        let rows = gathered(vec![row(0, 1), row(0, 9), row(0, 2), row(1, 3), row(1, 8)], 2);
        let rows: Vec<_> = rows.iter().map(|r| (r.dir, r.bytes, r.count, r.name.as_str())).collect();
        assert_eq!(
            rows,
            [(0, 9, 1, "x"), (1, 8, 1, "x"), (0, 3, 2, "2 small files"), (1, 3, 1, "1 small files")]
        );
    }
}
