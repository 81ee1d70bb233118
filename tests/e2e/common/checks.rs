//! Images to be checked, and what `verify` says of them.

use super::TestStore;
use super::layout::{Blob, Layout, Tar};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use tar::EntryType as T;

/// Debian's static busybox.
fn busybox() -> Vec<u8> {
    fs::read("/bin/busybox").expect("busybox-static; scripts/test installs it")
}

/// A small system in two layers with a history, `img:1`: what the upper one does to the lower shows.
pub fn add_system(store: &TestStore, config: &Value) -> String {
    let capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let mut lower = Tar::new().dir("./").dir("bin/").entry(T::Regular, "bin/busybox", 0o755, "", &busybox());
    for name in ["sh", "httpd", "nc", "cat", "id", "sleep", "touch", "true", "false", "env", "rm", "yes"] {
        lower = lower.symlink(&format!("bin/{name}"), "busybox");
    }
    let lower = lower
        .dir("etc/")
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\nweb:x:33:33::/srv:/bin/false\n")
        .file("etc/group", b"root:x:0:\nweb:x:33:\nadm:x:4:web\n")
        .file("etc/gone", &[b'g'; 1000])
        .file("etc/twice", &[b'1'; 2000])
        .file("etc/conf.json", br#"{"a": {"b": [1, "x"]}}"#)
        .dir("var/")
        .dir("var/lib/")
        .dir("var/lib/dpkg/")
        .file("var/lib/dpkg/status", b"Package: demo\nStatus: install ok installed\nVersion: 1.2-3\n")
        .dir("var/log/")
        .entry(T::Directory, "tmp/", 0o1777, "", b"")
        .dir("www/")
        .file("www/index.html", b"hello world\n");
    let upper = Tar::new()
        .file("etc/.wh.gone", b"")
        .file("etc/twice", b"2")
        .pax(&[("uid", b"33"), ("gid", b"33")])
        .entry(T::Regular, "etc/mine", 0o600, "", b"mine")
        .pax(&[("SCHILY.xattr.security.capability", capability)])
        .entry(T::Regular, "bin/ping", 0o755, "", b"p")
        .entry(T::Regular, "bin/su", 0o4755, "", b"s")
        .entry(T::Regular, "etc/open", 0o666, "", b"o")
        .dir("root/")
        .file("root/key", b"-----BEGIN PRIVATE KEY-----\nMIIE\n")
        .symlink("etc/link", "../etc/passwd");
    add(store, "img:1", &[Blob::gzip(&lower.finish()), Blob::gzip(&upper.finish())], config)
}

/// An image whose history has a step for each layer; gives the digest of its manifest.
pub fn add(store: &TestStore, name: &str, layers: &[Blob], config: &Value) -> String {
    let there = store.path().join("index.json").exists();
    let layout = if there { Layout::at(store.path()) } else { Layout::new(store.path()) };
    let steps = ["the base", "recipe.toml:12: run touch /etc/mine"];
    let history: Vec<Value> = (0..layers.len()).map(|i| json!({"created_by": steps[i]})).collect();
    let diff_ids: Vec<&str> = layers.iter().map(|l| l.diff_id.as_str()).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": config, "history": history,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = layout.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let layers: Vec<Value> = layers.iter().map(|l| layout.put(&l.media_type, &l.bytes)).collect();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
    layout.name(&format!("docker.io/library/{name}"), media_type, manifest.to_string().as_bytes())
}

/// An image that has one static program and nothing else.
pub fn add_scratch(store: &TestStore, name: &str, args: &[&str]) {
    let layer = Tar::new().dir("./").entry(T::Regular, "busybox", 0o755, "", &busybox());
    let args: Vec<&str> = std::iter::once("/busybox").chain(args.iter().copied()).collect();
    add(store, name, &[Blob::gzip(&layer.finish())], &json!({"Entrypoint": args}));
}

/// Writes a file of checks.
pub fn file(store: &TestStore, name: &str, text: &str) -> PathBuf {
    let path = store.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// `shipimg verify TARGET --checks …` with more arguments.
pub fn verify(store: &TestStore, target: &str, checks: &str, args: &[&str]) -> Output {
    let path = file(store, "checks.toml", checks);
    store.output(&[&["verify", target, "--checks", path.to_str().unwrap()], args].concat())
}

/// Each of the checks by itself: what it says, and what is said of it: nothing where it holds, else
/// a part of `wanted … found …` of its findings. All are verified at once.
pub fn holds(store: &TestStore, target: &str, checks: &[(&str, &str)]) {
    let text: String = checks.iter().map(|(check, _)| format!("[[check]]\n{check}\n")).collect();
    let out = verify(store, target, &text, &["--format", "json", "--again"]);
    let said = String::from_utf8_lossy(&out.stdout);
    let report: Value = serde_json::from_str(&said)
        .unwrap_or_else(|e| panic!("{e}: {said}{}", String::from_utf8_lossy(&out.stderr)));
    let verdicts = report["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), checks.len(), "{report:#}");
    for (verdict, (check, want)) in verdicts.iter().zip(checks) {
        let findings = verdict["findings"].as_array().unwrap();
        let one = |f: &Value| {
            let text = |key: &str| f[key].as_str().unwrap_or_default().to_string();
            let by = f["layer"]["by"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
            format!("{} {} | {}{by}", text("path"), text("wanted"), text("found"))
        };
        let found: Vec<String> = findings.iter().map(one).collect();
        let outcome = verdict["outcome"].as_str().unwrap();
        let (wanted_outcome, part) = match want.strip_prefix("error: ") {
            Some(part) => ("error", part),
            None if want.is_empty() => ("passed", ""),
            None => ("failed", *want),
        };
        assert_eq!(outcome, wanted_outcome, "{check}: {found:#?}");
        assert!(found.join("\n").contains(part), "{check}: wanted {part:?}: {found:#?}");
    }
    let all_hold = checks.iter().all(|(_, want)| want.is_empty());
    assert_eq!(out.status.code(), Some(if all_hold { 0 } else { 3 }), "{report:#}");
}

/// Nothing is left of what was started.
pub fn nothing_left(store: &TestStore) {
    store.ok(&["list"]);
    for folder in ["containers", "tmp"] {
        let left = fs::read_dir(store.path().join("shipimg").join(folder)).into_iter().flatten().count();
        assert_eq!(left, 0, "{folder}");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let store = store.path().to_str().unwrap();
    assert!(!mounts.contains(store), "{mounts}");
}
