//! Uploads by the library against a real registry server, and against one that breaks off.

use crate::common::proxy::{Fault, Proxy, status};
use crate::common::registry::Registry;
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
