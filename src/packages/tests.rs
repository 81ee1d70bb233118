//! What databases say, from a map of files.

use super::*;
use std::collections::BTreeMap;
use std::convert::Infallible;

struct Files(BTreeMap<String, Vec<u8>>);

impl Source for Files {
    type Error = Infallible;

    fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    fn content(&self, path: &str) -> Result<Option<Cow<'_, [u8]>>, Infallible> {
        // What is empty here is something that cannot be held.
        Ok(self.0.get(path).filter(|bytes| !bytes.is_empty()).map(|bytes| Cow::Borrowed(bytes.as_slice())))
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let name = |path: &String| path.strip_prefix(folder)?.strip_prefix('/').map(str::to_string);
        self.0.keys().filter_map(name).collect()
    }
}

fn files(all: &[(&str, &[u8])]) -> Files {
    Files(all.iter().map(|(path, bytes)| ((*path).to_string(), bytes.to_vec())).collect())
}

/// Each package with its files, and what is not known.
fn read(source: &Files) -> (Vec<String>, Vec<String>) {
    let mut owned: Vec<(usize, String)> = Vec::new();
    let Ok(found) =
        Packages::with_files(source, &mut |_, number, path| owned.push((number, path.to_string())));
    let Ok(names) = Packages::installed(source);
    assert_eq!(
        names.list.iter().map(|p| (&p.name, &p.version, p.configured)).collect::<Vec<_>>(),
        found.list.iter().map(|p| (&p.name, &p.version, p.configured)).collect::<Vec<_>>()
    );
    let row = |(number, p): (usize, &Package)| {
        let files: Vec<_> =
            owned.iter().filter(|(n, _)| *n == number).map(|(_, path)| path.as_str()).collect();
        let licence = p.licence.as_deref().unwrap_or("-");
        format!("{} {} {} {licence}: {}", p.manager.name(), p.name, p.version, files.join(" "))
    };
    let rows = found.list.iter().enumerate().map(row).collect();
    (rows, found.unread.iter().map(ToString::to_string).collect())
}

const DEP5: &[u8] = b"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
    Files: *\nLicense: GPL-2+\n text\n\nFiles: x\nLicense: MIT\n\nFiles: y\nLicense: GPL-2+\n\n\
    License: GPL-3\n";

#[test]
fn dpkg() {
    let status = b"Package: b\nStatus: install ok installed\nVersion: 1-2\nArchitecture: amd64\n\n\
        Package: a\nStatus: install ok unpacked\nVersion: 2\nArchitecture: all\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 3\nArchitecture: all\n\nno package\n";
    let source = files(&[
        ("var/lib/dpkg/status", status),
        ("var/lib/dpkg/info/b:amd64.list", b"/.\n/bin/x\n/shared\n/../up\n"),
        ("var/lib/dpkg/info/a.list", b"/usr/share/a\n/shared\n"),
        ("var/lib/dpkg/info/gone.list", b"/etc/gone\n"),
        ("var/lib/dpkg/diversions", b"/shared\n/shared.distrib\nb\n/usr/share/a\n/usr/share/a.real\n:\n"),
        ("usr/share/doc/a/copyright", DEP5),
        ("usr/share/doc/b/copyright", b"free text\n"),
        ("var/lib/dpkg/status.d/base", b"Package: base-files\nVersion: 12\nArchitecture: amd64\n"),
        ("var/lib/dpkg/status.d/base.md5sums", b"0123  etc/issue\n4567  usr/lib/os release\nx\n"),
    ]);
    let (rows, unread) = read(&source);
    assert_eq!(
        rows,
        [
            "dpkg b 1-2 -: / /bin/x /shared",
            // Moved by b, and by whoever looks after the machine.
            "dpkg a 2 GPL-2+, MIT: /usr/share/a.real /shared.distrib",
            "dpkg base-files 12 -: /etc/issue /usr/lib/os release",
        ]
    );
    assert!(unread.is_empty());
    let Ok(found) = Packages::installed(&source);
    assert_eq!(found.list.iter().map(|p| p.configured).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn apk() {
    let text = b"C:Q1\nP:musl\nV:1.2-r0\nA:x86_64\nL:MIT\nF:lib\nR:ld.so\na:0:0:755\nF:\nR:top\n\nP:\nV\n\n\
        P:b\nF:../..\nR:x\nF:ok\nR:y\n";
    for path in apk::PATHS {
        let (rows, unread) = read(&files(&[(path, text)]));
        assert_eq!(rows, ["apk musl 1.2-r0 MIT: /lib/ld.so /top", "apk b  -: /ok/y"]);
        assert!(unread.is_empty());
    }
}

#[test]
fn rpm_in_other_formats_and_open_ones() {
    let at = "usr/lib/sysimage/rpm/rpmdb.sqlite";
    let [log, journal] = ["-wal", "-journal"].map(|end| format!("{at}{end}"));
    for (all, want) in [
        (&[("var/lib/rpm/Packages", &b"x"[..])][..], "/var/lib/rpm/Packages: it is Berkeley DB's"),
        (&[("usr/lib/sysimage/rpm/Packages.db", b"x")], "Packages.db: it is ndb's"),
        (&[(at, b"x")], "does not begin as"),
        (&[(at, b"")], "cannot be held"),
        (&[(at, b"x"), (&log, b"")], "cannot be held"),
        (&[(at, b"x"), (&journal, b"x")], "not ended"),
        (&[(at, b"x"), (&journal, b"")], "not ended"),
        // One that is done with.
        (&[(at, b"x"), (&journal, &[0; 512])], "does not begin as"),
    ] {
        let (rows, unread) = read(&files(all));
        assert!(rows.is_empty() && unread[0].contains(want) && unread.len() == 1, "{unread:?}");
    }
    assert!(read(&files(&[])).1.is_empty());
}

#[test]
fn databases_are_known_by_name() {
    for (path, want) in [
        ("var/lib/dpkg/status", true),
        ("var/lib/dpkg/status-old", false),
        ("var/lib/dpkg/info/x.list", true),
        ("var/lib/dpkg/info/x.postinst", false),
        ("usr/share/doc/x/copyright", true),
        ("usr/share/doc/x/changelog.gz", false),
        ("lib/apk/db/installed", true),
        ("var/lib/rpm/rpmdb.sqlite", true),
        ("usr/lib/sysimage/rpm/rpmdb.sqlite-wal", true),
        ("usr/lib/sysimage/rpm/rpmdb.sqlite-shm", false),
        ("var/lib/rpm/Packages", false),
    ] {
        assert_eq!(is_database(&TreePath::parse_link(path.as_bytes()).unwrap()), want, "{path}");
    }
}
