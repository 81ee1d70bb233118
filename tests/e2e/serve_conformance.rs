//! The distribution specification's conformance chapter, sentence by sentence, over raw HTTP.

use crate::common::TestStore;
use crate::common::layout::sha256;
use crate::common::serve::Served;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn served() -> (TestStore, Served) {
    let store = TestStore::new();
    let server = Served::start(&store, &[]);
    (store, server)
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
}

/// The manifest of an image with one layer, whose blobs are pushed.
fn image(server: &Served, repository: &str, layer: &[u8]) -> Vec<u8> {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    server.push_blob(repository, config);
    server.push_blob(repository, layer);
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)]});
    manifest.to_string().into_bytes()
}

/// Pushes such an image; gives its digest.
fn push(server: &Served, repository: &str, tag: &str, layer: &[u8]) -> String {
    let manifest = image(server, repository, layer);
    assert_eq!(server.push_manifest(repository, tag, MANIFEST, &manifest).status, 201);
    sha256(&manifest)
}

/// A referrer of `subject` with its empty config.
fn referrer(server: &Served, repository: &str, subject: &str, kind: Option<&str>) -> (Value, String) {
    server.push_blob(repository, b"{}");
    let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.example.config", b"{}"),
        "layers": [descriptor("application/vnd.oci.empty.v1+json", b"{}")],
        "subject": {"mediaType": MANIFEST, "digest": subject, "size": 7},
        "annotations": {"org.example": "note"}});
    if let Some(kind) = kind {
        manifest["artifactType"] = kind.into();
    }
    let digest = sha256(manifest.to_string().as_bytes());
    (manifest, digest)
}

#[test]
fn the_base_says_that_this_is_a_registry() {
    let (_store, server) = served();
    for path in ["/v2/", "/v2"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.header("docker-distribution-api-version")), (200, "registry/2.0"));
    }
    for path in ["/", "/v1/", "/v2/x", "/v2/x/y/z", "/v2/a/tags/other"] {
        assert_eq!(server.get(path).error(), "404 NAME_UNKNOWN", "{path}");
    }
    assert_eq!(server.delete("/v2/").error(), "405 UNSUPPORTED");
    assert_eq!(server.delete("/v2/a/tags/list").error(), "405 UNSUPPORTED");
    for name in ["A", "a__-b", "a/..", "a//b", "%2e%2e/%2e%2e", "..%2f..%2fetc"] {
        let answer = server.get(&format!("/v2/{name}/manifests/latest"));
        assert_eq!(answer.error(), "400 NAME_INVALID", "{name}");
    }
}

#[test]
fn pulls_manifests() {
    let (_store, server) = served();
    let manifest = image(&server, "lab/app", b"layer");
    let digest = sha256(&manifest);
    assert_eq!(server.push_manifest("lab/app", "1", MANIFEST, &manifest).status, 201);
    for reference in ["1", digest.as_str()] {
        let path = format!("/v2/lab/app/manifests/{reference}");
        let (get, head) = (server.get(&path), server.head(&path));
        assert_eq!((get.status, head.status), (200, 200));
        assert_eq!(get.body, manifest, "byte for byte");
        assert!(head.body.is_empty());
        for answer in [&get, &head] {
            assert_eq!(answer.header("content-type"), MANIFEST);
            assert_eq!(answer.header("docker-content-digest"), digest);
            assert_eq!(answer.header("content-length"), manifest.len().to_string());
        }
        let known = [("If-None-Match", get.header("etag"))];
        assert_eq!(server.request("GET", &path, &known, b"").status, 304);
    }
    let none = format!("lab/app/manifests/sha256:{}", "0".repeat(64));
    let elsewhere = format!("other/manifests/{digest}");
    for path in [
        "lab/app/manifests/2",
        "lab/app/manifests/.INVALID",
        "lab/app/manifests/sha256:12",
        "other/manifests/1",
        &none,
        &elsewhere,
    ] {
        let path = format!("/v2/{path}");
        assert_eq!(server.get(&path).error(), "404 MANIFEST_UNKNOWN", "{path}");
        assert_eq!(server.head(&path).status, 404, "{path}");
    }
}

#[test]
fn pulls_blobs_whole_and_in_part() {
    let (_store, server) = served();
    let blob: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = server.push_blob("lab/app", &blob);
    let path = format!("/v2/lab/app/blobs/{digest}");
    let (get, head) = (server.get(&path), server.head(&path));
    assert_eq!((get.status, head.status), (200, 200));
    assert!(get.body == blob && head.body.is_empty());
    for answer in [&get, &head] {
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert_eq!(answer.header("content-length"), "4000000");
        assert_eq!(answer.header("accept-ranges"), "bytes");
    }
    for (range, part, said) in [
        ("bytes=0-9", &blob[..10], "bytes 0-9/4000000"),
        ("bytes=3999990-", &blob[3_999_990..], "bytes 3999990-3999999/4000000"),
        ("bytes=-7", &blob[3_999_993..], "bytes 3999993-3999999/4000000"),
        ("bytes=262143-600000", &blob[262_143..=600_000], "bytes 262143-600000/4000000"),
    ] {
        let answer = server.request("GET", &path, &[("Range", range)], b"");
        assert_eq!((answer.status, answer.header("content-range")), (206, said), "{range}");
        assert!(answer.body == part, "{range}");
    }
    let beyond = server.request("GET", &path, &[("Range", "bytes=4000000-")], b"");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */4000000"));
    let none = format!("/v2/lab/app/blobs/sha256:{}", "0".repeat(64));
    assert_eq!(server.get(&none).error(), "404 BLOB_UNKNOWN");
    assert_eq!(server.head(&none).status, 404);
    for bad in ["sha256:..%2F..%2Fx", "sha256:xyz", "md5:00", "x"] {
        assert_eq!(server.get(&format!("/v2/lab/app/blobs/{bad}")).status, 404, "{bad}");
    }
}

#[test]
fn pushes_blobs_whole() {
    let (_store, server) = served();
    let digest = sha256(b"content");
    let place = format!("/v2/lab/app/blobs/{digest}");
    // POST, then PUT.
    let location = server.upload("lab/app");
    let id = location.strip_prefix("/v2/lab/app/blobs/uploads/").unwrap();
    assert_eq!((id.len(), id.matches('-').count()), (36, 4), "a UUID: {id}");
    let octets = [("Content-Type", "application/octet-stream")];
    let put = server.request("PUT", &format!("{location}?digest={digest}"), &octets, b"content");
    assert_eq!((put.status, put.header("location")), (201, place.as_str()));
    assert_eq!(put.header("docker-content-digest"), digest);
    assert_eq!(server.get(put.header("location")).body, b"content");
    assert_eq!(server.get(&location).error(), "404 BLOB_UPLOAD_UNKNOWN");
    // A single POST.
    let one = sha256(b"at once");
    let post = server.request("POST", &format!("/v2/a/blobs/uploads/?digest={one}"), &octets, b"at once");
    assert_eq!((post.status, post.header("location")), (201, format!("/v2/a/blobs/{one}").as_str()));
    assert_eq!(server.get(post.header("location")).body, b"at once");
    // Nothing at all, and SHA-512.
    assert_eq!(server.push_blob("lab/app", b""), sha256(b""));
    assert_eq!(server.get(&format!("/v2/lab/app/blobs/{}", sha256(b""))).body, b"");
    let sha512 = {
        use sha2::Digest as _;
        let hex: String = sha2::Sha512::digest(b"long").iter().map(|b| format!("{b:02x}")).collect();
        format!("sha512:{hex}")
    };
    let put = server.request("PUT", &format!("{}?digest={sha512}", server.upload("a")), &[], b"long");
    assert_eq!(put.status, 201);
    assert_eq!(server.get(put.header("location")).body, b"long");
}

#[test]
fn refuses_blobs_that_are_not_what_they_should_be() {
    let (store, server) = served();
    let wrong = sha256(b"other");
    let location = server.upload("lab/app");
    let put = |query: &str| server.request("PUT", &format!("{location}{query}"), &[], b"content");
    assert_eq!(put("").error(), "400 DIGEST_INVALID");
    assert_eq!(put("?digest=sha256:12").error(), "400 DIGEST_INVALID");
    assert_eq!(put(&format!("?digest={wrong}")).error(), "400 DIGEST_INVALID");
    assert_eq!(put(&format!("?digest={wrong}")).error(), "404 BLOB_UPLOAD_UNKNOWN");
    let post = server.request("POST", &format!("/v2/a/blobs/uploads/?digest={wrong}"), &[], b"content");
    assert_eq!(post.error(), "400 DIGEST_INVALID");
    let blobs = store.path().join("blobs/sha256");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0, "nothing is published");
}

#[test]
fn pushes_blobs_in_chunks() {
    let (_store, server) = served();
    let post = server.request("POST", "/v2/lab/app/blobs/uploads/", &[], b"");
    assert_eq!((post.status, post.find("oci-chunk-min-length")), (202, None), "there is no minimum");
    let first = post.header("location").to_string();
    let chunk = |method: &str, location: &str, range: &str, bytes: &[u8]| {
        server.request(method, location, &[("Content-Range", range)], bytes)
    };
    // Out of order, before anything is there.
    assert_eq!(chunk("PATCH", &first, "3-5", b"def").status, 416);
    let patched = chunk("PATCH", &first, "0-2", b"abc");
    assert_eq!((patched.status, patched.header("range")), (202, "0-2"));
    let location = patched.header("location");
    // The same again, and one with a gap.
    for range in ["0-2", "6-8"] {
        let refused = chunk("PATCH", location, range, b"xyz");
        assert_eq!((refused.status, refused.header("range")), (416, "0-2"), "{range}");
    }
    assert_eq!(chunk("PATCH", location, "3-9", b"def").error(), "400 SIZE_INVALID");
    assert_eq!(chunk("PATCH", location, "bytes 3-5", b"def").error(), "400 BLOB_UPLOAD_INVALID");
    let status = server.get(location);
    assert_eq!((status.status, status.header("range")), (204, "0-2"));
    let patched = chunk("PATCH", status.header("location"), "3-5", b"def");
    assert_eq!((patched.status, patched.header("range")), (202, "0-5"));
    // The last chunk comes with the PUT.
    let digest = sha256(b"abcdefghi");
    let close = format!("{}?digest={digest}", patched.header("location"));
    assert_eq!(chunk("PUT", &close, "5-7", b"ghi").status, 416);
    let put = chunk("PUT", &close, "6-8", b"ghi");
    assert_eq!((put.status, put.header("location")), (201, format!("/v2/lab/app/blobs/{digest}").as_str()));
    assert_eq!(server.get(put.header("location")).body, b"abcdefghi");
    // Or the PUT has none; a PATCH without a range goes on where the last one ended.
    let location = server.upload("lab/app");
    for part in [b"one", b"two"] {
        assert_eq!(server.request("PATCH", &location, &[], part).status, 202);
    }
    let put = server.request("PUT", &format!("{location}?digest={}", sha256(b"onetwo")), &[], b"");
    assert_eq!(put.status, 201);
    assert_eq!(server.get(put.header("location")).body, b"onetwo");
}

#[test]
fn cancels_uploads() {
    let (_store, server) = served();
    let location = server.upload("lab/app");
    server.request("PATCH", &location, &[], b"abc");
    assert_eq!(server.get(&location.replace("lab/app", "other")).error(), "404 BLOB_UPLOAD_UNKNOWN");
    assert_eq!(server.delete(&location).status, 204);
    for method in ["GET", "PATCH", "PUT", "DELETE"] {
        let path = format!("{location}?digest={}", sha256(b"abc"));
        assert_eq!(server.request(method, &path, &[], b"").error(), "404 BLOB_UPLOAD_UNKNOWN", "{method}");
    }
    assert_eq!(server.get("/v2/lab/app/blobs/uploads/..%2F..").status, 404);
}

#[test]
fn mounts_blobs() {
    let (_store, server) = served();
    let digest = server.push_blob("one", b"shared");
    let none = sha256(b"nowhere");
    let mount = |query: String| server.request("POST", &format!("/v2/two/blobs/uploads/?{query}"), &[], b"");
    for query in [format!("mount={digest}&from=one"), format!("mount={digest}")] {
        let answer = mount(query);
        let place = format!("/v2/two/blobs/{digest}");
        assert_eq!((answer.status, answer.header("location")), (201, place.as_str()));
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert_eq!(server.get(&place).body, b"shared");
    }
    for query in [format!("mount={none}&from=one"), format!("mount={none}")] {
        let answer = mount(query);
        assert_eq!(answer.status, 202);
        let put = format!("{}?digest={none}", answer.header("location"));
        assert_eq!(server.request("PUT", &put, &[], b"nope").error(), "400 DIGEST_INVALID");
    }
    assert_eq!(mount("mount=sha256:12&from=one".into()).error(), "400 DIGEST_INVALID");
}

#[test]
fn pushes_manifests() {
    let (_store, server) = served();
    let manifest = image(&server, "lab/app", b"layer");
    let digest = sha256(&manifest);
    for reference in ["v1.0", digest.as_str()] {
        let put = server.push_manifest("lab/app", reference, &format!("{MANIFEST}; charset=x"), &manifest);
        assert_eq!((put.status, put.header("docker-content-digest")), (201, digest.as_str()));
        assert_eq!(put.find("oci-subject"), None);
        let got = server.get(put.header("location"));
        assert_eq!((got.body.as_slice(), got.header("content-type")), (manifest.as_slice(), MANIFEST));
    }
    // Docker's manifests keep their type and bytes.
    let mut docker: Value = serde_json::from_slice(&manifest).unwrap();
    docker["mediaType"] = DOCKER.into();
    let docker = docker.to_string();
    assert_eq!(server.push_manifest("lab/app", "d", DOCKER, docker.as_bytes()).status, 201);
    let got = server.get("/v2/lab/app/manifests/d");
    assert_eq!((got.header("content-type"), got.body.as_slice()), (DOCKER, docker.as_bytes()));
    // Without a layer, and with one that lies elsewhere.
    let mut bare: Value = serde_json::from_slice(&manifest).unwrap();
    bare["layers"] = json!([]);
    assert_eq!(server.push_manifest("lab/app", "bare", MANIFEST, bare.to_string().as_bytes()).status, 201);
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    bare["layers"] = json!([descriptor(foreign, b"not here")]);
    bare["layers"][0]["urls"] = json!(["https://example.com/layer"]);
    assert_eq!(server.push_manifest("lab/app", "f", MANIFEST, bare.to_string().as_bytes()).status, 201);
}

#[test]
fn refuses_manifests_that_are_not_what_they_should_be() {
    let (_store, server) = served();
    let manifest = image(&server, "a", b"layer");
    let edit = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&manifest).unwrap();
        change(&mut value);
        value.to_string().into_bytes()
    };
    let missing = edit(&|m| m["layers"][0] = descriptor("x", b"never pushed"));
    let size = edit(&|m| m["layers"][0]["size"] = 99.into());
    let config = edit(&|m| m["config"]["digest"] = format!("sha256:{}", "0".repeat(64)).into());
    let traversal = edit(&|m| m["layers"][0]["digest"] = "sha256:../../x".into());
    let both = edit(&|m| m["manifests"] = json!([]));
    let subject = edit(&|m| m["subject"] = json!({"mediaType": MANIFEST, "digest": "x", "size": 1}));
    for (document, error) in [
        (missing.as_slice(), "400 MANIFEST_BLOB_UNKNOWN"),
        (&size, "400 MANIFEST_BLOB_UNKNOWN"),
        (&config, "400 MANIFEST_BLOB_UNKNOWN"),
        (&traversal, "400 MANIFEST_INVALID"),
        (&both, "400 MANIFEST_INVALID"),
        (&subject, "400 MANIFEST_INVALID"),
        (b"{", "400 MANIFEST_INVALID"),
        (b"", "400 MANIFEST_INVALID"),
    ] {
        let answer = server.push_manifest("a", "1", MANIFEST, document);
        assert_eq!(answer.error(), error, "{}", String::from_utf8_lossy(document));
    }
    assert_eq!(server.push_manifest("a", "1", INDEX, &manifest).error(), "400 MANIFEST_INVALID");
    assert_eq!(server.push_manifest("a", "1", "text/html", b"{}").error(), "400 MANIFEST_INVALID");
    assert_eq!(server.push_manifest("a", "-1", MANIFEST, &manifest).error(), "400 TAG_INVALID");
    let wrong = sha256(b"other");
    assert_eq!(server.push_manifest("a", &wrong, MANIFEST, &manifest).error(), "400 DIGEST_INVALID");
    assert_eq!(server.push_manifest("a", "sha256:1", MANIFEST, &manifest).error(), "400 DIGEST_INVALID");
    assert_eq!(server.get("/v2/a/manifests/1").error(), "404 MANIFEST_UNKNOWN");
    // 4 MiB are taken, a byte more is not.
    let padded = |size: usize| {
        let mut bytes = manifest.clone();
        bytes.resize(size, b' ');
        bytes
    };
    assert_eq!(server.push_manifest("a", "big", MANIFEST, &padded(4 << 20)).status, 201);
    let over = server.push_manifest("a", "over", MANIFEST, &padded((4 << 20) + 1));
    assert_eq!(over.error(), "413 SIZE_INVALID");
    assert_eq!(server.push_manifest("a", "over", MANIFEST, &padded(9 << 20)).error(), "413 SIZE_INVALID");
}

#[test]
fn indexes_come_after_their_members_and_outlive_a_restart() {
    let (store, mut server) = served();
    let (one, two) = (image(&server, "a", b"one"), image(&server, "a", b"two"));
    for manifest in [&one, &two] {
        assert_eq!(server.push_manifest("a", &sha256(manifest), MANIFEST, manifest).status, 201);
    }
    let elsewhere = descriptor(MANIFEST, b"another platform's, not copied");
    let index = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [descriptor(MANIFEST, &one), descriptor(MANIFEST, &two), elsewhere]});
    let index = index.to_string().into_bytes();
    assert_eq!(server.push_manifest("a", "multi", INDEX, &index).status, 201);
    let loose = image(&server, "a", b"loose");
    assert_eq!(server.push_manifest("a", &sha256(&loose), MANIFEST, &loose).status, 201);
    let entries = std::fs::read_to_string(store.path().join("index.json")).unwrap();
    assert_eq!(entries.matches("\"digest\"").count(), 2, "an index holds its members: {entries}");
    assert_eq!(server.end(rustix::process::Signal::TERM).code(), Some(0));
    let server = Served::start(&store, &["--read-only"]);
    for (reference, body) in [("multi".to_string(), &index), (sha256(&one), &one), (sha256(&two), &two)] {
        assert_eq!(&server.get(&format!("/v2/a/manifests/{reference}")).body, body);
    }
    let absent = elsewhere["digest"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v2/a/manifests/{absent}")).error(), "404 MANIFEST_UNKNOWN");
}

#[test]
fn manifests_pushed_by_digest_outlive_a_restart() {
    let (store, mut server) = served();
    let manifest = image(&server, "a", b"layer");
    let path = format!("/v2/a/manifests/{}", sha256(&manifest));
    server.push_manifest("a", &sha256(&manifest), MANIFEST, &manifest);
    assert_eq!(server.end(rustix::process::Signal::KILL).code(), None);
    let server = Served::start(&store, &[]);
    let renamed = [("Host", "laptop.lan:1234")];
    assert_eq!(server.get(&path).status, 200, "on another port, by its repository");
    assert_eq!(server.request("GET", &path, &renamed, b"").status, 200);
    assert_eq!(server.get(&path.replace("/a/", "/b/")).status, 404, "of its repository only");
}

#[test]
fn lists_tags_in_pages() {
    let (_store, server) = served();
    for tag in ["c", "a", "B", "b"] {
        push(&server, "lab/app", tag, b"layer");
    }
    let list = |query: &str| {
        let answer = server.get(&format!("/v2/lab/app/tags/list{query}"));
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        assert_eq!(answer.json()["name"], "lab/app");
        let tags = answer.json()["tags"].as_array().unwrap().clone();
        let tags: Vec<String> = tags.iter().map(|t| t.as_str().unwrap().to_string()).collect();
        (tags.join(" "), answer.find("link").map(str::to_string))
    };
    let next = |n: u32, last: &str| Some(format!("</v2/lab/app/tags/list?n={n}&last={last}>; rel=\"next\""));
    assert_eq!(list(""), ("B a b c".into(), None));
    assert_eq!(list("?n=2"), ("B a".into(), next(2, "a")));
    assert_eq!(list("?n=2&last=a"), ("b c".into(), None));
    assert_eq!(list("?n=1&last=a"), ("b".into(), next(1, "b")));
    assert_eq!(list("?n=4"), ("B a b c".into(), None));
    assert_eq!(list("?n=0"), (String::new(), None));
    assert_eq!(list("?last=b"), ("c".into(), None));
    assert_eq!(server.get("/v2/lab/app/tags/list?n=x").error(), "400 PAGINATION_NUMBER_INVALID");
    assert_eq!(server.get("/v2/none/tags/list").error(), "404 NAME_UNKNOWN");
}

#[test]
fn lists_repositories_in_pages() {
    let (_store, server) = served();
    for repository in ["lab/app", "base", "lab/app"] {
        push(&server, repository, "1", b"layer");
    }
    assert_eq!(server.get("/v2/_catalog").json()["repositories"], json!(["base", "lab/app"]));
    let page = server.get("/v2/_catalog?n=1");
    assert_eq!(page.header("link"), "</v2/_catalog?n=1&last=base>; rel=\"next\"");
    let rest = server.get("/v2/_catalog?n=1&last=base");
    assert_eq!((rest.json()["repositories"].clone(), rest.find("link")), (json!(["lab/app"]), None));
}

#[test]
fn lists_referrers() {
    let (_store, server) = served();
    let subject = push(&server, "a", "1", b"layer");
    let list = |query: &str| server.get(&format!("/v2/a/referrers/{subject}{query}"));
    let none = list("");
    assert_eq!((none.status, none.header("content-type")), (200, INDEX));
    assert_eq!(none.json(), json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}));
    let (sbom, sbom_digest) = referrer(&server, "a", &subject, Some("application/vnd.example.sbom"));
    let (plain, plain_digest) = referrer(&server, "a", &subject, None);
    for (manifest, reference) in [(&sbom, sbom_digest.as_str()), (&plain, "signature")] {
        let put = server.push_manifest("a", reference, MANIFEST, manifest.to_string().as_bytes());
        assert_eq!((put.status, put.header("oci-subject")), (201, subject.as_str()));
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [],
        "subject": {"mediaType": MANIFEST, "digest": subject, "size": 7}});
    let put = server.push_manifest("a", "index", INDEX, index.to_string().as_bytes());
    assert_eq!((put.status, put.header("oci-subject")), (201, subject.as_str()));
    let all = list("").json();
    let all = all["manifests"].as_array().unwrap();
    assert_eq!(all.len(), 3);
    let find = |digest: &str| all.iter().find(|m| m["digest"] == digest).unwrap();
    let found = find(&sbom_digest);
    assert_eq!(found["artifactType"], "application/vnd.example.sbom");
    assert_eq!(found["annotations"], json!({"org.example": "note"}));
    assert_eq!((&found["mediaType"], &found["size"]), (&json!(MANIFEST), &json!(sbom.to_string().len())));
    assert_eq!(find(&plain_digest)["artifactType"], "application/vnd.example.config", "its config's type");
    assert!(find(&sha256(index.to_string().as_bytes())).get("artifactType").is_none());
    let filtered = list("?artifactType=application/vnd.example.sbom");
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    assert_eq!(filtered.json()["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(list("?artifactType=none").json()["manifests"], json!([]));
    assert_eq!(server.get("/v2/a/referrers/sha256:12").error(), "400 DIGEST_INVALID");
    let elsewhere = server.get(&format!("/v2/none/referrers/{subject}"));
    assert_eq!((elsewhere.status, elsewhere.json()["manifests"].clone()), (200, json!([])), "never 404");
}

#[test]
fn referrers_may_come_before_their_subject_and_by_the_tag_schema() {
    let (_store, server) = served();
    let manifest = image(&server, "a", b"late");
    let subject = sha256(&manifest);
    let (early, early_digest) = referrer(&server, "a", &subject, Some("x/early"));
    let early = early.to_string();
    assert_eq!(server.push_manifest("a", &early_digest, MANIFEST, early.as_bytes()).status, 201);
    // What a client without the referrers API has left: an index under the digest's tag.
    let index = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [descriptor(MANIFEST, early.as_bytes())]});
    let tag = subject.replace(':', "-");
    assert_eq!(server.push_manifest("a", &tag, INDEX, index.to_string().as_bytes()).status, 201);
    let list = server.get(&format!("/v2/a/referrers/{subject}")).json();
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(list["manifests"][0]["artifactType"], "x/early");
}

#[test]
fn deletes_tags() {
    let (_store, server) = served();
    let digest = push(&server, "a", "1", b"layer");
    push(&server, "a", "2", b"layer");
    for tag in ["1", "2"] {
        assert_eq!(server.delete(&format!("/v2/a/manifests/{tag}")).status, 202);
        assert_eq!(server.get(&format!("/v2/a/manifests/{tag}")).error(), "404 MANIFEST_UNKNOWN");
        assert_eq!(server.delete(&format!("/v2/a/manifests/{tag}")).error(), "404 MANIFEST_UNKNOWN");
        assert_eq!(server.get(&format!("/v2/a/manifests/{digest}")).status, 200, "the manifest stays");
    }
    assert_eq!(server.get("/v2/a/tags/list").json()["tags"], json!([]));
    // One whose tag moves on stays, too.
    let old = push(&server, "a", "3", b"old");
    push(&server, "a", "3", b"new");
    assert_eq!(server.get(&format!("/v2/a/manifests/{old}")).status, 200);
}

#[test]
fn deletes_manifests_then_blobs() {
    let (_store, server) = served();
    let digest = push(&server, "a", "1", b"layer");
    push(&server, "a", "2", b"layer");
    let (other, blob) = (push(&server, "b", "1", b"other"), sha256(b"layer"));
    let config = server.get("/v2/a/manifests/1").json()["config"]["digest"].as_str().unwrap().to_string();
    let blob = format!("/v2/a/blobs/{blob}");
    assert_eq!(server.delete(&blob).error(), "405 UNSUPPORTED", "an image needs it");
    assert_eq!(server.delete(&format!("/v2/a/manifests/{digest}")).status, 202);
    for reference in ["1", "2", &digest] {
        assert_eq!(server.get(&format!("/v2/a/manifests/{reference}")).error(), "404 MANIFEST_UNKNOWN");
    }
    assert_eq!(server.delete(&format!("/v2/a/manifests/{digest}")).error(), "404 MANIFEST_UNKNOWN");
    assert_eq!(server.delete(&format!("/v2/none/manifests/{digest}")).error(), "404 MANIFEST_UNKNOWN");
    assert_eq!(server.delete(&blob).status, 202);
    assert_eq!(server.get(&blob).error(), "404 BLOB_UNKNOWN");
    assert_eq!(server.delete(&blob).error(), "404 BLOB_UNKNOWN");
    let shared = format!("/v2/a/blobs/{config}");
    assert_eq!(server.delete(&shared).error(), "405 UNSUPPORTED", "another repository needs it");
    assert_eq!(server.get(&format!("/v2/b/manifests/{other}")).status, 200);
}

#[test]
fn read_only_means_405() {
    let (store, mut server) = served();
    let digest = push(&server, "a", "1", b"layer");
    server.end(rustix::process::Signal::INT);
    let server = Served::start(&store, &["--read-only"]);
    let blob = format!("/v2/a/blobs/{}", sha256(b"layer"));
    let upload = "/v2/a/blobs/uploads/";
    for (method, path) in [
        ("POST", upload.to_string()),
        ("POST", format!("{upload}?digest={}", sha256(b"x"))),
        ("PATCH", format!("{upload}x")),
        ("PUT", format!("{upload}x?digest={}", sha256(b"x"))),
        ("PUT", "/v2/a/manifests/2".into()),
        ("DELETE", "/v2/a/manifests/1".into()),
        ("DELETE", format!("/v2/a/manifests/{digest}")),
        ("DELETE", blob.clone()),
    ] {
        assert_eq!(server.request(method, &path, &[], b"x").error(), "405 UNSUPPORTED", "{method} {path}");
    }
    assert_eq!(server.get(&blob).body, b"layer");
    assert_eq!(server.get("/v2/a/tags/list").json()["tags"], json!(["1"]));
}

#[test]
fn pruning_takes_nothing_that_a_repository_or_a_push_needs() {
    let (store, server) = served();
    let digest = push(&server, "a", "1", b"layer");
    let (signature, signed) = referrer(&server, "a", &digest, Some("x/signature"));
    let signature = signature.to_string();
    assert_eq!(server.push_manifest("a", &signed, MANIFEST, signature.as_bytes()).status, 201);
    let loose = push(&server, "a", "2", b"loose");
    assert_eq!(server.delete("/v2/a/manifests/2").status, 202);
    let late = image(&server, "b", b"on its way");
    store.ok(&["prune", "--yes"]);
    assert_eq!(server.push_manifest("b", "1", MANIFEST, &late).status, 201, "its blobs were held");
    for reference in ["1", &digest, &signed] {
        assert_eq!(server.get(&format!("/v2/a/manifests/{reference}")).status, 200, "{reference}");
    }
    let list = server.get(&format!("/v2/a/referrers/{digest}")).json();
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(server.get(&format!("/v2/a/manifests/{loose}")).status, 404, "nobody leads to it");
    store.ok(&["fsck"]);
}
