//! Pushing through a network and to servers that misbehave.

use crate::common::layout::{Blob, Layout};
use crate::common::proxy::{Fault, Proxy, Request, status};
use crate::common::registry::{Registry, free_port};
use crate::common::{TestStore, ok};
use crate::faults::certificate;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A store with the image `localhost/img:1`, and an empty registry.
struct Lab {
    registry: Registry,
    store: TestStore,
}

impl Lab {
    fn new() -> Self {
        let store = TestStore::in_memory();
        store.ok(&["images"]);
        let mut x = 1_u32;
        let mut next = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            x.to_be_bytes()[0]
        };
        let layer: Vec<u8> = (0..1 << 20).map(|_| next()).collect();
        Layout::new(store.path()).add("localhost/img:1", &[Blob::gzip(&layer)], &json!({}));
        Self { registry: Registry::start(), store }
    }

    fn proxy(&self, decide: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Proxy {
        Proxy::start(self.registry.port(), decide)
    }

    fn args(host: &str) -> [String; 6] {
        let to = format!("{host}/pushed/img:1");
        ["push", "-q", "--stall-timeout=1", "--creds=me:secret", "localhost/img:1", &to].map(String::from)
    }

    /// A push that works; what the registry holds then is whole.
    fn push(&self, proxy: &Proxy) {
        self.store.ok(&Self::args(&proxy.host()));
        let dir = tempfile::tempdir().unwrap();
        let from = format!("docker://{}/pushed/img:1", self.registry.host());
        let to = format!("dir:{}", dir.path().display());
        ok("skopeo", &["copy", "-q", "--insecure-policy", "--src-tls-verify=false", &from, &to]);
    }

    fn fails(&self, code: i32, proxy: &Proxy) -> String {
        self.store.fails(code, &Self::args(&proxy.host()))
    }
}

fn is_upload(r: &Request) -> bool {
    r.method == "PUT" && r.path.contains("/uploads/")
}

/// `fault` for the first request that `which` chooses.
fn first(
    which: impl Fn(&Request) -> bool + Send + Sync + 'static,
    fault: Fault,
) -> impl Fn(&Request) -> Fault + Send + Sync + 'static {
    let done = AtomicBool::new(false);
    move |r| if which(r) && !done.swap(true, Ordering::SeqCst) { fault.clone() } else { Fault::None }
}

#[test]
fn statuses_that_pass_are_tried_again() {
    let lines = ["429 Too Many Requests", "500 Internal Server Error", "502 Bad Gateway", "503 Unavailable"];
    std::thread::scope(|scope| {
        for line in lines {
            scope.spawn(move || {
                let lab = Lab::new();
                // Each request for the first time: HEAD, POST, PUT, and the question how far it came.
                let proxy = lab.proxy(move |r| match r.before {
                    0 if !r.path.ends_with("/v2/") => status(line, &[]),
                    _ => Fault::None,
                });
                lab.push(&proxy);
                for method in ["HEAD", "POST", "PUT", "GET"] {
                    assert!(proxy.requests("/blobs/").iter().any(|r| r.method == method), "{line}: {method}");
                }
            });
        }
    });
}

#[test]
fn broken_uploads_go_on_or_begin_anew() {
    let unknown = || {
        let body = json!({"errors": [{"code": "BLOB_UPLOAD_UNKNOWN", "message": "gone"}]}).to_string();
        Fault::Answer("404 Not Found", vec![], body)
    };
    for fault in [Fault::CutUpload(700_000), Fault::CutUpload(0), Fault::Reset(0), unknown(), Fault::Silent] {
        let lab = Lab::new();
        let large = |r: &Request| is_upload(r) && r.body.len() > 100_000;
        lab.push(&lab.proxy(first(large, fault)));
    }
    // One that is never known is no endless loop.
    let lab = Lab::new();
    let proxy = lab.proxy(move |r| if is_upload(r) { unknown() } else { Fault::None });
    let e = lab.fails(6, &proxy);
    assert!(e.contains("404") && e.contains("gone"), "{e}");
    assert!(proxy.requests("/uploads/").len() < 30);
}

#[test]
fn retry_after_is_honoured_and_bounded() {
    let date = |args: &str| ok("date", &["-u", "-d", args, "+%a, %d %b %Y %H:%M:%S GMT"]).trim().to_string();
    for (wanted, least) in [("2", 2), ("+4 seconds", 2), ("-1 hour", 0)] {
        let lab = Lab::new();
        let wanted = if wanted == "2" { wanted.to_string() } else { date(wanted) };
        let answer = status("429 Too Many Requests", &[&format!("Retry-After: {wanted}")]);
        let proxy = lab.proxy(first(is_upload, answer));
        let start = Instant::now();
        lab.push(&proxy);
        assert!(start.elapsed() >= Duration::from_secs(least), "{wanted}");
    }
    for wanted in ["3600".to_string(), date("+1 hour")] {
        let lab = Lab::new();
        let proxy = lab.proxy(move |r| match r.method.as_str() {
            "POST" => status("429 Too Many Requests", &[&format!("Retry-After: {wanted}")]),
            _ => Fault::None,
        });
        let e = lab.fails(6, &proxy);
        assert!(e.contains("429") && e.contains("to be asked again in 3"), "{e}");
    }
}

/// Chooses requests.
type Which = fn(&Request) -> bool;

#[test]
fn what_does_not_pass_is_an_error() {
    let said = |line, message: &str| {
        let body = json!({"errors": [{"code": "X", "message": message}]}).to_string();
        Fault::Answer(line, vec![], body)
    };
    let manifest = |r: &Request| r.method == "PUT" && r.path.contains("/manifests/");
    let post = |r: &Request| r.method == "POST";
    let away = |to: &str| status("202 Accepted", &[&format!("Location: {to}")]);
    let cases: [(Which, Fault, i32, &[&str]); 8] = [
        (manifest, said("400 Bad Request", "this is no manifest"), 6, &["400", "this is no manifest"]),
        (manifest, Fault::OtherDigest, 9, &["wanted sha256:", "0000000000"]),
        (is_upload, Fault::OtherDigest, 9, &["wanted sha256:", "0000000000"]),
        (post, said("403 Forbidden", "not for you"), 8, &["403", "not for you", "pushed/img"]),
        (post, status("202 Accepted", &[]), 6, &["names no place"]),
        (post, away("http://registry.example/up"), 6, &["plain http is for this machine only"]),
        (post, away("file:///etc/passwd"), 6, &["neither https nor http"]),
        (post, away("https://["), 6, &["no URL"]),
    ];
    let lab = Lab::new();
    for (which, fault, code, words) in cases {
        let proxy = lab.proxy(move |r| if which(r) { fault.clone() } else { Fault::None });
        // Each to a registry that has nothing yet.
        let _ = std::fs::remove_dir_all(lab.registry.data().join("docker/registry/v2"));
        let e = lab.fails(code, &proxy);
        for word in words {
            assert!(e.contains(word), "{word:?} is not in {e}");
        }
    }
}

#[test]
fn a_silent_registry_is_given_up() {
    let lab = Lab::new();
    let start = Instant::now();
    let e = lab.fails(6, &lab.proxy(|r| if r.method == "HEAD" { Fault::Silent } else { Fault::None }));
    assert!(e.contains("for 1 s"), "{e}");
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_token_that_runs_out_is_renewed_once() {
    let lab = Lab::new();
    let tokens = Proxy::start(free_port(), |r| {
        Fault::Answer("200 OK", vec![], format!("{{\"token\":\"T{}\"}}", r.before))
    });
    let realm = format!("http://localhost:{}/token", tokens.port());
    let proxy = lab.proxy(move |r| match (r.authorization.as_deref(), r.method.as_str()) {
        (Some("Bearer T1"), _) => Fault::None,
        // The first one holds until the layer's bytes go up.
        (Some("Bearer T0"), method) if method != "PUT" => Fault::None,
        _ => {
            let scope = "scope=\"repository:pushed/img:pull,push\"";
            let asks = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\",{scope}");
            status("401 Unauthorized", &[&asks])
        }
    });
    lab.push(&proxy);
    assert_eq!(tokens.requests("/token").len(), 2);
}

#[test]
fn locations_elsewhere_get_no_credentials() {
    let lab = Lab::new();
    let elsewhere = Proxy::start(free_port(), |_| status("201 Created", &[]));
    let port = elsewhere.port();
    let proxy = lab.proxy(move |r| match (r.authorization.is_some(), r.method.as_str()) {
        (false, _) => status("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""]),
        (true, "POST") => status("202 Accepted", &[&format!("Location: http://127.0.0.1:{port}/up?a=b")]),
        (true, "PUT") => status("201 Created", &[]),
        _ => Fault::None,
    });
    lab.store.ok(&Lab::args(&proxy.host()));
    let there = elsewhere.requests("/up?a=b&digest=sha256");
    assert_eq!(there.len(), 2);
    assert!(there.iter().all(|r| r.authorization.is_none()));
}

#[test]
fn https_never_becomes_http() {
    let lab = Lab::new();
    let plain = Proxy::start(free_port(), |_| Fault::None);
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path());
    let registry = Registry::start_with(&format!(
        "  host: http://{}\n  tls: {{certificate: {cert}, key: {key}}}\n",
        plain.host()
    ));
    let mut push = lab.store.command();
    push.env("SSL_CERT_FILE", &cert).env_remove("SSL_CERT_DIR").args(Lab::args(&registry.host()));
    let out = push.output().unwrap();
    let e = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(6) && e.contains("from https to http"), "{e}");
    assert!(plain.requests("").is_empty());
}
