//! What `mkimg` writes: every kind is the same root, the same bytes each time, and takes its place
//! only when it is whole.

use crate::attributes::{MAKE, assert_same, hiding, tarred};
use crate::common::archive::{Archive, bookworm, sha256};
use crate::common::layout::{Blob, Layout, Tar};
use crate::common::user::User;
use crate::common::{TestStore, bin, collect, need_root, ok, output, unmount};
use crate::rootfs::Ground;
use crate::unpack::describe;
use serde_json::json;
use shipimg::sys::sandbox::private_mounts;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Outputs whose bytes are always the same; the files that they consist of.
const KINDS: [&str; 9] = [
    "x.img",
    "x.ext2",
    "x.erofs",
    "x.squashfs",
    "x.tar",
    "x.tar.gz",
    "x.tar.zst",
    "oci:x-oci:a/b:c",
    "docker-archive:x-docker.tar:a/b:c",
];

/// An archive with a system and packages of its own.
fn archive() -> Archive {
    let mut archive = bookworm();
    archive.add_system();
    archive.add_script(
        "scripted",
        "b=/usr/bin/busybox; echo made >/var/made; $b ln /var/made /var/same; $b mkdir -p -m 1777 /var/spool",
    );
    archive.add("plain", "");
    archive.publish("Date: Sat, 06 Sep 2025 09:00:00 UTC\n", Some("good"));
    archive
}

/// The arguments of `mkimg` for these outputs below `dir`.
fn args(archive: &Archive, dir: &Path, outputs: &[&str]) -> Vec<String> {
    let mut args = archive.args("scripted,plain");
    args.retain(|a| !a.ends_with("/x.img"));
    args.extend(outputs.iter().map(|output| below(dir, output)));
    args
}

/// An output in the folder `dir`.
fn below(dir: &Path, output: &str) -> String {
    match output.split_once(':') {
        Some((kind, rest)) => format!("{kind}:{}/{rest}", dir.display()),
        None => format!("{}/{output}", dir.display()),
    }
}

type Sums = BTreeMap<PathBuf, String>;

/// The hashes of all files below `dir`.
fn sums(dir: &Path) -> Sums {
    let list = ok("find", &[dir.as_os_str(), "-type".as_ref(), "f".as_ref()]);
    let files = list.lines().map(PathBuf::from);
    files.map(|f| (f.strip_prefix(dir).unwrap().to_path_buf(), sha256(&f))).collect()
}

/// Runs `command`, which must succeed, with these arguments; gives the hashes of what it makes.
fn made(mut command: Command, archive: &Archive, owner: &User, more: &[&str], epoch: Option<&str>) -> Sums {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    owner.give(dir.path());
    command.args(args(archive, dir.path(), &KINDS)).args(more);
    if let Some(epoch) = epoch {
        command.env("SOURCE_DATE_EPOCH", epoch);
    }
    let out = collect(&mut command);
    assert!(out.status.success(), "{more:?}: {}", String::from_utf8_lossy(&out.stderr));
    sums(dir.path())
}

#[test]
fn equal_roots_are_equal_bytes() {
    let archive = archive();
    let user = User::new();
    ok("chmod", &["-R", "a+rX", archive.at("").to_str().unwrap()]);
    let (disk, memory) = (TestStore::new(), TestStore::in_memory());
    let lock = user.home().join("x.lock");
    let lock = ["--lock", lock.to_str().unwrap()];
    let anew = [&lock[..], &["--no-base-cache"]].concat();
    for epoch in [None, Some("1234567890")] {
        let first = made(disk.command(), &archive, &user, &lock, epoch);
        assert!(first.len() > 10, "{first:?}");
        for (what, command, more) in [
            ("kept", disk.command(), &lock[..]),
            ("made anew", disk.command(), &anew),
            ("in memory", memory.command(), &lock),
            ("in memory anew", memory.command(), &anew),
            ("by a user", user.shipimg(), &lock),
            ("kept by a user", user.shipimg(), &lock),
        ] {
            assert_eq!(first, made(command, &archive, &user, more, epoch), "{epoch:?}: {what}");
        }
    }
}

/// A filesystem image mounted by the kernel, where nobody else sees it.
fn mounted<R>(image: &Path, look: impl FnOnce(&Path) -> R) -> R {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    ok("mount", &["-o".as_ref(), "loop,ro".as_ref(), image.as_os_str(), dir.path().as_os_str()]);
    let seen = look(dir.path());
    unmount(dir.path());
    seen
}

fn seen(image: &Path) -> BTreeMap<OsString, String> {
    let mut tree = mounted(image, describe);
    tree.remove(&OsString::from("lost+found"));
    tree
}

/// An image with all that files can be, and layers that hide each other's.
fn image(store: &Path) -> Layout {
    let source = Ground::with("mkfs.ext4", 64);
    let root = source.path();
    ok("rm", &["-rf", root.join("lost+found").to_str().unwrap()]);
    ok("bash", &["-ec", MAKE, root.to_str().unwrap()]);
    let xattrs = ["--format=pax", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*"];
    let all = Blob::zstd(&tarred(&root, &xattrs));
    let above = Tar::new()
        .file("a/.wh.file", b"")
        .file("new", b"new")
        .link("a/new", "new")
        .file("acl/.wh..wh..opq", b"");
    let [lower, upper] = hiding();
    let layout = Layout::new(store);
    let mut layers = vec![all, lower, upper, Blob::gzip(&above.finish())];
    layout.add("img:x", &layers, &json!({"Cmd": ["sh"]}));
    layers.push(Blob::gzip(&Tar::new().file("a/.wh.link", b"").finish()));
    // Without ids that an ordinary user has not.
    layout.add("img:plain", &layers[1..3], &json!({"Cmd": ["sh"]}));
    layout.add("img:short", &layers, &json!({}));
    layout
}

#[test]
fn every_kind_is_the_same_root() {
    need_root();
    private_mounts().unwrap();
    let ground = Ground::new(true);
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let dir = place.path();
    let store = TestStore::new();
    image(store.path());
    let user = User::new();
    let (source, target) = (format!("oci:{}:img:plain", store.path().display()), "store:localhost/img:x");
    ok("chmod", &["-R", "a+rX", store.path().to_str().unwrap()]);
    user.ok(&["copy", "-q", &source, target]);
    store.ok(&["unpack", "img:x", &below(dir, "unpacked")]);
    let want = describe(&dir.join("unpacked/rootfs"));
    // Its tool would cut a long link, which is left out below.
    let long = store.fails(7, &["mkimg", "--from", "img:x", &below(dir, "x.squashfs")]);
    assert!(long.contains("a/link: sqfstar would cut"), "{long}");
    assert!(want.len() > 30 && !want.contains_key(&OsString::from("a/file")));

    let outputs = ["x.img", "x.ext2", "x.btrfs", "x.erofs", "x.tar", "x.tgz", "x.tzst", "x-dir"];
    let more = ["oci:x-oci:a/b:c", "oci-archive:x-oci.tar", "docker-archive:x-docker.tar:a/b:c"];
    let all: Vec<_> = outputs.iter().chain(&more).map(|o| below(dir, o)).collect();
    let subvolume = below(&ground.path(), "subvolume:x-sub");
    let begin = ["mkimg", "--from", "img:x", "store:localhost/again:1", &subvolume].map(str::to_string);
    let all = [&begin[..], &all].concat();
    let out = store.output(&all);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for name in ["x.img", "x.ext2", "x.erofs", "x.btrfs"] {
        assert_same(&want, &seen(&dir.join(name)), name);
    }
    let short = |tree: &BTreeMap<OsString, String>| -> BTreeMap<_, _> {
        tree.iter()
            .map(|(n, t)| (n.clone(), t.split(" system.").next().map(whole_seconds).unwrap()))
            .collect()
    };
    // sqfstar gives the root the time of the filesystem.
    let below_root = |mut tree: BTreeMap<OsString, String>| {
        tree.remove(&OsString::new()).unwrap();
        tree
    };
    let mut without = below_root(short(&want));
    without.remove(&OsString::from("a/link")).unwrap();
    store.ok(&["mkimg", "--from", "img:short", &below(dir, "x.squashfs")]);
    let mut compressed = below_root(short(&seen(&dir.join("x.squashfs"))));
    // Of before 1970: squashfs has no such times.
    assert!(
        without.remove(&OsString::from("times")).is_some()
            && compressed.remove(&OsString::from("times")).is_some()
    );
    assert_same(&without, &compressed, "squashfs");
    assert_same(&want, &describe(&dir.join("x-dir")), "folder");
    assert_same(&want, &describe(&ground.path().join("x-sub")), "subvolume");
    ok("btrfs", &["subvolume", "show", ground.path().join("x-sub").to_str().unwrap()]);
    for name in ["x.tar", "x.tgz", "x.tzst"] {
        let to = dir.join(format!("of-{name}"));
        fs::create_dir(&to).unwrap();
        let options = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"].map(OsString::from);
        let rest = [dir.join(name).into(), "-C".into(), to.clone().into_os_string()];
        ok("tar", &[&options[..], &rest].concat());
        assert_same(&want, &describe(&to), name);
    }
    // skopeo reads the images and writes what shipimg unpacks.
    let docker = format!("docker-archive:{}/x-docker.tar:a/b:c", dir.display());
    for (i, from) in
        [below(dir, "oci:x-oci:a/b:c"), below(dir, "oci-archive:x-oci.tar"), docker].iter().enumerate()
    {
        let layout = format!("oci:{}/copied-{i}:img:y", dir.display());
        ok("skopeo", &["copy", "-q", "--insecure-policy", from, &layout]);
        let other = dir.join(format!("copied-{i}"));
        let to = below(dir, &format!("of-image-{i}"));
        ok(bin(), &["--root", other.to_str().unwrap(), "unpack", "img:y", &to]);
        assert_same(&want, &describe(&Path::new(&to).join("rootfs")), from);
    }
    store.ok(&["unpack", "localhost/again:1", &below(dir, "again")]);
    assert_same(&want, &describe(&dir.join("again/rootfs")), "store");

    let at = |name: &str| dir.join(name).display().to_string();
    ok("e2fsck", &["-fn", &at("x.img")]);
    ok("e2fsck", &["-fn", &at("x.ext2")]);
    ok("btrfs", &["check", "--readonly", &at("x.btrfs")]);
    ok("fsck.erofs", &[at("x.erofs")]);
    ok("unsquashfs", &["-s", &at("x.squashfs")]);
    assert!(mounted(&dir.join("x.img"), |d| fs::metadata(d.join("a/hole")).unwrap().blocks()) < 100);
    // The same bytes by the kernel's user and by an ordinary one, whose files have other owners.
    let other = tempfile::tempdir_in("/var/tmp").unwrap();
    user.give(other.path());
    let names = ["x.img", "x.ext2", "x.erofs", "x.squashfs", "x.tar", "x.tgz", "x.tzst", "oci:x-oci"];
    let begin = ["mkimg", "--from", "localhost/img:x", "--label", "x"].map(str::to_string);
    let all: Vec<_> = names.iter().map(|o| below(other.path(), o)).collect();
    user.ok(&[&begin[..], &all].concat());
    let theirs = tempfile::tempdir_in("/var/tmp").unwrap();
    let begin = ["mkimg", "--from", "img:plain", "--label", "x"].map(str::to_string);
    let all: Vec<_> = names.iter().map(|o| below(theirs.path(), o)).collect();
    store.ok(&[&begin[..], &all].concat());
    assert_eq!(sums(theirs.path()), sums(other.path()));
    // By the kernel on a loop device: for root.
    store.ok(&["mkimg", "--from", "img:x", "--loop", &at("loop.img"), &at("loop.ext2")]);
    assert_same(&want, &seen(&dir.join("loop.img")), "--loop");
    assert_same(&want, &seen(&dir.join("loop.ext2")), "--loop");
    let refused =
        user.fails(8, &["mkimg", "--from", "localhost/img:x", "--loop", &below(other.path(), "l.img")]);
    assert!(refused.contains("--loop is for root alone"), "{refused}");
}

/// A line of `describe` without parts of seconds.
fn whole_seconds(line: &str) -> String {
    let (start, rest) = line.split_once(" mtime ").unwrap();
    let (seconds, rest) = rest.split_once('.').unwrap();
    format!("{start} mtime {seconds}{}", &rest[9..])
}

#[test]
fn targets_and_sizes_are_checked_first() {
    let archive = archive();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("full/inside")).unwrap();
    fs::write(at("old.img"), "old").unwrap();
    fs::write(at("old.tar"), "old").unwrap();
    std::os::unix::fs::symlink("old.tar", at("link.tar")).unwrap();
    ok("mkfifo", &[at("pipe.img")]);
    fs::create_dir(at(".shipimg-left")).unwrap();
    let same = below(dir.path(), "full/../same.img");
    let begin = archive.store.path().join("blobs/sha256");
    let fetched = || fs::read_dir(&begin).map_or(0, Iterator::count);
    for (code, outputs, more, says) in [
        (2, &["full"][..], &[][..], "full already exists"),
        (2, &["oci:full"], &[], "full already exists"),
        (2, &["ext4:full"], &[], "full already exists"),
        (2, &["pipe.img"], &[], "pipe.img is no regular file"),
        (2, &["same.img"], &["store:a/b:c", "store:a/b:c"], "a/b:c is there twice"),
        (2, &["same.img"], &[same.as_str()], "same.img is there twice"),
        (2, &["old.tar", "link.tar"], &[], "old.tar is there twice"),
        (2, &[], &["tar:-"], "tells no kind"),
        (10, &["x.tar", "none/x.img"], &[], "none/x.img: No such file"),
        (10, &["new", "new/x.tar"], &[], "new/x.tar: No such file"),
        (7, &[], &["subvolume:/dev/shm/no-such-subvolume"], "would not be on btrfs"),
        (2, &["old.img"], &["--size", "1K"], "1024 bytes are too small"),
        (2, &["old.img", "x.tar"], &["--size", "1M"], "1048576 bytes are too small"),
    ] {
        let mut args = args(&archive, dir.path(), outputs);
        args.extend(more.iter().map(ToString::to_string));
        let said = archive.store.fails(code, &args);
        assert!(said.contains(says), "{outputs:?}: {said}");
        assert_eq!(fetched(), 0, "{outputs:?}: downloaded for nothing");
    }
    assert!(!at(".shipimg-left").exists() && !at("x.tar").exists());
    // More than an empty one, less than the packages.
    let mut tight = args(&archive, dir.path(), &["ext2:old.img"]);
    tight.extend(["--size", "600K"].map(str::to_string));
    assert!(archive.store.fails(2, &tight).contains("614400 bytes are too small"));
    assert_eq!(fs::read_to_string(at("old.img")).unwrap(), "old");
    // A link stays, what it leads to is replaced.
    archive.store.ok(&args(&archive, dir.path(), &["link.tar"]));
    assert!(at("link.tar").is_symlink() && fs::metadata(at("old.tar")).unwrap().len() > 1000);
    // Sizes are those that were asked for; what they hold can grow.
    let made = |more: &[&str]| {
        let mut args = args(&archive, dir.path(), &["s.img"]);
        args.extend(more.iter().map(ToString::to_string));
        archive.store.ok(&args);
        ok("e2fsck", &["-fn", at("s.img").to_str().unwrap()]);
        fs::metadata(at("s.img")).unwrap().len()
    };
    assert_eq!(made(&["--size", "2G", "--label", "mine"]), 2 << 30);
    assert_eq!(ok("e2label", &[at("s.img")]).trim(), "mine");
    private_mounts().unwrap();
    let auto = made(&["--size", "auto", "--free", "256M"]);
    let free = mounted(&at("s.img"), |d| rustix::fs::statvfs(d).unwrap());
    assert!(free.f_bavail * free.f_bsize >= 256 << 20);
    assert!(made(&["--shrink"]) < auto - (200 << 20));
    ok("truncate", &["-s", "1G", at("s.img").to_str().unwrap()]);
    ok("resize2fs", &[at("s.img")]);
    ok("e2fsck", &["-fn", at("s.img").to_str().unwrap()]);
}

/// What lies beside the targets, their own names aside.
fn left(dir: &Path) -> Vec<OsString> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    names.filter(|n| n.to_string_lossy().starts_with('.')).collect()
}

#[test]
fn stopped_at_any_point_leaves_the_old() {
    need_root();
    let archive = archive();
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let dir = place.path();
    let names = ["x.img", "x.ext2", "x.erofs", "x.squashfs", "x.btrfs", "x.tar", "x.tar.gz"];
    let all = args(&archive, dir, &[&names[..], &["docker-archive:x-docker.tar:a/b:c"]].concat());
    let all = [&all[..], &["--no-base-cache".to_string()]].concat();
    let begun = Instant::now();
    archive.store.ok(&all);
    let whole = begun.elapsed();
    let good: BTreeMap<_, _> = sums(dir).into_iter().filter(|(n, _)| n != Path::new("x.btrfs")).collect();
    for i in 0..21 {
        for name in names {
            fs::write(dir.join(name), "old").unwrap();
        }
        let mut child =
            archive.store.command().args(&all).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * i / 20);
        let signal = ["-KILL", "-INT", "-TERM"][i as usize % 3];
        let _ = output("kill", &[signal, &child.id().to_string()]);
        child.wait().unwrap();
        for name in names.iter().filter(|n| **n != "x.btrfs") {
            let is = fs::read(dir.join(name)).unwrap();
            let new = || good[Path::new(name)] == sha256(&dir.join(name));
            assert!(is == b"old" || new(), "{name} is half-made after {signal} at {i}/20");
        }
        if signal != "-KILL" {
            assert_eq!(left(dir), Vec::<OsString>::new(), "{signal} at {i}/20");
        }
    }
    archive.store.ok(&all);
    assert_eq!(left(dir), Vec::<OsString>::new());
    let own = archive.store.path().to_str().unwrap();
    assert_eq!(fs::read_dir(archive.store.path().join("shipimg/tmp")).unwrap().count(), 0);
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(own));
    assert!(!ok("losetup", &["-nO", "BACK-FILE"]).contains(dir.to_str().unwrap()));
}

#[test]
fn a_full_disk_leaves_the_old() {
    need_root();
    private_mounts().unwrap();
    let archive = archive();
    archive.store.ok(&args(&archive, archive.store.path(), &["x.tar"]));
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    ok("mount", &["-t", "tmpfs", "-o", "size=1M", "tmpfs", place.path().to_str().unwrap()]);
    for name in [
        "x.img",
        "x.ext2",
        "x.erofs",
        "x.squashfs",
        "x.btrfs",
        "x.tar",
        "x.tar.gz",
        "x.tar.zst",
        "x",
        "docker-archive:y.tar",
    ] {
        let (kind, file) = name.split_once(':').unwrap_or(("", name));
        let target = place.path().join(file);
        if name != "x" {
            fs::write(&target, "old").unwrap();
        }
        archive.store.fails(1, &args(&archive, place.path(), &[name]));
        assert!(name == "x" || fs::read(&target).unwrap() == b"old", "{kind} {name}");
        assert!(name != "x" || !target.exists());
        assert_eq!(left(place.path()), Vec::<OsString>::new(), "{name}");
    }
    ok("mount", &["-o", "remount,ro", place.path().to_str().unwrap()]);
    let refused = archive.store.fails(8, &args(&archive, place.path(), &["x.tar"]));
    assert!(refused.contains("Read-only file system"), "{refused}");
    unmount(place.path());
}
