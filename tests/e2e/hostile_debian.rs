//! A small signed archive, made here with gpg and dpkg-deb, and all that may be wrong with it.

use crate::common::{TestStore, need_root, ok};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An archive of suite bookworm below a folder of its own.
struct Archive {
    store: TestStore,
    packages: String,
}

impl Archive {
    fn new() -> Self {
        let archive = Self { store: TestStore::new(), packages: String::new() };
        fs::create_dir_all(archive.at("dists/bookworm/main/binary-amd64")).unwrap();
        for who in ["good", "evil"] {
            fs::create_dir_all(archive.at(who)).unwrap();
            ok("chmod", &["700".as_ref(), archive.at(who).as_os_str()]);
            let user = format!("{who}@example.org");
            archive.gpg(who, &["--quick-gen-key", &user, "rsa3072", "sign", "never"]);
            let key = archive.at(&format!("{who}.gpg"));
            archive.gpg(who, &["--output", key.to_str().unwrap(), "--export"]);
        }
        archive
    }

    fn at(&self, path: &str) -> PathBuf {
        self.store.path().join("archive").join(path)
    }

    fn gpg(&self, who: &str, args: &[&str]) {
        let home = self.at(who);
        let mut all = vec![
            "--homedir",
            home.to_str().unwrap(),
            "--batch",
            "--yes",
            "--passphrase",
            "",
            "--pinentry-mode",
            "loopback",
        ];
        all.extend(args);
        ok("gpg", &all);
        let _ = Command::new("gpgconf").arg("--homedir").arg(&home).args(["--kill", "all"]).status();
    }

    /// Adds a package with these control fields; gives its file.
    fn add(&mut self, name: &str, fields: &str) -> PathBuf {
        let tree = self.at(&format!("tree-{name}"));
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("opt")).unwrap();
        fs::write(tree.join("opt").join(name), name).unwrap();
        let control = format!(
            "Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: t <t@example.org>\nDescription: t\n{fields}"
        );
        fs::write(tree.join("DEBIAN/control"), &control).unwrap();
        let deb = self.at(&format!("{name}.deb"));
        ok(
            "dpkg-deb",
            &["--root-owner-group".as_ref(), "--build".as_ref(), tree.as_os_str(), deb.as_os_str()],
        );
        self.index(&control, &deb);
        deb
    }

    fn index(&mut self, control: &str, deb: &Path) {
        let sum = sha256(deb);
        let (size, name) = (fs::metadata(deb).unwrap().len(), deb.file_name().unwrap().to_str().unwrap());
        write!(self.packages, "{control}Filename: {name}\nSize: {size}\nSHA256: {sum}\n\n").unwrap();
    }

    fn publish(&self, extra: &str, signer: Option<&str>) {
        let index = self.at("dists/bookworm/main/binary-amd64/Packages");
        fs::write(&index, &self.packages).unwrap();
        let release = self.at("dists/bookworm/Release");
        let text = format!(
            "Origin: Test\nSuite: oldstable\nCodename: bookworm\n{extra}SHA256:\n {} {} main/binary-amd64/Packages\n",
            sha256(&index),
            self.packages.len()
        );
        fs::write(&release, &text).unwrap();
        let target = self.at("dists/bookworm/InRelease");
        match signer {
            Some(who) => self
                .gpg(who, &["--output", target.to_str().unwrap(), "--clearsign", release.to_str().unwrap()]),
            None => fs::write(target, text).unwrap(),
        }
    }

    fn args(&self, include: &str) -> Vec<String> {
        let mut args: Vec<String> =
            ["mkimg", "--no-updates", "--variant", "essential", "--arch", "amd64", "--suite", "bookworm"]
                .map(str::to_string)
                .into();
        args.push(self.store.path().join("x.img").display().to_string());
        args.extend(["--include".to_string(), include.to_string()]);
        args.extend(["--mirror".to_string(), format!("file://{}", self.at("").display())]);
        args.extend(["--keyring".to_string(), self.at("good.gpg").display().to_string()]);
        args
    }

    fn fails(&self, code: i32, include: &str) -> String {
        let stderr = self.store.fails(code, &self.args(include));
        assert!(!self.store.path().join("x.img").exists(), "{stderr}");
        let tmp = self.store.path().join("shipimg/tmp");
        assert_eq!(fs::read_dir(tmp).unwrap().count(), 0, "{stderr}");
        stderr
    }
}

fn sha256(path: &Path) -> String {
    ok("sha256sum", &[path]).split_whitespace().next().unwrap().to_string()
}

/// usr-is-merged is part of every base of bookworm.
fn base() -> Archive {
    need_root();
    let mut archive = Archive::new();
    archive.add("usr-is-merged", "");
    archive
}

#[test]
fn release_files() {
    let mut archive = base();
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
    let text = fs::read_to_string(archive.at("dists/bookworm/InRelease")).unwrap();
    fs::write(archive.at("dists/bookworm/InRelease"), text.replace("Origin: Test", "Origin: Evil")).unwrap();
    assert!(archive.fails(9, "a").contains("is not signed by a key of"));
    fs::write(archive.at("dists/bookworm/InRelease"), format!("Origin: Evil\n{text}")).unwrap();
    assert!(archive.fails(9, "a").contains("is not signed"));
    fs::remove_file(archive.at("dists/bookworm/InRelease")).unwrap();
    assert!(archive.fails(10, "a").contains("no suite bookworm"));
}

#[test]
fn hashes() {
    let mut archive = base();
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
    let index = archive.at("dists/bookworm/main/binary-amd64/Packages");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("Version: 1", "Version: 2")).unwrap();
    // The right one is in the store by now; a fresh store has to load it.
    fs::remove_dir_all(archive.store.path().join("shipimg/packages")).unwrap();
    assert!(archive.fails(9, "a").contains("Packages is not what the archive promises"));
}

#[test]
fn package_files() {
    let mut archive = base();
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
        archive.index(&format!("Package: {name}\nVersion: 1\nArchitecture: amd64\n"), &deb);
    }
    archive.publish("", Some("good"));
    assert!(archive.fails(9, "dots").contains("leads out of the root"));
    assert!(archive.fails(9, "bare").contains("no control file"));
    assert!(!archive.store.path().join("escaped").exists());
}

#[test]
fn dependencies() {
    let mut archive = base();
    archive.add("a", "Depends: b\n");
    archive.add("b", "Depends: a, c (>= 5)\n");
    archive.add("c", "");
    archive.publish("", Some("good"));
    assert!(archive.fails(2, "a").contains("a → b → c (>= 5): the archive has c 1"));
    let mut archive = base();
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
    use shipimg::debian::{self, Repo, Request, Settings, Variant};
    let mut archive = base();
    archive.add("a", "Depends: nothing-there\n");
    archive.publish("", Some("good"));
    let repo = Repo {
        uri: format!("file://{}", archive.at("").display()),
        suites: vec!["bookworm".to_string()],
        components: vec!["main".to_string()],
        signed_by: vec![archive.at("good.gpg")],
    };
    let request = Request {
        archive: debian::Archive {
            suite: "bookworm".to_string(),
            repos: vec![repo],
            distribution: vec![],
            extra_base: vec![],
            never: vec![],
        },
        variant: Variant::Essential,
        include: vec!["a".to_string()],
        arch: "amd64".to_string(),
        settings: Settings::of_host(),
    };
    let store = shipimg::store::Store::open(archive.store.path()).unwrap();
    let root = archive.at("root");
    fs::create_dir(&root).unwrap();
    let outcome = debian::extract(&request, &store, &root, &Silent).unwrap();
    assert_eq!(outcome.packages.len(), 1);
    assert_eq!(fs::read_to_string(root.join("opt/a")).unwrap(), "a");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "no database, no devices");
}
