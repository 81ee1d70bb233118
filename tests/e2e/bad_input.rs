//! What goes wrong is said in one line, with the exit code of its kind, and leaves nothing.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::{TestStore, bin, describe, need_root, ok, output, registry::Registry, unmount};
use std::fs;
use std::path::Path;

const INTERNAL: i32 = 1;
const INPUT: i32 = 2;
const NETWORK: i32 = 6;
const UNSUPPORTED: i32 = 7;
const PRIVILEGE: i32 = 8;
const INTEGRITY: i32 = 9;
const MISSING: i32 = 10;

/// A store with the image `a:x` in it, of one layer with a file of `size` bytes.
fn filled(size: usize) -> (TestStore, Registry, String) {
    let work = tempfile::tempdir().unwrap();
    let layout = Layout::new(work.path());
    // Bytes that do not compress (xorshift).
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let data: Vec<u8> = (0..size).map(|_| next()).collect();
    layout.add(
        "a:x",
        &[Blob::gzip(&Tar::new().file("f", &data).finish())],
        &serde_json::json!({"Cmd": ["/f"]}),
    );
    let registry = Registry::start();
    let name = registry.fill(&layout, "a:x");
    let store = TestStore::new();
    store.ok(&["pull", "-q", &name]);
    (store, registry, name)
}

fn layer_blob(store: &TestStore, name: &str) -> std::path::PathBuf {
    let inspected: serde_json::Value = serde_json::from_str(&store.ok(&["inspect", name])).unwrap();
    let digest = inspected["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    store.path().join("blobs").join(digest)
}

fn nothing_left(store: &TestStore) {
    for area in ["tmp", "bundles", "containers"] {
        let left: Vec<_> =
            fs::read_dir(store.path().join("shipimg").join(area)).into_iter().flatten().collect();
        assert!(left.is_empty(), "{area}: {left:?}");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = store.path().display().to_string();
    assert!(!mounts.lines().any(|l| l.split(' ').nth(4).is_some_and(|p| p.starts_with(&path))), "{mounts}");
}

#[test]
fn unknown_names() {
    need_root();
    let store = TestStore::new();
    let e = store.fails(MISSING, &["unpack", "nosuch", "target-of-nothing"]);
    assert!(e.contains("nosuch") && !Path::new("target-of-nothing").exists(), "{e}");
    store.fails(MISSING, &["bundle", "create", "nosuch", "b"]);
    store.fails(MISSING, &["bundle", "delete", "nosuch"]);
    store.fails(MISSING, &["inspect", "nosuch"]);
    store.fails(MISSING, &["state", "nosuch"]);
    store.fails(INPUT, &["pull", "Alpine"]);
    store.fails(INPUT, &["pull", "alpine@sha256:../../x"]);
    store.fails(MISSING, &["build", "no/such/recipe.toml"]);
    store.fails(INPUT, &["mkimg", "potato.img"]);
    nothing_left(&store);
}

#[test]
fn unreachable_registry() {
    let store = TestStore::new();
    let e = store.fails(NETWORK, &["pull", "-q", "localhost:1/a:x"]);
    assert!(e.contains("localhost:1"), "{e}");
    assert_eq!(store.ok(&["images", "-q"]), "");
}

#[test]
fn damaged_and_truncated_layers() {
    need_root();
    let (store, _registry, name) = filled(300_000);
    let blob = layer_blob(&store, &name);
    let bytes = fs::read(&blob).unwrap();
    let work = tempfile::tempdir().unwrap();
    let target = work.path().join("bundle");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for wrong in [&flipped[..], &bytes[..bytes.len() / 2], b""] {
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, wrong).unwrap();
        store.fails(INTEGRITY, &["unpack", &name, target.to_str().unwrap()]);
        assert!(fs::read_dir(work.path()).unwrap().next().is_none(), "nothing half-made");
        for driver in ["copy", "overlay"] {
            store.fails(INTEGRITY, &["bundle", "create", &name, "b", "--driver", driver]);
        }
        nothing_left(&store);
    }
}

#[test]
fn not_an_image() {
    need_root();
    let store = TestStore::new();
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("notes.img");
    fs::write(&file, "just text").unwrap();
    let e = store.fails(INPUT, &["bundle", "create", file.to_str().unwrap(), "b"]);
    assert!(e.contains("notes.img is not a filesystem image"), "{e}");
    let loops = ok("losetup", &["-l", "-n", "-O", "BACK-FILE"]);
    assert!(!loops.contains(file.to_str().unwrap()), "{loops}");
    nothing_left(&store);
}

#[test]
fn a_bundle_that_exists_and_names_that_cannot_be() {
    need_root();
    let (store, _registry, name) = filled(10);
    store.ok(&["bundle", "create", &name, "b", "--driver", "copy"]);
    let e = store.fails(INPUT, &["bundle", "create", &name, "b", "--driver", "copy"]);
    assert!(e.contains("bundle b already exists"), "{e}");
    for bad in ["../b", "", ".hidden", "a/b", &"x".repeat(200)] {
        store.fails(INPUT, &["bundle", "create", &name, bad, "--driver", "copy"]);
    }
    store.fails(INPUT, &["bundle", "create", &name, "c", "--driver", "zfs"]);
    store.fails(INPUT, &["bundle", "create", &name, "c", "--net", "ns:../x"]);
    store.fails(MISSING, &["bundle", "create", &name, "c", "--net", "ns:no-such-namespace"]);
    store.fails(INPUT, &["bundle", "create", &name, "c", "--cap-add", "FLY"]);
    assert!(store.ok(&["bundle", "list"]).contains("b "), "the first is still there");
    store.ok(&["bundle", "delete", "b"]);
    nothing_left(&store);
}

#[test]
fn missing_kernel_feature() {
    need_root();
    let (store, _registry, name) = filled(10);
    // On a btrfs the driver would work: this store lies on a tmpfs, where it cannot.
    let tmpfs = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = tmpfs.path().display().to_string();
    ok("cp", &["-r", &format!("{}/.", store.path().display()), &root]);
    let args = ["--root", &root, "bundle", "create", &name, "b", "--driver", "btrfs"];
    let out = output(bin(), &args);
    assert_eq!(out.status.code(), Some(UNSUPPORTED), "{}", describe("shipimg", &args, &out));
}

#[test]
fn full_disk() {
    need_root();
    let (_store, _registry, name) = filled(6 << 20);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    ok("mount", &["-t", "tmpfs", "-o", "size=3m", "tmpfs", &path]);
    let args = ["--root", &path, "pull", "-q", &name];
    let out = output(bin(), &args);
    let images = output(bin(), &["--root", &path, "images", "-q"]);
    unmount(&path);
    assert_eq!(out.status.code(), Some(INTERNAL), "{}", describe("shipimg", &args, &out));
    assert!(String::from_utf8_lossy(&out.stderr).contains("No space left on device"));
    assert!(images.status.success() && images.stdout.is_empty());
}

#[test]
fn full_disk_while_unpacking() {
    need_root();
    let (store, _registry, name) = filled(6 << 20);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    ok("mount", &["-t", "tmpfs", "-o", "size=3m", "tmpfs", &path]);
    let target = format!("{path}/bundle");
    let out = store.output(&["unpack", &name, &target]);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.path()).collect();
    unmount(&path);
    assert_eq!(out.status.code(), Some(INTERNAL), "{}", describe("shipimg", &["unpack"], &out));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn without_root() {
    need_root();
    let (store, _registry, name) = filled(10);
    let work = tempfile::tempdir().unwrap();
    // A copy of the binary and the store that an ordinary user may read.
    fs::copy(bin(), work.path().join("shipimg")).unwrap();
    ok("cp", &["-r", store.path().to_str().unwrap(), work.path().join("store").to_str().unwrap()]);
    ok("chown", &["-R", "65534:65534", work.path().to_str().unwrap()]);
    let (binary, root) = (work.path().join("shipimg"), work.path().join("store"));
    let target = work.path().join("bundle");
    let image = work.path().join("bookworm.img");
    for args in [
        &["unpack", &name, target.to_str().unwrap()][..],
        &["bundle", "create", &name, "b"],
        &["mkimg", image.to_str().unwrap()],
    ] {
        let mut all = vec![
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            binary.to_str().unwrap(),
            "--root",
            root.to_str().unwrap(),
        ];
        all.extend(args);
        let out = output("setpriv", &all);
        assert_eq!(out.status.code(), Some(PRIVILEGE), "{}", describe("setpriv", &all, &out));
        assert!(!target.exists() && !image.exists());
    }
    let mut run = vec!["--reuid=65534", "--regid=65534", "--clear-groups", binary.to_str().unwrap()];
    run.extend(["--root", root.to_str().unwrap(), "run", &name]);
    let out = output("setpriv", &run);
    assert_eq!(out.status.code(), Some(125), "{}", describe("setpriv", &run, &out));
}
