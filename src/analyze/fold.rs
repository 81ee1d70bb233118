//! Layers laid over one another: which files of each are seen in the end, and which only cost.
//!
//! A file that a later layer deletes or replaces stays in its layer all the same. What a layer says
//! of those below it holds for all of them and for nothing of its own, whatever the order of its
//! entries (OCI image-spec, layer.md, "Whiteouts").

use crate::tree::{MAX_PATH, TreePath};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;

/// The most steps along the links of an image, in all; a path of a large system has six, and one in a hundred
/// is looked up twice.
const MOST_STEPS: usize = 10_000_000;

/// One entry of a layer.
#[derive(Debug)]
pub struct Item {
    /// Its path, or what a whiteout hides.
    pub path: TreePath,
    /// What it is.
    pub what: What,
}

/// What an entry of a layer is.
#[derive(Debug)]
pub enum What {
    /// A regular file.
    File {
        /// Bytes of its content.
        bytes: u64,
        /// SHA-256 of its content, where that is known.
        sha256: Option<[u8; 32]>,
        /// The content, of the databases of packages.
        text: Option<Box<[u8]>>,
    },
    /// A directory.
    Directory,
    /// Another name of a file.
    Link(TreePath),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A device, a pipe.
    Special,
    /// The path is gone.
    Whiteout,
    /// What is in the directory is gone.
    Opaque,
}

/// What became of a file of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is in the image.
    Kept,
    /// It is in the image, with the content of another file: the one of this number.
    Repeated(usize),
    /// The layer of this number, counted from 0, deletes it.
    Deleted(usize),
    /// That layer puts another file in its place.
    Replaced(usize),
    /// That layer puts the same content in its place: it changes the owner, the mode or the time.
    Rewritten(usize),
}

impl Fate {
    /// Whether the image has the file.
    #[must_use]
    pub const fn is_seen(self) -> bool {
        matches!(self, Self::Kept | Self::Repeated(_))
    }

    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Repeated(_) => "repeated",
            Self::Deleted(_) => "deleted",
            Self::Replaced(_) => "replaced",
            Self::Rewritten(_) => "rewritten",
        }
    }
}

/// A regular file of a layer.
#[derive(Debug)]
pub struct File {
    /// Its path; of several names the first. The folded tree has it as well.
    pub path: Arc<TreePath>,
    /// Bytes of its content.
    pub bytes: u64,
    /// SHA-256 of its content, where that is known.
    pub sha256: Option<[u8; 32]>,
    /// The layer that has it, counted from 0.
    pub layer: usize,
    /// What became of it.
    pub fate: Fate,
    /// Its content, of a database that is in the image.
    pub text: Option<Box<[u8]>>,
    /// How many names it has.
    names: usize,
}

/// What has a name.
#[derive(Debug)]
enum Seen {
    /// The file of this number.
    File(usize),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// All else.
    Other,
}

/// Layers laid over one another.
#[derive(Debug, Default)]
pub struct Folded {
    /// The regular files of all layers, the lowest layer's first, in the order of their tars.
    pub files: Vec<File>,
    seen: BTreeMap<Arc<TreePath>, Seen>,
    /// Steps that were taken along links: there is an end to that.
    steps: Cell<usize>,
}

impl Folded {
    /// Folds the layers, the lowest first.
    #[must_use]
    pub fn new(layers: Vec<Vec<Item>>) -> Self {
        let mut folded = Self::default();
        for (number, items) in layers.into_iter().enumerate() {
            for item in &items {
                match item.what {
                    What::Whiteout => folded.hide(&item.path, true, Fate::Deleted(number)),
                    What::Opaque => folded.hide(&item.path, false, Fate::Deleted(number)),
                    _ => {}
                }
            }
            for item in items {
                folded.add(number, item);
            }
        }
        folded.find_repeated();
        for file in folded.files.iter_mut().filter(|f| !f.fate.is_seen()) {
            file.text = None;
        }
        folded
    }

    fn add(&mut self, layer: usize, Item { path, what }: Item) {
        let path = Arc::new(path);
        let seen = match what {
            What::Whiteout | What::Opaque => return,
            What::Directory => {
                // One that is there already keeps what it has.
                if !matches!(self.seen.get(&path), Some(Seen::Other)) {
                    self.drop_name(&path, Fate::Replaced(layer));
                }
                Seen::Other
            }
            What::Link(target) => match self.seen.get(&target) {
                Some(Seen::File(number)) => {
                    let number = *number;
                    self.files[number].names += 1;
                    self.hide(&path, true, Fate::Replaced(layer));
                    Seen::File(number)
                }
                _ => return,
            },
            What::File { bytes, sha256, text } => {
                let same = |old: &File| bytes == old.bytes && sha256.is_some() && sha256 == old.sha256;
                let fate = match self.seen.get(&path) {
                    Some(Seen::File(old)) if same(&self.files[*old]) => Fate::Rewritten(layer),
                    _ => Fate::Replaced(layer),
                };
                self.hide(&path, true, fate);
                let fate = Fate::Kept;
                self.files.push(File { path: path.clone(), bytes, sha256, layer, fate, text, names: 1 });
                Seen::File(self.files.len() - 1)
            }
            What::Symlink(target) => {
                self.hide(&path, true, Fate::Replaced(layer));
                Seen::Symlink(target)
            }
            What::Special => {
                self.hide(&path, true, Fate::Replaced(layer));
                Seen::Other
            }
        };
        self.seen.insert(path, seen);
    }

    /// Takes away what is below `path`, and with `itself` what is there.
    fn hide(&mut self, path: &TreePath, itself: bool, fate: Fate) {
        if itself {
            self.drop_name(path, fate);
        }
        let below = self.seen.range::<TreePath, _>(path.join(OsStr::new(""))..);
        let below: Vec<_> = below.take_while(|(p, _)| p.is_within(path)).map(|(p, _)| p.clone()).collect();
        for path in below.iter().filter(|p| !p.is_root()) {
            self.drop_name(path, fate);
        }
    }

    fn drop_name(&mut self, path: &TreePath, fate: Fate) {
        if let Some(Seen::File(number)) = self.seen.remove(path) {
            let file = &mut self.files[number];
            file.names -= 1;
            if file.names == 0 {
                file.fate = fate;
            }
        }
    }

    /// Of files with the same content the first is kept, the others repeat it.
    fn find_repeated(&mut self) {
        let files = &self.files;
        let counts = |f: &File| f.fate == Fate::Kept && f.bytes > 0 && f.sha256.is_some();
        let mut order: Vec<usize> = (0..files.len()).filter(|&i| counts(&files[i])).collect();
        order.sort_unstable_by_key(|&i| (files[i].sha256, i));
        let mut first: Option<usize> = None;
        for i in order {
            match first {
                Some(one) if self.files[one].sha256 == self.files[i].sha256 => {
                    self.files[i].fate = Fate::Repeated(one);
                }
                _ => first = Some(i),
            }
        }
    }

    /// The files of the image in this directory and below it by path, each by all of its names.
    pub fn seen_within(&self, folder: &TreePath) -> impl Iterator<Item = (&TreePath, &File)> {
        let below = self.seen.range::<TreePath, _>(folder.join(OsStr::new(""))..);
        below.take_while(move |(path, _)| path.is_within(folder)).filter_map(|(path, seen)| match seen {
            Seen::File(number) => Some((&**path, &self.files[*number])),
            _ => None,
        })
    }

    /// The file of the image with this name, the links on whose way are followed.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&File> {
        let path = TreePath::parse_link(path.as_bytes()).ok()?;
        let (parent, name) = path.split()?;
        self.get(&self.resolve(&parent).join(name))
    }

    /// The file of the image with this name.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&File> {
        match self.seen.get(path)? {
            Seen::File(number) => self.files.get(*number),
            _ => None,
        }
    }

    /// Where the directory `path` lies when the symbolic links on the way are followed; `path` itself
    /// where they lead round in circles, and of all when the links of an image have led too far.
    #[must_use]
    pub fn resolve(&self, path: &TreePath) -> TreePath {
        // As the kernel: path_resolution(7).
        const MOST: usize = 40;
        let mut links = 0;
        let mut todo: Vec<Vec<u8>> = components(path.as_bytes());
        let mut at = TreePath::root();
        while let Some(name) = todo.pop() {
            self.steps.set(self.steps.get() + 1);
            if self.has_led_too_far() || at.as_bytes().len() > MAX_PATH {
                return path.clone();
            }
            if name == b".." {
                at = at.split().map_or_else(TreePath::root, |(parent, _)| parent);
                continue;
            }
            let next = at.join(std::os::unix::ffi::OsStrExt::from_bytes(name.as_slice()));
            if let Some(Seen::Symlink(target)) = self.seen.get(&next) {
                links += 1;
                if links > MOST {
                    return path.clone();
                }
                if target.first() == Some(&b'/') {
                    at = TreePath::root();
                }
                todo.extend(components(target));
            } else {
                at = next;
            }
        }
        at
    }

    /// The files alone.
    #[must_use]
    pub fn into_files(self) -> Vec<File> {
        self.files
    }

    /// Whether there were more links than are followed.
    #[must_use]
    pub fn has_led_too_far(&self) -> bool {
        self.steps.get() > MOST_STEPS
    }
}

/// The components of a path, the last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".");
    parts.rev().map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn path(text: &str) -> TreePath {
        TreePath::parse_link(text.as_bytes()).unwrap()
    }

    /// `a 3 x` a file of 3 bytes with content x, `d/` a directory, `b=a` a hard link, `l>a` a symbolic
    /// link, `-a` a whiteout, `-d/` an opaque marker.
    fn item(text: &str) -> Item {
        let of = |p: &str, what| Item { path: path(p), what };
        if let Some(hidden) = text.strip_prefix('-') {
            let what = if hidden.ends_with('/') { What::Opaque } else { What::Whiteout };
            return of(hidden, what);
        }
        if let Some((name, target)) = text.split_once('=') {
            return of(name, What::Link(path(target)));
        }
        if let Some((name, target)) = text.split_once('>') {
            return of(name, What::Symlink(target.into()));
        }
        match *text.split(' ').collect::<Vec<_>>().as_slice() {
            [name, bytes, content] => {
                let sha256 = Some([content.as_bytes()[0]; 32]);
                of(name, What::File { bytes: bytes.parse().unwrap(), sha256, text: None })
            }
            _ => of(text, What::Directory),
        }
    }

    fn folded(layers: &[&[&str]]) -> Folded {
        Folded::new(layers.iter().map(|l| l.iter().map(|t| item(t)).collect()).collect())
    }

    #[test]
    fn fates() {
        use Fate::{Deleted, Kept, Repeated, Replaced, Rewritten};
        for (layers, want) in [
            (&[&["a 1 x", "b 2 y"][..]][..], &[Kept, Kept][..]),
            // Deleted by name, with its directory, by an opaque directory, by an opaque root.
            (&[&["a 1 x", "ab 1 y"], &["-a"]], &[Deleted(1), Kept]),
            (&[&["d/", "d/a 1 x", "d!x 1 y"], &["-d"]], &[Deleted(1), Kept]),
            (&[&["d/", "d/a 1 x", "e 1 y"], &["d/", "-d/", "d/b 1 z"]], &[Deleted(1), Kept, Kept]),
            (&[&["a 1 x"], &["b 1 y"], &["-/"]], &[Deleted(2), Deleted(2)]),
            // A marker says nothing of its own layer, wherever it stands.
            (&[&["d/a 1 x"], &["d/a 2 y", "-d/", "-d/a"]], &[Deleted(1), Kept]),
            // Replaced by another content, by the same, by a link, by a directory and back.
            (&[&["a 1 x"], &["a 2 y"]], &[Replaced(1), Kept]),
            (&[&["a 1 x"], &[], &["a 1 x"]], &[Rewritten(2), Kept]),
            (&[&["a 1 x"], &["a>b"]], &[Replaced(1)]),
            (&[&["a 1 x"], &["a/", "a/b 1 y"]], &[Replaced(1), Kept]),
            (&[&["a/", "a/b 1 y", "a/c 1 z"], &["a 1 x"]], &[Replaced(1), Replaced(1), Kept]),
            // Directories are merged.
            (&[&["d/", "d/a 1 x"], &["d/", "d/b 1 y"]], &[Kept, Kept]),
            // The same name twice in one layer.
            (&[&["a 1 x", "a 1 y"]], &[Replaced(0), Kept]),
            // A file is there as long as one of its names is.
            (&[&["a 1 x", "b=a"], &["-a"]], &[Kept]),
            (&[&["a 1 x", "b=a"], &["-a"], &["-b"]], &[Deleted(2)]),
            (&[&["a 1 x"], &["b=a", "-a"]], &[Deleted(1)]),
            (&[&["a 1 x"], &["a=a"]], &[Kept]),
            (&[&["a 1 x"], &["b=nothing"]], &[Kept]),
            // The same content again counts once, in the first file; nothing is no content.
            (&[&["a 1 x", "b 1 x"], &["c 1 x"]], &[Kept, Repeated(0), Repeated(0)]),
            (&[&["a 1 x", "b 1 x"], &["-a"]], &[Deleted(1), Kept]),
            (&[&["a 0 x", "b 0 x"]], &[Kept, Kept]),
        ] {
            let fates: Vec<_> = folded(layers).files.iter().map(|f| f.fate).collect();
            assert_eq!(fates, want, "{layers:?}");
        }
    }

    #[test]
    fn names_lead_to_files() {
        let folded = folded(&[
            &[
                "usr/",
                "usr/bin/",
                "usr/bin/x 1 x",
                "bin>usr/bin",
                "loop>loop",
                "up>usr/../../usr/bin/.",
                "y=usr/bin/x",
            ],
            &["abs>/bin"],
        ]);
        for (name, want) in [
            ("bin/x", "usr/bin/x"),
            ("abs/x", "usr/bin/x"),
            ("up/x", "usr/bin/x"),
            ("usr/bin", "usr/bin"),
            ("loop/x", "loop/x"),
            ("no/such", "no/such"),
        ] {
            assert_eq!(folded.resolve(&path(name)), path(want), "{name}");
        }
        let names: Vec<_> =
            folded.seen_within(&TreePath::root()).map(|(p, f)| (p.to_string(), f.path.to_string())).collect();
        assert_eq!(
            names,
            [("/usr/bin/x", "/usr/bin/x"), ("/y", "/usr/bin/x")].map(|(a, b)| (a.into(), b.into()))
        );
        assert_eq!(folded.get(&path("y")).map(|f| f.bytes), Some(1));
    }
}
