//! `mkimg --from`: outputs of an image that is there already.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::{TestStore, need_root};
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
