use super::*;
use crate::disk::{Source, erofs, ext4};
use crate::tree::{Kind, Meta, Node, Tree, TreePath};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Files whose content is their path, again and again.
struct Files(Tree);

impl Files {
    fn new() -> Self {
        let mut tree = Tree::new();
        let mut add = |path: &str, kind: Kind, size: u64| {
            let meta = Meta { mode: 0o755, ..Meta::default() };
            let node = Node { kind, meta, size, sha256: None, same: None, inode: None };
            tree.insert(TreePath::parse(path.as_bytes()).unwrap(), node);
        };
        add("./", Kind::Directory, 0);
        add("a", Kind::Directory, 0);
        add("a/large", Kind::File, 3 << 20);
        add("a/small", Kind::File, 100);
        add("many", Kind::Directory, 0);
        for i in 0..500 {
            add(&format!("many/{i:03}-{}", "x".repeat(100)), Kind::Symlink(b"y".repeat(80)), 0);
        }
        Self(tree)
    }
}

impl Source for Files {
    fn tree(&self) -> &Tree {
        &self.0
    }

    fn content(&self, path: &TreePath) -> io::Result<Box<dyn Read + '_>> {
        let text = path.to_string().into_bytes();
        let size = self.0[path].size;
        Ok(Box::new(io::Cursor::new(text.repeat(usize::try_from(size).unwrap())).take(size)))
    }

    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What is said of places where `text` lies in an image, up to 20 of them.
fn said(image: &Path, text: &[u8]) -> Vec<String> {
    let bytes = std::fs::read(image).unwrap();
    let file = File::open(image).unwrap();
    let found: Vec<_> = bytes.windows(text.len()).enumerate().filter(|(_, w)| *w == text).collect();
    let some = found.iter().step_by(found.len().div_ceil(20).max(1));
    some.map(|(i, _)| at(&file, *i as u64).unwrap().to_string()).collect()
}

fn ext(dir: &Path, kind: ext4::Kind) -> PathBuf {
    let target = dir.join("image");
    let options = ext4::Options {
        kind,
        size: ext4::Size::Shrink,
        label: "label-of-it".into(),
        uuid: *b"uuid-of-the-file",
        hash_seed: [6; 16],
        time: 0,
    };
    ext4::write(&Files::new(), &target, &options).unwrap();
    target
}

#[test]
fn places_in_ext() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [ext4::Kind::Ext4, ext4::Kind::Ext2] {
        let image = ext(dir.path(), kind);
        let file = File::open(&image).unwrap();
        let say = |offset| at(&file, offset).unwrap().to_string();
        assert_eq!(
            (say(0), say(1100), say(4096)),
            ("boot sector".into(), "superblock".into(), "group descriptors".into())
        );
        assert_eq!(said(&image, b"label-of-it"), ["superblock"]);
        let large = said(&image, b"/a/large/a/large");
        assert!(large.len() == 20 && large.windows(2).all(|w| w[0] == w[1]), "{}", large[0]);
        assert!(large[0].starts_with("content of /a/large (inode "), "{}", large[0]);
        assert!(said(&image, b"/a/small/a/small")[0].starts_with("content of /a/small (inode "));
        assert!(said(&image, &[b'x'; 100])[0].starts_with("directory of /many (inode "));
        let links = said(&image, &b"y".repeat(80));
        assert!(links.iter().all(|l| l.starts_with("target of the link of /many/")), "{}", links[0]);
        let descriptor = Image { file: &file, base: 0, size: 1 << 20 }.bytes(4096, 32).unwrap();
        let block = |at| u64::from(u32_at(&descriptor, at).unwrap()) * 4096;
        assert_eq!(say(block(0) + 9), "block bitmap of group 0");
        assert_eq!(say(block(4)), "inode bitmap of group 0");
        assert_eq!(say(block(8) + 256), "inode of / (inode 2)");
        let found = said(&image, b"/a/small/a/small")[0].clone();
        let inode: u64 = found.rsplit(' ').next().unwrap().trim_end_matches(')').parse().unwrap();
        assert_eq!(say(block(8) + (inode - 1) * 256 + 40), format!("inode of /a/small (inode {inode})"));
    }
}

#[test]
fn places_in_erofs() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let options = erofs::Options { label: "label-of-it", uuid: [1; 16], time: 0 };
    erofs::write(&Files::new(), &image, &options).unwrap();
    assert_eq!(said(&image, b"label-of-it"), ["superblock"]);
    let large = said(&image, b"/a/large/a/large");
    assert!(large.len() == 20 && large.iter().all(|l| l.starts_with("content of /a/large (inode ")));
    assert!(said(&image, b"/a/small/a/small")[0].starts_with("content of /a/small (inode "));
    assert!(
        said(&image, b"large")[0].starts_with("directory of /a (inode ") || said(&image, b"small").len() > 1
    );
}

/// Whatever is in an image, nothing is said, or something: no panic, no endless way.
#[test]
fn damaged_images() {
    let dir = tempfile::tempdir().unwrap();
    let image = ext(dir.path(), ext4::Kind::Ext4);
    let whole = std::fs::read(&image).unwrap();
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).unwrap()
    };
    for _ in 0..60 {
        let mut bytes = whole.clone();
        for _ in 0..20 {
            let at = [1024 + random() % 300, 4096 + random() % 64, random() % 500_000][random() % 3];
            bytes[at] = [0, 0xff, u8::try_from(random() & 0xff).unwrap()][random() % 3];
        }
        std::fs::write(&image, &bytes).unwrap();
        let file = File::open(&image).unwrap();
        for _ in 0..3 {
            let _ = at(&file, (random() % bytes.len()) as u64);
        }
    }
}
