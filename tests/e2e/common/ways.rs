//! Every way in which layers become files: `unpack` and the drivers that extract, each by root and
//! by an ordinary user; beside files that must not change.

use super::layout::{Blob, Layout};
use super::user::{give_to_stranger, stranger};
use super::{bin, collect, describe, need_root};
use crate::rootfs::Ground;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Whether an ordinary user takes it, who has one id.
    pub user: bool,
    /// `unpack`, or a driver.
    pub how: &'static str,
}

/// All ways, root's `unpack` last.
pub fn ways() -> impl Iterator<Item = Way> {
    let hows = ["btrfs", "overlay", "copy", "unpack"];
    [true, false].into_iter().flat_map(move |user| hows.map(|how| Way { user, how }))
}

/// Stores for all ways, which live as long as a test.
pub struct Table {
    plain: Ground,
    btrfs: Ground,
    images: Cell<usize>,
}

impl Table {
    pub fn new() -> Self {
        need_root();
        let table = Self { plain: Ground::new(false), btrfs: Ground::new(true), images: Cell::new(0) };
        for home in table.homes() {
            Layout::new(&home.join("store"));
            canary(&home.join("canary"));
            if home.ends_with("user") {
                give_to_stranger(&home);
            }
        }
        canary(&table.canary());
        table
    }

    fn homes(&self) -> Vec<PathBuf> {
        let homes = |ground: &Ground| ["root", "user"].map(|who| ground.path().join(who));
        [homes(&self.plain), homes(&self.btrfs)].concat()
    }

    /// A folder with one file that anybody may change, and nobody shall; one more is beside each
    /// target of `unpack`, as `../../canary` of a name in its root.
    pub fn canary(&self) -> PathBuf {
        self.plain.path().join("canary")
    }

    /// No canary has changed.
    pub fn unharmed(&self) {
        for dir in self.homes().iter().map(|h| h.join("canary")).chain([self.canary()]) {
            let file = dir.join("file");
            assert_eq!(fs::read_to_string(&file).unwrap(), "alive", "{}", file.display());
            let meta = fs::metadata(&file).unwrap();
            assert_eq!((meta.nlink(), meta.mode() & 0o7777), (1, 0o666));
            assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o777);
            assert_eq!(names(&dir), ["file"], "{}", dir.display());
        }
    }

    /// Where a way works: `store`, and `out` of `unpack`.
    pub fn home(&self, way: Way) -> PathBuf {
        let ground = if way.how == "btrfs" { &self.btrfs } else { &self.plain };
        ground.path().join(if way.user { "user" } else { "root" })
    }

    /// An image of these layers.
    pub fn image(&self, layers: &[Blob]) -> Case<'_> {
        let name = format!("case{}:x", self.images.replace(self.images.get() + 1));
        for home in self.homes() {
            Layout::at(&home.join("store")).add(&name, layers, &serde_json::json!({}));
        }
        Case { table: self, name, layers: layers.len() }
    }

    /// The same of tars.
    pub fn tars(&self, tars: &[Vec<u8>]) -> Case<'_> {
        self.image(&tars.iter().map(|t| Blob::gzip(t)).collect::<Vec<_>>())
    }

    fn command(&self, way: Way) -> Command {
        let mut command = if way.user { stranger() } else { Command::new(bin()) };
        // The working directory is no root for anything.
        command.current_dir(self.home(way).join("canary")).arg("--root").arg(self.home(way).join("store"));
        command
    }

    fn succeed(&self, way: Way, args: &[&str]) {
        let out = collect(self.command(way).args(args));
        assert!(out.status.success(), "{way:?}: {}", describe("shipimg", args, &out));
    }

    /// Takes away what a way has made.
    pub fn clean(&self, way: Way) {
        if self.home(way).join("store/shipimg/bundles/b").exists() {
            self.succeed(way, &["bundle", "delete", "b"]);
        }
        self.remove(way);
    }

    /// The same while somebody is in the way.
    pub fn try_clean(&self, way: Way) {
        let _ = collect(self.command(way).args(["bundle", "delete", "b"]));
        self.remove(way);
    }

    fn remove(&self, way: Way) {
        let home = self.home(way);
        for made in ["out", "view"] {
            let _ = shipimg::sys::dir::remove(&home.join(made));
        }
    }
}

fn canary(dir: &Path) {
    fs::create_dir(dir).unwrap();
    fs::write(dir.join("file"), "alive").unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o666)).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An image that is tried by all ways.
pub struct Case<'a> {
    table: &'a Table,
    name: String,
    layers: usize,
}

/// The unpacked layers of a store.
fn unpacked(home: &Path) -> Vec<String> {
    let mut names = names(&home.join("store/shipimg/layers"));
    names.retain(|n| n != "lock");
    names
}

impl<'a> Case<'a> {
    /// Takes the way.
    pub fn run(&self, way: Way) -> Output {
        let out = self.table.home(way).join("out");
        let args = match way.how {
            "unpack" => vec!["unpack", &self.name, out.to_str().unwrap()],
            driver => vec!["bundle", "create", &self.name, "b", "--driver", driver],
        };
        collect(self.table.command(way).args(args))
    }

    /// Changes the blob `digest` in all stores.
    pub fn damage(&self, digest: &str, change: impl Fn(&mut Vec<u8>)) {
        for home in self.table.homes() {
            let path = home.join("store/blobs/sha256").join(&digest[7..]);
            let mut bytes = fs::read(&path).unwrap();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
    }

    /// It must fail by all ways with integrity's exit code and this text, and leave nothing.
    pub fn refused(&self, text: &str) {
        ways().for_each(|way| self.refused_by(way, text));
    }

    fn refused_by(&self, way: Way, text: &str) {
        self.table.clean(way);
        let home = self.table.home(way);
        let before = unpacked(&home);
        let out = self.run(way);
        let shown = describe("shipimg", &[&self.name, way.how], &out);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(9), "{way:?}, {text}: {shown}");
        assert!(stderr.starts_with("error: ") && stderr.contains(text), "wanted {text:?}: {shown}");
        self.table.unharmed();
        assert_eq!(names(&home), ["canary", "store"], "{way:?}: {shown}");
        for area in ["tmp", "bundles"] {
            let left = names(&home.join("store/shipimg").join(area));
            assert!(left.iter().all(|n| n == "lock"), "{way:?}, {area}: {left:?}");
        }
        // Layers that are fine are published, and rightly.
        let layers = unpacked(&home);
        assert!(layers.len() < before.len() + self.layers, "{way:?}: {before:?}, {layers:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&format!("{}/", home.display())), "{way:?}: {mounts}");
    }

    /// It must work by all ways, and root's give the same files, and so do the user's.
    pub fn works(self) -> Root<'a> {
        let mut first: BTreeMap<bool, (Way, Tree)> = BTreeMap::new();
        let mut said = String::new();
        for way in ways() {
            self.table.clean(way);
            let out = self.run(way);
            assert!(out.status.success(), "{way:?}: {}", describe("shipimg", &[&self.name], &out));
            self.table.unharmed();
            said = String::from_utf8_lossy(&out.stderr).into_owned();
            let home = self.table.home(way);
            let bundle = home.join("store/shipimg/bundles/b/rootfs");
            let root = match way.how {
                "unpack" => home.join("out/rootfs"),
                // It is mounted for the user's commands only.
                "overlay" if way.user => {
                    let (from, to) = (bundle.to_str().unwrap(), home.join("view"));
                    self.table.succeed(way, &["unshare", "cp", "-a", from, to.to_str().unwrap()]);
                    to
                }
                _ => bundle,
            };
            let tree = tree(&root);
            let (other, want) = first.entry(way.user).or_insert_with(|| (way, tree.clone()));
            assert_eq!(*want, tree, "{other:?} and {way:?} of {}", self.name);
            // What root has unpacked is looked at until the next case comes.
            if way.user || way.how != "unpack" {
                self.table.clean(way);
            }
        }
        Root { case: self, said }
    }
}

/// The root filesystem that root has unpacked.
pub struct Root<'a> {
    case: Case<'a>,
    /// What was said on standard error.
    pub said: String,
}

impl Root<'_> {
    pub fn join(&self, name: &str) -> PathBuf {
        self.case.table.plain.path().join("root/out/rootfs").join(name)
    }
}

type Tree = BTreeMap<PathBuf, String>;

/// All files but their times, which directories have of the extraction when no layer gives them any.
fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut work = vec![root.to_path_buf()];
    while let Some(path) = work.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let own = if kind.is_dir() {
            work.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            String::new()
        } else if kind.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if kind.is_char_device() || kind.is_block_device() {
            format!("{:x}", meta.rdev())
        } else if kind.is_file() && meta.len() < 1 << 20 {
            fs::read(&path).unwrap().escape_ascii().to_string()
        } else {
            meta.len().to_string()
        };
        let text = format!("{:o} {}:{} {own}", meta.mode(), meta.uid(), meta.gid());
        tree.insert(path.strip_prefix(root).unwrap().to_path_buf(), text);
    }
    tree
}
