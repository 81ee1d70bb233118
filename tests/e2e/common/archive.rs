//! A small signed archive, made with gpg and dpkg-deb.

use super::{TestStore, need_root, ok};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An archive of one suite below a folder of its own, and a store.
pub struct Archive {
    /// The store that images are made with.
    pub store: TestStore,
    suite: &'static str,
    packages: String,
}

impl Archive {
    /// An empty one, with the keys `good.gpg`, which it is signed with, and `evil.gpg`.
    pub fn new(suite: &'static str) -> Self {
        let archive = Self { store: TestStore::new(), suite, packages: String::new() };
        fs::create_dir_all(archive.dist("main/binary-amd64")).unwrap();
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

    /// A path below the suite's folder.
    pub fn dist(&self, path: &str) -> PathBuf {
        self.at("dists").join(self.suite).join(path)
    }

    /// A path below the archive's folder.
    pub fn at(&self, path: &str) -> PathBuf {
        self.store.path().join("archive").join(path)
    }

    /// Runs gpg with the keys of `who`, a folder of the archive.
    pub fn gpg(&self, who: &str, args: &[&str]) {
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
    pub fn add(&mut self, name: &str, fields: &str) -> PathBuf {
        self.add_files(name, "1", fields, &[(&format!("opt/{name}"), name)])
    }

    /// Adds this version of a package with these control fields and files; gives its file.
    pub fn add_files(&mut self, name: &str, version: &str, fields: &str, files: &[(&str, &str)]) -> PathBuf {
        self.add_tree(name, version, fields, |tree| {
            for (path, text) in files {
                let path = tree.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        })
    }

    /// Adds a package with this script as its postinst.
    pub fn add_script(&mut self, name: &str, postinst: &str) {
        self.add_script_with(name, "", postinst);
    }

    /// As `add_script`, with these control fields.
    pub fn add_script_with(&mut self, name: &str, fields: &str, postinst: &str) {
        self.add_tree(name, "1", fields, |tree| script(tree, "postinst", postinst));
    }

    /// Adds an essential package that can configure packages: the host's sh and dpkg with their
    /// libraries, and busybox in place of other programs.
    pub fn add_system(&mut self) {
        self.add_tree("system", "1", "Essential: yes\n", |tree| {
            let script = "cd \"$0\" && mkdir -p usr/bin usr/sbin usr/lib64 etc && cp \"$(which busybox)\" usr/bin/busybox
                for p in cat rm mv tar diff head sed rmdir sleep sync chown chmod; do ln -s busybox usr/bin/$p; done
                for p in ldconfig start-stop-daemon; do ln -s /usr/bin/busybox usr/sbin/$p; done
                echo root:x:0:0:root:/root:/bin/sh >etc/passwd; echo root:x:0: >etc/group
                for p in sh dpkg dpkg-query dpkg-deb dpkg-trigger flock nice; do
                    cp /usr/bin/$p usr/bin
                    for l in $(ldd /usr/bin/$p | grep -o '/[^ ]*'); do
                        mkdir -p \"usr/${l%/*}\"; cp -L $l \"usr/$l\"
                    done
                done
                for f in usr/usr/*; do cp -r $f usr; done 2>/dev/null; rm -rf usr/usr
                for l in bin sbin lib lib64; do ln -s usr/$l $l; done";
            ok("sh", &["-c".as_ref(), script.as_ref(), tree.as_os_str()]);
        });
    }

    pub fn add_tree(&mut self, name: &str, version: &str, fields: &str, fill: impl FnOnce(&Path)) -> PathBuf {
        let of = if version == "1" { name.to_string() } else { format!("{name}_{version}") };
        let tree = self.at(&format!("tree-{of}"));
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fill(&tree);
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: t <t@example.org>\nDescription: t\n{fields}"
        );
        fs::write(tree.join("DEBIAN/control"), &control).unwrap();
        let deb = self.at(&format!("{of}.deb"));
        ok(
            "dpkg-deb",
            &["--root-owner-group".as_ref(), "--build".as_ref(), tree.as_os_str(), deb.as_os_str()],
        );
        self.index(&control, &deb);
        deb
    }

    /// Lists a package file in the index.
    pub fn index(&mut self, control: &str, deb: &Path) {
        let sum = sha256(deb);
        let (size, name) = (fs::metadata(deb).unwrap().len(), deb.file_name().unwrap().to_str().unwrap());
        write!(self.packages, "{control}Filename: {name}\nSize: {size}\nSHA256: {sum}\n\n").unwrap();
    }

    /// Takes all versions of a package off the index; their files stay.
    pub fn withdraw(&mut self, name: &str) {
        let head = format!("Package: {name}\n");
        let stay = self.packages.split_inclusive("\n\n").filter(|p| !p.starts_with(&head));
        self.packages = stay.collect();
    }

    /// Writes indexes and Release file, with `extra` fields, signed by `signer`. All packages
    /// are in `main`, `universe` is empty.
    pub fn publish(&self, extra: &str, signer: Option<&str>) {
        let mut text = format!("Origin: Test\nSuite: test\nCodename: {}\n{extra}SHA256:\n", self.suite);
        for (component, packages) in [("main", self.packages.as_str()), ("universe", "")] {
            let path = format!("{component}/binary-amd64/Packages");
            let index = self.dist(&path);
            fs::create_dir_all(index.parent().unwrap()).unwrap();
            fs::write(&index, packages).unwrap();
            writeln!(text, " {} {} {path}", sha256(&index), packages.len()).unwrap();
        }
        let release = self.dist("Release");
        fs::write(&release, &text).unwrap();
        let target = self.dist("InRelease");
        match signer {
            Some(who) => self
                .gpg(who, &["--output", target.to_str().unwrap(), "--clearsign", release.to_str().unwrap()]),
            None => fs::write(target, text).unwrap(),
        }
    }

    /// Makes it a flat archive too, without suites and components.
    pub fn publish_flat(&self, signer: &str) {
        let index = self.at("Packages");
        fs::write(&index, &self.packages).unwrap();
        let text = format!("Origin: Flat\nSHA256:\n {} {} ./Packages\n", sha256(&index), self.packages.len());
        let release = self.at("Release");
        fs::write(&release, text).unwrap();
        let target = self.at("InRelease");
        self.gpg(signer, &["--output", target.to_str().unwrap(), "--clearsign", release.to_str().unwrap()]);
    }

    /// The command that makes `x.img` from it.
    pub fn args(&self, include: &str) -> Vec<String> {
        self.args_from(&format!("file://{}", self.at("").display()), include)
    }

    /// The command that makes `x.img` from this mirror of it.
    pub fn args_from(&self, mirror: &str, include: &str) -> Vec<String> {
        let mut args: Vec<String> =
            ["mkimg", "--no-updates", "--variant", "essential", "--arch", "amd64", "--suite", self.suite]
                .map(str::to_string)
                .into();
        args.push(self.store.path().join("x.img").display().to_string());
        args.extend(["--include".to_string(), include.to_string()]);
        args.extend(["--mirror".to_string(), mirror.to_string()]);
        args.extend(["--keyring".to_string(), self.at("good.gpg").display().to_string()]);
        args
    }

    /// Runs the command, which must fail and leave nothing; gives standard error.
    pub fn fails(&self, code: i32, include: &str) -> String {
        self.fails_with(code, &self.args(include))
    }

    /// As `fails`, with these arguments.
    pub fn fails_with(&self, code: i32, args: &[String]) -> String {
        let stderr = self.store.fails(code, args);
        self.assert_nothing_left(&stderr);
        stderr
    }

    /// No image, no scratch folder, no mount.
    pub fn assert_nothing_left(&self, why: &str) {
        assert!(!self.store.path().join("x.img").exists(), "{why}");
        let tmp = self.store.path().join("shipimg/tmp");
        assert_eq!(fs::read_dir(tmp).unwrap().count(), 0, "{why}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.store.path().to_str().unwrap()), "{why}");
    }
}

/// Writes a script of the package that is made of `tree`.
pub fn script(tree: &Path, name: &str, text: &str) {
    let file = tree.join("DEBIAN").join(name);
    fs::write(&file, format!("#!/bin/sh\nset -e\n{text}\n")).unwrap();
    ok("chmod", &["755".as_ref(), file.as_os_str()]);
}

/// The hash of a file.
pub fn sha256(path: &Path) -> String {
    ok("sha256sum", &[path]).split_whitespace().next().unwrap().to_string()
}

/// An archive of suite bookworm; usr-is-merged is part of every base of that.
pub fn bookworm() -> Archive {
    need_root();
    let mut archive = Archive::new("bookworm");
    archive.add("usr-is-merged", "");
    archive
}
