//! The README's tour: every command in it is run, in its order.

use crate::common::layout::{Blob, Layout, Tar};
use crate::common::{TestStore, bin, collect, need_root, ok, registry::Registry};
use std::path::Path;
use std::process::{Command, Stdio};

fn commands() -> Vec<String> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let tour = readme.split("## A five-minute tour").nth(1).unwrap().split("\n## ").next().unwrap();
    tour.lines().filter_map(|l| l.strip_prefix("$ ")).map(str::to_string).collect()
}

#[test]
fn every_command_of_the_tour_works() {
    need_root();
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    let store = TestStore::new();
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let layout = Layout::new(&work.path().join("layout"));
    let registry = Registry::start();
    busybox_image(&layout, work.path());
    registry.fill(&layout, "debian:bookworm");
    // Locks are written beside them.
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    ok("cp", &["-r", recipes.to_str().unwrap(), work.path().to_str().unwrap()]);
    let path = format!("{}:{}", Path::new(bin()).parent().unwrap().display(), std::env::var("PATH").unwrap());
    for command in commands {
        let command = command.replace("localhost:5000", &registry.host());
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).current_dir(work.path()).stdin(Stdio::null());
        let out = collect(shell.env("PATH", &path).env("SHIPIMG_ROOT", store.path()));
        let text =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "$ {command}\n{text}");
        for (part, wanted) in [
            ("cat /etc/debian_version", "12."),
            ("file bookworm.img", "ext4 filesystem"),
            ("exec lab", "eth0"),
            ("echo \"process", "process 1 of "),
            ("ls unpacked", "config.json"),
            ("ls busybox", "bin"),
            ("logs web", "serving"),
            ("wait web", "137"),
            ("tags ", "1\n"),
            ("history ", "SIZE"),
            ("fsck", "whole"),
        ] {
            assert!(!command.contains(part) || text.contains(wanted), "$ {command}\n{text}");
        }
        if command == "ls busybox" {
            assert!(!text.contains("gone"), "{text}");
        }
    }
}

/// An image under the tour's name that has a shell, `hostname` and `echo`.
fn busybox_image(layout: &Layout, work: &Path) {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static; scripts/test installs it");
    let mut tar = Tar::new().dir("bin/").entry(tar::EntryType::Regular, "bin/busybox", 0o755, "", &busybox);
    for applet in ["sh", "hostname", "echo", "ls", "cat", "true", "sleep", "touch"] {
        tar = tar.symlink(&format!("bin/{applet}"), "busybox");
    }
    layout.add("debian:bookworm", &[Blob::gzip(&tar.finish())], &serde_json::json!({"Cmd": ["/bin/true"]}));
    ok("skopeo", &["inspect", &format!("oci:{}:debian:bookworm", work.join("layout").display())]);
}
