//! What the runtime specification says beyond the usual container: see `docs/conformance.md`.

use crate::common::bundle::{Bundle, version_2};
use crate::common::{describe, ok, output};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn add_mount(b: &Bundle, mount: Value) {
    b.change(|c| c["mounts"].as_array_mut().unwrap().push(mount));
}

fn add_capability(c: &mut Value, name: &str) {
    for set in ["bounding", "effective", "permitted"] {
        c["process"]["capabilities"][set].as_array_mut().unwrap().push(json!(name));
    }
}

/// The host's control group of `id` with the controller `name`.
fn group(name: &str, id: &str) -> PathBuf {
    let name = if version_2() { "" } else { name };
    Path::new("/sys/fs/cgroup").join(name).join(id.trim_start_matches('/'))
}

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
fn propagation_of_the_root() {
    for (value, field) in [
        ("private", ""),
        ("rprivate", ""),
        ("slave", "master:"),
        ("rslave", "master:"),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
    ] {
        let b = Bundle::new(
            "grep ' / / ' /proc/self/mountinfo || grep '^[0-9]* [0-9]* [0-9:]* [^ ]* / ' /proc/self/mountinfo",
        );
        b.change(|c| c["linux"]["rootfsPropagation"] = json!(value));
        // The host's mounts may be private: in a mount namespace where they are shared.
        let root = b.store.path().to_str().unwrap();
        let args = ["-m", "--propagation", "shared", crate::common::bin(), "--root", root, "run", "-b"];
        let out = output("unshare", &[&args[..], &[b.dir.to_str().unwrap(), &b.id]].concat());
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{value}: {out:?}");
        let fields = text.lines().next().unwrap().split(" - ").next().unwrap();
        let optional: Vec<_> = fields.split(' ').skip(6).collect();
        if field.is_empty() {
            assert_eq!(optional, [""; 0], "{value}: {text}");
        } else {
            assert!(optional.iter().any(|f| f.starts_with(field)), "{value}: {text}");
        }
        b.nothing_left();
    }
    let b = Bundle::new("true");
    b.change(|c| c["linux"]["rootfsPropagation"] = json!("sideways"));
    assert!(b.refused(125).contains("rootfsPropagation"));
}

#[test]
fn propagation_of_a_volume() {
    for (option, seen) in [("rshared", true), ("rslave", false), ("rprivate", false)] {
        let b = Bundle::new("mount -t tmpfs inner /vol/in && touch /vol/in/made");
        b.change(|c| add_capability(c, "CAP_SYS_ADMIN"));
        fs::create_dir_all(b.dir.join("vol/in")).unwrap();
        fs::create_dir(b.rootfs().join("vol")).unwrap();
        if option == "rshared" {
            b.change(|c| c["linux"]["rootfsPropagation"] = json!("shared"));
        }
        add_mount(&b, json!({"destination": "/vol", "source": "vol", "options": ["rbind", option]}));
        let script = "cd \"$3\" && mount --bind vol vol && mount --make-shared vol && \
             \"$1\" --root \"$2\" run -b . \"$4\" && ls vol/in";
        let args = ["-m", "--propagation", "private", "sh", "-ec", script, "sh", crate::common::bin()];
        let rest = [b.store.path().to_str().unwrap(), b.dir.to_str().unwrap(), &b.id];
        let out = ok("unshare", &[&args[..], &rest].concat());
        assert_eq!(out == "made\n", seen, "{option}: {out:?}");
        b.nothing_left();
    }
}

#[test]
fn mounts_below_mounts() {
    let b = Bundle::new(
        "ls /a /a/b /a/b/c; touch /a/b/c/f && echo written; grep -c ' /rel/ative ' /proc/self/mountinfo; touch /ro/sub/f 2>/dev/null || echo closed",
    );
    fs::create_dir_all(b.dir.join("tree/sub")).unwrap();
    fs::create_dir(b.rootfs().join("ro")).unwrap();
    b.change(|c| c["root"]["readonly"] = json!(false));
    for place in ["/a", "/a/b", "/a/b/c"] {
        add_mount(&b, json!({"destination": place, "type": "tmpfs", "source": "tmpfs"}));
    }
    add_mount(&b, json!({"destination": "/ro", "source": "tree", "options": ["rbind", "rro"]}));
    // A relative destination, as old tools have it, is one below the root.
    add_mount(&b, json!({"destination": "rel/ative", "type": "tmpfs", "source": "tmpfs"}));
    let script = "mount -t tmpfs t \"$3/tree/sub\" && exec \"$1\" --root \"$2\" run -b \"$3\" \"$4\"";
    let args = ["-m", "sh", "-ec", script, "sh", crate::common::bin(), b.store.path().to_str().unwrap()];
    let out = ok("unshare", &[&args[..], &[b.dir.to_str().unwrap(), &b.id]].concat());
    assert_eq!(out, "/a:\nb\n\n/a/b:\nc\n\n/a/b/c:\nwritten\n1\nclosed\n");
    b.nothing_left();
}

#[test]
fn devices_of_all_types() {
    let b = Bundle::new(
        "for d in char block fifo sub/dir/null; do stat -c '%n %F %t:%T %a %u:%g' /dev/$d; done; stat -c %a /dev/null",
    );
    b.change(|c| {
        c["linux"]["devices"] = json!([
            {"path": "/dev/char", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8},
            {"path": "/dev/block", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600},
            {"path": "/dev/fifo", "type": "p", "fileMode": 0o622, "uid": 1},
            {"path": "/dev/sub/dir/null", "type": "u", "major": 1, "minor": 3},
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600},
        ]);
    });
    assert_eq!(
        b.run(0),
        "/dev/char character special file a:e5 640 7:8\n/dev/block block special file 7:c8 600 0:0\n\
         /dev/fifo fifo 0:0 622 1:0\n/dev/sub/dir/null character special file 1:3 666 0:0\n600\n"
    );
    // What is at the path already, and something else, is refused.
    b.change(|c| {
        c["linux"]["devices"] = json!([
            {"path": "/dev/x", "type": "c", "major": 1, "minor": 3},
            {"path": "/dev/x", "type": "c", "major": 1, "minor": 5},
        ]);
    });
    assert!(b.refused(125).contains("something else is at /dev/x"));
    b.change(|c| c["linux"]["devices"] = json!([{"path": "/dev/x", "type": "z"}]));
    assert!(b.refused(125).contains("unknown type"));
}

#[test]
fn priority_of_the_disk() {
    for (class, priority, shown) in
        [("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"), ("IOPRIO_CLASS_IDLE", 0, "idle")]
    {
        let b = Bundle::new("sleep 60");
        b.change(|c| c["process"]["ioPriority"] = json!({"class": class, "priority": priority}));
        b.start();
        let shows = ok("ionice", &["-p", &b.state()["pid"].to_string()]);
        assert_eq!(shows.trim(), shown);
    }
    let b = Bundle::new("true");
    b.change(|c| c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_NONE", "priority": 0}));
    assert!(b.refused(125).contains("ioPriority"));
}

#[test]
fn scheduling_policy() {
    for (scheduler, policy, nice) in [
        (json!({"policy": "SCHED_BATCH", "nice": 5}), "SCHED_BATCH", "5"),
        (
            json!({"policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            "SCHED_IDLE|SCHED_RESET_ON_FORK",
            "0",
        ),
        (json!({"policy": "SCHED_OTHER", "nice": -7}), "SCHED_OTHER", "-7"),
    ] {
        let b = Bundle::new("");
        b.change(|c| {
            c["process"]["scheduler"] = scheduler;
            c["process"]["args"] = json!(["sleep", "60"]);
        });
        b.start();
        let pid = b.state()["pid"].to_string();
        let shows = ok("chrt", &["-p", &pid]);
        assert!(shows.lines().next().unwrap().ends_with(&format!(" {policy}")), "{shows}");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert_eq!(stat.split(' ').nth(18).unwrap(), nice, "{stat}");
    }
    for scheduler in [
        json!({"policy": "SCHED_BEST"}),
        json!({"policy": "SCHED_OTHER", "nice": 20}),
        json!({"policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_NONE"]}),
    ] {
        let b = Bundle::new("true");
        b.change(|c| c["process"]["scheduler"] = scheduler);
        assert!(b.refused(125).contains("process.scheduler"));
    }
}

#[test]
fn a_session_keyring_of_its_own() {
    let b = Bundle::new("cat /proc/keys");
    b.change(|c| c["linux"]["maskedPaths"] = json!([]));
    let name = format!("_ses.{}", b.id);
    assert!(b.run(0).contains(&name));
    // Under another name: the kernel takes its time to forget the first.
    let other = format!("{}-kept", b.id);
    let name = format!("_ses.{other}");
    let out = b.detached(&["run", "--no-new-keyring", "-b", b.dir.to_str().unwrap(), &other]);
    assert!(out.status.success() && !String::from_utf8_lossy(&out.stdout).contains(&name), "{out:?}");
}

#[test]
fn adjusts_the_out_of_memory_score() {
    for value in [0, 500, 1000] {
        let b = Bundle::new("cat /proc/self/oom_score_adj");
        b.change(|c| c["process"]["oomScoreAdj"] = json!(value));
        assert_eq!(b.run(0), format!("{value}\n"));
    }
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
fn control_groups_of_others_stay() {
    // One that was there before, empty: used, and left where it is.
    let b = Bundle::new("cat /proc/self/cgroup; sleep 60");
    let path = format!("/theirs-{}", b.id);
    let theirs = group("pids", &path);
    let sub = theirs.join("below");
    fs::create_dir(&theirs).unwrap();
    b.change(|c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"]["pids"] = json!({"limit": 33});
    });
    b.start();
    assert_eq!(fs::read_to_string(theirs.join("pids.max")).unwrap(), "33\n");
    assert_eq!(
        fs::read_to_string(theirs.join("cgroup.procs")).unwrap().lines().next().unwrap(),
        b.state()["pid"].to_string()
    );
    fs::create_dir(&sub).unwrap();
    b.store.ok(&["delete", "-f", &b.id]);
    assert!(sub.is_dir(), "not made by the container");
    assert!(version_2() || !group("memory", &path).exists(), "made by the container");
    // One with a process in it is not taken: the process would end with the container.
    let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    fs::write(sub.join("cgroup.procs"), other.id().to_string()).unwrap();
    for path in [path.as_str(), "/"] {
        b.change(|c| c["linux"]["cgroupsPath"] = json!(path));
        assert!(b.refused(125).contains("has processes in it"), "{path}");
    }
    assert!(other.try_wait().unwrap().is_none(), "it still runs");
    other.kill().unwrap();
    other.wait().unwrap();
    fs::remove_dir(sub).unwrap();
    fs::remove_dir(theirs).unwrap();
}

#[test]
fn the_same_name_in_two_stores() {
    let (a, mut b) = (Bundle::new("sleep 60"), Bundle::new("sleep 60"));
    b.id.clone_from(&a.id);
    a.start();
    b.start();
    b.store.ok(&["delete", "--force", &b.id]);
    assert_eq!(a.state()["status"], "running");
    a.store.ok(&["delete", "--force", &a.id]);
    a.nothing_left();
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
    add_mount(&b, json!({"destination": "/data", "source": place, "options": ["bind"]}));
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

#[test]
fn without_standard_streams() {
    let b = Bundle::new("echo out; echo err >&2; cat; ls /proc/self/fd > /tmp/fds; exit 4");
    b.change(|c| c["root"]["readonly"] = json!(false));
    let command = |word: &str| {
        format!(
            "{} --root {} {word} -b {} {} <&- >&- 2>&-",
            crate::common::bin(),
            b.store.path().display(),
            b.dir.display(),
            b.id
        )
    };
    let out = output("sh", &["-c", &command("run")]);
    assert_eq!((out.status.code(), out.stdout.len(), out.stderr.len()), (Some(4), 0, 0));
    assert_eq!(fs::read_to_string(b.rootfs().join("tmp/fds")).unwrap(), "0\n1\n2\n3\n");
    b.nothing_left();
    assert!(output("sh", &["-c", &command("create")]).status.success());
    b.store.ok(&["start", &b.id]);
    b.wait(|b| b.state()["status"] == "stopped");
    b.store.ok(&["delete", &b.id]);
    b.nothing_left();
}

#[test]
fn a_volume_that_begins_with_what_it_covers() {
    let b = Bundle::new(
        "cd /srv && cat a/f && stat -c '%a %u:%g %Y' a/f a && readlink l && stat -c %a . && touch new && \
         touch /ro/new 2>/dev/null || echo closed; cat /ro/x; grep -c ' /srv .* tmpfs ' /proc/self/mountinfo",
    );
    let srv = b.rootfs().join("srv");
    fs::create_dir_all(srv.join("a")).unwrap();
    fs::write(srv.join("a/f"), "covered\n").unwrap();
    std::os::unix::fs::symlink("a/f", srv.join("l")).unwrap();
    fs::create_dir(b.rootfs().join("ro")).unwrap();
    fs::write(b.rootfs().join("ro/x"), "x\n").unwrap();
    let path = |p: &str| srv.join(p).display().to_string();
    ok("chmod", &["640", &path("a/f")]);
    ok("chmod", &["2750", &path("a")]);
    ok("chmod", &["1771", &path(".")]);
    ok("chown", &["5:6", &path("a/f"), &path("a")]);
    ok("touch", &["-d", "@1000000", &path("a/f"), &path("a")]);
    ok("chmod", &["640", &path("a/f")]);
    ok("chmod", &["2750", &path("a")]);
    for (place, options) in [("/srv", json!(["tmpcopyup", "nosuid"])), ("/ro", json!(["tmpcopyup", "ro"]))] {
        add_mount(&b, json!({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options}));
    }
    assert_eq!(b.run(0), "covered\n640 5:6 1000000\n2750 5:6 1000000\na/f\n1771\nclosed\nx\n1\n");
    assert!(!srv.join("new").exists(), "what is covered stays as it is");
    // Through a link that leads out of the root: a folder inside is meant.
    std::os::unix::fs::symlink("/etc", b.rootfs().join("out")).unwrap();
    fs::write(b.rootfs().join("etc/mine"), "mine\n").unwrap();
    b.change(|c| {
        c["process"]["args"] = json!(["ls", "/out"]);
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| m["destination"] != "/srv" && m["destination"] != "/ro");
    });
    add_mount(&b, json!({"destination": "/out", "type": "tmpfs", "options": ["tmpcopyup"]}));
    assert_eq!(b.run(0), "mine\n");
}

#[test]
fn limits_beyond_the_usual_ones() {
    let b = Bundle::new(
        "cd /sys/fs/cgroup; if test -e cgroup.controllers; then cat cpu.idle cpu.max memory.low cpuset.cpus io.max; exit; fi; \
         cat cpu/cpu.idle cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us memory/memory.soft_limit_in_bytes; \
         head -1 cpuset/cpuset.cpus; cat blkio/blkio.throttle.read_bps_device",
    );
    // A disk that is there, whichever it is.
    let disk = fs::read_dir("/sys/block")
        .unwrap()
        .flatten()
        .find(|e| !e.file_name().to_string_lossy().starts_with("loop"))
        .map(|e| fs::read_to_string(e.path().join("dev")).unwrap().trim().to_string());
    let throttle = disk.iter().map(|disk| {
        let (major, minor) = disk.split_once(':').unwrap();
        let number = |s: &str| s.parse::<u32>().unwrap();
        json!({"major": number(major), "minor": number(minor), "rate": 123_456})
    });
    b.change(|c| {
        c["linux"]["resources"] = json!({
            "cpu": {"idle": 1, "quota": 20_000, "period": 50_000, "cpus": "0"},
            "memory": {"reservation": 32 << 20},
            "blockIO": {"throttleReadBpsDevice": throttle.collect::<Vec<_>>()},
        });
    });
    let (start, rate) = if version_2() {
        ("1\n20000 50000\n33554432\n0\n", "rbps=123456 wbps=max riops=max wiops=max")
    } else {
        ("1\n20000\n50000\n33554432\n0\n", "123456")
    };
    let line = disk.map(|disk| format!("{disk} {rate}\n")).unwrap_or_default();
    assert_eq!(b.run(0), format!("{start}{line}"));
    // What this machine has no file for is an error, and never silence.
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let there = |name: &str| {
        Path::new("/sys/fs/cgroup").join(name).exists() || controllers.split_whitespace().any(|c| c == name)
    };
    for (resources, file, controller) in [
        (json!({"network": {"classID": 5}}), "net_cls.classid", "net_cls"),
        (
            json!({"network": {"priorities": [{"name": "lo", "priority": 1}]}}),
            "net_prio.ifpriomap",
            "net_prio",
        ),
        (json!({"rdma": {"x": {"hcaHandles": 1}}}), "rdma.max", "rdma"),
        (json!({"blockIO": {"leafWeight": 20}}), "blkio.leaf_weight", "blkio/blkio.leaf_weight"),
    ] {
        if !there(controller) {
            b.change(|c| c["linux"]["resources"] = resources);
            assert!(
                b.refused(125).contains(&format!("control group file {file} is not supported")),
                "{file}"
            );
        }
    }
}

#[test]
fn a_namespace_of_another_type_is_refused() {
    for (kind, file) in [("network", "ipc"), ("pid", "net"), ("ipc", "uts")] {
        let b = Bundle::new("true");
        b.change(|c| {
            let list = c["linux"]["namespaces"].as_array_mut().unwrap();
            let entry = list.iter_mut().find(|n| n["type"] == kind).unwrap();
            entry["path"] = json!(format!("/proc/self/ns/{file}"));
        });
        assert!(b.refused(125).contains(&format!("/ns/{file}")), "{kind}");
        b.change(|c| {
            let list = c["linux"]["namespaces"].as_array_mut().unwrap();
            list.iter_mut().find(|n| n["type"] == kind).unwrap()["path"] = json!("/proc/none");
        });
        assert!(b.refused(125).contains("/proc/none"), "{kind}");
    }
}
