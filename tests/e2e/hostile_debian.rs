//! A small signed archive and all that may be wrong with it.

use crate::common::archive::bookworm;
use std::fs;
use std::process::Command;

#[test]
fn release_files() {
    let mut archive = bookworm();
    archive.add("a", "");
    archive.publish("", None);
    assert!(archive.fails(9, "a").contains("is not signed"));
    archive.publish("", Some("evil"));
    assert!(archive.fails(9, "a").contains("is not signed by a key of"));
    archive.publish("Valid-Until: Sat, 01 Jan 2022 00:00:00 UTC\n", Some("good"));
    let config = archive.at("apt.conf");
    fs::write(&config, "Dir::Etc::main \"/nowhere\";\nDir::Etc::parts \"/nowhere\";\n").unwrap();
    let out = archive.store.command().env("APT_CONFIG", &config).args(archive.args("a")).output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(9) && stderr.contains("expired: valid until"), "{stderr}");
    archive.publish("", Some("good"));
    let text = fs::read_to_string(archive.dist("InRelease")).unwrap();
    fs::write(archive.dist("InRelease"), text.replace("Origin: Test", "Origin: Evil")).unwrap();
    assert!(archive.fails(9, "a").contains("is not signed by a key of"));
    fs::write(archive.dist("InRelease"), format!("Origin: Evil\n{text}")).unwrap();
    assert!(archive.fails(9, "a").contains("is not signed"));
    fs::remove_file(archive.dist("InRelease")).unwrap();
    assert!(archive.fails(9, "a").contains("Release is not signed"));
    fs::remove_file(archive.dist("Release")).unwrap();
    assert!(archive.fails(10, "a").contains("no suite bookworm"));
}

#[test]
fn hashes() {
    let mut archive = bookworm();
    let deb = archive.add("a", "");
    archive.publish("", Some("good"));
    let whole = fs::read(&deb).unwrap();
    let mut other = whole.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&deb, &other).unwrap();
    assert!(archive.fails(9, "a").contains("a.deb is not what the archive promises"));
    fs::write(&deb, &whole[..whole.len() - 1]).unwrap();
    assert!(archive.fails(6, "a").contains("a.deb"));
    fs::write(&deb, &whole).unwrap();
    let index = archive.dist("main/binary-amd64/Packages");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("Version: 1", "Version: 2")).unwrap();
    // The right one is in the store by now; a fresh store has to load it.
    fs::remove_dir_all(archive.store.path().join("shipimg/packages")).unwrap();
    assert!(archive.fails(9, "a").contains("Packages is not what the archive promises"));
}

#[test]
fn package_files() {
    let mut archive = bookworm();
    let dir = archive.at("made");
    fs::create_dir_all(&dir).unwrap();
    let run = |script: &str| {
        let out = Command::new("sh").args(["-ec", script]).current_dir(&dir).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    run("echo 2.0 >debian-binary; echo x >f; printf 'Package: dots\nVersion: 1\nArchitecture: amd64\n' >control
         tar cf control.tar ./control; tar cf none.tar ./f; mv none.tar none
         tar cPf data.tar --transform 's,^f,../../../escaped,' f; ar rc ../dots.deb debian-binary control.tar data.tar
         mv none control.tar; ar rc ../bare.deb debian-binary control.tar data.tar");
    for name in ["dots", "bare"] {
        let deb = archive.at(&format!("{name}.deb"));
        let essential = if name == "dots" { "Essential: yes\n" } else { "" };
        archive.index(&format!("Package: {name}\nVersion: 1\nArchitecture: amd64\n{essential}"), &deb);
    }
    archive.publish("", Some("good"));
    assert!(archive.fails(9, "dots").contains("leads out of the root"));
    assert!(archive.fails(9, "bare").contains("no control file"));
    assert!(!archive.store.path().join("escaped").exists());
}

#[test]
fn dependencies() {
    let mut archive = bookworm();
    archive.add("a", "Depends: b\n");
    archive.add("b", "Depends: a, c (>= 5)\n");
    archive.add("c", "");
    archive.publish("", Some("good"));
    assert!(archive.fails(2, "a").contains("a → b → c (>= 5): the archive has c 1"));
    let mut archive = bookworm();
    archive.add("a", "Depends: b\n");
    archive.add("b", "Depends: a\n");
    archive.publish("", Some("good"));
    // The loop resolves and unpacks; this archive has no shell to configure it with.
    let stderr = archive.fails(10, "a");
    assert!(stderr.contains("configure: 3 packages") && stderr.contains("execve in the root"), "{stderr}");
}

struct Silent;

impl shipimg::debian::Progress for Silent {
    fn phase(&self, _: &'static str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn detail(&self, _: &str) {}
}

#[test]
fn extraction_takes_files_only() {
    use shipimg::debian::{self, Repo, Request, Variant};
    let mut archive = bookworm();
    archive.add("a", "Depends: nothing-there\n");
    archive.publish("", Some("good"));
    let repo = Repo {
        uri: format!("file://{}", archive.at("").display()),
        suites: vec!["bookworm".to_string()],
        components: vec!["main".to_string()],
        signed_by: vec![archive.at("good.gpg")],
        ..Repo::default()
    };
    let request = Request {
        variant: Variant::Custom,
        include: vec!["a".to_string()],
        arch: "amd64".to_string(),
        ..Request::new(debian::Archive {
            suite: "bookworm".to_string(),
            repos: vec![repo],
            distribution: vec![],
            extra_base: vec![],
            never: vec![],
            snapshot: None,
        })
    };
    let store = shipimg::store::Store::open(archive.store.path()).unwrap();
    let root = archive.at("root");
    fs::create_dir(&root).unwrap();
    let lock = debian::resolve(&request, &store, &Silent).unwrap();
    assert_eq!(lock.packages.len(), 1);
    debian::bootstrap(&request, &lock, &store, &root, &Silent, &mut |_| Ok(())).unwrap();
    assert_eq!(fs::read_to_string(root.join("opt/a")).unwrap(), "a");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "no database, no devices");
}
