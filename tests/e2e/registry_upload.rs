//! Uploads by the library against a real registry server, and against one that breaks off.

use crate::common::proxy::{Fault, Proxy, status};
use crate::common::registry::Registry;
use crate::common::server::{Server, json};
use shipimg::oci::{Descriptor, media_type};
use shipimg::registry::{Error, Options, Remote};
use std::io::{Cursor, Read};
use std::time::Duration;

fn remote(host: &str, repository: &str) -> Remote {
    let options = Options { stall: Duration::from_secs(5), ..Options::default() };
    Remote::connect(&format!("{host}/{repository}").parse().unwrap(), &options).unwrap()
}

fn upload(remote: &Remote, bytes: &[u8]) -> shipimg::registry::Result<()> {
    let open = |from: u64| -> std::io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(bytes[usize::try_from(from).unwrap()..].to_vec())))
    };
    remote.upload_blob(&Descriptor::of("application/octet-stream", bytes), &open, &|_| ())
}

fn read_back(remote: &Remote, bytes: &[u8]) {
    let descriptor = Descriptor::of("application/octet-stream", bytes);
    let mut got = Vec::new();
    remote.blob(&descriptor, 0, Box::new(|_| ())).read_to_end(&mut got).unwrap();
    assert!(got == bytes);
}

/// Bytes that no compression and no repetition makes equal.
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x2545_f491_u32;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn an_artifact_goes_up_and_comes_back() {
    let registry = Registry::start();
    let remote = remote(&registry.host(), "push/a");
    for bytes in [&b""[..], b"{}", &noise(1 << 20)] {
        let descriptor = Descriptor::of("application/octet-stream", bytes);
        assert!(!remote.has_blob(&descriptor).unwrap());
        upload(&remote, bytes).unwrap();
        assert!(remote.has_blob(&descriptor).unwrap());
        read_back(&remote, bytes);
    }
    let config = Descriptor::of("application/vnd.oci.empty.v1+json", b"{}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"text/x","config":{},"layers":[]}}"#,
        media_type::MANIFEST,
        serde_json::to_string(&config).unwrap()
    );
    let document = Descriptor::of(media_type::MANIFEST, manifest.as_bytes());
    remote.put_document(&document, manifest.as_bytes(), "v1").unwrap();
    assert!(remote.has_document(&document.digest).unwrap());
    assert_eq!(remote.document(&document).unwrap(), manifest.as_bytes());
    remote.delete_document(&document.digest).unwrap();
    assert!(!remote.has_document(&document.digest).unwrap());
    assert!(matches!(remote.delete_document(&document.digest), Err(Error::NoImage { .. })));
}

#[test]
fn a_large_blob_goes_up_in_chunks_and_over_broken_connections() {
    let registry = Registry::start();
    // The second chunk's connection fails at first, so does the first try of everything else.
    let proxy = Proxy::start(registry.port(), |request| {
        if request.method != "GET" && request.before == 0 && request.path.contains("/uploads/") {
            return status("503 Service Unavailable", &[]);
        }
        Fault::None
    });
    let remote = remote(&proxy.host(), "push/large");
    let bytes = noise((64 << 20) + 12345);
    upload(&remote, &bytes).unwrap();
    read_back(&remote, &bytes);
    let patches = proxy.requests("/uploads/").iter().filter(|r| r.method == "PATCH").count();
    assert!(patches >= 2, "{patches}");
}

#[test]
fn an_upload_goes_on_from_what_the_server_has() {
    let bytes = noise(5000);
    let server = Server::start(|asked| {
        let to = |more: &str| vec!["Location: /up/1".to_string(), more.to_string()];
        match (asked.method.as_str(), asked.path.as_str()) {
            ("GET", "/v2/") => Some(json("{}")),
            ("POST", _) => Some(("202 Accepted", to("X: 0"), Vec::new())),
            // The first try breaks off, and the server has a part.
            ("PUT", _) if asked.body.len() == 5000 => None,
            ("GET", "/up/1") => Some(("204 No Content", to("Range: 0-999"), Vec::new())),
            // It takes less than it is given.
            ("PATCH", _) if asked.body.len() == 4000 => {
                Some(("202 Accepted", to("Range: 0-2999"), Vec::new()))
            }
            ("PATCH", _) => Some(("202 Accepted", to("Range: 0-4999"), Vec::new())),
            ("PUT", _) => Some(("201 Created", Vec::new(), Vec::new())),
            _ => Some(("404 Not Found", Vec::new(), Vec::new())),
        }
    });
    upload(&remote(&server.host(), "a"), &bytes).unwrap();
    let patches: Vec<_> = server.asked("/up/1").into_iter().filter(|r| r.method == "PATCH").collect();
    let ranges: Vec<_> = patches.iter().map(|r| r.header("content-range").unwrap()).collect();
    assert_eq!(ranges, ["1000-4999", "3000-4999"]);
    assert!(patches[0].body == bytes[1000..] && patches[1].body == bytes[3000..]);
    let last = server.asked("/up/1").pop().unwrap();
    assert!(last.method == "PUT" && last.path.contains("?digest=sha256%3A") && last.body.is_empty());
}

#[test]
fn a_lost_last_answer_is_no_second_upload() {
    let bytes = noise(1000);
    let server = Server::start(|asked| match asked.method.as_str() {
        "PUT" => None,
        "HEAD" => Some(("200 OK", Vec::new(), vec![0; 1000])),
        "POST" => Some(("202 Accepted", vec!["Location: /up".into()], Vec::new())),
        _ => Some(("404 Not Found", Vec::new(), Vec::new())),
    });
    upload(&remote(&server.host(), "a"), &bytes).unwrap();
    assert_eq!(server.asked("/uploads/").len(), 1);
}

#[test]
fn a_silent_server_is_given_up() {
    let server = Server::start(|asked| {
        if asked.method == "PUT" {
            std::thread::sleep(Duration::from_secs(30));
        }
        match asked.method.as_str() {
            "GET" => Some(json("{}")),
            _ => Some(("202 Accepted", vec!["Location: /up".into()], Vec::new())),
        }
    });
    let options = Options { stall: Duration::from_millis(50), ..Options::default() };
    let remote = Remote::connect(&format!("{}/a", server.host()).parse().unwrap(), &options).unwrap();
    let begun = std::time::Instant::now();
    let e = upload(&remote, b"x").unwrap_err();
    assert!(matches!(e, Error::Stalled { .. }), "{e}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn credentials_stay_with_the_registry() {
    let elsewhere = Server::start(|_| Some(("201 Created", Vec::new(), Vec::new())));
    let location = format!("Location: http://127.0.0.1:{}/up?state=1", elsewhere.port());
    let server = Server::start(move |asked| {
        if asked.header("authorization").is_none() {
            return Some((
                "401 Unauthorized",
                vec!["WWW-Authenticate: Basic realm=\"r\"".into()],
                Vec::new(),
            ));
        }
        Some(("202 Accepted", vec![location.clone()], Vec::new()))
    });
    let options = Options { credentials: Some("me:secret".parse().unwrap()), ..Options::default() };
    let remote = Remote::connect(&format!("{}/a", server.host()).parse().unwrap(), &options).unwrap();
    upload(&remote, b"content").unwrap();
    let put = elsewhere.asked("/up?state=1&digest=").pop().unwrap();
    assert_eq!((put.header("authorization"), put.body.as_slice()), (None, &b"content"[..]));
    assert!(server.asked("/uploads/").iter().any(|r| r.header("authorization").is_some()));

    for (location, why) in [
        ("Location: http://registry.test/up", "plain http"),
        ("Location: file:///etc/passwd", "neither"),
        ("X: 1", "names no place"),
    ] {
        let server = Server::start(move |_| Some(("202 Accepted", vec![location.into()], Vec::new())));
        let e = upload(&self::remote(&server.host(), "a"), b"x").unwrap_err().to_string();
        assert!(e.contains(why), "{e}");
    }
}

#[test]
fn a_registry_without_chunks_gets_one_put() {
    let registry = Registry::start();
    let proxy = Proxy::start(registry.port(), |request| match request.method.as_str() {
        "PATCH" => status("405 Method Not Allowed", &[]),
        _ => Fault::None,
    });
    let remote = remote(&proxy.host(), "push/whole");
    let bytes = noise((64 << 20) + 1);
    upload(&remote, &bytes).unwrap();
    assert_eq!(proxy.requests("/uploads/").iter().filter(|r| r.method == "PATCH").count(), 1);
    read_back(&remote, &bytes);
}

#[test]
fn content_that_cannot_be_read_is_no_fault_of_the_network() {
    let registry = Registry::start();
    let remote = remote(&registry.host(), "push/bad");
    let descriptor = Descriptor::of("application/octet-stream", &noise(100_000));
    let open = |_: u64| -> std::io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(vec![0; 10]))) };
    let e = remote.upload_blob(&descriptor, &open, &|_| ()).unwrap_err();
    assert!(matches!(e, Error::Content { .. }), "{e}");
    // Other bytes of the right length: the server refuses them.
    let open =
        |_: u64| -> std::io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(vec![0; 100_000]))) };
    let e = remote.upload_blob(&descriptor, &open, &|_| ()).unwrap_err();
    assert!(matches!(e, Error::Status { .. }), "{e}");
    assert!(!remote.has_blob(&descriptor).unwrap());
}

#[test]
fn a_blob_is_mounted_from_another_repository() {
    let registry = Registry::start();
    let (a, b) = (remote(&registry.host(), "mount/a"), remote(&registry.host(), "mount/b"));
    let bytes = noise(1000);
    let descriptor = Descriptor::of("application/octet-stream", &bytes);
    assert!(!b.mount_blob(&descriptor, "mount/a").unwrap());
    upload(&a, &bytes).unwrap();
    assert!(b.mount_blob(&descriptor, "mount/a").unwrap());
    read_back(&b, &bytes);
}
