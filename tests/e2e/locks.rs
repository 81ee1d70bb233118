//! Locks: made, compared, brought up to date, built from; with a small signed archive.

use crate::common::archive::{Archive, bookworm};
use crate::common::ok;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// An archive with `a`, whose files are all that is in images of it.
fn archive() -> Archive {
    let mut archive = bookworm();
    archive.add("a", "");
    archive.publish("", Some("good"));
    archive
}

/// The lock's path.
fn lock(archive: &Archive) -> PathBuf {
    archive.store.path().join("x.lock")
}

fn text(archive: &Archive) -> String {
    fs::read_to_string(lock(archive)).unwrap()
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(ToString::to_string).collect()
}

/// The command that makes the image of the lock.
fn image(archive: &Archive, include: &str, more: &[&str]) -> Vec<String> {
    let mut args = archive.args(include);
    *args.iter_mut().find(|a| *a == "essential").unwrap() = "custom".to_string();
    args.extend(words(&["--lock", lock(archive).to_str().unwrap()]));
    args.extend(words(more));
    args
}

/// The command that makes the lock.
fn made(archive: &Archive, include: &str, more: &[&str]) -> Vec<String> {
    let mut args = archive.args(include);
    args[0] = "lock".to_string();
    *args.iter_mut().find(|a| *a == "essential").unwrap() = "custom".to_string();
    *args.iter_mut().find(|a| a.ends_with("x.img")).unwrap() = lock(archive).display().to_string();
    args.extend(words(more));
    args
}

/// The command for the lock that is there.
fn of(archive: &Archive, more: &[&str]) -> Vec<String> {
    let mut args = words(&["lock", lock(archive).to_str().unwrap(), "--format", "json"]);
    args.extend(words(more));
    args
}

/// What the command prints: `[name, old, new]` of each package, and the whole.
#[track_caller]
fn changes(archive: &Archive, code: i32, more: &[&str]) -> (Value, Value) {
    let out = archive.store.output(&of(archive, more));
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{stderr}");
    let all: Value = serde_json::from_slice(&out.stdout).unwrap();
    let row = |p: &Value| json!([p["name"], p["old"], p["new"]]);
    (all["packages"].as_array().unwrap().iter().map(row).collect(), all)
}

fn sum(archive: &Archive) -> String {
    let image = archive.store.path().join("x.img");
    ok("sha256sum", &[&image]).split(' ').next().unwrap().to_string()
}

#[test]
fn made_current_and_brought_up_to_date() {
    let mut archive = archive();
    archive.store.ok(&made(&archive, "a", &[]));
    let first = text(&archive);
    assert!(first.contains("name = \"a\"\nversion = \"1\"") && first.contains("signer = \""), "{first}");
    let (none, all) = changes(&archive, 0, &[]);
    assert_eq!((none, &all["current"], &all["written"]), (json!([]), &json!(true), &json!(false)));
    // A newer Release file of the same packages is no news.
    archive.publish("Description: x\n", Some("good"));
    changes(&archive, 0, &["--update"]);
    assert_eq!(text(&archive), first);
    archive.add_files("a", "2", "", &[("opt/a", "2")]);
    archive.publish("", Some("good"));
    let table = archive.store.output(&of(&archive, &["--format", "table"]));
    assert_eq!(table.status.code(), Some(4));
    assert_eq!(String::from_utf8_lossy(&table.stdout), "PACKAGE   OLD   NEW\na         1     2\n");
    let news = json!([["a", "1", "2"]]);
    let (rows, all) = changes(&archive, 4, &[]);
    assert_eq!((rows, &all["current"], &all["written"]), (news.clone(), &json!(false), &json!(false)));
    assert_eq!(text(&archive), first);
    let (rows, all) = changes(&archive, 0, &["--update"]);
    assert_eq!((rows, &all["written"]), (news, &json!(true)));
    assert!(text(&archive).contains("name = \"a\"\nversion = \"2\""));
    changes(&archive, 0, &[]);
    // With a suite, what is asked for by options counts.
    let other = made(&archive, "a", &["--no-updates", "--exclude", "z"]);
    let out = archive.store.output(&other);
    assert!(out.status.code() == Some(4) && String::from_utf8_lossy(&out.stderr).contains("something else"));
    archive.store.fails(4, &[other.clone(), words(&["--update", "a"])].concat());
    archive.store.ok(&[other, words(&["--update"])].concat());
    assert!(text(&archive).contains("exclude = [\"z\"]"));
}

#[test]
fn wrong_calls() {
    let archive = archive();
    let fails = |code, more: &[&str], part: &str| {
        let stderr = archive.store.fails(code, &of(&archive, more));
        assert!(stderr.contains(part), "{stderr}");
    };
    fails(10, &[], "no lock");
    fails(10, &["--update", "a"], "no lock");
    archive.store.ok(&made(&archive, "a", &[]));
    fails(10, &["--update", "a,b"], "no package or image b in");
    fails(2, &["--include", "a"], "--include without --suite");
    fails(2, &["--suite", "nope"], "unknown suite");
    // Which file is meant, where none is named.
    let folder = archive.at("folder");
    fs::create_dir(&folder).unwrap();
    let in_folder = |args: &[&str]| {
        let out = archive.store.command().current_dir(&folder).arg("lock").args(args).output().unwrap();
        (out.status.code().unwrap(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, stderr) = in_folder(&[]);
    assert!(code == 10 && stderr.contains("no *.lock in this folder"), "{stderr}");
    fs::copy(lock(&archive), folder.join("one.lock")).unwrap();
    let (code, stderr) = in_folder(&[]);
    assert!(code == 0 && stderr.contains("one.lock: up to date"), "{stderr}");
    fs::copy(lock(&archive), folder.join("two.lock")).unwrap();
    let (code, stderr) = in_folder(&[]);
    assert!(code == 2 && stderr.contains("one.lock, two.lock"), "{stderr}");
    fs::write(lock(&archive), "version = 1\n").unwrap();
    fails(2, &[], "x.lock: ");
}

#[test]
fn some_packages_alone() {
    let mut archive = bookworm();
    archive.add("a", "Depends: b\n");
    archive.add("b", "");
    archive.add("c", "Depends: b\n");
    archive.add("d", "");
    archive.add("e", "Depends: old\n");
    archive.add("old", "");
    archive.publish("", Some("good"));
    archive.store.ok(&made(&archive, "a,c,d,e", &["--variant", "essential"]));
    let first = text(&archive);
    // All is newer, and the old versions are gone from the archive: what they depend on is read in
    // their files. a needs something new, that breaks c; e does without what it needed.
    for name in ["a", "b", "c", "d", "e", "old"] {
        archive.withdraw(name);
    }
    for (name, fields) in [
        ("a", "Depends: b, n (>= 2)\n"),
        ("b", ""),
        ("c", "Depends: b (>= 2)\n"),
        ("d", ""),
        ("e", ""),
        ("n", "Breaks: c (<< 2)\n"),
    ] {
        archive.add_files(name, "2", fields, &[(&format!("opt/{name}"), "2")]);
    }
    archive.publish("", Some("good"));
    let (rows, all) = changes(&archive, 0, &["--update", "d"]);
    assert_eq!((rows, &all["packages"][0]["reason"]), (json!([["d", "1", "2"]]), &json!("asked for")));
    let (rows, all) = changes(&archive, 0, &["--update", "a"]);
    let moved = json!([["a", "1", "2"], ["b", "1", "2"], ["c", "1", "2"], ["n", null, "2"]]);
    assert_eq!(rows, moved);
    let reasons: Vec<&str> =
        all["packages"].as_array().unwrap().iter().map(|p| p["reason"].as_str().unwrap()).collect();
    assert_eq!(
        reasons,
        [
            "asked for",
            "a → n (>= 2) → not c (<< 2) → b (>= 2)",
            "a → n (>= 2) → not c (<< 2)",
            "a → n (>= 2)"
        ]
    );
    let now = text(&archive);
    assert!(now.contains("name = \"e\"\nversion = \"1\"") && now.contains("name = \"old\""), "{now}");
    let (rows, all) = changes(&archive, 0, &["--update", "e"]);
    assert_eq!(rows, json!([["e", "1", "2"], ["old", "1", null]]));
    assert_eq!(all["packages"][1]["reason"], "nothing needs it any more");
    // What is wholly gone cannot be looked into, and nothing is written.
    fs::write(lock(&archive), &first).unwrap();
    for file in ["c", "d"] {
        fs::remove_file(archive.at(&format!("{file}.deb"))).unwrap();
    }
    let packages = archive.store.path().join("shipimg/packages");
    fs::remove_dir_all(packages).unwrap();
    archive.store.fails(10, &of(&archive, &["--update", "a"]));
    assert_eq!(text(&archive), first);
    changes(&archive, 0, &["--update"]);
}

#[test]
fn built_from_without_an_archive() {
    let mut archive = archive();
    archive.store.fails(4, &image(&archive, "a", &["--frozen"]));
    archive.store.ok(&image(&archive, "a", &["--no-base-cache"]));
    let (first, locked) = (sum(&archive), text(&archive));
    // The archive has other packages now: the locked ones are taken.
    archive.add_files("a", "2", "", &[("opt/a", "2")]);
    archive.publish("", Some("good"));
    for more in [&["--no-base-cache"][..], &["--no-base-cache", "--frozen"]] {
        archive.store.ok(&image(&archive, "a", more));
        assert_eq!((sum(&archive), text(&archive)), (first.clone(), locked.clone()));
    }
    let stderr = archive.store.fails(4, &image(&archive, "a,usr-is-merged", &["--frozen"]));
    assert!(stderr.contains("made for ") && stderr.contains("usr-is-merged"), "{stderr}");
    // It is wholly gone: what is in the store is enough, what is missing there fails.
    for gone in ["dists", "a.deb"] {
        fs::rename(archive.at(gone), archive.at("gone").with_extension(gone)).unwrap();
    }
    archive.store.ok(&image(&archive, "a", &["--no-base-cache", "--frozen"]));
    assert_eq!(sum(&archive), first);
    fs::remove_dir_all(archive.store.path().join("shipimg/packages")).unwrap();
    archive.store.fails(10, &image(&archive, "a", &["--no-base-cache", "--frozen"]));
    fs::rename(archive.at("gone.a.deb"), archive.at("a.deb")).unwrap();
    archive.store.ok(&image(&archive, "a", &["--no-base-cache", "--frozen"]));
    assert_eq!((sum(&archive), text(&archive)), (first, locked));
}

#[test]
fn the_same_elsewhere() {
    let archive = archive();
    archive.store.ok(&image(&archive, "a", &[]));
    let (first, locked) = (sum(&archive), text(&archive));
    // A machine with another mirror of the archive, that cannot reach the first one.
    let there = Archive::new("bookworm");
    fs::remove_dir_all(there.at("")).unwrap();
    fs::rename(archive.at(""), there.at("")).unwrap();
    let mirror = format!("file://{}", there.at("").display());
    let mut args = image(&there, "a", &["--frozen"]);
    // The keyring is part of what is asked for: it goes into the image.
    let keyring = archive.store.path().join("archive/good.gpg");
    fs::create_dir_all(archive.at("")).unwrap();
    fs::copy(there.at("good.gpg"), &keyring).unwrap();
    let at = args.iter().position(|a| a == "--keyring").unwrap();
    args[at + 1] = keyring.display().to_string();
    assert!(args.contains(&mirror));
    fs::write(lock(&there), &locked).unwrap();
    there.store.ok(&args);
    assert_eq!((sum(&there), text(&there)), (first, locked));
    // Where the lock's own address fails, the archives are asked at this machine's.
    changes(&there, 0, &["--mirror", &mirror]);
}

#[test]
fn files_that_are_not_the_locked_ones() {
    let archive = archive();
    archive.store.ok(&made(&archive, "a", &[]));
    let good = text(&archive);
    let refused = |from: &str, to: &str, part: &str| {
        assert!(good.contains(from), "{good}");
        fs::write(lock(&archive), good.replace(from, to)).unwrap();
        let stderr = archive.fails_with(9, &image(&archive, "a", &["--frozen"]));
        assert!(stderr.contains(part), "{stderr}");
        let packages = archive.store.path().join("shipimg/packages");
        let kept = fs::read_dir(packages).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
        let kept: Vec<_> = kept.filter(|n| !n.contains(".index") && !n.contains(".release")).collect();
        assert!(kept.is_empty(), "nothing of it stays: {kept:?}");
    };
    let line = |key: &str| {
        let all = good.split("[[package]]").nth(1).unwrap();
        all.lines().find(|l| l.starts_with(key)).unwrap().to_string()
    };
    refused(&line("sha256"), &format!("sha256 = \"{}\"", "0".repeat(64)), "is not what the archive promises");
    // Nor do packages go by other names and versions than their own.
    for (from, to) in [("name = \"a\"", "name = \"b\""), ("version = \"1\"", "version = \"2\"")] {
        fs::write(lock(&archive), good.replace(from, to)).unwrap();
        let stderr = archive.fails_with(9, &image(&archive, "a", &["--frozen"]));
        assert!(stderr.contains("promised was"), "{stderr}");
    }
    fs::remove_dir_all(archive.store.path().join("shipimg/packages")).unwrap();
    let secret = archive.at("secret");
    fs::write(&secret, "x".repeat(line("size").trim_start_matches("size = ").parse().unwrap())).unwrap();
    let url = format!("url = \"file://{}\"", secret.display());
    refused(&line("url"), &url, "is not what the archive promises");
}

#[test]
fn a_snapshot_stays() {
    let mut archive = archive();
    let id = "20260901T000000Z";
    let old = archive.at(id);
    fs::create_dir(&old).unwrap();
    let copy = |name: &str| ok("cp", &["-a".as_ref(), archive.at(name).as_os_str(), old.as_os_str()]);
    for name in ["dists", "a.deb", "usr-is-merged.deb"] {
        copy(name);
    }
    let mirror = format!("file://{}/@SNAPSHOTID@", archive.at("").display());
    archive.store.ok(&made(&archive, "a", &["--mirror", &mirror, "--snapshot", id]));
    // The first mirror is not that of the snapshot.
    let args = archive.args_from(&mirror, "a");
    fs::remove_file(lock(&archive)).unwrap();
    let mut args = [args, words(&["--variant", "custom", "--snapshot", id])].concat();
    args[0] = "lock".to_string();
    *args.iter_mut().find(|a| a.ends_with("x.img")).unwrap() = lock(&archive).display().to_string();
    archive.store.ok(&args);
    let first = text(&archive);
    assert!(
        first.contains(&format!("snapshot = \"{id}\"")) && first.contains(&format!("{id} bookworm main"))
    );
    archive.add_files("a", "2", "", &[("opt/a", "2")]);
    archive.publish("", Some("good"));
    changes(&archive, 0, &["--update"]);
    assert_eq!(text(&archive), first);
}

#[test]
fn each_archive_has_its_signer() {
    let archive = archive();
    let mut other = Archive::new("stuff");
    other.add_files("tool", "1", "", &[("opt/tool", "1")]);
    other.publish("", Some("good"));
    let address = other.at("").display().to_string();
    let line = |options: &str| format!("deb [{options}] file://{address} stuff main");
    let signed = line(&format!("signed-by={}", other.at("good.gpg").display()));
    archive.store.ok(&made(&archive, "a,tool", &["--repo", &signed]));
    let locked = text(&archive);
    let signers: Vec<&str> = locked.lines().filter(|l| l.starts_with("signer")).collect();
    assert!(signers.len() == 2 && signers[0] != signers[1], "{locked}");
    // Its own keyring is asked again; another key is not taken.
    other.add_files("tool", "2", "", &[("opt/tool", "2")]);
    other.publish("", Some("evil"));
    archive.store.fails(9, &of(&archive, &[]));
    other.publish("", Some("good"));
    assert_eq!(changes(&archive, 0, &["--update", "tool"]).0, json!([["tool", "1", "2"]]));
    archive.store.ok(&image(&archive, "a,tool", &["--frozen", "--repo", &signed]));
    archive.store.fails(4, &image(&archive, "a,tool", &["--frozen", "--repo", &line("trusted=yes")]));
}

#[test]
fn unsigned_archives_are_said_to_be() {
    let archive = archive();
    archive.publish("", None);
    archive.fails_with(9, &made(&archive, "a", &[]));
    assert!(!lock(&archive).exists());
    archive.store.ok(&made(&archive, "a", &["--insecure-no-signature"]));
    let locked = text(&archive);
    assert!(locked.contains("unsigned = true") && !locked.contains("signer"), "{locked}");
    archive.fails_with(4, &image(&archive, "a", &["--frozen"]));
    archive.fails_with(9, &image(&archive, "a", &[]));
    let stderr = archive.store.fails(9, &of(&archive, &["--update"]));
    assert!(stderr.contains("made of unsigned archives"), "{stderr}");
    assert_eq!(text(&archive), locked);
    changes(&archive, 0, &["--insecure-no-signature"]);
    archive.store.ok(&image(&archive, "a", &["--frozen", "--insecure-no-signature"]));
}

#[test]
fn lists_of_packages_for_others() {
    let archive = archive();
    let at = |name: &str| archive.store.path().join(name);
    let (spdx, cdx) = (at("x.spdx.json"), at("x.cdx.json"));
    let both = ["--sbom", spdx.to_str().unwrap(), "--sbom", cdx.to_str().unwrap()];
    archive.store.ok(&image(&archive, "a,usr-is-merged", &both));
    let read = || [&spdx, &cdx].map(|path| fs::read_to_string(path).unwrap());
    let first = read();
    let [one, two] = [0, 1].map(|i| serde_json::from_str::<Value>(&first[i]).unwrap());
    let names = |all: &Value| -> Vec<String> {
        all.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(names(&one["packages"]), ["bookworm-custom-amd64", "a", "usr-is-merged"]);
    assert_eq!(names(&two["components"]), ["a", "usr-is-merged"]);
    let sum = crate::common::archive::sha256(&archive.at("a.deb"));
    assert_eq!(one["packages"][1]["checksums"][0]["checksumValue"], sum);
    assert_eq!(two["components"][0]["hashes"][0]["content"], sum);
    assert_eq!(two["components"][0]["purl"], "pkg:deb/debian/a@1?arch=amd64&distro=bookworm");
    assert!(one.get("comment").is_none());
    // From a kept root and the same lock: the same bytes, in place of what is there.
    fs::write(&spdx, "old").unwrap();
    archive.store.ok(&image(&archive, "a,usr-is-merged", &both));
    assert_eq!(read(), first);
    archive.store.fails_usage(&image(&archive, "a", &["--sbom", at("x.json").to_str().unwrap()]));
    // Not without the image.
    fs::remove_file(&spdx).unwrap();
    fs::remove_file(at("x.img")).unwrap();
    fs::create_dir(at("x.img")).unwrap();
    let out = archive.store.output(&image(&archive, "a,usr-is-merged", &both));
    assert!(!out.status.success() && !spdx.exists());
    fs::remove_dir(at("x.img")).unwrap();
    fs::remove_file(lock(&archive)).unwrap();
    archive.publish("", None);
    archive.store.ok(&image(&archive, "a", &[&both[..], &["--insecure-no-signature"]].concat()));
    assert!(
        read().iter().all(|text| text.contains("signature was not checked") || text.contains("unsigned"))
    );
}
