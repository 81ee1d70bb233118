//! Random trees, split into layers as random changes make them, come back as they were, by `unpack` and
//! by every driver.

use crate::back::{assert_same, at, ground};
use crate::common::layout::{Layout, Tar};
use crate::common::{TestStore, bin, ok};
use crate::rootfs::Ground;
use crate::unpack::describe;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Numbers that look random and are the same each time (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    fn pick<'a, V: ?Sized>(&mut self, of: &[&'a V]) -> &'a V {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    /// A path of one to three names of few, so that they meet often.
    fn path(&mut self, root: &Path) -> PathBuf {
        let mut path = root.to_path_buf();
        for _ in 0..=self.below(3) {
            path.push(OsStr::from_bytes(self.pick(&[&b"a"[..], b"b", b"c d", b"\xff\xfe", b"e.f", b"#g"])));
        }
        path
    }
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Makes the directories above `path`, in place of whatever is there, and nothing at `path`.
fn clear(root: &Path, path: &Path) {
    let mut at = root.to_path_buf();
    for part in path.strip_prefix(root).unwrap().parent().unwrap() {
        at.push(part);
        if fs::symlink_metadata(&at).is_ok_and(|m| !m.is_dir()) {
            remove(&at);
        }
        let _ = fs::create_dir(&at);
    }
    remove(path);
}

fn set_time(path: &Path, random: &mut Random) {
    let time = Timespec {
        tv_sec: i64::try_from(random.below(2_000_000_000)).unwrap(),
        tv_nsec: i64::try_from(random.below(1_000_000_000)).unwrap(),
    };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One change of the tree.
fn mutate(root: &Path, random: &mut Random) {
    let path = random.path(root);
    let exists = fs::symlink_metadata(&path);
    match random.below(12) {
        0..=2 => {
            clear(root, &path);
            let size = usize::try_from(random.below(3000)).unwrap();
            let byte = u8::try_from(random.below(256)).unwrap();
            fs::write(&path, vec![byte; size]).unwrap();
            if random.below(8) == 0 {
                fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
            }
        }
        3 => {
            clear(root, &path);
            fs::create_dir(&path).unwrap();
        }
        4 => {
            clear(root, &path);
            symlink(random.pick(&["a", "../b", "/c d", "nowhere"]), &path).unwrap();
        }
        5 => {
            let files: Vec<_> = describe(root).into_iter().filter(|(_, d)| !d.starts_with('4')).collect();
            if files.is_empty() {
                return;
            }
            let old = root.join(&files[usize::try_from(random.below(files.len() as u64)).unwrap()].0);
            if !path.starts_with(&old) && !old.starts_with(&path) {
                clear(root, &path);
                if old.symlink_metadata().is_ok() {
                    fs::hard_link(&old, &path).unwrap();
                }
            }
            // The times of the file stay: only its names are different.
            return;
        }
        6 => {
            clear(root, &path);
            let kind = [FileType::Fifo, FileType::CharacterDevice, FileType::BlockDevice]
                [usize::try_from(random.below(3)).unwrap()];
            let number = if kind == FileType::Fifo { 0 } else { rustix::fs::makedev(5, 1) };
            rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o640), number).unwrap();
        }
        7 => remove(&path),
        8 if exists.as_ref().is_ok_and(|m| !m.is_symlink()) => {
            let mode = *random.pick(&[&0o644u32, &0o4755, &0o2711, &0o1777, &0o600, &0]);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        9 if exists.is_ok() => {
            let uid = u32::try_from(random.below(3)).unwrap() * 1_500_000_000;
            std::os::unix::fs::lchown(&path, Some(uid), Some(7)).unwrap();
        }
        10 if exists.as_ref().is_ok_and(|m| m.is_dir() || m.is_file()) => {
            let value = [u8::try_from(random.below(256)).unwrap(), b'\n', 0];
            rustix::fs::lsetxattr(&path, "trusted.note", &value, XattrFlags::empty()).unwrap();
        }
        _ if exists.is_ok() => {
            let to = random.path(root);
            if !to.starts_with(&path) && !path.starts_with(&to) {
                clear(root, &to);
                let _ = fs::rename(&path, &to);
            }
        }
        _ => {}
    }
    if path.symlink_metadata().is_ok() {
        set_time(&path, random);
    }
}

/// Every driver gives the tree in `want`, of all layers of `image`.
fn by_drivers(store: &TestStore, btrfs: &Ground, image: &str, want: &Path, what: &str) {
    let other = btrfs.path().join("store");
    let archive = store.path().join("archive").to_str().unwrap().to_string();
    store.ok(&["export", "--kind", "oci-archive", image, "-o", &archive]);
    ok(bin(), &["--root", other.to_str().unwrap(), "import", &archive, image]);
    fs::remove_file(&archive).unwrap();
    for (driver, root) in [("copy", store.path()), ("overlay", store.path()), ("btrfs", &other)] {
        let at = root.to_str().unwrap();
        ok(bin(), &["--root", at, "bundle", "create", image, "b", "--driver", driver]);
        let rootfs = root.join("shipimg/bundles/b/rootfs");
        let what = format!("{driver}, {what}");
        if driver == "overlay" {
            // overlayfs counts the names of a file that a layer above hides; its copy has the others.
            let copy = store.path().join("copy");
            ok("cp", &[OsStr::new("-a"), rootfs.as_os_str(), copy.as_os_str()]);
            assert_same(want, &copy, &what);
            fs::remove_dir_all(&copy).unwrap();
        } else {
            assert_same(want, &rootfs, &what);
        }
        ok(bin(), &["--root", at, "bundle", "delete", "b"]);
    }
}

/// A random tree, split into layers as random changes made it, is the same tree when unpacked.
#[test]
fn random_trees_come_back() {
    let (store, ground) = ground(Tar::new().dir("./").dir("a/").file("a/b", b"x"), &json!({}));
    let (btrfs, mut shared) = (Ground::new(true), 0);
    Layout::new(&btrfs.path().join("store"));
    for seed in 1..=50u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut image = "x:0".to_string();
        let last = 1 + random.below(4);
        for layer in 1..=last {
            let dir = at(&ground, &format!("{seed}-{layer}"));
            let mut args = vec!["unpack", &image, &dir];
            if random.below(2) == 0 {
                args.extend(["--manifest", "mtree"]);
            }
            store.ok(&args);
            let root = Path::new(&dir).join("rootfs");
            for _ in 0..random.below(25) {
                mutate(&root, &mut random);
            }
            let next = format!("docker.io/library/x:{seed}-{layer}");
            let compression = *random.pick(&[&"gzip:1", &"zstd", &"none"]);
            store.ok(&["repack", "--compression", compression, &dir, &next]);
            let back = at(&ground, "back");
            store.ok(&["unpack", &next, &back]);
            let what = format!("seed {seed}, layer {layer}");
            assert_same(&root, &Path::new(&back).join("rootfs"), &what);
            if layer == last {
                by_drivers(&store, &btrfs, &next, &root, &what);
            }
            shared += describe(&root).values().filter(|d| d.contains(" same as ")).count();
            fs::remove_dir_all(&back).unwrap();
            fs::remove_dir_all(&dir).unwrap();
            image = next;
        }
    }
    assert!(shared > 100, "only {shared} names share a file");
}
