//! `diff` of files: filesystem images, disks, tars; and of two that hold the same, of the first byte.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::user::User;
use crate::common::{TestStore, need_root, ok, unmount};
use serde_json::json;
use std::fs;
use std::path::Path;

fn below(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_string()
}

/// What is said of the first byte that is different, after its words.
fn first(store: &TestStore, a: &str, b: &str) -> String {
    let out = store.output(&["diff", "--times", a, b]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && out.stdout.is_empty(), "{out:?}");
    let words = "all files are equal, the bytes are not: from byte ";
    said.trim_end().strip_prefix(words).unwrap_or_else(|| panic!("{said}")).to_string()
}

#[test]
fn filesystems_are_compared() {
    let store = TestStore::new();
    let layout = Layout::new(store.path());
    let of =
        |text: &str| [Blob::gzip(&Tar::new().file("same", b"same").file("other", text.as_bytes()).finish())];
    layout.add("img:a", &of("one"), &json!({}));
    layout.add("img:b", &of("two"), &json!({}));
    let at = |name: &str| below(store.path(), name);
    for kind in ["img", "ext2", "erofs", "squashfs", "btrfs"] {
        let (a, b, again) =
            (at(&format!("a.{kind}")), at(&format!("b.{kind}")), at(&format!("again.{kind}")));
        store.ok(&["mkimg", "--from", "img:a", "--label", "x", &a]);
        store.ok(&["mkimg", "--from", "img:b", &b]);
        fs::copy(&a, &again).unwrap();
        assert_eq!(store.ok(&["diff", &a, &b]), "C /other 3 -> 3 content\n", "{kind}");
        let out = store.output(&["diff", "--times", &a, &again]);
        assert!(out.status.success() && out.stdout.is_empty() && out.stderr.is_empty(), "{kind}: {out:?}");
    }
    // The label of ext2 lies at byte 120 of the superblock.
    store.ok(&["mkimg", "--from", "img:a", "--label", "y", &at("label.ext2")]);
    assert_eq!(first(&store, &at("a.ext2"), &at("label.ext2")), "1144 on: superblock");
    let said = store.ok(&["diff", "--format", "json", &at("a.ext2"), &at("label.ext2")]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let want = json!([{"change": "bytes", "offset": 1144, "partition": null, "what": "superblock",
        "inode": null, "path": null}]);
    assert_eq!(said, want);
    // What ext has for itself is no difference.
    assert_eq!(store.ok(&["diff", &at("a.ext2"), &at("a.erofs")]), "");
    assert_eq!(fs::read_dir(store.path().join("shipimg/tmp")).unwrap().count(), 0);
    assert!(!ok("losetup", &["-nO", "BACK-FILE"]).contains(store.path().to_str().unwrap()));
    let user = User::new();
    fs::copy(at("a.ext2"), user.home().join("a.ext2")).unwrap();
    user.give(&user.home().join("a.ext2"));
    assert!(
        user.fails(8, &["diff", "./a.ext2", "./a.ext2"]).contains("cannot be mounted by an ordinary user")
    );
}

#[test]
fn the_first_difference_is_explained() {
    need_root();
    let store = TestStore::new();
    let layout = Layout::new(store.path());
    let loader = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";
    let dirs = [
        "./",
        "usr",
        "usr/lib",
        "usr/lib/systemd",
        "usr/lib/systemd/boot",
        "usr/lib/systemd/boot/efi",
        "etc",
    ];
    let tar = dirs.iter().fold(Tar::new(), |tar, dir| tar.dir(dir));
    let text = b"a text that is in one file alone".repeat(200);
    let tar = tar.file(loader, b"loader").file("boot-less", b"").file("etc/own", &text).finish();
    layout.add("img:a", &[Blob::tar(&tar)], &json!({}));
    let at = |name: &str| below(store.path(), name);
    let begin = ["mkimg", "--from", "img:a", "--label", "x"].map(str::to_string);
    let all = ["a.img", "a.erofs", "a.squashfs", "a.tar", "a.tgz", "a.tzst"].map(at);
    store.ok(&[&begin[..], &all].concat());
    store.ok(&[&begin[..], &[format!("disk:{}", at("a.disk"))]].concat());
    store.ok(&["mkimg", "--from", "img:a", "--label", "y", &format!("disk:{}", at("b.disk"))]);

    // Beyond the content of a file, its last block is told with it.
    for name in ["a.img", "a.disk"] {
        let mut bytes = fs::read(at(name)).unwrap();
        let last = bytes.windows(32).rposition(|w| w == &text[..32]).unwrap();
        bytes[last + 40] = 1;
        fs::write(at("changed"), bytes).unwrap();
        let said = first(&store, &at(name), &at("changed"));
        let part = if name == "a.disk" { "partition 2 (root), " } else { "" };
        let want = format!("{} on: {part}content of /etc/own (inode ", last + 40);
        assert!(said.starts_with(&want), "{said}");
    }
    // The identifier of the disk, and the label of its root.
    let mut bytes = fs::read(at("a.disk")).unwrap();
    bytes[512 + 60] ^= 1;
    fs::write(at("changed"), bytes).unwrap();
    assert_eq!(first(&store, &at("a.disk"), &at("changed")), "572 on: partition table");
    assert!(first(&store, &at("a.disk"), &at("b.disk")).ends_with(" on: partition 2 (root), superblock"));
    store.ok(&["mkimg", "--from", "img:a", "--label", "y", &at("b.erofs")]);
    assert!(first(&store, &at("a.erofs"), &at("b.erofs")).ends_with(" on: superblock"));
    let mut bytes = fs::read(at("a.squashfs")).unwrap();
    bytes[8] ^= 1;
    fs::write(at("changed"), bytes).unwrap();
    assert_eq!(first(&store, &at("a.squashfs"), &at("changed")), "8 on: superblock");

    // Tars are trees as well, compressed or not.
    for name in ["a.tgz", "a.tzst", "a.img", "a.erofs"] {
        assert_eq!(store.ok(&["diff", &at("a.tar"), &at(name)]), "", "{name}");
    }
    let other = Tar::new().dir("./").file("other", b"other").finish();
    fs::write(at("b.tar"), &other).unwrap();
    let said = store.ok(&["diff", &at("a.tar"), &at("b.tar")]);
    assert!(said.contains("A /other 5") && said.contains("D /etc/own"), "{said}");
    fs::write(at("none.tar"), "nothing").unwrap();
    store.fails(2, &["diff", &at("none.tar"), &at("a.tar")]);
    fs::write(at("cut.tar"), &tar[..tar.len() - 4096]).unwrap();
    store.fails(9, &["diff", &at("cut.tar"), &at("a.tar")]);
    assert!(!ok("losetup", &["-nO", "BACK-FILE"]).contains(store.path().to_str().unwrap()));
}

/// Two filesystems on which files of the same number, time and size are different files.
#[test]
fn equal_inodes_tell_nothing_of_equal_content() {
    need_root();
    let store = TestStore::new();
    let layout = Layout::new(store.path());
    for (name, text) in [("img:a", b"one"), ("img:b", b"two")] {
        layout.add(name, &[Blob::gzip(&Tar::new().file("f", text).finish())], &json!({}));
    }
    let mounted = ["a", "b"].map(|name| {
        let image = below(store.path(), &format!("{name}.ext2"));
        store.ok(&["mkimg", "--from", &format!("img:{name}"), &image]);
        let dir = store.path().join(format!("mnt-{name}"));
        fs::create_dir(&dir).unwrap();
        ok("mount", &["-o", "loop,ro", &image, dir.to_str().unwrap()]);
        dir
    });
    let said = store.ok(&["diff", mounted[0].to_str().unwrap(), mounted[1].to_str().unwrap()]);
    for dir in &mounted {
        unmount(dir);
    }
    assert_eq!(said, "C /f 3 -> 3 content\n");
}
