//! `shipimg serve` as other tools use it, and under bad clients and sudden ends.

use crate::common::layout::{Blob, Layout, sha256};
use crate::common::registry::Registry;
use crate::common::serve::{Answer, Served};
use crate::common::{TestStore, describe, ok, output};
use crate::faults::certificate;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// `me:open sesame`, by crypt(3) with bcrypt.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n";

/// A layout with `img:1`, an image of two layers of one file each; gives its digest, too.
fn layout(dir: &Path) -> (Layout, String) {
    let layout = Layout::new(&dir.join("layout"));
    let layer =
        |name: &str| Blob::gzip(&crate::common::layout::Tar::new().file(name, name.as_bytes()).finish());
    let digest = layout.add("img:1", &[layer("one"), layer("two")], &json!({"Cmd": ["/one"]}));
    (layout, digest)
}

fn skopeo(args: &[&str]) -> String {
    ok("skopeo", &[&["--insecure-policy"], args].concat())
}

fn push(layout: &Layout, server: &Served, name: &str) {
    let source = format!("oci:{}:img:1", layout.path().display());
    let to = format!("docker://{}/{name}", server.host());
    skopeo(&["copy", "-q", "--dest-tls-verify=false", &source, &to]);
}

/// Where nothing may be left but what was published.
fn assert_no_leftovers(store: &TestStore) {
    for dir in ["shipimg/tmp", "shipimg/ingest"] {
        let left: Vec<_> = fs::read_dir(store.path().join(dir)).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn skopeo_pushes_inspects_lists_copies_and_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, digest) = layout(dir.path());
    let store = TestStore::new();
    let server = Served::start(&store, &[]);
    push(&layout, &server, "lab/app:1");
    push(&layout, &server, "lab/app:2");
    let name = format!("docker://{}/lab/app", server.host());
    let seen: Value =
        serde_json::from_str(&skopeo(&["inspect", "--tls-verify=false", &format!("{name}:1")])).unwrap();
    assert_eq!((&seen["Digest"], &seen["RepoTags"]), (&json!(digest), &json!(["1", "2"])));
    let tags: Value = serde_json::from_str(&skopeo(&["list-tags", "--tls-verify=false", &name])).unwrap();
    assert_eq!(tags["Tags"], json!(["1", "2"]));
    let copied = Layout::new(&dir.path().join("copied"));
    let to = format!("oci:{}:img:1", copied.path().display());
    skopeo(&["copy", "-q", "--src-tls-verify=false", &format!("{name}@{digest}"), &to]);
    for file in fs::read_dir(layout.path().join("blobs/sha256")).unwrap() {
        let file = file.unwrap();
        let other = copied.path().join("blobs/sha256").join(file.file_name());
        assert_eq!(fs::read(file.path()).unwrap(), fs::read(other).unwrap());
    }
    // It is an image of the store like any other.
    let images = store.ok(&["images"]);
    assert!(images.contains(&format!("{}/lab/app:1", server.host())), "{images}");
    let seen: Value = serde_json::from_str(&store.ok(&["inspect", "lab/app:2"])).unwrap();
    assert_eq!(seen["digest"], json!(digest));
    skopeo(&["delete", "--tls-verify=false", &format!("{name}:1")]);
    assert_eq!(server.get("/v2/lab/app/manifests/1").error(), "404 MANIFEST_UNKNOWN");
}

#[test]
fn skopeo_copies_all_platforms() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, _) = layout(dir.path());
    let members: Vec<Value> = ["amd64", "arm64"]
        .iter()
        .map(|arch| {
            let config =
                json!({"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
            let config =
                layout.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
            let media_type = "application/vnd.oci.image.manifest.v1+json";
            let manifest =
                json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": []});
            let mut member = layout.put(media_type, manifest.to_string().as_bytes());
            member["platform"] = json!({"architecture": arch, "os": "linux"});
            member
        })
        .collect();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": members});
    let digest = layout.name("multi:1", media_type, index.to_string().as_bytes());
    let store = TestStore::new();
    let server = Served::start(&store, &[]);
    let source = format!("oci:{}:multi:1", layout.path().display());
    let name = format!("docker://{}/multi:1", server.host());
    skopeo(&["copy", "-q", "--all", "--dest-tls-verify=false", &source, &name]);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &name]);
    assert_eq!(sha256(raw.as_bytes()), digest);
    let to = format!("oci:{}:multi:1", dir.path().join("back").display());
    skopeo(&["copy", "-q", "--all", "--src-tls-verify=false", &name, &to]);
    assert_eq!(store.ok(&["images", "--quiet"]).lines().count(), 1, "members are not images of their own");
}

#[test]
fn shipimg_pulls_what_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, digest) = layout(dir.path());
    let (from, to) = (TestStore::new(), TestStore::new());
    let server = Served::start(&from, &[]);
    push(&layout, &server, "lab/app:1");
    let reference = format!("{}/lab/app:1", server.host());
    assert_eq!(to.ok(&["pull", &reference]), format!("{reference} {digest}\n"));
    let root = dir.path().join("root");
    to.ok(&["unpack", &reference, root.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(root.join("rootfs/two")).unwrap(), "two");
    assert_no_leftovers(&to);
}

#[test]
fn pulled_images_are_served_under_their_short_names() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, digest) = layout(dir.path());
    let store = TestStore::new();
    let fill = |name: &str| {
        // As a pull from that registry would leave it.
        let source = format!("oci:{}:img:1", layout.path().display());
        skopeo(&["copy", "-q", &source, &format!("oci:{}:{name}", store.path().display())]);
    };
    store.ok(&["images"]);
    fill("docker.io/library/alpine:3");
    fill("quay.io/org/app:1");
    let server = Served::start(&store, &[]);
    for (repository, tag) in [
        ("alpine", "3"),
        ("library/alpine", "3"),
        ("docker.io/library/alpine", "3"),
        ("org/app", "1"),
        ("quay.io/org/app", "1"),
    ] {
        for host in [server.host(), "laptop.lan:5000".into(), "my_laptop".into()] {
            let headers = [("Host", host.as_str())];
            let manifest = format!("/v2/{repository}/manifests/{tag}");
            let answer = server.request("GET", &manifest, &headers, b"");
            assert_eq!((answer.status, sha256(&answer.body)), (200, digest.clone()), "{host} {repository}");
        }
        let tags = server.get(&format!("/v2/{repository}/tags/list")).json();
        assert_eq!(tags["tags"], json!([tag]), "{repository}");
    }
    assert_eq!(server.get("/v2/library/alpine/manifests/3?ns=docker.io").status, 200);
    assert_eq!(server.get("/v2/library/alpine/manifests/3?ns=quay.io").status, 404);
    // A push under the same name is another image, and the pulled one cannot be deleted.
    assert_eq!(server.delete("/v2/alpine/manifests/3").error(), "405 UNSUPPORTED");
    assert_eq!(server.delete(&format!("/v2/alpine/manifests/{digest}")).error(), "405 UNSUPPORTED");
    for host in ["docker.io", "index.docker.io:443"] {
        let manifest = server.get("/v2/alpine/manifests/3").body;
        let mine = String::from_utf8(manifest).unwrap().replace("{\"schema", "{ \"schema");
        let headers = [("Host", host), ("Content-Type", "application/vnd.oci.image.manifest.v1+json")];
        let put = server.request("PUT", "/v2/library/alpine/manifests/3", &headers, mine.as_bytes());
        assert_eq!(put.status, 201);
        let seen: Value =
            serde_json::from_str(&store.ok(&["inspect", "docker.io/library/alpine:3"])).unwrap();
        assert_eq!(seen["digest"], json!(digest), "no Host header replaces what was pulled");
    }
}

#[test]
fn podman_pushes_and_pulls() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, _) = layout(dir.path());
    let store = TestStore::new();
    let server = Served::start(&store, &[]);
    let podman = |storage: &str, args: &[&str]| {
        let at = |name: &str| dir.path().join(storage).join(name).to_str().unwrap().to_string();
        let (root, run, tmp) = (at("root"), at("run"), at("tmp"));
        let own = [
            "--root",
            &root,
            "--runroot",
            &run,
            "--tmpdir",
            &tmp,
            "--storage-driver",
            "vfs",
            "--events-backend",
            "none",
        ];
        ok("podman", &[own.as_slice(), args].concat())
    };
    let name = format!("{}/lab/podman:1", server.host());
    push(&layout, &server, "lab/app:1");
    let first = format!("{}/lab/app:1", server.host());
    let id = podman("a", &["pull", "-q", "--tls-verify=false", &first]);
    podman("a", &["push", "-q", "--tls-verify=false", id.trim(), &name]);
    let pulled = podman("b", &["pull", "-q", "--tls-verify=false", &name]);
    assert_eq!(pulled.trim(), id.trim());
    store.ok(&["inspect", &name]);
}

#[test]
fn docker_registry_proxies_it() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, digest) = layout(dir.path());
    let store = TestStore::new();
    let server = Served::start(&store, &[]);
    push(&layout, &server, "lab/app:1");
    let mirror = Registry::start_with(&format!("proxy: {{remoteurl: \"http://{}\"}}\n", server.host()));
    let to = dir.path().join("pulled");
    let from = format!("docker://{}/lab/app:1", mirror.host());
    skopeo(&["copy", "-q", "--src-tls-verify=false", &from, &format!("oci:{}:x", to.display())]);
    let index: Value = serde_json::from_slice(&fs::read(to.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], json!(digest));
}

#[test]
fn passwords_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (layout, digest) = layout(dir.path());
    let (cert, key) = certificate(dir.path());
    // One user by a known hash, one by htpasswd itself.
    let users = path("htpasswd");
    fs::write(&users, format!("# who may\n\n{HTPASSWD}")).unwrap();
    ok("htpasswd", &["-bB", &users, "anna", "geheim"]);
    let store = TestStore::new();
    let server = Served::start(&store, &["--htpasswd", &users, "--tls-cert", &cert, "--tls-key", &key]);
    assert!(server.url().starts_with("https://127.0.0.1:"), "{}", server.url());
    let certs = dir.path().join("certs");
    fs::create_dir(&certs).unwrap();
    fs::copy(&cert, certs.join("ca.crt")).unwrap();
    let certs = certs.to_str().unwrap();
    let source = format!("oci:{}:img:1", layout.path().display());
    let name = format!("docker://{}/lab/app:1", server.host());
    let copy = |creds: &str| {
        let args = [
            "--insecure-policy",
            "copy",
            "-q",
            "--dest-cert-dir",
            certs,
            "--dest-creds",
            creds,
            &source,
            &name,
        ];
        output("skopeo", &args).status.success()
    };
    assert!(!copy("me:wrong") && !copy("you:open sesame"));
    assert!(copy("me:open sesame") && copy("anna:geheim"));
    let auth = path("auth.json");
    let login = |password: &str| {
        let args =
            ["login", "--authfile", &auth, "--cert-dir", certs, "-u", "anna", "-p", password, &server.host()];
        output("podman", &args).status.success()
    };
    assert!(!login("falsch") && login("geheim"));
    let args = ["inspect", "--authfile", &auth, "--cert-dir", certs, &name];
    let seen: Value = serde_json::from_str(&skopeo(&args)).unwrap();
    assert_eq!(seen["Digest"], json!(digest));
    let other = TestStore::new();
    let reference = format!("{}/lab/app:1", server.host());
    let mut pull = other.command();
    pull.args(["pull", "--creds", "anna:geheim", &reference]).env("SSL_CERT_FILE", &cert);
    let out = crate::common::collect(&mut pull);
    assert!(out.status.success(), "{}", describe("pull", &[&reference], &out));
}

#[test]
fn asks_for_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("htpasswd");
    fs::write(&users, HTPASSWD).unwrap();
    let store = TestStore::new();
    let server = Served::start(&store, &["--htpasswd", users.to_str().unwrap()]);
    let right = ("Authorization", "Basic bWU6b3BlbiBzZXNhbWU=");
    for headers in [
        vec![],
        vec![("Authorization", "Basic bWU6d3Jvbmc=")],
        vec![("Authorization", "Bearer bWU6b3BlbiBzZXNhbWU=")],
        vec![("Authorization", "Basic !")],
    ] {
        for path in ["/v2/", "/v2/_catalog", "/v2/a/blobs/x"] {
            let answer = server.request("GET", path, &headers, b"");
            assert_eq!(answer.error(), "401 UNAUTHORIZED");
            assert!(answer.header("www-authenticate").starts_with("Basic realm="));
            assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
        }
    }
    for _ in 0..2 {
        assert_eq!(server.request("GET", "/v2/", &[right], b"").status, 200);
    }
    assert_eq!(server.request("POST", "/v2/a/blobs/uploads/", &[], b"").error(), "401 UNAUTHORIZED");
}

#[test]
fn refuses_to_start_with_what_does_not_serve() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let store = TestStore::new();
    let (cert, key) = certificate(dir.path());
    let md5 = write("md5", "# x\nme:$apr1$x$y\n");
    let (empty, junk) = (write("empty", "# nobody\n"), write("junk", "no pem"));
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = busy.local_addr().unwrap().to_string();
    let any = ["serve", "--listen", "127.0.0.1:0"];
    for (code, args, said) in [
        (2, vec!["--htpasswd", &md5], "line 2: the password is not hashed by bcrypt"),
        (2, vec!["--htpasswd", &empty], "names no user"),
        (10, vec!["--htpasswd", "/nowhere"], "read /nowhere"),
        (2, vec!["--tls-cert", &junk, "--tls-key", &key], "junk"),
        (2, vec!["--tls-cert", &cert, "--tls-key", &junk], "junk"),
        (1, vec!["--listen", &busy], "listen on"),
    ] {
        let args =
            if args[0] == "--listen" { [&["serve"], &args[..]].concat() } else { [&any, &args[..]].concat() };
        let stderr = store.fails(code, &args);
        assert!(stderr.contains(said), "{args:?}: {stderr}");
    }
    store.fails(2, &["serve", "--tls-cert", &cert]);
    store.fails(2, &["serve", "--listen", "nonsense"]);
}

#[test]
fn warns_where_strangers_can_reach_it() {
    let store = TestStore::new();
    let said = |listen: &str, read_only: bool| {
        let mut command = store.command();
        command.args(["serve", "--listen", listen]);
        if read_only {
            command.arg("--read-only");
        }
        let mut child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 12];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        child.kill().unwrap();
        let out = child.wait_with_output().unwrap();
        String::from_utf8(out.stderr).unwrap()
    };
    assert!(said("0.0.0.0:0", false).contains("may pull and push"));
    assert!(said("0.0.0.0:0", true).contains("may pull, see --htpasswd"));
    assert_eq!(said("127.0.0.1:0", false), "");
    assert_eq!(said("[::1]:0", false), "");
}

#[test]
fn sixteen_push_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = TestStore::new();
    let server = Served::start(&store, &[]);
    let shared = vec![7u8; 2_000_000];
    let pushers: Vec<_> = (0..16u8)
        .map(|n| {
            let layout = Layout::new(&dir.path().join(n.to_string()));
            let own = Blob::tar(&vec![n; 100_000]);
            layout.add("img:1", &[Blob::tar(&shared), own], &json!({"Env": [format!("N={n}")]}));
            let source = format!("oci:{}:img:1", layout.path().display());
            let to = format!("docker://{}/lab/app:{n}", server.host());
            Command::new("skopeo")
                .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &source, &to])
                .spawn()
                .unwrap()
        })
        .collect();
    for mut pusher in pushers {
        assert!(pusher.wait().unwrap().success());
    }
    let tags = server.get("/v2/lab/app/tags/list").json();
    assert_eq!(tags["tags"].as_array().unwrap().len(), 16);
    for n in 0..16u8 {
        let manifest = server.get(&format!("/v2/lab/app/manifests/{n}")).json();
        for layer in manifest["layers"].as_array().unwrap() {
            let digest = layer["digest"].as_str().unwrap();
            assert_eq!(sha256(&server.get(&format!("/v2/lab/app/blobs/{digest}")).body), digest);
        }
    }
    drop(server);
    store.ok(&["images"]);
    assert_no_leftovers(&store);
}

/// A connection that has sent `sent` bytes of a body of `size` to a fresh upload.
fn half_push(server: &Served, size: usize, sent: usize) -> std::net::TcpStream {
    let location = server.upload("lab/app");
    let mut stream = server.connect();
    let digest = sha256(&vec![1u8; size]);
    let head = format!(
        "PUT {location}?digest={digest} HTTP/1.1\r\nHost: {}\r\nContent-Length: {size}\r\n\r\n",
        server.host()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![1u8; sent]).unwrap();
    // The bytes are in a file once the status says so; the writer has it meanwhile.
    while server.get(&location).status != 409 {
        std::thread::sleep(Duration::from_millis(5));
    }
    stream
}

#[test]
fn killed_in_the_middle_of_a_push() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, digest) = layout(dir.path());
    let store = TestStore::new();
    let mut server = Served::start(&store, &[]);
    let _stream = half_push(&server, 1_000_000, 600_000);
    assert_eq!(fs::read_dir(store.path().join("shipimg/tmp")).unwrap().count(), 1);
    server.end(rustix::process::Signal::KILL);
    assert_eq!(fs::read_dir(store.path().join("blobs/sha256")).unwrap().count(), 0);
    let server = Served::start(&store, &[]);
    assert_eq!(fs::read_dir(store.path().join("shipimg/tmp")).unwrap().count(), 1, "the new server's own");
    push(&layout, &server, "lab/app:1");
    assert_eq!(sha256(&server.get("/v2/lab/app/manifests/1").body), digest);
}

#[test]
fn ends_in_good_order() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let store = TestStore::new();
        let mut server = Served::start(&store, &[]);
        let idle = server.connect();
        let _half = half_push(&server, 1_000_000, 600_000);
        let begun = Instant::now();
        assert_eq!(server.end(signal).code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
        drop(idle);
        assert_no_leftovers(&store);
        assert_eq!(fs::read_dir(store.path().join("blobs/sha256")).unwrap().count(), 0);
    }
}

#[test]
fn a_push_that_breaks_off_goes_on() {
    let store = TestStore::new();
    let server = Served::start(&store, &[]);
    let (blob, location) = (vec![3u8; 900_000], server.upload("lab/app"));
    let mut stream = server.connect();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x:1\r\nContent-Length: 900000\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&blob[..500_000]).unwrap();
    drop(stream);
    let end = Instant::now() + Duration::from_secs(20);
    let mut status = server.get(&location);
    while status.status == 409 || status.find("range") == Some("0-0") {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(10));
        status = server.get(&location);
    }
    let there: usize = status.header("range").strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
    assert!(there <= 500_000);
    let range = format!("{there}-899999");
    let path = format!("{location}?digest={}", sha256(&blob));
    let put = server.request("PUT", &path, &[("Content-Range", &range)], &blob[there..]);
    assert_eq!(put.status, 201);
    assert!(server.get(put.header("location")).body == blob);
}

#[test]
fn large_blobs_need_no_memory() {
    const SIZE: u64 = 512 << 20;
    let store = TestStore::new();
    let server = Served::start(&store, &[]);
    let piece = vec![9u8; 1 << 20];
    let mut hasher = <sha2::Sha256 as sha2::Digest>::new();
    let location = server.upload("big");
    let mut stream = server.connect();
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x:1\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..SIZE >> 20 {
        stream.write_all(&piece).unwrap();
        sha2::Digest::update(&mut hasher, &piece);
    }
    assert_eq!(Answer::read(stream, false).status, 202);
    let hex: String = sha2::Digest::finalize(hasher).iter().map(|b| format!("{b:02x}")).collect();
    let put = server.request("PUT", &format!("{location}?digest=sha256:{hex}"), &[], b"");
    assert_eq!(put.status, 201);
    // Two readers, one of which takes its time.
    let get = format!("GET {} HTTP/1.1\r\nHost: x:1\r\nConnection: close\r\n\r\n", put.header("location"));
    let mut slow = server.connect();
    slow.write_all(get.as_bytes()).unwrap();
    let mut fast = server.connect();
    fast.write_all(get.as_bytes()).unwrap();
    assert!(std::io::copy(&mut fast, &mut std::io::sink()).unwrap() > SIZE);
    assert!(server.peak() < 64 << 10, "{} KiB", server.peak());
}

#[test]
fn trickling_clients_keep_nobody_waiting() {
    let store = TestStore::new();
    let server = Served::start(&store, &[]);
    let digest = server.push_blob("a", b"content");
    let slow: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /v2/ HTTP/1.1\r\nX-Slow: ").unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).body, b"content");
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(slow);
    // A head without end is refused.
    let mut stream = server.connect();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\n").unwrap();
    let line = format!("X: {}\r\n", "x".repeat(8000));
    let written = (0..200).try_for_each(|_| stream.write_all(line.as_bytes()));
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    assert!(written.is_err() || read.is_err() || answer.starts_with(b"HTTP/1.1 431"));
}

#[test]
fn logs_requests_when_asked() {
    let store = TestStore::new();
    let log = tempfile::tempfile().unwrap();
    let mut child = store
        .command()
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("SHIPIMG_LOG", "info")
        .stdout(std::process::Stdio::piped())
        .stderr(log.try_clone().unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /v2/a/tags/list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(Answer::read(stream, false).status, 404);
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut log, mut text) = (log, String::new());
    log.rewind().and_then(|()| log.read_to_string(&mut text)).unwrap();
    assert!(text.contains("GET /v2/a/tags/list 404"), "{text}");
}

#[test]
fn who_looks_at_an_upload_is_in_nobody_s_way() {
    let store = TestStore::new();
    let server = Served::start(&store, &[]);
    let location = server.upload("lab/app");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(server.get(&location).status, 204);
                    server.upload("lab/app");
                }
            });
        }
        let chunks = (0..200).all(|_| server.request("PATCH", &location, &[], b"chunk").status == 202);
        done.store(true, Ordering::Relaxed);
        assert!(chunks);
    });
}
