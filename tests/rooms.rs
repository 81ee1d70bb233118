//! The import rule of the house: a room imports rooms of lower rank only.
//!
//! The ranks are those of the table in `src/lib.rs`. The test reads the `crate::…`
//! paths of every source file; `crate::error` is open to all.

#![allow(clippy::unwrap_used, reason = "tests fail by panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rooms by rank, as in the table of `src/lib.rs`.
const RANKS: &[(u8, &[&str])] = &[
    (0, &["sys", "oci", "tree"]),
    (1, &["store"]),
    (2, &["registry", "layer", "disk", "serve"]),
    (3, &["debian", "rootfs", "archive"]),
    (4, &["bundle", "packages", "transfer"]),
    (5, &["analyze", "output", "run"]),
    (6, &["verify"]),
    (7, &["recipe"]),
    (8, &["cli"]),
];

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The rooms that a source text names: `crate::ROOM` and each of `crate::{ROOM, …}`.
fn imports(text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|l| !l.trim_start().starts_with("//")).flat_map(|l| [l, "\n"]).collect();
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => top_level(list),
            None => vec![rest],
        };
        for name in names {
            rooms.push(name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    rooms
}

/// The items of a brace list, up to its closing brace, without those nested in one another.
fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..i]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    items
}

#[test]
fn rooms_import_lower_ranks_only() {
    let ranks: BTreeMap<&str, u8> =
        RANKS.iter().flat_map(|(rank, rooms)| rooms.iter().map(|r| (*r, *rank))).collect();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let relative = file.strip_prefix(&src).unwrap();
        let Some(room) =
            relative.iter().next().and_then(|r| r.to_str()).filter(|_| relative.iter().count() > 1)
        else {
            continue;
        };
        let rank = ranks.get(room).unwrap_or_else(|| panic!("room {room} is not in the table"));
        for import in imports(&std::fs::read_to_string(file).unwrap()) {
            if let Some(other) = ranks.get(import.as_str())
                && import != room
                && other >= rank
            {
                wrong.push(format!("{} imports {import}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_found() {
    let text = "use crate::{a::{x, y}, b};\n// crate::no\nfn f() { crate::c::g() }";
    assert_eq!(imports(text), ["a", "b", "c"]);
}
