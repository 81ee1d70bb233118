//! `mkimg --from`: outputs of an image that is there already.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::user::User;
use crate::common::{TestStore, need_root, ok};
use serde_json::json;
use std::fs;
use std::path::Path;

/// An output of each way in which files are written.
const WAYS: [&str; 7] = ["x.img", "x.ext2", "x.erofs", "x.squashfs", "x.tar", "x.tgz", "x.btrfs"];

/// A tar with a directory, as plain as an image of one layer must be to be read in place.
fn plain() -> Vec<u8> {
    let content = b"content ".repeat(1000);
    Tar::new().dir("./").dir("a").file("a/first", &content).file("a/second", &content).finish()
}

/// What `mkimg --from` says of the image `name`, whatever it is to write; nothing is written.
fn refused(store: &TestStore, dir: &Path, name: &str) -> Vec<String> {
    let say = |output: &str| {
        let target = dir.join(output);
        fs::write(&target, "old").unwrap();
        let said = store.fails(9, &["mkimg", "--from", name, target.to_str().unwrap()]);
        assert_eq!(fs::read(&target).unwrap(), b"old", "{output}");
        said
    };
    let mut said: Vec<_> = WAYS.iter().map(|output| say(output)).collect();
    let blobs = || fs::read_dir(store.path().join("blobs/sha256")).unwrap().count();
    let before = blobs();
    said.push(store.fails(9, &["mkimg", "--from", name, "store:localhost/new:1"]));
    assert_eq!(blobs(), before);
    assert_eq!(fs::read_dir(dir).unwrap().count(), WAYS.len(), "{name}");
    said
}

#[test]
fn a_damaged_layer_is_no_source() {
    need_root();
    let store = TestStore::new();
    let layout = Layout::new(store.path());
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let tar = plain();
    let content = tar.windows(8).rposition(|w| w == b"content ").unwrap();
    let header = tar.windows(7).position(|w| w == b"a/first").unwrap();
    let blob = Blob::tar;
    layout.add("img:x", &[blob(&tar)], &json!({}));
    let path = store.path().join("blobs/sha256").join(&blob(&tar).digest()[7..]);
    let changed = |at: usize| {
        let mut bytes = tar.clone();
        bytes[at] ^= 1;
        bytes
    };
    let longer = [&tar[..], &[0]].concat();
    for (bytes, says) in [
        (changed(content), "content has digest"),
        (changed(header), "content has digest"),
        (tar[..content].to_vec(), "ended after"),
        (tar[..tar.len() - 512].to_vec(), "ended after"),
        (longer, "is longer than its"),
    ] {
        fs::write(&path, bytes).unwrap();
        for said in refused(&store, place.path(), "img:x") {
            assert!(said.contains(says), "{says}: {said}");
        }
    }
    fs::write(&path, &tar).unwrap();
    store.ok(&["mkimg", "--from", "img:x", place.path().join("x.img").to_str().unwrap()]);
    // Whole, but of another diff id than promised.
    let other = blob(b"x").digest();
    layout.add_as("img:lies", &[blob(&tar)], &json!({}), &[&other]);
    for said in refused(&store, place.path(), "img:lies") {
        assert!(said.contains("its tar has digest") && said.contains(&other), "{said}");
    }
}

/// The size of a file.
fn size(path: &str) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[test]
fn btrfs_by_root_and_by_a_user() {
    need_root();
    let (store, user) = (TestStore::new(), User::new());
    let layout = Layout::new(store.path());
    let big = "0123456789abcdef".repeat(10 << 20);
    let mut null = tar::Header::new_ustar();
    null.set_path("null").unwrap();
    null.set_entry_type(tar::EntryType::Char);
    null.set_mode(0o666);
    null.set_size(0);
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    null.set_cksum();
    let tar = Tar::new().dir("./").header(&null).file("big", big.as_bytes());
    layout.add("img:x", &[Blob::gzip(&tar.finish())], &json!({}));
    ok("chmod", &["-R", "a+rX", store.path().to_str().unwrap()]);
    user.ok(&["copy", "-q", &format!("oci:{}:img:x", store.path().display()), "store:localhost/img:x"]);
    let at = |name: &str| user.home().join(name).to_str().unwrap().to_string();
    let devices = || ok("losetup", &["-nO", "BACK-FILE"]);

    let out = store.output(&["mkimg", "--from", "img:x", &at("root.btrfs")]);
    assert!(out.status.success() && !String::from_utf8_lossy(&out.stderr).contains("numbers"), "{out:?}");
    store.ok(&["mkimg", "--from", "img:x", "--shrink", &at("least.btrfs")]);
    store.ok(&["mkimg", "--from", "img:x", "--size", "400M", &at("fixed.btrfs")]);
    assert!(size(&at("least.btrfs")) < size(&at("root.btrfs")));
    assert_eq!(size(&at("fixed.btrfs")), 400 << 20);
    for name in ["root.btrfs", "least.btrfs", "fixed.btrfs"] {
        ok("btrfs", &["check", "--readonly", &at(name)]);
        assert_eq!(store.ok(&["diff", &at(name), &at("root.btrfs")]), "", "{name}");
    }
    let full = store.fails(1, &["mkimg", "--from", "img:x", "--size", "109M", &at("full.btrfs")]);
    assert!(full.contains("No space left"), "{full}");
    let small = store.fails(2, &["mkimg", "--from", "img:x", "--size", "108M", &at("full.btrfs")]);
    assert!(small.contains("113246208 bytes are too small, the files need 114294784"), "{small}");

    let out = user.output(&["mkimg", "--from", "localhost/img:x", &at("user.btrfs")]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success() && said.contains("user.btrfs: mkfs.btrfs gives devices no numbers"),
        "{said}"
    );
    ok("btrfs", &["check", "--readonly", &at("user.btrfs")]);
    assert!(!devices().contains(user.home().to_str().unwrap()));
    assert_eq!(
        fs::read_dir(user.home())
            .unwrap()
            .filter(|f| {
                let name = f.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with(".shipimg-")
            })
            .count(),
        0
    );
}
