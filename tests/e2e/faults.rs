//! Pulling through a network and from servers that misbehave.

use crate::common::layout::{Blob, Layout, sha256};
use crate::common::proxy::{Fault, Proxy, Request, status};
use crate::common::registry::{Registry, free_port};
use crate::common::{TestStore, bin, ok, output};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const SIZE: usize = 2 << 20;

/// A registry with the image `img:1` of one layer of two MiB.
struct Server {
    registry: Registry,
    layer: Vec<u8>,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut layer = Vec::with_capacity(SIZE);
        let mut x = 1_u64;
        while layer.len() < SIZE {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            layer.extend_from_slice(&x.to_be_bytes()[..4]);
        }
        let layout = Layout::new(dir.path());
        // skopeo would compress a plain tar on its way.
        let blob = Blob::gzip(&layer);
        let layer = blob.bytes.clone();
        layout.add("img:1", &[blob], &json!({}));
        let registry = Registry::start();
        registry.fill(&layout, "img:1");
        Self { registry, layer, _dir: dir }
    }

    /// A proxy that does `fault` to requests for the layer, by their number.
    fn proxy(&self, fault: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Proxy {
        let digest = sha256(&self.layer);
        let is_layer = move |r: &Request| r.path.ends_with(&digest);
        Proxy::start(self.registry.port(), move |r| if is_layer(r) { fault(r) } else { Fault::None })
    }

    fn blob(&self) -> String {
        format!("blobs/sha256/{}", &sha256(&self.layer)[7..])
    }

    fn assert_pulled(&self, store: &TestStore) {
        assert_eq!(fs::read(store.path().join(self.blob())).unwrap(), self.layer);
        assert!(store.ok(&["images"]).contains("/img:1 "));
    }

    fn layer_requests(&self, proxy: &Proxy) -> Vec<Request> {
        proxy.requests(&sha256(&self.layer))
    }
}

fn pull(store: &TestStore, proxy: &Proxy) -> String {
    store.ok(&["pull", "-q", "--stall-timeout", "1", &format!("{}/img:1", proxy.host())])
}

fn fails(store: &TestStore, code: i32, proxy: &Proxy) -> String {
    store.fails(code, &["pull", "-q", "--stall-timeout", "1", &format!("{}/img:1", proxy.host())])
}

/// No name and no blob of the layer; what may be left is a part under `ingest/`.
fn assert_nothing_published(store: &TestStore, server: &Server) {
    assert_eq!(store.ok(&["images"]), "");
    assert!(!store.path().join(server.blob()).exists());
}

#[test]
fn broken_transfers_go_on_where_they_were() {
    let server = Server::start();
    for fault in [Fault::Truncate(700_000), Fault::Reset(700_000), Fault::Stall(700_000)] {
        let store = TestStore::new();
        let first = fault.clone();
        let proxy = server.proxy(move |r| if r.before == 0 { first.clone() } else { Fault::None });
        pull(&store, &proxy);
        server.assert_pulled(&store);
        let ranges: Vec<_> = server.layer_requests(&proxy).into_iter().map(|r| r.range).collect();
        assert_eq!(ranges, [None, Some("bytes=700000-".to_string())], "{fault:?}");
    }
}

#[test]
fn progress_forgives_failures() {
    let server = Server::start();
    let store = TestStore::new();
    let proxy = server.proxy(|r| if r.before < 8 { Fault::Truncate(100_000) } else { Fault::None });
    pull(&store, &proxy);
    server.assert_pulled(&store);
    assert_eq!(server.layer_requests(&proxy).len(), 9);
}

#[test]
fn a_whole_answer_to_a_range_starts_again() {
    let server = Server::start();
    let store = TestStore::new();
    let proxy = server.proxy(|r| if r.before == 0 { Fault::Truncate(700_000) } else { Fault::IgnoreRange });
    pull(&store, &proxy);
    server.assert_pulled(&store);
    assert!(server.layer_requests(&proxy)[1].range.is_some());
}

#[test]
fn wrong_content_range_is_refused() {
    let server = Server::start();
    for range in ["bytes 0-2097151/2097152", "bytes 700000-2097151/9", "nonsense"] {
        let store = TestStore::new();
        let proxy =
            server.proxy(
                move |r| if r.before == 0 { Fault::Truncate(700_000) } else { Fault::ContentRange(range) },
            );
        let e = fails(&store, 6, &proxy);
        assert!(e.contains("from 700000 on") && e.contains(range), "{e}");
        assert_nothing_published(&store, &server);
    }
}

#[test]
fn statuses_that_pass_are_tried_again() {
    let server = Server::start();
    for line in ["429 Too Many Requests", "500 Internal Server Error", "502 Bad Gateway", "503 Unavailable"] {
        let store = TestStore::new();
        let first = move |r: &Request| {
            if r.before == 0 && !r.path.ends_with("/v2/") { status(line, &[]) } else { Fault::None }
        };
        let proxy = Proxy::start(server.registry.port(), first);
        pull(&store, &proxy);
        server.assert_pulled(&store);
        assert_eq!(proxy.requests("/manifests/").len(), 2, "{line}");
        assert_eq!(server.layer_requests(&proxy).len(), 2, "{line}");
    }
}

#[test]
fn retry_after_is_honoured_and_bounded() {
    let server = Server::start();
    let store = TestStore::new();
    let polite = server.proxy(|r| match r.before {
        0 => status("429 Too Many Requests", &["Retry-After: 2"]),
        _ => Fault::None,
    });
    let start = Instant::now();
    pull(&store, &polite);
    assert!(start.elapsed() >= Duration::from_secs(2));
    server.assert_pulled(&store);

    let store = TestStore::new();
    let endless = server.proxy(|_| status("429 Too Many Requests", &["Retry-After: 3600"]));
    let e = fails(&store, 6, &endless);
    assert!(e.contains("answered 429"), "{e}");
    assert_eq!(server.layer_requests(&endless).len(), 1);
}

#[test]
fn what_does_not_pass_is_an_error() {
    let server = Server::start();
    let store = TestStore::new();
    let down = server.proxy(|_| status("503 Service Unavailable", &[]));
    let e = fails(&store, 6, &down);
    assert!(e.contains("localhost:") && e.contains("503"), "{e}");
    assert_eq!(server.layer_requests(&down).len(), 5);
    assert_nothing_published(&store, &server);

    let slow = server.proxy(|_| Fault::Trickle);
    let e = fails(&store, 6, &slow);
    assert!(e.contains("next to nothing"), "{e}");
    assert_nothing_published(&store, &server);
}

#[test]
fn corrupt_bytes_are_thrown_away() {
    let server = Server::start();
    let store = TestStore::new();
    let proxy = server.proxy(|r| if r.before == 0 { Fault::Corrupt } else { Fault::None });
    let e = fails(&store, 9, &proxy);
    assert!(e.contains("content has digest") && e.contains(&sha256(&server.layer)), "{e}");
    assert_nothing_published(&store, &server);
    pull(&store, &proxy);
    server.assert_pulled(&store);
}

#[test]
fn damaged_leftovers_are_fetched_again() {
    let server = Server::start();
    let store = TestStore::new();
    store.ok(&["images"]);
    let left = store.path().join(format!("shipimg/ingest/sha256-{}", &sha256(&server.layer)[7..]));
    fs::write(&left, vec![0; 1000]).unwrap();
    let proxy = server.proxy(|_| Fault::None);
    pull(&store, &proxy);
    server.assert_pulled(&store);
    assert!(!left.exists());
}

#[test]
fn redirects_carry_no_credentials_elsewhere() {
    let server = Server::start();
    let store = TestStore::new();
    let elsewhere = Proxy::start(server.registry.port(), |_| Fault::None);
    let port = elsewhere.port();
    let proxy = Proxy::start(server.registry.port(), move |r| {
        if r.authorization.is_none() {
            return status("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""]);
        }
        if !r.path.contains("/blobs/") {
            return Fault::None;
        }
        status("307 Temporary Redirect", &[&format!("Location: http://127.0.0.1:{port}{}", r.path)])
    });
    store.ok(&["pull", "-q", "--creds", "me:secret", &format!("{}/img:1", proxy.host())]);
    server.assert_pulled(&store);
    assert!(proxy.requests("/blobs/").iter().any(|r| r.authorization.is_some()));
    let there = elsewhere.requests("/blobs/");
    assert!(there.len() == 2 && there.iter().all(|r| r.authorization.is_none()), "{there:?}");
}

#[test]
fn redirects_end() {
    let server = Server::start();
    let store = TestStore::new();
    let looping = Proxy::start(server.registry.port(), |r| {
        if r.path.contains("/blobs/") {
            status("302 Found", &[&format!("Location: {}", r.path)])
        } else {
            Fault::None
        }
    });
    let e = fails(&store, 6, &looping);
    assert!(e.contains("too many redirects"), "{e}");
    let away = Proxy::start(server.registry.port(), |r| {
        if r.path.contains("/blobs/") {
            status("302 Found", &["Location: http://registry.example/x"])
        } else {
            Fault::None
        }
    });
    let e = fails(&store, 6, &away);
    assert!(e.contains("plain http is for this machine only"), "{e}");
}

/// A registry that wants the token `T` from the token server at `realm`.
fn token_registry(server: &Server, realm: String) -> Proxy {
    Proxy::start(server.registry.port(), move |r| match r.authorization.as_deref() {
        Some("Bearer T") => Fault::None,
        _ => status(
            "401 Unauthorized",
            &[&format!(
                "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:img:pull\""
            )],
        ),
    })
}

fn token_server() -> Proxy {
    Proxy::start(free_port(), |_| Fault::Answer("200 OK", vec![], r#"{"token":"T"}"#.to_string()))
}

#[test]
fn a_token_realm_elsewhere_gets_no_credentials() {
    let server = Server::start();
    for (host, sent) in [("localhost", true), ("127.0.0.1", false)] {
        let store = TestStore::new();
        let tokens = token_server();
        let proxy = token_registry(&server, format!("http://{host}:{}/token", tokens.port()));
        store.ok(&["pull", "-q", "--creds", "me:secret", &format!("{}/img:1", proxy.host())]);
        server.assert_pulled(&store);
        let asked = tokens.requests("/token");
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].path, "/token?scope=repository%3Aimg%3Apull&service=s");
        let want = sent.then(|| "Basic bWU6c2VjcmV0".to_string());
        assert_eq!(asked[0].authorization, want, "{host}");
    }
}

#[test]
fn an_identity_token_goes_to_its_own_realm_only() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    for (host, sent) in [("localhost", true), ("127.0.0.1", false)] {
        let store = TestStore::new();
        let tokens = token_server();
        let proxy = token_registry(&server, format!("http://{host}:{}/token", tokens.port()));
        let auths = json!({"auths": {proxy.host(): {"identitytoken": "refresh&me"}}});
        fs::write(&file, auths.to_string()).unwrap();
        let mut command = store.command();
        command.env("REGISTRY_AUTH_FILE", &file).args(["pull", "-q", &format!("{}/img:1", proxy.host())]);
        assert!(command.output().unwrap().status.success());
        server.assert_pulled(&store);
        let body = "scope=repository%3Aimg%3Apull&service=s&grant_type=refresh_token&client_id=shipimg&refresh_token=refresh%26me";
        let asked = tokens.requests("/token");
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].body, if sent { body } else { "" }, "{host}");
        assert!(asked[0].authorization.is_none() && !asked[0].path.contains("refresh"));
    }
}

#[test]
fn a_token_that_runs_out_is_renewed() {
    let server = Server::start();
    let store = TestStore::new();
    let tokens = Proxy::start(free_port(), |r| {
        Fault::Answer("200 OK", vec![], format!("{{\"token\":\"T{}\"}}", r.before))
    });
    let realm = format!("http://localhost:{}/token", tokens.port());
    let digest = sha256(&server.layer);
    let proxy = Proxy::start(server.registry.port(), move |r| {
        let wanted = if r.path.ends_with(&digest) { "Bearer T1" } else { "Bearer T0" };
        match r.authorization.as_deref() {
            Some(token) if token == wanted => Fault::None,
            _ => status("401 Unauthorized", &[&format!("WWW-Authenticate: Bearer realm=\"{realm}\"")]),
        }
    });
    pull(&store, &proxy);
    server.assert_pulled(&store);
    assert_eq!(tokens.requests("/token").len(), 2);
}

#[test]
fn a_full_disk_leaves_a_part_that_is_gone_on_with() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let proxy = server.proxy(|_| Fault::None);
    // In a mount namespace of its own, so that no mount is left behind.
    let script = "mount -t tmpfs -o size=1m none $0 && cd / && \
        { $1 --root $0 pull -q $2; echo code $?; $1 --root $0 images; } && \
        mount -o remount,size=8m $0 && $1 --root $0 pull -q $2";
    let root = dir.path().to_str().unwrap();
    let args = ["--mount", "sh", "-c", script, root, bin(), &format!("{}/img:1", proxy.host())];
    let out = output("unshare", &args);
    let (told, e) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && e.contains("No space left on device"), "{e}");
    assert!(told.starts_with("code 1\nlocalhost:"), "{told}");
    let ranges: Vec<_> = server.layer_requests(&proxy).into_iter().map(|r| r.range).collect();
    assert!(ranges.len() == 2 && ranges[1].is_some(), "{ranges:?}");
}

#[test]
fn a_realm_on_plain_http_elsewhere_is_not_asked() {
    let server = Server::start();
    let store = TestStore::new();
    let proxy = token_registry(&server, "http://tokens.example/token".to_string());
    let e = fails(&store, 6, &proxy);
    assert!(e.contains("token server is not on https"), "{e}");
}

#[test]
fn a_token_answer_without_end_is_cut_off() {
    let server = Server::start();
    let store = TestStore::new();
    let tokens = Proxy::start(free_port(), |_| Fault::Answer("200 OK", vec![], "x".repeat(2 << 20)));
    let proxy = token_registry(&server, format!("http://localhost:{}/token", tokens.port()));
    let e = fails(&store, 9, &proxy);
    assert!(e.contains("more than 1048576 bytes"), "{e}");
}

#[test]
fn a_killed_pull_is_gone_on_with() {
    let server = Server::start();
    let store = TestStore::new();
    let proxy = server.proxy(|r| if r.before == 0 { Fault::Stall(700_000) } else { Fault::None });
    let reference = format!("{}/img:1", proxy.host());
    let mut first = store.command().args(["pull", "-q", &reference]).spawn().unwrap();
    let part = store.path().join(format!("shipimg/ingest/sha256-{}", &sha256(&server.layer)[7..]));
    let end = Instant::now() + Duration::from_secs(20);
    while fs::metadata(&part).map_or(0, |m| m.len()) < 700_000 {
        assert!(Instant::now() < end, "nothing arrives");
        std::thread::sleep(Duration::from_millis(10));
    }
    // What a running pull has is not pruned.
    store.ok(&["prune", "--yes"]);
    assert!(part.exists());
    first.kill().unwrap();
    first.wait().unwrap();
    assert_nothing_published(&store, &server);
    pull(&store, &proxy);
    server.assert_pulled(&store);
    assert_eq!(server.layer_requests(&proxy)[1].range.as_deref(), Some("bytes=700000-"));
}

/// A self-signed certificate for localhost and registry.test: (certificate, key).
pub fn certificate(dir: &Path) -> (String, String) {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let (cert, key) = (cert.to_str().unwrap().to_string(), key.to_str().unwrap().to_string());
    let names = "subjectAltName=DNS:localhost,DNS:registry.test";
    ok(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=shipimg test",
            "-addext",
            names,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            &key,
            "-out",
            &cert,
        ],
    );
    (cert, key)
}

#[test]
fn https_never_becomes_http() {
    let store = TestStore::new();
    let plain = Proxy::start(free_port(), |_| Fault::None);
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path());
    let registry = Registry::start_with(&format!(
        "  tls: {{certificate: {cert}, key: {key}}}\n\
         middleware: {{storage: [{{name: redirect, options: {{baseurl: \"http://{}/\"}}}}]}}\n",
        plain.host()
    ));
    let layout = Layout::new(&dir.path().join("layout"));
    layout.add("img:1", &[Blob::gzip(b"x")], &json!({}));
    let reference = registry.fill(&layout, "img:1");
    let out = store
        .command()
        .env("SSL_CERT_FILE", &cert)
        .env_remove("SSL_CERT_DIR")
        .args(["pull", "-q", &reference])
        .output()
        .unwrap();
    let e = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(6) && e.contains("from https to http"), "{e}");
    assert!(plain.requests("").is_empty());
}
