//! `shipimg analyze`: the same figures from every place that an image can lie in, and hostile ones.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::{TestStore, need_root, ok};
use serde_json::{Value, json};
use std::fs;

/// Ends blocks of HTML, turns the direction of text, and steers terminals.
const HOSTILE: &str = "</script><img src=x onerror=alert(1)>\"'&\u{202e}\u{1b}[31m";

const STATUS: &str = "Package: tools\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: amd64\n";

/// Adds the image `name` of these layers, each made by such a command.
fn add(layout: &Layout, name: &str, layers: &[(Vec<u8>, &str)]) {
    let blobs: Vec<_> = layers.iter().map(|(tar, _)| Blob::gzip(tar)).collect();
    let diff_ids: Vec<_> = blobs.iter().map(|b| b.diff_id.clone()).collect();
    let mut history = vec![json!({"created_by": "ENV a=b", "empty_layer": true})];
    history.extend(layers.iter().map(|(_, by)| json!({"created_by": by, "comment": "by a test"})));
    let config = json!({"architecture": "amd64", "os": "linux", "history": history,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = layout.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let layers: Vec<_> = blobs.iter().map(|b| layout.put(&b.media_type, &b.bytes)).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": layers});
    layout.name(name, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
}

/// A Debian of one package whose list names a file by `/bin`, which is a link.
fn base() -> Vec<u8> {
    let tar = Tar::new().dir("usr/").dir("usr/bin/").symlink("bin", "usr/bin").file("usr/bin/x", &[1; 1000]);
    let tar = tar.link("usr/bin/y", "usr/bin/x").file("var/lib/dpkg/status", STATUS.as_bytes());
    let tar = tar.file("var/lib/dpkg/info/tools.list", b"/.\n/bin\n/bin/x\n");
    tar.file("cache/old", &[2; 5000]).file("etc/conf", &[3; 300]).finish()
}

fn images(layout: &Layout) {
    let more = || Tar::new().file("cache/.wh.old", b"").file("etc/conf", &[3; 300]).file("copy", &[1; 1000]);
    add(layout, "it", &[(base(), "ADD base"), (more().finish(), "RUN rm cache/old")]);
    let status = STATUS.replace("1.0-1", "1.1-1");
    let newer = more().file("opt/new", &[9; 7000]).file("var/lib/dpkg/status", status.as_bytes()).finish();
    add(layout, "newer", &[(base(), "ADD base"), (newer, "RUN upgrade")]);
}

fn report(store: &TestStore, what: &str) -> Value {
    serde_json::from_str(&store.ok(&["analyze", what, "--format", "json"])).unwrap()
}

fn file<'r>(report: &'r Value, path: &str, layer: u64) -> &'r Value {
    let files = report["files"].as_array().unwrap();
    files.iter().find(|f| f["path"] == path && f["layer"] == layer).unwrap()
}

#[test]
fn an_image_is_the_same_wherever_it_lies() {
    let store = TestStore::new();
    let layout = Layout::new(&store.path().join("layout"));
    images(&layout);
    let place = format!("oci:{}:it", layout.path().display());
    let first = report(&store, &place);
    assert_eq!(first["layers"][0]["bytes"], 1000 + 5000 + 300 + STATUS.len() + 15);
    assert_eq!(first["layers"][1]["createdBy"], "RUN rm cache/old");
    for (path, layer, fate, by, package) in [
        ("/usr/bin/x", 0, "kept", Value::Null, json!("tools")),
        ("/copy", 1, "repeated", Value::Null, Value::Null),
        ("/cache/old", 0, "deleted", json!(1), Value::Null),
        ("/etc/conf", 0, "rewritten", json!(1), Value::Null),
        ("/etc/conf", 1, "kept", Value::Null, Value::Null),
    ] {
        let file = file(&first, path, layer);
        assert_eq!(
            (&file["fate"], &file["byLayer"], &file["package"]),
            (&json!(fate), &by, &package),
            "{path}"
        );
    }
    assert_eq!(first["waste"], 5000 + 300 + 1000);
    let package = &first["packages"][0];
    assert_eq!(
        (&package["name"], &package["version"], &package["bytes"]),
        (&json!("tools"), &json!("1.0-1"), &json!(1000))
    );

    let archive = store.path().join("it.tar");
    let archive = archive.to_str().unwrap();
    store.ok(&["copy", &place, "localhost/it:1"]);
    for kind in ["oci-archive", "docker-archive"] {
        let _ = fs::remove_file(archive);
        store.ok(&["export", "--kind", kind, "-o", archive, "it:1"]);
        let other = report(&store, archive);
        assert_eq!((&other["files"], &other["packages"]), (&first["files"], &first["packages"]), "{kind}");
    }
    assert_eq!(report(&store, "it:1")["files"], first["files"]);
    let failed = store.fails(2, &["analyze", layout.path().to_str().unwrap()]);
    assert!(failed.contains("several images: it, newer"), "{failed}");
    let left = fs::read_dir(store.path().join("shipimg/tmp")).unwrap().count();
    assert_eq!(left, 0, "nothing is left of archives");
    let text = store.ok(&["analyze", "it:1"]);
    for row in [
        "RUN rm cache/old",
        "tools",
        "(no package)",
        "/cache/old",
        "deleted by layer 2",
        "the same as /usr/bin/x",
    ] {
        assert!(text.contains(row), "{row}: {text}");
    }
}

#[test]
fn folders_and_filesystems_are_one_layer() {
    need_root();
    let store = TestStore::new();
    let layout = Layout::new(&store.path().join("layout"));
    images(&layout);
    let root = store.path().join("root");
    let root = root.to_str().unwrap();
    store.ok(&["copy", &format!("oci:{}:it", layout.path().display()), "localhost/it:1"]);
    store.ok(&["unpack", "it:1", root]);
    // What unpack makes is a bundle: a word that means one is its root.
    let image = |kind: &str| store.path().join(kind).to_str().unwrap().to_string();
    let rootfs = format!("{root}/rootfs");
    let [ext4, squashfs, erofs, btrfs] = ["ext4", "squashfs", "erofs", "btrfs"].map(image);
    ok("mkfs.ext4", &["-q", "-d", &rootfs, &ext4, "4M"]);
    ok("mksquashfs", &[&rootfs, &squashfs, "-quiet", "-no-progress"]);
    ok("mkfs.erofs", &["--quiet", &erofs, &rootfs]);
    ok("mkfs.btrfs", &["-q", "--rootdir", &rootfs, "--shrink", &btrfs]);
    for what in [root, &rootfs, &ext4, &squashfs, &erofs, &btrfs] {
        let found = report(&store, what);
        assert_eq!(found["layers"].as_array().unwrap().len(), 1);
        assert_eq!(found["bytes"], 1000 + 300 + 1000 + STATUS.len() + 15, "{what}");
        assert_eq!(file(&found, "/usr/bin/x", 0)["package"], "tools");
        // Which of the files is called the copy is told by the order of their names.
        assert_eq!(
            (&found["waste"], &file(&found, "/usr/bin/x", 0)["sameAs"]),
            (&json!(1000), &json!("/copy"))
        );
    }
}

#[test]
fn two_are_compared() {
    let store = TestStore::new();
    let layout = Layout::new(&store.path().join("layout"));
    images(&layout);
    let [old, new] = ["it", "newer"].map(|name| format!("oci:{}:{name}", layout.path().display()));
    let found: Value = serde_json::from_str(&store.ok(&["analyze", &old, &new, "--format", "json"])).unwrap();
    let changes = |what: &str, key: &str| -> Vec<String> {
        let rows = found[what].as_array().unwrap().iter();
        rows.map(|r| format!("{} {}", r[key].as_str().unwrap_or_default(), r["change"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(changes("layers", ""), [" same", " added", " removed"]);
    assert_eq!(changes("packages", "name"), ["tools changed"]);
    assert_eq!(changes("files", "path"), ["/opt/new added", "/var/lib/dpkg/status changed"]);
    assert_eq!(
        (&found["packages"][0]["oldVersion"], &found["packages"][0]["newVersion"]),
        (&json!("1.0-1"), &json!("1.1-1"))
    );
    assert_eq!(changes("directories", "path")[1], "/opt added");
    let text = store.ok(&["analyze", &old, &new]);
    assert!(text.contains("/opt/new") && text.contains("+6.84 KiB") && text.contains("1.1-1"), "{text}");
    assert_eq!(store.ok(&["analyze", &old, &old]).matches("same").count(), 2);
}

#[test]
fn pages_of_hostile_images() {
    let store = TestStore::new();
    let layout = Layout::new(&store.path().join("layout"));
    let status = format!("Package: {HOSTILE}\nStatus: install ok installed\nVersion: {HOSTILE}\n");
    let tar = Tar::new().file(&format!("a{}", HOSTILE.replace('/', "|")), b"x");
    let tar = tar.file("var/lib/dpkg/status", status.as_bytes()).finish();
    add(&layout, "it", &[(tar, HOSTILE)]);
    let place = format!("oci:{}:it", layout.path().display());
    let file = |name: &str, text: &str| {
        let path = store.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let checks =
        file("checks", &json!({"verdicts": [{"name": HOSTILE, "outcome": "failed", "findings": [{"wanted": HOSTILE, "found": HOSTILE}], "new": 1}]}).to_string());
    let page = store.path().join("page.html");
    let page = page.to_str().unwrap();
    assert_eq!(store.ok(&["analyze", &place, "--html", page, "--checks-report", &checks]), "");
    let html = fs::read_to_string(page).unwrap();
    // The library, the script, and the data.
    assert_eq!((html.matches("<script").count(), html.matches("</script").count()), (3, 3));
    assert!(!html.contains("<img") && html.contains("default-src 'none'"));
    assert_eq!(store.ok(&["analyze", &place, "--html", "-", "--checks-report", &checks]), html);
    store.ok(&["analyze", &place, &place, "--html", page]);
    assert!(!fs::read_to_string(page).unwrap().contains("<img"));
    // Text for terminals has none of it, either.
    let text = store.ok(&["analyze", &place]);
    assert!(!text.contains('\u{1b}'), "{text:?}");

    let bad = file("bad", "{}");
    let failed = store.fails(2, &["analyze", &place, "--html", page, "--checks-report", &bad]);
    assert!(failed.contains("no report of checks"), "{failed}");
    store.fails(10, &["analyze", &place, "--html", page, "--checks-report", "/nonexistent"]);
    store.fails(10, &["analyze", &place, "--html", "/nonexistent/page.html"]);
}

#[test]
fn damage_is_no_figure() {
    let store = TestStore::new();
    let layout = Layout::new(&store.path().join("layout"));
    let blob = Blob::gzip(&base());
    let other = Blob::gzip(&Tar::new().file("a", b"b").finish());
    layout.add_as("it", &[blob], &json!({}), &[&other.diff_id]);
    let place = format!("oci:{}:it", layout.path().display());
    let page = store.path().join("page.html");
    let failed = store.fails(9, &["analyze", &place, "--html", page.to_str().unwrap()]);
    assert!(failed.contains("the configuration says") && !page.exists(), "{failed}");
    store.fails(10, &["analyze", "no-such-image"]);
    let limited =
        store.fails(9, &["--max-entries", "3", "analyze", &format!("oci:{}:it", layout.path().display())]);
    assert!(limited.contains("entries"), "{limited}");
}

#[test]
fn databases_and_links_that_lead_nowhere() {
    let store = TestStore::new();
    let layout = Layout::new(&store.path().join("layout"));
    let list = "/loop/x\n/../../etc/passwd\n\u{0}\n/a/./b\n";
    let tar =
        Tar::new().symlink("loop", "loop").symlink("up", "../../..").file("a/b", b"1").link("c", "missing");
    let tar = tar
        .file("var/lib/dpkg/status", STATUS.as_bytes())
        .file("var/lib/dpkg/info/tools.list", list.as_bytes());
    let apk = b"P:\nV\n\nP:a\nF:../..\nR:x\nF:ok\nR:y\n";
    let tar =
        tar.file("lib/apk/db/installed", apk).file("ok/y", b"2").file("var/lib/dpkg/status.d/x", &[0xff; 9]);
    add(&layout, "it", &[(tar.finish(), "x")]);
    let found = report(&store, &format!("oci:{}:it", layout.path().display()));
    assert_eq!(file(&found, "/a/b", 0)["package"], "tools");
    assert_eq!(file(&found, "/ok/y", 0)["package"], "a");
}

#[test]
fn deep_paths_cost_what_they_are_long() {
    let store = TestStore::in_memory();
    let layout = Layout::new(&store.path().join("layout"));
    let deep = |many: usize| {
        let path = "a/".repeat(1900);
        let tar =
            (0..many).fold(Tar::new(), |tar, n| tar.file(&format!("{n}/{path}f"), n.to_string().as_bytes()));
        tar.finish()
    };
    add(&layout, "it", &[(deep(200), "x")]);
    add(&layout, "other", &[(deep(150), "x")]);
    let [one, two] = ["it", "other"].map(|name| format!("oci:{}:{name}", layout.path().display()));
    // With the path of each directory by itself it would be more than a GiB.
    for args in [&["analyze", &one][..], &["analyze", &one, &two]] {
        let mut limited = std::process::Command::new("prlimit");
        limited.arg("--data=500000000").arg(crate::common::bin()).arg("--root").arg(store.path()).args(args);
        let out = limited.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(String::from_utf8_lossy(&out.stdout).contains("/a/a/a/"));
    }
}
