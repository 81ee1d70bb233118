//! An image from a registry on btrfs, launched in namespaces: what takes skopeo, umoci, btrfs,
//! unshare, mount and `pivot_root` by hand.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::{bin, need_root, ok, output, registry::Registry};
use std::fs;
use std::path::PathBuf;

/// A btrfs filesystem in a file, mounted in a folder of its own.
struct Btrfs(tempfile::TempDir);

impl Btrfs {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let file = dir.path().join("btrfs.img");
        fs::File::create(&file).unwrap().set_len(512 << 20).unwrap();
        ok("mkfs.btrfs", &["-q", file.to_str().unwrap()]);
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let btrfs = Self(dir);
        ok("mount", &["-o", "loop", file.to_str().unwrap(), btrfs.path().to_str().unwrap()]);
        btrfs
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("mnt")
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        output("umount", &["-R", self.path().to_str().unwrap()]);
    }
}

fn alpine_like(layout: &Layout) {
    let busybox = fs::read("/bin/busybox").expect("busybox-static; scripts/test installs it");
    let mut tar =
        Tar::new().dir("bin/").dir("etc/").dir("proc/").dir("dev/").dir("sys/").file("etc/issue", b"lower");
    tar = tar.entry(tar::EntryType::Regular, "bin/busybox", 0o755, "", &busybox);
    for applet in ["sh", "hostname", "echo", "ls", "cat", "mount", "ps", "readlink", "touch", "grep"] {
        tar = tar.symlink(&format!("bin/{applet}"), "busybox");
    }
    let second = Tar::new().dir("etc/").file("etc/alpine-release", b"3.20.0\n").file("etc/.wh.issue", b"");
    let config = serde_json::json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]});
    layout.add("alpine:latest", &[Blob::gzip(&tar.finish()), Blob::gzip(&second.finish())], &config);
}

#[test]
fn from_the_registry_to_process_one_on_btrfs() {
    need_root();
    let work = tempfile::tempdir().unwrap();
    let layout = Layout::new(&work.path().join("layout"));
    alpine_like(&layout);
    let registry = Registry::start();
    let name = registry.fill(&layout, "alpine:latest");
    let btrfs = Btrfs::new();
    let root = btrfs.path().join("store");
    let shipimg = |args: &[&str]| {
        let mut all = vec!["--root", root.to_str().unwrap()];
        all.extend(args);
        ok(bin(), &all)
    };

    shipimg(&["pull", "-q", &name]);
    let bundle = work.path().join("unpacked");
    shipimg(&["unpack", "alpine", bundle.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(bundle.join("rootfs/etc/alpine-release")).unwrap(), "3.20.0\n");
    assert!(!bundle.join("rootfs/etc/issue").exists() && bundle.join("config.json").exists());

    shipimg(&["bundle", "create", "alpine", "tupperware", "--driver", "btrfs"]);
    shipimg(&["bundle", "create", "alpine", "second", "--driver", "btrfs"]);
    let subvolumes = ok("btrfs", &["subvolume", "list", btrfs.path().to_str().unwrap()]);
    assert_eq!(
        subvolumes.lines().count(),
        4,
        "a subvolume per layer chain, a snapshot per bundle:\n{subvolumes}"
    );

    let script = "echo $$; hostname; hostname inner; hostname; echo; cat /proc/self/mountinfo; touch /written; ls /.. ; ps";
    let out = shipimg(&["run", "tupperware", "--", "sh", "-c", script]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["1", "tupperware", "tupperware"], "{out}");
    let mounts: Vec<&str> = lines.iter().filter(|l| l.contains(" - ")).copied().collect();
    assert!(
        !mounts.is_empty() && mounts.iter().all(|m| !m.contains("oldroot") && !m.contains("/boot")),
        "{out}"
    );
    let points: Vec<&str> = mounts.iter().filter_map(|m| m.split(' ').nth(4)).collect();
    assert!(
        points.contains(&"/")
            && points.iter().all(|p| *p == "/" || ["/proc", "/sys", "/dev"].iter().any(|d| p.starts_with(d))),
        "{points:?}"
    );
    assert_ne!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "inner");

    let bundles = root.join("shipimg/bundles");
    assert!(bundles.join("tupperware/rootfs/written").exists());
    assert!(!bundles.join("second/rootfs/written").exists(), "a snapshot of its own");
    shipimg(&["bundle", "delete", "tupperware", "second"]);
    let subvolumes = ok("btrfs", &["subvolume", "list", btrfs.path().to_str().unwrap()]);
    assert_eq!(subvolumes.lines().count(), 2, "the layers stay, the snapshots are gone:\n{subvolumes}");
}
