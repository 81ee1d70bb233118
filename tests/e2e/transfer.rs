//! Copies between registries, archives, folders and the store; digests stay.

use crate::common::layout::{Blob, Layout, Tar, sha256};
use crate::common::proxy::{Fault, Proxy};
use crate::common::registry::Registry;
use crate::common::{TestStore, ok};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn layer(name: &str) -> Vec<u8> {
    Tar::new().file(name, name.repeat(1000).as_bytes()).finish()
}

fn image(layout: &Layout, name: &str) -> String {
    layout.add(name, &[Blob::gzip(&layer("one")), Blob::gzip(&layer("two"))], &json!({"Cmd": ["true"]}))
}

/// An index of images for amd64 and arm64; gives its digest.
fn index(layout: &Layout, name: &str) -> String {
    let members: Vec<Value> = ["amd64", "arm64"]
        .iter()
        .map(|arch| {
            let blob = Blob::gzip(&layer(arch));
            let config = json!({"architecture": arch, "os": "linux", "config": {},
                "rootfs": {"type": "layers", "diff_ids": [blob.diff_id]}});
            let config =
                layout.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
            let blob = layout.put(&blob.media_type, &blob.bytes);
            let manifest =
                json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [blob]});
            let mut member = layout.put(MANIFEST, manifest.to_string().as_bytes());
            member["platform"] = json!({"os": "linux", "architecture": arch});
            member
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": members});
    layout.name(name, INDEX, index.to_string().as_bytes())
}

/// An artifact as ORAS makes them; gives its digest.
fn artifact(layout: &Layout, name: &str) -> String {
    let empty = layout.put("application/vnd.oci.empty.v1+json", b"{}");
    let mut file = layout.put("text/plain", b"some text");
    file["annotations"] = json!({"org.opencontainers.image.title": "some.txt"});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [file],
        "artifactType": "application/vnd.example.notes"});
    layout.name(name, MANIFEST, manifest.to_string().as_bytes())
}

fn oci(path: &Path, name: &str) -> String {
    format!("oci:{}:{name}", path.display())
}

fn raw_digest(reference: &str) -> String {
    sha256(
        ok("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")])
            .as_bytes(),
    )
}

#[test]
fn digests_stay_through_every_kind_of_place() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(&dir.path().join("layout"));
    let store = TestStore::new();
    let registry = Registry::start();
    for (name, digest, all) in [
        ("image", image(&layout, "image"), false),
        ("index", index(&layout, "index"), true),
        ("artifact", artifact(&layout, "artifact"), false),
    ] {
        let host = registry.host();
        let places = [
            oci(layout.path(), name),
            format!("docker://{host}/a/{name}:1"),
            format!("store:localhost/{name}:2"),
            format!("docker://{host}/b/{name}:1"),
            format!("oci-archive:{}/{name}.tar:x", dir.path().display()),
            oci(&dir.path().join("other"), name),
            format!("dir:{}/{name}", dir.path().display()),
            format!("docker://{host}/c/{name}:1"),
        ];
        for pair in places.windows(2) {
            let mut args = vec!["copy", "-q", &pair[0], &pair[1]];
            if all {
                args.push("--all-platforms");
            }
            let shown = pair[1].strip_prefix("store:").unwrap_or(&pair[1]);
            assert_eq!(store.ok(&args), format!("{shown} {digest}\n"), "{args:?}");
        }
        assert_eq!(raw_digest(&format!("{host}/c/{name}:1")), digest, "{name}");
        let again = store.ok(&["copy", "-q", "--format", "json", &places[6], &places[7], "--all-platforms"]);
        assert_eq!(json_of(&again)["transferred"], json!(0), "{name}: {again}");
    }
}

#[test]
fn one_platform_or_all_of_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let digest = index(&layout, "multi");
    let registry = Registry::start();
    let reference = format!("{}/multi:1", registry.host());
    let store = TestStore::new();
    store.ok(&["copy", "-q", "--all-platforms", &oci(dir.path(), "multi"), &format!("docker://{reference}")]);

    let one = TestStore::new();
    one.ok(&["pull", "-q", "--platform", "linux/arm64", &reference]);
    assert_eq!(json_of(&one.ok(&["inspect", &reference]))["platform"], json!("linux/arm64"));
    let e = one.fails(10, &["pull", "-q", "--platform", "linux/s390x", &reference]);
    assert!(e.contains("only for linux/amd64, linux/arm64"), "{e}");

    let all = TestStore::new();
    assert_eq!(all.ok(&["pull", "-q", "--all-platforms", &reference]), format!("{reference} {digest}\n"));
    let pushed = format!("{}/again:1", registry.host());
    assert_eq!(all.ok(&["push", "-q", &reference, &pushed]), format!("{pushed} {digest}\n"));
    assert_eq!(raw_digest(&pushed), digest);
    // One platform of it.
    let single = format!("{}/single:1", registry.host());
    all.ok(&["push", "-q", "--platform", "linux/arm64", &reference, &single]);
    let seen = ok("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{single}")]);
    assert_eq!(json_of(&seen)["Architecture"], json!("arm64"));
}

/// A tar of one file.
fn files(dir: &Path) -> String {
    let path = dir.join("files.tar");
    fs::write(&path, Tar::new().file("file", b"words").finish()).unwrap();
    path.display().to_string()
}

#[test]
fn indexes_are_made_and_changed() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    index(&layout, "multi");
    let amd64 = image(&layout, "image");
    let store = TestStore::new();
    let (from, to) = (oci(dir.path(), "multi"), "localhost/arm:1");
    store.ok(&["copy", "-q", "--platform", "linux/arm64", &from, to]);
    store.ok(&["copy", "-q", &oci(dir.path(), "image"), "localhost/amd:1"]);
    let platforms = || -> Vec<String> {
        let raw = json_of(&store.ok(&["inspect", "--raw", "localhost/both:1"]));
        let list = raw["manifests"].as_array().unwrap();
        list.iter().map(|m| m["platform"]["architecture"].as_str().unwrap().to_string()).collect()
    };
    store.ok(&["index", "create", "localhost/both:1", "arm:1"]);
    assert_eq!(platforms(), ["arm64"]);
    store.ok(&["index", "add", "both:1", "amd:1"]);
    store.ok(&["index", "add", "both:1", "amd:1"]);
    assert_eq!(platforms(), ["arm64", "amd64"]);
    // arm64/v8 is arm64.
    store.ok(&["import", "-q", "--platform", "linux/arm64/v8", &files(dir.path()), "localhost/v8:1"]);
    store.ok(&["index", "add", "both:1", "v8:1"]);
    assert_eq!(platforms(), ["amd64", "arm64"]);
    store.ok(&["index", "remove", "both:1", "linux/arm64"]);
    assert_eq!(platforms(), ["amd64"]);
    store.fails(10, &["index", "remove", "both:1", "linux/arm64"]);
    store.ok(&["index", "remove", "both:1", &amd64]);
    assert_eq!(platforms(), [""; 0]);
    let e = store.fails(2, &["index", "add", "amd:1", "arm:1"]);
    assert!(e.contains("not an index"), "{e}");

    store.ok(&["index", "create", "localhost/both:1", "arm:1", "amd:1"]);
    let registry = Registry::start();
    let reference = format!("{}/both:1", registry.host());
    store.ok(&["push", "-q", "both:1", &reference]);
    let copied = dir.path().join("copied");
    ok(
        "skopeo",
        &[
            "copy",
            "-q",
            "--all",
            "--insecure-policy",
            "--src-tls-verify=false",
            &format!("docker://{reference}"),
            &oci(&copied, "both"),
        ],
    );
}

#[test]
fn layers_change_their_compression() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(&dir.path().join("layout"));
    image(&layout, "image");
    let registry = Registry::start();
    let store = TestStore::new();
    let reference = format!("{}/zstd:1", registry.host());
    let copy = |args: &[&str]| {
        let to = format!("docker://{reference}");
        store.ok(&[&["copy", "-q", &oci(layout.path(), "image"), &to], args].concat())
    };
    let first = copy(&["--compression", "zstd:5"]);
    assert_eq!(first, copy(&["--compression", "zstd:5"]), "the same bytes each time");
    let manifest =
        json_of(&ok("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]));
    for layer in manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], json!("application/vnd.oci.image.layer.v1.tar+zstd"));
    }
    store.ok(&["pull", "-q", &reference]);
    let target = dir.path().join("out");
    store.ok(&["unpack", &reference, target.to_str().unwrap()]);
    assert_eq!(fs::read(target.join("rootfs/two")).unwrap(), "two".repeat(1000).as_bytes());
    // And back, on a push.
    let gzip = format!("{}/gzip:1", registry.host());
    store.ok(&["push", "-q", "--compression", "gzip", &reference, &gzip]);
    let raw = ok("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{gzip}")]);
    assert!(json_of(&raw)["layers"][0]["mediaType"].as_str().unwrap().ends_with("gzip"), "{raw}");
    store.fails(2, &["push", "--compression", "xz", &reference, &gzip]);
    // Nothing of the work is left.
    assert_eq!(fs::read_dir(store.path().join("shipimg/tmp")).unwrap().count(), 0);
}

#[test]
fn blobs_of_the_same_registry_are_mounted_not_uploaded() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    image(&layout, "image");
    let registry = Registry::start();
    let proxy = Proxy::start(registry.port(), |_| Fault::None);
    let store = TestStore::new();
    let [a, b, c] = ["a", "b", "c"].map(|r| format!("{}/{r}:1", proxy.host()));
    store.ok(&["copy", "-q", &oci(dir.path(), "image"), &format!("docker://{a}")]);
    store.ok(&["pull", "-q", &a]);
    let uploads = |repository: &str| {
        let of = |r: &&crate::common::proxy::Request| {
            r.method != "GET" && r.path.starts_with(&format!("/v2/{repository}/blobs/uploads"))
        };
        proxy.requests("").iter().filter(of).map(|r| (r.method.clone(), r.path.clone())).collect::<Vec<_>>()
    };
    for (repository, pushed) in [
        ("b", store.ok(&["push", "-q", &a, &b])),
        ("c", store.ok(&["copy", "-q", &format!("docker://{a}"), &format!("docker://{c}")])),
    ] {
        assert!(!pushed.is_empty());
        let sent = uploads(repository);
        assert!(
            !sent.is_empty() && sent.iter().all(|(m, p)| m == "POST" && p.contains("mount=")),
            "{sent:?}"
        );
    }
}

#[test]
fn the_digest_goes_into_a_file_and_a_wrong_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(&dir.path().join("layout"));
    let digest = image(&layout, "image");
    let registry = Registry::start();
    let (store, file) = (TestStore::new(), dir.path().join("digest"));
    let from = oci(layout.path(), "image");
    let to = format!("docker://{}/x@{digest}", registry.host());
    store.ok(&["copy", "-q", "--digestfile", file.to_str().unwrap(), &from, &to]);
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), digest);
    let other = format!("docker://{}/x:1@{}", registry.host(), sha256(b"other"));
    let e = store.fails(2, &["copy", "-q", &from, &other]);
    assert!(e.contains(&digest), "{e}");
}

#[test]
fn foreign_layers_come_from_their_urls_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let blob = Blob::gzip(&layer("far"));
    // The registry of the layer's URL is another one.
    let elsewhere = Registry::start();
    layout.add("far", &[Blob { bytes: blob.bytes.clone(), ..Blob::gzip(&layer("far")) }], &json!({}));
    let store = TestStore::new();
    store.ok(&["copy", "-q", &oci(dir.path(), "far"), &format!("docker://{}/far:1", elsewhere.host())]);
    let digest = sha256(&blob.bytes);
    let url = format!("http://{}/v2/far/blobs/{digest}", elsewhere.host());

    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [blob.diff_id]}});
    let config = layout.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let foreign = json!({"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": digest, "size": blob.bytes.len(), "urls": [url]});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [foreign]});
    layout.name("near", MANIFEST, manifest.to_string().as_bytes());
    fs::remove_file(dir.path().join("blobs/sha256").join(&digest[7..])).unwrap();

    let e = store.fails(7, &["copy", "-q", &oci(dir.path(), "near"), "localhost/near:1"]);
    assert!(e.contains("lies outside the registry"), "{e}");
    store.ok(&["copy", "-q", "--allow-foreign-layers", &oci(dir.path(), "near"), "localhost/near:1"]);
    let target = dir.path().join("out");
    store.ok(&["unpack", "near:1", target.to_str().unwrap()]);
    assert!(target.join("rootfs/far").exists());
}

#[test]
fn progress_as_json_lines() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    image(&layout, "image");
    let store = TestStore::new();
    let args = ["copy", "--progress", "json", "--format", "json", &oci(dir.path(), "image"), "localhost/x:1"];
    let out = store.output(&args);
    let result = json_of(std::str::from_utf8(&out.stdout).unwrap());
    assert_eq!((&result["name"], &result["blobs"]), (&json!("localhost/x:1"), &json!(3)));
    let lines: Vec<Value> = String::from_utf8(out.stderr).unwrap().lines().map(json_of).collect();
    assert_eq!(lines[0]["status"], json!("plan"));
    let done: Vec<_> = lines.iter().filter(|l| l["status"] == json!("done")).collect();
    assert_eq!(done.len(), 3);
    let sum: u64 = done.iter().map(|l| l["size"].as_u64().unwrap()).sum();
    assert_eq!(json!(sum), lines[0]["size"]);
}

#[test]
fn an_image_that_is_there_takes_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    image(&layout, "image:1");
    let registry = Registry::start();
    registry.fill(&layout, "image:1");
    let proxy = Proxy::start(registry.port(), |_| Fault::None);
    let (store, reference) = (TestStore::new(), format!("{}/image:1", proxy.host()));
    store.ok(&["pull", "-q", &reference]);
    let before = proxy.requests("").len();
    store.ok(&["pull", "-q", &reference]);
    let paths: Vec<_> = proxy.requests("")[before..].iter().map(|r| r.path.clone()).collect();
    assert_eq!(paths, ["/v2/image/manifests/1"]);
}

#[test]
fn a_large_blob_over_several_connections() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let layout = Layout::new(dir.path());
    let noise: Vec<u8> =
        (0..5_000_000_u64).flat_map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    layout.add("large:1", &[Blob::tar(&Tar::new().file("noise", &noise).finish())], &json!({}));
    let registry = Registry::start();
    let fill = TestStore::in_memory();
    fill.ok(&["copy", "-q", &oci(dir.path(), "large:1"), &format!("docker://{}/large:1", registry.host())]);
    for (fault, ranges) in [(Fault::None, 19), (Fault::Truncate(1_000_000), 19), (Fault::IgnoreRange, 4)] {
        let deciding = fault.clone();
        // Each first request for a range fails; a server that knows no ranges never does.
        let proxy = Proxy::start(registry.port(), move |r| match &deciding {
            Fault::Truncate(_) if r.range.as_deref() != Some("bytes=4194304-6291455") || r.before > 4 => {
                Fault::None
            }
            fault if r.range.is_some() => fault.clone(),
            _ => Fault::None,
        });
        let store = TestStore::in_memory();
        let reference = format!("{}/large:1", proxy.host());
        store.ok(&["pull", "-q", "--connections-per-blob", "4", &reference]);
        store.ok(&["fsck"]);
        let asked = proxy.requests("").iter().filter(|r| r.range.is_some()).count();
        assert!(asked >= ranges && asked <= ranges + 6, "{fault:?}: {asked}");
    }
}

#[test]
fn a_damaged_document_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let digest = image(&layout, "image:1");
    let registry = Registry::start();
    let reference = registry.fill(&layout, "image:1");
    let store = TestStore::new();
    store.ok(&["pull", "-q", &reference]);
    let raw = json_of(&store.ok(&["inspect", "--raw", &reference]));
    let config = raw["config"]["digest"].as_str().unwrap().to_string();
    let path = store.path().join("blobs/sha256").join(&config[7..]);
    let size = fs::metadata(&path).unwrap().len();
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![b' '; usize::try_from(size).unwrap()]).unwrap();
    store.fails(9, &["fsck"]);
    assert_eq!(store.ok(&["pull", "-q", &reference]), format!("{reference} {digest}\n"));
    store.ok(&["fsck"]);
}
