//! What single drivers promise: many layers, shared layers, throw-away overlays, image files
//! with and without loop devices, shared blocks, quotas.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::{TestStore, describe, ok};
use crate::rootfs::Ground;
use shipimg::bundle::{Bundle, Origin, Settings};
use shipimg::oci::{Image, Platform};
use shipimg::rootfs::{DriverKind, Rootfs, Source, choose};
use shipimg::store::Store;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// The image `many:COUNT`: layer I adds `d/I` and removes what the one before added, but
/// for every tenth.
fn many(root: &Path, count: usize) -> (Store, Image) {
    let layer = |i: usize| {
        let tar = Tar::new().dir("d/").file(&format!("d/{i}"), i.to_string().as_bytes());
        let before = i.wrapping_sub(1);
        let removes = i > 0 && !before.is_multiple_of(10);
        Blob::tar(&if removes { tar.file(&format!("d/.wh.{before}"), b"") } else { tar }.finish())
    };
    let layers: Vec<Blob> = (0..count).map(layer).collect();
    let name = format!("many:{count}");
    if !root.join("index.json").exists() {
        Layout::new(root);
    }
    Layout::at(root).add(&name, &layers, &serde_json::json!({}));
    let store = Store::open(root).unwrap();
    let entry = store.find(&name.parse().unwrap()).unwrap();
    let image = store.image(&entry.descriptor, &Platform::host()).unwrap();
    (store, image)
}

fn assert_many(root: &Path, count: usize) {
    let mut names: Vec<usize> = fs::read_dir(root.join("d"))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    names.sort_unstable();
    let expected: Vec<usize> = (0..count).filter(|i| i.is_multiple_of(10) || i + 1 == count).collect();
    assert_eq!(names, expected);
}

fn create(store: &Store, driver: DriverKind, source: &Source, bundle: &Path) -> Rootfs {
    fs::create_dir(bundle).unwrap();
    Rootfs::create(store, driver, source, bundle).unwrap()
}

#[test]
fn many_layers_by_every_driver() {
    for driver in [DriverKind::Copy, DriverKind::Overlay, DriverKind::Btrfs] {
        let ground = Ground::new(driver == DriverKind::Btrfs);
        for count in [128, 500] {
            let (store, image) = many(&ground.path().join("store"), count);
            let bundle = ground.path().join(count.to_string());
            let rootfs = create(&store, driver, &Source::Image(&image), &bundle);
            assert_many(&bundle.join("rootfs"), count);
            rootfs.remove(&bundle).unwrap();
        }
    }
    let ground = Ground::new(false);
    let (store, image) = many(&ground.path().join("store"), 500);
    let (tree, file) = (ground.path().join("tree"), ground.path().join("image"));
    shipimg::layer::unpack(&store, &image, &tree, &shipimg::layer::Options::default()).unwrap();
    ok("mkfs.erofs", &[&file, &tree]);
    let bundle = ground.path().join("bundle");
    let rootfs = create(&store, DriverKind::Image, &Source::File(&file), &bundle);
    assert_many(&bundle.join("rootfs"), 500);
    rootfs.remove(&bundle).unwrap();
}

#[test]
fn more_layers_than_an_overlay_takes() {
    let ground = Ground::new(false);
    let (store, image) = many(&ground.path().join("store"), 501);
    let bundle = ground.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    let e = Rootfs::create(&store, DriverKind::Overlay, &Source::Image(&image), &bundle).unwrap_err();
    let text = "the overlay driver does not work here: an overlay takes 500 layers, the image has 501";
    assert_eq!((e.to_string().as_str(), e.kind().exit_code()), (text, 7));
    assert_eq!(choose(&store, &Source::Image(&image)).unwrap().0, DriverKind::Copy);
}

/// Runs shipimg as on a kernel without fsopen(2): a filter answers ENOSYS.
fn on_old_kernel(store: &Path, args: &[&str]) -> std::process::Output {
    let script = "import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 430), (0x06, 0, 0, 0x50026), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *c) for c in code))
prog = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 4, ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, prog, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])";
    let mut command = Command::new("python3");
    command.args(["-c", script, crate::common::bin(), "--root"]).arg(store).args(args);
    crate::common::collect(&mut command)
}

#[test]
fn old_kernels_take_few_layers_and_say_so() {
    let store = TestStore::new();
    many(store.path(), 300);
    many(store.path(), 128);
    let args = ["bundle", "create", "--driver", "overlay", "many:300", "big"];
    let out = on_old_kernel(store.path(), &args);
    let stderr = String::from_utf8_lossy(&out.stderr);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let text = format!(
        "error: the overlay driver does not work here: 300 layers need a kernel of 6.7 or later \
         (fsconfig lowerdir+), this is {}\n",
        release.trim()
    );
    assert_eq!((out.status.code(), &*stderr), (Some(7), text.as_str()));
    let out = on_old_kernel(store.path(), &["bundle", "create", "--driver", "overlay", "many:128", "small"]);
    assert!(out.status.success(), "{}", describe("shipimg", &[""], &out));
    assert_many(&store.path().join("shipimg/bundles/small/rootfs"), 128);
    store.ok(&["bundle", "delete", "small"]);
}

fn mount_of(path: &Path) -> Option<String> {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.lines().find(|l| l.split(' ').nth(4).is_some_and(|p| Path::new(p) == path)).map(str::to_string)
}

#[test]
fn only_throw_away_bundles_are_volatile() {
    let ground = Ground::new(false);
    let (store, image) = many(&ground.path().join("store"), 2);
    let origin = Origin::Image(None, Box::new(image));
    let (overlay, settings) = (DriverKind::Overlay, Settings::default());
    let bundle = Bundle::throw_away(&store, "x", &origin, Some(overlay), &settings).unwrap();
    fs::write(bundle.rootfs().join("new"), "").unwrap();
    assert!(mount_of(&bundle.rootfs()).unwrap().contains("volatile"));
    bundle.remove().unwrap();
    let bundle = Bundle::create(&store, "x", &origin, Some(overlay), &settings).unwrap();
    assert!(!mount_of(&bundle.rootfs()).unwrap().contains("volatile"));
    bundle.remove().unwrap();
}

#[test]
fn a_second_container_copies_nothing() {
    let ground = Ground::new(false);
    let (store, image) = many(&ground.path().join("store"), 20);
    let source = Source::Image(&image);
    let bundles = ["one", "two"].map(|n| ground.path().join(n));
    let [one, two] = bundles.each_ref().map(|b| create(&store, DriverKind::Overlay, &source, b));
    assert_eq!((one.lowers.len(), &one.lowers), (20, &two.lowers));
    assert_eq!(fs::read_dir(bundles[1].join("upper")).unwrap().count(), 0);
    let shared = |b: &Path| fs::metadata(b.join("rootfs/d/10")).unwrap().ino();
    assert_eq!(shared(&bundles[0]), shared(&bundles[1]));
    one.remove(&bundles[0]).unwrap();
    assert_many(&bundles[1].join("rootfs"), 20);
    two.remove(&bundles[1]).unwrap();
}

/// Killed after its last layer was published, a command leaves a folder that the next one takes
/// away, though nothing is to be extracted.
#[test]
fn what_was_left_beside_the_layers_goes() {
    for driver in [DriverKind::Overlay, DriverKind::Btrfs] {
        let ground = Ground::new(driver == DriverKind::Btrfs);
        let (store, image) = many(&ground.path().join("store"), 3);
        let bundle = |name: &str| {
            let path = ground.path().join(name);
            create(&store, driver, &Source::Image(&image), &path).remove(&path).unwrap();
        };
        bundle("one");
        let left = ground.path().join("store/shipimg/layers/.shipimg-left/0/fs");
        fs::create_dir_all(&left).unwrap();
        bundle("two");
        assert!(!left.exists(), "{driver}");
    }
}

/// An erofs image with a file `f`.
fn erofs(dir: &Path) -> std::path::PathBuf {
    let (tree, file) = (dir.join("tree"), dir.join("image.erofs"));
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("f"), "f").unwrap();
    ok("mkfs.erofs", &[&file, &tree]);
    file
}

#[test]
fn erofs_is_mounted_from_the_file_and_else_from_a_loop_device() {
    let ground = Ground::new(false);
    let store = Store::open(&ground.path().join("store")).unwrap();
    // A tmpfs cannot be read the way that erofs reads files.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    for (name, dir, direct) in [("disk", ground.path(), true), ("memory", memory.path().to_path_buf(), false)]
    {
        let file = erofs(&dir);
        let bundle = ground.path().join(name);
        let rootfs = create(&store, DriverKind::Image, &Source::File(&file), &bundle);
        assert_eq!(fs::read_to_string(bundle.join("rootfs/f")).unwrap(), "f");
        let lower = mount_of(&bundle.join("lower")).unwrap();
        assert_eq!(lower.contains("/dev/loop"), !direct, "{lower}");
        if !direct {
            let loops = ok("losetup", &["-nO", "AUTOCLEAR,RO", "-j", file.to_str().unwrap()]);
            assert_eq!(loops.split_whitespace().collect::<Vec<_>>(), ["1", "1"]);
        }
        rootfs.remove(&bundle).unwrap();
        assert_eq!(ok("losetup", &["-j", file.to_str().unwrap()]), "");
    }
}

#[test]
fn no_loop_device_is_a_clear_error() {
    let store = TestStore::new();
    let (root, bin) = (store.path().to_str().unwrap(), crate::common::bin());
    let (erofs, squash) = (erofs(store.path()), store.path().join("image.squash"));
    let tree = store.path().join("tree");
    ok("mksquashfs", &[tree.to_str().unwrap(), squash.to_str().unwrap(), "-quiet", "-no-progress"]);
    let run = |file: &Path, name: &str| {
        let script = "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec \"$@\"";
        let file = file.to_str().unwrap();
        let args = ["-m", "sh", "-c", script, "sh", bin, "--root", root, "bundle", "create", file, name];
        crate::common::output("unshare", &args)
    };
    let out = run(&squash, "squash");
    let stderr = String::from_utf8_lossy(&out.stderr);
    let text = "error: no loop device for the file: open(/dev/loop-control): No such file or directory";
    assert!(out.status.code() == Some(7) && stderr.contains(text), "{stderr}");
    let out = run(&erofs, "erofs");
    assert!(out.status.success(), "{}", describe("shipimg", &[""], &out));
    store.ok(&["bundle", "delete", "erofs"]);
}

/// Bytes that are free at `path` once all is written.
fn free(path: &Path) -> u64 {
    ok("sync", &["-f", path.to_str().unwrap()]);
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bfree * stat.f_frsize
}

#[test]
fn copies_share_blocks_and_keep_holes() {
    for (mkfs, size) in [("mkfs.btrfs", 256), ("mkfs.xfs", 320)] {
        let ground = Ground::with(mkfs, size);
        let store = Store::open(&ground.path().join("store")).unwrap();
        let dir = ground.path().join("dir");
        fs::create_dir(&dir).unwrap();
        let noise: Vec<u8> =
            (0..32u32 << 18).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        fs::write(dir.join("full"), &noise).unwrap();
        let sparse = fs::File::create(dir.join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (1 << 30) - 3).unwrap();
        let before = free(&dir);
        let bundle = ground.path().join("bundle");
        let rootfs = create(&store, DriverKind::Copy, &Source::Directory(&dir), &bundle);
        let took = before.saturating_sub(free(&dir));
        assert!(took < 8 << 20, "{mkfs}: {took} bytes");
        assert!(fs::read(bundle.join("rootfs/full")).unwrap() == noise);
        let copy = fs::metadata(bundle.join("rootfs/sparse")).unwrap();
        assert!(copy.len() == 1 << 30 && copy.blocks() < 1024, "{mkfs}: {} blocks", copy.blocks());
        rootfs.remove(&bundle).unwrap();
    }
}

#[test]
fn btrfs_with_quotas() {
    let ground = Ground::new(true);
    let top = ground.path();
    let top = top.to_str().unwrap();
    ok("btrfs", &["quota", "enable", top]);
    let (store, image) = many(&ground.path().join("a/folder/store"), 3);
    let bundle = ground.path().join("bundle");
    let rootfs = create(&store, DriverKind::Btrfs, &Source::Image(&image), &bundle);
    let layers = store.root().join("shipimg/layers");
    let mut count = 0;
    for layer in fs::read_dir(layers).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()) {
        count += 1;
        assert_eq!(ok("btrfs", &["property", "get", layer.to_str().unwrap(), "ro"]), "ro=true\n");
    }
    assert_eq!(count, 3);
    let inner = bundle.join("rootfs/inner");
    ok("btrfs", &["subvolume", "create", inner.to_str().unwrap()]);
    fs::write(inner.join("f"), vec![1; 1 << 20]).unwrap();
    ok("btrfs", &["qgroup", "limit", "4M", bundle.join("rootfs").to_str().unwrap()]);
    let full = fs::write(bundle.join("rootfs/big"), vec![1; 8 << 20]);
    ok("sync", &["-f", top]);
    assert!(full.is_err() || fs::write(bundle.join("rootfs/more"), vec![1; 8 << 20]).is_err());
    rootfs.remove(&bundle).unwrap();
    let list = ok("btrfs", &["subvolume", "list", top]);
    assert_eq!(list.lines().count(), 3, "{list}");
}

/// Whatever is mounted below goes first.
struct Unmounted<'a>(&'a Path);

impl Drop for Unmounted<'_> {
    fn drop(&mut self) {
        shipimg::sys::mount::unmount_below(self.0).unwrap();
    }
}

#[test]
fn a_store_in_a_btrfs_image() {
    crate::common::need_root();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let _unmounted = Unmounted(dir.path());
    let (root, image) = (dir.path().join("root"), dir.path().join("store.img"));
    let run = |args: &[&str]| {
        let mut command = Command::new(crate::common::bin());
        let out = crate::common::collect(command.arg("--root").arg(&root).args(args));
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let init = ["store", "init", "--btrfs-image", image.to_str().unwrap(), "--size"];
    let with_size = |size| run(&[&init[..], &[size]].concat());
    let (code, stderr) = with_size("1M");
    assert!(code == 1 && stderr.starts_with("error: mkfs.btrfs -q "), "{stderr}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(with_size("1G"), (0, String::new()));
    assert!(mount_of(&root).unwrap().contains(" - btrfs /dev/loop"));
    let meta = fs::metadata(&image).unwrap();
    assert!(meta.len() == 1 << 30 && meta.blocks() < (100 << 20) / 512, "sparse");
    let (code, stderr) = with_size("1G");
    assert!(code == 2 && stderr.contains("not empty"), "{code} {stderr}");

    many(&root, 3);
    assert_eq!(run(&["bundle", "create", "many:3", "b"]).0, 0);
    assert_eq!(fs::metadata(root.join("shipimg/bundles/b/rootfs")).unwrap().ino(), 256);
    shipimg::sys::mount::unmount(&root).unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "the record alone");
    std::thread::scope(|s| {
        let again = [(); 3].map(|()| s.spawn(|| run(&["images"])));
        assert!(again.into_iter().all(|t| t.join().unwrap().0 == 0));
    });
    assert_many(&root.join("shipimg/bundles/b/rootfs"), 3);

    // Unmounted while it is in use, it lives on, and nothing of it may be written back yet.
    fs::write(root.join("shipimg/bundles/b/rootfs/new"), "new").unwrap();
    let used = fs::File::open(root.join("oci-layout")).unwrap();
    shipimg::sys::mount::unmount(&root).unwrap();
    assert_eq!(run(&["images"]).0, 0);
    assert_eq!(fs::metadata(root.join("oci-layout")).unwrap().dev(), used.metadata().unwrap().dev());
    assert_eq!(fs::read(root.join("shipimg/bundles/b/rootfs/new")).unwrap(), b"new");
    drop(used);

    assert_eq!(run(&["bundle", "delete", "b"]).0, 0);
    shipimg::sys::mount::unmount(&root).unwrap();
    assert!(mount_of(&root).is_none(), "mounted once");

    fs::remove_file(&image).unwrap();
    let (code, stderr) = run(&["images"]);
    assert!(code == 10 && stderr.contains("store.img"), "{stderr}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "no store is begun below");
}

/// As in a container of another tool: an overlay takes no whiteouts and is no upper directory.
#[test]
fn a_store_in_an_overlay() {
    crate::common::need_root();
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let _unmounted = Unmounted(dir.path());
    let path = |name: &str| dir.path().join(name);
    for name in ["lower", "upper", "work", "ground"] {
        fs::create_dir(path(name)).unwrap();
    }
    let (lower, upper, work) = (path("lower"), path("upper"), path("work"));
    let overlay =
        shipimg::sys::overlay::Overlay { lowers: &[lower], upper: Some((&upper, &work)), volatile: false };
    overlay.mount(&path("ground")).unwrap();
    let (store, image) = many(&path("ground/store"), 12);
    let source = Source::Image(&image);
    let (driver, why) = choose(&store, &source).unwrap();
    assert!(driver == DriverKind::Copy && why.contains("no overlay can be mounted"), "{driver} {why}");
    create(&store, driver, &source, &path("ground/bundle"));
    assert_many(&path("ground/bundle/rootfs"), 12);
}

#[test]
fn a_new_store_needs_an_empty_folder() {
    let store = TestStore::new();
    store.ok(&["store", "init"]);
    store.ok(&["images"]);
    let stderr = store.fails(2, &["store", "init"]);
    assert!(stderr.contains("make a store in ") && stderr.contains("not empty"), "{stderr}");
}

/// The layer is the same whether the image's subvolume is compared with or the image is unpacked.
#[test]
fn a_commit_compares_with_the_subvolume() {
    let ground = Ground::new(true);
    let root = ground.path().join("store");
    let tar = Tar::new().dir("./").dir("d/").dir("e/").dir("gone/").dir("turned/").file("turned/x", b"x");
    let names = ["gone/x", "d/moved", "d/linked", "d/same", "d/mode", "d/xattr", "d/short", "d/unlinked"];
    let tar = names.iter().fold(tar, |tar, name| tar.file(name, b"before"));
    Layout::new(&root).add("x:0", &[Blob::tar(&tar.finish())], &serde_json::json!({}));
    let run = |args: &[&str]| {
        let mut command = Command::new(crate::common::bin());
        command.env("SOURCE_DATE_EPOCH", "1800000000");
        let out = crate::common::collect(command.arg("--root").arg(&root).args(args));
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    run(&["bundle", "create", "x:0", "b", "--driver", "btrfs"]);
    let script = "rm -r gone turned d/unlinked; echo > turned; mv d/moved e/; ln d/linked e/link; \
        touch -r d/same time; printf behind > d/same; truncate -s 6 d/same; touch -r time d/same; rm time; \
        chmod 4755 d/mode; setfattr -n user.a -v b d/xattr; truncate -s 2 d/short; \
        mkdir -p new/deep; truncate -s 1M new/deep/holes; echo x >> new/deep/holes; ln -s x new/link";
    let rootfs = root.join("shipimg/bundles/b/rootfs");
    ok("sh", &["-c", &format!("cd {} && {script}", rootfs.display())]);
    let by_subvolume = run(&["commit", "b", "docker.io/library/y:0"]);

    let layers = root.join("shipimg/layers");
    let layer = fs::read_dir(&layers).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir()).unwrap();
    // What is compared with is the subvolume: what is only in it, the layer deletes.
    ok("btrfs", &["property", "set", layer.to_str().unwrap(), "ro", "false"]);
    fs::write(layer.join("only-here"), "").unwrap();
    assert_ne!(run(&["commit", "b", "docker.io/library/y:0"]), by_subvolume);
    ok("btrfs", &["subvolume", "delete", layer.to_str().unwrap()]);
    assert_eq!(run(&["commit", "b", "docker.io/library/y:0"]), by_subvolume, "unpacked");
    run(&["bundle", "delete", "b"]);
}
