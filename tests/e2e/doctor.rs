//! `shipimg doctor`: it tries, tells, and leaves nothing.

use crate::common::{TestStore, bin, collect, describe, need_root, ok};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn rows(out: &Output) -> BTreeMap<String, Value> {
    let all: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| {
        panic!("{e}: {}", describe("shipimg", &["doctor"], out));
    });
    all.into_iter().map(|r| (r["what"].as_str().unwrap().to_string(), r)).collect()
}

fn state<'a>(rows: &'a BTreeMap<String, Value>, what: &str) -> &'a str {
    rows.get(what).unwrap_or_else(|| panic!("no row {what}"))["state"].as_str().unwrap()
}

/// Nothing of doctor's making is in `folder`, mounted, or on a loop device.
fn assert_nothing_left(folder: &Path) {
    let names = || fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert!(names().iter().all(|n| !n.to_string_lossy().starts_with(".shipimg-")), "{:?}", names());
    let folder = folder.to_str().unwrap();
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&format!("{folder}/")));
    // The kernel takes a dead child's mounts down a little later.
    let end = Instant::now() + Duration::from_secs(10);
    while ok("losetup", &["-nO", "BACK-FILE"]).contains(folder) {
        assert!(Instant::now() < end, "a loop device is left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn doctor_as_root_tries_everything() {
    need_root();
    let store = TestStore::new();
    store.ok(&["images"]);
    let rows = rows(&store.output(&["doctor", "--format", "json"]));
    for what in [
        "store",
        "overlay",
        "overlay in a user namespace",
        "overlay of 500 layers",
        "user xattrs",
        "trusted xattrs",
        "loop devices",
        "ext4",
        "squashfs",
        "erofs",
        "namespaces",
        "user namespaces",
        "subordinate ids",
        "seccomp",
        "veth pairs",
        "bridges",
        "mkfs.btrfs",
    ] {
        assert_eq!(state(&rows, what), "ok", "{:#}", rows[what]);
    }
    assert_eq!(state(&rows, "btrfs"), "limited", "{}", rows["btrfs"]);
    assert!(rows["btrfs"]["remedy"].as_str().unwrap().contains("store init --btrfs-image"));
    assert!(["cgroups", "reflink", "packet filter"].iter().all(|w| rows.contains_key(*w)));
    let complete = |r: &Value| r["state"] == "ok" || !r["detail"].as_str().unwrap().is_empty();
    assert!(rows.values().all(complete), "{rows:?}");
    assert_nothing_left(&store.path().join("shipimg/tmp"));
    let table = store.ok(&["doctor"]);
    assert!(
        table.starts_with("WHAT ") && table.contains("\nbtrfs: shipimg --root DIR store init"),
        "{table}"
    );
}

#[test]
fn doctor_begins_no_store() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = dir.path().join("not/there");
    let out = collect(Command::new(bin()).arg("--root").arg(&root).arg("doctor"));
    assert!(out.status.success(), "{}", describe("shipimg", &["doctor"], &out));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::write(dir.path().join("mine"), "").unwrap();
    let out = collect(Command::new(bin()).arg("--root").arg(dir.path()).args(["doctor", "--format", "json"]));
    assert_eq!((out.status.code(), state(&rows(&out), "store")), (Some(7), "missing"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// An ordinary user without a name: what root alone may do is limited or missing, and told.
#[test]
fn doctor_as_an_ordinary_user() {
    need_root();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (bin_copy, root) = (dir.path().join("shipimg"), dir.path().join("store"));
    fs::copy(bin(), &bin_copy).unwrap();
    fs::create_dir(&root).unwrap();
    ok("chown", &["-R", "12345:12345", dir.path().to_str().unwrap()]);
    let user = ["--reuid=12345", "--regid=12345", "--clear-groups"];
    let mut command = Command::new("setpriv");
    command.args(user).arg(&bin_copy).arg("--root").arg(&root).args(["doctor", "--format", "json"]);
    let out = collect(&mut command);
    assert!(out.status.success(), "{}", describe("shipimg", &["doctor"], &out));
    let rows = rows(&out);
    for (what, expected) in [
        ("store", "ok"),
        ("overlay", "limited"),
        ("overlay in a user namespace", "ok"),
        ("user xattrs", "ok"),
        ("trusted xattrs", "limited"),
        ("loop devices", "missing"),
        ("namespaces", "ok"),
        ("subordinate ids", "limited"),
        ("seccomp", "ok"),
        ("veth pairs", "ok"),
    ] {
        assert_eq!(state(&rows, what), expected, "{:#}", rows[what]);
    }
    let ids = &rows["subordinate ids"];
    assert!(ids["detail"].as_str().unwrap().starts_with("user 12345 has no subordinate ids"), "{ids}");
    assert!(ids["remedy"].as_str().unwrap().contains("usermod --add-subuids"), "{ids}");
    assert_eq!(rows["loop devices"]["remedy"], "sudo shipimg doctor");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

/// A user of a mount namespace's own passwd and subuid files.
#[test]
fn doctor_tries_subordinate_ids() {
    need_root();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::copy(bin(), path("shipimg")).unwrap();
    fs::create_dir(path("store")).unwrap();
    ok("chown", &["-R", "12345:12345", dir.path().to_str().unwrap()]);
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    fs::write(path("passwd"), format!("{passwd}ship:x:12345:12345::/:/bin/sh\n")).unwrap();
    fs::write(path("subuid"), "ship:200000:65536\n").unwrap();
    fs::write(path("subgid"), "ship:200000:65536\n").unwrap();
    let script = "for f in passwd subuid subgid; do mount --bind $f /etc/$f || exit; done
        exec setpriv --reuid=12345 --regid=12345 --clear-groups ./shipimg --root store doctor --format json";
    let out = collect(Command::new("unshare").args(["-m", "sh", "-c", script]).current_dir(dir.path()));
    let rows = rows(&out);
    assert_eq!(state(&rows, "subordinate ids"), "ok", "{}", rows["subordinate ids"]);
    assert_eq!(fs::read_dir(path("store")).unwrap().count(), 0);
}

#[test]
fn doctor_on_btrfs() {
    let ground = crate::rootfs::Ground::new(true);
    let root = ground.path().join("folder/store");
    let mut command = Command::new(bin());
    let out = collect(command.arg("--root").arg(&root).args(["doctor", "--format", "json"]));
    let rows = rows(&out);
    assert_eq!((state(&rows, "btrfs"), state(&rows, "reflink")), ("ok", "ok"), "{rows:#?}");
    assert_nothing_left(&ground.path());
}
