//! Containers: their lifecycle and what config.json promises, seen from inside.

use crate::common::bundle::Bundle;
use crate::common::{bin, ok, output};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

fn sleeping() -> Bundle {
    Bundle::new("trap 'exit 5' TERM; while :; do sleep 0.05; done")
}

#[test]
fn lifecycle() {
    let b = sleeping();
    let id = b.id.as_str();
    assert!(b.launch("create").status.success());
    assert_eq!(b.state()["status"], "created");
    assert!(b.store.fails(2, &["create", "-b", b.dir.to_str().unwrap(), id]).contains("already exists"));
    b.store.ok(&["start", id]);
    let state = b.state();
    assert_eq!((&state["status"], &state["id"]), (&json!("running"), &json!(id)));
    assert_eq!(state["bundle"], json!(b.dir.canonicalize().unwrap()));
    let pid = state["pid"].as_i64().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert!(b.store.fails(2, &["start", id]).contains("cannot start an already running container"));
    assert!(b.store.fails(2, &["delete", id]).contains("not stopped: running"));
    let list: Value = serde_json::from_str(&b.store.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["owner"]), (&json!(id), &json!("root")));
    assert!(b.store.ok(&["list"]).lines().nth(1).unwrap().starts_with(id));
    assert_eq!(b.store.ok(&["list", "-q"]).trim(), id);
    // The trap may not be set yet: the signal is sent until it counts.
    b.wait(|b| {
        let _ = b.store.output(&["kill", id, "SIGTERM"]);
        b.state()["status"] == "stopped"
    });
    assert_eq!(b.state()["pid"], 0);
    assert!(b.store.fails(2, &["kill", id]).contains("container not running"));
    assert!(b.store.fails(2, &["start", id]).contains("cannot start a container that has stopped"));
    assert!(b.store.fails(125, &["exec", id, "true"]).contains("stopped container"));
    b.store.ok(&["delete", id]);
    b.nothing_left();
    for command in ["state", "start", "kill", "delete"] {
        assert!(b.store.fails(10, &[command, id]).contains("container does not exist"), "{command}");
    }
    b.store.ok(&["delete", "--force", id]);
}

#[test]
fn delete_before_start_and_by_force() {
    let b = sleeping();
    assert!(b.launch("create").status.success());
    b.store.ok(&["delete", &b.id]);
    b.nothing_left();
    b.start();
    b.store.ok(&["delete", &b.id, "--force"]);
    b.nothing_left();
}

#[test]
fn exit_codes() {
    assert_eq!(Bundle::new("echo out; exit 7").run(7), "out\n");
    let b = Bundle::new("");
    b.change(|c| c["process"]["args"] = json!(["no-such-program"]));
    assert!(b.refused(127).contains(r#"exec: "no-such-program": executable file not found in $PATH"#));
    b.change(|c| c["process"]["args"] = json!(["/etc/none"]));
    assert!(b.refused(127).contains("no such file or directory"));
    fs::write(b.rootfs().join("etc/plain"), "x").unwrap();
    b.change(|c| c["process"]["args"] = json!(["/etc/plain"]));
    assert!(b.refused(126).contains("permission denied"));
    b.change(|c| c["process"]["args"] = json!([]));
    assert!(b.refused(125).contains("process.args"));
    // 128 and the signal: as a child of pid 1, and pid 1 itself from outside.
    assert_eq!(Bundle::new("sh -c 'kill -9 $$'; echo $?").run(0), "137\n");
    let b = sleeping();
    let mut run = b.store.command();
    let mut run = run.args(["run", "--bundle", b.dir.to_str().unwrap(), &b.id]).spawn().unwrap();
    b.wait(|b| b.store.output(&["kill", &b.id, "9"]).status.success());
    assert_eq!(run.wait().unwrap().code(), Some(137));
    b.nothing_left();
}

#[test]
fn run_passes_signals_on() {
    let b = Bundle::new("trap 'exit 42' USR1; echo ready; while :; do sleep 0.05; done");
    let mut command = b.store.command();
    command.args(["run", b.dir.to_str().unwrap(), "--name", &b.id]).stdout(Stdio::piped());
    let mut run = command.spawn().unwrap();
    let mut ready = [0; 6];
    run.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    ok("kill", &["-USR1", &run.id().to_string()]);
    assert_eq!(run.wait().unwrap().code(), Some(42));
    b.nothing_left();
}

#[test]
fn bundle_folder_and_command() {
    let b = Bundle::new("exit 1");
    let out = b.store.ok(&["run", b.dir.to_str().unwrap(), "--", "echo", "-n", "given"]);
    assert_eq!(out, "given");
    b.nothing_left();
}

#[test]
fn all_namespaces_are_new() {
    let b = Bundle::new(
        "for n in cgroup ipc mnt net pid uts user; do readlink /proc/self/ns/$n; done; echo $$; hostname",
    );
    let out = b.run(0);
    let lines: Vec<_> = out.lines().collect();
    for (line, name) in lines.iter().zip(["cgroup", "ipc", "mnt", "net", "pid", "uts"]) {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(Path::new(line), host, "{name}");
    }
    assert_eq!(Path::new(lines[6]), fs::read_link("/proc/self/ns/user").unwrap());
    assert_eq!(lines[7..], ["1", "shipimg"]);
}

#[test]
fn joins_namespaces_by_path() {
    let a = sleeping();
    a.start();
    let pid = a.state()["pid"].clone();
    let b = Bundle::new("for n in net pid ipc; do readlink /proc/self/ns/$n; done");
    b.change(|c| {
        for (kind, file) in [("network", "net"), ("pid", "pid"), ("ipc", "ipc")] {
            let list = c["linux"]["namespaces"].as_array_mut().unwrap();
            let entry = list.iter_mut().find(|n| n["type"] == kind).unwrap();
            entry["path"] = json!(format!("/proc/{pid}/ns/{file}"));
        }
    });
    let expected: String = ["net", "pid", "ipc"]
        .map(|n| fs::read_link(format!("/proc/{pid}/ns/{n}")).unwrap())
        .iter()
        .map(|p| format!("{}\n", p.display()))
        .collect();
    assert_eq!(b.run(0), expected);
}

#[test]
fn user_and_time_namespaces() {
    let b =
        Bundle::new("cat /proc/self/uid_map; id -u; cut -d. -f1 /proc/uptime; touch /tmp/x && ls -n /tmp/x");
    ok("chown", &["-R", "100000:100000", b.rootfs().to_str().unwrap()]);
    ok("chmod", &["a+rx", b.store.path().to_str().unwrap()]);
    b.change(|c| {
        let list = c["linux"]["namespaces"].as_array_mut().unwrap();
        list.push(json!({"type": "user"}));
        list.push(json!({"type": "time"}));
        c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000}});
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
        c["root"]["readonly"] = json!(false);
        c["linux"]["resources"] = json!({});
    });
    let out = b.run(0);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(lines[1], "0");
    assert!(lines[2].parse::<u64>().unwrap() >= 1_000_000, "{out}");
    assert_eq!(fs::metadata(b.rootfs().join("tmp/x")).unwrap().uid(), 100_000);
}

#[test]
fn mounts_devices_and_masks() {
    let b = Bundle::new(
        "cut -d' ' -f5,6 /proc/self/mountinfo; echo; for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done; \
         for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; \
         (echo 1 > /proc/sys/kernel/sysrq) 2>/dev/null || echo read-only; touch /x 2>/dev/null || echo read-only root; \
         cat /data/f; touch /data/g 2>/dev/null || echo read-only bind; stat -c %a /dev/shm",
    );
    let data = b.dir.join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("f"), "from the host\n").unwrap();
    b.change(|c| {
        let list = c["mounts"].as_array_mut().unwrap();
        list.push(json!({"destination": "/data", "source": "data", "options": ["rbind", "rro", "nosuid", "rprivate"]}));
        list.push(json!({"destination": "/tmp", "type": "tmpfs", "options": ["nosuid", "noexec", "size=1m"]}));
    });
    let _ = fs::create_dir(b.rootfs().join("data"));
    let out = b.run(0);
    for line in [
        "/proc rw,nosuid,nodev,noexec,relatime",
        "/dev rw,nosuid,noexec",
        "/dev/pts rw,nosuid,noexec,relatime",
        "/dev/shm rw,nosuid,nodev,noexec,relatime",
        "/dev/mqueue rw,nosuid,nodev,noexec,relatime",
        "/sys ro,nosuid,nodev,noexec,relatime",
        "/sys/fs/cgroup ro,nosuid,nodev,noexec,relatime",
        "/tmp rw,nosuid,noexec,relatime",
        "/data ro,nosuid,relatime",
        "/ ro,relatime",
        "/dev/null 1:3 666",
        "/dev/tty 5:0 666",
    ] {
        assert!(out.lines().any(|l| l == line), "{line}\n{out}");
    }
    let tail = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n0\n0\nread-only\n\
                read-only root\nfrom the host\nread-only bind\n1777\n";
    assert!(out.ends_with(tail), "{out}");
    assert!(!data.join("g").exists());
}

#[test]
fn process_attributes() {
    let b = Bundle::new(
        "grep -E '^(Cap|NoNewPrivs|Groups|Seccomp:|Uid|Gid)' /proc/self/status; ulimit -n; ulimit -Hn; umask; pwd; \
         cat /proc/self/oom_score_adj; echo $HELLO; cat /proc/sys/net/ipv4/ip_forward; uname -m; mkdir /tmp/d; echo",
    );
    b.change(|c| {
        let p = &mut c["process"];
        p["user"] = json!({"uid": 1000, "gid": 1001, "umask": 0o27, "additionalGids": [5, 6]});
        let caps = json!(["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_FROM_THE_FUTURE"]);
        p["capabilities"] = json!({"bounding": caps, "effective": caps, "inheritable": caps, "permitted": caps,
            "ambient": ["CAP_NET_BIND_SERVICE"]});
        p["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
        p["oomScoreAdj"] = json!(77);
        p["cwd"] = json!("/tmp");
        p["env"].as_array_mut().unwrap().push(json!("HELLO=there"));
        c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        c["linux"]["personality"] = json!({"domain": "LINUX32"});
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71}]});
    });
    let out = b.launch("run");
    let text = String::from_utf8_lossy(&out.stdout).replace('\t', " ");
    let stderr = String::from_utf8_lossy(&out.stderr);
    for line in [
        "Uid: 1000 1000 1000 1000",
        "Gid: 1001 1001 1001 1001",
        "Groups: 5 6 ",
        "CapInh: 0000000000000420",
        // The kernel drops what is not ambient at an execve by another user than root.
        "CapPrm: 0000000000000400",
        "CapEff: 0000000000000400",
        "CapBnd: 0000000000000420",
        "CapAmb: 0000000000000400",
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "100",
        "200",
        "0027",
        "/tmp",
        "77",
        "there",
        "1",
        "i686",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}\n{stderr}");
    }
    assert!(stderr.contains("Protocol error"), "{stderr}");
    assert!(stderr.contains("CAP_FROM_THE_FUTURE"), "{stderr}");
    b.nothing_left();
}

#[test]
fn hooks_run_in_order() {
    let b = Bundle::new("echo program >> /log/log");
    let log = b.dir.join("log");
    fs::create_dir(&log).unwrap();
    fs::create_dir(b.rootfs().join("log")).unwrap();
    let hook = |name: &str, dir: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("read -r s; echo {name} >> {dir}/log; case $s in *'\"id\"'*) ;; *) exit 1;; esac")]}]);
    b.change(|c| {
        let host = log.to_str().unwrap();
        c["mounts"].as_array_mut().unwrap().push(json!({"destination": "/log", "source": host, "options": ["bind"]}));
        c["hooks"] = json!({"prestart": hook("prestart", host), "createRuntime": hook("createRuntime", host),
            "createContainer": hook("createContainer", host), "startContainer": hook("startContainer", "/log"),
            "poststart": hook("poststart", host), "poststop": hook("poststop", host)});
    });
    b.run(0);
    let text = fs::read_to_string(log.join("log")).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..4], ["prestart", "createRuntime", "createContainer", "startContainer"]);
    assert_eq!(lines.pop(), Some("poststop"));
    assert!(lines.contains(&"program") && lines.contains(&"poststart"));
    b.change(|c| c["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]}));
    assert!(b.refused(125).contains("createRuntime hook /bin/false"));
}

#[test]
fn exec_enters_and_returns_the_code() {
    let b = sleeping();
    b.start();
    let id = b.id.as_str();
    let own = |n: &str| fs::read_link(format!("/proc/{}/ns/{n}", b.state()["pid"])).unwrap();
    let script =
        "readlink /proc/self/ns/pid; readlink /proc/self/ns/net; cat /proc/self/cgroup; pwd; echo $A";
    let out = b.store.ok(&["exec", "--cwd", "/etc", "--env", "A=b", id, "sh", "-c", script]);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(Path::new(lines[0]), own("pid"));
    assert_eq!(Path::new(lines[1]), own("net"));
    assert!(out.lines().filter(|l| l.contains(":/")).all(|l| l.ends_with(":/")), "{out}");
    assert!(out.ends_with("/etc\nb\n"));
    for (command, code) in [(vec!["sh", "-c", "exit 9"], 9), (vec!["sh", "-c", "kill -TERM $$"], 143)] {
        let args = [vec!["exec", id], command].concat();
        assert_eq!(b.store.output(&args).status.code(), Some(code));
    }
    assert!(b.store.fails(127, &["exec", id, "nope"]).contains("executable file not found in $PATH"));
    let file = b.dir.join("process.json");
    let process =
        json!({"args": ["id", "-u"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 33, "gid": 33}});
    fs::write(&file, process.to_string()).unwrap();
    assert_eq!(b.store.ok(&["exec", id, "--process", file.to_str().unwrap()]), "33\n");
    assert!(b.store.ok(&["exec", "-t", id, "tty"]).starts_with("/dev/pts/"));
    let caps = b.store.ok(&["exec", "--cap", "CAP_NET_RAW", id, "grep", "CapEff", "/proc/self/status"]);
    assert!(u64::from_str_radix(caps.split_whitespace().nth(1).unwrap(), 16).unwrap() & 1 << 13 != 0);
}

#[test]
fn terminal_through_a_pty() {
    let b = Bundle::new(
        "tty; stty size; test -t 0 && test -t 1 && readlink /proc/1/fd/0; stat -c %t:%T /dev/console; exit 4",
    );
    b.change(|c| {
        c["process"]["terminal"] = json!(true);
        c["process"]["consoleSize"] = json!({"height": 30, "width": 90});
    });
    let out = b.run(4).replace("\r\n", "\n");
    assert!(out.starts_with("/dev/pts/0\n30 90\n/dev/pts/0\n88:0\n"), "{out}");
}

#[test]
fn console_socket_pid_file_and_preserved_descriptors() {
    let b = Bundle::new("tty; read line; echo got $line; ls /proc/self/fd | wc -l");
    b.change(|c| c["process"]["terminal"] = json!(true));
    let failed = b.launch("create");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("--console-socket"));
    b.nothing_left();
    let short = tempfile::tempdir().unwrap();
    let socket = short.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let pid_file = b.dir.join("pid");
    let args = [
        "create",
        "-b",
        b.dir.to_str().unwrap(),
        "--console-socket",
        socket.to_str().unwrap(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        &b.id,
    ];
    assert!(b.detached(&args).status.success());
    let (connection, _) = listener.accept().unwrap();
    let master = shipimg::sys::pty::receive_fd(connection.as_fd(), &mut [0; 64]).unwrap();
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), b.state()["pid"].to_string());
    b.store.ok(&["start", &b.id]);
    let mut master = fs::File::from(master);
    master.write_all(b"hello\n").unwrap();
    let mut text = Vec::new();
    let _ = master.read_to_end(&mut text);
    assert!(String::from_utf8_lossy(&text).contains("got hello"));
    b.store.ok(&["delete", "--force", &b.id]);

    let b = Bundle::new("ls /proc/self/fd | wc -w; cat <&3");
    let script = format!("exec 3<'{}'; exec \"$@\"", b.dir.join("config.json").display());
    let run = |extra: &[&str]| {
        let fixed = [
            "-c",
            &script,
            "sh",
            bin(),
            "--root",
            b.store.path().to_str().unwrap(),
            "run",
            "-b",
            b.dir.to_str().unwrap(),
            &b.id,
        ];
        output("sh", &[&fixed[..], extra].concat())
    };
    let kept = run(&["--preserve-fds", "1"]);
    assert!(String::from_utf8_lossy(&kept.stdout).contains("ociVersion"), "{kept:?}");
    // Without: the three standard streams, and the one that ls opens.
    let dropped = run(&[]);
    assert!(String::from_utf8_lossy(&dropped.stdout).starts_with("4\n"), "{dropped:?}");
    assert!(!String::from_utf8_lossy(&dropped.stdout).contains("ociVersion"));
}

#[test]
fn limits_reach_the_control_groups() {
    let b = Bundle::new(
        "cd /sys/fs/cgroup; cat pids/pids.max memory/memory.limit_in_bytes || cat pids.max memory.max; mknod /tmp/n c 1 1 && cat /tmp/n",
    );
    b.change(|c| {
        c["linux"]["resources"]["pids"] = json!({"limit": 20});
        c["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_MKNOD"));
        }
        c["mounts"].as_array_mut().unwrap().push(json!({"destination": "/tmp", "type": "tmpfs"}));
    });
    let out = b.launch("run");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "20\n67108864\n");
    assert!(String::from_utf8_lossy(&out.stderr).contains("Operation not permitted"), "{out:?}");
    b.nothing_left();
}

#[test]
fn private_network_link() {
    let b = Bundle::new("cat /sys/class/net/eth0/operstate; cat /sys/class/net/lo/flags; sleep 60");
    b.change(|c| c["annotations"] = json!({"org.shipimg.network": "private"}));
    b.start();
    let state: serde_json::Value = serde_json::from_str(&b.store.ok(&["state", &b.id])).unwrap();
    let start: String = b.id.chars().take(5).collect();
    let name = format!("ve-{start}-{:x}", state["pid"].as_i64().unwrap());
    let links = || {
        fs::read_dir("/sys/class/net")
            .unwrap()
            .flatten()
            .any(|e| e.file_name().to_string_lossy().starts_with(&name))
    };
    assert!(links());
    // The kernel tells of it a moment later.
    b.wait(|b| b.store.ok(&["exec", &b.id, "cat", "/sys/class/net/eth0/operstate"]) == "up\n");
    b.store.ok(&["delete", "-f", &b.id]);
    b.wait(|_| !links());
}

#[test]
fn leftovers_go_with_the_next_command() {
    let b = sleeping();
    let mut run = b.store.command();
    let mut run = run.args(["run", "--bundle", b.dir.to_str().unwrap(), &b.id]).spawn().unwrap();
    b.wait(|b| b.store.output(&["exec", &b.id, "true"]).status.success());
    run.kill().unwrap();
    run.wait().unwrap();
    // The container ends with the command that it belongs to.
    b.wait(|b| {
        b.store.output(&["state", &b.id]).status.code() == Some(10) || b.state()["status"] == "stopped"
    });
    assert_eq!(b.store.ok(&["list", "-q"]), "");
    b.nothing_left();
    // Killed while it creates: a hook holds it up.
    b.change(|c| c["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1"]}]}));
    let mut run = b.store.command();
    let mut run = run.args(["run", "--bundle", b.dir.to_str().unwrap(), &b.id]).spawn().unwrap();
    b.wait(|b| b.store.output(&["state", &b.id]).stdout.windows(8).any(|w| w == b"creating"));
    run.kill().unwrap();
    run.wait().unwrap();
    b.wait(|b| b.store.ok(&["list", "-q"]).is_empty());
    b.nothing_left();
}

#[test]
fn others_bundles_here_and_ours_there() {
    for tool in ["runc", "crun"] {
        let b = Bundle::new("");
        fs::remove_file(b.dir.join("config.json")).unwrap();
        let args = ["-c", "cd \"$1\" && exec \"$2\" spec", "sh", b.dir.to_str().unwrap(), tool];
        ok("sh", &args);
        b.change(|c| c["process"]["terminal"] = json!(false));
        b.change(|c| c["process"]["args"] = json!(["echo", "hello"]));
        assert_eq!(b.run(0), "hello\n", "{tool}");
    }
    let b = Bundle::new("echo hello; hostname");
    let (dir, id) = (b.dir.to_str().unwrap(), b.id.as_str());
    // crun refuses the hybrid kind of control groups; it does not see version 2 then.
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
    for tool in ["runc", "crun"] {
        let root = b.dir.join("state");
        let args =
            ["-m", "sh", "-c", script, "sh", tool, "--root", root.to_str().unwrap(), "run", "-b", dir, id];
        assert_eq!(ok("unshare", &args), "hello\nshipimg\n", "{tool}");
    }
}

#[test]
fn refuses_what_it_cannot_do() {
    let b = Bundle::new("true");
    let dir = b.dir.to_str().unwrap();
    assert!(b.store.fails(125, &["run", "-b", dir, &b.id, "--systemd-cgroup"]).contains("systemd"));
    // With the module it is the kernel that knows no such profile.
    let enabled =
        fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
    let no_profile = if enabled {
        "the kernel knows no profile \"x\""
    } else {
        "process.apparmorProfile \"x\" without AppArmor"
    };
    for (path, value, word) in [
        ("/process/apparmorProfile", json!("x"), no_profile),
        ("/process/selinuxLabel", json!("a:b:c"), "process.selinuxLabel \"a:b:c\" without SELinux"),
        ("/linux/mountLabel", json!("a:b:c"), "linux.mountLabel \"a:b:c\" without SELinux"),
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
        ("/root/path", json!("none"), "none"),
        ("/process/cwd", json!("relative"), "absolute"),
    ] {
        let b = Bundle::new("true");
        b.change(|c| {
            let (parent, name) = path.rsplit_once('/').unwrap();
            c.pointer_mut(parent).unwrap()[name] = value;
        });
        assert!(b.refused(125).contains(word), "{path}");
    }
}

#[test]
fn many_at_once_and_in_a_row() {
    let bundles: Vec<_> = (0..10).map(|_| Bundle::new("exit 3")).collect();
    std::thread::scope(|scope| {
        for b in &bundles {
            scope.spawn(|| (0..3).for_each(|_| drop(b.run(3))));
        }
    });
}
