//! import and export: what docker, podman, buildah and skopeo write goes in, what comes out is
//! read by them and by umoci.

use crate::common::docker::DockerArchive;
use crate::common::layout::{Blob, Layout, Tar, sha256};
use crate::common::{TestStore, collect, describe, need_root, ok};
use crate::unpack;
use serde_json::{Value, json};
use shipimg::store::Limits;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tar::EntryType as T;

const NAME: &str = "localhost/lab/app:1";

/// Two layers: all sorts of files, and changes over them.
fn layers() -> Vec<Vec<u8>> {
    let capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let lower = Tar::new()
        .entry(T::Directory, "./", 0o755, "", b"")
        .dir("etc")
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\n")
        .file("etc/gone", b"gone")
        .dir("usr")
        .pax(&[("SCHILY.xattr.security.capability", capability)])
        .entry(T::Regular, "usr/ping", 0o4755, "", b"program")
        .link("usr/ping2", "usr/ping")
        .symlink("usr/link", "../etc/passwd")
        .file(&format!("usr/{}", "long".repeat(60)), b"long")
        .entry(T::Fifo, "usr/fifo", 0o600, "", b"")
        .finish();
    let lower = [unpack::device("usr/null", T::Char, 1, 3), lower].concat();
    let upper = Tar::new()
        .file("etc/.wh.gone", b"")
        .link("etc/ping3", "/usr/ping")
        .pax(&[
            ("mtime", b"1234567890.123456789"),
            ("uid", b"3000000000"),
            ("SCHILY.xattr.user.a", b"1\n2\0"),
        ])
        .file("etc/noted", b"n")
        .pax(&[("path", b"etc/not-utf8-\xff\xfe")])
        .file("x", b"bytes")
        .finish();
    vec![lower, upper]
}

/// A store with one image, and a folder for the rest of a test.
struct Lab {
    store: TestStore,
    work: tempfile::TempDir,
    digest: String,
    /// podman's storage; its run root has to have a short name.
    engine: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        need_root();
        let store = TestStore::new();
        let [lower, upper] = layers().try_into().unwrap();
        let config = json!({"Cmd": ["/usr/ping"], "Labels": {"of": "the lab"}});
        let blobs = [Blob::gzip(&lower), Blob::tar(&upper)];
        let digest = Layout::new(store.path()).add(NAME, &blobs, &config);
        Self {
            store,
            work: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            digest,
            engine: tempfile::tempdir().unwrap(),
        }
    }

    fn at(&self, name: &str) -> String {
        self.work.path().join(name).display().to_string()
    }

    fn config(&self) -> Value {
        let inspected = self.store.ok(&["inspect", NAME]);
        serde_json::from_str::<Value>(&inspected).unwrap()["config"].clone()
    }

    fn export(&self, kind: &str) -> String {
        let path = self.at(&format!("exported.{kind}"));
        assert_eq!(self.store.ok(&["export", "--kind", kind, NAME, "-o", &path]), "");
        path
    }

    /// Takes an archive into a store of its own; gives that and the image's digest.
    fn import(path: &str) -> (TestStore, String) {
        let store = TestStore::new();
        let said = store.ok(&["import", path, "got:1"]);
        let digest = said.trim().strip_prefix("docker.io/library/got:1 ").unwrap().to_string();
        assert_eq!(store.output(&["images", "-q"]).stdout, format!("{digest}\n").into_bytes());
        (store, digest)
    }

    /// The files of the image as a tar.
    fn rootfs(store: &TestStore, name: &str) -> Vec<u8> {
        let out = store.output(&["export", "--kind", "rootfs", name]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    /// Runs podman or buildah on storage of its own.
    fn engine(&self, program: &str, args: &[&str]) -> String {
        let [root, run] = ["root", "run"].map(|d| self.engine.path().join(d).display().to_string());
        let own = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
        ok(program, &[&own[..], args].concat())
    }
}

#[test]
fn what_is_exported_is_read_by_skopeo_podman_and_umoci() {
    let lab = Lab::new();
    let config = lab.config();
    for kind in ["oci-archive", "docker-archive", "oci", "dir"] {
        let path = lab.export(kind);
        let name = if kind == "oci" { format!("{kind}:{path}:{NAME}") } else { format!("{kind}:{path}") };
        let seen: Value = serde_json::from_str(&ok("skopeo", &["inspect", "--config", &name])).unwrap();
        assert_eq!(seen["rootfs"], config["rootfs"], "{kind}");
        assert_eq!(seen["config"], config["config"], "{kind}");
        // Reads every layer.
        ok("skopeo", &["copy", &name, &format!("dir:{}", lab.at(&format!("copied.{kind}")))]);
    }
    for kind in ["oci-archive", "docker-archive"] {
        let said = lab.engine("podman", &["load", "-i", &lab.at(&format!("exported.{kind}"))]);
        assert!(said.contains(&format!("Loaded image: {NAME}")), "{kind}: {said}");
        let image = lab.engine("podman", &["image", "inspect", NAME]);
        let image: Value = serde_json::from_str(&image).unwrap();
        assert_eq!(image[0]["RootFS"]["Layers"], config["rootfs"]["diff_ids"], "{kind}");
        assert_eq!(image[0]["RepoTags"], json!([NAME]), "{kind}");
        lab.engine("podman", &["rmi", NAME]);
    }
    ok("umoci", &["unpack", "--image", &format!("{}:{NAME}", lab.at("exported.oci")), &lab.at("umoci")]);
    lab.store.ok(&["unpack", NAME, &lab.at("own")]);
    let (umoci, own) = (lab.at("umoci/rootfs"), lab.at("own/rootfs"));
    assert_eq!(unpack::describe(Path::new(&umoci)), unpack::describe(Path::new(&own)));
}

#[test]
fn what_podman_buildah_and_skopeo_save_is_imported() {
    let lab = Lab::new();
    let rootfs = Lab::rootfs(&lab.store, NAME);
    let oci = format!("oci:{}:{NAME}", lab.export("oci"));
    lab.engine("podman", &["load", "-i", &lab.export("oci-archive")]);
    let mut saved = Vec::new();
    for format in ["docker-archive", "oci-archive", "oci-dir", "docker-dir"] {
        let path = lab.at(&format!("podman.{format}"));
        lab.engine("podman", &["save", "--format", format, "-o", &path, NAME]);
        saved.push(path);
    }
    for kind in ["oci-archive", "docker-archive"] {
        let path = lab.at(&format!("buildah.{kind}"));
        lab.engine("buildah", &["push", NAME, &format!("{kind}:{path}:{NAME}")]);
        saved.push(path);
    }
    for kind in ["oci-archive", "docker-archive", "dir", "oci"] {
        let path = lab.at(&format!("skopeo.{kind}"));
        let tag = if kind == "dir" { String::new() } else { format!(":{NAME}") };
        ok("skopeo", &["copy", &oci, &format!("{kind}:{path}{tag}")]);
        saved.push(path);
    }
    for path in saved {
        let (store, _) = Lab::import(&path);
        assert_eq!(Lab::rootfs(&store, "got:1"), rootfs, "{path}");
        let own: Value = serde_json::from_str(&store.ok(&["inspect", "got:1"])).unwrap();
        assert_eq!(own["config"]["config"]["Labels"]["of"], "the lab", "{path}");
        // Its own name, where it has one.
        if !path.ends_with("dir") {
            let said = store.ok(&["import", &path]);
            assert!(said.starts_with(&format!("{NAME} sha256:")), "{path}: {said}");
        }
    }
}

#[test]
fn exported_and_imported_is_the_same_image() {
    let lab = Lab::new();
    let config = sha256(&blob(lab.store.path(), &lab.digest, "config"));
    for kind in ["oci-archive", "oci", "dir", "docker-archive"] {
        let path = lab.export(kind);
        let (store, digest) = Lab::import(&path);
        if kind != "docker-archive" {
            assert_eq!(digest, lab.digest, "{kind}: documents keep their bytes");
        }
        assert_eq!(sha256(&blob(store.path(), &digest, "config")), config, "{kind}");
        assert_eq!(Lab::rootfs(&store, "got:1"), Lab::rootfs(&lab.store, NAME), "{kind}");
    }
}

/// The bytes of what the manifest calls `what`.
fn blob(store: &Path, manifest: &str, what: &str) -> Vec<u8> {
    let read = |digest: &str| fs::read(store.join("blobs/sha256").join(&digest[7..])).unwrap();
    let manifest: Value = serde_json::from_slice(&read(manifest)).unwrap();
    read(manifest[what]["digest"].as_str().unwrap())
}

#[test]
fn the_same_bytes_each_time_and_without_owners() {
    let lab = Lab::new();
    for kind in ["oci-archive", "docker-archive", "rootfs"] {
        let export = |epoch: Option<&str>| {
            let mut command = lab.store.command();
            command.args(["export", "--kind", kind, NAME]).env_remove("SOURCE_DATE_EPOCH");
            if let Some(epoch) = epoch {
                command.env("SOURCE_DATE_EPOCH", epoch);
            }
            collect(&mut command).stdout
        };
        let bytes = export(None);
        assert_eq!(bytes, export(None), "{kind}");
        let epoch = export(Some("1000"));
        let mut archive = tar::Archive::new(&epoch[..]);
        for entry in archive.entries().unwrap() {
            let header = entry.unwrap().header().clone();
            assert_eq!(header.mtime().unwrap(), 1000, "{kind}");
            assert_eq!(header.username_bytes().unwrap_or_default(), b"", "{kind}");
        }
    }
}

#[test]
fn through_pipes_and_compressed_as_a_whole() {
    let lab = Lab::new();
    for kind in ["oci-archive", "docker-archive"] {
        for filter in ["cat", "gzip", "zstd", "xz"] {
            let store = TestStore::new();
            let mut export = lab.store.command();
            let mut export =
                export.args(["export", "--kind", kind, NAME]).stdout(Stdio::piped()).spawn().unwrap();
            let mut pack = Command::new(filter)
                .stdin(export.stdout.take().unwrap())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut import = store.command();
            let out = collect(import.args(["import", "-"]).stdin(pack.stdout.take().unwrap()));
            assert!(export.wait().unwrap().success() && pack.wait().unwrap().success());
            assert!(out.status.success(), "{kind} {filter}: {}", String::from_utf8_lossy(&out.stderr));
            assert_eq!(Lab::rootfs(&store, NAME), Lab::rootfs(&lab.store, NAME), "{kind} {filter}");
        }
    }
}

#[test]
fn what_docker_saves_is_imported() {
    let lab = Lab::new();
    let [lower, upper] = layers().try_into().unwrap();
    let old = DockerArchive::new()
        .old(&["app:1", "lab.example.org/app:latest"], &[lower.clone(), upper.clone()])
        .old(&["base:1"], std::slice::from_ref(&lower))
        .finish();
    fs::write(lab.at("old.tar"), &old).unwrap();
    let store = TestStore::new();
    let said = store.ok(&["import", &lab.at("old.tar"), "--format", "json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    let names: Vec<_> = said.as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    let want = ["docker.io/library/app:1", "lab.example.org/app:latest", "docker.io/library/base:1"];
    assert_eq!(names, want);
    assert_eq!(said[0]["digest"], said[1]["digest"]);
    assert_eq!(Lab::rootfs(&store, "app:1"), Lab::rootfs(&lab.store, NAME));

    // One of several, by its name.
    let store = TestStore::new();
    let said = store.ok(&["import", &format!("docker-archive:{}", lab.at("old.tar")), "base:1"]);
    assert_eq!(said.lines().count(), 1);
    let e = store.fails(2, &["import", &lab.at("old.tar"), "other:1"]);
    assert!(e.contains("no such image, but app:1, lab.example.org/app:latest, base:1"), "{e}");

    // Layers that are links to others, and compressed ones.
    let packed = Blob::gzip(&upper);
    let config = crate::common::docker::config(&[sha256(&lower), packed.diff_id.clone(), sha256(&lower)]);
    let name = format!("{}.json", &sha256(&config)[7..]);
    let linked = DockerArchive::new()
        .file("a/layer.tar", &lower)
        .file("b.tar.gz", &packed.bytes)
        .symlink("c/layer.tar", "../a/layer.tar")
        .file(&name, &config)
        .image(&name, &[], &["a/layer.tar".into(), "b.tar.gz".into(), "c/layer.tar".into()])
        .finish();
    fs::write(lab.at("linked.tar"), &linked).unwrap();
    let e = store.fails(2, &["import", &lab.at("linked.tar")]);
    assert!(e.contains("has no name"), "{e}");
    let (store, digest) = Lab::import(&lab.at("linked.tar"));
    let manifest = fs::read(store.path().join("blobs/sha256").join(&digest[7..])).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["layers"][1]["mediaType"], packed.media_type);
    store.ok(&["unpack", "got:1", &lab.at("linked")]);
    assert!(lab.work.path().join("linked/rootfs/etc/noted").exists());
}

/// docker's form since version 25: a layout and a docker-archive in one; of an index only the
/// platform that was there when it was saved.
#[test]
fn what_docker_saves_since_25_is_imported() {
    let lab = Lab::new();
    let layout = Layout::new(&lab.work.path().join("layout"));
    let [lower, upper] = layers().try_into().unwrap();
    let digest = layout.add("x", &[Blob::tar(&lower), Blob::tar(&upper)], &json!({}));
    let index = fs::read(layout.path().join("index.json")).unwrap();
    let mut entry = serde_json::from_slice::<Value>(&index).unwrap()["manifests"][0].clone();
    entry["platform"] = json!({"os": "linux", "architecture": std::env::consts::ARCH.replace("x86_64", "amd64")
        .replace("aarch64", "arm64")});
    let mut missing = entry.clone();
    missing["digest"] = json!(sha256(b"not there"));
    missing["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let both = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [missing, entry]});
    let put = layout.put("application/vnd.oci.image.index.v1+json", both.to_string().as_bytes());
    let mut named = put;
    named["annotations"] = json!({"io.containerd.image.name": "docker.io/library/app:1", "org.opencontainers.image.ref.name": "1"});
    let top = json!({"schemaVersion": 2, "manifests": [named]});
    fs::write(layout.path().join("index.json"), top.to_string()).unwrap();
    fs::write(layout.path().join("manifest.json"), "[]").unwrap();
    ok("tar", &["-C", &lab.at("layout"), "-cf", &lab.at("saved.tar"), "."]);
    let store = TestStore::new();
    let said = store.ok(&["import", &lab.at("saved.tar")]);
    assert_eq!(said, format!("docker.io/library/app:1 {digest}\n"));
    let e = store.fails(9, &["import", &lab.at("saved.tar"), "--platform", "linux/s390x"]);
    assert!(e.contains("has no file \"sha256:"), "{e}");
}

#[test]
fn a_tar_of_files_becomes_an_image() {
    let lab = Lab::new();
    let tar = Lab::rootfs(&lab.store, NAME);
    fs::write(lab.at("files.tar"), &tar).unwrap();
    for (pack, media) in [("gzip", "tar+gzip"), ("zstd", "tar+zstd"), ("xz", "tar+gzip"), ("cat", "tar")] {
        let path = lab.at(&format!("files.{pack}"));
        ok("sh", &["-c", &format!("{pack} <{} >{path}", lab.at("files.tar"))]);
        let (store, digest) = Lab::import(&path);
        let manifest = fs::read(store.path().join("blobs/sha256").join(&digest[7..])).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layer = &manifest["layers"][0];
        assert!(layer["mediaType"].as_str().unwrap().ends_with(media), "{pack}: {layer}");
        if pack != "xz" {
            assert_eq!(layer["digest"], sha256(&fs::read(&path).unwrap()), "{pack}: as it came");
        }
        assert_eq!(Lab::rootfs(&store, "got:1"), tar, "{pack}");
    }
    let import = |epoch: &str| {
        let store = TestStore::new();
        let mut command = store.command();
        command.env("SOURCE_DATE_EPOCH", epoch).args(["import", &lab.at("files.gzip"), "made:1"]);
        command.args([
            "--entrypoint",
            "[\"/usr/ping\", \"a b\"]",
            "--cmd",
            "-c 1",
            "--env",
            "A=b",
            "-e",
            "C=d=e",
        ]);
        command.args(["--workdir", "/etc", "--user", "1:2", "--label", "x=y", "--message", "a note"]);
        let said = collect(command.args(["--platform", "linux/arm/v7"])).stdout;
        (String::from_utf8(said).unwrap(), store)
    };
    let (said, store) = import("86400");
    assert_eq!(said, import("86400").0, "the same each time");
    let digest = said.trim().split_once(' ').unwrap().1;
    let config: Value = serde_json::from_slice(&blob(store.path(), digest, "config")).unwrap();
    let want = json!({"User": "1:2", "Env": ["A=b", "C=d=e"], "Entrypoint": ["/usr/ping", "a b"],
        "Cmd": ["-c", "1"], "WorkingDir": "/etc", "Labels": {"x": "y"}});
    assert_eq!(config["config"], want);
    let platform = ["os", "architecture", "variant"].map(|k| config[k].as_str().unwrap().to_string());
    assert_eq!(platform, ["linux", "arm", "v7"]);
    assert_eq!(config["created"], "1970-01-02T00:00:00.000000000Z");
    assert_eq!(config["history"][0]["comment"], "a note");
    ok("umoci", &["stat", "--image", &format!("{}:docker.io/library/made:1", store.path().display())]);
}

#[test]
fn the_files_of_an_image_as_a_tar() {
    let lab = Lab::new();
    let path = lab.export("rootfs");
    lab.store.ok(&["unpack", NAME, &lab.at("own")]);
    fs::create_dir(lab.at("tar")).unwrap();
    let args = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--delay-directory-restore", "-p"];
    ok("tar", &[&args[..], &["-C", &lab.at("tar"), "-xf", &path]].concat());
    let (tar, own) = (lab.at("tar"), lab.at("own/rootfs"));
    assert_eq!(unpack::describe(Path::new(&tar)), unpack::describe(Path::new(&own)));
    // Python's reader, for one that is strict.
    let script = "import sys, tarfile; print(len(tarfile.open(sys.argv[1], errorlevel=2).getmembers()))";
    assert_eq!(ok("python3", &["-c", script, &path]).trim(), "13");
}

#[test]
fn an_aci_becomes_an_image() {
    let lab = Lab::new();
    let manifest = json!({"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/lab/app",
        "labels": [{"name": "version", "value": "1.2"}, {"name": "os", "value": "linux"},
            {"name": "arch", "value": "aarch64"}],
        "app": {"exec": ["/bin/app", "--flag"], "user": "5", "group": "6", "workingDirectory": "/srv",
            "environment": [{"name": "A", "value": "b"}]}});
    let tar = Tar::new()
        .file("manifest", manifest.to_string().as_bytes())
        .dir("rootfs")
        .dir("rootfs/bin")
        .pax(&[("SCHILY.xattr.user.a", b"1\n"), ("mtime", b"5.5")])
        .entry(T::Regular, "rootfs/bin/app", 0o4711, "", b"program")
        .link("rootfs/bin/app2", "rootfs/bin/app")
        .symlink("rootfs/link", "/bin/app")
        .finish();
    fs::write(lab.at("app.aci"), Blob::gzip(&tar).bytes).unwrap();
    let store = TestStore::new();
    let said = store.ok(&["import", &lab.at("app.aci")]);
    assert!(said.starts_with("example.com/lab/app:1.2 sha256:"), "{said}");
    let image: Value = serde_json::from_str(&store.ok(&["inspect", "app:1.2"])).unwrap();
    assert_eq!(image["platform"], "linux/arm64");
    let want = json!({"User": "5:6", "Env": ["A=b"], "Entrypoint": ["/bin/app", "--flag"], "WorkingDir": "/srv",
        "Labels": {"version": "1.2"}});
    assert_eq!(image["config"]["config"], want);
    store.ok(&["unpack", "--platform", "linux/arm64", "app:1.2", &lab.at("out")]);
    let tree = unpack::describe(&lab.work.path().join("out/rootfs"));
    let names: Vec<_> = tree.keys().map(|n| n.to_str().unwrap()).collect();
    assert_eq!(names, ["", "bin", "bin/app", "bin/app2", "link"]);
    let app = &tree[std::ffi::OsStr::new("bin/app")];
    assert!(
        app.contains("104711 0:0") && app.contains("mtime 5.500000000") && app.contains("user.a=1\\n"),
        "{app}"
    );
}

#[test]
fn a_layout_is_added_to() {
    let lab = Lab::new();
    let layout = lab.export("oci");
    let [lower, _] = layers().try_into().unwrap();
    let other = Layout::at(lab.store.path()).add("localhost/other:1", &[Blob::gzip(&lower)], &json!({}));
    lab.store.ok(&["export", "--kind", "oci", "-o", &layout, "localhost/other:1"]);
    let index = || -> Vec<(String, String)> {
        let index = fs::read(Path::new(&layout).join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let text = |v: &Value| v.as_str().unwrap().to_string();
        let name = |m: &Value| text(&m["annotations"]["org.opencontainers.image.ref.name"]);
        index["manifests"].as_array().unwrap().iter().map(|m| (name(m), text(&m["digest"]))).collect()
    };
    assert_eq!(index(), [(NAME.into(), lab.digest.clone()), ("localhost/other:1".into(), other.clone())]);
    // The name moves.
    let store = TestStore::new();
    store.ok(&["import", &layout, "localhost/other:1"]);
    store.ok(&["import", "--kind", "rootfs", &lab.export("rootfs"), NAME]);
    store.ok(&["export", "--kind", "oci", "-o", &layout, NAME]);
    let index = index();
    assert_eq!((index.len(), &index[0].1), (2, &other));
    assert!(index[1].0 == NAME && index[1].1 != lab.digest);
    // Both in one archive, and back.
    let both = lab.at("both.tar");
    for kind in ["oci-archive", "docker-archive"] {
        store.ok(&["export", "--kind", kind, "-o", &both, NAME, "other:1"]);
        let fresh = TestStore::new();
        let said = fresh.ok(&["import", &both]);
        let names: Vec<_> = said.lines().map(|l| l.split_once(' ').unwrap().0).collect();
        assert_eq!(names, [NAME, "localhost/other:1"], "{kind}");
        let name = format!("{kind}:{both}:localhost/other:1");
        assert!(ok("skopeo", &["inspect", &name]).contains("\"Layers\""), "{kind}");
    }
}

#[test]
fn artifacts_and_indexes_pass_as_they_are() {
    let lab = Lab::new();
    let layout = Layout::at(lab.store.path());
    let (oci, empty) = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.empty.v1+json");
    let artifact = json!({"schemaVersion": 2, "mediaType": oci, "artifactType": "application/x.lab",
        "config": layout.put(empty, b"{}"), "layers": [layout.put("application/x.lab", b"any bytes")]});
    let artifact_digest = layout.name("localhost/artifact:1", oci, artifact.to_string().as_bytes());
    let descriptor = |digest: &str, arch: &str| {
        let size = fs::metadata(lab.store.path().join("blobs/sha256").join(&digest[7..])).unwrap().len();
        json!({"mediaType": oci, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": arch}})
    };
    let list = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": list, "annotations": {"kept": "yes"}, "manifests":
        [descriptor(&lab.digest, "amd64"), descriptor(&artifact_digest, "unknown")]});
    let index_digest = layout.name("localhost/index:1", list, index.to_string().as_bytes());
    for (name, digest) in [("localhost/artifact:1", &artifact_digest), ("localhost/index:1", &index_digest)] {
        for kind in ["oci-archive", "oci", "dir"] {
            let path = lab.at(&format!("{}.{kind}", &digest[7..12]));
            lab.store.ok(&["export", "--kind", kind, "-o", &path, name]);
            let (store, got) = Lab::import(&path);
            assert_eq!(&got, digest, "{name} {kind}");
            assert!(store.path().join("blobs/sha256").join(&artifact_digest[7..]).exists());
            if kind == "dir" {
                let copy = format!("dir:{}", lab.at(&format!("{}.skopeo", &digest[7..12])));
                ok("skopeo", &["copy", "--all", &format!("dir:{path}"), &copy]);
            }
        }
    }
    let e = lab
        .store
        .fails(7, &["export", "--kind", "docker-archive", "-o", &lab.at("x"), "localhost/artifact:1"]);
    assert!(e.contains("no other artifacts"), "{e}");
    let platform = ["export", "--kind", "docker-archive", "--platform", "linux/amd64", "-o"];
    lab.store.ok(&[&platform[..], &[&lab.at("y"), "localhost/index:1"]].concat());
    assert!(!lab.work.path().join("x").exists() && lab.work.path().join("y").exists());
}

#[test]
fn nothing_half_made_is_left() {
    let lab = Lab::new();
    let blobs = lab.store.path().join("blobs/sha256");
    let manifest: Value = serde_json::from_slice(&fs::read(blobs.join(&lab.digest[7..])).unwrap()).unwrap();
    let layer: PathBuf = blobs.join(&manifest["layers"][1]["digest"].as_str().unwrap()[7..]);
    let mut bytes = fs::read(&layer).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&layer, &bytes).unwrap();
    for kind in ["oci-archive", "docker-archive", "oci", "dir", "rootfs"] {
        let e = lab.store.fails(9, &["export", "--kind", kind, "-o", &lab.at("out"), NAME]);
        assert!(e.contains("has digest"), "{kind}: {e}");
        assert_eq!(fs::read_dir(lab.work.path()).unwrap().count(), 0, "{kind}");
    }
    fs::remove_file(&layer).unwrap();
    let e = lab.store.fails(10, &["export", "-o", &lab.at("out"), NAME]);
    assert!(e.contains("no blob sha256:"), "{e}");
    assert_eq!(fs::read_dir(lab.work.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_is_said() {
    let lab = Lab::new();
    fs::create_dir(lab.at("full")).unwrap();
    fs::write(lab.at("full/file"), "kept").unwrap();
    let full = lab.at("full");
    for (args, code, text) in [
        (&["export", "--kind", "oci", "-o", &full, NAME][..], 2, "is there already"),
        (&["export", "--kind", "dir", "-o", &full, NAME], 2, "is there already"),
        (&["export", "-o", &full, NAME], 2, "is there already"),
        (&["export", "--kind", "dir", NAME], 2, "standard output cannot be a dir"),
        (&["export", "--kind", "rootfs", NAME, NAME], 2, "made of one image"),
        (&["export", "--kind", "aci", NAME], 7, "not made of"),
        (&["export", "nothing:1"], 10, "no image nothing:1"),
        (&["import", &lab.at("nowhere")], 10, "nowhere"),
        (&["import", &full], 2, "no archive or folder of images"),
        (&["import", "--kind", "oci", &lab.at("full/file"), "x"], 9, "within an entry"),
        (&["import", "/dev/null", "x"], 2, "no archive or folder of images"),
    ] {
        let e = lab.store.fails(code, args);
        assert!(e.contains(text), "{args:?}: {e}");
    }
    let out = lab.store.output(&["import", "--kind", "ova", "x"]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("wanted oci, oci-archive"), "{out:?}");
    let archive = lab.export("oci-archive");
    let e = lab.store.fails(2, &["import", &archive, "--user", "1"]);
    assert!(e.contains("keep their configuration"), "{e}");
    let e = lab.store.fails(10, &["import", &archive, "--platform", "linux/s390x"]);
    assert!(e.contains("nothing for platform linux/s390x, only for linux/amd64"), "{e}");
    assert_eq!(fs::read(lab.at("full/file")).unwrap(), b"kept");
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o644);

    // A terminal.
    for (command, text) in [
        (format!("export {NAME}"), "not written to a terminal"),
        ("import -".into(), "not read from a terminal"),
    ] {
        let line = format!("{} --root {} {command}", crate::common::bin(), lab.store.path().display());
        let args = ["-qec", &line, "/dev/null"];
        let out = crate::common::output("script", &args);
        assert_eq!(out.status.code(), Some(2), "{}", describe("script", &args, &out));
        assert!(String::from_utf8_lossy(&out.stdout).contains(text));
    }
}

/// The time of an interruption: a layer of 8 GiB of zeros is being inflated.
#[test]
fn an_interrupted_export_leaves_nothing() {
    let lab = Lab::new();
    let mut z = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    z.write_all(&vec![0; 16 << 20]).unwrap();
    let bytes = z.finish().unwrap().repeat(512);
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip".into();
    let layer = Blob { bytes, media_type, diff_id: sha256(b"") };
    Layout::at(lab.store.path()).add("localhost/large:1", &[layer], &json!({}));
    for kind in ["docker-archive", "rootfs"] {
        let mut command = lab.store.command();
        let mut child = command
            .args(["export", "--kind", kind, "-o", &lab.at("out"), "localhost/large:1"])
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "{kind}: it is under way");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2), "{kind}: {status}");
        assert_eq!(fs::read_dir(lab.work.path()).unwrap().count(), 0, "{kind}");
        assert_eq!(fs::read_dir(lab.store.path().join("shipimg/tmp")).unwrap().count(), 0, "{kind}");
    }
}

/// A reader and a writer are used by several threads.
#[test]
fn several_threads_read_and_write() {
    use shipimg::archive::{Kind, Options, Reader, Source, Target, Writer};
    let lab = Lab::new();
    let scratch = tempfile::tempdir().unwrap();
    let archive = Source::Path(lab.export("docker-archive").into());
    let reader = Reader::open(&archive, scratch.path(), &Options::default()).unwrap();
    let root = &reader.image(None).unwrap().descriptor;
    let manifest = reader.document(root).unwrap();
    let shipimg::oci::Document::Manifest(parsed) =
        shipimg::oci::Document::parse(&manifest, &root.media_type).unwrap()
    else {
        panic!()
    };
    for kind in [Kind::OciArchive, Kind::DockerArchive, Kind::Oci, Kind::Dir] {
        let path = lab.at(&format!("threads.{kind}"));
        let writer =
            Writer::create(kind, &Target::Path(path.clone().into()), scratch.path(), 0, Limits::default())
                .unwrap();
        std::thread::scope(|scope| {
            for blob in parsed.layers.iter().chain([&parsed.config]).cycle().take(12) {
                let (reader, writer) = (&reader, &writer);
                scope.spawn(move || writer.put_blob(blob, &mut reader.blob(blob, 0).unwrap()).unwrap());
            }
        });
        assert!(parsed.layers.iter().all(|l| writer.has(l)));
        writer.put_document(root, &manifest).unwrap();
        writer.add(root, &[NAME.to_string()]).unwrap();
        writer.finish().unwrap();
        let (store, _) = Lab::import(&path);
        assert_eq!(Lab::rootfs(&store, "got:1"), Lab::rootfs(&lab.store, NAME), "{kind}");
    }
}

/// The engine that copies between all places takes archives too.
#[test]
fn archives_are_sources_and_sinks() {
    use shipimg::archive::{Kind, Options, Reader, Source, Target, Writer};
    use shipimg::store::Store;
    use shipimg::transfer::{self, FromArchive, FromStore, ToArchive, ToStore};
    let lab = Lab::new();
    let store = Store::open(lab.store.path()).unwrap();
    let scratch = store.scratch().unwrap();
    for kind in [Kind::OciArchive, Kind::DockerArchive, Kind::Oci, Kind::Dir] {
        let path = lab.at(&format!("copied.{kind}"));
        let again = lab.at(&format!("again.{kind}"));
        for path in [&path, &again] {
            let writer =
                Writer::create(kind, &Target::Path(path.into()), scratch.path(), 0, Limits::default())
                    .unwrap();
            let source = FromStore::new(&store, store.find(&NAME.parse().unwrap()).unwrap());
            let sink = ToArchive::new(&writer, vec![NAME.into()]);
            transfer::copy(&source, &sink, &transfer::Options::default(), &store, &|_| ()).unwrap();
            writer.finish().unwrap();
        }
        if !kind.is_folder() {
            assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap(), "{kind}: the same bytes");
        }
        let reader = Reader::open(&Source::Path(path.into()), scratch.path(), &Options::default()).unwrap();
        let fresh = TestStore::new();
        let other = Store::open(fresh.path()).unwrap();
        let source = FromArchive::new(&reader, reader.image(None).unwrap());
        let sink = ToStore::new(&other, "got:1".parse().unwrap());
        transfer::copy(&source, &sink, &transfer::Options::default(), &other, &|_| ()).unwrap();
        assert_eq!(Lab::rootfs(&fresh, "got:1"), Lab::rootfs(&lab.store, NAME), "{kind}");
    }
}
