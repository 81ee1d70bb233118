//! Inputs to start from: what the tests of hostile layers build.

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../e2e/common/layout.rs"]
mod layout;

use crate::{Input, flag};
use layout::{Blob, Tar};
use std::path::Path;
use tar::EntryType as T;

/// Writes them into the folder `to`.
///
/// # Panics
/// Where that cannot be written.
pub fn write(to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let both = flag::DIRLINKS | flag::CONTENTS | flag::OVERLAY;
    for (i, layers) in images().into_iter().enumerate() {
        let tars: Vec<Vec<u8>> = layers.into_iter().map(Tar::finish).collect();
        for (name, flags) in [("plain", 0), ("overlay", flag::OVERLAY), ("all", both)] {
            std::fs::write(to.join(format!("{name}-{i}")), Input::bytes(flags, &tars)).unwrap();
        }
        if i % 8 == 0 {
            let blobs = |blob: fn(&[u8]) -> Blob| tars.iter().map(|t| blob(t).bytes).collect::<Vec<_>>();
            std::fs::write(to.join(format!("gzip-{i}")), Input::bytes(flag::GZIP, &blobs(Blob::gzip)))
                .unwrap();
            std::fs::write(to.join(format!("zstd-{i}")), Input::bytes(flag::ZSTD, &blobs(Blob::zstd)))
                .unwrap();
        }
    }
}

/// Images by their layers, small, each with a turn of its own.
fn images() -> Vec<Vec<Tar>> {
    let t = Tar::new;
    let canary = "/dev/shm/shipimg-fuzz/canary";
    let link = || t().symlink("link", "../../canary").symlink("abs", canary);
    let lower = || t().dir("./").dir("d/").file("d/low", b"low").file("gone", b"g").symlink("in", "d");
    let xattr = |name: &str| t().pax(&[(&format!("SCHILY.xattr.{name}"), b"y\0\n=")]).dir("x/");
    let sparse = |records: &[(&str, &[u8])]| t().pax(records).file("s", &[b'x'; 512]);
    let map = b"2\n0\n256\n1024\n256\n";
    let mut inline = map.to_vec();
    inline.resize(512, 0);
    inline.extend_from_slice(&[b'y'; 512]);
    let device = |major: u8, minor: u8| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(T::Char);
        header.set_size(0);
        header.as_old_mut().name[..3].copy_from_slice(b"dev");
        header.set_device_major(major.into()).unwrap();
        header.set_device_minor(minor.into()).unwrap();
        t().header(&header)
    };
    vec![
        vec![t()],
        vec![t().dir("./").dir("a/").file("a/f", b"1").link("a/l", "a/f").symlink("s", "a/f")],
        vec![t().file("../../canary/new", b"x")],
        vec![t().file("/etc/x", b"x")],
        vec![t().symlink("./", "/etc")],
        vec![link().file("link/new", b"x").file("abs/new", b"y")],
        vec![link(), t().file("link/file", b"in").file("abs/file", b"in")],
        vec![link().dir("canary/").file("canary/file", b""), t().file("link/.wh.file", b"").dir("link/")],
        vec![lower(), t().link("l", "d/low").link("d/m", "/gone").link("early", "late").file("late", b"l")],
        vec![lower(), t().link("l", "../canary/file")],
        vec![lower(), t().file(".wh.gone", b"").file("d/.wh..wh..opq", b"").file("d/new", b"n")],
        vec![lower(), t().file(".wh.d", b"").dir("d/").file("d/x", b""), t().file("d", b"file")],
        vec![lower(), t().file("in/through", b"t").file("in/.wh.low", b""), t().file("in/.wh..wh..opq", b"")],
        vec![lower(), t().entry(T::Directory, "in", 0o777, "", b""), t().file("in/x", b"")],
        vec![lower(), t().file("in/sub/a", b"a").link("in/sub/b", "gone").file("in/sub/.wh.c", b"")],
        vec![
            t().file("a", b"1").file("a", b"2").dir("b/").file("b/x", b"").file("b", b"f").symlink("b", "a"),
        ],
        vec![t().file("d/e/f/g", b"deep"), t().file("d/e", b"f"), t().file("d/e/x", b"")],
        vec![t().dir("d/").symlink("d/up", "..").symlink("d/self", "self"), t().file("d/up/d/up/x", b"")],
        vec![xattr("user.note"), xattr("security.capability"), xattr("trusted.overlay.opaque")],
        vec![device(1, 3), device(0, 0)],
        vec![t().entry(T::Fifo, "fifo", 0o600, "", b"").entry(T::Regular, "socket", 0o140_755, "", b"")],
        vec![sparse(&[("GNU.sparse.size", b"4096"), ("GNU.sparse.map", b"1024,512")])],
        vec![sparse(&[
            ("GNU.sparse.size", b"4096"),
            ("GNU.sparse.offset", b"1024"),
            ("GNU.sparse.numbytes", b"512"),
        ])],
        vec![
            t().pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"real"),
                ("GNU.sparse.realsize", b"2048"),
            ])
            .file("s", &inline),
        ],
        vec![
            t().pax(&[("size", b"512"), ("uid", b"4294967294"), ("mtime", b"-1.5")]).file("a", &[b'x'; 512]),
        ],
        vec![t().pax(&[("path", b"p/q"), ("linkpath", b"d/low")]).link("x", "y")],
        vec![t().file(&"n/".repeat(60), b"").file(&"m".repeat(150), b"x").link("k", &"m".repeat(150))],
        vec![lower(), t().file(".wh..wh..opq", b"").file("only", b"o")],
        vec![
            lower(),
            t().dir("e/").dir("e/f/"),
            t().symlink("d", "e/f"),
            t().file("d/g", b"g").file("d/h/i", b""),
        ],
        vec![lower(), t().file("d/.wh.low", b"").link("d/low", "gone")],
    ]
}
