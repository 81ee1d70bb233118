//! The limits of the command line: each is met by `unpack` and by a driver, and raised.

use crate::common::layout::{Blob, Layout, Tar, sha256};
use crate::common::serve::Served;
use crate::common::{TestStore, bin, need_root, output};
use serde_json::{Value, json};
use shipimg::oci::Digest;
use std::fs;
use std::io::Write;

/// A store with the image `x:1`, whose manifest has the digest.
fn store_of(layer: Blob, config: &Value) -> (TestStore, String) {
    need_root();
    let store = TestStore::in_memory();
    let digest = Layout::new(store.path()).add("docker.io/library/x:1", &[layer], config);
    (store, digest)
}

/// By `unpack` and by overlays the image is refused with `options` and with `low`, and taken where
/// the limit is raised by `high`, or without any.
fn met_and_raised(layer: Blob, config: &Value, low: &[&str], high: &[&str], text: &str) {
    let (store, _) = store_of(layer, config);
    let ground = tempfile::tempdir_in("/dev/shm").unwrap();
    let out = ground.path().join("out").to_str().unwrap().to_string();
    for command in [&["unpack", "x:1", &out][..], &["bundle", "create", "x:1", "b", "--driver", "overlay"]] {
        let said = store.fails(9, &[low, command].concat());
        assert!(said.contains(text), "wanted {text:?}: {said}");
        assert!(fs::read_dir(ground.path()).unwrap().next().is_none(), "{command:?}");
        store.ok(&[high, command].concat());
        let _ = shipimg::sys::dir::remove(ground.path().join("out").as_path());
    }
    // The remedy, where somebody looks.
    let line = format!("{} --root {} {} unpack x:1 {out}", bin(), store.path().display(), low.join(" "));
    let out = output("script", &["-qec", &line, "/dev/null"]);
    let (option, said) = (high.iter().chain(low).next().unwrap(), String::from_utf8_lossy(&out.stdout));
    assert!(said.contains("help: ") && said.contains(&format!("{option} with more than")), "{said}");
    store.ok(&["bundle", "delete", "b"]);
}

fn zstd(tar: &[u8], window: u32) -> Blob {
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(window).unwrap();
    wide.write_all(tar).unwrap();
    Blob { bytes: wide.finish().unwrap(), ..Blob::zstd(tar) }
}

#[test]
fn inflated_bytes() {
    let tar = Tar::new().file("zeros", &vec![0; 2 << 20]).finish();
    let low = ["--max-inflated", "1M"];
    met_and_raised(Blob::gzip(&tar), &json!({}), &low, &[], "more than 1048576 inflated bytes");
}

#[test]
fn inflated_bytes_for_each_compressed_one() {
    let member = Blob::zstd(&vec![0; 64 << 20]);
    let mut tar = Tar::new().file("a", b"a").finish();
    let mut blob = Blob::zstd(&tar);
    for _ in 0..17 {
        tar.resize(tar.len() + (64 << 20), 0);
        blob.bytes.extend_from_slice(&member.bytes);
    }
    blob.diff_id = sha256(&tar);
    drop(tar);
    let high = ["--max-ratio", "100000"];
    met_and_raised(blob, &json!({}), &[], &high, "more than 250 inflated bytes for each compressed one");
}

#[test]
fn entries_and_depth() {
    let tar = || Blob::gzip(&Tar::new().dir("a/").dir("a/b/").file("a/b/c", b"").finish());
    met_and_raised(
        tar(),
        &json!({}),
        &["--max-entries", "2"],
        &["--max-entries", "3"],
        "more than 2 entries",
    );
    let text = "entry /a/b/c: more than 2 directories deep";
    met_and_raised(tar(), &json!({}), &["--max-depth", "2"], &["--max-depth", "3"], text);
    // Directories that no entry is about count too.
    for name in ["a/b/c/.wh..wh..opq", "a/b/.wh.c"] {
        let (store, _) = store_of(Blob::gzip(&Tar::new().file(name, b"").finish()), &json!({}));
        let out = store.path().join("out");
        let said = store.fails(9, &["--max-depth", "2", "unpack", "x:1", out.to_str().unwrap()]);
        assert!(said.contains("entry /a/b/c: more than 2"), "{said}");
    }
}

#[test]
fn windows_of_zstd() {
    let tar = Tar::new().file("a", &vec![b'a'; 1 << 20]).finish();
    let (high, text) = (["--max-zstd-window", "128M"], "more than 16777216 bytes of memory for the window");
    met_and_raised(zstd(&tar, 27), &json!({}), &[], &high, text);
}

#[test]
fn documents() {
    let config = json!({"Labels": {"long": "x".repeat(5 << 20)}});
    let layer = Blob::gzip(&Tar::new().file("a", b"").finish());
    met_and_raised(layer, &config, &[], &["--max-document", "6M"], "bytes, the limit is 4194304");
}

/// A small header may claim gigabytes of holes, which are zeros to whoever hashes or writes them.
#[test]
fn holes_where_they_are_read() {
    let sparse = |size: &[u8]| {
        let map: [(&str, &[u8]); 2] = [("GNU.sparse.size", size), ("GNU.sparse.map", b"0,512")];
        Tar::new().pax(&map).file("s", &[b'x'; 512])
    };
    let (store, _) = store_of(Blob::gzip(&sparse(b"2097152").finish()), &json!({}));
    let ground = tempfile::tempdir_in("/dev/shm").unwrap();
    let (a, b) = (ground.path().join("a"), ground.path().join("b"));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let low = ["--max-inflated", "1M", "unpack", "x:1"];
    store.ok(&[&low[..], &[a]].concat());
    let said = store.fails(9, &[&low[..], &[b, "--manifest", "mtree"]].concat());
    assert!(said.contains("more than 1048576 inflated bytes"), "{said}");
    store.ok(&["unpack", "x:1", b, "--manifest", "mtree"]);
    // By the defaults: thousands of files, each of them small enough to be hashed.
    let mut tar = Tar::new();
    for i in 0..2000 {
        let map: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"1073741824"), ("GNU.sparse.map", b"0,512")];
        tar = tar.pax(&map).file(&format!("s{i}"), &[b'x'; 512]);
    }
    Layout::at(store.path()).add("docker.io/library/holes:1", &[Blob::gzip(&tar.finish())], &json!({}));
    let c = ground.path().join("c");
    let args = ["unpack", "holes:1", c.to_str().unwrap()];
    let said = store.fails(9, &[&args[..], &["--manifest", "mtree"]].concat());
    assert!(said.contains("more than 250 inflated bytes for each compressed one"), "{said}");
    store.ok(&args);
    // Nothing is read of one file with more holes: it has no digest.
    Layout::at(store.path()).add(
        "docker.io/library/one:1",
        &[Blob::gzip(&sparse(b"9000000000000").finish())],
        &json!({}),
    );
    let d = ground.path().join("d");
    store.ok(&["unpack", "one:1", d.to_str().unwrap(), "--manifest", "mtree:/dev/stdout"]);
}

/// An image whose manifest is above the limit in force, of which the limit was another before.
#[test]
fn nothing_is_removed_by_halves() {
    let (store, _) = store_of(Blob::gzip(&Tar::new().file("a", b"a").finish()), &json!({}));
    let layout = Layout::at(store.path());
    let layer = Blob::gzip(&Tar::new().file("b", b"b").finish());
    layout.add("docker.io/library/large:1", &[layer], &json!({}));
    let index = store.path().join("index.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let old: Digest = value["manifests"][1]["digest"].as_str().unwrap().parse().unwrap();
    let text = fs::read(store.path().join("blobs/sha256").join(old.hex())).unwrap();
    // Space before and in a document is no reason to overlook what it leads to.
    let media = "application/vnd.oci.image.manifest.v1+json";
    let large = [&vec![b'\n'; 5 << 20][..], &text].concat();
    value["manifests"].as_array_mut().unwrap().truncate(1);
    fs::write(&index, value.to_string()).unwrap();
    layout.name("docker.io/library/large:1", media, &large);
    layout.name("docker.io/library/spaced:1", media, &[b" \n", &text[..]].concat());

    let blobs = || fs::read_dir(store.path().join("blobs/sha256")).unwrap().count();
    let before = blobs();
    let said = store.fails(9, &["prune", "-y"]);
    assert!(said.contains("bytes, the limit is 4194304"), "{said}");
    assert_eq!(blobs(), before);
    store.ok(&["--max-document", "8M", "prune", "-y"]);
    // The manifest without space was named by nothing.
    assert_eq!(blobs(), before - 1);
    let out = store.path().join("out");
    store.ok(&["--max-document", "8M", "unpack", "large:1", out.to_str().unwrap()]);
    store.ok(&["rmi", "large:1"]);
    store.ok(&["prune", "-y"]);
    assert_eq!(blobs(), before - 2);
    fs::remove_dir_all(&out).unwrap();
    store.ok(&["unpack", "spaced:1", out.to_str().unwrap()]);
}

/// From registries and archives, to archives, and of tars on top.
#[test]
fn wherever_images_come_from() {
    let tar = Tar::new().file("zeros", &vec![0; 2 << 20]).finish();
    let (store, digest) = store_of(zstd(&tar, 27), &json!({}));
    let served = Served::start(&store, &[]);
    let other = TestStore::in_memory();
    let name = format!("{}/x:1", served.host());
    let fails = |store: &TestStore, args: &[&str], text: &str| {
        let said = store.fails(9, args);
        assert!(said.contains(text), "wanted {text:?}: {said}");
    };
    let document = "more than 100 bytes of a document";
    let low = ["--max-document", "100"];
    fails(&other, &[&low[..], &["pull", &name]].concat(), document);
    fails(&other, &[&low[..], &["inspect", "--remote", &name]].concat(), document);
    let referrers = format!("{}/x@{digest}", served.host());
    let less = "more than 10 bytes of a document";
    fails(&other, &["--max-document", "10", "referrers", &referrers], less);
    // As the environment says, too.
    let mut command = other.command();
    let out = command.env("SHIPIMG_MAX_DOCUMENT", "100").args(["pull", &name]).output().unwrap();
    assert_eq!(out.status.code(), Some(9));
    other.ok(&["pull", &name]);

    let at = |file: &str| store.path().join(file).to_str().unwrap().to_string();
    let (window, raised) = ("bytes of memory for the window", ["--max-zstd-window", "128M"]);
    let inflated = ["--max-zstd-window", "128M", "--max-inflated", "1M"];
    let docker = at("x.docker");
    let export = ["export", "--kind", "docker-archive", "x:1", "-o", &docker];
    let gzip = at("gzip");
    let copy = ["copy", "--compression", "gzip", "x:1", &format!("oci:{gzip}:x")];
    for command in [&export[..], &copy] {
        fails(&store, command, window);
        fails(&store, &[&inflated[..], command].concat(), "more than 1048576 inflated bytes");
        store.ok(&[&raised[..], command].concat());
    }
    fails(&other, &[&low[..], &["import", &docker, "x:2"]].concat(), document);
    fails(&other, &[&low[..], &["copy", &format!("oci:{gzip}:x"), "x:3"]].concat(), document);
    other.ok(&["import", &docker, "x:2"]);

    fs::write(at("wide.tar"), zstd(&tar, 27).bytes).unwrap();
    let wide = at("wide.tar");
    let add = ["layer", "add", "x:1", &wide, "--tag", "x:4"];
    fails(&store, &add, window);
    fails(&store, &[&inflated[..], &add].concat(), "wide.tar: more than 1048576 inflated bytes");
    let entries = ["--max-zstd-window", "128M", "--max-entries", "0"];
    fails(&store, &[&entries[..], &add].concat(), "more than 0 entries");
    store.ok(&[&raised[..], &add].concat());
}

#[test]
fn wrong_limits_are_refused() {
    let store = TestStore::in_memory();
    for (option, value) in [
        ("--max-zstd-window", "17M"),
        ("--max-zstd-window", "4G"),
        ("--max-inflated", "0"),
        ("--max-document", "-1"),
        ("--max-entries", "many"),
    ] {
        store.fails_usage(&[option, value, "images"]);
    }
}
