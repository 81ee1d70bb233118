//! A Debian image file, a copy-on-write container over it, a private network: what takes dd,
//! mkfs, losetup, debootstrap, mount, ip netns, sed and crun by hand.

use crate::common::{TestStore, layout::sha256, need_root, ok, output};
use std::fs;
use std::path::Path;

/// A named network namespace with one end of a veth pair, called `eth0`, both ends up.
struct Netns(String);

impl Netns {
    fn new() -> Self {
        let name = format!("shipimg-test-{}", std::process::id());
        let (inside, outside) = (format!("i{}", std::process::id()), format!("o{}", std::process::id()));
        let netns = Self(name.clone());
        ok("ip", &["netns", "add", &name]);
        ok("ip", &["link", "add", &outside, "type", "veth", "peer", "name", &inside]);
        ok("ip", &["link", "set", &inside, "netns", &name]);
        for command in [
            &["link", "set", &inside, "name", "eth0"][..],
            &["link", "set", "lo", "up"],
            &["link", "set", "eth0", "up"],
        ] {
            let mut all = vec!["-n", &name];
            all.extend(command);
            ok("ip", &all);
        }
        ok("ip", &["link", "set", &outside, "up"]);
        netns
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        output("ip", &["netns", "delete", &self.0]);
    }
}

/// Mounts and loop devices that have to do with the folder.
fn left_on_the_host(dir: &Path) -> String {
    let dir = dir.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let loops = ok("losetup", &["-l", "-n", "-O", "NAME,BACK-FILE"]);
    mounts.lines().chain(loops.lines()).filter(|l| l.contains(&dir)).collect::<Vec<_>>().join("\n")
}

#[test]
fn image_file_overlay_and_network_namespace() {
    need_root();
    let store = TestStore::new();
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let image = work.path().join("bookworm.img").display().to_string();
    store.ok(&["mkimg", &image, "--include", "openssh-client,vim,bash-completion,net-tools,tcpdump,tini"]);
    assert_eq!(left_on_the_host(work.path()), "");
    ok("e2fsck", &["-fn", &image]);
    let before = sha256(&fs::read(&image).unwrap());

    let netns = Netns::new();
    let net = format!("ns:{}", netns.0);
    store.ok(&[
        "bundle",
        "create",
        &image,
        "lab",
        "--driver",
        "image",
        "--cap-add",
        "NET_RAW,NET_ADMIN",
        "--net",
        &net,
        "--rw",
        "--",
        "/usr/bin/tini",
        "--",
        "sleep",
        "infinity",
    ]);
    store.ok(&["create", "lab"]);
    let state = |wanted: &str| {
        let state: serde_json::Value = serde_json::from_str(&store.ok(&["state", "lab"])).unwrap();
        assert_eq!(state["status"], wanted, "{state}");
    };
    state("created");
    store.ok(&["start", "lab"]);
    state("running");
    assert!(store.ok(&["list"]).lines().any(|l| l.starts_with("lab ") && l.contains("running")));

    let sh = |script: &str| store.ok(&["exec", "lab", "--", "sh", "-c", script]);
    assert_eq!(sh("hostname").trim(), "lab");
    assert!(sh("ifconfig eth0").contains("UP"), "the namespace's eth0 is there and up");
    assert_eq!(sh("readlink /proc/1/exe").trim(), "/usr/bin/tini");
    let capabilities = sh("grep CapEff /proc/self/status");
    let effective = u64::from_str_radix(capabilities.split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_eq!(effective >> 12 & 3, 3, "NET_ADMIN and NET_RAW: {capabilities}");
    sh("ifconfig eth0 10.99.0.2/24 && echo changed > /etc/motd && rm /etc/issue && vim --version && ssh -V");
    assert!(Path::new(&format!("{}/shipimg/bundles/lab/upper/etc/motd", store.path().display())).exists());

    store.ok(&["kill", "lab", "KILL"]);
    store.ok(&["delete", "--force", "lab"]);
    assert_eq!(store.output(&["state", "lab"]).status.code(), Some(10));
    store.ok(&["bundle", "delete", "lab"]);
    assert_eq!(left_on_the_host(work.path()), "");
    assert_eq!(left_on_the_host(store.path()), "");
    assert_eq!(sha256(&fs::read(&image).unwrap()), before, "the image file is never written");

    let out = store.ok(&[
        "run",
        "--net",
        &net,
        &image,
        "--",
        "sh",
        "-c",
        "cat /proc/net/dev; test -e /etc/issue && echo fresh",
    ]);
    assert!(out.contains("eth0") && out.contains("fresh"), "{out}");
    let out = store.ok(&["run", "--net", "private", &image, "--", "ifconfig", "eth0"]);
    assert!(out.contains("UP"), "{out}");
    assert_eq!(left_on_the_host(work.path()), "");
    assert_eq!(left_on_the_host(store.path()), "");
}
