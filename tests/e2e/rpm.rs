//! Databases of rpm(8) that rpm itself has written, as `verify` and `analyze` read them.

use crate::common::checks::{holds, nothing_left};
use crate::common::{TestStore, need_root, ok};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Where today's distributions have the database.
const PLACE: &str = "usr/lib/sysimage/rpm";

/// Two packages; of the second the header is larger than a page of the database.
fn spec(files: usize) -> String {
    let mut spec = "Name: tool\nEpoch: 2\nVersion: 1.4\nRelease: 3\nSummary: x\nLicense: MIT\nBuildArch: noarch\n\
        %description\nx\n%package many\nSummary: y\nLicense: GPLv2+\nVersion: 7~rc1\n%description many\ny\n\
        %install\nmkdir -p %{buildroot}/usr/bin %{buildroot}/usr/share/many\nprintf abc > %{buildroot}/usr/bin/tool\n\
        for n in $(seq FILES); do printf $n > %{buildroot}/usr/share/many/file-$n; done\n\
        %files\n/usr/bin/tool\n%files many\n/usr/share/many\n"
        .replace("FILES", &files.to_string());
    for n in 0..40 {
        write!(spec, "%package p{n}\nSummary: z\nVersion: 1.{n}\n%description p{n}\nz\n%files p{n}\n")
            .unwrap();
    }
    spec
}

/// A root in the folder `root` with the packages of the spec installed.
fn install(work: &Path, root: &Path) {
    let at = |name: &str| work.join(name).to_str().unwrap().to_string();
    fs::write(at("tool.spec"), spec(300)).unwrap();
    let [top, none] =
        [("_topdir", "top"), ("_dbpath", "none")].map(|(name, to)| format!("{name} {}", at(to)));
    ok("rpmbuild", &["--quiet", "-bb", "--define", &top, "--define", &none, &at("tool.spec")]);
    fs::create_dir(root).unwrap();
    let place = format!("_dbpath /{PLACE}");
    let rpm = ["--root", root.to_str().unwrap(), "--define", &place, "--define", "_db_backend sqlite"];
    ok("rpm", &[&rpm[..], &["--initdb"]].concat());
    let built = fs::read_dir(at("top/RPMS/noarch")).unwrap().map(|e| e.unwrap().path());
    let built: Vec<String> = built.map(|path| path.to_str().unwrap().to_string()).collect();
    let built: Vec<&str> = built.iter().map(String::as_str).collect();
    assert_eq!(built.len(), 42);
    ok("rpm", &[&rpm[..], &["-i", "--nodeps"], &built[..]].concat());
}

fn report(store: &TestStore, what: &str) -> Value {
    serde_json::from_str(&store.ok(&["analyze", what, "--format", "json"])).unwrap()
}

/// Name, version, bytes and number of files of each package.
fn packages(report: &Value) -> BTreeMap<String, (String, u64, u64)> {
    let row = |p: &Value| {
        assert_eq!((&p["manager"], &p["architecture"]), (&json!("rpm"), &json!("noarch")));
        let version = p["version"].as_str().unwrap().to_string();
        let sum = (version, p["bytes"].as_u64().unwrap(), p["files"].as_u64().unwrap());
        (p["name"].as_str().unwrap().to_string(), sum)
    };
    report["packages"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn what_rpm_has_installed() {
    need_root();
    let store = TestStore::in_memory();
    let root = store.path().join("root");
    install(store.path(), &root);
    let tar = store.path().join("root.tar");
    ok("tar", &["-C", root.to_str().unwrap(), "-cf", tar.to_str().unwrap(), "."]);
    store.ok(&["import", tar.to_str().unwrap(), "red:1"]);
    let root = root.to_str().unwrap();
    // What rpm says of itself.
    let place = format!("_dbpath /{PLACE}");
    let form = "%{name} %|epoch?{%{epoch}:}|%{version}-%{release}\n";
    let said = ok("rpm", &["--root", root, "--define", &place, "-qa", "--qf", form]);
    let said: BTreeMap<&str, &str> = said.lines().filter_map(|line| line.split_once(' ')).collect();
    for what in [root, "red:1"] {
        let report = report(&store, what);
        let found = packages(&report);
        let versions: BTreeMap<&str, &str> =
            found.iter().map(|(n, (v, ..))| (n.as_str(), v.as_str())).collect();
        assert_eq!(versions, said);
        assert_eq!(found["tool"], ("2:1.4-3".to_string(), 3, 1));
        let digits = (1..=300).map(|n: u32| n.to_string().len() as u64).sum();
        assert_eq!(found["tool-many"], ("2:7~rc1-3".to_string(), digits, 300));
        assert_eq!(report["notes"], json!([]));
        let licence =
            report["packages"].as_array().unwrap().iter().find(|p| p["name"] == "tool-many").unwrap();
        assert_eq!(licence["licence"], "GPLv2+");
        holds(
            &store,
            what,
            &[
                ("package = 'tool'", ""),
                ("package = 'tool'\nversion = '2:1.4'", ""),
                ("package = 'tool'\nversion = '2:1.4-3'", ""),
                ("package = 'tool'\nversion = '>= 2:1.4-10'", "tool >= 2:1.4-10 | 2:1.4-3"),
                ("package = 'tool-many'\nversion = '<< 2:7'", ""),
                ("package = 'tool-p39'\nversion = '>= 1.4, << 3:0'", ""),
                ("package = 'tool'\nabsent = true", "no package tool | 2:1.4-3"),
                ("package = 'bash'", "it is not installed"),
                ("package = 'bash'\nabsent = true", ""),
            ],
        );
    }
    nothing_left(&store);
}

#[test]
fn a_log_that_is_left_counts_and_a_journal_is_told() {
    need_root();
    let store = TestStore::in_memory();
    let root = store.path().join("root");
    install(store.path(), &root);
    let database = root.join(PLACE).join("rpmdb.sqlite");
    let database = database.to_str().unwrap();
    // Copied while the connection is open, as a snapshot of a running machine has it.
    let script = "import shutil, sqlite3, sys\n\
        it = sqlite3.connect(sys.argv[1])\n\
        it.execute('pragma journal_mode = wal')\n\
        it.execute('pragma wal_autocheckpoint = 0')\n\
        it.execute('delete from Packages where hnum > 2')\n\
        it.commit()\n\
        for end in ['', '-wal']: shutil.copy(sys.argv[1] + end, sys.argv[2] + end)\n";
    let copy = store.path().join("copy");
    ok("python3", &["-c", script, database, copy.to_str().unwrap()]);
    let before = packages(&report(&store, root.to_str().unwrap())).len();
    assert_eq!(before, 2, "what was closed is in the database");
    fs::copy(&copy, database).unwrap();
    assert_eq!(packages(&report(&store, root.to_str().unwrap())).len(), 42, "what was not is in the log");
    fs::copy(copy.with_file_name("copy-wal"), format!("{database}-wal")).unwrap();
    assert_eq!(packages(&report(&store, root.to_str().unwrap())).len(), 2);

    fs::write(format!("{database}-journal"), [0xd9, 0xd5, 0x05, 0xf9]).unwrap();
    let notes = report(&store, root.to_str().unwrap())["notes"].to_string();
    assert!(notes.contains("would have to be undone"), "{notes}");
    holds(&store, root.to_str().unwrap(), &[("package = 'tool'", "error: would have to be undone")]);
}

#[test]
fn damaged_databases_are_told_and_end() {
    need_root();
    let store = TestStore::in_memory();
    let root = store.path().join("root");
    install(store.path(), &root);
    let (database, root) = (root.join(PLACE).join("rpmdb.sqlite"), root.to_str().unwrap());
    let sound = fs::read(&database).unwrap();
    let mut looping = sound.clone();
    // Every page an inner one that leads to the second.
    for page in looping.chunks_mut(4096).skip(1) {
        page[..12].copy_from_slice(&[5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2]);
    }
    let noise: Vec<u8> =
        sound.iter().enumerate().map(|(n, b)| if n % 977 == 600 { !b } else { *b }).collect();
    for (what, bytes) in [
        ("cut", &sound[..sound.len() / 2]),
        ("cut", &sound[..50]),
        ("empty", &[]),
        ("looping", &looping),
        ("noise", &noise),
    ] {
        fs::write(&database, bytes).unwrap();
        let report = report(&store, root);
        assert!(report["notes"].to_string().contains("rpmdb.sqlite: "), "{what}: {}", report["notes"]);
        holds(&store, root, &[("package = 'none'\nabsent = true", "error: rpmdb.sqlite: ")]);
    }
    fs::remove_file(&database).unwrap();
    fs::write(database.with_file_name("Packages.db"), "x").unwrap();
    holds(&store, root, &[("package = 'tool'", "error: Packages.db: it is ndb's")]);
    assert_eq!(report(&store, root)["notes"].as_array().unwrap().len(), 1);
}
