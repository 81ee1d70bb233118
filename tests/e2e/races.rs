//! `prune` and `rmi` in a loop beside what uses the store: nothing in use goes.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::proxy::{Fault, Proxy};
use crate::common::registry::Registry;
use crate::common::{TestStore, need_root};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Fills a layout with an image of two layers; gives their digests.
fn fill(path: &Path) -> [String; 2] {
    let busybox = fs::read("/bin/busybox").expect("busybox-static; scripts/test installs it");
    let first = Tar::new().dir("bin/").entry(tar::EntryType::Regular, "bin/busybox", 0o755, "", &busybox);
    let files = (0..300).fold(Tar::new(), |t, i| t.file(&format!("f{i}"), &[7; 3000]));
    let layers = [Blob::gzip(&first.finish()), Blob::gzip(&files.finish())];
    Layout::new(path).add("img:x", &layers, &serde_json::json!({}));
    layers.map(|l| l.digest())
}

/// Runs `work` while `other` runs again and again.
fn beside(store: &TestStore, other: &[&str], work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let work = scope.spawn(work);
        while !work.is_finished() {
            // Long enough for work to begin, short enough to come in its middle.
            std::thread::sleep(Duration::from_millis(40));
            let out = store.output(other);
            // A name that is in use stays, or is gone already.
            assert!(
                matches!(out.status.code(), Some(0 | 2 | 10)),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
        }
        work.join().unwrap();
    });
    store.ok(&["fsck"]);
}

#[test]
fn sixteen_pulls_and_a_prune() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let layers = fill(dir.path());
    let registry = Registry::start();
    registry.fill(&Layout::at(dir.path()), "img:x");
    let proxy = Proxy::start(registry.port(), |_| Fault::None);
    let store = TestStore::in_memory();
    let name = format!("{}/img:x", proxy.host());
    beside(&store, &["prune", "--yes"], || {
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| store.ok(&["pull", "-q", &name]));
            }
        });
    });
    // Documents are read by each until they are there; the layers came once, and stayed.
    for layer in layers {
        assert_eq!(proxy.requests(&layer).len(), 1);
    }
    store.ok(&["unpack", &name, dir.path().join("out").to_str().unwrap()]);
}

#[test]
fn what_is_in_use_stays() {
    need_root();
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    fill(dir.path());
    let store = TestStore::in_memory();
    let source = format!("oci:{}:img:x", dir.path().display());
    let out = dir.path().join("out");
    let target = out.to_str().unwrap();
    let commands: [&[&str]; 3] = [
        &["unpack", "localhost/img:x", target],
        &["bundle", "create", "localhost/img:x", "b", "--driver", "overlay"],
        &[
            "run",
            "localhost/img:x",
            "--",
            "/bin/busybox",
            "sh",
            "-c",
            "sleep 0.3; exec busybox test -s /f299",
        ],
    ];
    let others: [&[&str]; 2] = [&["prune", "--yes", "--all"], &["rmi", "--force", "localhost/img:x"]];
    for (other, command) in others.iter().flat_map(|o| commands.iter().map(move |c| (o, c))) {
        beside(&store, other, || {
            let mut done = 0;
            for _ in 0..30 {
                store.ok(&["copy", "-q", &source, "store:localhost/img:x"]);
                let ran = store.output(command);
                let e = String::from_utf8_lossy(&ran.stderr);
                // It may go before it is asked for, not under the command's hands.
                let gone = e.contains("no image") || e.contains("no blob");
                assert!(ran.status.success() || gone, "{other:?} {command:?}: {e}");
                if ran.status.success() {
                    done += 1;
                    if command[0] == "bundle" {
                        assert!(store.path().join("shipimg/bundles/b/rootfs/f299").exists());
                        store.ok(&["bundle", "delete", "b"]);
                    }
                }
                let _ = fs::remove_dir_all(&out);
                if done == 3 {
                    break;
                }
            }
            assert!(done > 0, "{other:?} {command:?}: never in time");
        });
    }
}
