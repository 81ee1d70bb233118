//! Hostile layers by way of every driver that extracts them, and into stores that cannot take
//! them: nothing outside, nothing published, nothing left.

use crate::common::layout::{Blob, Layout, Tar, sha256};
use crate::common::user::{give_to_stranger, stranger};
use crate::common::{bin, collect, describe, need_root, ok};
use crate::rootfs::Ground;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tar::EntryType as T;

/// The drivers, and whether each needs a btrfs below it.
const DRIVERS: [(&str, bool); 3] = [("copy", false), ("overlay", false), ("btrfs", true)];

/// A store on a filesystem of its own choice, beside a file that must not change.
struct Case {
    ground: Ground,
    /// Whether an ordinary user's commands work on it.
    of_user: bool,
}

impl Case {
    fn new(btrfs: bool) -> Self {
        let case = Self { ground: Ground::new(btrfs), of_user: false };
        Layout::new(&case.store());
        fs::create_dir(case.ground.path().join("canary")).unwrap();
        fs::write(case.ground.path().join("canary/file"), "alive").unwrap();
        case
    }

    fn store(&self) -> PathBuf {
        self.ground.path().join("store")
    }

    fn add(&self, name: &str, layers: &[Blob]) {
        Layout::at(&self.store()).add(name, layers, &serde_json::json!({}));
    }

    fn create(&self, image: &str, driver: &str) -> Output {
        if !self.of_user {
            return create(&self.store(), image, driver);
        }
        give_to_stranger(&self.ground.path());
        create_by(stranger(), &self.store(), image, driver)
    }

    fn refused(&self, image: &str, driver: &str, text: &str) {
        let out = self.create(image, driver);
        let shown = describe("shipimg", &["bundle", "create", image, driver], &out);
        assert_eq!(out.status.code(), Some(9), "{shown}");
        assert!(String::from_utf8_lossy(&out.stderr).contains(text), "wanted {text:?}: {shown}");
        assert_eq!(fs::read_to_string(self.ground.path().join("canary/file")).unwrap(), "alive");
        assert_eq!(fs::read_dir(self.ground.path().join("canary")).unwrap().count(), 1);
        nothing_published(&self.store());
    }
}

fn create(store: &Path, image: &str, driver: &str) -> Output {
    create_by(Command::new(bin()), store, image, driver)
}

fn create_by(mut command: Command, store: &Path, image: &str, driver: &str) -> Output {
    let args = ["bundle", "create", image, "b", "--driver", driver];
    collect(command.arg("--root").arg(store).args(args).current_dir("/"))
}

fn nothing_published(store: &Path) {
    for area in ["tmp", "bundles", "layers"] {
        let left: Vec<_> = fs::read_dir(store.join("shipimg").join(area))
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().file_name())
            .filter(|n| n != "lock")
            .collect();
        assert!(left.is_empty(), "{area}: {left:?}");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = format!("{}/", store.display());
    assert!(!mounts.contains(&below), "{mounts}");
}

fn gzip(tar: Tar) -> Blob {
    Blob::gzip(&tar.finish())
}

/// Links of a lower layer: the same tree from every driver, nothing through them.
#[test]
fn links_of_a_lower_layer_stay_inside() {
    need_root();
    for (driver, btrfs) in DRIVERS {
        let case = Case::new(btrfs);
        let lower = Tar::new().symlink("out", "../../../../../canary").dir("usr/").symlink("in", "/usr");
        let upper = Tar::new().file("out/file", b"inside").file("in/new", b"new");
        case.add("links:x", &[gzip(lower), gzip(upper)]);
        let out = case.create("links:x", driver);
        assert!(out.status.success(), "{}", describe("shipimg", &[driver], &out));
        let rootfs = case.store().join("shipimg/bundles/b/rootfs");
        assert_eq!(fs::read(rootfs.join("out/file")).unwrap(), b"inside", "{driver}");
        assert_eq!(fs::read(rootfs.join("usr/new")).unwrap(), b"new", "{driver}");
        assert_eq!(fs::read_to_string(case.ground.path().join("canary/file")).unwrap(), "alive");
        assert!(!Path::new("/usr/new").exists());
        ok(bin(), &["--root", case.store().to_str().unwrap(), "bundle", "delete", "b"]);
    }
}

/// An opaque marker in the root hides all of the layers below, also from a layer that is settled
/// against them, and the root keeps its metadata.
#[test]
fn a_layer_that_hides_all_below() {
    need_root();
    for (driver, btrfs) in DRIVERS {
        let case = Case::new(btrfs);
        let lower =
            || gzip(Tar::new().entry(T::Directory, "./", 0o711, "", b"").dir("d/").file("d/low", b""));
        let hides = gzip(Tar::new().file(".wh..wh..opq", b"").file("only", b"o"));
        case.add("opaque:x", &[lower(), hides, gzip(Tar::new().link("again", "only").file("d/new", b""))]);
        let out = case.create("opaque:x", driver);
        assert!(out.status.success(), "{}", describe("shipimg", &[driver], &out));
        let rootfs = case.store().join("shipimg/bundles/b/rootfs");
        let names = |dir: PathBuf| {
            let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(rootfs.clone()), ["again", "d", "only"], "{driver}");
        assert_eq!(names(rootfs.join("d")), ["new"], "{driver}");
        assert_eq!(fs::metadata(&rootfs).unwrap().mode() & 0o7777, 0o711, "{driver}");
        ok(bin(), &["--root", case.store().to_str().unwrap(), "bundle", "delete", "b"]);
        // A link to what is hidden leads to nothing.
        let hides = gzip(Tar::new().file(".wh..wh..opq", b"").file("only", b"o"));
        case.add("hidden:x", &[lower(), hides, gzip(Tar::new().link("l", "d/low"))]);
        let out = case.create("hidden:x", driver);
        let shown = describe("shipimg", &[driver], &out);
        assert_eq!(out.status.code(), Some(9), "{shown}");
        assert!(shown.contains("hard link to /d/low, which does not exist"), "{shown}");
    }
}

/// Zeros that compress a thousandfold: after the archive's end, and as a file; the default limits.
#[test]
fn bombs_meet_the_default_limits() {
    need_root();
    let case = Case::new(false);
    let zeros = vec![0; 64 << 20];
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(100 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    for (name, first) in [("padding:x", &[0; 1024][..]), ("file:x", header.as_bytes())] {
        for blob in [Blob::gzip_best, Blob::zstd] {
            let (mut all, member) = (blob(first), blob(&zeros));
            for _ in 0..40 {
                all.bytes.extend_from_slice(&member.bytes);
            }
            all.diff_id = sha256(b"");
            assert!(all.bytes.len() < 4 << 20);
            let case_name = format!("{}-{}", &all.media_type[all.media_type.len() - 4..], name);
            case.add(&case_name, &[all]);
            case.refused(&case_name, "overlay", "more than 250 inflated bytes for each compressed one");
        }
    }
}

/// A random file of `size` bytes in a layer that does not compress.
fn large(size: usize) -> Blob {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let data: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(size)
    .collect();
    Blob::gzip(&Tar::new().file("large", &data).finish())
}

impl Case {
    /// On a filesystem of this size, which the store fills; options as for tmpfs.
    fn on_tmpfs(of_user: bool, options: &str) -> Self {
        let case = Self { of_user, ..Self::new(false) };
        ok("mount", &["-t", "tmpfs", "-o", options, "tmpfs", case.store().to_str().unwrap()]);
        Layout::new(&case.store());
        case
    }

    /// It must fail with this exit code and text, and leave nothing.
    fn fails(&self, image: &str, driver: &str, code: i32, text: &str) {
        let out = self.create(image, driver);
        let shown = describe("shipimg", &[if self.of_user { "user" } else { "root" }, driver], &out);
        assert_eq!(out.status.code(), Some(code), "{shown}");
        assert!(String::from_utf8_lossy(&out.stderr).contains(text), "wanted {text:?}: {shown}");
        nothing_published(&self.store());
    }

    fn works(&self, image: &str, driver: &str) {
        let out = self.create(image, driver);
        assert!(out.status.success(), "{}", describe("shipimg", &[driver], &out));
    }
}

/// The drivers, by root and by an ordinary user.
fn by_all() -> impl Iterator<Item = (bool, &'static str, bool)> {
    [false, true].into_iter().flat_map(|of_user| DRIVERS.map(|(driver, btrfs)| (of_user, driver, btrfs)))
}

#[test]
fn a_disk_that_is_full() {
    need_root();
    let blob = || large(6 << 20);
    for (of_user, driver, btrfs) in by_all() {
        let full = "No space left on device";
        if !btrfs {
            let case = Case::on_tmpfs(of_user, "size=8m");
            case.add("large:x", &[blob()]);
            case.fails("large:x", driver, 1, full);
            ok("mount", &["-o", "remount,size=32m", case.store().to_str().unwrap()]);
            case.works("large:x", driver);
            continue;
        }
        let case = Case { of_user, ..Case::new(true) };
        case.add("large:x", &[blob()]);
        let filler = case.ground.path().join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &vec![1; 1 << 20]).is_ok() {}
        file.sync_all().unwrap();
        case.fails("large:x", driver, 1, full);
    }
}

/// btrfs has no number of inodes that could be used up.
#[test]
fn no_inodes_left() {
    need_root();
    for (of_user, driver, _) in by_all().filter(|(_, _, btrfs)| !btrfs) {
        let case = Case::on_tmpfs(of_user, "size=8m,nr_inodes=60");
        case.add("many:x", &[gzip((0..100).fold(Tar::new(), |t, i| t.file(&format!("f{i}"), b"")))]);
        case.fails("many:x", driver, 1, "No space left on device");
        ok("mount", &["-o", "remount,nr_inodes=1000", case.store().to_str().unwrap()]);
        case.works("many:x", driver);
    }
}

#[test]
fn a_store_that_may_only_be_read() {
    need_root();
    for (of_user, driver, btrfs) in by_all() {
        let case =
            if btrfs { Case { of_user, ..Case::new(true) } } else { Case::on_tmpfs(of_user, "size=8m") };
        case.add("few:x", &[gzip(Tar::new().file("a", b"a"))]);
        if of_user {
            give_to_stranger(&case.ground.path());
        }
        let mounted = if btrfs { case.ground.path() } else { case.store() };
        ok("mount", &["-o", "remount,ro", mounted.to_str().unwrap()]);
        let command = || if of_user { stranger() } else { Command::new(bin()) };
        let target = tempfile::tempdir_in("/var/tmp").unwrap();
        give_to_stranger(target.path());
        let out = target.path().join("out");
        for args in [&["images"][..], &["inspect", "few:x"], &["unpack", "few:x", out.to_str().unwrap()]] {
            let out = collect(command().arg("--root").arg(case.store()).args(args).current_dir("/"));
            assert!(out.status.success(), "{}", describe("shipimg", args, &out));
        }
        assert_eq!(fs::read(out.join("rootfs/a")).unwrap(), b"a");
        let out = create_by(command(), &case.store(), "few:x", driver);
        let shown = describe("shipimg", &[driver], &out);
        assert_eq!(out.status.code(), Some(8), "{shown}");
        assert!(shown.contains("Read-only file system"), "{shown}");
        nothing_published(&case.store());
    }
}

/// A store of somebody else's, by an ordinary user.
#[test]
fn a_store_without_permission() {
    need_root();
    for (driver, btrfs) in DRIVERS {
        let case = Case::new(btrfs);
        case.add("few:x", &[gzip(Tar::new().file("a", b"a"))]);
        let out = create_by(stranger(), &case.store(), "few:x", driver);
        let shown = describe("shipimg", &[driver], &out);
        assert_eq!(out.status.code(), Some(8), "{shown}");
        assert!(shown.contains("Permission denied"), "{shown}");
        nothing_published(&case.store());
    }
}
