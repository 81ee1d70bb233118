//! `package`: what is installed, as the databases in the image say.

use super::check::Check;
use super::report::Finding;
use super::subject::Files;
use super::{Error, Result};
use crate::packages::{MOST_DATABASE, Package, Packages, Source};
use crate::tree::{Kind, TreePath};
use std::borrow::Cow;

/// `package`.
pub(super) fn package(check: &Check, files: &Files) -> Result<Vec<Finding>> {
    let name = check.package.as_deref().unwrap_or_default();
    let all = Packages::installed(files)?;
    let of_name = |p: &&Package| p.name == name && p.configured;
    let found: Vec<&Package> = all.list.iter().filter(of_name).collect();
    if let (true, Some(unread)) = (found.is_empty(), all.unread.into_iter().next()) {
        return Err(Error::Packages(unread));
    }
    let versions = || found.iter().map(|p| p.version.as_str()).collect::<Vec<_>>().join(", ");
    let absent = check.absent == Some(true);
    Ok(match (&check.version, found.is_empty()) {
        (_, false) if absent => vec![Finding::new(format!("no package {name}"), versions())],
        (_, true) if !absent => vec![Finding::new(format!("package {name}"), "it is not installed")],
        (Some(wanted), false) if !found.iter().any(|p| wanted.has(&p.version, p.manager)) => {
            vec![Finding::new(format!("{name} {wanted}"), versions())]
        }
        _ => Vec::new(),
    })
}

impl Source for Files {
    type Error = Error;

    fn has(&self, path: &str) -> bool {
        self.find(path, true).is_some_and(|(_, node)| node.kind == Kind::File)
    }

    fn content(&self, path: &str) -> Result<Option<Cow<'_, [u8]>>> {
        let Some((at, _)) = self.find(path, true).filter(|(_, n)| n.kind == Kind::File) else {
            return Ok(None);
        };
        Ok(self.up_to(&at, MOST_DATABASE)?.map(Cow::Owned))
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let Some((folder, _)) = self.find(folder, true) else { return Vec::new() };
        let within = self.tree.range(folder.clone()..).take_while(|(path, _)| path.is_within(&folder));
        let name =
            |path: &TreePath| path.split().filter(|(p, _)| *p == folder)?.1.to_str().map(str::to_string);
        within.filter(|(_, n)| n.kind == Kind::File).filter_map(|(path, _)| name(path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::subject::tests::files;
    use super::*;

    #[test]
    fn checked() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let run = |toml: &str| {
            let check: Check = toml::from_str(toml).unwrap();
            let found = package(&check, &files(dir.path())).map_err(|e| e.to_string())?;
            Ok::<_, String>(
                found.iter().map(|f| format!("{} | {}", f.wanted, f.found)).collect::<Vec<_>>().concat(),
            )
        };
        put("var/lib/rpm/Packages", "x");
        for toml in ["package = 'a'", "package = 'a'\nabsent = true"] {
            let said = run(toml).unwrap_err();
            assert!(said.contains("/var/lib/rpm/Packages: it is Berkeley DB's"), "{said}");
        }
        put("var/lib/rpm/rpmdb.sqlite", "SQLite");
        assert!(run("package = 'a'").unwrap_err().contains("/var/lib/rpm/rpmdb.sqlite: it does not begin"));
        let status = "Package: a\nStatus: install ok installed\nVersion: 1.2-3\n\n\
            Package: half\nStatus: install ok unpacked\nVersion: 1\n";
        put("var/lib/dpkg/status", status);
        assert_eq!(run("package = 'a'").unwrap(), "", "what another database has counts");
        std::fs::remove_dir_all(dir.path().join("var/lib/rpm")).unwrap();
        put("var/lib/dpkg/status.d/tz", "Package: tz\nVersion: 2024a\n");
        put("var/lib/dpkg/status.d/tz.md5sums", "x");
        for (toml, want) in [
            ("package = 'a'", ""),
            ("package = 'tz'\nversion = '2024a'", ""),
            ("package = 'a'\nversion = '>= 1.2, << 2'", ""),
            ("package = 'a'\nversion = '>= 1.3'", "a >= 1.3 | 1.2-3"),
            ("package = 'a'\nabsent = true", "no package a | 1.2-3"),
            ("package = 'half'", "package half | it is not installed"),
            ("package = 'b'", "package b | it is not installed"),
            ("package = 'b'\nabsent = true", ""),
        ] {
            assert_eq!(run(toml).unwrap(), want, "{toml}");
        }
    }
}
