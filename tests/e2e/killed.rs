//! Commands killed at any point: the next one cleans up after them and works.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::registry::Registry;
use crate::common::{TestStore, bin, need_root, ok, output};
use std::fs;
use std::hash::Hasher;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How often each command is killed: those that build things, and those that move them.
const KILLS: u32 = 10;
const MANY: u32 = 50;

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

/// Lists containers, and does `besides`, until nothing is left of them, for ten seconds at most.
fn settle(store: &TestStore, besides: &dyn Fn()) {
    let end = Instant::now() + Duration::from_secs(10);
    let left =
        |area: &&str| fs::read_dir(store.path().join("shipimg").join(area)).is_ok_and(|d| d.count() > 0);
    loop {
        store.ok(&["list"]);
        besides();
        if !["tmp", "containers", "bundles"].iter().any(left) || Instant::now() > end {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs `args` once to the end for its time, then kills it `kills` times, each at a random point
/// of its part of that time; `again` cleans and works after each.
fn killed(store: &TestStore, kills: u32, args: &[&str], fresh: impl Fn(), again: impl Fn(&str)) {
    let start = || {
        fresh();
        store.command().args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut first = start();
    let begin = Instant::now();
    assert!(first.wait().unwrap().success(), "{args:?}");
    let whole = begin.elapsed();
    again("whole");
    // The same points each time, so that a failure comes again.
    let mut random = std::hash::DefaultHasher::new();
    for i in 0..kills {
        random.write_u32(i);
        let part = u32::try_from(random.finish() % 1000).unwrap();
        let after = whole * i / kills + whole * part / (1000 * kills);
        kill(start(), after);
        again(&format!("{args:?} killed after {after:?} of {whole:?}"));
    }
}

fn remove_files(folder: &Path) {
    for file in fs::read_dir(folder).into_iter().flatten() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
}

/// An image of six small layers, which takes more time in requests than in bytes.
fn many_layers(path: &Path) -> Layout {
    let layout = Layout::new(path);
    let layer = |i: u8| Blob::gzip(&Tar::new().file(&i.to_string(), &vec![i; 20_000]).finish());
    layout.add("img:x", &(0..6).map(layer).collect::<Vec<_>>(), &serde_json::json!({}));
    layout
}

#[test]
fn a_pull() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let registry = Registry::start();
    let name = registry.fill(&many_layers(dir.path()), "img:x");
    let store = TestStore::in_memory();
    let empty = || {
        remove_files(&store.path().join("blobs/sha256"));
        remove_files(&store.path().join("shipimg/ingest"));
        let _ = fs::remove_file(store.path().join("index.json"));
    };
    killed(&store, MANY, &["pull", "-q", &name], empty, |what| {
        assert!(store.output(&["fsck"]).status.success(), "{what}");
        store.ok(&["pull", "-q", &name]);
        nothing_left(&store, &["tmp", "ingest"], what);
        store.ok(&["fsck"]);
        store.ok(&["prune", "--yes"]);
        nothing_left(&store, &["leases"], what);
        store.ok(&["inspect", &name]);
    });
}

#[test]
fn a_push() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    many_layers(&dir.path().join("layout"));
    let registry = Registry::start();
    let store = TestStore::in_memory();
    let layout = format!("oci:{}:img:x", dir.path().join("layout").display());
    store.ok(&["copy", "-q", &layout, "store:localhost/img:x"]);
    let name = format!("{}/pushed:x", registry.host());
    let (source, target) = (format!("docker://{name}"), dir.path().join("copied"));
    let forget = || {
        let _ = fs::remove_dir_all(registry.data().join("docker/registry/v2"));
    };
    killed(&store, MANY, &["push", "-q", "localhost/img:x", &name], forget, |what| {
        store.ok(&["fsck"]);
        store.ok(&["push", "-q", "localhost/img:x", &name]);
        let to = format!("dir:{}", target.display());
        let copied =
            output("skopeo", &["copy", "-q", "--insecure-policy", "--src-tls-verify=false", &source, &to]);
        assert!(copied.status.success(), "{what}: {}", String::from_utf8_lossy(&copied.stderr));
        fs::remove_dir_all(&target).unwrap();
        store.ok(&["prune", "--yes"]);
        nothing_left(&store, &["tmp", "ingest", "leases"], what);
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
        killed(&store, KILLS, &["bundle", "create", source, "b", "--driver", driver], fresh, |what| {
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
        KILLS,
        &args,
        || (),
        |what| {
            // The container ends with the command that it belongs to, some milliseconds later.
            settle(&store, &|| ());
            nothing_left(&store, &["tmp", "containers", "bundles"], what);
            assert_eq!(
                store.ok(&["run", "--name", "victim", &name, "--", "/bin/busybox", "echo", "lives"]),
                "lives\n"
            );
            nothing_left(&store, &["tmp", "containers", "bundles"], what);
        },
    );
}

/// The command only: the keeper that it has begun notices, or has begun the container already.
#[test]
fn a_detached_run() {
    need_root();
    let (_registry, name) = registry();
    let store = TestStore::in_memory();
    store.ok(&["pull", "-q", &name]);
    let args = ["run", "--detach", "--rm", "--name", "victim", &name, "--", "/bin/busybox", "sleep", "1000"];
    let areas = ["tmp", "containers", "bundles"];
    let begun = || {
        let path = store.path().join("shipimg/containers/victim/state.json");
        let state = fs::read(path).ok().and_then(|t| serde_json::from_slice::<serde_json::Value>(&t).ok());
        state.is_some_and(|s| s["keeper"].is_object())
    };
    killed(
        &store,
        KILLS,
        &args,
        || (),
        |what| {
            settle(&store, &|| {
                if begun() {
                    store.ok(&["delete", "--force", "victim"]);
                }
            });
            nothing_left(&store, &areas, what);
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
    killed(&store, MANY, &["prune", "--yes"], fresh, |what| {
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
