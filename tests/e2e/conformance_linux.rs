//! What the runtime specification says of Linux (`config-linux.md`): see `docs/conformance.md`.

use crate::common::bundle::{Bundle, version_2};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The host's control group of `id` with the controller `name`.
fn group(name: &str, id: &str) -> PathBuf {
    let name = if version_2() { "" } else { name };
    Path::new("/sys/fs/cgroup").join(name).join(id.trim_start_matches('/'))
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

#[test]
fn namespaces_that_are_not_named_are_the_callers() {
    let b = Bundle::new("for n in cgroup ipc net pid time user uts; do readlink /proc/self/ns/$n; done");
    b.change(|c| {
        c["linux"]["namespaces"] = json!([{"type": "mount"}]);
        c.as_object_mut().unwrap().remove("hostname");
        // Of the host's network namespace only its owner makes one.
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.retain(|m| m["type"] != "sysfs" && m["type"] != "mqueue");
    });
    let names = ["cgroup", "ipc", "net", "pid", "time", "user", "uts"];
    let own = names.map(|n| format!("{}\n", fs::read_link(format!("/proc/self/ns/{n}")).unwrap().display()));
    assert_eq!(b.run(0), own.concat());
}

#[test]
fn devices_outside_of_dev_and_of_user_namespaces() {
    let b = Bundle::new("stat -c '%n %F %t:%T' /srv/node /dev/queue; head -c1 /srv/node | wc -c");
    b.change(|c| {
        c["linux"]["devices"] = json!([
            {"path": "/srv/node", "type": "c", "major": 1, "minor": 5},
            {"path": "/dev/queue", "type": "p"},
        ]);
    });
    fs::create_dir(b.rootfs().join("srv")).unwrap();
    assert_eq!(b.run(0), "/srv/node character special file 1:5\n/dev/queue fifo 0:0\n1\n");
    // In a user namespace nodes are the host's, which must be the same there.
    let devices = |list: Value| {
        let b = Bundle::new("stat -c '%n %F' /dev/zero /dev/full /dev/queue");
        b.change(|c| {
            c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            for name in ["uidMappings", "gidMappings"] {
                c["linux"][name] = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
            }
            c["linux"]["devices"] = list;
        });
        b
    };
    let b = devices(json!([
        {"path": "/dev/full", "type": "c", "major": 1, "minor": 7},
        {"path": "/dev/queue", "type": "p"},
    ]));
    assert_eq!(
        b.run(0),
        "/dev/zero character special file\n/dev/full character special file\n/dev/queue fifo\n"
    );
    let b = devices(json!([{"path": "/dev/full", "type": "c", "major": 1, "minor": 5}]));
    assert!(b.refused(125).contains("the host has something else at /dev/full"));
}

#[test]
fn files_keep_their_owners_in_a_user_namespace() {
    let b = Bundle::new("stat -c %u /bin/busybox; touch /tmp/made");
    b.change(|c| {
        c["root"]["readonly"] = json!(false);
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        for name in ["uidMappings", "gidMappings"] {
            c["linux"][name] = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        }
    });
    for path in [b.store.path(), &b.dir] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(b.rootfs().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(b.run(0), "65534\n");
    assert_eq!(fs::metadata(b.rootfs().join("bin/busybox")).unwrap().uid(), 0);
    assert_eq!(fs::metadata(b.rootfs().join("tmp/made")).unwrap().uid(), 100_000);
}

#[test]
fn the_owner_of_a_group_that_may_be_written_to() {
    for (option, shared) in [("rw", false), ("ro", false), ("rw", true)] {
        let b = Bundle::new("sleep 60");
        b.change(|c| {
            c["process"]["user"] = json!({"uid": 77, "gid": 77});
            let mounts = c["mounts"].as_array_mut().unwrap();
            mounts.iter_mut().find(|m| m["destination"] == "/sys/fs/cgroup").unwrap()["options"] =
                json!([option]);
            if shared {
                // The group is not the container's alone.
                let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|n| n["type"] != "cgroup");
            }
        });
        b.start();
        let group = b.group("memory");
        let owner = |name: &str| fs::metadata(group.join(name)).unwrap().uid();
        let given = version_2() && option == "rw" && !shared;
        let expected = if given { [77, 77, 77, 0] } else { [0; 4] };
        let files = if version_2() {
            ["", "cgroup.procs", "cgroup.threads", "cgroup.stat"]
        } else {
            ["", "cgroup.procs", "tasks", ""]
        };
        assert_eq!(files.map(owner), expected, "{option}");
        b.store.ok(&["delete", "--force", &b.id]);
        b.nothing_left();
    }
}

#[test]
fn the_same_path_is_the_same_place() {
    for path in ["/conf-same", "conf-same"] {
        let places = [(); 2].map(|()| {
            let b = Bundle::new("sleep 60");
            let path = format!("{path}-{}", std::process::id());
            b.change(|c| c["linux"]["cgroupsPath"] = json!(path));
            b.start();
            let pid = b.state()["pid"].to_string();
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            assert!(groups.lines().all(|l| l.ends_with(path.trim_start_matches('/'))), "{groups}");
            b.store.ok(&["delete", "--force", &b.id]);
            groups
        });
        assert_eq!(places[0], places[1]);
    }
}

#[test]
fn files_of_the_unified_hierarchy() {
    let b = Bundle::new("sleep 60");
    b.change(|c| {
        c["linux"]["resources"]["unified"] = json!({"cgroup.max.depth": "7", "cgroup.max.descendants": "9"});
    });
    b.start();
    let file = |name: &str| fs::read_to_string(b.group("unified").join(name)).unwrap();
    assert_eq!((file("cgroup.max.depth"), file("cgroup.max.descendants")), ("7\n".into(), "9\n".into()));
    b.store.ok(&["delete", "--force", &b.id]);
    // Of a controller that is not there, with another name, with a value that is none.
    for (name, value) in [("nothing.max", "1"), ("../cgroup.max.depth", "1"), ("cgroup.max.depth", "many")] {
        b.change(|c| c["linux"]["resources"]["unified"] = json!({name: value}));
        assert!(b.refused(125).contains(name), "{name}");
    }
}

#[test]
fn no_limit_below_what_is_used() {
    let b = Bundle::new("sleep 60");
    b.change(|c| c["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "checkBeforeUpdate": true}));
    b.start();
    let limit = || b.limit("memory.limit_in_bytes", "memory.max");
    let file = b.dir.join("less.json");
    fs::write(&file, json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}).to_string()).unwrap();
    assert!(!b.store.output(&["update", "--resources", file.to_str().unwrap(), &b.id]).status.success());
    assert_eq!((limit(), &b.state()["status"]), ((64 << 20).to_string(), &json!("running")));
}

#[test]
fn limits_that_cannot_be_are_refused() {
    let mut wrong = vec![
        (json!({"cpu": {"quota": 10_000, "period": 100_000, "burst": 20_000}}), "burst"),
        (json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}), "hugetlb.3MB"),
        (json!({"cpu": {"cpus": "4000"}}), "cpuset.cpus"),
        (json!({"rdma": {"nothing": {"hcaHandles": 1}}}), "rdma.max"),
    ];
    if version_2() {
        // What only version 1 has a file for.
        wrong.push((json!({"cpu": {"realtimePeriod": 1_000_000}}), "cpu.rt_period_us"));
        wrong.push((json!({"network": {"classID": 1}}), "net_cls.classid"));
        wrong.push((json!({"blockIO": {"leafWeight": 10}}), "blkio.leaf_weight"));
    }
    for (resources, words) in wrong {
        let b = Bundle::new("echo never");
        b.change(|c| c["linux"]["resources"] = resources.clone());
        let stderr = b.refused(125);
        assert!(stderr.contains(words), "{resources}: {stderr}");
    }
}
