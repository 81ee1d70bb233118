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

#[test]
fn refused_by_every_driver() {
    need_root();
    let link = || Tar::new().symlink("link", "../../../../../canary");
    let lower = || gzip(Tar::new().dir("d/").file("d/low", b"low"));
    let cases: Vec<(Vec<Blob>, &str)> = vec![
        (vec![gzip(Tar::new().file("../../canary/new", b"x"))], "name with a .. component"),
        (vec![gzip(Tar::new().file("/etc/new", b"x"))], "absolute name"),
        (vec![gzip(Tar::new().symlink("./", "/etc"))], "the root has to be a directory"),
        (vec![gzip(link().file("link/new", b"x"))], "/link is not a directory"),
        (vec![lower(), gzip(link().file("link/.wh.file", b""))], "/link is not a directory"),
        (vec![gzip(Tar::new().link("l", "/etc/passwd"))], "hard link to /etc/passwd, which does not exist"),
        (vec![lower(), gzip(Tar::new().link("l", "../canary/file"))], "name with a .. component"),
        (vec![lower(), gzip(Tar::new().link("l", "nothing"))], "hard link to /nothing"),
        (vec![lower(), gzip(Tar::new().link("l", "d"))], "hard link to the directory /d"),
        (vec![lower(), gzip(Tar::new().file(".wh..", b""))], "whiteout of no file"),
        (vec![lower(), gzip(Tar::new().entry(T::Char, "w", 0o600, "", b""))], "means a whiteout"),
        (
            vec![lower(), gzip(Tar::new().pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")]).dir("d/"))],
            "attribute trusted.overlay.opaque is overlayfs' own",
        ),
        (vec![gzip(Tar::new().pax(&[("size", b"0")]).file("a", &[b'x'; 512]))], "PAX size 0 contradicts"),
        (vec![Blob { diff_id: sha256(b"other"), ..lower() }], "its tar has digest sha256:"),
        (vec![lower(), Blob { diff_id: sha256(b"other"), ..lower() }], "its tar has digest sha256:"),
    ];
    for (of_user, (driver, btrfs)) in [false, true].into_iter().flat_map(|u| DRIVERS.map(|d| (u, d))) {
        let case = Case { of_user, ..Case::new(btrfs) };
        for (i, (layers, text)) in cases.iter().enumerate() {
            // Layers that are fine would be published first, and rightly: only lowest ones are
            // looked at for that.
            let name = format!("case{i}:x");
            case.add(&name, layers);
            if layers.len() == 1 || driver == "copy" {
                case.refused(&name, driver, text);
                continue;
            }
            let out = case.create(&name, driver);
            let shown = describe("shipimg", &[&name, driver], &out);
            assert_eq!(out.status.code(), Some(9), "{shown}");
            assert!(String::from_utf8_lossy(&out.stderr).contains(text), "wanted {text:?}: {shown}");
            assert!(!case.store().join("shipimg/bundles/b").exists());
            let layers = case.store().join("shipimg/layers");
            let published: Vec<_> = fs::read_dir(&layers)
                .into_iter()
                .flatten()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .filter(|n| n != "lock")
                .collect();
            // The lower one, alike in all cases, at most.
            assert!(published.len() <= 1, "{published:?}");
            let _ = shipimg::sys::dir::remove(&layers);
        }
    }
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

#[test]
fn a_disk_that_is_full_or_read_only() {
    need_root();
    let ground = Ground::new(false);
    let store = ground.path();
    ok("mount", &["-t", "tmpfs", "-o", "size=8m", "tmpfs", store.to_str().unwrap()]);
    Layout::new(&store).add("large:x", &[large(5 << 20)], &serde_json::json!({}));
    for driver in ["copy", "overlay"] {
        let out = create(&store, "large:x", driver);
        let shown = describe("shipimg", &[driver], &out);
        assert_eq!(out.status.code(), Some(1), "{shown}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("No space left on device"), "{shown}");
        nothing_published(&store);
    }
    // No inodes.
    ok("mount", &["-o", "remount,size=64m,nr_inodes=40", store.to_str().unwrap()]);
    let many = (0..100).fold(Tar::new(), |t, i| t.file(&format!("f{i}"), b""));
    Layout::at(&store).add("many:x", &[gzip(many)], &serde_json::json!({}));
    let out = create(&store, "many:x", "overlay");
    assert_eq!(out.status.code(), Some(1), "{}", describe("shipimg", &["many"], &out));
    nothing_published(&store);

    ok("mount", &["-o", "remount,ro", store.to_str().unwrap()]);
    let read = |args: &[&str]| collect(Command::new(bin()).arg("--root").arg(&store).args(args));
    for args in [&["images"][..], &["inspect", "many:x"]] {
        let out = read(args);
        assert!(out.status.success(), "{}", describe("shipimg", args, &out));
    }
    let target = ground.path().with_file_name("unpacked");
    let out = read(&["unpack", "many:x", target.to_str().unwrap()]);
    assert!(out.status.success(), "{}", describe("shipimg", &["unpack"], &out));
    for driver in ["copy", "overlay"] {
        let out = create(&store, "many:x", driver);
        assert_eq!(out.status.code(), Some(8), "{}", describe("shipimg", &[driver], &out));
        assert!(String::from_utf8_lossy(&out.stderr).contains("Read-only file system"));
    }
}
