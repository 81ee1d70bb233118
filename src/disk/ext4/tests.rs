use super::*;
use crate::sys::program;
use crate::tree::{self, Meta, Node, Time, TreePath};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};

/// Content by rule, so that files can be large.
#[derive(Clone)]
enum Content {
    Bytes(Vec<u8>),
    /// The blocks that are not zero: where the first of every so many is, in a file of so many blocks.
    Every(u64, u64),
    /// Zeros, and some bytes at the end.
    End(u64, Vec<u8>),
}

#[derive(Default)]
struct Made {
    tree: Tree,
    contents: BTreeMap<TreePath, Content>,
}

impl Source for Made {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn content(&self, path: &TreePath) -> io::Result<Box<dyn Read + '_>> {
        let zeros = |n| io::repeat(0).take(n);
        Ok(match &self.contents[path] {
            Content::Bytes(bytes) => Box::new(bytes.as_slice()),
            Content::Every(n, all) => Box::new(Blocks { every: *n, left: all * BLOCK, at: 0 }),
            Content::End(n, bytes) => Box::new(zeros(*n).chain(bytes.as_slice())),
        })
    }

    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

struct Blocks {
    every: u64,
    left: u64,
    at: u64,
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(usize::try_from(self.left.min(BLOCK - self.at % BLOCK)).unwrap());
        let block = self.at / BLOCK;
        buffer[..n].fill(if block.is_multiple_of(self.every) { block.to_le_bytes()[0] | 1 } else { 0 });
        (self.left, self.at) = (self.left - n as u64, self.at + n as u64);
        Ok(n)
    }
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

impl Made {
    fn add(&mut self, name: &str, kind: tree::Kind) -> &mut Node {
        let mtime = Time { seconds: 1_700_000_000 + i64::try_from(name.len()).unwrap(), nanos: 123_456_789 };
        let meta = Meta { mode: 0o644, uid: 1000, gid: 70_000, mtime, xattrs: Vec::new() };
        let node = Node { kind, meta, size: 0, sha256: None, same: None, inode: None };
        self.tree.entry(path(name)).or_insert(node)
    }

    fn file(&mut self, name: &str, content: Content) -> &mut Node {
        self.contents.insert(path(name), content.clone());
        let node = self.add(name, tree::Kind::File);
        node.size = match content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Every(_, blocks) => blocks * BLOCK,
            Content::End(zeros, bytes) => zeros + bytes.len() as u64,
        };
        node
    }

    fn bytes(&mut self, name: &str, content: &[u8]) -> &mut Node {
        self.file(name, Content::Bytes(content.to_vec()))
    }
}

fn options(kind: Kind, size: Size) -> Options {
    Options {
        kind,
        size,
        label: "a-label-that-is-long".into(),
        uuid: [7; 16],
        hash_seed: [9; 16],
        time: 1_700_000_000,
    }
}

/// Writes the filesystem and has e2fsck look at it.
fn checked(source: &Made, options: &Options) -> (tempfile::TempDir, std::path::PathBuf, Layout) {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("x.img");
    let layout = write(source, &target, options).unwrap();
    assert_eq!(fs::metadata(&target).unwrap().len(), layout.size);
    check(&target);
    (tmp, target, layout)
}

fn check(image: &Path) {
    let out = program::output("e2fsck", &["-fn", &image.display().to_string()]).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with("Pass ") && !l.starts_with("e2fsck "));
    let lines: Vec<&str> = lines.filter(|l| !l.contains(" files (")).collect();
    assert!(lines.is_empty(), "{lines:#?}");
}

const KINDS: [Kind; 2] = [Kind::Ext4, Kind::Ext2];

#[test]
fn nothing() {
    for kind in KINDS {
        for size in [Size::Shrink, Size::Auto { free: None }, Size::Fixed(1 << 30), Size::Fixed(8 << 30)] {
            checked(&Made::default(), &options(kind, size));
        }
    }
}

/// Everything that a filesystem can have.
fn everything() -> Made {
    let mut made = Made::default();
    made.add(".", tree::Kind::Directory).meta.mode = 0o755;
    made.bytes("empty", b"");
    made.bytes("one", b"x").meta.mode = 0o4711;
    made.bytes("block", &[b'b'; 4096]);
    made.bytes("more", &vec![b'm'; 300_001]);
    made.bytes("zeros", &vec![0; 50_000]);
    made.file("holes", Content::Every(2, 9));
    made.file("many-holes", Content::Every(2, 3000));
    made.file("end", Content::End(40 << 20, b"the end".to_vec()));
    made.add("dir", tree::Kind::Directory).meta.mode = 0o2770;
    for i in 0..400 {
        made.bytes(&format!("dir/a file with a long name {i:0100}"), format!("{i}").as_bytes());
    }
    made.add("dir/dir", tree::Kind::Directory);
    let trusted = vec![(b"trusted.t".to_vec(), vec![b't'; 500])];
    made.add("short", tree::Kind::Symlink(vec![b's'; 59])).meta.xattrs = trusted.clone();
    made.add("long", tree::Kind::Symlink(vec![b'l'; 60]));
    made.add("longest", tree::Kind::Symlink(vec![b'l'; 4095]));
    made.add("null", tree::Kind::Char(1, 3));
    made.add("disk", tree::Kind::Block(259, 300)).meta.xattrs = trusted;
    made.add("fifo", tree::Kind::Fifo);
    for name in ["link", "dir/link"] {
        made.bytes(name, b"one of two").same = Some(path("dir/link"));
    }
    let pair = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    made.bytes("inline", b"").meta.xattrs = vec![pair("user.a", b"value"), pair("security.x", b"")];
    made.bytes("both", b"both").meta.xattrs = vec![
        pair("trusted.large", &[b't'; 3000]),
        pair("user.small", b"s"),
        pair("security.capability", &[1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let acl = [(1u8, 0xffu8), (2, 5), (4, 0xff), (16, 0xff), (32, 0xff)];
    let acl = acl
        .iter()
        .flat_map(|(tag, id)| [*tag, 0, 6, 0, *id, if *id == 5 { 0 } else { 0xff }, 0, 0].into_iter());
    let mut list: Vec<u8> = [2, 0, 0, 0].into_iter().chain(acl).collect();
    for entry in list[4..].chunks_mut(8).filter(|e| e[4] == 0xff) {
        entry[4..].fill(0xff);
    }
    made.add("dir/dir/list", tree::Kind::Directory).meta.xattrs =
        vec![pair("system.posix_acl_access", &list), pair("system.posix_acl_default", &list)];
    made
}

#[test]
fn all_sorts_of_files() {
    let made = everything();
    for kind in KINDS {
        // The last one has two groups.
        for size in [Size::Shrink, Size::Auto { free: None }, Size::Fixed(160 << 20)] {
            let options = options(kind, size);
            let (tmp, image, _) = checked(&made, &options);
            let again = tmp.path().join("again");
            write(&everything(), &again, &options).unwrap();
            assert!(fs::read(&image).unwrap() == fs::read(&again).unwrap(), "{kind:?} {size:?}");
        }
    }
}

#[test]
fn large_directories_and_files() {
    for kind in KINDS {
        let mut made = Made::default();
        made.add("d", tree::Kind::Directory);
        // 15 names in a block: more blocks than a root of an index names.
        for i in 0..10_000 {
            made.bytes(&format!("d/{i:0250}"), b"");
        }
        made.file("end", Content::End(3 << 30, b"end".to_vec()));
        // More extents than four in an inode, than 340 in a block, than four blocks.
        for (name, blocks) in [("a", 11), ("b", 690), ("c", 4000)] {
            made.file(name, Content::Every(2, blocks));
        }
        made.file("far", Content::Every(1_050_000, 1_050_001));
        made.file("dense", Content::Every(1, 40_000));
        let (tmp, image, _) = checked(&made, &options(kind, Size::Auto { free: Some(0) }));
        let debugfs = |command: &str| {
            let out = program::output("debugfs", &["-R", command, &image.display().to_string()]).unwrap();
            String::from_utf8(out).unwrap()
        };
        if kind == Kind::Ext4 {
            let index = debugfs("htree d");
            assert!(index.contains("Indirect levels: 1"), "{}", &index[..1000]);
            for (name, depth) in [("a", 1), ("b", 1), ("c", 2), ("dense", 0)] {
                assert!(debugfs(&format!("ex {name}")).contains(&format!(" 0/ {depth} ")), "{name}");
            }
        } else {
            let triple = debugfs("stat far");
            assert!(triple.contains("(TIND):") && triple.contains("(DIND):"), "{triple}");
        }
        let dump = tmp.path().join("dump");
        for name in ["a", "b", "c", "dense"] {
            debugfs(&format!("dump {name} {}", dump.display()));
            let mut want = Vec::new();
            made.content(&path(name)).unwrap().read_to_end(&mut want).unwrap();
            assert!(fs::read(&dump).unwrap() == want, "{kind:?} {name}");
        }
    }
}

#[test]
fn sizes_to_the_block() {
    for kind in KINDS {
        for blocks in [0, 1, 3000, 40_000] {
            let mut made = Made::default();
            made.file("x", Content::Every(1, blocks));
            let (.., layout) = checked(&made, &options(kind, Size::Shrink));
            checked(&made, &options(kind, Size::Fixed(layout.size)));
            checked(&made, &options(kind, Size::Fixed(layout.size + 4097)));
            let tmp = tempfile::tempdir().unwrap();
            let target = tmp.path().join("x.img");
            fs::write(&target, "old").unwrap();
            for size in [layout.size - 1, 1 << 10, 0] {
                let e = write(&made, &target, &options(kind, Size::Fixed(size))).unwrap_err();
                let wanted =
                    matches!(e, Error::TooSmall { size: s, needed } if s == size && needed == layout.size);
                assert!(wanted, "{kind:?} {blocks}: {e}");
            }
            assert_eq!(fs::read(&target).unwrap(), b"old");
            assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
        }
    }
}

#[test]
fn grows() {
    for (kind, size) in [(Kind::Ext4, 300 << 20), (Kind::Ext2, 300 << 20), (Kind::Ext4, 8 << 30)] {
        let (_tmp, image, _) = checked(&everything(), &options(kind, Size::Fixed(size)));
        let text = image.display().to_string();
        program::output("resize2fs", &[&text, &format!("{}K", (size * 3) >> 10)]).unwrap();
        check(&image);
        assert_eq!(fs::metadata(&image).unwrap().len(), size * 3);
        program::output("resize2fs", &["-M", &text]).unwrap();
        check(&image);
    }
}

#[test]
fn holes_take_no_room() {
    for kind in KINDS {
        let mut made = Made::default();
        made.file("end", Content::End(1 << 30, b"end".to_vec()));
        made.file("every", Content::Every(2, 20_000));
        made.file("dense", Content::Every(1, 300));
        let (.., least) = checked(&made, &options(kind, Size::Shrink));
        assert!(least.size < 50 << 20, "{kind:?} {least:?}");
        checked(&made, &options(kind, Size::Fixed(least.size)));
        let tmp = tempfile::tempdir().unwrap();
        let e = write(&made, &tmp.path().join("x"), &options(kind, Size::Fixed(least.size - 1))).unwrap_err();
        assert!(matches!(e, Error::TooSmall { needed, .. } if needed == least.size), "{e}");
        assert!(layout(&made.tree, &options(kind, Size::Shrink)).unwrap().size > 1 << 30);
    }
}

/// A change to an empty tree, and what is said of it.
type Case<'a> = (&'a dyn Fn(&mut Made), &'a str);

#[test]
fn what_does_not_fit() {
    let unfit = |kind, change: &dyn Fn(&mut Made)| {
        let mut made = Made::default();
        change(&mut made);
        let tmp = tempfile::tempdir().unwrap();
        let e = write(&made, &tmp.path().join("x"), &options(kind, Size::Auto { free: None })).unwrap_err();
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
        e.to_string()
    };
    for kind in KINDS {
        let large = kind.largest() + 1;
        let cases: [Case; 9] = [
            (&|m| m.bytes("f", b"x").size = large, "/f: it is too large"),
            (&|m| m.bytes("f", b"x").size = u64::MAX, "/f: it is too large"),
            (&|m| m.bytes("f", b"x").size = 2, "/f: its size has changed"),
            (&|m| m.bytes("f", b"xyz").size = 2, "/f: its size has changed"),
            (&|m| m.add("a/b", tree::Kind::Fifo).size = 0, "/a/b: it lies in no directory"),
            (
                &|m| m.add("l", tree::Kind::Symlink(vec![b'x'; 4096])).size = 0,
                "/l: its target is empty or longer",
            ),
            (&|m| m.add("c", tree::Kind::Char(4096, 0)).size = 0, "/c: its numbers are too large"),
            (
                &|m| m.bytes("f", b"").meta.xattrs = vec![(b"user.x".to_vec(), vec![1; 5000])],
                "/f: its attributes are larger than a block",
            ),
            (
                &|m| {
                    for i in 0..65_001 {
                        m.bytes(&format!("{i:05}"), b"").same = Some(path("00000"));
                    }
                },
                "/65000: a file can have 65000 names",
            ),
        ];
        for (change, want) in cases {
            let e = unfit(kind, change);
            assert!(e.starts_with(want), "{kind:?}: {e}");
        }
        // Each of them could be, not all.
        let mut made = Made::default();
        for i in 0..9 {
            made.bytes(&format!("{i}"), b"").size = kind.largest();
        }
        let e = layout(&made.tree, &options(kind, Size::Auto { free: None })).unwrap_err();
        assert!(matches!(e, Error::TooLarge { .. }), "{e}");
        let e = layout(&Tree::new(), &options(kind, Size::Auto { free: Some(u64::MAX) })).unwrap_err();
        assert!(matches!(e, Error::TooLarge { .. }), "{e}");
        let e = layout(&Tree::new(), &options(kind, Size::Fixed(u64::MAX))).unwrap_err();
        assert!(matches!(e, Error::TooLarge { .. }), "{e}");
    }
}

#[test]
fn in_a_part_of_a_file() {
    let (made, options) = (everything(), options(Kind::Ext4, Size::Fixed(64 << 20)));
    let (tmp, image, layout) = checked(&made, &options);
    let whole = tmp.path().join("whole");
    let file = File::create(&whole).unwrap();
    file.set_len(layout.size + (2 << 20)).unwrap();
    write_at(&made, &file, &whole, 1 << 20, &options).unwrap();
    let bytes = fs::read(&whole).unwrap();
    let (before, part) = bytes.split_at(1 << 20);
    assert!(part[..64 << 20] == fs::read(&image).unwrap());
    assert!(before.iter().chain(&part[64 << 20..]).all(|b| *b == 0));
}

#[test]
fn lost_and_found_of_the_source() {
    for kind in KINDS {
        let mut made = Made::default();
        made.bytes("a", b"a");
        made.add("lost+found", tree::Kind::Directory).meta.mode = 0o750;
        made.bytes("lost+found/#12", b"found");
        let (_tmp, image, _) = checked(&made, &options(kind, Size::Shrink));
        let out =
            program::output("debugfs", &["-R", "stat lost+found", &image.display().to_string()]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Mode:  0750") && text.contains("Size: 16384"), "{text}");
    }
}
