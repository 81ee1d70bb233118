//! The binary runs on a bare machine: an empty root with only /proc and /dev.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::{bin, describe, need_root, ok, output, registry::Registry};
use std::fs;
use std::path::Path;

/// Program headers of a dynamic executable (elf(5)).
const PT_INTERP: usize = 3;
const PT_DYNAMIC: usize = 2;

/// A root with the binary, /proc and /dev, and nothing else; unmounted with the value.
struct BareRoot(tempfile::TempDir);

impl BareRoot {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for folder in ["proc", "dev"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::copy(bin(), dir.path().join("shipimg")).unwrap();
        let root = Self(dir);
        ok("mount", &["-t", "proc", "proc", &root.at("proc")]);
        ok("mount", &["--bind", "/dev", &root.at("dev")]);
        root
    }

    fn at(&self, path: &str) -> String {
        self.0.path().join(path).display().to_string()
    }

    fn run(&self, args: &[&str]) -> std::process::Output {
        let root = self.0.path().display().to_string();
        let mut all = vec!["-i", "PATH=/usr/sbin:/usr/bin", "chroot", &root, "/shipimg"];
        all.extend(args);
        output("env", &all)
    }
}

impl Drop for BareRoot {
    fn drop(&mut self) {
        for folder in ["proc", "dev"] {
            output("umount", &[&self.at(folder)]);
        }
    }
}

#[test]
fn runs_in_an_empty_root() {
    need_root();
    let root = BareRoot::new();
    let work = tempfile::tempdir().unwrap();
    let layout = Layout::new(work.path());
    layout.add(
        "a:x",
        &[Blob::gzip(&Tar::new().dir("d/").file("d/f", b"hello").finish())],
        &serde_json::json!({}),
    );
    let registry = Registry::start();
    let name = registry.fill(&layout, "a:x");
    for args in
        [&["--version"][..], &["--help"], &["pull", "-q", &name], &["images"], &["unpack", &name, "/bundle"]]
    {
        let out = root.run(args);
        assert!(out.status.success(), "{}", describe("shipimg", args, &out));
    }
    assert_eq!(fs::read(Path::new(&root.at("bundle/rootfs/d/f"))).unwrap(), b"hello");
    // https needs root certificates: without them the error says so, and nothing crashes.
    let out = root.run(&["pull", "-q", "registry.invalid/a:x"]);
    assert_eq!(out.status.code(), Some(7), "{}", describe("shipimg", &["pull"], &out));
}

#[test]
fn has_no_interpreter_and_no_shared_libraries() {
    let binary = fs::read(bin()).unwrap();
    assert_eq!(&binary[..4], b"\x7fELF");
    let header =
        |at: usize, len: usize| binary[at..at + len].iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
    let (table, size, count) = (header(32, 8), header(54, 2), header(56, 2));
    for i in 0..count {
        let kind = header(table + i * size, 4);
        assert!(kind != PT_INTERP && kind != PT_DYNAMIC, "program header {i} has type {kind}");
    }
}
