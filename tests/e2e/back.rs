//! From a folder, a bundle or a container back into an image.

use crate::common::bundle::busybox;
use crate::common::layout::{Blob, Layout, Tar, sha256};
use crate::common::{TestStore, need_root, ok, output, unmount};
use crate::unpack::describe;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tar::EntryType as T;

fn differences(want: &Path, got: &Path) -> Vec<String> {
    let (want, got) = (describe(want), describe(got));
    let names = want.keys().chain(got.keys().filter(|n| !want.contains_key(*n)));
    names
        .filter(|n| want.get(*n) != got.get(*n))
        .map(|n| {
            format!("/{}\n  want {:?}\n  got  {:?}", n.as_bytes().escape_ascii(), want.get(n), got.get(n))
        })
        .collect()
}

pub fn assert_same(want: &Path, got: &Path, what: &str) {
    let differences = differences(want, got);
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}

/// A store with the image `x:0` of one layer; a folder for trees.
pub fn ground(tar: Tar, config: &Value) -> (TestStore, tempfile::TempDir) {
    need_root();
    let store = TestStore::in_memory();
    Layout::new(store.path()).add("x:0", &[Blob::gzip(&tar.finish())], config);
    (store, tempfile::tempdir_in("/dev/shm").unwrap())
}

pub fn at(ground: &tempfile::TempDir, name: &str) -> String {
    ground.path().join(name).to_str().unwrap().to_string()
}

/// A tree with one of each sort.
fn rich() -> Tar {
    let capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let mut tar = Tar::new().dir("./").dir("d/").dir("d/deep/").file("d/deep/f", b"deep");
    for i in 0..30 {
        tar = tar.file(&format!("d/f{i}"), format!("file {i}").as_bytes());
    }
    tar.link("d/link", "d/f1")
        .symlink("l i n k", "x y")
        .dir("replaced/")
        .file("replaced/old", b"o")
        .file("becomes-dir", b"f")
        .dir("becomes-file/")
        .file("becomes-file/x", b"x")
        .pax(&[("SCHILY.xattr.security.capability", capability)])
        .entry(T::Regular, "capable", 0o755, "", b"c")
        .pax(&[("SCHILY.xattr.user.note", b"a\n\0"), ("mtime", b"1234567890.123456789")])
        .file("noted", b"n")
        .entry(T::Fifo, "fifo", 0o600, "", b"")
        .pax(&[("path", b"n\xff#*[\\ ?=")])
        .file("odd", b"odd")
}

fn change(root: &Path) {
    for i in 0..10 {
        fs::write(root.join(format!("d/f{i}")), format!("changed {i}")).unwrap();
    }
    fs::remove_file(root.join("d/f20")).unwrap();
    fs::remove_dir_all(root.join("d/deep")).unwrap();
    fs::remove_dir_all(root.join("replaced")).unwrap();
    fs::create_dir(root.join("replaced")).unwrap();
    fs::write(root.join("replaced/new"), "n").unwrap();
    fs::remove_file(root.join("becomes-dir")).unwrap();
    fs::create_dir(root.join("becomes-dir")).unwrap();
    fs::write(root.join("becomes-dir/in"), "i").unwrap();
    fs::remove_dir_all(root.join("becomes-file")).unwrap();
    fs::write(root.join("becomes-file"), "f").unwrap();
    fs::hard_link(root.join("d/f25"), root.join("f25-too")).unwrap();
    rustix::fs::lsetxattr(root.join("noted"), "user.note", b"new", XattrFlags::empty()).unwrap();
    fs::copy(root.join("d/f2"), root.join("capable-too")).unwrap();
    ok("setcap", &["cap_net_raw+ep", root.join("capable-too").to_str().unwrap()]);
    fs::set_permissions(root.join("d/f26"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"new \xff\n")), "odd").unwrap();
    let device = rustix::fs::makedev(7, 1000);
    rustix::fs::mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::RUSR, device).unwrap();
}

fn ground_on_disk(tar: Tar) -> (TestStore, tempfile::TempDir) {
    need_root();
    let store = TestStore::new();
    Layout::new(store.path()).add("x:0", &[Blob::gzip(&tar.finish())], &json!({}));
    (store, tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
}

#[test]
fn repacked_as_umoci_reads_it() {
    let (store, ground) = ground_on_disk(rich());
    for manifest in [None, Some("mtree")] {
        let name = manifest.unwrap_or("none");
        let dir = at(&ground, name);
        let mut args = vec!["unpack", "x:0", &dir];
        args.extend(manifest.iter().flat_map(|m| ["--manifest", m]));
        store.ok(&args);
        let root = Path::new(&dir).join("rootfs");
        change(&root);
        let image = format!("docker.io/library/x:{name}");
        store.ok(&["repack", &dir, &image, "--author", "me", "--comment", "why"]);
        let umoci = at(&ground, &format!("umoci-{name}"));
        ok("umoci", &["unpack", "--image", &format!("{}:{image}", store.path().display()), &umoci]);
        assert_same(&root, &Path::new(&umoci).join("rootfs"), name);
        let inspect: Value = serde_json::from_str(&ok(
            "skopeo",
            &["inspect", "--config", "--raw", &format!("oci:{}:{image}", store.path().display())],
        ))
        .unwrap();
        assert_eq!(inspect["history"].as_array().unwrap().last().unwrap()["comment"], "why");
        // Only what is different is in it.
        let size = |v: &Value| v["layers"][1]["size"].as_u64().unwrap();
        assert!(size(&serde_json::from_str(&store.ok(&["inspect", &image])).unwrap()) < 4000);
    }
}

#[test]
fn the_same_input_gives_the_same_digest() {
    let (store, ground) = ground_on_disk(rich());
    let dir = at(&ground, "dir");
    store.ok(&["unpack", "x:0", &dir, "--manifest", "mtree"]);
    change(&Path::new(&dir).join("rootfs"));
    fs::write(at(&ground, "tar"), Tar::new().file("new", b"n").finish()).unwrap();
    let source = at(&ground, "dir/rootfs/d");
    let tar = at(&ground, "tar");
    for compression in ["gzip", "zstd:7", "none"] {
        for args in [
            vec!["repack", &dir, "docker.io/library/y:1"],
            vec!["insert", "x:0", &source, "/in", "--tag", "y:1"],
            vec!["layer", "add", "x:0", &tar, "--tag", "y:1"],
            vec!["squash", "x:0", "--tag", "y:1"],
        ] {
            let run = || {
                let mut command = store.command();
                command
                    .args(&args)
                    .args(["--compression", compression])
                    .env("SOURCE_DATE_EPOCH", "1600000000");
                let out = command.output().unwrap();
                assert!(out.status.success(), "{args:?} {}", String::from_utf8_lossy(&out.stderr));
                String::from_utf8(out.stdout).unwrap()
            };
            assert_eq!(run(), run(), "{args:?}");
        }
    }
    let json: Value = serde_json::from_str(&store.ok(&["inspect", "docker.io/library/y:1"])).unwrap();
    assert_eq!(json["config"]["created"], "2020-09-13T12:26:40.000000000Z");
}

#[test]
fn manifests_that_mtree_and_umoci_read() {
    let (store, ground) = ground_on_disk(rich());
    let dir = at(&ground, "dir");
    store.ok(&["unpack", "x:0", &dir, "--manifest", "mtree"]);
    let root = at(&ground, "dir/rootfs");
    let mtree = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path());
    let mtree = mtree.filter(|p| p.extension().is_some_and(|e| e == "mtree")).collect::<Vec<_>>().remove(0);
    let check = || output("mtree", &["-f", mtree.to_str().unwrap(), "-p", &root]);
    let out = check();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    let text = fs::read_to_string(&mtree).unwrap();
    let digest = &sha256(b"odd")[7..];
    assert!(text.contains(&format!(r"./n\377\043\052\133\134\040\077\075 type=file uid=0 gid=0 mode=0644 time=1700000000.000000000 size=3 sha256digest={digest}")), "{text}");
    fs::write(at(&ground, "dir/rootfs/d/f3"), "FILE 3").unwrap();
    let out = check();
    assert!(!out.status.success());
    assert!(
        String::from_utf8_lossy(&out.stdout).contains("d/f3"),
        "{}",
        String::from_utf8_lossy(&out.stdout)
    );

    // Into a file, of a root filesystem only.
    let (bare, file) = (at(&ground, "bare"), at(&ground, "files"));
    store.ok(&["unpack", "x:0", &bare, "--rootfs-only", "--manifest", &format!("mtree:{file}")]);
    ok("mtree", &["-f", &file, "-p", &bare]);
    assert!(!Path::new(&bare).join("rootfs").exists());
    store.fails_usage(&["unpack", "x:0", &at(&ground, "no"), "--manifest", "other"]);
}

#[test]
fn links_to_directories_are_kept_as_by_umoci() {
    need_root();
    let store = TestStore::new();
    let below =
        Tar::new().dir("./").dir("real/").dir("real/sub/").file("real/old", b"o").symlink("link", "/real");
    let below = below.symlink("up", "../../real/sub").symlink("nowhere", "gone").finish();
    let above = Tar::new().entry(T::Directory, "link/", 0o700, "", b"").file("link/new", b"n");
    let above = above
        .dir("up/")
        .dir("up/deeper/")
        .file("up/deeper/f", b"f")
        .dir("nowhere/")
        .file("nowhere/x", b"x")
        .finish();
    Layout::new(store.path()).add("x:0", &[Blob::gzip(&below), Blob::gzip(&above)], &json!({}));
    let ground = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    store.ok(&["unpack", "x:0", &at(&ground, "ours"), "--keep-dirlinks"]);
    let image = format!("{}:x:0", store.path().display());
    ok("umoci", &["unpack", "--keep-dirlinks", "--image", &image, &at(&ground, "umoci")]);
    let root = |name: &str| ground.path().join(name).join("rootfs");
    assert!(root("ours").join("link").is_symlink());
    assert_eq!(fs::read(root("ours").join("real/new")).unwrap(), b"n");
    assert_eq!(fs::read(root("ours").join("real/sub/deeper/f")).unwrap(), b"f");
    assert!(root("ours").join("nowhere").is_dir());
    assert_same(&root("umoci"), &root("ours"), "want umoci's");
    store.ok(&["unpack", "x:0", &at(&ground, "plain")]);
    assert!(!root("plain").join("link").is_symlink());
}

#[test]
fn commit_of_bundles_and_containers() {
    need_root();
    let store = TestStore::new();
    let ground = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    busybox(&ground.path().join("root"));
    let tar = std::process::Command::new("tar")
        .arg("-C")
        .arg(ground.path().join("root"))
        .args(["-c", "."])
        .output();
    let more =
        Tar::new().dir("gone/").file("gone/x", b"x").dir("full/").file("full/y", b"y").file("one", b"1");
    let layers = [Blob::gzip(&tar.unwrap().stdout), Blob::gzip(&more.finish())];
    Layout::new(store.path()).add("x:0", &layers, &json!({"Cmd": ["sh"]}));
    let script =
        "rm -r /gone /full; mkdir /full; echo new > /full/new; echo 2 > /one; ln /one /two; chmod 4755 /one";
    for driver in ["overlay", "copy"] {
        store.ok(&["bundle", "create", "x:0", driver, "--driver", driver, "--", "sh", "-c", script]);
        store.ok(&["run", driver]);
        let image = format!("docker.io/library/x:{driver}");
        store.ok(&["commit", driver, &image]);
        let back = at(&ground, driver);
        store.ok(&["unpack", &image, &back]);
        let root = store.path().join("shipimg/bundles").join(driver).join("rootfs");
        let left: Vec<_> = differences(&root, &Path::new(&back).join("rootfs"))
            .into_iter()
            .filter(|d| !d.starts_with("/\n"))
            .collect();
        assert!(left.is_empty(), "{driver}: {}", left.join("\n"));
        assert_eq!(fs::read(Path::new(&back).join("rootfs/full/new")).unwrap(), b"new\n");
        assert!(!Path::new(&back).join("rootfs/gone").exists());
    }
    let said = store.fails(10, &["commit", "nothing", "docker.io/library/y:1"]);
    assert!(said.contains("nothing"), "{said}");

    // A container of a folder of `unpack`, compared with its image.
    let words = json!(["sh", "-c", script]).to_string();
    store.ok(&["config", "x:0", "--cmd", &words, "--tag", "docker.io/library/x:1"]);
    let (folder, id) = (at(&ground, "folder"), format!("commit-{}", std::process::id()));
    store.ok(&["unpack", "docker.io/library/x:1", &folder]);
    store.ok(&["run", "--keep", "--bundle", &folder, &id]);
    store.ok(&["commit", &id, "docker.io/library/x:folder"]);
    store.ok(&["delete", &id]);
    let back = at(&ground, "of-folder");
    store.ok(&["unpack", "docker.io/library/x:folder", &back]);
    assert_same(&Path::new(&folder).join("rootfs"), &Path::new(&back).join("rootfs"), "folder");
    assert_eq!(fs::read(Path::new(&back).join("rootfs/two")).unwrap(), b"2\n");
}

/// An upper directory whose files have their content elsewhere is refused, for an image of it would
/// lack that: renamed directories and files of which only the metadata was copied up.
#[test]
fn commit_refuses_what_is_elsewhere() {
    let tar = Tar::new().dir("d/").file("d/in", b"in").file("f", b"content");
    let (store, _ground) = ground_on_disk(tar);
    for (change, odd) in [("mv d moved", "moved"), ("chmod 600 f", "f")] {
        store.ok(&["bundle", "create", "x:0", "b", "--driver", "overlay"]);
        let bundle = store.path().join("shipimg/bundles/b");
        let layers = store.path().join("shipimg/layers");
        let mut lowers = fs::read_dir(layers).unwrap().map(|e| e.unwrap().path().join("fs"));
        let lower = lowers.find(|p| p.is_dir()).unwrap();
        let (b, root) = (bundle.display(), bundle.join("rootfs"));
        unmount(&root);
        let options = format!(
            "lowerdir={},upperdir={b}/upper,workdir={b}/work,index=off,redirect_dir=on,metacopy=on",
            lower.display()
        );
        ok("mount", &["-t", "overlay", "-o", &options, "overlay", root.to_str().unwrap()]);
        ok("sh", &["-ec", &format!("cd $0; {change}"), root.to_str().unwrap()]);
        let stderr = store.fails(7, &["commit", "b", "docker.io/library/y:1"]);
        let expected = format!("error: /{odd} cannot be in a tar: overlayfs has its content elsewhere");
        assert!(stderr.starts_with(&expected), "{stderr}");
        store.ok(&["bundle", "delete", "b"]);
    }
}

/// A compressed tar becomes a layer as it is, unless another compression is asked for.
#[test]
fn layer_add_keeps_bytes() {
    let (store, ground) = ground(Tar::new().dir("./"), &json!({}));
    let tar = Tar::new().file("added", &[b'a'; 5000]).finish();
    let file = at(&ground, "tar");
    for (blob, sort) in
        [(Blob::gzip_best(&tar), "gzip"), (Blob::zstd(&tar), "zstd"), (Blob::tar(&tar), "gzip")]
    {
        fs::write(&file, &blob.bytes).unwrap();
        let added = |options: &[&str]| {
            store.ok(&[&["layer", "add", "x:0", &file, "--tag", "docker.io/library/y:1"], options].concat());
            let manifest: Value =
                serde_json::from_str(&store.ok(&["inspect", "docker.io/library/y:1"])).unwrap();
            let layer = manifest["layers"][1].clone();
            let text = |key: &str| layer[key].as_str().unwrap().to_string();
            assert_eq!(manifest["config"]["rootfs"]["diff_ids"][1].as_str(), Some(sha256(&tar).as_str()));
            (text("digest"), text("mediaType"))
        };
        let (digest, media_type) = added(&[]);
        assert!(media_type.ends_with(sort), "{media_type}");
        assert_eq!(digest == blob.digest(), blob.media_type.ends_with(sort), "{}", blob.media_type);
        let (digest, media_type) = added(&["--compression", "zstd:19"]);
        assert!(media_type.ends_with("zstd") && digest != blob.digest(), "{media_type}");
        store.ok(&["unpack", "docker.io/library/y:1", &at(&ground, "out"), "--rootfs-only"]);
        assert_eq!(fs::read(at(&ground, "out/added")).unwrap(), [b'a'; 5000]);
        fs::remove_dir_all(at(&ground, "out")).unwrap();
        if blob.bytes[0] == 0x1f {
            fs::write(&file, &blob.bytes[..blob.bytes.len() - 9]).unwrap();
            store.fails(9, &["layer", "add", "x:0", &file, "--tag", "docker.io/library/y:1"]);
        }
    }
}

#[test]
fn insert_layer_config_squash() {
    let (store, ground) = ground(
        Tar::new().dir("./").dir("etc/").file("etc/old", b"o").file("gone", b"g"),
        &json!({"Env": ["A=1", "B=2"], "Odd": 1}),
    );
    let source = ground.path().join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("sub/new"), "n").unwrap();
    let source = source.to_str().unwrap();
    let tar = at(&ground, "add.tar.zst");
    let bytes = Tar::new().file("added", b"a").file("etc/.wh.sub", b"").finish();
    fs::write(&tar, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
    store.ok(&["insert", "x:0", source, "/etc", "--tag", "1"]);
    store.ok(&["insert", "x:0", source, "/etc", "--opaque", "--tag", "docker.io/library/x:2"]);
    store.ok(&["insert", "docker.io/library/x:2", "--whiteout", "/gone"]);
    store.ok(&["layer", "add", "docker.io/library/x:2", &tar, "--compression", "zstd:3", "--tag", "3"]);
    store.ok(&["insert", "docker.io/library/x:3", &format!("{source}/sub/new"), "opt/file", "--tag", "3"]);
    store.ok(&["squash", "docker.io/library/x:3", "--tag", "4"]);
    let files = |image: &str| {
        let dir = ground.path().join("files");
        store.ok(&["unpack".as_ref(), image.as_ref(), dir.as_os_str(), "--rootfs-only".as_ref()]);
        let names =
            describe(&dir).into_keys().map(|n| n.into_string().unwrap()).collect::<Vec<_>>().join(" ");
        fs::remove_dir_all(dir).unwrap();
        names
    };
    assert_eq!(files("docker.io/library/x:1"), " etc etc/old etc/sub etc/sub/new gone");
    assert_eq!(files("docker.io/library/x:2"), " etc etc/sub etc/sub/new");
    assert_eq!(files("docker.io/library/x:3"), " added etc opt opt/file");
    assert_eq!(files("docker.io/library/x:4"), files("docker.io/library/x:3"));

    fs::write(&tar, "no tar at all").unwrap();
    store.fails(9, &["layer", "add", "x:0", &tar, "--tag", "bad"]);
    fs::write(&tar, Tar::new().entry(T::Regular, "../out", 0o644, "", b"").finish()).unwrap();
    store.fails(9, &["layer", "add", "x:0", &tar, "--tag", "bad"]);
    store.fails(2, &["insert", "x:0", source, "../out", "--tag", "bad"]);
    assert!(!store.ok(&["images"]).contains(":bad"));

    let set = "--entrypoint sh --cmd -c --env B=3 --env C=4 --label l=1 --user 7:8 --workingdir /w --author me \
               --created 2001-02-03T04:05:06Z --volume /data --port 80 --stop-signal SIGINT --annotation an=x --tag 5";
    let args: Vec<&str> =
        ["config", "docker.io/library/x:4"].into_iter().chain(set.split_whitespace()).collect();
    store.ok(&args);
    let image = format!("oci:{}:docker.io/library/x:5", store.path().display());
    let config: Value =
        serde_json::from_str(&ok("skopeo", &["inspect", "--raw", "--config", &image])).unwrap();
    let want = json!({"Env": ["A=1", "B=3", "C=4"], "Odd": 1, "Entrypoint": ["sh"], "Cmd": ["-c"], "User": "7:8",
        "WorkingDir": "/w", "StopSignal": "SIGINT", "Labels": {"l": "1"}, "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}}});
    assert_eq!(config["config"], want);
    assert_eq!((&config["author"], &config["created"]), (&json!("me"), &json!("2001-02-03T04:05:06Z")));
    assert_eq!(config["history"].as_array().unwrap().len(), 2);
    let manifest: Value = serde_json::from_str(&ok("skopeo", &["inspect", "--raw", &image])).unwrap();
    assert_eq!(manifest["annotations"], json!({"an": "x"}));
    store.ok(&["config", "docker.io/library/x:5", "--clear", "env", "--clear", "annotation", "--env", "D=5"]);
    let config: Value =
        serde_json::from_str(&ok("skopeo", &["inspect", "--raw", "--config", &image])).unwrap();
    assert_eq!(config["config"]["Env"], json!(["D=5"]));
    assert_eq!(store.ok(&["fsck"]).lines().count().min(1), 1);
}

#[test]
fn diff_of_images_folders_and_bundles() {
    need_root();
    let store = TestStore::new();
    let ground = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    busybox(&ground.path().join("root"));
    let tar = std::process::Command::new("tar")
        .arg("-C")
        .arg(ground.path().join("root"))
        .args(["-c", "."])
        .output();
    let base = Tar::new()
        .dir("d/")
        .file("d/keep", b"k")
        .file("d/gone", b"gone")
        .file("same-size", b"one")
        .symlink("l", "x");
    let top =
        Tar::new().file("d/.wh.gone", b"").file("same-size", b"two").file("d/keep", b"k").symlink("l", "y");
    let top = top.entry(T::Regular, "d/mode", 0o600, "", b"m").dir("n/").file("n/\u{e9}", b"12345");
    let layers = [Blob::gzip(&tar.unwrap().stdout), Blob::gzip(&base.finish()), Blob::gzip(&top.finish())];
    let layout = Layout::new(store.path());
    layout.add("x:1", &layers, &json!({"Cmd": ["sh"]}));
    layout.add("x:0", &layers[..2], &json!({"Cmd": ["sh"]}));
    let want = "D /d/gone 4\nA /d/mode 1\nC /l 0 -> 0 link\nA /n 0\nA /n/\\xc3\\xa9 5\nC /same-size 3 -> 3 content\n";
    assert_eq!(store.ok(&["diff", "x:0", "x:1"]), want);
    assert_eq!(store.ok(&["diff", "x:1", "x:1", "--times"]), "");
    let json: Value = serde_json::from_str(&store.ok(&["diff", "x:0", "x:1", "--format", "json"])).unwrap();
    let row = json!({"path": "/same-size", "change": "changed", "what": ["content"], "type": "file", "oldSize": 3, "size": 3});
    assert_eq!(json[5], row);
    assert_eq!((&json[0]["size"], &json[0]["oldSize"]), (&json!(null), &json!(4)));

    let by_layer = store.ok(&["diff", "x:1", "--layers"]);
    let last = by_layer.split("layer ").last().unwrap();
    assert_eq!(last, format!("{}: 3 added, 2 changed, 1 deleted\n{want}", layers[2].digest()));
    let json: Value =
        serde_json::from_str(&store.ok(&["diff", "x:1", "--layers", "--format", "json"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert_eq!(json[1]["changes"].as_array().unwrap().len(), 5);

    // A folder, against its image and against another image.
    let dir = at(&ground, "dir");
    store.ok(&["unpack", "x:0", &dir]);
    assert_eq!(store.ok(&["diff", &dir]), "");
    fs::set_permissions(ground.path().join("dir/rootfs/d"), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::lchown(ground.path().join("dir/rootfs/l"), Some(3), None).unwrap();
    assert_eq!(store.ok(&["diff", &dir]), "C /d 0 -> 0 mode\nC /l 0 -> 0 owner\n");
    fs::File::open(ground.path().join("dir/rootfs/d/keep"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    assert!(
        store.ok(&["diff", "x:0", &format!("{dir}/rootfs"), "--times"]).contains("C /d/keep 1 -> 1 time\n")
    );

    // A bundle and a running container.
    store.ok(&["bundle", "create", "x:0", "b", "--", "sh", "-c", "echo hello > /made; exec sleep 60"]);
    store.ok(&["create", "b"]);
    store.ok(&["start", "b"]);
    for _ in 0..500 {
        if store.path().join("shipimg/bundles/b/rootfs/made").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let said = store.ok(&["diff", "b"]);
    store.ok(&["delete", "--force", "b"]);
    assert!(said.contains("A /made 6\n"), "{said}");
    assert!(!said.contains("/bin"), "{said}");
    store.fails(10, &["diff", "x:0", "nothing"]);
    store.fails(7, &["diff", &format!("{dir}/rootfs")]);
}

/// umoci and gomtree, which is in it, read our manifest in place of umoci's own.
#[test]
fn umoci_repacks_with_our_manifest() {
    let (store, ground) =
        ground_on_disk(Tar::new().dir("./").dir("d/").file("d/a b", b"a").file("d/z", b"z"));
    let image = format!("{}:x:0", store.path().display());
    ok("umoci", &["unpack", "--image", &image, &at(&ground, "umoci")]);
    let own = fs::read_dir(ground.path().join("umoci")).unwrap().map(|e| e.unwrap().path());
    let own = own.filter(|p| p.extension().is_some_and(|e| e == "mtree")).collect::<Vec<_>>().remove(0);
    store.ok(&["unpack", "x:0", &at(&ground, "ours"), "--manifest", &format!("mtree:{}", own.display())]);
    fs::write(ground.path().join("umoci/rootfs/d/z"), "changed").unwrap();
    let new = format!("{}:y:1", store.path().display());
    ok("umoci", &["repack", "--image", &new, &at(&ground, "umoci")]);
    let out = ok("umoci", &["unpack", "--image", &new, &at(&ground, "back")]);
    assert_eq!(fs::read(ground.path().join("back/rootfs/d/z")).unwrap(), b"changed", "{out}");
    assert_eq!(fs::read(ground.path().join("back/rootfs/d/a b")).unwrap(), b"a");
    let added = store.ok(&["diff", "y:1", "--layers"]);
    assert!(added.contains("C /d/z 1 -> 7 content\n"), "{added}");
    assert!(added.contains(": 0 added, 1 changed, 0 deleted"), "{added}");
}

/// umoci does not pad the last file of what it inserts.
#[test]
fn what_umoci_inserts_is_read() {
    let (store, ground) = ground_on_disk(Tar::new().dir("./"));
    fs::write(at(&ground, "file"), "12345").unwrap();
    ok(
        "umoci",
        &["insert", "--image", &format!("{}:x:0", store.path().display()), &at(&ground, "file"), "/file"],
    );
    store.ok(&["unpack", "x:0", &at(&ground, "dir"), "--rootfs-only"]);
    assert_eq!(fs::read(at(&ground, "dir/file")).unwrap(), b"12345");
}

#[test]
fn what_cannot_go_back_is_refused() {
    let (store, ground) = ground_on_disk(Tar::new().dir("./").file("f", b"f"));
    let dir = at(&ground, "dir");
    store.ok(&["unpack", "x:0", &dir, "--manifest", "mtree"]);
    let before = store.ok(&["images"]);
    let repack = |code: i32, dir: &str, part: &str| {
        let said = store.fails(code, &["repack", dir, "docker.io/library/y:1"]);
        assert!(said.contains(part), "{said}");
    };
    repack(2, &at(&ground, "dir/rootfs"), "was not made by unpack");
    let root = ground.path().join("dir/rootfs");
    fs::write(root.join(".wh.f"), "").unwrap();
    repack(7, &dir, "means a whiteout");
    fs::remove_file(root.join(".wh.f")).unwrap();
    rustix::fs::mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::RUSR, 0).unwrap();
    repack(7, &dir, "means a whiteout to overlayfs");
    fs::remove_file(root.join("null")).unwrap();
    let long = root.join("n".repeat(255));
    fs::write(&long, "").unwrap();
    store.ok(&["repack", &dir, "docker.io/library/long:1"]);
    store.ok(&["unpack", "docker.io/library/long:1", &at(&ground, "long")]);
    fs::remove_file(ground.path().join("long/rootfs").join("n".repeat(255))).unwrap();
    repack(7, &at(&ground, "long"), "whiteout would be too long");
    let record = fs::read_to_string(ground.path().join("dir/shipimg.json")).unwrap();
    let mtree: Value = serde_json::from_str(&record).unwrap();
    let mtree = ground.path().join("dir").join(mtree["mtree"].as_str().unwrap());
    fs::write(&mtree, "./../../f type=file\n").unwrap();
    repack(2, &dir, "line 1: name with a .. component");
    fs::remove_file(mtree).unwrap();
    repack(10, &dir, ".mtree: ");
    fs::write(ground.path().join("dir/shipimg.json"), record.replace("sha256:", "sha256:../")).unwrap();
    assert!(!store.output(&["repack", &dir, "docker.io/library/y:1"]).status.success());
    assert!(!store.ok(&["images"]).contains("library/y"), "{before}");
    assert_eq!(fs::read_dir(store.path().join("shipimg/tmp")).unwrap().count(), 0);
}

/// A change that keeps size and time is found, with and without a manifest; so is a directory that
/// takes the place of another by rename.
#[test]
fn changes_that_times_do_not_show() {
    let (store, ground) = ground_on_disk(
        Tar::new()
            .dir("./")
            .dir("a/")
            .dir("a/s/")
            .file("a/s/f", b"one")
            .dir("b/")
            .dir("b/s/")
            .file("b/s/f", b"two"),
    );
    for manifest in [&[][..], &["--manifest", "mtree"]] {
        let (dir, back) = (at(&ground, "dir"), at(&ground, "back"));
        store.ok(&[&["unpack", "x:0", &dir], manifest].concat());
        let root = ground.path().join("dir/rootfs");
        let file = root.join("b/s/f");
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        for (from, to) in [("a", "c"), ("b", "a"), ("c", "b")] {
            fs::rename(root.join(from), root.join(to)).unwrap();
        }
        store.ok(&["repack", &dir, "docker.io/library/y:1"]);
        store.ok(&["unpack", "docker.io/library/y:1", &back]);
        assert_same(&root, &ground.path().join("back/rootfs"), "swapped");
        fs::remove_dir_all(&back).unwrap();
        fs::write(&file, "ONE").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        store.ok(&["repack", &dir, "docker.io/library/y:1"]);
        store.ok(&["unpack", "docker.io/library/y:1", &back]);
        assert_eq!(fs::read(ground.path().join("back/rootfs/b/s/f")).unwrap(), b"ONE");
        assert_same(&root, &ground.path().join("back/rootfs"), "rewritten");
        fs::remove_dir_all(&back).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
