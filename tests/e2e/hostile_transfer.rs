//! Layouts that lie, on every way that images take out of them: nothing of them is published.

use crate::common::layout::{Blob, Layout, sha256};
use crate::common::registry::Registry;
use crate::common::{TestStore, describe, output};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How an image is spoilt in its layout.
type Spoil = fn(&Layout);

fn blob(layout: &Layout, digest: &str) -> std::path::PathBuf {
    layout.path().join("blobs/sha256").join(&digest[7..])
}

fn layer() -> Blob {
    Blob::gzip(b"the layer")
}

/// The image `img:x`, whose manifest is changed before it is added.
fn manifest(layout: &Layout, change: impl FnOnce(&mut Value)) {
    let layer = layer();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}});
    let config = layout.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let blob = layout.put(&layer.media_type, &layer.bytes);
    let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [blob]});
    change(&mut manifest);
    layout.name("localhost/img:x", MANIFEST, manifest.to_string().as_bytes());
}

fn write(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

const CASES: [(&str, Spoil, i32, &str); 12] = [
    (
        "a changed layer",
        |l| {
            manifest(l, |_| ());
            let mut bytes = layer().bytes;
            bytes[10] ^= 1;
            write(&blob(l, &layer().digest()), &bytes);
        },
        9,
        "content has digest",
    ),
    (
        "a longer layer",
        |l| {
            manifest(l, |_| ());
            write(&blob(l, &layer().digest()), &[layer().bytes, vec![0]].concat());
        },
        0,
        "",
    ),
    (
        "a missing layer",
        |l| {
            manifest(l, |_| ());
            fs::remove_file(blob(l, &layer().digest())).unwrap();
        },
        0,
        "",
    ),
    (
        "a path for a layer",
        |l| manifest(l, |m| m["layers"][0]["digest"] = json!("sha256:../../x")),
        9,
        "invalid",
    ),
    ("a path for a configuration", |l| manifest(l, |m| m["config"]["digest"] = json!("../x")), 9, "invalid"),
    ("an unknown algorithm", |l| manifest(l, |m| m["config"]["digest"] = json!("md5:00")), 9, "invalid"),
    ("manifest and index", |l| manifest(l, |m| m["manifests"] = json!([])), 9, "at once"),
    ("schema 1", |l| manifest(l, |m| m["schemaVersion"] = json!(1)), 9, "schema 1"),
    (
        "two layers for one diff id",
        |l| manifest(l, |m| m["layers"] = json!([m["layers"][0], m["layers"][0]])),
        9,
        "1 diff ids for 2 layers",
    ),
    (
        "an index of itself",
        |l| {
            let entry = json!({"mediaType": INDEX, "digest": sha256(b"self"), "size": 200});
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
            let digest = l.name("localhost/img:x", INDEX, index.as_bytes());
            fs::copy(blob(l, &digest), blob(l, &sha256(b"self"))).unwrap();
        },
        9,
        "",
    ),
    (
        "a path in an index",
        |l| {
            let entry = json!({"mediaType": MANIFEST, "digest": "sha256:../../x", "size": 2});
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
            l.name("localhost/img:x", INDEX, index.as_bytes());
        },
        9,
        "invalid",
    ),
    (
        "a changed manifest",
        |l| {
            manifest(l, |_| ());
            let index: Value =
                serde_json::from_slice(&fs::read(l.path().join("index.json")).unwrap()).unwrap();
            let path = blob(l, index["manifests"][0]["digest"].as_str().unwrap());
            let text =
                fs::read_to_string(&path).unwrap().replace("\"schemaVersion\":2", "\"schemaVersion\":3");
            write(&path, text.as_bytes());
        },
        9,
        "content has digest",
    ),
];

#[test]
fn layouts_that_lie() {
    let registry = Registry::start();
    for (what, spoil, code, words) in CASES {
        let (dir, store) = (tempfile::tempdir_in("/dev/shm").unwrap(), TestStore::in_memory());
        spoil(&Layout::new(dir.path()));
        // The store itself is such a layout, tampered with.
        store.ok(&["images"]);
        let tampered = TestStore::in_memory();
        tampered.ok(&["images"]);
        spoil(&Layout::new(tampered.path()));
        let remote = format!("{}/lie:x", registry.host());
        let (layout, place) =
            (format!("oci:{}:localhost/img:x", dir.path().display()), format!("docker://{remote}"));
        let folder = dir.path().join("copied");
        let copied = format!("oci:{}:y", folder.display());
        let ways: [(&TestStore, Vec<&str>); 5] = [
            (&store, vec!["import", dir.path().to_str().unwrap(), "localhost/img:x"]),
            (&store, vec!["copy", "-q", &layout, "store:localhost/img:x"]),
            (&store, vec!["copy", "-q", &layout, &place]),
            (&store, vec!["copy", "-q", &layout, &copied]),
            (&tampered, vec!["push", "-q", "localhost/img:x", &remote]),
        ];
        for (at, args) in ways {
            let out = at.output(&args);
            let e = String::from_utf8_lossy(&out.stderr).into_owned();
            let right = if code == 0 {
                matches!(out.status.code(), Some(9 | 10))
            } else {
                out.status.code() == Some(code)
            };
            assert!(right && e.contains(words), "{what}: {}", describe("shipimg", &args, &out));
        }
        assert_eq!(store.ok(&["images"]), "", "{what}");
        store.ok(&["fsck"]);
        let there = output("skopeo", &["inspect", "--raw", "--tls-verify=false", &place]);
        assert!(!there.status.success(), "{what}: the registry has a name for it");
        let named = fs::read_to_string(folder.join("index.json")).unwrap_or_default();
        assert!(!named.contains("\"y\""), "{what}: {named}");
    }
}
