//! Commands killed at any point: the next one cleans up after them and works.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::registry::Registry;
use crate::common::{TestStore, bin, need_root, ok};
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How often each command is killed.
const KILLS: u32 = 10;

/// An image of three layers with some files each, in a registry.
fn registry() -> (Registry, String) {
    let work = tempfile::tempdir().unwrap();
    let busybox = fs::read("/bin/busybox").expect("busybox-static; scripts/test installs it");
    let first = Tar::new().dir("bin/").entry(tar::EntryType::Regular, "bin/busybox", 0o755, "", &busybox);
    let files = |prefix: &str| {
        let tar = (0..300)
            .fold(Tar::new(), |t, i| t.file(&format!("{prefix}{i}"), format!("{i}").repeat(500).as_bytes()));
        Blob::gzip(&tar.finish())
    };
    let layout = Layout::new(work.path());
    let layers = [Blob::gzip(&first.finish()), files("a"), files("b")];
    layout.add("img:x", &layers, &serde_json::json!({"Entrypoint": ["/bin/busybox"]}));
    let registry = Registry::start();
    let name = registry.fill(&layout, "img:x");
    (registry, name)
}

fn kill(mut child: Child, after: Duration) {
    std::thread::sleep(after);
    let _ = child.kill();
    child.wait().unwrap();
}

fn nothing_left(store: &TestStore, areas: &[&str], what: &str) {
    for area in areas {
        let folder = store.path().join("shipimg").join(area);
        let left: Vec<_> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| area != &"layers" || n.starts_with(".shipimg-"))
            .collect();
        assert!(left.is_empty(), "{what}: {area}: {left:?}");
    }
    let path = store.path().to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(path), "{what}: {mounts}");
    let loops = ok("losetup", &["-l", "-n", "-O", "BACK-FILE"]);
    assert!(!loops.contains(path), "{what}: {loops}");
}

/// Runs `args` once to the end for its time, then kills it at points spread over that time;
/// `again` cleans and works after each.
fn killed(store: &TestStore, args: &[&str], fresh: impl Fn(), again: impl Fn(&str)) {
    let start = || {
        fresh();
        store.command().args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let begin = Instant::now();
    assert!(start().wait().unwrap().success(), "{args:?}");
    let whole = begin.elapsed();
    again("whole");
    for i in 0..KILLS {
        let after = whole * i / KILLS;
        kill(start(), after);
        again(&format!("{args:?} killed after {after:?} of {whole:?}"));
    }
}

#[test]
fn a_pull() {
    let (_registry, name) = registry();
    let store = TestStore::in_memory();
    let empty = || {
        for folder in ["blobs/sha256", "shipimg/ingest"] {
            for file in fs::read_dir(store.path().join(folder)).into_iter().flatten() {
                fs::remove_file(file.unwrap().path()).unwrap();
            }
        }
        let _ = fs::remove_file(store.path().join("index.json"));
    };
    killed(&store, &["pull", "-q", &name], empty, |what| {
        store.ok(&["images"]);
        nothing_left(&store, &["tmp"], what);
        store.ok(&["pull", "-q", &name]);
        nothing_left(&store, &["tmp", "ingest"], what);
        store.ok(&["inspect", &name]);
    });
}

#[test]
fn bundle_create() {
    need_root();
    let (_registry, name) = registry();
    let store = TestStore::in_memory();
    store.ok(&["pull", "-q", &name]);
    let image = store.path().join("root.ext4");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "in the image").unwrap();
    ok("mkfs.ext4", &["-q", "-d", folder.path().to_str().unwrap(), image.to_str().unwrap(), "8M"]);
    for (source, driver) in [(name.as_str(), "overlay"), (&name, "copy"), (image.to_str().unwrap(), "image")]
    {
        let fresh = || {
            let _ = shipimg::sys::dir::remove(&store.path().join("shipimg/layers"));
        };
        killed(&store, &["bundle", "create", source, "b", "--driver", driver], fresh, |what| {
            // A bundle that is there is whole.
            if store.ok(&["bundle", "list"]).contains("b ") {
                store.ok(&["bundle", "delete", "b"]);
            }
            nothing_left(&store, &["tmp", "bundles"], what);
            store.ok(&["bundle", "create", source, "b", "--driver", driver]);
            let rootfs = store.path().join("shipimg/bundles/b/rootfs");
            let there = if driver == "image" { "file" } else { "b299" };
            assert!(rootfs.join(there).exists(), "{what}");
            store.ok(&["bundle", "delete", "b"]);
            nothing_left(&store, &["tmp", "bundles", "layers"], what);
        });
    }
}

#[test]
fn a_run() {
    need_root();
    let (_registry, name) = registry();
    let store = TestStore::in_memory();
    store.ok(&["pull", "-q", &name]);
    let args = ["run", "--name", "victim", &name, "--", "/bin/busybox", "sleep", "0.1"];
    killed(
        &store,
        &args,
        || (),
        |what| {
            // The container ends with the command that it belongs to, some milliseconds later.
            let end = Instant::now() + Duration::from_secs(10);
            loop {
                store.ok(&["list"]);
                let left = |area| fs::read_dir(store.path().join("shipimg").join(area)).unwrap().count();
                if left("containers") == 0 && left("tmp") == 0 || Instant::now() > end {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            nothing_left(&store, &["tmp", "containers", "bundles"], what);
            assert_eq!(
                store.ok(&["run", "--name", "victim", &name, "--", "/bin/busybox", "echo", "lives"]),
                "lives\n"
            );
            nothing_left(&store, &["tmp", "containers", "bundles"], what);
        },
    );
}

/// Sixteen at once: each ends well, and the trees are alike.
#[test]
fn many_at_once() {
    need_root();
    let (_registry, name) = registry();
    let (store, out) = (TestStore::in_memory(), tempfile::tempdir_in("/dev/shm").unwrap());
    let together = |args: &dyn Fn(usize) -> Vec<String>| {
        let spawn = |i| {
            let mut command = std::process::Command::new(bin());
            command.arg("--root").arg(store.path()).args(args(i)).stdin(Stdio::null()).stdout(Stdio::null());
            command.spawn().unwrap()
        };
        let children: Vec<Child> = (0..16).map(spawn).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
    };
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    together(&|_| words(&["pull", "-q", &name]));
    together(&|i| words(&["unpack", &name, out.path().join(i.to_string()).to_str().unwrap()]));
    together(&|i| words(&["bundle", "create", &name, &format!("b{i}"), "--driver", "overlay"]));
    together(&|_| words(&["run", &name, "--", "/bin/busybox", "true"]));
    for i in 0..16 {
        assert_eq!(fs::read_dir(out.path().join(format!("{i}/rootfs"))).unwrap().count(), 601);
        store.ok(&["bundle", "delete", &format!("b{i}")]);
    }
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 16);
    nothing_left(&store, &["tmp", "containers", "bundles", "layers"], "all at once");
}

#[test]
fn a_prune() {
    let store = TestStore::in_memory();
    store.ok(&["images"]);
    let layout = Layout::new(store.path());
    for i in 0..60 {
        let layer = |name: String| Blob::tar(&Tar::new().file(&name, name.repeat(100).as_bytes()).finish());
        layout.add(
            &format!("img:{i}"),
            &[layer("base".into()), layer(format!("own{i}"))],
            &serde_json::json!({}),
        );
    }
    let copy = TestStore::in_memory();
    ok("cp", &["-a", store.path().to_str().unwrap(), copy.path().to_str().unwrap()]);
    let kept = copy.path().join(store.path().file_name().unwrap());
    let fresh = || {
        for part in ["index.json", "blobs", "shipimg"] {
            let path = store.path().join(part);
            ok("rm", &["-rf", path.to_str().unwrap()]);
            ok("cp", &["-a", kept.join(part).to_str().unwrap(), path.to_str().unwrap()]);
        }
        store.ok(&["images"]);
        fs::write(store.path().join("shipimg/ingest/sha256-left"), "part").unwrap();
        // Half of the names go first, so that a killed prune leaves the others to be checked.
        let names: Vec<String> = (0..30).map(|i| format!("img:{i}")).collect();
        store.ok(&[vec!["untag".to_string()], names].concat());
    };
    killed(&store, &["prune", "--yes"], fresh, |what| {
        store.ok(&["fsck"]);
        assert_eq!(store.ok(&["images", "-q"]).lines().count(), 30, "{what}");
        store.ok(&["prune", "--yes"]);
        store.ok(&["fsck"]);
        let left = |dir: &str| fs::read_dir(store.path().join(dir)).into_iter().flatten().count();
        assert_eq!(left("blobs/sha256"), 91, "{what}");
        assert_eq!(left("shipimg/leases"), 0, "{what}");
        nothing_left(&store, &["ingest", "tmp"], what);
        assert_eq!(left(""), 4, "{what}: nothing but the layout and shipimg's folder");
    });
}
