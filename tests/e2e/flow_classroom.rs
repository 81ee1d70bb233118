//! A busybox root with a throw-away snapshot per launch: what takes a hand-made overlay, a
//! nonce and chroot otherwise, with the holes that those leave closed.

use crate::common::{TestStore, need_root};
use std::fs;
use std::path::Path;

#[test]
fn every_launch_gets_a_fresh_root() {
    need_root();
    let store = TestStore::new();
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Its lock is written beside it.
    let recipe = work.path().join("busybox.toml");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/busybox.toml"), &recipe).unwrap();
    let out = store.command().arg("build").arg(&recipe).current_dir(work.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let root = work.path().join("busybox");
    assert!(fs::symlink_metadata(root.join("bin/ls")).unwrap().is_symlink());
    let before = listing(&root);

    let dir = root.display().to_string();
    let launch = |name: &str, script: &str| {
        store.ok(&["run", "--ephemeral", "--name", name, &dir, "--", "sh", "-c", script])
    };
    let script = "hostname; echo $$; ls /proc | grep -c '^[0-9]'; cat /proc/net/dev | wc -l; touch /made; rm /bin/vi; ls /made";
    assert_eq!(launch("one", script).lines().collect::<Vec<_>>()[..2], ["one", "1"]);
    let second = launch(
        "two",
        "hostname; ls -d /bin/vi; ls / | grep -c made; for n in pid mnt net uts ipc cgroup; do readlink /proc/self/ns/$n; done; true",
    );
    let lines: Vec<&str> = second.lines().collect();
    assert_eq!(lines[..3], ["two", "/bin/vi", "0"], "{second}");
    for namespace in &lines[3..] {
        let kind = namespace.split(':').next().unwrap();
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(own.to_str().unwrap(), *namespace, "{kind} is shared with the host");
    }
    assert_eq!(lines.len(), 9, "{second}");

    assert_eq!(listing(&root), before, "nothing was written into the folder");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&store.path().display().to_string()), "{mounts}");
    for area in ["tmp", "bundles", "containers"] {
        let left: Vec<_> =
            fs::read_dir(store.path().join("shipimg").join(area)).into_iter().flatten().collect();
        assert!(left.is_empty(), "{area}: {left:?}");
    }
}

#[test]
fn the_prompt_names_the_container() {
    need_root();
    let store = TestStore::new();
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = work.path().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static; scripts/test installs it");
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    let command = format!(
        "{} --root {} run --ephemeral --name crane {} -- sh",
        crate::common::bin(),
        store.path().display(),
        root.display()
    );
    // script(1) gives the command a terminal.
    let mut child = std::process::Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"exit 7\n").unwrap();
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("crane:"), "{text}");
    assert_eq!(out.status.code(), Some(7), "{text}");
}

fn listing(dir: &Path) -> Vec<String> {
    crate::common::ok("find", &[dir.as_os_str(), "-printf".as_ref(), "%p %y %m %s %T@ %l\n".as_ref()])
        .lines()
        .map(str::to_string)
        .collect()
}
