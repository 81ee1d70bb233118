//! Owners and devices that an ordinary user cannot make: recorded, and read as what they are meant
//! to be, so that all images come out as root's.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::user::User;
use crate::common::{TestStore, collect, ok};
use crate::unpack::device;
use crate::unprivileged::{layers, same};
use serde_json::json;
use shipimg::tree::recorded::{DEVICE, OWNER};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use tar::EntryType as T;

/// The layers of an ordinary image, and one with devices.
fn with_devices() -> Vec<Blob> {
    let devices = [device("dev/one", T::Char, 5, 1), device("dev/two", T::Block, 259, 70_000)].concat();
    let dev = Tar::new().dir("dev/").finish();
    let ends = Tar::new().link("dev/again", "dev/one").finish();
    let tar = [&dev[..dev.len() - 1024], &devices, &ends].concat();
    let mut all = Vec::from(layers());
    all.push(Blob::gzip(&tar));
    all
}

/// The image `x:0` in a store of the user's and in one of root's.
fn stores(user: &User, layers: &[Blob]) -> TestStore {
    let root = TestStore::in_memory();
    for store in [&user.store(), root.path()] {
        Layout::new(store).add("x:0", layers, &json!({"Cmd": ["/bin/sh"]}));
    }
    user.give(&user.store());
    root
}

/// What is done to a root filesystem, by a shell that has one id.
const CHANGE: &str = "cd $0 && echo new >etc/new && rm -r d && mkdir d && echo y >d/y && chmod 600 suid &&
    mv home/ann/note home/ann/renamed && rm dev/two && touch -hd @1700000001 etc d d/y . home/ann dev etc/new suid &&
    setfattr -n user.x -v y tmp";

#[test]
fn images_of_a_user_are_roots() {
    for user in [User::single(), User::new()] {
        let root = stores(&user, &with_devices());
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let both = |args: &[&str]| same(&user, &root, folder.path(), args);
        both(&["unpack", "x:0", "plain"]);
        both(&["unpack", "x:0", "out", "--manifest", "mtree"]);
        both(&["repack", "out", "y:same"]);
        assert!(fs::metadata(folder.path().join("out/rootfs/dev/one")).unwrap().file_type().is_char_device());
        let one = fs::metadata(user.home().join("out/rootfs/dev/one")).unwrap();
        assert!(one.is_file() && one.len() == 0 && one.nlink() == 2, "stands in");
        for name in ["plain", "out"] {
            let rootfs = format!("{name}/rootfs");
            ok("sh", &["-c", CHANGE, folder.path().join(&rootfs).to_str().unwrap()]);
            user.ok(&["unshare", "sh", "-c", CHANGE, &rootfs]);
            both(&["repack", name, &format!("y:{name}")]);
        }
        both(&["squash", "y:out", "--tag", "y:squashed"]);
        both(&["diff", "x:0", "y:squashed"]);
        both(&["diff", "y:out", "--layers", "--format", "json"]);
        both(&["diff", "out", "x:0"]);
        both(&["export", "y:squashed", "--kind", "rootfs"]);
        for driver in ["copy", "overlay"] {
            for command in ["create", "delete"] {
                let bundle =
                    |store: &Path| store.join("shipimg/bundles/b/rootfs").to_str().unwrap().to_string();
                let args = ["bundle", command, "x:0", "b", "--driver", driver];
                let args = if command == "create" { &args[..] } else { &["bundle", "delete", "b"] };
                user.ok(args);
                root.ok(args);
                if command == "create" {
                    ok("sh", &["-c", CHANGE, &bundle(root.path())]);
                    user.ok(&["unshare", "sh", "-c", CHANGE, &bundle(&user.store())]);
                    both(&["diff", "b"]);
                    both(&["commit", "b", &format!("y:{driver}")]);
                }
            }
        }
        both(&["images", "-q"]);
        user.ok(&["unshare", "rm", "-rf", "out", "plain"]);
    }
}

/// Records in a layer are no records.
#[test]
fn what_a_layer_records_is_not_believed() {
    let records: [(&str, &[u8]); 2] = [
        ("SCHILY.xattr.user.rootlesscontainers", b"\x08\x07\x10\x08"),
        ("SCHILY.xattr.user.containers.override_stat", b"0:0:0666:char-1-1"),
    ];
    let tar = Tar::new().pax(&records).file("f", b"").pax(&records).dir("d/").finish();
    for user in [User::single(), User::new()] {
        let root = stores(&user, &[Blob::gzip(&tar)]);
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        for args in
            [&["unpack", "x:0", "out"][..], &["squash", "x:0", "--tag", "y:s"], &["diff", "x:0", "y:s"]]
        {
            same(&user, &root, folder.path(), args);
        }
        for root in [folder.path(), &user.home()] {
            for name in ["f", "d"] {
                let path = root.join("out/rootfs").join(name);
                let all = shipimg::sys::xattr::all_fd(fs::File::open(path).unwrap()).unwrap();
                assert!(!all.iter().any(|(n, _)| n == OWNER || n == DEVICE), "{name}");
            }
        }
    }
}

/// umoci reads what is recorded here, and what umoci records is read here.
#[test]
fn umoci_records_the_same() {
    let user = User::single();
    let [lower, middle, upper] = layers();
    assert_eq!(&middle.bytes[..4], b"\x28\xb5\x2f\xfd", "zstd, which umoci does not read");
    let middle = Blob::gzip(&zstd::decode_all(&*middle.bytes).unwrap());
    stores(&user, &[lower, middle, upper]);
    let layout = user.store();
    let image = format!("{}:x:0", layout.display());
    let umoci = |args: &[&str]| {
        let out = collect(user.command("umoci").args(args));
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    umoci(&["unpack", "--rootless", "--image", &image, "theirs"]);
    user.ok(&["unpack", "x:0", "ours"]);
    let value = |bundle: &str, name: &str| {
        let file = fs::File::open(user.home().join(bundle).join("rootfs").join(name)).unwrap();
        shipimg::sys::xattr::get_fd(&file, OWNER).unwrap()
    };
    for name in ["home/ann", "home/ann/note", "capable", "suid", "etc", "bin/busybox"] {
        assert_eq!(value("ours", name), value("theirs", name), "{name}");
    }
    assert!(value("ours", "suid").is_some());
    // umoci sets no capabilities, and no attributes of a directory that nobody may enter.
    let diff = "C /capable 1 -> 1 xattr\nC /locked/deep 0 -> 0 owner\n";
    assert_eq!(user.ok(&["diff", "x:0", "./theirs/rootfs"]), diff);

    user.ok(&["unshare", "rm", "-rf", "theirs/rootfs"]);
    user.ok(&["unshare", "mv", "ours/rootfs", "theirs/rootfs"]);
    umoci(&["repack", "--image", &format!("{}:x:1", layout.display()), "theirs"]);
    // It sees the capabilities from outside, with the id of the namespace's root.
    let shipimg = crate::common::bin();
    let diff = ok(shipimg, &["--root", layout.to_str().unwrap(), "diff", "x:0", "x:1"]);
    assert_eq!(diff, "C /capable 1 -> 1 xattr\n");
}
