//! EROFS images, read by the kernel and by erofs-utils.

use crate::attributes::{MAKE, assert_same};
use crate::common::images::{Folder, Made, Mounted};
use crate::common::{need_root, ok};
use crate::rootfs::Ground;
use crate::unpack::describe;
use shipimg::disk::{Error, Source, erofs};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const OPTIONS: erofs::Options = erofs::Options {
    label: "a-label-that-is-too-long",
    uuid: [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x47, 0x88, 0x89, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0],
    time: 1_600_000_000,
};

/// What the sizes of files, links and attributes are around blocks.
const EDGES: &str = r#"cd $0 && mkdir edges edges/names
for size in 1 3967 3968 3969 4031 4032 4033 4095 4096 4097 8191 8192 8193 1048575 1048577; do
    head -c $size /dev/urandom >edges/$size
done
v() { head -c "$1" /dev/zero | tr '\0' v; }
for size in 58 59 60 1000 3900 16000; do
    printf tail >edges/x$size && setfattr -n user.large -v "$(v $size)" edges/x$size
    head -c 5000 /dev/urandom >edges/y$size && setfattr -n user.large -v "$(v $size)" edges/y$size
done
for name in ! + , - . .. ... .a ..a 0 A a é; do [ -e "edges/names/$name" ] || echo "$name" >"edges/names/$name"; done
setfattr -n user.dir -v "$(v 3500)" edges/names"#;

fn made(source: &dyn Source, dir: &Path) -> std::path::PathBuf {
    let image = dir.join("x.erofs");
    let size = erofs::write(source, &image, &OPTIONS).unwrap();
    assert_eq!(fs::metadata(&image).unwrap().len(), size);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1, "nothing else is left");
    ok("fsck.erofs", &[image.to_str().unwrap()]);
    image
}

#[test]
fn a_tree_is_what_it_was() {
    need_root();
    let ground = Ground::new(true);
    let root = ground.path();
    ok("bash", &["-ec", MAKE, root.to_str().unwrap()]);
    ok("bash", &["-ec", EDGES, root.to_str().unwrap()]);
    let dir = tempfile::tempdir().unwrap();
    let image = made(&Folder::new(&root), dir.path());
    let said = ok("blkid", &["-p", image.to_str().unwrap()]);
    assert!(said.contains("11223344-5566-4788-89aa-bbccddeeff00"), "{said}");
    let mounted = Mounted::new(&image, "erofs");
    assert_same(&describe(&root), &describe(&mounted.0), "erofs");
    let links = |name: &str| fs::metadata(mounted.0.join(name)).unwrap().nlink();
    assert_eq!([links("edges"), links("edges/names"), links("a")], [3, 2, 2]);
    assert!(fs::metadata(&image).unwrap().blocks() * 512 < 16 << 20, "holes");

    // The same files, made in another order.
    let other = Ground::new(true);
    ok(
        "bash",
        &[
            "-ec",
            "cd $0 && ls -AU | sort -r | xargs cp -a -t $1",
            root.to_str().unwrap(),
            other.path().to_str().unwrap(),
        ],
    );
    ok("touch", &["-r", root.to_str().unwrap(), other.path().to_str().unwrap()]);
    let again = tempfile::tempdir().unwrap();
    let again = made(&Folder::new(&other.path()), again.path());
    ok("cmp", &[image, again]);
}

#[test]
fn an_empty_tree_is_a_filesystem() {
    need_root();
    let dir = tempfile::tempdir().unwrap();
    let image = made(&Made::new(), dir.path());
    assert_eq!(fs::metadata(&image).unwrap().len(), 4096);
    let mounted = Mounted::new(&image, "erofs");
    assert_eq!(fs::read_dir(&mounted.0).unwrap().count(), 0);
}

#[test]
fn many_names_and_large_files() {
    need_root();
    let mut source = Made::new();
    source.dir("many");
    for i in 0..50_000 {
        source.file(&format!("many/{i}"), 0, i.to_string().as_bytes());
    }
    source.file("large", 5 << 30, b"end");
    source.file("small", 0, b"after it");
    let targets = [1, 4031, 4032, 4033, 4095].map(|n| "t".repeat(n));
    for target in &targets {
        source.link(&format!("link{}", target.len()), target);
    }
    let dir = tempfile::tempdir().unwrap();
    let image = made(&source, dir.path());
    assert!(fs::metadata(&image).unwrap().blocks() * 512 < 64 << 20, "holes");
    let mounted = Mounted::new(&image, "erofs");
    for i in 0..50_000 {
        assert_eq!(fs::read_to_string(mounted.0.join(format!("many/{i}"))).unwrap(), i.to_string());
    }
    assert_eq!(fs::read_dir(mounted.0.join("many")).unwrap().count(), 50_000);
    for no in ["many/50000", "many/!", "many/a", "no"] {
        assert!(!mounted.0.join(no).exists());
    }
    let large = mounted.0.join("large");
    assert_eq!(fs::metadata(&large).unwrap().len(), (5 << 30) + 3);
    assert_eq!(ok("tail", &["-c", "6", large.to_str().unwrap()]), "\0\0\0end");
    assert_eq!(fs::read_to_string(mounted.0.join("small")).unwrap(), "after it");
    for target in &targets {
        let link = mounted.0.join(format!("link{}", target.len()));
        assert_eq!(fs::read_link(link).unwrap().to_str(), Some(target.as_str()));
    }
}

#[test]
fn what_fails_leaves_the_old_image() {
    let mut source = Made::new();
    source.file("f", 0, b"short");
    source.tree.get_mut(&crate::common::images::path("f")).unwrap().size = 4;
    let dir = tempfile::tempdir().unwrap();
    let image = made(&source, dir.path());
    let old = fs::read(&image).unwrap();
    let mut shorter = Made::new();
    shorter.dir("d");
    shorter.file("d/f", 0, b"x");
    let node = shorter.tree.get_mut(&crate::common::images::path("d")).unwrap();
    node.meta.xattrs = vec![(b"user.x".to_vec(), vec![0; 1 << 16])];
    let e = erofs::write(&shorter, &image, &OPTIONS).unwrap_err();
    assert!(matches!(e, Error::Unfit { .. }), "{e}");
    assert_eq!(fs::read(&image).unwrap(), old);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
