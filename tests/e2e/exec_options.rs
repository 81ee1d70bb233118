//! `exec` in control groups below the container's, in a paused one, on processors of its own.

use crate::common::bundle::{Bundle, version_2};
use serde_json::json;
use std::fs;

#[test]
fn in_groups_below_the_container() {
    let b = Bundle::new("sleep 60");
    b.start();
    let own = b.group("memory");
    fs::create_dir(own.join("sub")).unwrap();
    let groups = |options: &[&str]| {
        let show = [&b.id, "cat", "/proc/self/cgroup"];
        b.store.ok(&[&["exec"], options, &show].concat())
    };
    let ending = |text: &str| text.lines().filter(|l| l.ends_with(":/sub")).count();
    let lines = groups(&[]);
    assert_eq!(ending(&lines), 0);
    if version_2() {
        assert_eq!(groups(&["--cgroup", "sub"]), "0::/sub\n");
        assert!(b.store.fails(125, &["exec", "--cgroup", "memory:sub", &b.id, "true"]).contains("memory"));
    } else {
        let text = groups(&["--cgroup", "memory:/sub"]);
        assert!(ending(&text) == 1 && text.contains(":memory:/sub\n"), "{text}");
        assert!(b.store.fails(125, &["exec", "--cgroup", "sub", &b.id, "true"]).contains("sub is not there"));
        for controller in ["pids", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio", "systemd"] {
            let own = b.group(controller);
            fs::create_dir(own.join("sub")).unwrap();
            for name in ["cpuset.cpus", "cpuset.mems"].iter().filter(|n| own.join(n).exists()) {
                fs::write(own.join("sub").join(name), fs::read(own.join(name)).unwrap()).unwrap();
            }
        }
        let all = groups(&["--cgroup", "sub"]);
        assert_eq!(ending(&all), lines.lines().filter(|l| !l.starts_with("0::")).count(), "{all}");
        let two = groups(&["--cgroup", "pids,cpu:sub", "--cgroup", "memory:sub"]);
        assert_eq!(ending(&two), 3, "{two}");
    }
    for (wanted, words) in [
        ("../x", "leads upwards"),
        ("none", "none is not there"),
        ("nothing:sub", "the controller \"nothing\""),
    ] {
        let stderr = b.store.fails(125, &["exec", "--cgroup", wanted, &b.id, "true"]);
        assert!(stderr.contains("--cgroup") && stderr.contains(words), "{stderr}");
    }
    b.store.ok(&["delete", "--force", &b.id]);
    b.nothing_left();
}

#[test]
fn in_a_paused_container() {
    let b = Bundle::new("sleep 60");
    b.start();
    b.store.ok(&["pause", &b.id]);
    let mut command = b.store.command();
    let mut exec =
        command.args(["exec", "--ignore-paused", &b.id, "touch", "/dev/shm/begun"]).spawn().unwrap();
    let begun =
        |b: &Bundle| b.store.output(&["exec", &b.id, "test", "-e", "/dev/shm/begun"]).status.success();
    b.wait(|b| b.store.ok(&["ps", "-f", "json", &b.id]).contains(','));
    assert!(exec.try_wait().unwrap().is_none());
    b.store.ok(&["resume", &b.id]);
    assert!(exec.wait().unwrap().success() && begun(&b));
}

#[test]
fn processors_of_their_own() {
    let b = Bundle::new("sleep 60");
    let show = ["exec", &b.id, "grep", "Cpus_allowed_list", "/proc/self/status"];
    b.start();
    let usual = b.store.ok(&show);
    b.store.ok(&["delete", "--force", &b.id]);
    for (affinity, shown) in [
        (json!({"initial": "0", "final": "0"}), "Cpus_allowed_list:\t0\n"),
        (json!({"final": "0"}), "Cpus_allowed_list:\t0\n"),
        (json!({"initial": "0"}), usual.as_str()),
    ] {
        b.change(|c| c["process"]["execCPUAffinity"] = affinity);
        b.start();
        let pid = b.state()["pid"].to_string();
        assert!(fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains(&usual), "not init's");
        assert_eq!(b.store.ok(&show), shown);
        b.store.ok(&["delete", "--force", &b.id]);
    }
    b.change(|c| c["process"]["execCPUAffinity"] = json!({"final": "x"}));
    assert!(b.refused(125).contains("process.execCPUAffinity"));
}
