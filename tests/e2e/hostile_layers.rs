//! Layers that want out, lie about their framing, or blow up: each a clear error, nothing
//! outside the target, nothing half-made; and odd ones that real images have, which work.

use crate::common::layout::{Blob, Layout, Tar, sha256};
use crate::common::user::{give_to_stranger, stranger};
use crate::common::{describe, need_root};
use shipimg::layer::{Limits, Options, unpack};
use shipimg::oci::Platform;
use shipimg::store::Store;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Output;
use tar::EntryType as T;

/// A store with one image, a folder to unpack in, and files beside it that must not change.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new(layers: &[Blob]) -> Self {
        need_root();
        // Where every user gets to.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let case = Self { dir };
        Layout::new(&case.path("store")).add("test:1", layers, &serde_json::json!({}));
        fs::create_dir_all(case.path("ground/canary")).unwrap();
        fs::write(case.path("ground/canary/file"), "alive").unwrap();
        case
    }

    fn tars(tars: &[Vec<u8>]) -> Self {
        Self::new(&tars.iter().map(|t| Blob::gzip(t)).collect::<Vec<_>>())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn unpack(&self) -> Output {
        self.unpack_by(std::process::Command::new(crate::common::bin()))
    }

    fn unpack_by(&self, mut command: std::process::Command) -> Output {
        // The working directory is no root for anything.
        command.current_dir(self.path("ground/canary")).arg("--root").arg(self.path("store"));
        command.args(["unpack", "test:1"]).arg(self.path("ground/out")).output().unwrap()
    }

    /// As an ordinary user with one id.
    fn unpack_by_user(&self) -> Output {
        give_to_stranger(self.dir.path());
        self.unpack_by(stranger())
    }

    /// Nothing outside the target has changed, and beside it is nothing new.
    fn check_outside(&self, unpacked: bool) {
        let canary = self.path("ground/canary");
        assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "alive");
        let meta = fs::metadata(canary.join("file")).unwrap();
        assert_eq!((meta.nlink(), meta.mode() & 0o7777), (1, 0o644));
        assert_eq!(fs::read_dir(&canary).unwrap().count(), 1);
        let mut beside: Vec<_> =
            fs::read_dir(self.path("ground")).unwrap().map(|e| e.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, if unpacked { vec!["canary", "out"] } else { vec!["canary"] });
    }

    /// It must fail with integrity's exit code and this text, for root and for an ordinary user.
    fn refused(&self, text: &str) {
        for out in [self.unpack(), self.unpack_by_user()] {
            let stderr = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(9), "{text}: {}", describe("shipimg", &["unpack"], &out));
            assert!(stderr.starts_with("error: ") && stderr.contains(text), "wanted {text:?}: {stderr}");
            self.check_outside(false);
        }
    }

    /// It must work; gives the root and what was said.
    fn works(self) -> (Root, String) {
        let out = self.unpack();
        assert!(out.status.success(), "{}", describe("shipimg", &["unpack"], &out));
        self.check_outside(true);
        (Root(self), String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

/// The root filesystem of a case that worked.
struct Root(Case);

impl Root {
    fn join(&self, name: &str) -> PathBuf {
        self.0.path("ground/out/rootfs").join(name)
    }
}

fn one(tar: Tar) -> Case {
    Case::tars(&[tar.finish()])
}

fn two(lower: Tar, upper: Tar) -> Case {
    Case::tars(&[lower.finish(), upper.finish()])
}

#[test]
fn names() {
    let long = "x".repeat(256);
    let deep = "dir/".repeat(1100) + "f";
    for (name, text) in [
        ("../canary/new", "entry \"../canary/new\": name with a .. component"),
        ("a/../../canary/new", "name with a .. component"),
        ("/etc/passwd", "entry \"/etc/passwd\": absolute name"),
        (&long, "name with a component of more than 255 bytes"),
        (&deep, "name of more than 4095 bytes"),
        (".wh.", "whiteout of no file"),
        (".wh..", "whiteout of no file"),
        ("a/.wh...", "whiteout of no file"),
    ] {
        one(Tar::new().file(name, b"x")).refused(text);
    }
    one(Tar::new().pax(&[("path", b"a\0b")]).file("x", b"")).refused("name with a NUL byte");
}

#[test]
fn root_is_a_directory() {
    one(Tar::new().symlink("./", "/etc")).refused("entry /: the root has to be a directory");
    one(Tar::new().symlink("/.", "/etc")).refused("the root has to be a directory");
    one(Tar::new().file("./.", b"x")).refused("the root has to be a directory");
    one(Tar::new().link("./", "x")).refused("the root has to be a directory");
    // As umoci's and kaniko's layers call it.
    let (root, _) = one(Tar::new().entry(T::Directory, "/", 0o711, "", b"").file("a", b"x")).works();
    assert!(root.join("a").exists());
    assert_eq!(fs::metadata(root.join("")).unwrap().mode() & 0o7777, 0o711);
}

#[test]
fn writes_through_links() {
    let t = || Tar::new().symlink("link", "../../canary");
    one(t().file("link/new", b"x")).refused("entry /link/new: /link is not a directory");
    one(Tar::new().symlink("abs", "/etc").file("abs/new", b"x")).refused("/abs is not a directory");
    one(t().file("link/.wh.file", b"")).works();
    two(Tar::new().file("a", b""), t().file("link/.wh.file", b"")).refused("/link is not a directory");
    two(Tar::new().file("a", b""), t().file("link/.wh..wh..opq", b"")).refused("/link is not a directory");
    // From a lower layer: resolved with the root filesystem as root, where it leads nowhere, so
    // the directory takes the link's place.
    let (root, _) = two(t(), Tar::new().file("link/file", b"inside")).works();
    assert_eq!(fs::read_to_string(root.join("link/file")).unwrap(), "inside");
    assert!(fs::symlink_metadata(root.join("link")).unwrap().is_dir());
    // It leads somewhere within the root, and out of it by name.
    let lower = || t().dir("canary/").file("canary/file", b"lower").file("canary/other", b"");
    let (root, _) = two(lower(), Tar::new().file("link/file", b"upper").file("link/.wh.other", b"")).works();
    assert_eq!(fs::read_to_string(root.join("canary/file")).unwrap(), "upper");
    assert!(!root.join("canary/other").exists());
    two(lower(), Tar::new().file("link/.wh..wh..opq", b""))
        .refused("entry /link: opaque marker in a symbolic link");
}

/// CVE-2026-33056: the mode of the directory entry belongs to no link's target.
#[test]
fn chmod_through_a_link() {
    let dir = || Tar::new().entry(T::Directory, "link", 0o777, "", b"");
    for target in ["/usr", "../../canary"] {
        let link = || Tar::new().dir("usr/").symlink("link", target);
        let same = link().entry(T::Directory, "link", 0o777, "", b"");
        for case in [one(same), two(link(), dir())] {
            let (root, _) = case.works();
            let mode = |p: &str| fs::symlink_metadata(root.join(p)).unwrap().mode();
            assert_eq!((mode("link"), mode("usr") & 0o777), (0o040_777, 0o755));
        }
    }
}

#[test]
fn hard_links() {
    for (target, text) in [
        ("../canary/file", "name with a .. component"),
        ("../../ground/canary/file", "name with a .. component"),
        ("file", "hard link to /file, which does not exist"),
        ("link", "entry /link: hard link to itself"),
        ("dir", "hard link to the directory /dir"),
        ("/etc/passwd", "hard link to /etc/passwd, which does not exist"),
    ] {
        one(Tar::new().dir("dir/").link("link", target)).refused(text);
        two(Tar::new().file("a", b""), Tar::new().dir("dir/").link("link", target)).refused(text);
    }
    two(Tar::new().dir("d/"), Tar::new().link("link", "d")).refused("hard link to the directory /d");
    // A link to a symbolic link is one more name of the link itself, never of its target.
    let (root, _) = one(Tar::new().symlink("s", "../../canary/file").link("l", "s")).works();
    assert!(fs::symlink_metadata(root.join("l")).unwrap().is_symlink());
    // Absolute targets, targets that come later, and those of a lower layer.
    let upper = Tar::new().link("d/c", "/a").link("early", "late").file("late", b"L").dir("d/");
    let (root, _) = two(Tar::new().file("a", b"A").dir("e/").link("e/b", "/a"), upper).works();
    let inode = |p: &str| fs::metadata(root.join(p)).unwrap().ino();
    assert!(inode("a") == inode("e/b") && inode("a") == inode("d/c") && inode("early") == inode("late"));
}

#[test]
fn special_files() {
    let dev = |kind, major: u32, minor: u32| {
        let mut h = tar::Header::new_gnu();
        h.set_entry_type(kind);
        h.set_mode(0o640);
        h.set_size(0);
        h.as_old_mut().name[..3].copy_from_slice(b"dev");
        h.set_device_major(major).unwrap();
        h.set_device_minor(minor).unwrap();
        h.set_cksum();
        let mut bytes = h.as_bytes().to_vec();
        bytes.resize(512 + 1024, 0);
        bytes
    };
    Case::tars(&[dev(T::Char, 0, 0)]).refused("entry /dev: a character device 0/0 means a whiteout");
    let (root, _) = Case::tars(&[dev(T::Char, 1, 3)]).works();
    let meta = fs::symlink_metadata(root.join("dev")).unwrap();
    assert!(meta.file_type().is_char_device() && meta.rdev() == 0x103 && meta.mode() & 0o777 == 0o640);
    let (root, _) = Case::tars(&[dev(T::Block, 7, 300)]).works();
    assert!(fs::symlink_metadata(root.join("dev")).unwrap().file_type().is_block_device());
    let (root, said) = one(Tar::new().entry(T::Fifo, "fifo", 0o600, "", b"").entry(
        T::Regular,
        "socket",
        0o140_755,
        "",
        b"",
    ))
    .works();
    assert!(fs::symlink_metadata(root.join("fifo")).unwrap().file_type().is_fifo());
    assert!(!root.join("socket").exists() && said.contains("socket /socket left out"), "{said}");
}

#[test]
fn overlay_attributes() {
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.whiteout"] {
        let tar = Tar::new().pax(&[(&format!("SCHILY.xattr.{name}"), b"y")]).dir("d/");
        one(tar).refused(&format!("entry /d: attribute {name} is overlayfs' own and not taken from a layer"));
    }
}

#[test]
fn order_does_not_matter_and_the_last_wins() {
    let lower = || {
        Tar::new().dir("d/").file("d/low", b"").file("gone", b"").dir("f/").file("f/x", b"").file("g", b"")
    };
    let parts: [fn(Tar) -> Tar; 6] = [
        |t| t.file("d/.wh..wh..opq", b""),
        |t| t.file("d/new", b"n"),
        |t| t.file(".wh.gone", b""),
        |t| t.file(".wh.d", b""),
        |t| t.file("f", b"file now").file(".wh.f", b""),
        |t| t.dir("g/").file("g/x", b""),
    ];
    for turn in 0..parts.len() {
        let mut upper = Tar::new();
        for i in 0..parts.len() {
            upper = parts[(i + turn) % parts.len()](upper);
        }
        let (root, _) = two(lower(), upper).works();
        assert!(root.join("d/new").exists() && !root.join("d/low").exists(), "turn {turn}");
        assert!(!root.join("gone").exists() && root.join("g/x").exists());
        assert_eq!(fs::read(root.join("f")).unwrap(), b"file now");
    }
    let twice = Tar::new().file("a", b"1").file("a", b"2").dir("b/").file("b/x", b"").file("b", b"f");
    let twice = twice.file("c", b"f").dir("c/").file("c/x", b"").symlink("e", "a").file("e", b"e");
    let (root, _) = one(twice).works();
    assert_eq!(
        (fs::read(root.join("a")).unwrap(), fs::read(root.join("b")).unwrap()),
        (b"2".to_vec(), b"f".to_vec())
    );
    assert!(root.join("c/x").exists() && fs::symlink_metadata(root.join("e")).unwrap().is_file());
}

#[test]
fn deep_and_many() {
    let deep = "d/".repeat(1000);
    let case = two(Tar::new().file(&format!("{deep}f"), b"1"), Tar::new().file(&format!("{deep}g"), b"2"));
    let (root, _) = case.works();
    let mut many = Tar::new();
    for i in 0..20_000 {
        many = many.file(&format!("many/{i}"), b"");
    }
    let case_many = one(many);
    let (many, _) = case_many.works();
    assert_eq!(fs::read_dir(many.join("many")).unwrap().count(), 20_000);
    let dir = shipimg::sys::dir::Dir::open(&root.join("")).unwrap();
    let bottom = dir.below(deep.as_ref()).unwrap();
    assert_eq!(bottom.list().unwrap().len(), 2);
    shipimg::sys::dir::remove(&root.0.path("ground/out")).unwrap();
}

/// A header of a regular file with anything in its fields.
fn raw(name: &str, size: &[u8; 12], kind: u8) -> Vec<u8> {
    let mut h = tar::Header::new_ustar();
    h.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    h.as_old_mut().size = *size;
    h.as_old_mut().linkflag = [kind];
    h.set_mode(0o644);
    h.set_uid(0);
    h.set_gid(0);
    h.set_mtime(0);
    h.set_cksum();
    h.as_bytes().to_vec()
}

#[test]
fn framing() {
    let size = |pax: &[u8]| Tar::new().pax(&[("size", pax)]).file("a", &[b'x'; 512]);
    one(size(b"0")).refused("PAX size 0 contradicts the header's size 512");
    one(size(b"1024")).refused("PAX size 1024 contradicts the header's size 512");
    one(size(b"-1")).refused("invalid size");
    one(size(b"18446744073709551616")).refused("invalid size");
    one(Tar::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("x", b"")).refused("twice for one");
    Case::tars(&[Tar::new().pax(&[("path", b"a")]).finish()]).refused("extended headers for no entry");
    one(Tar::new().entry(T::Symlink, "s", 0o777, "t", b"content"))
        .refused("an entry of type '2' with 7 bytes");
    one(Tar::new().entry(T::new(b'?'), "s", 0o777, "", b"")).refused("unknown entry type '?'");
    for (field, text) in [
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "invalid size"),
        (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", "file of 9223372036854775807 bytes"),
        (b"77777777777\0", "the archive ends within an entry"),
        (b"000000x0000\0", "invalid size"),
    ] {
        Case::tars(&[raw("a", field, b'0')]).refused(text);
    }
    Case::tars(&[raw("a", b"77777777777\0", b'x')]).refused("extended header of 8589934591 bytes");
    Case::tars(&[b"no tar at all".repeat(100)]).refused("not a tar header, its checksum is wrong");
    // PAX records belong to the next entry, over a GNU long name in between, and to no later one.
    let name = "n".repeat(150);
    let (root, _) = one(Tar::new().pax(&[("uid", b"4294967294")]).file(&name, b"x").file("b", b"")).works();
    assert_eq!(fs::metadata(root.join(&name)).unwrap().uid(), u32::MAX - 1);
    assert_eq!(fs::metadata(root.join("b")).unwrap().uid(), 0);
    let mut base256 = raw("big", b"\x80\0\0\0\0\0\0\0\0\0\0\x05", b'0');
    base256.extend_from_slice(b"hello");
    base256.resize(512 * 4, 0);
    assert_eq!(fs::read(Case::tars(&[base256]).works().0.join("big")).unwrap(), b"hello");
}

#[test]
fn sparse_maps() {
    let sparse = |size: &[u8], map: &[u8]| {
        Tar::new().pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)]).file("s", &[b'x'; 512])
    };
    one(sparse(b"9000000000000000000", b"0,512")).refused("file of 9000000000000000000 bytes, the limit is");
    one(sparse(b"1024", b"0,9000000000000000000")).refused("malformed sparse map");
    one(sparse(b"1024", b"512,256,0,256")).refused("malformed sparse map");
    one(sparse(b"1024", b"0,256")).refused("malformed sparse map");
    let (root, _) = one(sparse(b"1073741824", b"536870912,512")).works();
    let meta = fs::metadata(root.join("s")).unwrap();
    assert!(meta.len() == 1 << 30 && meta.blocks() < 64, "holes stay holes: {} blocks", meta.blocks());
}

fn gzip_blob(bytes: Vec<u8>, tar: &[u8]) -> Blob {
    Blob { bytes, media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(), diff_id: sha256(tar) }
}

#[test]
fn compressed_streams() {
    let tar = Tar::new().file("a", &b"content".repeat(9999)).finish();
    let z = Blob::gzip(&tar).bytes;
    let case = Case::new(&[gzip_blob(z[..z.len() - 9].to_vec(), &tar)]);
    case.refused("layer sha256:");
    Case::new(&[gzip_blob([&z[..], b"garbage"].concat(), &tar)]).refused("garbage after the gzip stream");
    Case::new(&[gzip_blob([&z[..], &[0; 5000]].concat(), &tar)]).works();
    let members = [Blob::gzip(&tar[..999]).bytes, Blob::gzip(&tar[999..]).bytes].concat();
    let (root, _) = Case::new(&[gzip_blob(members, &tar)]).works();
    assert_eq!(fs::read(root.join("a")).unwrap(), b"content".repeat(9999));
    Case::new(&[gzip_blob(z.clone(), b"another tar")]).refused("its tar has digest sha256:");
    for empty in [Vec::new(), vec![0; 1024]] {
        Case::tars(&[empty]).works();
    }
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd".to_string();
    let frame = Blob::zstd(&tar).bytes;
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..], &frame].concat();
    Case::new(&[Blob { bytes: skippable, media_type: zstd.clone(), diff_id: sha256(&tar) }]).works();
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    std::io::Write::write_all(&mut wide, &tar).unwrap();
    let bytes = wide.finish().unwrap();
    Case::new(&[Blob { bytes, media_type: zstd, diff_id: sha256(&tar) }]).refused("too much memory");
}

#[test]
fn damaged_blobs() {
    let tar = Tar::new().file("a", &b"content".repeat(9999)).finish();
    for (change, text) in
        [(0usize, "content has digest sha256:"), (1, "ended after"), (2, "is longer than its")]
    {
        let blob = Blob::gzip(&tar);
        let digest = sha256(&blob.bytes);
        let case = Case::new(&[blob]);
        let path = case.path("store/blobs/sha256").join(&digest[7..]);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        match change {
            0 => bytes[middle] ^= 0x55,
            1 => bytes.truncate(middle),
            _ => bytes.push(0),
        }
        fs::write(&path, bytes).unwrap();
        case.refused(text);
    }
}

#[test]
fn limits() {
    let bomb = Blob::gzip(&Tar::new().file("zeros", &vec![0; 64 << 20]).finish());
    let case = Case::new(&[bomb]);
    let store = Store::open(&case.path("store")).unwrap();
    let entry = store.find(&"test:1".parse().unwrap()).unwrap();
    let image = store.image(&entry.descriptor, &Platform::host()).unwrap();
    let out = case.path("ground/out");
    let limited = |limits| {
        let e = unpack(&store, &image, &out, &Options { limits, ..Options::default() }).unwrap_err();
        assert_eq!(e.kind().exit_code(), 9);
        case.check_outside(false);
        e.to_string()
    };
    let default = Limits::default;
    assert!(limited(Limits { inflated: 1 << 20, ..default() }).ends_with("more than 1048576 inflated bytes"));
    assert!(limited(Limits { entries: 0, ..default() }).ends_with("more than 0 entries"));
    assert!(limited(Limits { depth: 0, ..default() }).ends_with("more than 0 directories deep"));
}

/// Someone swaps directories of a half-made tree for links out of it, all the time.
#[test]
fn a_racing_process() {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut upper = Tar::new().dir("d/");
    for i in 0..3000 {
        upper = upper.file(&format!("d/sub{}/f{i}", i % 7), b"x");
    }
    let case = two(Tar::new().dir("d/").dir("d/sub0/").file("d/sub0/low", b""), upper);
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let (ground, canary) = (case.path("ground"), case.path("ground/canary"));
            while !done.load(Ordering::Relaxed) {
                for folder in fs::read_dir(&ground).unwrap().flatten() {
                    if !folder.file_name().to_string_lossy().starts_with(".shipimg-") {
                        continue;
                    }
                    for inner in fs::read_dir(folder.path().join("bundle")).into_iter().flatten().flatten() {
                        for (n, i) in [("0", 0), ("1", 1), ("0", 3), ("1", 5)] {
                            let dir = inner.path().join(n).join(format!("d/sub{i}"));
                            if fs::rename(&dir, dir.with_extension("away")).is_ok() {
                                let _ = symlink(&canary, &dir);
                            }
                        }
                    }
                }
            }
        });
        let race = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..10 {
                // It may work or fail, by the race; it never writes outside.
                let _ = case.unpack();
                assert_eq!(fs::read_to_string(case.path("ground/canary/file")).unwrap(), "alive");
                assert_eq!(fs::read_dir(case.path("ground/canary")).unwrap().count(), 1);
                let _ = shipimg::sys::dir::remove(&case.path("ground/out"));
            }
        }));
        done.store(true, Ordering::Relaxed);
        race.unwrap();
    });
    case.works();
}
