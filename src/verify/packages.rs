//! `package`: what dpkg and apk have installed. The databases of rpm are not read, and say so.

use super::check::Check;
use super::report::Finding;
use super::subject::Files;
use super::{Error, Result};
use crate::analyze::{APK, RPM};
use crate::debian::control;
use crate::tree::{Kind, TreePath};

/// A package's name and version.
type Package = (String, String);

/// `package`.
pub(super) fn package(check: &Check, files: &Files) -> Result<Vec<Finding>> {
    let name = check.package.as_deref().unwrap_or_default();
    let all = installed(files)?;
    let versions: Vec<&str> = all.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
    let absent = check.absent == Some(true);
    Ok(match (&check.version, versions.is_empty()) {
        (_, false) if absent => vec![Finding::new(format!("no package {name}"), versions.join(", "))],
        (_, true) if !absent => vec![Finding::new(format!("package {name}"), "it is not installed")],
        (Some(wanted), false) if !versions.iter().any(|v| wanted.has(v)) => {
            vec![Finding::new(format!("{name} {wanted}"), versions.join(", "))]
        }
        _ => Vec::new(),
    })
}

/// All installed packages.
fn installed(files: &Files) -> Result<Vec<Package>> {
    let mut all = dpkg(&files.text("/var/lib/dpkg/status")?);
    // An image without dpkg has a file for each package: distroless.
    let folder = TreePath::parse_link(b"/var/lib/dpkg/status.d").unwrap_or_default();
    let files_of = files.tree.range(folder.clone()..).take_while(|(path, _)| path.is_within(&folder));
    let paragraphs =
        files_of.filter(|(path, n)| n.kind == Kind::File && !path.as_bytes().ends_with(b".md5sums"));
    for (path, _) in paragraphs {
        let text = files.content(path)?.unwrap_or_default();
        all.extend(dpkg(&String::from_utf8_lossy(&text)));
    }
    for path in APK {
        all.extend(apk(&files.text(&format!("/{path}"))?));
    }
    let mut rpm = RPM.iter().map(|path| format!("/{path}"));
    match rpm.find(|path| files.find(path, true).is_some()) {
        Some(path) if all.is_empty() => Err(Error::Rpm(path)),
        _ => Ok(all),
    }
}

/// Those of `/var/lib/dpkg/status`; one without a status is one of `status.d`.
fn dpkg(status: &str) -> Vec<Package> {
    let package = |paragraph: &str| {
        let status = control::field(paragraph, "Status");
        let there = status.is_none_or(|s| s.split_whitespace().nth(2) == Some("installed"));
        let name = control::field(paragraph, "Package").filter(|_| there)?;
        Some((name, control::field(paragraph, "Version")?))
    };
    control::paragraphs(status).filter_map(package).collect()
}

/// Those of apk's `installed`: `P:` name, `V:` version.
fn apk(installed: &str) -> Vec<Package> {
    let package = |paragraph: &str| {
        let field = |key: &str| paragraph.lines().find_map(|l| l.strip_prefix(key)).map(str::to_string);
        Some((field("P:")?, field("V:")?))
    };
    control::paragraphs(installed).filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::super::subject::tests::files;
    use super::*;

    #[test]
    fn databases() {
        let status = "Package: a\nStatus: install ok installed\nVersion: 1.2-3\n\n\
            Package: b\nStatus: deinstall ok config-files\nVersion: 1\n\nbroken\n\nPackage: c\nVersion: 7\n";
        assert_eq!(dpkg(status), [("a".into(), "1.2-3".into()), ("c".into(), "7".into())]);
        assert_eq!(
            apk("C:x\nP:musl\nV:1.2.4-r2\nF:lib\n\nP:busybox\nV:1-r0\n")[1],
            ("busybox".into(), "1-r0".into())
        );
    }

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
        put("var/lib/rpm/rpmdb.sqlite", "SQLite");
        assert!(run("package = 'a'").unwrap_err().contains("/var/lib/rpm/rpmdb.sqlite"));
        put("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1.2-3\n");
        put("var/lib/dpkg/status.d/tz", "Package: tz\nVersion: 2024a\n");
        put("var/lib/dpkg/status.d/tz.md5sums", "x");
        for (toml, want) in [
            ("package = 'a'", ""),
            ("package = 'tz'\nversion = '2024a'", ""),
            ("package = 'a'\nversion = '>= 1.2, << 2'", ""),
            ("package = 'a'\nversion = '>= 1.3'", "a >= 1.3 | 1.2-3"),
            ("package = 'a'\nabsent = true", "no package a | 1.2-3"),
            ("package = 'b'", "package b | it is not installed"),
            ("package = 'b'\nabsent = true", ""),
        ] {
            assert_eq!(run(toml).unwrap(), want, "{toml}");
        }
    }
}
