//! `reproducible`: what was built a second time, compared with what is checked.

use super::layers::Layers;
use super::report::{Finding, Source};
use super::{Error, Result};
use crate::layer;
use crate::oci::Image;
use crate::sys::signal;
use crate::tree::diff::{Change, changes};
use crate::tree::{Entry, Name};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

const SAME_IMAGE: &str = "the same image from a second build";
const SAME_BYTES: &str = "the same bytes from a second build";

/// What a second build gave.
#[derive(Debug, Clone, Copy)]
pub enum Second<'a> {
    /// An image of the store.
    Image(&'a Image),
    /// A file, or a folder of files.
    Files {
        /// What is checked.
        first: &'a Path,
        /// What the second build wrote.
        second: &'a Path,
    },
}

/// `reproducible`: the first difference between what is checked and what was built from the same.
pub(super) fn reproducible(layers: Option<&Layers>, second: Option<Second>) -> Result<Vec<Finding>> {
    match second.ok_or(Error::OneBuild)? {
        Second::Image(second) => images(layers.ok_or(Error::NoImage("layers"))?, second),
        Second::Files { first, second } if first.is_dir() && second.is_dir() => folders(first, second),
        Second::Files { first, second } => files(first, second),
    }
}

fn images(first: &Layers, second: &Image) -> Result<Vec<Finding>> {
    if first.image.descriptor.digest == second.descriptor.digest {
        return Ok(Vec::new());
    }
    let [a, b] = [&first.image.layers, &second.layers];
    let differs = a.iter().zip(b).position(|(a, b)| a.diff_id != b.diff_id);
    let Some(layer) = differs else {
        let found = if a.len() != b.len() {
            format!("{} layers and {}", a.len(), b.len())
        } else if first.image.config_descriptor.digest != second.config_descriptor.digest {
            "another configuration".to_string()
        } else {
            "the same files, compressed or described otherwise".to_string()
        };
        return Ok(vec![Finding::new(SAME_IMAGE, found)]);
    };
    let entries = |layer| -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        layer::entries(first.store, layer, &mut |entry| all.push(entry))?;
        Ok(all)
    };
    let [one, two] = [entries(&a[layer])?, entries(&b[layer])?];
    let place = (0..one.len().max(two.len())).find(|&i| one.get(i) != two.get(i));
    let source =
        Source { digest: a[layer].descriptor.digest.clone(), removed: false, by: first.made_by(layer) };
    let entry = place.and_then(|i| one.get(i).or(two.get(i)));
    let (path, found) = match entry.map(|e| &e.name) {
        Some(Name::Entry(path) | Name::Whiteout(path) | Name::Opaque(path)) => {
            (Some(path.to_string()), describe(place, &one, &two))
        }
        _ => (None, format!("layer {} has other contents of the same files", layer + 1)),
    };
    Ok(vec![Finding { path, layer: Some(source), ..Finding::new(SAME_IMAGE, found) }])
}

/// What is different between two lists of entries, from `place` on.
fn describe(place: Option<usize>, one: &[Entry], two: &[Entry]) -> String {
    let Some((a, b)) = place.and_then(|i| Some((one.get(i)?, two.get(i)?))) else {
        return "it is in one of them alone".to_string();
    };
    let aspects = [
        (a.name != b.name, "order"),
        (a.kind != b.kind, "type"),
        (a.size != b.size, "size"),
        (a.meta.mode != b.meta.mode, "mode"),
        ((a.meta.uid, a.meta.gid) != (b.meta.uid, b.meta.gid), "owner"),
        (a.meta.mtime != b.meta.mtime, "time"),
        (a.meta.xattrs != b.meta.xattrs, "attributes"),
    ];
    let words: Vec<&str> = aspects.iter().filter(|(differs, _)| *differs).map(|(_, word)| *word).collect();
    format!("another {}", words.join(", "))
}

/// The first place at which two files are different.
fn files(first: &Path, second: &Path) -> Result<Vec<Finding>> {
    let open = |path: &Path| match File::open(path) {
        Ok(file) => Ok(BufReader::with_capacity(1 << 17, file)),
        Err(source) => Err(Error::Read { path: path.to_path_buf(), source }),
    };
    let (mut one, mut two, mut at) = (open(first)?, open(second)?, 0_u64);
    loop {
        if signal::pending().is_some() {
            return Err(Error::Interrupted);
        }
        let failed = |path: &Path, source| Error::Read { path: path.to_path_buf(), source };
        let a = one.fill_buf().map_err(|e| failed(first, e))?;
        let b = two.fill_buf().map_err(|e| failed(second, e))?;
        let both = a.len().min(b.len());
        let differs = a.iter().zip(b).position(|(a, b)| a != b);
        if differs.is_none() && both > 0 {
            at += both as u64;
            one.consume(both);
            two.consume(both);
            continue;
        }
        return Ok(match (differs, a.len(), b.len()) {
            (Some(n), ..) => {
                vec![Finding::new(SAME_BYTES, format!("another byte at offset {}", at + n as u64))]
            }
            (None, 0, 0) => Vec::new(),
            (None, 0, _) => vec![Finding::new(SAME_BYTES, format!("more than the first one's {at} bytes"))],
            _ => vec![Finding::new(SAME_BYTES, format!("an end after {at} bytes"))],
        });
    }
}

/// The first file by path that is different in two folders.
fn folders(first: &Path, second: &Path) -> Result<Vec<Finding>> {
    let [one, two] = [layer::scan(first, None, None)?, layer::scan(second, None, None)?];
    let found = changes(&one, &two, true, &mut |path, _, _| layer::same_content(first, second, path))?;
    let Some((path, change)) = found.into_iter().next() else { return Ok(Vec::new()) };
    let words = match change {
        Change::Added => "it is in the second alone".to_string(),
        Change::Deleted => "it is in the first alone".to_string(),
        Change::Changed(aspects) => {
            format!("another {}", aspects.iter().map(|a| a.name()).collect::<Vec<_>>().join(", "))
        }
    };
    Ok(vec![Finding { path: Some(path.to_string()), ..Finding::new(SAME_BYTES, words) }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let long = vec![1; 300_000];
        let mut other = long.clone();
        other[200_000] = 2;
        let first = put("first", &long);
        for (bytes, want) in [
            (&long[..], ""),
            (&other, "another byte at offset 200000"),
            (&long[..131_072], "an end after 131072 bytes"),
            (&[&long[..], &[1]].concat(), "more than the first one's 300000 bytes"),
        ] {
            let second = put("second", bytes);
            let found = reproducible(None, Some(Second::Files { first: &first, second: &second })).unwrap();
            assert_eq!(found.iter().map(|f| f.found.as_str()).collect::<String>(), want);
        }
        for (name, bytes) in [("a/same", b"1"), ("a/x", b"1"), ("b/same", b"1"), ("b/x", b"2"), ("b/y", b"1")]
        {
            put(name, bytes);
        }
        for folder in ["a", "b"] {
            for name in ["same", "x", "."] {
                let file = File::open(dir.path().join(folder).join(name)).unwrap();
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
            }
        }
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        let found = reproducible(None, Some(Second::Files { first: &a, second: &b })).unwrap();
        assert_eq!((found[0].path.as_deref(), found[0].found.as_str()), (Some("/x"), "another content"));
        let same = reproducible(None, Some(Second::Files { first: &a, second: &a })).unwrap();
        assert!(same.is_empty());
    }
}
