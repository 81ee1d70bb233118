//! What an ordinary user's commands do: the same as root's, as seen through the user's ids.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::user::User;
use crate::common::{TestStore, collect, ok, unmount};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
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
pub fn tarred(mut command: Command, tree: &Path) -> Vec<u8> {
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

pub fn assert_same_tar(want: &[u8], got: &[u8]) {
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
    let processes = user.processes().into_iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/status")));
    assert_eq!(processes.flatten().collect::<Vec<_>>(), Vec::<String>::new());
    assert!(
        !fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(&format!("{}/", user.store().display()))
    );
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
pub fn same(user: &User, root: &TestStore, folder: &Path, args: &[&str]) {
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
fn bundles(user: &User, root: &TestStore, driver: &str, roots: &str) {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let both = |args: &[&str]| same(user, root, folder.path(), args);
    for name in ["one", "two"] {
        user.ok(&["bundle", "create", "--driver", driver, "x:0", name]);
        root.ok(&["bundle", "create", "--driver", roots, "x:0", name]);
    }
    let files = |store: &Path| store.join("shipimg/bundles/one/rootfs");
    ok("sh", &["-c", CHANGE, files(root.path()).to_str().unwrap()]);
    user.ok(&["unshare", "sh", "-c", CHANGE, files(&user.store()).to_str().unwrap()]);
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
    bundles(&user, &root, "copy", "copy");
}

#[test]
fn bundles_by_overlay() {
    let (user, root) = (User::new(), root_store());
    with_image(&user);
    let out = user.output(&["bundle", "create", "x:0", "auto"]);
    assert_eq!(String::from_utf8_lossy(&out.stderr), "driver overlay: overlays can be mounted\n");
    user.ok(&["bundle", "delete", "auto"]);
    bundles(&user, &root, "overlay", "overlay");
}

/// A user whose store lies on a btrfs of the user's own, mounted with `options`.
fn btrfs_user(options: &str) -> User {
    let user = User::new();
    let (image, data) = (user.home().join("btrfs.img"), user.home().join(".local/share"));
    fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    ok("mkfs.btrfs", &["-q", image.to_str().unwrap()]);
    ok("mount", &["-o", &format!("loop{options}"), image.to_str().unwrap(), data.to_str().unwrap()]);
    fs::remove_file(image).unwrap();
    user.give(&data);
    with_image(&user);
    user
}

#[test]
fn bundles_by_btrfs() {
    for options in ["", ",user_subvol_rm_allowed"] {
        let (user, root) = (btrfs_user(options), root_store());
        let out = user.output(&["bundle", "create", "x:0", "auto"]);
        assert!(String::from_utf8_lossy(&out.stderr).starts_with("driver btrfs: "), "{out:?}");
        user.ok(&["bundle", "delete", "auto"]);
        let store = user.store();
        let data = store.parent().unwrap().to_str().unwrap();
        bundles(&user, &root, "btrfs", "copy");
        assert_eq!(ok("btrfs", &["subvolume", "list", data]), "");
        unmount(data);
    }
}

/// What killed commands have left goes by the next one that may: files of the user by any, whatever
/// their modes, files of subordinate ids by one in the user namespace.
#[test]
fn sweeps_what_was_left() {
    let user = User::new();
    with_image(&user);
    user.ok(&["images"]);
    let tmp = user.store().join("shipimg/tmp");
    let leave = |command: &[&str]| {
        let script = "mkdir -p $0/.shipimg-old/closed/in/er && touch $0/.shipimg-old/closed/in/f &&
            if [ $(id -u) = 0 ]; then chown -R 5:6 $0/.shipimg-old/closed; fi &&
            chmod 0 $0/.shipimg-old/closed/in/er && chmod 555 $0/.shipimg-old/closed/in && chmod 0 $0/.shipimg-old/closed";
        let out = collect(user.command(user.bin()).args(command).args(["sh", "-c", script]).arg(&tmp));
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    let out = collect(
        user.command("sh")
            .args([
                "-c",
                "umask 0; mkdir -m 0 $0/.shipimg-x; mkdir -p $0/.shipimg-y/a/b && chmod 0 $0/.shipimg-y/a",
            ])
            .arg(&tmp),
    );
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    fs::set_permissions(tmp.join(".shipimg-x"), fs::Permissions::from_mode(0o700)).unwrap();
    let quiet = |args: &[&str]| {
        let out = user.output(args);
        assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    quiet(&["images"]);
    nothing_left(&user, &tmp, &[]);
    leave(&["unshare"]);
    quiet(&["images"]);
    nothing_left(&user, &tmp, &[".shipimg-old"]);
    quiet(&["df"]);
    nothing_left(&user, &tmp, &[]);
}

/// The kernel mounts no filesystem image for an ordinary user: that is said, and nothing is left.
#[test]
fn image_files_are_for_root() {
    let user = User::new();
    with_image(&user);
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("f"), "f").unwrap();
    let (tree, home) = (tree.path().to_str().unwrap(), user.home());
    let file = |name: &str| home.join(name).to_str().unwrap().to_string();
    ok("mke2fs", &["-q", "-t", "ext4", "-d", tree, &file("ext4.img"), "4M"]);
    ok("mkfs.erofs", &["--quiet", &file("erofs.img"), tree]);
    for image in ["./ext4.img", "./erofs.img"] {
        for driver in ["auto", "image", "copy"] {
            let stderr = user.fails(8, &["bundle", "create", "--driver", driver, image, "b"]);
            assert!(stderr.contains("cannot be mounted by an ordinary user: "), "{stderr}");
        }
    }
    nothing_left(&user, &user.store().join("shipimg/bundles"), &[]);
    nothing_left(&user, &user.store().join("shipimg/tmp"), &[]);
}

/// Each command has mounts of its own; what one has mounted to write, others see and do not take away.
#[test]
fn commands_beside_a_running_container() {
    let user = User::new();
    with_image(&user);
    user.ok(&[
        "bundle",
        "create",
        "--driver",
        "overlay",
        "x:0",
        "web",
        "--",
        "sh",
        "-c",
        "echo 1 >/tmp/x; sleep 1000",
    ]);
    user.ok(&["run", "--detach", "web"]);
    let wait = || user.ok(&["exec", "web", "sh", "-c", "until [ -e /tmp/x ]; do :; done; id -u"]);
    assert_eq!(wait(), "0\n");
    // Without what the runtime makes to mount on.
    let diff = |args: &[&str]| {
        let text = user.ok(&[&["diff"], args].concat());
        text.lines()
            .filter(|l| !l.starts_with("A /") || l.contains("made"))
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let before = diff(&["web"]);
    user.ok(&["exec", "web", "sh", "-c", "echo 22 >/etc/made-later && rm /d/z"]);
    let after = diff(&["web"]);
    assert!(
        after.contains(&"A /etc/made-later 3".to_string()) && after.contains(&"D /d/z 1".to_string()),
        "{after:?}"
    );
    assert_eq!(after.len(), before.len() + 2);
    user.ok(&["commit", "web", "y:1"]);
    // A layer of its own has copies of files that are one file in the image.
    assert!(diff(&["y:1", "web"]).iter().all(|l| l.ends_with(" 56 -> 56 link")));
    let stderr = user.fails(125, &["run", "--name", "second", "web"]);
    assert!(stderr.contains("is in use by process"), "{stderr}");
    let rootfs = user.store().join("shipimg/bundles/web/rootfs");
    let rootfs = rootfs.to_str().unwrap();
    assert_eq!(user.ok(&["unshare", "cat", &format!("{rootfs}/etc/made-later")]), "22\n");
    assert!(!user.output(&["unshare", "touch", &format!("{rootfs}/no")]).status.success());
    user.ok(&["exec", "web", "sh", "-c", ">/srv-made"]);
    user.ok(&["kill", "web", "KILL"]);
    user.ok(&["delete", "--force", "web"]);
    user.ok(&["unshare", "touch", &format!("{rootfs}/yes")]);
    assert!(user.ok(&["diff", "web"]).contains("A /yes 0\n"));
    user.ok(&["bundle", "delete", "web"]);
    assert_eq!(user.ok(&["run", "x:0", "--", "sh", "-c", "cat /proc/self/uid_map | wc -l"]), "2\n");
    nothing_left(&user, &user.store().join("shipimg/bundles"), &[]);
    nothing_left(&user, &user.store().join("shipimg/containers"), &[]);
    nothing_left(&user, &user.store().join("shipimg/tmp"), &[]);
}

#[test]
fn unshare_is_root_inside() {
    let user = User::new();
    with_image(&user);
    let run = |args: &[&str]| {
        let out = user.output(&[&["unshare"], args].concat());
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    assert_eq!(run(&["sh", "-c", "id -u; exit 7"]), (Some(7), "0\n".to_string()));
    assert_eq!(run(&["sh", "-c", "kill -9 $$"]).0, None, "the program itself, not a copy");
    assert_eq!(run(&["no-such-program"]).0, Some(127));
    assert_eq!(run(&["/etc"]).0, Some(126));
    let bin = user.bin();
    let bin = bin.to_str().unwrap();
    assert_eq!(run(&[bin, "images", "-q"]), (Some(0), user.ok(&["images", "-q"])));
    assert_eq!(run(&[bin, "unpack", "x:0", "out"]).0, Some(0));
    assert_eq!(run(&[bin, "run", "x:0", "--", "sh", "-c", "echo hi"]), (Some(0), "hi\n".to_string()));
    let maps = |options: &[&str]| user.ok(&[options, &["unshare", "cat", "/proc/self/uid_map"]].concat());
    assert_eq!((maps(&[]).lines().count(), maps(&["--single-id"]).lines().count()), (2, 1));
    let out = collect(user.shipimg().env("SHELL", "/bin/true").arg("unshare"));
    assert!(out.status.success() && out.stdout.is_empty());
    // A range more, by number.
    let line = format!("{}:3000000:10\n", user.uid);
    let add = |file: &str| {
        fs::OpenOptions::new().append(true).open(file).unwrap().write_all(line.as_bytes()).unwrap();
    };
    User::with_accounts(|| ["/etc/subuid", "/etc/subgid"].into_iter().for_each(add));
    assert_eq!(maps(&[]).lines().count(), 3);
    let taken = |file: &str| {
        let text = fs::read_to_string(file).unwrap();
        fs::write(file, text.replace(&line, "")).unwrap();
    };
    User::with_accounts(|| ["/etc/subuid", "/etc/subgid"].into_iter().for_each(taken));
}

#[test]
fn says_why_there_is_no_namespace() {
    let user = User::without_sub_ids();
    with_image(&user);
    let stderr = user.fails(8, &["unpack", "x:0", "out"]);
    let expected = format!("error: user {} has no subordinate ids: no entry in /etc/subuid\n", user.name);
    assert_eq!(stderr, expected);
    assert!(user.fails(125, &["run", "x:0"]).ends_with(&expected));
    user.ok(&["images"]);
    user.ok(&["tag", "x:0", "y:0"]);
    assert_eq!(user.ok(&["--single-id", "unshare", "id", "-u"]), "0\n");
    let out = collect(user.shipimg().env("SHIPIMG_SINGLE_ID", "1").args(["unshare", "id", "-u"]));
    assert_eq!(out.stdout, b"0\n");
    drop(user);

    let user = User::new();
    with_image(&user);
    let in_home = || {
        let out = collect(user.shipimg().env("PATH", user.home()).args(["unshare", "/bin/true"]));
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    assert_eq!(in_home(), (Some(125), "error: program newuidmap not found\n".to_string()));
    for (name, script) in [("newuidmap", "echo refused >&2; exit 1"), ("newgidmap", "exit 0")] {
        fs::write(user.home().join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        ok("chmod", &["755", user.home().join(name).to_str().unwrap()]);
    }
    let (code, stderr) = in_home();
    assert!(
        code == Some(125) && stderr.contains("newuidmap ") && stderr.ends_with(": refused\n"),
        "{stderr}"
    );
}

/// In a namespace of root's in which no further one may be made.
#[test]
fn says_what_forbids_namespaces() {
    let user = User::new();
    let script = format!(
        "read x; exec sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --reuid={} --regid={} \\
         --clear-groups {} --root {} --single-id unshare true'",
        user.uid,
        user.gid,
        user.bin().display(),
        user.store().display()
    );
    let mut command = Command::new("unshare");
    let command = command.args(["--user", "sh", "-c", &script]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (own, its) = (Path::new("/proc/self/ns/user"), format!("/proc/{}/ns/user", child.id()));
    while fs::read_link(own).unwrap() == fs::read_link(&its).unwrap() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", child.id()), "0 0 4294967295").unwrap();
    }
    writeln!(child.stdin.take().unwrap()).unwrap();
    let out = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    let reason = "the sysctl user.max_user_namespaces allows no more";
    assert!(stderr.starts_with("error: no user namespace: unshare(") && stderr.contains(reason), "{stderr}");
}

/// A Debian system from a signed archive, by an ordinary user: the files that root makes.
#[test]
fn makes_debian_images() {
    let user = User::new();
    let mut archive = crate::common::archive::bookworm();
    archive.add_system();
    archive.add_script("scripted", "echo ran >/etc/ran; busybox chown 3:4 /etc/ran");
    archive.publish("", Some("good"));
    ok("chmod", &["755", archive.store.path().to_str().unwrap()]);
    let args = archive.args("system,scripted");
    archive.store.ok(&args);
    let image = archive.store.path().join("x.img");
    let own = user.home().join("x.img");
    let args: Vec<_> =
        args.into_iter().map(|a| if a == image.to_str().unwrap() { "x.img".into() } else { a }).collect();
    user.ok(&args);
    let list = |image: &Path| {
        let mounted = tempfile::tempdir().unwrap();
        let place = mounted.path().to_str().unwrap();
        ok("mount", &["-o", "loop,ro,noload", image.to_str().unwrap(), place]);
        let find = "cd $0 && find . -path ./dev -prune -o -printf '%p %y %U:%G %m %l\\n' | sort";
        let text = ok("sh", &["-c", find, place]);
        unmount(place);
        text
    };
    let (want, got) = (list(&image), list(&own));
    assert!(want.contains("./etc/ran f 3:4 644"), "{want}");
    assert_eq!(want, got);
    nothing_left(&user, &user.store().join("shipimg/tmp"), &[]);
}
