//! Bundles made from images: what the image says of its process arrives in the container, and
//! a killed launch leaves nothing that the next command does not take away.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::{TestStore, need_root, registry::Registry, unmount};
use std::fs;
use std::time::{Duration, Instant};

/// A store with the image `box:x`: busybox, a user, a volume with a file in it.
fn filled() -> (TestStore, Registry, String) {
    let work = tempfile::tempdir().unwrap();
    let layout = Layout::new(work.path());
    let busybox = fs::read("/bin/busybox").expect("busybox-static; scripts/test installs it");
    let mut tar = Tar::new().dir("bin/").entry(tar::EntryType::Regular, "bin/busybox", 0o755, "", &busybox);
    for applet in ["sh", "id", "cat", "ls", "touch", "env", "pwd", "sleep", "mount"] {
        tar = tar.symlink(&format!("bin/{applet}"), "busybox");
    }
    tar = tar
        .dir("etc/")
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/srv:/bin/sh\n")
        .file("etc/group", b"web:x:1001:\nlog:x:7:web\n")
        .dir("srv/")
        .dir("data/")
        .file("data/first", b"from the image");
    let config = serde_json::json!({
        "User": "web", "Env": ["GREETING=hello"], "WorkingDir": "/srv", "Volumes": {"/data": {}},
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["id; pwd; echo $GREETING; cat /data/first"],
        "Labels": {"purpose": "test"}, "StopSignal": "SIGINT"});
    layout.add("box:x", &[Blob::zstd(&tar.finish())], &config);
    let registry = Registry::start();
    let name = registry.fill(&layout, "box:x");
    let store = TestStore::new();
    store.ok(&["pull", "-q", &name]);
    (store, registry, name)
}

#[test]
fn the_image_says_how_it_runs() {
    need_root();
    let (store, _registry, name) = filled();
    for driver in ["copy", "overlay"] {
        let out = store.ok(&["run", "--driver", driver, &name]);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(
            lines,
            ["uid=1000(web) gid=1001(web) groups=7(log),1001(web)", "/srv", "hello", "from the image"]
        );
    }
    let out = store.ok(&["run", "-e", "GREETING=hi", &name, "--", "sh", "-c", "echo $GREETING $PATH"]);
    assert!(out.starts_with("hi /usr/local/sbin:"), "{out}");
    store.ok(&["bundle", "create", &name, "b", "--driver", "copy", "--read-only", "--hostname", "h"]);
    let path = store.path().join("shipimg/bundles/b/config.json");
    let config: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(config["annotations"]["purpose"], "test");
    assert_eq!(config["annotations"]["org.opencontainers.image.stopSignal"], "SIGINT");
    assert_eq!((&config["root"]["readonly"], &config["hostname"]), (&true.into(), &"h".into()));
    let out = store.output(&["run", "b", "--", "touch", "/srv/x"]);
    assert_ne!(out.status.code(), Some(0), "a read-only root");
    assert_eq!(
        store.output(&["run", "-e", "A=b", "b"]).status.code(),
        Some(125),
        "settings belong to create"
    );
    store.ok(&["bundle", "delete", "b"]);
}

#[test]
fn a_bundle_keeps_what_is_written_and_an_ephemeral_run_does_not() {
    need_root();
    let (store, _registry, name) = filled();
    store.ok(&["bundle", "create", &name, "b", "--driver", "overlay", "--", "sh", "-c", "ls /srv"]);
    // The image's user may not write there; exec'ing as such is another test's matter.
    let config = store.path().join("shipimg/bundles/b/config.json");
    let text = fs::read_to_string(&config).unwrap().replace("\"uid\": 1000", "\"uid\": 0");
    fs::write(&config, text).unwrap();
    store.ok(&["run", "b", "--", "touch", "/srv/kept"]);
    assert_eq!(store.ok(&["run", "b"]), "kept\n");
    store.ok(&["run", "--ephemeral", "b", "--", "sh", "-c", "ls /srv | grep kept && touch /srv/gone"]);
    assert_eq!(store.ok(&["run", "b"]), "kept\n");
    // As after a reboot: the mount is gone, the record is there.
    let rootfs = store.path().join("shipimg/bundles/b/rootfs");
    unmount(&rootfs);
    assert_eq!(store.ok(&["run", "b"]), "kept\n");
    store.ok(&["bundle", "delete", "b"]);
    assert!(!rootfs.exists());
}

#[test]
fn a_killed_run_leaves_nothing_after_the_next_command() {
    need_root();
    let (store, _registry, name) = filled();
    let mut child =
        store.command().args(["run", "--name", "victim", &name, "--", "sleep", "600"]).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    let pid = loop {
        assert!(Instant::now() < end, "the container did not start");
        std::thread::sleep(Duration::from_millis(50));
        let state: serde_json::Value =
            serde_json::from_slice(&store.output(&["state", "victim"]).stdout).unwrap_or_default();
        if state["status"] == "running" {
            break state["pid"].as_i64().unwrap();
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    // The container ends with the command that it belongs to; its parent may not have asked yet.
    let ended = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |s| s.contains(") Z "));
    while !ended() {
        assert!(Instant::now() < end, "the container is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    store.ok(&["list"]);
    for area in ["tmp", "bundles", "containers"] {
        let left: Vec<_> =
            fs::read_dir(store.path().join("shipimg").join(area)).into_iter().flatten().collect();
        assert!(left.is_empty(), "{area}: {left:?}");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&store.path().display().to_string()), "{mounts}");
}
