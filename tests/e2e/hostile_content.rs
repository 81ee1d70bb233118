//! Registries that lie about content, and local configuration that is hostile.

use crate::common::TestStore;
use crate::common::layout::{Blob, sha256};
use crate::common::proxy::{Fault, Proxy};
use crate::common::registry::free_port;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A registry whose every answer is written by hand.
#[derive(Default)]
struct Liar {
    answers: HashMap<String, (String, String)>,
}

impl Liar {
    /// `GET /v2/img/PATH` is answered by `body`.
    fn say(&mut self, path: &str, media_type: &str, body: &str) -> &mut Self {
        self.answers.insert(format!("/v2/img/{path}"), (media_type.to_string(), body.to_string()));
        self
    }

    fn blob(&mut self, body: &str) -> String {
        let digest = sha256(body.as_bytes());
        self.say(&format!("blobs/{digest}"), "application/octet-stream", body);
        digest
    }

    /// Serves `manifest` as `img:1`; its configuration lists `diff_ids`.
    fn image(&mut self, change: impl FnOnce(&mut Value), diff_ids: &[&str]) -> &mut Self {
        let config = json!({"architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        .to_string();
        let digest = self.blob(&config);
        let layer = self.blob("layer");
        let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest, "size": config.len()},
            "layers": [{"mediaType": GZIP, "digest": layer, "size": 5}]});
        change(&mut manifest);
        self.say("manifests/1", MANIFEST, &manifest.to_string())
    }

    fn start(&mut self) -> Proxy {
        let answers = std::mem::take(&mut self.answers);
        Proxy::start(free_port(), move |r| match answers.get(&r.path) {
            Some((media, body)) => {
                Fault::Answer("200 OK", vec![format!("Content-Type: {media}")], body.clone())
            }
            None if r.path == "/v2/" => Fault::Answer("200 OK", vec![], "{}".to_string()),
            None => Fault::Answer("404 Not Found", vec![], String::new()),
        })
    }

    /// Pulls `img:1`, which must fail with `code` and these words, and leave nothing named.
    fn refused(&mut self, code: i32, words: &[&str]) {
        let proxy = self.start();
        refused_at(&format!("{}/img:1", proxy.host()), code, words);
    }
}

fn refused_at(reference: &str, code: i32, words: &[&str]) {
    let store = TestStore::new();
    let e = store.fails(code, &["pull", "-q", reference]);
    for word in words {
        assert!(e.contains(word), "{word:?} is not in {e}");
    }
    assert_eq!(store.ok(&["images"]), "");
    assert_eq!(fs::read_dir(store.path().join("blobs/sha256")).unwrap().count(), 0);
}

fn diff_id() -> String {
    sha256(b"layer")
}

#[test]
fn the_honest_one_is_pulled() {
    let proxy = Liar::default().image(|_| {}, &[&diff_id()]).start();
    TestStore::new().ok(&["pull", "-q", &format!("{}/img:1", proxy.host())]);
}

#[test]
fn blobs_of_another_size_or_digest() {
    let layer = sha256(b"layer");
    for (body, words) in
        [("layers", "has 6 bytes for"), ("laye", "has 4 bytes for"), ("liars", "content has digest")]
    {
        let mut liar = Liar::default();
        liar.image(|_| {}, &[&diff_id()]);
        liar.say(&format!("blobs/{layer}"), "application/octet-stream", body);
        liar.refused(9, &[words, &layer]);
    }
    // The configuration, by the same rules.
    for (change, words) in [(7, "its descriptor says 7"), (5_000_000, "the limit of a document is 4194304")] {
        let mut liar = Liar::default();
        liar.image(|m| m["config"]["size"] = json!(change), &[&diff_id()]).refused(9, &[words]);
    }
}

#[test]
fn digests_that_are_none() {
    for digest in ["sha256:../../x", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:ABC", "../../etc/passwd"]
    {
        let mut liar = Liar::default();
        liar.image(|m| m["layers"][0]["digest"] = json!(digest), &[&diff_id()])
            .refused(9, &["/img:1: invalid"]);
    }
}

#[test]
fn manifests_that_are_not_the_one_asked_for() {
    let other = sha256(b"other");
    let mut liar = Liar::default();
    liar.say(&format!("manifests/{other}"), MANIFEST, "{}");
    let proxy = liar.start();
    refused_at(&format!("{}/img@{other}", proxy.host()), 9, &["content with digest", &other]);

    // And through an index.
    let mut liar = Liar::default();
    let entry = json!({"mediaType": MANIFEST, "digest": other, "size": 2});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    liar.say("manifests/1", INDEX, &index.to_string());
    liar.say(&format!("manifests/{other}"), MANIFEST, "{}").refused(9, &["content with digest", &other]);
}

#[test]
fn documents_that_are_two_things_or_none() {
    for (change, code, words) in [
        (json!({"manifests": []}), 9, "a manifest and an index at once"),
        (json!({"mediaType": INDEX}), 9, "was declared as"),
        (json!({"schemaVersion": 1}), 9, "schema 1"),
        (json!({"layers": 7}), 9, "invalid"),
        (json!({"mediaType": "text/html"}), 9, "text/html"),
    ] {
        let mut liar = Liar::default();
        let change = |m: &mut Value| {
            for (key, value) in change.as_object().unwrap() {
                m[key] = value.clone();
            }
        };
        liar.image(change, &[&diff_id()]).refused(code, &[words]);
    }
    Liar::default().say("manifests/1", MANIFEST, "not JSON").refused(9, &["invalid manifest"]);
    Liar::default().say("manifests/1", "text/html", "{\"schemaVersion\": 2}").refused(7, &["text/html"]);
    Liar::default()
        .say("manifests/1", MANIFEST, &" ".repeat(5 << 20))
        .refused(9, &["a manifest: more than 4194304 bytes of a document"]);
}

#[test]
fn indexes_in_one_another() {
    // No index can name its own digest; what can be built is a chain that is too long.
    let mut liar = Liar::default();
    let mut inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    for _ in 0..6 {
        let digest = sha256(inner.as_bytes());
        liar.say(&format!("manifests/{digest}"), INDEX, &inner);
        let entry = json!({"mediaType": INDEX, "digest": digest, "size": inner.len()});
        inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
    }
    liar.say("manifests/1", INDEX, &inner).refused(9, &["indexes more than 4 deep"]);

    // One that claims itself under a digest that cannot be its own.
    let mut liar = Liar::default();
    let claimed = sha256(b"self");
    let entry = json!({"mediaType": INDEX, "digest": claimed, "size": 1});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
    liar.say(&format!("manifests/{claimed}"), INDEX, &index);
    liar.say("manifests/1", INDEX, &index).refused(9, &[&claimed]);
}

#[test]
fn layers_and_diff_ids_that_do_not_fit() {
    Liar::default().image(|_| {}, &[]).refused(9, &["0 diff ids for 1 layers"]);
    Liar::default().image(|_| {}, &["sha256:../../x"]).refused(9, &["invalid digest"]);
}

#[test]
fn a_huge_configuration() {
    let mut liar = Liar::default();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Env": ["x".repeat(10 << 20)]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id()]}})
    .to_string();
    let digest = liar.blob(&config);
    let size = config.len();
    let change = |m: &mut Value| m["config"] = json!({"mediaType": CONFIG, "digest": digest, "size": size});
    liar.image(change, &[&diff_id()]).refused(9, &["the limit of a document is 4194304"]);
}

#[test]
fn what_is_no_image_is_pulled_as_it_is_and_never_unpacked() {
    let pulled = |liar: &mut Liar, what: &str| {
        let proxy = liar.start();
        let (store, name) = (TestStore::new(), format!("{}/img:1", proxy.host()));
        store.ok(&["pull", "-q", &name]);
        let target = store.path().join("unpacked");
        let e = store.fails(7, &["unpack", &name, target.to_str().unwrap()]);
        assert!(e.contains("is no container image") && e.contains(what), "{e}");
        assert!(!target.exists());
    };
    let helm = "application/vnd.cncf.helm.config.v1+json";
    pulled(Liar::default().image(|m| m["config"]["mediaType"] = json!(helm), &[&diff_id()]), helm);
    let zip = "application/zip";
    pulled(Liar::default().image(|m| m["layers"][0]["mediaType"] = json!(zip), &[&diff_id()]), zip);
}

#[test]
fn foreign_layers_are_not_fetched() {
    let elsewhere = Liar::default().start();
    let url = format!("http://{}/x", elsewhere.host());
    Liar::default()
        .image(|m| m["layers"][0]["urls"] = json!([url]), &[&diff_id()])
        .refused(7, &["lies outside the registry", &diff_id()]);
    assert!(elsewhere.requests("").is_empty());
}

#[test]
fn credential_helpers() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        crate::common::ok("chmod", &["+x", path.to_str().unwrap()]);
    };
    write("garbage", "head -c 1000 /dev/zero");
    write("endless", "exec cat /dev/zero");
    write("failing", "echo no keyring here; exit 1");
    write("none", "echo credentials not found in native keychain; exit 1");
    let asks = Proxy::start(free_port(), |r| {
        let basic = "WWW-Authenticate: Basic realm=\"x\"".to_string();
        match r.path.as_str() {
            "/v2/" => Fault::Answer("200 OK", vec![], String::new()),
            _ => Fault::Answer("401 Unauthorized", vec![basic], String::new()),
        }
    });
    for (helper, code, words) in [
        ("../../../bin/sh", 2, "a helper's name is letters"),
        ("garbage", 2, "is not the JSON object"),
        ("endless", 2, "signal: 13"),
        ("failing", 2, "no keyring here"),
        ("none", 8, "401"),
        ("absent", 7, "docker-credential-absent not found"),
    ] {
        for config in [json!({"credsStore": helper}), json!({"credHelpers": {asks.host(): helper}})] {
            let file = dir.path().join("auth.json");
            fs::write(&file, config.to_string()).unwrap();
            let store = TestStore::new();
            let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
            let out = store
                .command()
                .env("REGISTRY_AUTH_FILE", &file)
                .env("PATH", path)
                .args(["pull", "-q", &format!("{}/img:1", asks.host())])
                .output()
                .unwrap();
            let e = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.code() == Some(code) && e.contains(words), "{helper}: {e}");
        }
    }
    assert!(asks.requests("").iter().all(|r| r.authorization.is_none()));
}

#[test]
fn values_of_an_image_do_not_steer_the_terminal() {
    let config = json!({"architecture": "amd64", "os": "linux", "created": "\u{1b}[2J2024", "config":
        {"User": "0\n0:0"}, "rootfs": {"type": "layers", "diff_ids": [diff_id()]}})
    .to_string();
    let mut liar = Liar::default();
    let digest = liar.blob(&config);
    let size = config.len();
    liar.image(|m| m["config"] = json!({"mediaType": CONFIG, "digest": digest, "size": size}), &[&diff_id()]);
    let proxy = liar.start();
    let store = TestStore::new();
    store.ok(&["pull", "-q", &format!("{}/img:1", proxy.host())]);
    let mut liar = Liar::default();
    let platform = json!({"os": "linux", "architecture": "\u{1b}[31mx\nerror: all is well"});
    let entry = json!({"mediaType": MANIFEST, "digest": diff_id(), "size": 5, "platform": platform});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
    let proxy = liar.say("manifests/1", INDEX, &index).start();
    let e = store.fails(10, &["pull", "-q", &format!("{}/img:1", proxy.host())]);
    assert!(e.contains("nothing for platform") && !e.contains('\u{1b}'), "{e}");
    for args in [&["images"][..], &["inspect", "img:1"]] {
        assert!(!store.ok(args).contains('\u{1b}'));
    }
}

/// A layer whose blob is honest but whose name already lies in the store, damaged.
#[test]
fn a_damaged_blob_in_the_store_is_noticed_when_read() {
    let layer = Blob::gzip(b"x");
    assert_ne!(sha256(&layer.bytes), layer.diff_id);
    let proxy = Liar::default().image(|_| {}, &[&diff_id()]).start();
    let store = TestStore::new();
    let reference = format!("{}/img:1", proxy.host());
    store.ok(&["pull", "-q", &reference]);
    let digest = store.ok(&["images", "-q"]);
    let path = store.path().join("blobs/sha256").join(&digest.trim()[7..]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    let e = store.fails(9, &["inspect", &reference]);
    assert!(e.contains("content has digest"), "{e}");
}
