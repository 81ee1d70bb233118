//! `file` and `files`: what is there, whose it is, what is in it.

use super::check::{Check, FileType};
use super::report::Finding;
use super::subject::Files;
use super::value::{Glob, Several, Text};
use super::{Error, Result, capability, written};
use crate::sys::signal;
use crate::tree::{Kind, Node, TreePath};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The most bytes of a document: as a value it takes some forty times as many.
const MOST_DOCUMENT: u64 = 8 << 20;
/// So many files that are not as they should be are told of.
const MOST_TOLD: usize = 20;

impl FileType {
    /// Its word in reports.
    const fn word(self) -> &'static str {
        match self {
            Self::File => "a file",
            Self::Dir => "a directory",
            Self::Link => "a symbolic link",
            Self::Char => "a character device",
            Self::Block => "a block device",
            Self::Fifo => "a named pipe",
        }
    }

    fn of(kind: &Kind) -> Option<Self> {
        Some(match kind {
            Kind::File | Kind::Link(_) => Self::File,
            Kind::Directory => Self::Dir,
            Kind::Symlink(_) => Self::Link,
            Kind::Char(..) => Self::Char,
            Kind::Block(..) => Self::Block,
            Kind::Fifo => Self::Fifo,
            Kind::Socket => return None,
        })
    }
}

fn word(kind: &Kind) -> &'static str {
    FileType::of(kind).map_or("a socket", FileType::word)
}

/// `file`.
pub(super) fn file(check: &Check, files: &Files) -> Result<Vec<Finding>> {
    let path = check.file.as_deref().unwrap_or_default();
    let wants_link = check.link.is_some() || check.type_ == Some(FileType::Link);
    let absent = check.absent == Some(true);
    let named = files.find(path, false);
    if absent {
        let there = named.map(|(at, node)| Finding::new(format!("no {path}"), word(&node.kind)).at(&at));
        return Ok(there.into_iter().collect());
    }
    let Some((name, node)) = named else {
        let finding = Finding::new(path, "nothing");
        let at = TreePath::parse_link(path.as_bytes()).ok();
        return Ok(vec![at.map_or(finding.clone(), |at| finding.at(&at))]);
    };
    let mut findings = Vec::new();
    if wants_link {
        aspects(check, &name, node, files, &mut findings)?;
    } else if let Some((at, node)) = files.find(path, true) {
        aspects(check, &at, node, files, &mut findings)?;
    } else {
        let target = match &node.kind {
            Kind::Symlink(target) => target.escape_ascii().to_string(),
            _ => String::new(),
        };
        let found = format!("a link to {target}, which leads to nothing in the image");
        findings.push(Finding::new(path, found).at(&name));
    }
    Ok(findings)
}

/// `files`.
pub(super) fn all_files(check: &Check, files: &Files) -> Result<Vec<Finding>> {
    let Some(glob) = &check.files else { return Ok(Vec::new()) };
    let (mut findings, mut count) = (Vec::new(), 0);
    for (path, node) in matching(files, glob, check.except.as_ref()) {
        if signal::pending().is_some() {
            return Err(Error::Interrupted);
        }
        count += 1;
        if findings.len() < MOST_TOLD {
            aspects(check, path, node, files, &mut findings)?;
        }
    }
    let bound = |wanted: Option<u64>, word: &str, holds: fn(u64, u64) -> bool| {
        let number = wanted.filter(|n| !holds(count, *n))?;
        Some(Finding::new(format!("{word}{number} files of {glob}"), count.to_string()))
    };
    findings.extend(bound(check.count, "", |count, n| count == n));
    findings.extend(bound(check.min_count, "at least ", |count, n| count >= n));
    findings.extend(bound(check.max_count, "at most ", |count, n| count <= n));
    let counted = [check.count, check.min_count, check.max_count].iter().any(Option::is_some);
    if !counted && count == 0 {
        findings.push(Finding::new(format!("files of {glob}"), "none"));
    }
    Ok(findings)
}

/// The files of the glob that no exception has, without the root.
pub(super) fn matching<'a>(
    files: &'a Files,
    glob: &'a Glob,
    except: Option<&'a Several<Text<Glob>>>,
) -> impl Iterator<Item = (&'a TreePath, &'a Node)> {
    files.tree.iter().filter(move |(path, _)| {
        let name = [b"/", path.as_bytes()].concat();
        !path.is_root() && glob.matches(&name) && !is_excepted(&name, except)
    })
}

/// Whether one of the globs has the path.
pub(super) fn is_excepted(path: &[u8], except: Option<&Several<Text<Glob>>>) -> bool {
    except.is_some_and(|globs| globs.iter().any(|g| g.matches(path)))
}

/// What is said of one file.
fn aspects(check: &Check, path: &TreePath, node: &Node, files: &Files, out: &mut Vec<Finding>) -> Result<()> {
    let mut differs = |wanted: String, found: String| out.push(Finding::new(wanted, found).at(path));
    if let Some(wanted) = check.type_.filter(|t| FileType::of(&node.kind) != Some(*t)) {
        differs(wanted.word().to_string(), word(&node.kind).to_string());
        return Ok(());
    }
    if let Some(mode) = check.mode.as_ref().filter(|mode| mode.0 != node.meta.mode) {
        differs(format!("mode {mode}"), format!("{:04o}", node.meta.mode));
    }
    if let Some(owner) = &check.owner {
        let accounts = files.accounts()?;
        if !accounts.says(owner, node.meta.uid, node.meta.gid) {
            differs(format!("owner {owner}"), accounts.names(node.meta.uid, node.meta.gid));
        }
    }
    if let Some(wanted) = &check.link {
        let found = match &node.kind {
            Kind::Symlink(target) if target == wanted.as_bytes() => None,
            Kind::Symlink(target) => Some(format!("a link to {}", target.escape_ascii())),
            other => Some(word(other).to_string()),
        };
        if let Some(found) = found {
            differs(format!("a link to {wanted}"), found);
        }
    }
    if let Some(wanted) = &check.capability {
        let found = capability::permitted(&node.meta);
        let mut wanted: Vec<String> = wanted.iter().map(|c| capability::plain(c)).collect();
        wanted.sort();
        if found != wanted {
            let show =
                |names: &[String]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
            differs(format!("capability {}", show(&wanted)), show(&found));
        }
    }
    content(check, path, node, files, out)
}

/// What is said of a regular file's content.
fn content(check: &Check, path: &TreePath, node: &Node, files: &Files, out: &mut Vec<Finding>) -> Result<()> {
    let searched = check.contains.is_some() || check.lacks.is_some();
    let parsed = check.json.is_some() || check.yaml.is_some();
    let sized = check.min_size.is_some() || check.max_size.is_some();
    if !(searched || parsed || sized || check.sha256.is_some()) {
        return Ok(());
    }
    let mut differs = |wanted: String, found: String| out.push(Finding::new(wanted, found).at(path));
    if node.kind != Kind::File {
        differs("a file with content".to_string(), word(&node.kind).to_string());
        return Ok(());
    }
    if let Some(least) = check.min_size.as_ref().filter(|least| node.size < least.0) {
        differs(format!("at least {least}"), format!("{} bytes", node.size));
    }
    if let Some(most) = check.max_size.as_ref().filter(|most| node.size > most.0) {
        differs(format!("at most {most}"), format!("{} bytes", node.size));
    }
    if let Some(wanted) = &check.sha256 {
        let found = files.sha256(path)?;
        if found.as_deref() != Some(wanted.0.hex()) {
            differs(
                format!("sha256 {}", wanted.0.hex()),
                found.unwrap_or_else(|| "too many holes".to_string()),
            );
        }
    }
    if !(searched || parsed) {
        return Ok(());
    }
    if parsed && node.size > MOST_DOCUMENT {
        differs("a document".to_string(), format!("{} bytes, more than are read", node.size));
        return Ok(());
    }
    let Some(bytes) = files.content(path)? else {
        differs("content to search".to_string(), format!("{} bytes, more than are read", node.size));
        return Ok(());
    };
    for pattern in check.contains.iter().flat_map(|p| p.iter()).filter(|p| !p.found_in(&bytes)) {
        differs(format!("a match of {pattern}"), format!("none in {} bytes", bytes.len()));
    }
    for pattern in check.lacks.iter().flat_map(|p| p.iter()).filter(|p| p.found_in(&bytes)) {
        differs(format!("no match of {pattern}"), "one".to_string());
    }
    if let Some(wanted) = &check.json {
        values(wanted, serde_json::from_slice(&bytes).map_err(|e| format!("no JSON: {e}")), &mut differs);
    }
    if let Some(wanted) = &check.yaml {
        let text = String::from_utf8_lossy(&bytes);
        let value = written::from_yaml(&text, Path::new(""));
        values(wanted, value.map_err(|e| format!("no YAML: {}", e.reason())), &mut differs);
    }
    Ok(())
}

/// Values by JSON pointer.
fn values(
    wanted: &BTreeMap<String, Value>,
    found: std::result::Result<Value, String>,
    differs: &mut dyn FnMut(String, String),
) {
    let found = match found {
        Ok(found) => found,
        Err(e) => return differs("a document".to_string(), e),
    };
    for (pointer, wanted) in wanted {
        let there = found.pointer(pointer);
        if there != Some(wanted) {
            let shown: String =
                there.map_or_else(|| "nothing".to_string(), Value::to_string).chars().take(200).collect();
            differs(format!("{pointer} = {wanted}"), shown);
        }
    }
}

/// `max-size` of all files: each content once, whatever names it has.
pub(super) fn max_size(check: &Check, files: &Files) -> Vec<Finding> {
    let Some(most) = &check.max_size else { return Vec::new() };
    let first = |(path, node): &(&TreePath, &Node)| node.same.as_ref().is_none_or(|same| same == *path);
    let sizes = files.tree.iter().filter(first).map(|(_, node)| node.size);
    let total = sizes.fold(0, u64::saturating_add);
    let over = total > most.0;
    over.then(|| Finding::new(format!("at most {most} in all files"), format!("{total} bytes")))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::subject::tests::files;
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn found(root: &Path, toml: &str) -> String {
        let check: Check = toml::from_str(toml).unwrap();
        let files = files(root);
        let findings = match check.kind().unwrap().key {
            "file" => file(&check, &files).unwrap(),
            "files" => all_files(&check, &files).unwrap(),
            _ => max_size(&check, &files),
        };
        let shown = findings.iter().map(|f| format!("{} | {}", f.wanted, f.found));
        shown.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn passes_and_fails() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("etc/d")).unwrap();
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:7:8::/:\n").unwrap();
        std::fs::write(root.join("etc/group"), "root:x:0:\nwww:x:8:\n").unwrap();
        std::fs::write(root.join("etc/c.json"), r#"{"a": {"b": [1, "x"]}}"#).unwrap();
        std::fs::write(root.join("etc/c.yaml"), "a:\n  b: [1, x]\n").unwrap();
        std::fs::set_permissions(root.join("etc/passwd"), PermissionsExt::from_mode(0o644)).unwrap();
        symlink("passwd", root.join("etc/link")).unwrap();
        symlink("/etc/shadow", root.join("etc/dangling")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("etc/fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        for (toml, want) in [
            ("file = '/etc/passwd'\nmode = '0644'\ncontains = '^web:'\nlacks = 'nobody'", ""),
            ("file = '/etc/passwd'\nmode = '0600'", "mode 0600 | 0644"),
            ("file = '/etc/passwd'\ncontains = ['^web:', '^bin:']", "a match of ^bin: | none in 40 bytes"),
            ("file = '/etc/passwd'\nlacks = 'web'", "no match of web | one"),
            ("file = '/etc/link'\ncontains = 'web'", ""),
            ("file = '/etc/link'\nlink = 'passwd'\ntype = 'link'", ""),
            ("file = '/etc/link'\nlink = 'shadow'", "a link to shadow | a link to passwd"),
            ("file = '/etc/passwd'\nlink = 'x'", "a link to x | a file"),
            (
                "file = '/etc/dangling'",
                "/etc/dangling | a link to /etc/shadow, which leads to nothing in the image",
            ),
            ("file = '/etc/dangling'\nabsent = true", "no /etc/dangling | a symbolic link"),
            ("file = '/etc/none'", "/etc/none | nothing"),
            ("file = '/etc/none'\nabsent = true", ""),
            ("file = '/etc/d'\ntype = 'dir'", ""),
            ("file = '/etc/d'\ntype = 'file'", "a file | a directory"),
            ("file = '/etc/fifo'\ncontains = 'x'", "a file with content | a named pipe"),
            ("file = '/etc/passwd'\nmin-size = '1k'", "at least 1k | 40 bytes"),
            ("file = '/etc/passwd'\nmax-size = '7'", "at most 7 | 40 bytes"),
            ("file = '/etc/c.json'\njson = { '/a/b/0' = 1, '/a/b/1' = 'x' }", ""),
            (
                "file = '/etc/c.json'\njson = { '/a/b/0' = 2, '/c' = true }",
                "/a/b/0 = 2 | 1; /c = true | nothing",
            ),
            ("file = '/etc/c.yaml'\nyaml = { '/a/b/1' = 'x' }", ""),
            ("file = '/etc/c.yaml'\nyaml = { '/a/b/1' = 'y' }", "/a/b/1 = \"y\" | \"x\""),
            ("file = '/etc/passwd'\nowner = 'nobody'", "owner nobody | root:root"),
            ("file = '/etc/passwd'\nowner = 'root:www'", "owner root:www | root:root"),
            ("file = '/etc/passwd'\nowner = '0:0'", ""),
            ("file = '/etc/passwd'\ncapability = 'net_raw'", "capability net_raw | none"),
            ("files = '/etc/c.*'\ncount = 2\nowner = 'root'", ""),
            ("files = '/etc/c.*'\ncount = 3", "3 files of /etc/c.* | 2"),
            (
                "files = '/etc/c.*'\nmin-count = 3\nmax-count = 1",
                "at least 3 files of /etc/c.* | 2; at most 1 files of /etc/c.* | 2",
            ),
            ("files = '/etc/x*'", "files of /etc/x* | none"),
            ("files = '/etc/c.*'\nexcept = '/**/*.json'\ncount = 1", ""),
            ("max-size = '1k'", ""),
            ("max-size = '10'", "at most 10 in all files | 96 bytes"),
        ] {
            assert_eq!(found(root, toml), want, "{toml}");
        }
        std::fs::write(root.join("etc/large.json"), "[0".to_string() + &",0".repeat(4 << 20) + "]").unwrap();
        let large = found(root, "file = '/etc/large.json'\njson = { '/0' = 0 }");
        assert_eq!(large, "a document | 8388611 bytes, more than are read");
        let sum = "sha256 = '0000000000000000000000000000000000000000000000000000000000000000'";
        assert!(found(root, &format!("file = '/etc/passwd'\n{sum}")).starts_with("sha256 0000"));
        let right = crate::oci::Digest::of(&std::fs::read(root.join("etc/passwd")).unwrap());
        assert_eq!(found(root, &format!("file = '/etc/passwd'\nsha256 = '{right}'")), "");
    }
}
