//! `registries.conf` and `certs.d` against real registry servers, over TLS.

use crate::common::layout::{Blob, Layout};
use crate::common::ok;
use crate::common::proxy::{Proxy, status};
use crate::common::registry::Registry;
use crate::common::server::Server;
use crate::common::tls::{Authority, Home};
use serde_json::json;

fn image(dir: &std::path::Path, name: &str) -> Layout {
    let layout = Layout::new(dir);
    layout.add(name, &[Blob::gzip(b"one"), Blob::gzip(b"two")], &json!({"Cmd": ["true"]}));
    layout
}

#[test]
fn mirrors_are_asked_in_order_and_the_registry_last() {
    let dir = tempfile::tempdir().unwrap();
    let layout = image(dir.path(), "team/app:1");
    let (upstream, mirror) = (Registry::start(), Registry::start());
    upstream.fill(&layout, "team/app:1");
    let seen = Proxy::start(upstream.port(), |_| crate::common::proxy::Fault::None);
    let broken = Proxy::start(upstream.port(), |_| status("502 Bad Gateway", &[]));
    let home = Home::new();
    let reference = format!("{}/team/app:1", seen.host());
    home.write(
        "registries.conf",
        &format!(
            "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}/x\"\n[[registry.mirror]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}/copies\"\n",
            seen.host(),
            "localhost:1",
            broken.host(),
            mirror.host()
        ),
    );
    // No mirror has it: one refuses connections, one is broken, one has nothing.
    home.ok(&["pull", &reference]);
    assert!(!seen.requests("/blobs/").is_empty());
    // A mirror that failed is asked once.
    assert_eq!(broken.requests("/v2/team/app/").len(), 1);
    // Now the last one has it, and the registry itself is not asked.
    layout.add("copies/team/app:1", &[Blob::gzip(b"one"), Blob::gzip(b"two")], &json!({"Cmd": ["true"]}));
    mirror.fill(&layout, "copies/team/app:1");
    let before = seen.requests("").len();
    let fresh = Home::new();
    std::fs::copy(home.path("registries.conf"), fresh.path("registries.conf")).unwrap();
    fresh.ok(&["pull", &reference]);
    assert_eq!(seen.requests("").len(), before);
}

#[test]
fn blocked_and_insecure_registries_and_faults_of_the_file() {
    let home = Home::new();
    home.write("registries.conf", "[[registry]]\nprefix = \"localhost:1/evil\"\nblocked = true\n");
    let e = home.fails(8, &["pull", "localhost:1/evil/app"]);
    assert!(e.contains("blocks localhost:1/evil"), "{e}");
    home.fails(6, &["pull", "localhost:1/evilish"]);
    home.write("registries.conf.d/1.conf", "novel = 1\n[[registry]]\nprefix = \"localhost:1/evil\"\n");
    let e = home.fails(6, &["pull", "localhost:1/evil/app"]);
    assert!(e.contains("\"novel\" is not known"), "{e}");
    home.write("registries.conf.d/2.conf", "nonsense");
    let e = home.fails(2, &["pull", "localhost:1/app"]);
    assert!(e.contains("registries.conf.d/2.conf"), "{e}");

    // Any certificate will do where the file says so, and only there.
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let registry = Registry::start_with(&authority.https("self"));
    let reference = registry.fill(&image(dir.path(), "app:1"), "app:1");
    let home = Home::new();
    home.fails(6, &["pull", &reference]);
    home.write(
        "registries.conf",
        &format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host()),
    );
    home.ok(&["pull", &reference]);
}

#[test]
fn short_names_by_alias_and_search_list() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    registry.fill(&image(dir.path(), "deep/app:1"), "deep/app:1");
    let home = Home::new();
    let host = registry.host();
    home.write(
        "registries.conf",
        &format!("unqualified-search-registries = [\"localhost:1\", \"{host}\"]\n[aliases]\nshort = \"{host}/deep/app\"\n"),
    );
    assert_eq!(home.ok(&["tags", "short"]), "1\n");
    assert_eq!(home.ok(&["tags", "deep/app"]), "1\n");
    home.fails(10, &["tags", "deep/none"]);
    assert!(home.ok(&["pull", "short:1"]).starts_with(&format!("{host}/deep/app:1 sha256:")));
    assert!(home.ok(&["pull", "deep/app:1"]).starts_with(&format!("{host}/deep/app:1 sha256:")));
    home.fails(6, &["pull", "deep/app:2"]);
}

#[test]
fn certificates_of_the_folder() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let layout = image(dir.path(), "app:1");
    let ca = authority.path("ca.crt").display().to_string();
    let registry = Registry::start_with(&format!(
        "  tls: {{certificate: {}, key: {}, clientcas: [{ca}]}}\n",
        authority.path("server.crt").display(),
        authority.path("server.key").display(),
    ));
    let folder = format!("certs.d/{}", registry.host());
    let home = Home::new();
    let reference = format!("{}/app:1", registry.host());
    let e = home.fails(6, &["pull", &reference]);
    assert!(e.contains("not trusted"), "{e}");
    let put = |from: &str, to: &str| {
        std::fs::copy(authority.path(from), home.path(&format!("{folder}/{to}"))).unwrap();
    };
    // The CA alone: trusted, but the server wants to see a certificate.
    put("ca.crt", "ca.crt");
    let e = home.fails(6, &["pull", &reference]);
    assert!(!e.contains("not trusted"), "{e}");
    put("client.crt", "me.cert");
    let e = home.fails(2, &["pull", &reference]);
    assert!(e.contains("me.key"), "{e}");
    put("client.key", "me.key");
    let cert_dir = home.path(&folder).display().to_string();
    ok(
        "skopeo",
        &[
            "copy",
            "-q",
            "--insecure-policy",
            "--dest-cert-dir",
            &cert_dir,
            &format!("oci:{}:app:1", layout.path().display()),
            &format!("docker://{reference}"),
        ],
    );
    home.ok(&["pull", &reference]);
    home.write(&format!("{folder}/ca.crt"), "no certificate");
    home.fails(2, &["pull", &reference]);
}

#[test]
fn a_self_signed_server_whose_certificate_is_given() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let layout = image(dir.path(), "app:1");
    for (name, given, why) in [
        ("self", "self", None),
        ("self", "ca", Some("")),
        ("elsewhere", "elsewhere", Some("elsewhere.example")),
        ("old", "old", Some("expired")),
    ] {
        let registry = Registry::start_with(&authority.https(name));
        let reference = registry.fill(&layout, "app:1");
        let home = Home::new();
        let to = home.path(&format!("certs.d/{}/server.crt", registry.host()));
        std::fs::copy(authority.path(&format!("{given}.crt")), to).unwrap();
        match why {
            None => drop(home.ok(&["pull", &reference])),
            Some(why) => {
                let e = home.fails(6, &["pull", &reference]);
                assert!(e.contains("is not trusted") && e.contains(why), "{name} {given}: {e}");
            }
        }
    }
}

#[test]
fn proxies_of_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let local = registry.fill(&image(dir.path(), "app:1"), "app:1");
    // Requests to a proxy name the whole URL; this one knows no way on.
    let proxy = Server::start(|_| Some(("418 I'm a teapot", Vec::new(), Vec::new())));
    let home = Home::new();
    home.write("registries.conf", "[[registry]]\nlocation = \"registry.test\"\ninsecure = true\n");
    let pull = |reference: &str, no_proxy: &str| {
        let mut command = home.command();
        let url = format!("http://{}", proxy.host());
        command
            .env("HTTP_PROXY", &url)
            .env("http_proxy", &url)
            .env("HTTPS_PROXY", &url)
            .env("NO_PROXY", no_proxy);
        crate::common::collect(command.args(["pull", "--stall-timeout", "5", reference]))
    };
    assert!(pull(&local, "").status.success());
    assert!(proxy.asked("").is_empty());
    assert!(!pull("registry.test/app", "").status.success());
    let asked = proxy.asked("registry.test");
    assert!(asked.iter().any(|r| r.method == "CONNECT"), "{asked:?}");
    assert!(asked.iter().any(|r| r.path.starts_with("http://registry.test/v2/")), "{asked:?}");
    assert!(!pull("registry.test/app", "registry.test").status.success());
    assert_eq!(proxy.asked("").len(), asked.len());
}
