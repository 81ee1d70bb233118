//! What the runtime specification says beyond the usual container: see `docs/conformance.md`.

use crate::common::bundle::Bundle;
use crate::common::{describe, ok, output};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

#[test]
fn without_a_process() {
    let b = Bundle::new("");
    b.change(|c| drop(c.as_object_mut().unwrap().remove("process")));
    assert!(b.launch("create").status.success());
    assert_eq!(b.state()["status"], "created");
    assert!(b.store.fails(2, &["start", &b.id]).contains("has no process"));
    assert_eq!(b.state()["status"], "created", "a refused start changes nothing");
    assert_eq!(b.store.ok(&["exec", "--env", "PATH=/bin", &b.id, "echo", "inside"]), "inside\n");
    b.store.ok(&["delete", "--force", &b.id]);
    b.nothing_left();
    assert!(b.refused(125).contains("process"));
}

#[test]
fn unknown_properties_have_no_effect() {
    let b = Bundle::new("echo ran");
    b.change(|c| {
        c["later"] = json!({"a": [1]});
        c["process"]["later"] = json!("x");
        c["mounts"][0]["later"] = json!(true);
        // Of later versions of the specification.
        c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
        c["linux"]["netDevices"] = json!({"eth9": {"name": "inside"}});
        c["linux"]["resources"]["later"] = json!({"limit": 1});
        c["windows"] = json!({"layerFolders": ["x"]});
    });
    let out = b.launch("run");
    assert!(out.status.success() && out.stdout == b"ran\n" && out.stderr.is_empty(), "{out:?}");
    b.nothing_left();
}

#[test]
fn operations_need_a_container() {
    let b = Bundle::new("true");
    for command in ["state", "create", "start", "kill", "delete"] {
        assert!(b.store.fails(2, &[command]).contains("required"), "{command}");
    }
    let none = b.dir.join("none");
    let create = ["create", "-b", none.to_str().unwrap(), &b.id];
    assert!(b.store.fails(10, &create).contains(none.to_str().unwrap()));
    for id in ["a/b", "..", ""] {
        assert!(!b.store.fails(2, &["create", "-b", b.dir.to_str().unwrap(), id]).is_empty());
    }
    b.nothing_left();
}

#[test]
fn invalid_values_are_refused() {
    for (path, value, words) in [
        ("/ociVersion", json!("1.0"), "ociVersion"),
        ("/ociVersion", json!("0.9.0"), "ociVersion"),
        ("/ociVersion", json!(1), "invalid type"),
        ("/annotations", json!({"": "x"}), "annotations"),
        ("/annotations", json!({"a": 1}), "invalid type"),
        ("/root/path", json!("config.json"), "not a folder"),
        ("/root/path", json!(""), "root.path"),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOTHING", "soft": 1, "hard": 1}]), "RLIMIT_NOTHING"),
        ("/process/rlimits", json!([{"type": "RLIMIT_CPU", "soft": 9, "hard": 1}]), "setrlimit"),
        ("/process/user/uid", json!(-1), "invalid value"),
        ("/hooks", json!({"poststop": [{"path": "/bin/true", "timeout": 0}]}), "timeout of 0"),
        ("/hooks", json!({"poststop": [{"path": "/bin/true", "timeout": -1}]}), "invalid value"),
        ("/hooks", json!({"poststart": [{"path": "bin/true"}]}), "absolute path"),
        ("/linux/namespaces", json!([{"type": "pid", "path": "proc/self/ns/pid"}]), "absolute path"),
        (
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}),
            "ADDR_NO_RANDOMIZE",
        ),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_LOG", "defaultErrnoRet": 1}), "SCMP_ACT_LOG"),
        ("/linux/resources/rdma", json!({"mlx": {}}), "hcaHandles"),
        ("/linux/cgroupsPath", json!("/a/../../b"), "cgroupsPath"),
    ] {
        let b = Bundle::new("echo never");
        b.change(|c| {
            let (parent, name) = path.rsplit_once('/').unwrap();
            c.pointer_mut(parent).unwrap()[name] = value;
        });
        // Refused before anything is made: no poststop hook runs for it.
        let stderr = b.refused(125);
        assert!(stderr.contains(words), "{path}: {stderr}");
    }
}

#[test]
fn a_root_by_an_absolute_path() {
    let b = Bundle::new("cat /mark; touch /new");
    let moved = b.store.path().join("elsewhere");
    fs::rename(b.rootfs(), &moved).unwrap();
    fs::write(moved.join("mark"), "there\n").unwrap();
    b.change(|c| c["root"] = json!({"path": moved}));
    assert_eq!(b.run(0), "there\n");
    assert!(moved.join("new").exists(), "not read-only where nothing is said");
}

#[test]
fn changes_after_create_have_no_effect() {
    let b = Bundle::new("hostname > /tmp/name; cat /proc/sys/kernel/domainname >> /tmp/name");
    b.change(|c| {
        c["root"]["readonly"] = json!(false);
        c["domainname"] = json!("the.domain");
    });
    assert!(b.launch("create").status.success());
    b.change(|c| {
        c["process"]["args"] = json!(["false"]);
        c["hostname"] = json!("later");
        c["hooks"] = json!({"poststop": [{"path": "/none"}]});
    });
    b.store.ok(&["start", &b.id]);
    b.wait(|b| b.state()["status"] == "stopped");
    let out = b.detached(&["delete", &b.id]);
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    assert_eq!(fs::read_to_string(b.rootfs().join("tmp/name")).unwrap(), "shipimg\nthe.domain\n");
    b.nothing_left();
}

#[test]
fn signals_reach_created_and_running_containers() {
    let b = Bundle::new("trap 'exit 3' USR1; while :; do sleep 0.05; done");
    for signal in ["KILL", "SIGKILL", "9"] {
        assert!(b.launch("create").status.success());
        b.store.ok(&["kill", &b.id, signal]);
        b.wait(|b| b.state()["status"] == "stopped");
        b.store.ok(&["delete", &b.id]);
    }
    b.start();
    assert!(b.store.fails(2, &["kill", &b.id, "NOSUCH"]).contains("NOSUCH"));
    assert_eq!(b.state()["status"], "running");
    b.store.ok(&["kill", &b.id, "KILL"]);
    b.wait(|b| b.state()["status"] == "stopped");
    assert!(b.store.fails(2, &["kill", &b.id, "KILL"]).contains("not running"));
    b.store.ok(&["delete", &b.id]);
    b.nothing_left();
}

#[test]
fn what_fails_stops_the_container() {
    // A failure before the program: an error, the container is gone, poststop has run.
    for point in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let b = Bundle::new("echo never");
        let log = b.dir.join("log");
        let note = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("cat > {}", log.display())]}]);
        b.change(|c| c["hooks"] = json!({point: [{"path": "/bin/false"}], "poststop": note}));
        let text = b.refused(125);
        assert!(text.contains(&format!("{point} hook /bin/false: exit status: 1")), "{text}");
        let state: Value = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
        assert_eq!(state["status"], "stopped", "{point}");
    }
    // A hook in the container fails at `start`, which leaves it stopped.
    let b = Bundle::new("echo never");
    b.change(|c| c["hooks"] = json!({"startContainer": [{"path": "/bin/false"}]}));
    assert!(b.launch("create").status.success());
    assert!(!b.store.fails(1, &["start", &b.id]).is_empty());
    b.wait(|b| b.state()["status"] == "stopped");
    b.store.ok(&["delete", &b.id]);
    b.nothing_left();
}

#[test]
fn failures_afterwards_are_warnings() {
    let b = Bundle::new("echo ran; sleep 0.2");
    let log = b.dir.join("log");
    let note =
        |word| json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo {word} >> {}", log.display())]});
    let failing = json!({"path": "/bin/false"});
    b.change(|c| {
        c["hooks"] = json!({"poststart": [failing, note("started")], "poststop": [failing, note("stopped")]});
    });
    let out = b.launch("run");
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && out.stdout == b"ran\n", "{out:?}");
    assert!(stderr.contains("poststart hook /bin/false") && stderr.contains("poststop hook"), "{stderr}");
    assert_eq!(fs::read_to_string(&log).unwrap(), "started\nstopped\n", "the others run all the same");
    b.nothing_left();
    // The same by single commands; poststop comes with `delete`, not before.
    fs::remove_file(&log).unwrap();
    b.start();
    b.wait(|b| b.state()["status"] == "stopped");
    assert_eq!(fs::read_to_string(&log).unwrap(), "started\n");
    b.store.ok(&["delete", &b.id]);
    assert_eq!(fs::read_to_string(&log).unwrap(), "started\nstopped\n");
}

#[test]
fn a_damaged_state_is_told_and_can_be_deleted() {
    let b = Bundle::new("sleep 600");
    b.start();
    let pid = b.state()["pid"].to_string();
    let alive = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "));
    let file = b.store.path().join("shipimg/containers").join(&b.id).join("state.json");
    for text in ["", "{\"id\": 5}", "{", "null"] {
        fs::write(&file, text).unwrap();
        for command in ["state", "start", "kill", "delete"] {
            let told = b.store.fails(2, &[command, &b.id]);
            assert!(told.contains("state.json"), "{command}: {told}");
        }
        assert!(b.store.fails(125, &["exec", &b.id, "true"]).contains("state.json"));
        let list = b.store.output(&["list", "-q"]);
        assert!(list.status.success() && list.stdout.is_empty(), "{}", describe("list", &[""; 0], &list));
        assert!(String::from_utf8_lossy(&list.stderr).contains("state.json"), "{list:?}");
        assert!(String::from_utf8_lossy(&b.launch("create").stderr).contains("already exists"));
        assert!(alive(), "{text}");
    }
    b.store.ok(&["delete", "--force", &b.id]);
    b.wait(|_| !alive());
    b.nothing_left();
}

#[test]
fn a_process_that_does_not_end_is_told_in_time() {
    // A write to a frozen file system sits in the kernel, and no signal ends it.
    struct Frozen(PathBuf);
    impl Drop for Frozen {
        fn drop(&mut self) {
            let _ = output("fsfreeze", &["-u".as_ref(), self.0.as_os_str()]);
            let _ = output("umount", &["-l".as_ref(), self.0.as_os_str()]);
        }
    }
    let b = Bundle::new("while :; do echo x >> /data/f; done");
    let disk = tempfile::tempdir().unwrap();
    let (image, place) = (disk.path().join("image"), disk.path().join("mnt"));
    fs::create_dir(&place).unwrap();
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    ok("mkfs.ext4", &[image.as_path()]);
    ok("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), place.as_os_str()]);
    let frozen = Frozen(place.clone());
    fs::create_dir(b.rootfs().join("data")).unwrap();
    b.add_mount(json!({"destination": "/data", "source": place, "options": ["bind"]}));
    b.start();
    let pid = b.state()["pid"].to_string();
    b.wait(|_| place.join("f").exists());
    ok("fsfreeze", &["-f".as_ref(), place.as_os_str()]);
    b.wait(|_| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") D "));
    assert_eq!(b.store.ok(&["exec", &b.id, "echo", "entered"]), "entered\n");
    b.store.ok(&["kill", &b.id, "KILL"]);
    let begin = std::time::Instant::now();
    let told = b.store.fails(1, &["delete", "--force", &b.id]);
    assert!(told.contains("did not end within 10 s"), "{told}");
    assert!(begin.elapsed().as_secs() < 25);
    assert_eq!(b.state()["status"], "running", "it is still there");
    ok("fsfreeze", &["-u".as_ref(), place.as_os_str()]);
    b.store.ok(&["delete", "--force", &b.id]);
    drop(frozen);
    b.nothing_left();
}

#[test]
fn frozen_before_start() {
    let b = Bundle::new("true");
    assert!(b.launch("create").status.success());
    b.store.ok(&["pause", &b.id]);
    assert!(b.store.fails(2, &["start", &b.id]).contains("paused"));
    // With both versions of control groups that end comes without `resume`.
    b.store.ok(&["kill", &b.id, "KILL"]);
    b.wait(|b| b.state()["status"] == "stopped");
    b.store.ok(&["delete", &b.id]);
    b.nothing_left();
}
