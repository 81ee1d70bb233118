//! Filesystems that shipimg writes, as the kernel sees them: read, written to, filled.

use crate::attributes::{MAKE, assert_same};
use crate::common::images::Folder;
use crate::common::{need_root, ok, unmount, unmount_below};
use crate::unpack::describe;
use shipimg::disk::{Error, ext4};
use shipimg::sys::sandbox::private_mounts;
use shipimg::tree::{Kind, Meta, Node, Tree, TreePath};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

fn options(kind: ext4::Kind, size: ext4::Size) -> ext4::Options {
    ext4::Options { kind, size, label: "test".into(), uuid: [5; 16], hash_seed: [6; 16], time: 1_700_000_000 }
}

/// An image mounted for writing.
struct Mounted {
    image: PathBuf,
    dir: PathBuf,
}

impl Mounted {
    fn new(image: &Path) -> Self {
        let dir = image.with_extension("mnt");
        fs::create_dir_all(&dir).unwrap();
        ok("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), dir.as_os_str()]);
        Self { image: image.to_path_buf(), dir }
    }

    fn tree(&self) -> BTreeMap<OsString, String> {
        let mut tree = describe(&self.dir);
        tree.remove(&OsString::from("lost+found")).unwrap();
        tree
    }

    /// Unmounts it; the filesystem is in order.
    fn close(self) {
        unmount(&self.dir);
        ok("e2fsck", &["-fn".as_ref(), self.image.as_os_str()]);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount_below(&self.dir);
    }
}

/// A folder in which `script` has made files.
fn made(dir: &Path, script: &str) -> PathBuf {
    let root = dir.join("root");
    fs::create_dir(&root).unwrap();
    ok("bash", &["-ec", script, root.to_str().unwrap()]);
    root
}

const KINDS: [ext4::Kind; 2] = [ext4::Kind::Ext4, ext4::Kind::Ext2];

#[test]
fn the_kernel_reads_what_was_there_and_writes_more() {
    need_root();
    // No other process keeps what is mounted here.
    private_mounts().unwrap();
    let tmp = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = made(tmp.path(), MAKE);
    let many = root.join("many");
    fs::create_dir(&many).unwrap();
    for i in 0..20_000 {
        fs::write(many.join(format!("{i} \u{fc}\u{ff}")), format!("{i}")).unwrap();
    }
    let want = describe(&root);
    for kind in KINDS {
        let image = tmp.path().join("x.img");
        ext4::write(&Folder::new(&root), &image, &options(kind, ext4::Size::Auto { free: None })).unwrap();
        let mounted = Mounted::new(&image);
        assert_same(&want, &mounted.tree(), &format!("{kind:?}"));
        let blocks = |name: &str| fs::metadata(mounted.dir.join(name)).unwrap().blocks() * 512;
        assert!(blocks("a/sparse") < 64 << 10 && blocks("a/hole") < 64 << 10 && blocks("a/nothing") == 0);
        // Directories are split, files taken away and made, the filesystem filled.
        let many = mounted.dir.join("many");
        for i in 0..20_000 {
            fs::rename(many.join(format!("{i} \u{fc}\u{ff}")), many.join(format!("renamed {i}"))).unwrap();
        }
        fs::remove_dir_all(mounted.dir.join("a")).unwrap();
        ok("bash", &["-c", "cat /dev/zero >$0/full; test -s $0/full", mounted.dir.to_str().unwrap()]);
        mounted.close();
    }
}

#[test]
fn only_files_decide_the_bytes() {
    let tmp = tempfile::tempdir_in("/var/tmp").unwrap();
    let finish = "chmod 755 . a b; touch -d @1000000000 a/* b/* a b .";
    let one =
        format!("cd $0; mkdir a b; for i in $(seq 300); do echo $i >a/$i; done; ln a/7 b/seven; {finish}");
    let other = format!(
        "cd $0; mkdir b a; echo 7 >b/seven; for i in $(seq 300 -1 1); do test $i = 7 || echo $i >a/$i; done; \
         ln b/seven a/7; truncate -s 1M a/300; truncate -s 4 a/300; {finish}"
    );
    let mut images = Vec::new();
    for script in [one, other] {
        let dir = tempfile::tempdir_in(tmp.path()).unwrap();
        let root = made(dir.path(), &script);
        let image = dir.path().join("x.img");
        let options = options(ext4::Kind::Ext4, ext4::Size::Auto { free: None });
        ext4::write(&Folder::new(&root), &image, &options).unwrap();
        images.push(fs::read(&image).unwrap());
    }
    assert!(images[0] == images[1]);
}

#[test]
fn a_full_disk_leaves_the_target() {
    need_root();
    private_mounts().unwrap();
    let tmp = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = made(tmp.path(), "head -c 20M /dev/urandom >$0/f");
    let disk = tmp.path().join("disk");
    fs::create_dir(&disk).unwrap();
    ok("mount", &["-t", "tmpfs", "-o", "size=8M", "tmpfs", disk.to_str().unwrap()]);
    let image = disk.join("x.img");
    fs::write(&image, "old").unwrap();
    let options = options(ext4::Kind::Ext4, ext4::Size::Shrink);
    let e = ext4::write(&Folder::new(&root), &image, &options).unwrap_err();
    assert!(e.to_string().contains("No space left"), "{e}");
    assert_eq!(fs::read(&image).unwrap(), b"old");
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 1);
    unmount(&disk);
}

#[test]
fn free_space_is_what_was_asked_for() {
    need_root();
    // No other process keeps what is mounted here.
    private_mounts().unwrap();
    let tmp = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = made(tmp.path(), "cd $0; seq 100000 >a; mkdir b; seq 10 >b/c");
    for kind in KINDS {
        for free in [0, 1 << 20, 700 << 20, 3 << 30] {
            let image = tmp.path().join("x.img");
            let options = options(kind, ext4::Size::Auto { free: Some(free) });
            let layout = ext4::write(&Folder::new(&root), &image, &options).unwrap();
            let mounted = Mounted::new(&image);
            let stat = rustix::fs::statvfs(&mounted.dir).unwrap();
            let available = stat.f_bavail * stat.f_bsize;
            assert_eq!(available, layout.free, "{kind:?} {free}");
            assert!((free..free + (1 << 20)).contains(&available), "{kind:?} {free}: {available}");
            mounted.close();
        }
    }
}

#[test]
fn the_kernel_fills_an_empty_one() {
    need_root();
    // No other process keeps what is mounted here.
    private_mounts().unwrap();
    let tmp = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = made(tmp.path(), MAKE);
    let (image, at) = (tmp.path().join("x.img"), tmp.path().join("at"));
    fs::create_dir(&at).unwrap();
    for kind in KINDS {
        let options = options(kind, ext4::Size::Fixed(64 << 20));
        let copy = |dir: &Path| {
            ok("cp", &["-a".as_ref(), root.join(".").as_os_str(), dir.as_os_str()]);
            Ok::<_, Error>(())
        };
        ext4::write_through_loop(&image, &at, &options, copy).unwrap();
        ok("e2fsck", &["-fn".as_ref(), image.as_os_str()]);
        let mounted = Mounted::new(&image);
        assert_same(&describe(&root), &mounted.tree(), &format!("{kind:?}"));
        mounted.close();
        // What fails leaves the target, no mount, no device.
        let before = fs::read(&image).unwrap();
        let failing = |_: &Path| Err::<(), Error>(Error::Stopped);
        assert!(matches!(ext4::write_through_loop(&image, &at, &options, failing), Err(Error::Stopped)));
        let mut held = None;
        let holding = |dir: &Path| {
            held = Some(File::create(dir.join("held")).unwrap());
            Ok::<_, Error>(())
        };
        let e = ext4::write_through_loop(&image, &at, &options, holding).unwrap_err();
        assert!(e.to_string().contains("umount2("), "{e}");
        drop(held);
        assert!(fs::read(&image).unwrap() == before);
        assert!(!shipimg::sys::mount::is_mount_point(&at).unwrap());
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
        let devices = ok("losetup", &["-nO", "BACK-FILE"]);
        assert!(!devices.contains(tmp.path().to_str().unwrap()), "{devices}");
    }
}

/// A tree of `count` directories or empty files in the folder `d`.
fn many(kind: &Kind, count: u32) -> Tree {
    let node = |kind: &Kind| Node {
        kind: kind.clone(),
        meta: Meta::default(),
        size: 0,
        sha256: None,
        same: None,
        inode: None,
    };
    let path = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
    let names = (0..count).map(|i| (path(&format!("d/{i}")), node(kind)));
    names.chain([(path("d"), node(&Kind::Directory))]).collect()
}

#[test]
fn large_ones_are_in_order() {
    let tmp = tempfile::tempdir_in("/var/tmp").unwrap();
    let image = tmp.path().join("x.img");
    let checked = |tree: &Tree, kind, size| {
        let layout = ext4::write(tree, &image, &options(kind, size)).unwrap();
        ok("e2fsck", &["-fn".as_ref(), image.as_os_str()]);
        layout
    };
    for kind in KINDS {
        checked(&Tree::new(), kind, ext4::Size::Fixed(1 << 37));
    }
    checked(&many(&Kind::File, 200_000), ext4::Kind::Ext4, ext4::Size::Auto { free: None });
    // More directories than an inode counts names of: ext2 has no way to say so.
    let directories = many(&Kind::Directory, 65_010);
    let layout = checked(&directories, ext4::Kind::Ext4, ext4::Size::Shrink);
    assert!(layout.inodes >= 65_022);
    let e = ext4::write(&directories, &image, &options(ext4::Kind::Ext2, ext4::Size::Shrink)).unwrap_err();
    assert!(e.to_string().contains("more than 64998 directories"), "{e}");
}
