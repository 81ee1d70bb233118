//! Images that are fetched and unpacked in one pass.

use crate::common::layout::{Blob, Layout, Tar, sha256};
use crate::common::proxy::{Fault, Proxy, Request};
use crate::common::registry::Registry;
use crate::common::{TestStore, need_root, within};
use crate::unpack::describe;
use serde_json::json;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Bytes that no compressor makes smaller.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&x.to_be_bytes()[..4]);
    }
    bytes
}

/// A registry with the image `img:1` of three layers, the second of which is the largest.
struct Server {
    registry: Registry,
    layers: Vec<Vec<u8>>,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let tar = |n: u64, files: u64| {
            let part = |t: Tar, i| t.file(&format!("dir/{n}-{i}"), &noise(n * 100 + i, 100_000));
            (0..files).fold(Tar::new().dir("dir/").file("first", b"first"), part)
        };
        let big = tar(2, 30).file("dir/.wh.1-3", b"").link("link", "dir/2-4").finish();
        Self::with(&[Blob::gzip(&tar(1, 5).finish()), Blob::gzip(&big), Blob::zstd(&tar(3, 5).finish())], &[])
    }

    /// `diff_ids` are the blobs' own where it is empty.
    fn with(layers: &[Blob], diff_ids: &[&str]) -> Self {
        need_root();
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        if diff_ids.is_empty() {
            layout.add("img:1", layers, &json!({}));
        } else {
            layout.add_as("img:1", layers, &json!({}), diff_ids);
        }
        let registry = Registry::start();
        registry.fill(&layout, "img:1");
        Self { registry, layers: layers.iter().map(|l| l.bytes.clone()).collect(), _dir: dir }
    }

    /// A proxy that does `fault` to requests for the largest layer, by their number.
    fn proxy(&self, fault: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Proxy {
        let digest = sha256(self.largest());
        let is_layer = move |r: &Request| r.path.ends_with(&digest);
        Proxy::start(self.registry.port(), move |r| if is_layer(r) { fault(r) } else { Fault::None })
    }

    fn largest(&self) -> &[u8] {
        self.layers.iter().max_by_key(|l| l.len()).unwrap()
    }

    /// The image of `host` as it is after `pull` and `unpack`.
    fn one_by_one(&self) -> std::collections::BTreeMap<std::ffi::OsString, String> {
        let (store, dir) = (TestStore::new(), Target::new());
        let name = format!("{}/img:1", self.registry.host());
        store.ok(&["pull", "-q", &name]);
        store.ok(&["unpack", &name, dir.str()]);
        describe(&dir.path().join("rootfs"))
    }
}

/// A folder that is not there yet, in one that is watched.
struct Target(tempfile::TempDir);

impl Target {
    fn new() -> Self {
        Self(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("b")
    }

    fn str(&self) -> &'static str {
        Box::leak(self.path().to_str().unwrap().to_string().into_boxed_str())
    }

    fn left(&self) -> Vec<PathBuf> {
        fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().path()).collect()
    }

    /// The unpacked files of one name, wherever they are below.
    fn has(&self, name: &str) -> bool {
        let mut work = self.left();
        while let Some(path) = work.pop() {
            if path.file_name().is_some_and(|n| n == name) {
                return true;
            }
            work.extend(fs::read_dir(&path).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())));
        }
        false
    }
}

fn args<'a>(name: &'a str, dir: &'a str) -> [&'a str; 6] {
    ["unpack", "-q", "--pull", "--stall-timeout=1", name, dir]
}

fn assert_nothing_published(store: &TestStore, dir: &Target, what: &str) {
    assert_eq!(store.ok(&["images"]), "", "{what}");
    assert_eq!(dir.left(), Vec::<PathBuf>::new(), "{what}");
}

fn no_scratch(store: &Path) {
    for area in ["shipimg/tmp", "shipimg/ingest"] {
        assert_eq!(fs::read_dir(store.join(area)).unwrap().count(), 0, "{area}");
    }
}

#[test]
fn one_pass_is_pull_then_unpack() {
    let server = Server::start();
    let want = server.one_by_one();
    let name = format!("{}/img:1", server.registry.host());
    for more in [&[][..], &["--connections-per-blob=4"]] {
        let (store, dir) = (TestStore::new(), Target::new());
        store.ok(&[&args(&name, dir.str())[..], more].concat());
        assert_eq!(describe(&dir.path().join("rootfs")), want);
        assert!(dir.path().join("config.json").exists() && dir.path().join("shipimg.json").exists());
        assert!(store.ok(&["images"]).contains(&name));
        store.ok(&["fsck"]);
        no_scratch(store.path());
        // All is there: the same without the registry.
        fs::remove_dir_all(dir.path()).unwrap();
        store.ok(&["unpack", &name, dir.str()]);
        assert_eq!(describe(&dir.path().join("rootfs")), want);
    }
}

#[test]
fn when_the_registry_is_asked() {
    let server = Server::start();
    let proxy = server.proxy(|_| Fault::None);
    let (store, dir) = (TestStore::new(), Target::new());
    let name = format!("{}/img:1", proxy.host());
    let unpack = |when: &str| {
        let _ = fs::remove_dir_all(dir.path());
        let before = proxy.requests("").len();
        let out = store.output(&["unpack", "-q", when, &name, dir.str()]);
        (out.status.code(), proxy.requests("").len() > before)
    };
    assert_eq!(unpack("--pull=never"), (Some(10), false));
    assert_eq!(unpack("--pull=missing"), (Some(0), true));
    assert_eq!(unpack("--pull=missing"), (Some(0), false));
    assert_eq!(unpack("--pull"), (Some(0), false));
    assert_eq!(unpack("--pull=always"), (Some(0), true));
    assert_eq!(proxy.requests(&sha256(server.largest())).len(), 1);
    store.fails_usage(&["unpack", "--pull=sometimes", &name, dir.str()]);
}

#[test]
fn files_are_written_while_the_layer_comes() {
    let server = Server::start();
    let want = server.one_by_one();
    let proxy = server.proxy(|_| Fault::Slow(150_000));
    let (store, dir) = (TestStore::new(), Target::new());
    let name = format!("{}/img:1", proxy.host());
    let mut child = store.command().args(args(&name, dir.str())).spawn().unwrap();
    let part = store.path().join(format!("shipimg/ingest/sha256-{}", &sha256(server.largest())[7..]));
    within(20, "a file of the layer", || dir.has("2-3"));
    let there = fs::metadata(part).unwrap().len();
    assert!(there < server.largest().len() as u64, "{there}");
    assert!(child.wait().unwrap().success());
    assert_eq!(describe(&dir.path().join("rootfs")), want);
}

#[test]
fn broken_transfers_go_on() {
    let server = Server::start();
    let want = server.one_by_one();
    for (fault, then) in [
        (Fault::Truncate(1_700_000), Fault::None),
        (Fault::Reset(1_700_000), Fault::None),
        (Fault::Stall(1_700_000), Fault::None),
        (Fault::Truncate(1_700_000), Fault::IgnoreRange),
    ] {
        let (store, dir) = (TestStore::new(), Target::new());
        let (first, then) = (fault.clone(), then.clone());
        let proxy = server.proxy(move |r| if r.before == 0 { first.clone() } else { then.clone() });
        store.ok(&args(&format!("{}/img:1", proxy.host()), dir.str()));
        assert_eq!(describe(&dir.path().join("rootfs")), want, "{fault:?}");
    }
}

#[test]
fn what_is_wrong_publishes_nothing() {
    let server = Server::start();
    for (fault, code, says) in [
        // Whoever comes to the wrong byte first says so: the check of the digest, or the unpacking.
        (Fault::Corrupt, 9, "sha256:"),
        (Fault::Truncate(0), 6, "broke off"),
        (Fault::ContentRange("bytes 1-2/3"), 6, ""),
        (crate::common::proxy::status("503 Service Unavailable", &[]), 6, "503"),
    ] {
        let (store, dir) = (TestStore::new(), Target::new());
        let what = format!("{fault:?}");
        let other = fault.clone();
        let proxy = server.proxy(move |r| match (&other, r.before) {
            (Fault::ContentRange(_), 0) => Fault::Truncate(1_700_000),
            _ => other.clone(),
        });
        let name = format!("{}/img:1", proxy.host());
        let e = store.fails(code, &args(&name, dir.str()));
        assert!(e.contains(says), "{what}: {e}");
        assert_nothing_published(&store, &dir, &what);
    }
}

#[test]
fn a_layer_that_is_not_the_configurations_publishes_nothing() {
    let tar = |n| Tar::new().file("a", &noise(n, 1_000_000)).finish();
    let wrong = sha256(b"something else");
    let server = Server::with(&[Blob::gzip(&tar(1)), Blob::gzip(&tar(2))], &[&sha256(&tar(1)), &wrong]);
    let (store, dir) = (TestStore::new(), Target::new());
    let e = store.fails(9, &args(&format!("{}/img:1", server.registry.host()), dir.str()));
    assert!(e.contains(&format!("the configuration says {wrong}")), "{e}");
    assert_nothing_published(&store, &dir, "a wrong diff id");
}

/// A command that has written files of a layer that is stuck in the middle.
fn stuck(server: &Server) -> (TestStore, Target, Proxy, Child) {
    let proxy = server.proxy(|r| if r.before == 0 { Fault::Stall(1_700_000) } else { Fault::None });
    let (store, dir) = (TestStore::new(), Target::new());
    let name = format!("{}/img:1", proxy.host());
    let mut command = store.command();
    command.args(["unpack", "-q", "--pull", &name, dir.str()]).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    within(20, "a file of the layer", || dir.has("2-3"));
    (store, dir, proxy, child)
}

#[test]
fn killed_in_the_middle_it_leaves_nothing_half_made_and_is_gone_on_with() {
    let server = Server::start();
    let want = server.one_by_one();
    let (store, dir, proxy, mut child) = stuck(&server);
    child.kill().unwrap();
    child.wait().unwrap();
    let digest = sha256(server.largest());
    let partial = store.path().join("shipimg/ingest").join(digest.replace(':', "-"));
    let there = fs::metadata(partial).unwrap().len();
    assert_eq!(store.ok(&["images"]), "");
    assert!(!dir.path().exists());
    store.ok(&args(&format!("{}/img:1", proxy.host()), dir.str()));
    assert_eq!(describe(&dir.path().join("rootfs")), want);
    assert_eq!(dir.left(), [dir.path()]);
    no_scratch(store.path());
    assert_eq!(proxy.requests(&digest).last().unwrap().range, Some(format!("bytes={there}-")));
}

#[test]
fn interrupted_it_ends_at_once_and_leaves_no_files() {
    let server = Server::start();
    let (store, dir, _proxy, mut child) = stuck(&server);
    let begin = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_nothing_published(&store, &dir, "interrupted");
}

#[test]
fn a_blob_that_another_process_fetches_is_waited_for() {
    let server = Server::start();
    let want = server.one_by_one();
    let proxy = server.proxy(|_| Fault::Slow(150_000));
    let (store, dir) = (TestStore::new(), Target::new());
    let name = format!("{}/img:1", proxy.host());
    let mut first = store.command().args(["pull", "-q", &name]).stdout(Stdio::null()).spawn().unwrap();
    within(20, "the pull", || !proxy.requests(&sha256(server.largest())).is_empty());
    store.ok(&args(&name, dir.str()));
    assert!(first.wait().unwrap().success());
    assert_eq!(describe(&dir.path().join("rootfs")), want);
    assert_eq!(proxy.requests(&sha256(server.largest())).len(), 1);
}

#[test]
fn bundles_and_runs_fetch_what_they_need() {
    let busybox = fs::read("/bin/busybox").expect("busybox-static; scripts/test installs it");
    let bin = Tar::new().dir("bin/").entry(tar::EntryType::Regular, "bin/busybox", 0o755, "", &busybox);
    let server =
        Server::with(&[Blob::gzip(&bin.finish()), Blob::gzip(&Tar::new().file("a", b"a").finish())], &[]);
    let name = format!("{}/img:1", server.registry.host());
    for driver in ["copy", "overlay"] {
        let store = TestStore::new();
        let create =
            |more: &str| ["bundle", "create", "-q", more, "--driver", driver, &name, "b"].map(str::to_string);
        store.fails(10, &create("--pull=never"));
        store.ok(&create("--pull"));
        assert!(store.path().join("shipimg/bundles/b/rootfs/bin/busybox").exists(), "{driver}");
        store.ok(&["bundle", "delete", "b"]);
        let store = TestStore::new();
        let run =
            ["run", "-q", "--pull=missing", "--driver", driver, &name, "--", "/bin/busybox", "cat", "/a"];
        assert_eq!(store.ok(&run), "a", "{driver}");
        assert!(store.ok(&["images"]).contains(&name), "{driver}");
    }
}
