//! Images whose configuration or user files are hostile, made into bundles and run: an error
//! that names what is wrong, or the harmless meaning; nothing of the host is read.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::{TestStore, describe, need_root};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tar::EntryType as T;

/// A store with the image `img:x`.
fn store(layer: Tar, config: &Value) -> TestStore {
    need_root();
    let store = TestStore::new();
    Layout::new(store.path()).add("img:x", &[Blob::gzip(&layer.finish())], config);
    store
}

fn busybox() -> Tar {
    let busybox = fs::read("/bin/busybox").expect("busybox-static; scripts/test installs it");
    Tar::new().dir("bin/").entry(T::Regular, "bin/busybox", 0o755, "", &busybox)
}

fn target(store: &TestStore) -> PathBuf {
    store.path().with_extension("unpacked")
}

/// `unpack`, `bundle create` by two drivers and `run` fail with these words and leave nothing.
fn refused(store: &TestStore, words: &[&str]) {
    let target = target(store);
    let create = |driver| vec!["bundle", "create", "img:x", "b", "--driver", driver];
    for (code, args) in [
        (9, vec!["unpack", "img:x", target.to_str().unwrap()]),
        (9, create("copy")),
        (9, create("overlay")),
        (125, vec!["run", "img:x"]),
    ] {
        let e = store.fails(code, &args);
        assert!(words.iter().all(|w| e.contains(w)), "{words:?}: {e}");
        assert!(e.lines().all(|l| l.len() < 1000), "a line of {} bytes", e.len());
        assert!(!target.exists());
        for area in ["tmp", "bundles", "containers"] {
            let left = fs::read_dir(store.path().join("shipimg").join(area));
            assert_eq!(left.into_iter().flatten().count(), 0, "{area} after {args:?}");
        }
    }
}

#[test]
fn users_and_paths() {
    for (config, words) in [
        (json!({"User": "0\n0:0"}), ["user \"0\\n0:0\"", "wanted USER[:GROUP]"]),
        (json!({"User": "0:0:0"}), ["user \"0:0:0\"", "wanted USER[:GROUP]"]),
        (json!({"User": "4294967295"}), ["user \"4294967295\"", "no such user"]),
        (json!({"User": "-1"}), ["user \"-1\"", "no such user"]),
        (json!({"User": "x".repeat(1 << 20)}), ["user \"xxx", "no such user"]),
        (json!({"Volumes": {"/../..": {}}}), ["Volumes \"/../..\"", "without .."]),
        (json!({"Volumes": {"relative": {}}}), ["Volumes \"relative\"", "absolute path"]),
        (json!({"WorkingDir": "/a/../../.."}), ["WorkingDir", "without .."]),
    ] {
        refused(&store(busybox(), &config), &words);
    }
}

#[test]
fn layers_and_diff_ids_that_do_not_fit() {
    let blob = || Blob::gzip(&busybox().finish());
    let id = blob().diff_id;
    for (layers, ids) in [(1, vec![]), (1, vec![id.as_str(), &id]), (2, vec![id.as_str()])] {
        let store = store(Tar::new(), &json!({}));
        let blobs: Vec<Blob> = (0..layers).map(|_| blob()).collect();
        Layout::new(store.path()).add_as("img:x", &blobs, &json!({}), &ids);
        refused(&store, &[&format!("{} diff ids for {layers} layers", ids.len())]);
    }
}

#[test]
fn environments_too_large() {
    // Beyond what a document may have.
    let env = |bytes: usize| json!({"Env": [format!("LARGE={}", "x".repeat(bytes))]});
    refused(&store(busybox(), &env(10 << 20)), &["the limit is 4194304"]);
    // A document may hold it, an execve(2) may not.
    let store = store(busybox(), &env(3 << 20));
    let out = store.output(&["run", "img:x", "--", "/bin/busybox", "true"]);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(matches!(out.status.code(), Some(125 | 126)), "{}", describe("shipimg", &["run"], &out));
    assert!(stderr.contains("Argument list too long") && stderr.len() < 2000, "{}", stderr.len());
}

/// CVE-2024-9676: what stands for the user file is neither waited for, read without end, nor
/// looked for on the host.
#[test]
fn user_files_that_are_none() {
    let hosts = tempfile::tempdir().unwrap();
    let hosts_file = hosts.path().join("passwd");
    fs::write(&hosts_file, "web:x:1234:1234::/:/bin/sh\n").unwrap();
    let outside = format!("../../../../../../../../..{}", hosts_file.display());
    let zero = {
        let mut h = tar::Header::new_gnu();
        h.set_entry_type(T::Char);
        h.set_path("etc/passwd").unwrap();
        h.set_mode(0o644);
        h.set_size(0);
        h.set_device_major(1).unwrap();
        h.set_device_minor(5).unwrap();
        h.set_cksum();
        let mut tar = busybox().dir("etc/").finish();
        tar.truncate(tar.len() - 1024);
        tar.extend_from_slice(h.as_bytes());
        tar
    };
    let sparse = |size: &[u8], map: &[u8]| {
        let mut data = b"web:x:33:33::/:/bin/sh\n".to_vec();
        data.resize(512, b'\n');
        busybox()
            .dir("etc/")
            .pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)])
            .file("etc/passwd", &data)
            .finish()
    };
    let etc = || busybox().dir("etc/");
    let user = json!({"User": "web"});
    let of = |tar: Vec<u8>| {
        need_root();
        let store = TestStore::new();
        Layout::new(store.path()).add("img:x", &[Blob::gzip(&tar)], &user);
        store
    };
    for tar in [
        etc().entry(T::Fifo, "etc/passwd", 0o644, "", b"").finish(),
        zero,
        etc().symlink("etc/passwd", &outside).finish(),
        etc().symlink("etc/passwd", hosts_file.to_str().unwrap()).finish(),
        etc().symlink("etc/passwd", "passwd").finish(),
        etc().symlink("etc/passwd", "/proc/self/environ").finish(),
        busybox().symlink("etc", hosts.path().to_str().unwrap()).finish(),
        etc().dir("etc/passwd").finish(),
        // The user stands at the far end of a gigabyte.
        sparse(b"1073741824", b"1073741312,512"),
    ] {
        let begin = Instant::now();
        refused(&of(tar), &["user \"web\": no such user in the image's /etc/passwd"]);
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
    let store = of(sparse(b"1073741824", b"0,512"));
    let id = store.ok(&["run", "img:x", "--", "/bin/busybox", "id", "-u"]);
    assert_eq!(id.trim(), "33", "the begin of a large file is read");
}
