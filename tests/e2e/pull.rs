//! Pulling from a real registry server, read back by other tools.

use crate::common::layout::{Blob, Layout, sha256};
use crate::common::proxy::{Fault, Proxy};
use crate::common::registry::Registry;
use crate::common::{TestStore, debian_root, ok, output};
use crate::faults::certificate;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// `me:open sesame`, by crypt(3) with bcrypt.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n";

fn small(layout: &Layout, name: &str) -> String {
    layout.add(name, &[Blob::gzip(b"one"), Blob::gzip(b"two")], &json!({"Cmd": ["true"]}))
}

fn inspect(store: &TestStore, name: &str) -> Value {
    serde_json::from_str(&store.ok(&["inspect", name])).unwrap()
}

#[test]
fn a_debian_image_is_read_by_other_tools() {
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("l.tar");
    let pack = |args: &[&str]| {
        let root = debian_root("bookworm");
        let (tar, root) = (tar.to_str().unwrap(), root.to_str().unwrap());
        ok("tar", &[&["-C", root, "--numeric-owner", "-cf", tar], args].concat());
        Blob::gzip(&fs::read(tar).unwrap())
    };
    let layers = [pack(&["./usr/lib"]), pack(&["--exclude=./usr/lib", "."])];
    let layout = Layout::new(&dir.path().join("layout"));
    let digest = layout.add("debian:bookworm", &layers, &json!({"Cmd": ["bash"]}));
    let registry = Registry::start();
    let reference = registry.fill(&layout, "debian:bookworm");

    let store = TestStore::new();
    assert_eq!(store.ok(&["pull", &reference]), format!("{reference} {digest}\n"));
    let root = store.path().display();
    let seen: Value =
        serde_json::from_str(&ok("skopeo", &["inspect", &format!("oci:{root}:{reference}")])).unwrap();
    assert_eq!(seen["Digest"], json!(digest));
    assert_eq!(ok("umoci", &["list", "--layout", &root.to_string()]).trim(), reference);

    let mine = inspect(&store, "debian:bookworm");
    assert_eq!((&mine["reference"], &mine["digest"]), (&json!(reference), &json!(digest)));
    assert_eq!(mine["layers"][1]["diffId"], json!(layers[1].diff_id));
    assert_eq!(mine["layers"][0]["size"], json!(layers[0].bytes.len()));
    assert_eq!(mine["config"]["config"]["Cmd"], json!(["bash"]));
    let raw = store.command().args(["inspect", "--raw", &reference]).output().unwrap().stdout;
    assert_eq!(sha256(&raw), digest);

    // umoci wants names without a colon, so it is asked through a copy of the index.
    let plain = dir.path().join("plain");
    ok("cp", &["-r", &root.to_string(), plain.to_str().unwrap()]);
    let index = fs::read_to_string(plain.join("index.json")).unwrap().replace(&reference, "plain");
    fs::write(plain.join("index.json"), index).unwrap();
    let bundle = dir.path().join("bundle");
    ok("umoci", &["unpack", "--image", &format!("{}:plain", plain.display()), bundle.to_str().unwrap()]);
    assert!(bundle.join("rootfs/usr/bin/dpkg").exists() && bundle.join("rootfs/usr/lib/dpkg").exists());
}

#[test]
fn docker_images_and_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    small(&layout, "img:1");
    let registry = Registry::start();
    let reference = registry.fill(&layout, "img:1");
    let docker = format!("{}/docker:2", registry.host());
    ok(
        "skopeo",
        &[
            "copy",
            "-q",
            "--insecure-policy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--format",
            "v2s2",
            &format!("docker://{reference}"),
            &format!("docker://{docker}"),
        ],
    );
    let store = TestStore::new();
    store.ok(&["pull", "-q", &docker]);
    let seen = inspect(&store, &docker);
    assert_eq!(seen["mediaType"], json!("application/vnd.docker.distribution.manifest.v2+json"));
    assert_eq!(seen["platform"], json!("linux/amd64"));

    // An index of two platforms: the name leads to the manifest of one.
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let amd64 = small(&layout, "a");
    let arm_config = json!({"architecture": "arm64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [sha256(b"three")]}});
    let arm_config =
        layout.put("application/vnd.oci.image.config.v1+json", arm_config.to_string().as_bytes());
    let blob = Blob::gzip(b"three");
    let arm_layer = layout.put(&blob.media_type, &blob.bytes);
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let arm =
        json!({"schemaVersion": 2, "mediaType": manifest_type, "config": arm_config, "layers": [arm_layer]});
    let arm = layout.name("b", manifest_type, arm.to_string().as_bytes());
    let size = |d: &str| fs::metadata(dir.path().join("blobs/sha256").join(&d[7..])).unwrap().len();
    let entry = |d: &str, arch: &str| {
        json!({"mediaType": manifest_type, "digest": d, "size": size(d),
        "platform": {"os": "linux", "architecture": arch}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&arm, "arm64"), entry(&amd64, "amd64")]});
    let list =
        layout.name("multi:1", "application/vnd.oci.image.index.v1+json", index.to_string().as_bytes());
    let reference = format!("{}/multi:1", registry.host());
    ok(
        "skopeo",
        &[
            "copy",
            "-q",
            "--all",
            "--insecure-policy",
            "--dest-tls-verify=false",
            &format!("oci:{}:multi:1", dir.path().display()),
            &format!("docker://{reference}"),
        ],
    );
    let store = TestStore::new();
    for (platform, digest) in [("linux/arm64", &arm), ("linux/amd64", &amd64)] {
        let told = store.ok(&["pull", "-q", "--platform", platform, &reference]);
        assert_eq!(told, format!("{reference} {digest}\n"));
        assert_eq!(inspect(&store, &reference)["platform"], json!(platform));
        ok("skopeo", &["inspect", &format!("oci:{}:{reference}", store.path().display())]);
    }
    assert_eq!(store.ok(&["images"]).lines().count(), 2, "a head and one name");
    let e = store.fails(10, &["pull", "-q", "--platform", "linux/s390x", &reference]);
    assert!(e.contains("linux/s390x, only for linux/arm64, linux/amd64"), "{e}");

    let by_digest = format!("{}/multi@{list}", registry.host());
    store.ok(&["pull", "-q", &by_digest]);
    assert_eq!(inspect(&store, &by_digest)["digest"], json!(amd64));
}

#[test]
fn images_in_all_formats() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let digest = small(&layout, "img:1");
    let registry = Registry::start();
    let reference = registry.fill(&layout, "img:1");
    let store = TestStore::new();
    store.ok(&["pull", &reference]);
    assert_eq!(store.ok(&["images", "-q"]), format!("{digest}\n"));
    let rows: Value = serde_json::from_str(&store.ok(&["images", "--format", "json"])).unwrap();
    assert_eq!((&rows[0]["name"], &rows[0]["digest"]), (&json!(reference), &json!(digest)));
    assert_eq!(rows[0]["platform"], json!("linux/amd64"));
    let table = store.ok(&["images"]);
    let mut lines = table.lines();
    let (head, row) = (lines.next().unwrap(), lines.next().unwrap());
    assert_eq!(head.find("DIGEST"), row.find(&digest[7..19]));
}

#[test]
fn progress_is_bars_in_a_terminal_lines_elsewhere_nothing_when_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    small(&layout, "img:1");
    let registry = Registry::start();
    let reference = registry.fill(&layout, "img:1");
    let store = TestStore::new();
    let stderr = |args: &[&str]| String::from_utf8(store.output(args).stderr).unwrap();
    // Two layers and the configuration.
    assert_eq!(stderr(&["pull", &reference]).matches(" copied, ").count(), 3);
    assert_eq!(stderr(&["pull", &reference]).matches(" present").count(), 3);
    assert_eq!(stderr(&["pull", "-q", &reference]), "");
    let command = format!("{} --root {} pull {reference}", crate::common::bin(), store.path().display());
    let seen = ok("script", &["-qec", &command, "/dev/null"]);
    assert!(seen.matches(" present").count() >= 2 && seen.contains('█'), "{seen}");
}

#[test]
fn many_pull_and_one_downloads() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let layers: Vec<Blob> = (0..3_u8).map(|i| Blob::gzip(&vec![i; 3 << 20])).collect();
    layout.add("img:1", &layers, &json!({}));
    let registry = Registry::start();
    registry.fill(&layout, "img:1");
    let proxy = Proxy::start(registry.port(), |_| Fault::None);
    let store = TestStore::new();
    let reference = format!("{}/img:1", proxy.host());
    let children: Vec<_> = (0..16)
        .map(|_| store.command().args(["pull", "-q", &reference]).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    for layer in &layers {
        let digest = sha256(&layer.bytes);
        assert_eq!(proxy.requests(&digest).len(), 1);
        assert_eq!(fs::read(store.path().join("blobs/sha256").join(&digest[7..])).unwrap(), layer.bytes);
    }
    assert_eq!(store.ok(&["images", "-q"]).lines().count(), 1);
    assert_eq!(fs::read_dir(store.path().join("shipimg/ingest")).unwrap().count(), 0);
}

/// A registry behind htpasswd with `img:1` in it, filled by skopeo.
fn guarded(dir: &Path) -> (Registry, String) {
    fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
    let path = dir.join("htpasswd");
    let registry =
        Registry::start_with(&format!("auth: {{htpasswd: {{realm: x, path: {}}}}}\n", path.display()));
    let layout = Layout::new(&dir.join("layout"));
    small(&layout, "img:1");
    let reference = format!("{}/img:1", registry.host());
    ok(
        "skopeo",
        &[
            "copy",
            "-q",
            "--insecure-policy",
            "--dest-tls-verify=false",
            "--dest-creds",
            "me:open sesame",
            &format!("oci:{}:img:1", layout.path().display()),
            &format!("docker://{reference}"),
        ],
    );
    (registry, reference)
}

#[test]
fn basic_authentication_from_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, reference) = guarded(dir.path());
    let host = registry.host();
    let store = TestStore::new();
    let clean = |c: &mut std::process::Command| {
        c.env("HOME", "/nonexistent");
        for name in ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"] {
            c.env_remove(name);
        }
    };
    let mut c = store.command();
    clean(&mut c);
    let out = c.args(["pull", "-q", &reference]).output().unwrap();
    let e = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(8) && e.contains("refused access to img: 401"), "{e}");
    let e = store.fails(8, &["pull", "-q", "--creds", "me:wrong", &reference]);
    assert!(e.contains("401 Unauthorized"), "{e}");
    store.ok(&["pull", "-q", "--creds", "me:open sesame", &reference]);

    // The files that skopeo and docker write, and a helper.
    let login = dir.path().join("auth.json");
    let args = [
        "login",
        "--tls-verify=false",
        "-u",
        "me",
        "-p",
        "open sesame",
        "--authfile",
        login.to_str().unwrap(),
        &host,
    ];
    ok("skopeo", &args);
    let docker = dir.path().join("docker");
    let helped = dir.path().join("helped");
    let bin = dir.path().join("bin");
    for d in [&docker, &helped, &bin] {
        fs::create_dir(d).unwrap();
    }
    fs::copy(&login, docker.join("config.json")).unwrap();
    fs::write(helped.join("config.json"), json!({"credHelpers": {&host: "test"}}).to_string()).unwrap();
    let script = format!(
        "#!/bin/sh\n[ \"$1 $(cat)\" = 'get {host}' ] && echo '{{\"Username\":\"me\",\"Secret\":\"open sesame\"}}'\n"
    );
    fs::write(bin.join("docker-credential-test"), script).unwrap();
    ok("chmod", &["+x", bin.join("docker-credential-test").to_str().unwrap()]);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for (name, value) in
        [("REGISTRY_AUTH_FILE", &login), ("DOCKER_CONFIG", &docker), ("DOCKER_CONFIG", &helped)]
    {
        let store = TestStore::new();
        let mut c = store.command();
        clean(&mut c);
        let out = c.env(name, value).env("PATH", &path).args(["pull", "-q", &reference]).output().unwrap();
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn tls_with_the_platform_s_roots_or_those_named() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path());
    let registry = Registry::start_with(&format!("  tls: {{certificate: {cert}, key: {key}}}\n"));
    let layout = Layout::new(&dir.path().join("layout"));
    small(&layout, "img:1");
    let reference = registry.fill(&layout, "img:1");
    let store = TestStore::new();
    let e = store.fails(6, &["pull", "-q", &reference]);
    assert!(e.contains(&registry.host()) && e.contains("is not trusted"), "{e}");
    assert_eq!(store.ok(&["images"]), "");
    let out = store
        .command()
        .env("SSL_CERT_FILE", "/dev/null")
        .env_remove("SSL_CERT_DIR")
        .args(["pull", "-q", &reference])
        .output()
        .unwrap();
    let e = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(7) && e.contains("no root certificates"), "{e}");
    store.ok(&["pull", "-q", "--tls-verify=false", &reference]);
    let store = TestStore::new();
    let out = store
        .command()
        .env("SSL_CERT_FILE", &cert)
        .env_remove("SSL_CERT_DIR")
        .args(["pull", "-q", &reference])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn plain_http_is_for_this_machine_only() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(&dir.path().join("layout"));
    small(&layout, "img:1");
    let registry = Registry::start();
    registry.fill(&layout, "img:1");
    // A name that is not local but leads to 127.0.0.1, in a mount namespace of its own.
    let hosts = dir.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 registry.test\n").unwrap();
    let store = TestStore::new();
    let pull = |more: &str| {
        let script = format!(
            "mount --bind {} /etc/hosts && exec {} --root {} pull -q {more} registry.test:{}/img:1",
            hosts.display(),
            crate::common::bin(),
            store.path().display(),
            registry.port()
        );
        output("unshare", &["--mount", "sh", "-c", &script])
    };
    let out = pull("");
    let e = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(6) && e.contains("does not speak https"), "{e}");
    assert_eq!(store.ok(&["images"]), "");
    let out = pull("--tls-verify=false");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn what_is_not_there() {
    let registry = Registry::start();
    let store = TestStore::new();
    let e = store.fails(10, &["pull", &format!("{}/nothing:1", registry.host())]);
    assert!(e.contains(&format!("no image {}/nothing:1", registry.host())), "{e}");
    let port = crate::common::registry::free_port();
    let e = store.fails(6, &["pull", &format!("localhost:{port}/x")]);
    assert!(e.contains(&format!("cannot reach localhost:{port}: Connection refused")), "{e}");
    let e = store.fails(10, &["inspect", "nothing"]);
    assert!(e.contains("no image nothing"), "{e}");
}

/// The binary needs nothing of its surroundings: an empty root, without /etc.
#[test]
fn pulls_in_an_empty_root() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(&dir.path().join("layout"));
    small(&layout, "img:1");
    let registry = Registry::start();
    let reference = registry.fill(&layout, "img:1");
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::copy(crate::common::bin(), root.join("shipimg")).unwrap();
    ok("chroot", &[root.to_str().unwrap(), "/shipimg", "--root", "/store", "pull", "-q", &reference]);
    assert!(root.join("store/index.json").exists());
    let out = output("chroot", &[root.to_str().unwrap(), "/shipimg", "pull", "-q", "registry.test/x"]);
    let e = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(7) && e.contains("no root certificates"), "{e}");
}
