//! What an ordinary user's commands do: the same as root's, as seen through the user's ids.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::user::User;
use crate::common::{TestStore, collect, ok};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use tar::EntryType as T;

/// Three layers with most of what a layer can hold that needs no device nodes.
pub fn layers() -> [Blob; 3] {
    let capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let lower = Tar::new()
        .dir("./")
        .dir("bin/")
        .entry(T::Regular, "bin/busybox", 0o755, "", &fs::read("/bin/busybox").unwrap())
        .symlink("bin/sh", "busybox")
        .dir("etc/")
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\nann:x:1000:100::/home/ann:/bin/sh\n")
        .file("etc/gone", b"g")
        .dir("d/")
        .file("d/x", b"x")
        .dir("home/")
        .pax(&[("uid", b"1000"), ("gid", b"100")])
        .entry(T::Directory, "home/ann/", 0o700, "", b"")
        .pax(&[("uid", b"1000"), ("gid", b"100"), ("SCHILY.xattr.user.note", b"a\n\0")])
        .file("home/ann/note", b"n")
        .pax(&[("uid", b"1000")])
        .symlink("home/ann/link", "note");
    let middle = Tar::new()
        .file("etc/.wh.gone", b"")
        .file("d/z", b"z")
        .file("d/.wh..wh..opq", b"")
        .link("home/passwd", "etc/passwd")
        .pax(&[("SCHILY.xattr.security.capability", capability), ("gid", b"65535")])
        .entry(T::Regular, "capable", 0o755, "", b"c")
        .pax(&[("uid", b"42"), ("mtime", b"1234567890.123456789")])
        .entry(T::Regular, "suid", 0o6755, "", b"s");
    let upper = Tar::new()
        .entry(T::Directory, "locked/", 0o000, "", b"")
        .entry(T::Directory, "locked/in/", 0o555, "", b"")
        .file("locked/in/f", b"f")
        .pax(&[("uid", b"7"), ("gid", b"8")])
        .entry(T::Directory, "locked/deep/", 0o000, "", b"")
        .pax(&[("uid", b"7"), ("gid", b"8")])
        .file("locked/deep/f", b"f")
        .entry(T::Directory, "tmp/", 0o1777, "", b"")
        .entry(T::Fifo, "fifo", 0o600, "", b"");
    [Blob::gzip(&lower.finish()), Blob::zstd(&middle.finish()), Blob::gzip(&upper.finish())]
}

/// Puts the image `x:0` of [`layers`] into the user's store.
fn with_image(user: &User) {
    Layout::new(&user.store()).add("x:0", &layers(), &json!({"Cmd": ["/bin/sh"]}));
    user.give(&user.store());
}

/// The same in a store of root's.
fn root_store() -> TestStore {
    let store = TestStore::in_memory();
    Layout::new(store.path()).add("x:0", &layers(), &json!({"Cmd": ["/bin/sh"]}));
    store
}

/// Everything that a tree is, as bytes: by GNU tar, run by `command`.
fn tarred(mut command: Command, tree: &Path) -> Vec<u8> {
    command.args(["--format=pax", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sort=name"]);
    command.args(["--pax-option=delete=atime,delete=ctime,exthdr.name=%f", "-C"]).arg(tree).args(["-c", "."]);
    let out = collect(&mut command);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// The same of a tree of the user's, in the user's namespace.
fn tarred_by(user: &User, tree: &Path) -> Vec<u8> {
    let mut command = user.shipimg();
    command.args(["unshare", "tar"]);
    tarred(command, tree)
}

fn assert_same_tar(want: &[u8], got: &[u8]) {
    let list = |bytes: &[u8]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        ok("tar", &["--numeric-owner", "--full-time", "-tvf", file.path().to_str().unwrap()])
    };
    assert_eq!(list(want), list(got));
    assert!(want == got, "attributes");
}

/// Nothing is left in the user's home but `names`; no process, no mount.
fn nothing_left(user: &User, folder: &Path, names: &[&str]) {
    let mut left: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, names);
    assert_eq!(user.processes(), Vec::<i32>::new());
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(user.home().to_str().unwrap()));
}

#[test]
fn unpacks_as_root_does() {
    let (user, root) = (User::new(), root_store());
    with_image(&user);
    let (want, got) = (root.path().join("out"), user.home().join("out"));
    root.ok(&["unpack", "x:0", want.to_str().unwrap(), "--manifest", "mtree"]);
    user.ok(&["unpack", "x:0", "out", "--manifest", "mtree"]);
    assert_same_tar(
        &tarred(Command::new("tar"), &want.join("rootfs")),
        &tarred_by(&user, &got.join("rootfs")),
    );
    let (uids, gids) = (user.sub_ids("subuid")[0].0, user.sub_ids("subgid")[0].0);
    for (name, uid, gid) in [
        ("bin", user.uid, user.gid),
        ("home/ann/note", uids + 999, gids + 99),
        ("capable", user.uid, gids + 65534),
        ("locked", user.uid, user.gid),
    ] {
        let meta = fs::symlink_metadata(got.join("rootfs").join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (uid, gid), "{name}");
    }
    let refused = collect(user.command("rm").args(["-rf", "out"]));
    assert!(!refused.status.success(), "deleting needs the namespace");
    user.ok(&["unshare", "rm", "-rf", "out"]);
    assert!(!got.exists());
}

/// Runs the same command lines in the user's store and in root's; digests and output are the same.
fn same(user: &User, root: &TestStore, folder: &Path, args: &[&str]) {
    let (mut own, mut roots) = (user.shipimg(), root.command());
    roots.current_dir(folder);
    let [got, want] = [&mut own, &mut roots].map(|command| {
        let out = collect(command.args(args).env("SOURCE_DATE_EPOCH", "1750000000"));
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    });
    assert_eq!(got, want, "{args:?}");
}

/// What is done to a root filesystem, by a shell.
const CHANGE: &str = "cd $0 && echo new >etc/new && chown 7:8 etc/new && rm -r d && mkdir d && echo y >d/y &&
    rm etc/passwd && chmod 600 suid && mv home/ann home/bob && touch -hd @1700000001 etc d d/y . home etc/new &&
    setfattr -n user.x -v y tmp";

#[test]
fn makes_the_images_that_root_makes() {
    let (user, root) = (User::new(), root_store());
    with_image(&user);
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let both = |args: &[&str]| same(&user, &root, folder.path(), args);
    let tar = Tar::new().file("etc/.wh.new", b"").file("added", b"a").finish();
    for place in [folder.path(), &user.home()] {
        fs::write(place.join("add.tar"), &tar).unwrap();
        fs::create_dir(place.join("src")).unwrap();
        fs::write(place.join("src/file"), "inserted").unwrap();
        ok("touch", &["-d", "@1700000002", place.join("src/file").to_str().unwrap()]);
        ok("touch", &["-d", "@1700000002", place.join("src").to_str().unwrap()]);
    }
    user.give(&user.home().join("src"));
    both(&["unpack", "x:0", "plain"]);
    both(&["unpack", "x:0", "out", "--manifest", "mtree"]);
    for name in ["plain", "out"] {
        let rootfs = format!("{name}/rootfs");
        ok("sh", &["-c", CHANGE, folder.path().join(&rootfs).to_str().unwrap()]);
        user.ok(&["unshare", "sh", "-c", CHANGE, &rootfs]);
        both(&["repack", name, &format!("y:{name}")]);
    }
    both(&["insert", "y:out", "src", "/srv/in", "--tag", "y:insert"]);
    both(&["insert", "y:insert", "--whiteout", "/srv/in/file", "--tag", "y:hidden"]);
    both(&["layer", "add", "y:out", "add.tar", "--tag", "y:added"]);
    both(&["config", "y:added", "--env", "A=B", "--tag", "y:config"]);
    both(&["squash", "y:config", "--tag", "y:squashed"]);
    both(&["squash", "x:0", "--tag", "y:first"]);
    both(&["diff", "x:0", "y:squashed"]);
    both(&["diff", "y:config", "--layers", "--format", "json"]);
    both(&["diff", "out", "x:0"]);
    both(&["export", "y:squashed", "--kind", "rootfs"]);
    both(&["images", "-q"]);
    user.ok(&["unshare", "rm", "-rf", "out", "plain", "src", "add.tar"]);
    user.ok(&["rmi", "x:0", "y:config"]);
    user.ok(&["prune", "--all", "--yes"]);
    nothing_left(&user, &user.home(), &[".cache", ".config", ".local", "run"]);
    nothing_left(&user, &user.store().join("shipimg/tmp"), &[]);
}

/// Bundles by every driver that an ordinary user has on any filesystem: made, changed, shown, committed, deleted,
/// each by a command with mounts of its own.
fn bundles(user: &User, root: &TestStore, driver: &str) {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let both = |args: &[&str]| same(user, root, folder.path(), args);
    for name in ["one", "two"] {
        user.ok(&["bundle", "create", "--driver", driver, "x:0", name]);
        root.ok(&["bundle", "create", "--driver", driver, "x:0", name]);
    }
    both(&["bundle", "list"]);
    let rootfs = |store: &Path| store.join("shipimg/bundles/one/rootfs");
    ok("sh", &["-c", CHANGE, rootfs(root.path()).to_str().unwrap()]);
    user.ok(&["unshare", "sh", "-c", CHANGE, rootfs(&user.store()).to_str().unwrap()]);
    both(&["diff", "one"]);
    both(&["diff", "two"]);
    both(&["diff", "two", "one", "--format", "json"]);
    both(&["commit", "one", "y:commit"]);
    both(&["diff", "y:commit", "one", "--times"]);
    assert!(user.fails(2, &["rmi", "y:commit", "x:0"]).contains("bundle one"), "in use");
    let layers = fs::read_dir(user.store().join("shipimg/layers")).map_or(0, Iterator::count);
    user.ok(&["prune", "--yes"]);
    assert_eq!(fs::read_dir(user.store().join("shipimg/layers")).map_or(0, Iterator::count), layers);
    user.ok(&["df"]);
    for name in ["one", "two"] {
        user.ok(&["bundle", "delete", name]);
        root.ok(&["bundle", "delete", name]);
    }
    user.ok(&["prune", "--all", "--yes"]);
    let left = |area: &str| nothing_left(user, &user.store().join("shipimg").join(area), &[]);
    left("bundles");
    left("tmp");
    let layers = user.store().join("shipimg/layers");
    if layers.exists() {
        nothing_left(user, &layers, &["lock"]);
    }
}

#[test]
fn bundles_by_copy() {
    let (user, root) = (User::new(), root_store());
    with_image(&user);
    bundles(&user, &root, "copy");
}

#[test]
fn bundles_by_overlay() {
    let (user, root) = (User::new(), root_store());
    with_image(&user);
    let out = user.output(&["bundle", "create", "x:0", "auto"]);
    assert_eq!(String::from_utf8_lossy(&out.stderr), "driver overlay: overlays can be mounted\n");
    user.ok(&["bundle", "delete", "auto"]);
    bundles(&user, &root, "overlay");
}
