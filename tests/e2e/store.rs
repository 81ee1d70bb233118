//! The store as a folder that other tools read, and the commands that keep it.

use crate::common::layout::{Blob, Layout, Tar, sha256};
use crate::common::registry::Registry;
use crate::common::{TestStore, collect, need_root, ok, output};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn a_new_store_is_an_empty_layout() {
    let store = TestStore::new();
    assert_eq!(store.ok(&["images"]), "");
    assert_eq!(
        std::fs::read_to_string(store.path().join("oci-layout")).unwrap(),
        r#"{"imageLayoutVersion":"1.0.0"}"#
    );
}

fn layer(name: &str) -> Blob {
    Blob::gzip(&Tar::new().file(name, name.repeat(50_000).as_bytes()).finish())
}

fn json_of(store: &TestStore, args: &[&str]) -> Value {
    serde_json::from_str(&store.ok(args)).unwrap()
}

fn blobs(store: &TestStore) -> BTreeSet<String> {
    let names = fs::read_dir(store.path().join("blobs/sha256")).unwrap();
    names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// A store with the images one:1 and two:1, which share a layer.
fn two_images() -> (TestStore, Layout, [String; 2]) {
    let store = TestStore::new();
    store.ok(&["images"]);
    let layout = Layout::new(store.path());
    let digests =
        ["one", "two"].map(|n| layout.add(&format!("{n}:1"), &[layer("base"), layer(n)], &json!({"Tag": n})));
    (store, layout, digests)
}

#[test]
fn images_tell_sizes_and_can_be_chosen() {
    let (store, layout, [one, _]) = two_images();
    layout.name(
        "nothing",
        "application/vnd.oci.image.index.v1+json",
        b"{\"schemaVersion\":2,\"manifests\":[]}",
    );
    // An artifact, as ORAS pushes them, is listed without a word.
    let empty = layout.put("application/vnd.oci.empty.v1+json", b"{}");
    let file = layout.put("text/plain", b"hello");
    let artifact = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "text/x", "config": empty, "layers": [file]});
    layout.name("artifact:1", "application/vnd.oci.image.manifest.v1+json", artifact.to_string().as_bytes());

    let listed = store.output(&["images", "--format", "json"]);
    assert_eq!(String::from_utf8_lossy(&listed.stderr), "");
    let rows: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(rows.len(), 4);
    let base = layer("base").bytes.len() as u64;
    assert_eq!((&rows[0]["digest"], &rows[0]["sharedSize"]), (&json!(one), &json!(base)));
    let manifest = fs::read(store.path().join("blobs/sha256").join(&one[7..])).unwrap();
    let parsed: Value = serde_json::from_slice(&manifest).unwrap();
    let parts = parsed["layers"].as_array().unwrap().iter().chain([&parsed["config"]]);
    let size: u64 = parts.map(|p| p["size"].as_u64().unwrap()).sum::<u64>() + manifest.len() as u64;
    assert_eq!(rows[0]["size"], json!(size));
    assert_eq!(rows[3]["platform"], Value::Null);
    // The second time from what is remembered; the same.
    assert_eq!(store.output(&["images", "--format", "json"]).stdout, listed.stdout);

    let names = |args: &[&str]| -> Vec<String> {
        let rows = json_of(&store, &[&["images", "--format", "json"], args].concat());
        let name = |r: &Value| r["name"].as_str().unwrap().rsplit('/').next().unwrap().to_string();
        rows.as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(names(&["--filter", "reference=t?o"]), ["two:1"]);
    assert_eq!(names(&["--filter", "reference=*:1", "--filter", "platform=linux/amd64"]), ["one:1", "two:1"]);
    assert_eq!(names(&["--filter", "platform=linux/arm64"]), [""; 0]);
    assert_eq!(names(&["--filter", "dangling=true"]), [""; 0]);
    assert_eq!(names(&["--sort", "name"]), ["artifact:1", "nothing:latest", "one:1", "two:1"]);
    assert_eq!(names(&["--sort", "size"]).last().unwrap(), "nothing:latest");
    store.fails_usage(&["images", "--filter", "label=x"]);
}

#[test]
fn names_come_and_go() {
    let (store, _, [one, two]) = two_images();
    store.ok(&["tag", "one:1", "new:a", "localhost:5000/x/new:b"]);
    assert_eq!(json_of(&store, &["inspect", "new:b"])["digest"], json!(one));
    store.ok(&["tag", "two:1", "new:a"]);
    assert_eq!(json_of(&store, &["inspect", "new:a"])["digest"], json!(two));
    store.ok(&["untag", "new:a", "new:b"]);
    assert_eq!(store.ok(&["images", "-q"]), format!("{one}\n{two}\n"));
    store.fails(10, &["untag", "new:a"]);
    store.fails(10, &["tag", "none", "x"]);
    // An image that is not whole gets no name.
    fs::remove_file(store.path().join("blobs/sha256").join(&layer("one").digest()[7..])).unwrap();
    assert!(store.fails(10, &["tag", "one:1", "x"]).contains("no blob"));
}

#[test]
fn rmi_takes_what_nothing_else_needs() {
    let (store, layout, [one, two]) = two_images();
    let loose = layout.put("x", b"loose")["digest"].as_str().unwrap()[7..].to_string();
    store.ok(&["tag", "one:1", "more:1"]);
    let before = blobs(&store);
    let shown = json_of(&store, &["rmi", "--dry-run", "--format", "json", "two:1"]);
    assert_eq!((&shown["dryRun"], blobs(&store)), (&json!(true), before.clone()));
    // Another name keeps the image.
    assert!(store.ok(&["rmi", "one:1"]).contains("untagged docker.io/library/one:1"));
    assert_eq!(blobs(&store), before);
    let done = json_of(&store, &["rmi", "--format", "json", "two:1"]);
    assert_eq!((&done["blobs"], &done["reclaimed"]), (&shown["blobs"], &shown["reclaimed"]));
    let gone: BTreeSet<String> =
        done["blobs"].as_array().unwrap().iter().map(|b| b["digest"].as_str().unwrap()[7..].into()).collect();
    assert_eq!(gone.len(), 3, "manifest, configuration, own layer");
    assert!(gone.contains(&two[7..]) && !blobs(&store).contains(&two[7..]));
    assert_eq!(&before - &gone, blobs(&store));
    store.fails(10, &["rmi", "two:1"]);
    // By its digest all names go; what has nothing to do with it stays.
    store.ok(&["tag", "more:1", "again:1"]);
    store.ok(&["rmi", &one[..20]]);
    assert_eq!(store.ok(&["images"]), "");
    assert_eq!(blobs(&store), [loose].into());
}

#[test]
fn prune_takes_what_nothing_needs() {
    let (store, layout, [one, two]) = two_images();
    layout.put("x", b"loose");
    let partial = store.path().join("shipimg/ingest/sha256-left");
    fs::write(&partial, "part").unwrap();
    let held = store.path().join(format!("shipimg/ingest/sha256-{}", "0".repeat(64)));
    let file = fs::File::create(&held).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let e = store.fails(2, &["prune"]);
    assert!(e.contains("--yes"), "{e}");
    let before = blobs(&store);
    let text = store.ok(&["prune", "--dry-run"]);
    assert!(text.contains("would remove 1 blob, 1 partial download"), "{text}");
    assert_eq!(blobs(&store), before);
    store.ok(&["prune", "--yes"]);
    assert_eq!((blobs(&store).len(), partial.exists(), held.exists()), (before.len() - 1, false, true));
    assert_eq!(store.ok(&["images", "-q"]), format!("{one}\n{two}\n"));

    // A name that moves on leaves an image that nothing needs; one without a name goes, too.
    store.ok(&["tag", "two:1", "one:1"]);
    assert_eq!(json_of(&store, &["prune", "-y", "--format", "json"])["blobs"].as_array().unwrap().len(), 3);
    let index = store.path().join("index.json");
    fs::write(&index, fs::read_to_string(&index).unwrap().replace("docker.io/library/one:1", "NO NAME"))
        .unwrap();
    assert_eq!(
        json_of(&store, &["images", "--filter", "dangling=true", "--format", "json"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let done = json_of(&store, &["prune", "-y", "--format", "json"]);
    assert_eq!((done["untagged"].as_array().unwrap().len(), done["blobs"].as_array().unwrap().len()), (1, 0));
    assert_eq!(store.ok(&["images", "-q"]), format!("{two}\n"));
}

#[test]
fn prune_asks_on_a_terminal() {
    let (store, layout, _) = two_images();
    layout.put("x", b"loose");
    let before = blobs(&store).len();
    let command = format!("{} --root {} prune", crate::common::bin(), store.path().display());
    for (answer, left) in [("n", before), ("", before), ("y", before - 1)] {
        let pipe = format!("echo '{answer}' | script -qec '{command}' /dev/null");
        let text = ok("sh", &["-c", &pipe]);
        assert!(text.contains("remove 1 blob") && text.contains("[y/N]"), "{text}");
        assert_eq!(blobs(&store).len(), left, "{answer}: {text}");
    }
}

#[test]
fn prune_all_keeps_what_is_new() {
    let (store, _, [one, two]) = two_images();
    store.ok(&["tag", "one:1", "one:1"]);
    let index = store.path().join("index.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let tagged = value["manifests"][1]["annotations"]["org.shipimg.tagged"].as_str().unwrap().to_string();
    // two:1 has no time, its manifest's counts.
    let old = (tagged.parse::<u64>().unwrap() - 8 * 86_400).to_string();
    value["manifests"][1]["annotations"]["org.shipimg.tagged"] = old.into();
    fs::write(&index, value.to_string()).unwrap();
    store.ok(&["prune", "--all", "--keep-since", "9d", "-y"]);
    assert_eq!(store.ok(&["images", "-q"]).lines().count(), 2);
    store.ok(&["prune", "--all", "--keep-since", "7d", "-y"]);
    assert_eq!(store.ok(&["images", "-q"]), format!("{two}\n"));
    assert!(!blobs(&store).contains(&one[7..]));
    store.fails_usage(&["prune", "--keep-since", "soon"]);
    store.ok(&["prune", "--all", "-y"]);
    assert!(blobs(&store).is_empty() && store.ok(&["images"]).is_empty());
}

#[test]
fn bundles_keep_their_images_and_layers() {
    need_root();
    let (store, ..) = two_images();
    store.ok(&["bundle", "create", "--driver", "overlay", "one:1", "box", "--", "/x"]);
    store.ok(&["bundle", "create", "--driver", "overlay", "two:1", "other", "--", "/x"]);
    store.ok(&["bundle", "delete", "other"]);
    let layers = store.path().join("shipimg/layers");
    let count =
        || fs::read_dir(&layers).unwrap().filter(|e| e.as_ref().unwrap().file_name() != "lock").count();
    assert_eq!(count(), 3);
    let e = store.fails(2, &["rmi", "one:1"]);
    assert!(e.contains("used by bundle box"), "{e}");
    let df = json_of(&store, &["df", "--format", "json"]);
    assert!(df[1]["prune"] == json!(0) && df[1]["pruneAll"].as_u64().unwrap() > 50_000, "{df}");
    let done = json_of(&store, &["prune", "--all", "-y", "--format", "json"]);
    assert_eq!(done["untagged"][0]["name"], json!("docker.io/library/two:1"));
    assert_eq!((count(), done["layers"].as_array().unwrap().len()), (2, 1));
    let file = store.path().join("shipimg/bundles/box/rootfs/one");
    assert_eq!(fs::read(&file).unwrap().len(), 150_000);
    // A name that moves on takes nothing from a bundle.
    let index = fs::read(store.path().join("index.json")).unwrap();
    store.ok(&["untag", "one:1"]);
    assert_eq!(json_of(&store, &["prune", "-y", "--format", "json"])["blobs"], json!([]));
    fs::write(store.path().join("index.json"), index).unwrap();
    store.ok(&["rmi", "--force", "one:1"]);
    assert!(blobs(&store).is_empty());
    store.ok(&["prune", "-y"]);
    assert_eq!((count(), fs::read(&file).unwrap().len()), (2, 150_000), "its lowers are mounted");
    store.ok(&["bundle", "delete", "box"]);
    store.ok(&["prune", "-y"]);
    assert_eq!(count(), 0);
}

#[test]
fn pulls_and_prunes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let registry = Registry::start();
    let layers = ["base", "a", "b", "c"].map(layer);
    layout.add("img:1", &layers, &json!({}));
    let reference = registry.fill(&layout, "img:1");
    let store = TestStore::new();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..8)
            .map(|i| {
                let (store, reference) = (&store, &reference);
                scope.spawn(move || {
                    for _ in 0..3 {
                        store.ok(&["pull", "-q", reference]);
                        // Whoever has just pulled may lose the name again, but not half of the image.
                        let out = store.output(&["unpack", reference, &dir_for(store, i)]);
                        let e = String::from_utf8_lossy(&out.stderr).into_owned();
                        assert!(
                            out.status.success() || e.contains("no image") || e.contains("no blob"),
                            "{e}"
                        );
                        let _ = fs::remove_dir_all(dir_for(store, i));
                    }
                })
            })
            .collect();
        while pulls.iter().any(|p| !p.is_finished()) {
            store.ok(&["prune", "--all", "-y"]);
        }
    });
    store.ok(&["fsck"]);
    store.ok(&["pull", "-q", &reference]);
    store.ok(&["unpack", &reference, &dir_for(&store, 9)]);
}

fn dir_for(store: &TestStore, i: usize) -> String {
    store.path().join(format!("unpacked-{i}")).to_str().unwrap().to_string()
}

#[test]
fn docker_documents_stay_and_others_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let registry = Registry::start();
    layout.add("img:1", &[layer("base")], &json!({"Cmd": ["/x"]}));
    let oci = registry.fill(&layout, "img:1");
    let docker = format!("{}/docker:1", registry.host());
    skopeo_copy(&["--format", "v2s2"], &oci, &docker);
    let raw = ok("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{docker}")]);
    let store = TestStore::new();
    store.ok(&["pull", "-q", &docker]);
    let digest = sha256(raw.as_bytes());
    assert_eq!(store.ok(&["inspect", "--raw", &docker]), raw);
    assert_eq!(store.ok(&["images", "-q"]), format!("{digest}\n"));
    // The list of Docker's kind, whole.
    let d: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(d["mediaType"], json!("application/vnd.docker.distribution.manifest.v2+json"));
    let list = json!({"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [{"mediaType": d["mediaType"], "digest": digest, "size": raw.len(),
            "platform": {"os": "linux", "architecture": "amd64"}}]});
    let url = format!("http://{}/v2/docker/manifests/list", registry.host());
    let file = dir.path().join("list.json");
    fs::write(&file, list.to_string()).unwrap();
    let head = format!("Content-Type: {}", list["mediaType"].as_str().unwrap());
    ok("curl", &["-sf", "-X", "PUT", "-H", &head, "--data-binary", &format!("@{}", file.display()), &url]);
    let multi = format!("{}/docker:list", registry.host());
    store.ok(&["pull", "-q", "--all-platforms", &multi]);
    assert_eq!(store.ok(&["inspect", "--raw", &multi]), list.to_string());

    let others = |store: &TestStore| {
        for name in [&docker, &multi] {
            let seen = ok("skopeo", &["inspect", &format!("oci:{}:{name}", store.path().display())]);
            assert_eq!(serde_json::from_str::<Value>(&seen).unwrap()["Layers"][0], d["layers"][0]["digest"]);
        }
        let plain = store.path().join("index.json");
        let text = fs::read_to_string(&plain).unwrap();
        assert!(!text.contains("\"mediaType\": \"application/vnd.docker"), "{text}");
    };
    others(&store);
    store.ok(&["prune", "-y"]);
    others(&store);
    store.ok(&["fsck"]);
    // Either digest means the image.
    let index: Value = serde_json::from_slice(&fs::read(store.path().join("index.json")).unwrap()).unwrap();
    let shadow = index["manifests"][0]["digest"].as_str().unwrap();
    assert_ne!(shadow, digest);
    assert_eq!(store.ok(&["inspect", "--raw", shadow]), raw);
    store.ok(&["tag", &docker, "copy:1"]);
    assert_eq!(store.ok(&["inspect", "--raw", "copy:1"]), raw);
    // umoci wants names without a colon.
    let copied = tempfile::tempdir().unwrap();
    ok(
        "skopeo",
        &[
            "copy",
            "-q",
            "--insecure-policy",
            &format!("oci:{}:{docker}", store.path().display()),
            &format!("oci:{}:plain", copied.path().display()),
        ],
    );
    ok("umoci", &["stat", "--image", &format!("{}:plain", copied.path().display())]);
    store.ok(&["rmi", &docker, &multi, "copy:1"]);
    assert!(blobs(&store).is_empty(), "the shadows go with their images");
}

fn skopeo_copy(options: &[&str], from: &str, to: &str) {
    let (from, to) = (format!("docker://{from}"), format!("docker://{to}"));
    let args = ["copy", "-q", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    ok("skopeo", &[&args[..], options, &[from.as_str(), to.as_str()]].concat());
}

fn spoil(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn fsck_finds_and_repairs() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let registry = Registry::start();
    let one = layout.add("one:1", &[layer("base"), layer("one")], &json!({}));
    let docker = format!("{}/docker:1", registry.host());
    let references = [registry.fill(&layout, "one:1"), docker.clone()];
    skopeo_copy(&["--format", "v2s2"], &references[0], &docker);
    let store = TestStore::new();
    for reference in &references {
        store.ok(&["pull", "-q", reference]);
    }
    assert!(store.ok(&["fsck"]).contains("all whole"));
    let path = |digest: &str| -> PathBuf { store.path().join("blobs/sha256").join(&digest[7..]) };
    let (base, own) = (layer("base").digest(), layer("one").digest());
    spoil(&path(&base));
    fs::remove_file(path(&own)).unwrap();
    let out = store.output(&["fsck"]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(9), "{text}");
    for line in [format!("{base} is damaged"), format!("{own} is missing")] {
        let told: Vec<&str> = text.lines().skip_while(|l| *l != line).skip(1).take(2).collect();
        let mut want = references.clone().map(|r| format!("    breaks {r}"));
        want.sort();
        assert_eq!(told, want, "{text}");
    }
    // Documents, too: a manifest, and a shadow, which no registry has.
    spoil(&path(&one));
    let index: Value = serde_json::from_slice(&fs::read(store.path().join("index.json")).unwrap()).unwrap();
    spoil(&path(index["manifests"][1]["digest"].as_str().unwrap()));
    assert!(store.fails(9, &["prune", "-y"]).contains("content has digest"));
    let report = json_of(&store, &["fsck", "--repair", "--format", "json"]);
    assert_eq!(report["whole"], json!(true));
    assert_eq!(report["faults"].as_array().unwrap().len(), 4, "{report}");
    assert!(report["faults"].as_array().unwrap().iter().all(|f| f["repaired"] == json!(true)));
    assert!(store.ok(&["fsck"]).contains("all whole"));
    assert!(fs::read_dir(store.path().join("shipimg/damaged")).unwrap().count() >= 3);
    store.ok(&["prune", "-y"]);
    assert_eq!(fs::read_dir(store.path().join("shipimg/damaged")).unwrap().count(), 0);
    // What cannot be fetched stays broken.
    spoil(&path(&base));
    drop(registry);
    let e = store.fails(9, &["fsck", "--repair"]);
    assert!(e.contains(&format!("{} does not give it: cannot reach", references[0])), "{e}");
    let command = format!("{} --root {} fsck --repair", crate::common::bin(), store.path().display());
    let out = crate::common::output("script", &["-qec", &command, "/dev/null"]);
    let seen = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(seen.contains("again, or drop it: shipimg rmi "), "{seen}");
}

#[test]
fn history_is_what_the_configuration_says() {
    let store = TestStore::new();
    store.ok(&["images"]);
    let layout = Layout::new(store.path());
    let blob = layer("base");
    let long = format!("RUN {}\nend", "x".repeat(100));
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [blob.diff_id, blob.diff_id]},
        "history": [
            {"created": "2024-01-02T03:04:05Z", "created_by": long, "comment": "first"},
            {"created": "2024-01-03T03:04:05Z", "created_by": "CMD x", "empty_layer": true}]});
    let config = layout.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let l = layout.put(&blob.media_type, &blob.bytes);
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [l, l]});
    layout.name("h:1", "application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    let steps = json_of(&store, &["history", "h:1", "--format", "json"]);
    let size = blob.bytes.len();
    let sizes: Vec<_> = steps.as_array().unwrap().iter().map(|s| s["size"].clone()).collect();
    assert_eq!(sizes, [json!(size), json!(0), json!(size)], "a layer without a history comes first");
    assert_eq!((&steps[2]["createdBy"], &steps[2]["comment"]), (&json!(long), &json!("first")));
    let table = store.ok(&["history", "h:1"]);
    assert!(table.lines().count() == 4 && table.contains("x…"), "{table}");
    assert!(store.ok(&["history", "--no-trunc", "h:1"]).contains(&"x".repeat(100)));
}

#[test]
fn df_tells_blocks() {
    let (store, ..) = two_images();
    fs::write(store.path().join("shipimg/ingest/sha256-left"), vec![1; 40 << 10]).unwrap();
    let rows = json_of(&store, &["df", "--format", "json"]);
    let row = |what: &str| rows.as_array().unwrap().iter().find(|r| r["what"] == what).unwrap().clone();
    let du = ok("du", &["-s", "--block-size=1", store.path().join("blobs/sha256").to_str().unwrap()]);
    let du: u64 = du.split_whitespace().next().unwrap().parse().unwrap();
    let size = row("blobs")["size"].as_u64().unwrap();
    assert!(size <= du && du - size < 64 << 10, "{size} {du}");
    assert_eq!((row("blobs")["prune"].clone(), row("blobs")["pruneAll"].clone()), (json!(0), json!(size)));
    assert!(row("partial downloads")["prune"].as_u64().unwrap() >= 40 << 10);
    assert!(store.ok(&["df"]).contains("PRUNE --ALL"));
}

#[test]
fn a_store_of_thousands() {
    const MANY: usize = 2000;
    let store = TestStore::in_memory();
    store.ok(&["images"]);
    let layout = Layout::new(store.path());
    let media = "application/vnd.oci.image.manifest.v1+json";
    let layers: Vec<Value> = (0..4)
        .map(|i| layout.put("application/vnd.oci.image.layer.v1.tar", format!("{i}").as_bytes()))
        .collect();
    let entries: Vec<Value> = (0..MANY)
        .map(|i| {
            let config = json!({"os": "linux", "architecture": "amd64", "created": format!("{i:04}"),
                "rootfs": {"type": "layers", "diff_ids": ["a", "b", "c", "d"]}});
            let config =
                layout.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
            let manifest =
                json!({"schemaVersion": 2, "mediaType": media, "config": config, "layers": layers});
            let mut entry = layout.put(media, manifest.to_string().as_bytes());
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": format!("image:{i}")});
            entry
        })
        .collect();
    let write = |entries: &[Value]| {
        let index = json!({"schemaVersion": 2, "manifests": entries});
        fs::write(store.path().join("index.json"), index.to_string()).unwrap();
    };
    write(&entries);
    let summaries = || fs::read_to_string(store.path().join("shipimg/summaries")).unwrap().lines().count();
    for _ in 0..2 {
        let rows = json_of(&store, &["images", "--sort", "created", "--format", "json"]);
        assert_eq!(rows.as_array().unwrap().len(), MANY);
        assert_eq!((&rows[0]["created"], &rows[0]["sharedSize"]), (&json!("1999"), &json!(4)));
        assert_eq!(summaries(), MANY);
    }
    write(&entries[..MANY / 2]);
    let done = json_of(&store, &["prune", "-y", "--format", "json"]);
    assert_eq!((done["blobs"].as_array().unwrap().len(), summaries()), (MANY, MANY / 2));
    assert_eq!(blobs(&store).len(), MANY + 4);
    assert_eq!(store.ok(&["images", "-q"]).lines().count(), MANY / 2);
}

/// Nothing in a store that may only be read keeps it from being listed and unpacked.
#[test]
fn a_store_that_may_only_be_read() {
    need_root();
    let (store, ..) = two_images();
    let target = tempfile::tempdir().unwrap();
    let path = store.path().to_str().unwrap();
    ok("mount", &["--bind", path, path]);
    ok("mount", &["-o", "remount,bind,ro", path]);
    let run = |args: &[&str]| collect(store.command().args(args));
    let listed = run(&["images"]);
    let unpacked = run(&["unpack", "one:1", target.path().join("x").to_str().unwrap()]);
    let checked = run(&["fsck"]);
    let explained = run(&["df"]);
    let shown = run(&["prune", "--all", "--dry-run"]);
    let pruned = run(&["prune", "-y"]);
    output("umount", &[path]);
    for out in [listed, unpacked, checked, explained, shown] {
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    assert_eq!(pruned.status.code(), Some(8), "{}", String::from_utf8_lossy(&pruned.stderr));
}
