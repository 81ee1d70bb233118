//! Everything that a file can be, in the formats of tars that are met: unpacked it is what it was, by
//! every driver, and goes back into a layer.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::ok;
use crate::rootfs::Ground;
use crate::unpack::{describe, device};
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use tar::EntryType as T;

/// A tree with all of it, made by other tools.
pub const MAKE: &str = r#"cd $0 && umask 022 && mkdir a b b/deep closed times sticky acl && chown 4000000000:3999999999 b
echo one >a/file && ln a/file b/deep/same && ln a/file also
mknod a/char c 5 1 && mknod a/block b 259 70000 && chown 0:5 a/char && chmod 620 a/char && mkfifo -m 622 a/fifo
ln -s ../nowhere/$(printf 'x%.0s' $(seq 120)) a/link && chown -h 7:8 a/link
echo x >a/xattr && setfattr -n user.note -v 0x0a00ff3d a/xattr && setfattr -n trusted.note -v t a
echo c >a/capable && setcap cap_net_raw+ep a/capable
echo l >acl/file && setfacl -m u:1000:r,g:4000000001:rw acl/file && setfacl -d -m u:77:rwx acl
truncate -s 5M a/sparse && printf middle | dd of=a/sparse bs=1 seek=3000000 conv=notrunc status=none
truncate -s 100M a/hole && printf end >>a/hole
truncate -s 1M a/nothing && touch a/empty
echo n >"a/$(printf 'n%.0s' $(seq 255))"
mkdir -p "b/$(printf 'd%.0s' $(seq 200))/$(printf 'e%.0s' $(seq 200))" && echo d >"b/$(printf 'd%.0s' $(seq 200))/$(printf 'e%.0s' $(seq 200))/f"
printf u >"$(printf 'a/\377\376 not\nutf8')"
echo s >a/setuid && chmod 6755 a/setuid && chmod 3777 sticky && chmod 0 closed
find . -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +
touch -d '1969-12-31 23:59:58.5' times"#;

pub fn tarred(tree: &Path, args: &[&str]) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "--sparse", "-C"]).arg(tree).args(args).args(["-c", "."]);
    let out = command.output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// A store, and images by every driver.
struct Case {
    ground: Ground,
    driver: &'static str,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let drivers = [("copy", false), ("overlay", false), ("btrfs", true)];
        drivers.into_iter().map(|(driver, btrfs)| {
            // All of them keep nanoseconds, holes and lists.
            let ground = if btrfs { Ground::new(true) } else { Ground::with("mkfs.ext4", 256) };
            Self { ground, driver }
        })
    }

    fn shipimg(&self, args: &[&str]) -> String {
        let store = self.ground.path().join("store");
        ok(crate::common::bin(), &[&["--root", store.to_str().unwrap()], args].concat())
    }

    fn with_image(&self, name: &str, layers: &[Blob]) {
        let store = self.ground.path().join("store");
        let layout = if store.exists() { Layout::at(&store) } else { Layout::new(&store) };
        layout.add(name, layers, &json!({}));
    }

    /// The tree of a bundle of `image`, seen by `look`.
    fn bundle<R>(&self, image: &str, look: impl FnOnce(&Path) -> R) -> R {
        self.shipimg(&["bundle", "create", "--driver", self.driver, image, "b"]);
        let seen = look(&self.ground.path().join("store/shipimg/bundles/b/rootfs"));
        self.shipimg(&["bundle", "delete", "b"]);
        seen
    }
}

pub fn assert_same(want: &BTreeMap<OsString, String>, got: &BTreeMap<OsString, String>, what: &str) {
    for (name, text) in want {
        assert_eq!(Some(text), got.get(name), "{what}: {}", name.display());
    }
    assert_eq!(want.len(), got.len(), "{what}: {:?}", got.keys().filter(|n| !want.contains_key(*n)));
}

#[test]
fn a_tree_is_what_it_was() {
    let source = Ground::with("mkfs.ext4", 64);
    let root = source.path();
    ok("rm", &["-rf", root.join("lost+found").to_str().unwrap()]);
    ok("bash", &["-ec", MAKE, root.to_str().unwrap()]);
    let mut want = describe(&root);
    let xattrs = ["--xattrs", "--xattrs-include=*"];
    let pax = |version| [&["--format=pax", version][..], &xattrs].concat();
    let versions = ["--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"];
    let mut tars: Vec<_> = versions.iter().map(|v| Blob::gzip(&tarred(&root, &pax(v)))).collect();
    tars.push(Blob::zstd(&tarred(&root, &[&pax(versions[2])[..], &["--acls"]].concat())));
    for case in Case::all() {
        for (i, tar) in tars.iter().enumerate() {
            let what = format!("{} {i}", case.driver);
            case.with_image(&format!("x:{i}"), std::slice::from_ref(tar));
            let look = |root: &Path| {
                let blocks = |name: &str| fs::metadata(root.join(name)).unwrap().blocks() * 512;
                assert!(blocks("a/sparse") < 1 << 20 && blocks("a/hole") < 1 << 20, "{what}: holes");
                assert_eq!(blocks("a/nothing"), 0, "{what}: holes");
                describe(root)
            };
            assert_same(&want, &case.bundle(&format!("x:{i}"), look), &what);
        }
    }
    // What a format cannot hold: attributes, parts of seconds.
    want = want.into_iter().map(|(n, t)| (n, plain(&t))).collect();
    let tar = Blob::gzip(&tarred(&root, &["--format=gnu"]));
    for case in Case::all() {
        case.with_image("x:0", std::slice::from_ref(&tar));
        let got = case.bundle("x:0", describe).into_iter().map(|(n, t)| (n, plain(&t))).collect();
        assert_same(&want, &got, case.driver);
    }
}

/// A line of [`describe`] without nanoseconds and attributes.
pub fn plain(line: &str) -> String {
    let attributes = [" security.", " user.", " trusted.", " system."].iter().filter_map(|a| line.find(a));
    let line = &line[..attributes.min().unwrap_or(line.len())];
    let (start, time) = line.split_once(" mtime ").unwrap();
    let (seconds, rest) = time.split_once('.').unwrap();
    format!("{start} mtime {seconds}{}", &rest[9..])
}

/// Two layers that hide each other's files, in the worst order.
pub fn hiding() -> [Blob; 2] {
    let lower =
        Tar::new().dir("d/").file("d/old", b"").dir("d/sub/").file("d/sub/old", b"").file("gone", b"");
    let lower = lower.dir("e/").file("e/old", b"").file("f", b"file").dir("g/").file("g/x", b"");
    let upper = Tar::new()
        .dir("d/")
        .file("d/new", b"new")
        .file("d/.wh..wh..opq", b"")
        .file("d/before", b"")
        .file(".wh.e", b"")
        .dir("e/")
        .file("e/new", b"")
        .file(".wh.gone", b"")
        .dir("f/")
        .file("f/now", b"a directory")
        .file("g", b"a file")
        .link("d/hard", "d/new");
    [lower, upper].map(|t| Blob::gzip(&t.finish()))
}

#[test]
fn layers_hide_and_come_back() {
    for case in Case::all() {
        case.with_image("x:0", &hiding());
        let list = |root: &Path| -> Vec<_> { describe(root).into_keys().collect() };
        let want =
            ["", "d", "d/before", "d/hard", "d/new", "e", "e/new", "f", "f/now", "g"].map(OsString::from);
        assert_eq!(case.bundle("x:0", list), want, "{}", case.driver);
    }
}

/// What is committed of a bundle is the same tree, in which only what was touched is different.
#[test]
fn a_touched_tree_comes_back() {
    let source = Ground::with("mkfs.ext4", 64);
    let root = source.path();
    ok("rm", &["-rf", root.join("lost+found").to_str().unwrap()]);
    ok("bash", &["-ec", MAKE, root.to_str().unwrap()]);
    let tar = Blob::gzip(&tarred(&root, &["--format=pax", "--xattrs", "--xattrs-include=*"]));
    // All is changed and put into a new layer; so each sort of file is written by shipimg.
    let touch =
        "cd $0 && find . -mindepth 1 -exec touch -h -d '2011-02-03 04:05:06.000000007' {} + && rm a/fifo";
    for case in Case::all() {
        case.with_image("x:0", std::slice::from_ref(&tar));
        case.shipimg(&["bundle", "create", "--driver", case.driver, "x:0", "touched"]);
        let touched = case.ground.path().join("store/shipimg/bundles/touched/rootfs");
        ok("bash", &["-ec", touch, touched.to_str().unwrap()]);
        let want = describe(&touched);
        case.shipimg(&["commit", "touched", "x:1"]);
        case.shipimg(&["bundle", "delete", "touched"]);
        assert_same(&want, &case.bundle("x:1", describe), case.driver);
        if case.driver == "copy" {
            let (image, out) = (case.ground.path().join("store"), case.ground.path().join("umoci"));
            let image = format!("{}:docker.io/library/x:1", image.display());
            ok("umoci", &["unpack", "--image", &image, out.to_str().unwrap()]);
            assert_same(&want, &describe(&out.join("rootfs")), "umoci");
        }
        case.shipimg(&["squash", "x:1", "--tag", "x:2", "--compression", "zstd"]);
        assert_same(&want, &case.bundle("x:2", describe), case.driver);
    }
}

/// Numbers that do not fit into octal digits.
#[test]
fn large_numbers() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(T::Regular);
    header.as_old_mut().name[..1].copy_from_slice(b"f");
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(4_294_967_294);
    header.set_gid(3_000_000_000);
    header.set_mtime(20_000_000_000);
    header.set_cksum();
    let ends = Tar::new().finish();
    let tar = [header.as_bytes(), &device("dev", T::Block, 4095, 1_048_575)[..], &ends].concat();
    for case in Case::all() {
        case.with_image("x:0", &[Blob::gzip(&tar)]);
        case.bundle("x:0", |root| {
            let meta = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
            let f = meta("f");
            assert_eq!((f.uid(), f.gid()), (4_294_967_294, 3_000_000_000));
            // ext4 of small inodes ends in 2446.
            assert!(f.mtime() == 20_000_000_000 || f.mtime() == 15_032_385_535, "{}", f.mtime());
            assert_eq!(meta("dev").rdev(), rustix::fs::makedev(4095, 1_048_575));
        });
    }
}
