//! The same tests over every driver of root filesystems, on the real kernel.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::{need_root, ok};
use shipimg::oci::{Image, Platform};
use shipimg::rootfs::{Access, DriverKind, Error, Rootfs, Source, choose};
use shipimg::store::Store;
use shipimg::sys::mount;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A folder for a store and bundles; on a btrfs of its own where wanted.
pub struct Ground {
    dir: tempfile::TempDir,
    btrfs: bool,
}

impl Ground {
    pub fn new(btrfs: bool) -> Self {
        if btrfs {
            return Self::with("mkfs.btrfs", 256);
        }
        need_root();
        // Where every user gets to.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let ground = Self { dir, btrfs };
        fs::create_dir(ground.path()).unwrap();
        ground
    }

    /// On a filesystem of its own, of `size` MiB.
    pub fn with(mkfs: &str, size: u64) -> Self {
        let mut ground = Self::new(false);
        ground.btrfs = mkfs == "mkfs.btrfs";
        let image = ground.dir.path().join("fs.img");
        fs::File::create(&image).unwrap().set_len(size << 20).unwrap();
        let (image, path) = (image.to_str().unwrap(), ground.path());
        ok(mkfs, &["-q", image]);
        ok("mount", &["-o", "loop", image, path.to_str().unwrap()]);
        ground
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("ground")
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        mount::unmount_below(&self.path()).unwrap();
    }
}

/// A store with an image, and a source for the driver.
struct Fixture {
    driver: DriverKind,
    store: Store,
    image: Image,
    file: PathBuf,
    ground: Ground,
}

fn layers() -> [Vec<u8>; 2] {
    let lower = Tar::new()
        .dir("./")
        .dir("etc/")
        .file("etc/a", b"a")
        .file("etc/b", b"b")
        .dir("d/")
        .file("d/x", b"x")
        .file("was-file", b"f")
        .dir("was-dir/")
        .file("was-dir/inner", b"i")
        .dir("usr/")
        .dir("usr/lib/")
        .symlink("lib", "usr/lib")
        .entry(tar::EntryType::Regular, "suid", 0o4755, "", b"s")
        .entry(tar::EntryType::Fifo, "fifo", 0o600, "", b"")
        .finish();
    let upper = Tar::new()
        .file("etc/.wh.b", b"")
        .file("d/z", b"z")
        .file("d/.wh..wh..opq", b"")
        .file("lib/new", b"through the link")
        .link("etc/a2", "/etc/a")
        .dir("was-file/")
        .file("was-file/now", b"n")
        .file("was-dir", b"file now")
        .finish();
    [lower, upper]
}

impl Fixture {
    fn new(driver: DriverKind) -> Self {
        let ground = Ground::new(driver == DriverKind::Btrfs);
        let root = ground.path().join("store");
        let [lower, upper] = layers();
        Layout::new(&root).add("test:1", &[Blob::gzip(&lower), Blob::zstd(&upper)], &serde_json::json!({}));
        let store = Store::open(&root).unwrap();
        let entry = store.find(&"test:1".parse().unwrap()).unwrap();
        let image = store.image(&entry.descriptor, &Platform::host()).unwrap();
        let file = ground.path().join("root.img");
        let fixture = Self { driver, store, image, file, ground };
        if driver == DriverKind::Image {
            let tree = fixture.ground.path().join("tree");
            shipimg::layer::unpack(
                &fixture.store,
                &fixture.image,
                &tree,
                &shipimg::layer::Options::default(),
            )
            .unwrap();
            let (tree, file) = (tree.to_str().unwrap(), fixture.file.to_str().unwrap());
            ok("mke2fs", &["-q", "-t", "ext4", "-d", tree, file, "16M"]);
        }
        fixture
    }

    fn source(&self) -> Source<'_> {
        if self.driver == DriverKind::Image { Source::File(&self.file) } else { Source::Image(&self.image) }
    }

    fn create(&self, name: &str) -> (Rootfs, PathBuf) {
        let bundle = self.ground.path().join(name);
        fs::create_dir(&bundle).unwrap();
        let rootfs = Rootfs::create(&self.store, self.driver, &self.source(), &bundle).unwrap();
        (rootfs, bundle)
    }

    /// A hash over all that bundles share: it must never change.
    fn shared(&self) -> String {
        let path = self.store.area(shipimg::store::Area::Layers).unwrap();
        let tree = ok("find", &[path.to_str().unwrap(), "-printf", "%P %y %m %U:%G %s %T@ %l\\n"]);
        let mut lines: Vec<&str> =
            tree.lines().filter(|l| !l.starts_with("lock ") && !l.starts_with(' ')).collect();
        lines.sort_unstable();
        let image = fs::read(&self.file).unwrap_or_default();
        format!("{}\n{}", lines.join("\n"), crate::common::layout::sha256(&image))
    }
}

fn mounts_below(path: &Path) -> Vec<String> {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = |l: &&str| {
        l.split(' ').nth(4).is_some_and(|p| Path::new(p) != path && Path::new(p).starts_with(path))
    };
    all.lines().filter(below).map(str::to_string).collect()
}

fn contents(f: &Fixture) {
    let (rootfs, bundle) = f.create("one");
    let root = bundle.join("rootfs");
    let read = |p: &str| fs::read_to_string(root.join(p)).unwrap_or_else(|e| panic!("{p}: {e}"));
    assert_eq!((read("etc/a"), read("etc/a2"), read("d/z")), ("a".into(), "a".into(), "z".into()));
    assert_eq!(
        (read("usr/lib/new"), read("lib/new")),
        ("through the link".into(), "through the link".into())
    );
    assert_eq!((read("was-file/now"), read("was-dir")), ("n".into(), "file now".into()));
    let names = |p: &str| {
        let mut names: Vec<_> = fs::read_dir(root.join(p))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|n| n != "lost+found");
        names.sort();
        names
    };
    assert_eq!(names("etc"), ["a", "a2"]);
    assert_eq!(names("d"), ["z"]);
    assert_eq!(names("."), ["d", "etc", "fifo", "lib", "suid", "usr", "was-dir", "was-file"]);
    let meta = |p: &str| fs::symlink_metadata(root.join(p)).unwrap();
    assert_eq!(meta("suid").mode() & 0o7777, 0o4755);
    assert!(meta("fifo").file_type().is_fifo() && meta("lib").is_symlink());
    for path in ["etc", "d", "usr/lib", "."] {
        // mke2fs gives the root of its image the time at which it made it.
        if path != "." || f.driver != DriverKind::Image {
            assert_eq!((meta(path).mode() & 0o7777, meta(path).mtime()), (0o755, 1_700_000_000), "{path}");
        }
    }
    rootfs.remove(&bundle).unwrap();
}

fn second_is_fresh_and_lower_unchanged(f: &Fixture) {
    let (one, first) = f.create("one");
    let before = f.shared();
    fs::write(first.join("rootfs/etc/a"), "changed").unwrap();
    fs::remove_file(first.join("rootfs/suid")).unwrap();
    fs::remove_dir_all(first.join("rootfs/d")).unwrap();
    fs::set_permissions(first.join("rootfs/usr"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(first.join("rootfs/new"), "new").unwrap();
    let (two, second) = f.create("two");
    assert_eq!(fs::read_to_string(second.join("rootfs/etc/a")).unwrap(), "a");
    assert_eq!(fs::metadata(second.join("rootfs/usr")).unwrap().mode() & 0o777, 0o755);
    assert!(second.join("rootfs/suid").exists() && second.join("rootfs/d/z").exists());
    assert!(!second.join("rootfs/new").exists());
    assert_eq!(fs::read_to_string(first.join("rootfs/etc/a")).unwrap(), "changed");
    assert_eq!(f.shared(), before);
    one.remove(&first).unwrap();
    two.remove(&second).unwrap();
    assert_eq!(f.shared(), before);
}

fn mounts_again(f: &Fixture) {
    let (rootfs, bundle) = f.create("one");
    fs::write(bundle.join("rootfs/new"), "kept").unwrap();
    let record = serde_json::to_string(&rootfs).unwrap();
    mount::unmount_below(&bundle).unwrap();
    let again: Rootfs = serde_json::from_str(&record).unwrap();
    assert_eq!(again, rootfs);
    again.mount(&bundle, Access::Write).unwrap();
    again.mount(&bundle, Access::Read).unwrap();
    assert_eq!(fs::read_to_string(bundle.join("rootfs/new")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(bundle.join("rootfs/etc/a")).unwrap(), "a");
    again.remove(&bundle).unwrap();
}

fn removal_leaves_nothing(f: &Fixture) {
    let (rootfs, bundle) = f.create("one");
    fs::write(bundle.join("config.json"), "{}").unwrap();
    fs::create_dir_all(bundle.join("rootfs/deep/er")).unwrap();
    symlink("/", bundle.join("rootfs/deep/root")).unwrap();
    rootfs.remove(&bundle).unwrap();
    rootfs.remove(&bundle).unwrap();
    let left: Vec<_> = fs::read_dir(&bundle).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["config.json"]);
    assert_eq!(mounts_below(&f.ground.path()), Vec::<String>::new());
    let loops = ok("losetup", &["-j", f.file.to_str().unwrap()]);
    assert_eq!(loops, "");
    if f.ground.btrfs {
        let list = ok("btrfs", &["subvolume", "list", f.ground.path().to_str().unwrap()]);
        assert_eq!(list.lines().filter(|l| !l.contains("shipimg/layers/btrfs-")).count(), 0, "{list}");
    }
}

macro_rules! over_all_drivers {
    ($($name:ident => $kind:ident),* $(,)?) => {$(
        mod $name {
            use super::{DriverKind, Fixture};
            #[test]
            fn contents() { super::contents(&Fixture::new(DriverKind::$kind)); }
            #[test]
            fn second_is_fresh_and_lower_unchanged() {
                super::second_is_fresh_and_lower_unchanged(&Fixture::new(DriverKind::$kind));
            }
            #[test]
            fn mounts_again() { super::mounts_again(&Fixture::new(DriverKind::$kind)); }
            #[test]
            fn removal_leaves_nothing() { super::removal_leaves_nothing(&Fixture::new(DriverKind::$kind)); }
        }
    )*};
}

over_all_drivers! { copy => Copy, overlay => Overlay, btrfs => Btrfs, image => Image }

#[test]
fn explicit_driver_never_falls_back() {
    let f = Fixture::new(DriverKind::Copy);
    let bundle = f.ground.path().join("b");
    fs::create_dir(&bundle).unwrap();
    let create = |driver, source: &Source| Rootfs::create(&f.store, driver, source, &bundle).unwrap_err();
    let e = create(DriverKind::Btrfs, &f.source());
    assert!(matches!(e, Error::Unsupported { .. }) && e.to_string().ends_with("is not on btrfs"), "{e}");
    assert_eq!(e.kind().exit_code(), 7);
    fs::write(&f.file, "text").unwrap();
    let e = create(DriverKind::Image, &Source::File(&f.file)).to_string();
    assert_eq!(
        e,
        format!("{} is not a filesystem image: no ext4, squashfs, erofs or btrfs in it", f.file.display())
    );
    let e = create(DriverKind::Image, &f.source()).to_string();
    assert_eq!(e, "the image driver cannot start from an image of the store");
    assert_eq!(fs::read_dir(&bundle).unwrap().count(), 0);
    fs::create_dir(bundle.join("rootfs")).unwrap();
    fs::write(bundle.join("rootfs/mine"), "").unwrap();
    create(DriverKind::Copy, &f.source());
    assert!(bundle.join("rootfs/mine").exists(), "what was there stays");
}

#[test]
fn auto_says_why() {
    let f = Fixture::new(DriverKind::Btrfs);
    let (driver, why) = choose(&f.store, &f.source()).unwrap();
    assert_eq!(driver, DriverKind::Btrfs);
    assert!(why.ends_with("is on btrfs"), "{why}");
    let (driver, _) = choose(&f.store, &Source::File(&f.file)).unwrap();
    assert_eq!(driver, DriverKind::Image);
    let f = Fixture::new(DriverKind::Copy);
    let (driver, why) = choose(&f.store, &f.source()).unwrap();
    assert_eq!((driver, why.as_str()), (DriverKind::Overlay, "overlays can be mounted"));
}

#[test]
fn squashfs_and_erofs_images() {
    let f = Fixture::new(DriverKind::Image);
    let tree = f.ground.path().join("tree");
    let tree = tree.to_str().unwrap();
    for tool in ["mksquashfs", "mkfs.erofs"] {
        let file = f.ground.path().join(tool);
        let path = file.to_str().unwrap();
        let args =
            if tool == "mksquashfs" { vec![tree, path, "-quiet", "-no-progress"] } else { vec![path, tree] };
        ok(tool, &args);
        for driver in [DriverKind::Image, DriverKind::Copy] {
            let bundle = f.ground.path().join(format!("{tool}-{driver}"));
            fs::create_dir(&bundle).unwrap();
            let rootfs = Rootfs::create(&f.store, driver, &Source::File(&file), &bundle).unwrap();
            assert_eq!(fs::read_to_string(bundle.join("rootfs/d/z")).unwrap(), "z");
            rootfs.remove(&bundle).unwrap();
        }
    }
}

#[test]
fn directories_as_source() {
    for driver in [DriverKind::Copy, DriverKind::Overlay, DriverKind::Btrfs] {
        let f = Fixture::new(driver);
        let dir = f.ground.path().join("dir");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("a"), "a").unwrap();
        fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
        let bundle = f.ground.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        let rootfs = Rootfs::create(&f.store, driver, &Source::Directory(&dir), &bundle).unwrap();
        fs::write(bundle.join("rootfs/a"), "changed").unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "a");
        assert_eq!(fs::metadata(bundle.join("rootfs")).unwrap().mode() & 0o7777, 0o1777);
        if driver != DriverKind::Overlay {
            assert_eq!(fs::read_to_string(bundle.join("rootfs/b")).unwrap(), "changed");
        }
        rootfs.remove(&bundle).unwrap();
    }
}

#[test]
fn image_without_layers() {
    for driver in [DriverKind::Copy, DriverKind::Overlay, DriverKind::Btrfs] {
        let f = Fixture::new(driver);
        let image = Image { layers: Vec::new(), ..f.image.clone() };
        let bundle = f.ground.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        let rootfs = Rootfs::create(&f.store, driver, &Source::Image(&image), &bundle).unwrap();
        assert_eq!(fs::read_dir(bundle.join("rootfs")).unwrap().count(), 0);
        assert_eq!(fs::metadata(bundle.join("rootfs")).unwrap().mode() & 0o7777, 0o755);
        rootfs.remove(&bundle).unwrap();
    }
}

/// Two bundles at once from a cold store: each layer is extracted once.
#[test]
fn extracted_once_by_two_at_once() {
    let f = Fixture::new(DriverKind::Overlay);
    std::thread::scope(|s| {
        for name in ["one", "two", "three"] {
            let f = &f;
            s.spawn(move || {
                let (rootfs, bundle) = f.create(name);
                assert_eq!(fs::read_to_string(bundle.join("rootfs/etc/a")).unwrap(), "a");
                rootfs.remove(&bundle).unwrap();
            });
        }
    });
    let names: Vec<_> = fs::read_dir(f.store.root().join("shipimg/layers"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n != "lock")
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}
