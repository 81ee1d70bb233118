//! The command line that callers of OCI runtimes use: options before the command, and what is
//! done to a container that runs.

use crate::common::bundle::{Bundle, version_2};
use crate::common::{TestStore, bin, collect, ok};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

fn sleeping() -> Bundle {
    let b = Bundle::new("sleep 60");
    b.start();
    b
}

#[test]
fn errors_go_to_the_log() {
    let store = TestStore::new();
    let (log, text) = (store.path().join("log"), store.path().join("text"));
    let failing = |options: &[&str], path| {
        let mut command = store.command();
        let out = collect(command.args(options).arg("--log").arg(path).args(["state", "none"]));
        assert_eq!(out.status.code(), Some(10));
        assert_eq!(String::from_utf8_lossy(&out.stderr), "error: container does not exist: none\n");
    };
    failing(&["--log-format", "json"], &log);
    failing(&["--log-format=json", "--debug"], &log);
    let lines = fs::read_to_string(&log).unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    assert_eq!(last["msg"], "container does not exist: none");
    assert!(last["time"].as_str().unwrap().ends_with('Z'));
    assert!(lines.lines().count() >= 2, "{lines}");
    failing(&[], &text);
    let line = fs::read_to_string(&text).unwrap();
    assert!(line.ends_with(" level=error msg=\"container does not exist: none\"\n"), "{line}");
    assert!(store.fails(10, &["--log", "/none/log", "list"]).contains("open /none/log"));
}

#[test]
fn warnings_go_to_the_log() {
    let b = Bundle::new("true");
    let log = b.dir.join("log");
    b.change(|c| c["process"]["capabilities"]["bounding"] = json!(["CAP_FROM_THE_FUTURE"]));
    let mut command = b.store.command();
    command.args(["--log-format", "json", "--log"]).arg(&log);
    let out = collect(command.args(["run", "--bundle", b.dir.to_str().unwrap(), &b.id]));
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    let line: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "warning");
    assert!(line["msg"].as_str().unwrap().contains("CAP_FROM_THE_FUTURE"), "{line}");
}

#[test]
fn a_folder_for_the_state_is_no_store() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = dir.path().join("state");
    let out = collect(Command::new(bin()).arg("--root").arg(&root).args(["list", "-q"]));
    assert!(out.status.success() && out.stdout.is_empty(), "{out:?}");
    assert!(root.join("shipimg/containers").is_dir() && !root.join("oci-layout").exists());
    assert_eq!(fs::read_dir(root).unwrap().count(), 1);
}

#[test]
fn pause_and_resume() {
    let b = Bundle::new("sleep 60");
    let id = b.id.as_str();
    assert!(b.launch("create").status.success());
    b.store.ok(&["pause", id]);
    assert_eq!(b.state()["status"], "paused");
    assert!(b.store.fails(2, &["start", id]).contains("cannot start a paused container"));
    b.store.ok(&["resume", id]);
    assert_eq!(b.state()["status"], "created");
    b.store.ok(&["start", id]);
    assert!(b.store.fails(2, &["resume", id]).contains("not paused"));
    b.store.ok(&["pause", id]);
    assert_eq!(b.state()["status"], "paused");
    assert!(b.store.fails(2, &["pause", id]).contains("paused container"));
    assert!(b.store.fails(125, &["exec", id, "true"]).contains("paused container"));
    assert!(b.store.fails(2, &["delete", id]).contains("not stopped: paused"));
    b.store.ok(&["resume", id]);
    b.store.ok(&["exec", id, "true"]);
    b.store.ok(&["kill", id, "KILL"]);
    b.wait(|b| b.state()["status"] == "stopped");
    for command in ["pause", "resume", "ps", "events", "update"] {
        assert!(b.store.fails(2, &[command, id]).contains("container not running"), "{command}");
    }
    b.store.ok(&["delete", id]);
    b.nothing_left();
}

#[test]
fn processes() {
    let b = Bundle::new("sleep 60 & sleep 61; true");
    b.start();
    b.wait(|b| b.store.ok(&["ps", &b.id, "-f", "json"]).split(',').count() == 3);
    let pids: Vec<i64> = serde_json::from_str(&b.store.ok(&["ps", "--format=json", &b.id])).unwrap();
    assert!(pids.contains(&b.state()["pid"].as_i64().unwrap()) && pids.is_sorted());
    let table = b.store.ok(&["ps", &b.id]);
    assert!(table.lines().next().unwrap().contains("PID"), "{table}");
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains("sleep 60") && table.contains("sleep 61"), "{table}");
    let args = b.store.ok(&["ps", &b.id, "-e", "-o", "pid,args"]);
    assert!(args.lines().skip(1).all(|l| l.contains("sleep")) && args.lines().count() == 4, "{args}");
}

#[test]
fn other_limits() {
    let b = sleeping();
    let id = b.id.as_str();
    let memory = |b: &Bundle| b.limit("memory.limit_in_bytes", "memory.max");
    let pids = |b: &Bundle| b.limit("pids.max", "pids.max");
    b.store.ok(&["update", "--memory", "64M", "--memory-swap", "64M", "--pids-limit", "20", id]);
    assert_eq!((memory(&b), pids(&b)), ("67108864".into(), "20".into()));
    // Beyond the old limit of both together, and what is not named stays.
    b.store.ok(&["update", "--memory", "128M", "--memory-swap", "256M", "--cpuset-cpus", "0", id]);
    assert_eq!((memory(&b), pids(&b)), ("134217728".into(), "20".into()));
    assert_eq!(b.limit("cpuset.cpus", "cpuset.cpus"), "0");
    let swap = if version_2() { "134217728" } else { "268435456" };
    assert_eq!(b.limit("memory.memsw.limit_in_bytes", "memory.swap.max"), swap);
    b.store.ok(&["update", "--cpu-quota", "20000", "--cpu-period", "50000", "--cpu-share", "1024", id]);
    if version_2() {
        assert_eq!(b.limit("cpu", "cpu.max"), "20000 50000");
        assert_eq!(b.limit("cpu", "cpu.weight"), "39");
    } else {
        assert_eq!(b.limit("cpu.cfs_quota_us", ""), "20000");
        assert_eq!(b.limit("cpu.shares", ""), "1024");
    }
    let file = b.dir.join("limits");
    let document = json!({"memory": {"limit": 50 << 20, "swap": 50 << 20}, "pids": {"limit": 0}, "cpu": null,
        "devices": [{"allow": false, "access": "rwm"}]});
    fs::write(&file, document.to_string()).unwrap();
    b.store.ok(&["update", "-r", file.to_str().unwrap(), id]);
    assert_eq!((memory(&b), pids(&b)), ("52428800".into(), "20".into()));
    assert_eq!(b.store.ok(&["exec", id, "head", "-c1", "/dev/zero"]).len(), 1, "devices stay");
    let mut update = b.store.command();
    let mut update = update.args(["update", "--resources=-", id]).stdin(Stdio::piped()).spawn().unwrap();
    update.stdin.take().unwrap().write_all(br#"{"pids": {"limit": -1}}"#).unwrap();
    assert!(update.wait().unwrap().success());
    assert_eq!(pids(&b), "max");
    b.store.fails_usage(&["update", "-r", "-", "--memory", "1G", id]);
    assert!(b.store.fails(2, &["update", "-r", "/dev/null", id]).contains("EOF"));
    assert!(b.store.fails(10, &["update", "-r", "/none", id]).contains("read /none"));
}

#[test]
fn figures() {
    let b = sleeping();
    b.store.ok(&["update", "--memory", "64M", "--pids-limit", "20", &b.id]);
    let event: Value = serde_json::from_str(&b.store.ok(&["events", "--stats", &b.id])).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(b.id)));
    let data = &event["data"];
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 100_000, "{data}");
    assert_eq!(data["memory"]["usage"]["limit"], 64 << 20);
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 4096, "{data}");
    assert!(data["memory"]["raw"].as_object().unwrap().len() > 10, "{data}");
    assert_eq!((&data["pids"]["limit"], &data["pids"]["current"]), (&json!(20), &json!(1)), "{data}");
}

#[test]
fn events_until_the_end() {
    let script = "while ! test -e /go; do sleep 0.05; done; sh -c 'x=$(tail /dev/zero)'; sleep 0.5";
    let b = Bundle::new(script);
    b.change(|c| c["root"]["readonly"] = json!(false));
    b.change(|c| {
        c["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    });
    b.start();
    let mut events = b.store.command();
    events.args(["events", "--interval", "100ms", &b.id]).stdout(Stdio::piped());
    let mut events = events.spawn().unwrap();
    let mut out = BufReader::new(events.stdout.take().unwrap()).lines();
    let mut lines = vec![out.next().unwrap().unwrap()];
    fs::write(b.rootfs().join("go"), "").unwrap();
    lines.extend(out.map(Result::unwrap));
    assert!(events.wait().unwrap().success());
    let lines: Vec<Value> = lines.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(lines.iter().filter(|e| e["type"] == "stats").count() >= 2, "{lines:?}");
    assert!(lines.iter().any(|e| *e == json!({"type": "oom", "id": b.id})), "{lines:?}");
}

#[test]
fn features_and_spec() {
    let store = TestStore::new();
    let features: Value = serde_json::from_str(&store.ok(&["features"])).unwrap();
    assert_eq!(features["ociVersionMax"], "1.2.0");
    assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!("time")));
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    store.ok(&["spec", "--rootless", "--bundle", store.path().to_str().unwrap()]);
    let spec: Value = serde_json::from_slice(&fs::read(store.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(spec["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 0, "size": 1}]));
}

#[test]
fn users_by_name_and_their_home() {
    let b = Bundle::new("echo $HOME; sleep 60");
    let etc = b.rootfs().join("etc");
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n7:x:70:70::/seven:\n";
    fs::write(etc.join("passwd"), passwd).unwrap();
    fs::write(etc.join("group"), "www:x:34:\nadm:x:4:web\n").unwrap();
    b.start();
    b.wait(|b| fs::read_to_string(b.dir.join("stdout")).unwrap() == "/root\n");
    let exec = |options: &[&str]| {
        let command = [&b.id, "sh", "-c", "echo $(id -u):$(id -g) $(id -G) $HOME"];
        b.store.ok(&[&["exec"], options, &command].concat())
    };
    assert_eq!(exec(&[]), "0:0 0 /root\n");
    assert_eq!(exec(&["--user", "web"]), "33:34 34 4 /srv\n");
    assert_eq!(exec(&["--user", "web:adm"]), "33:4 4 /srv\n");
    assert_eq!(exec(&["--user", "33"]), "33:0 0 /srv\n", "numbers are taken as they are");
    assert_eq!(exec(&["--user", "7:34"]), "7:34 34 /\n");
    assert_eq!(exec(&["--user", "web", "--env", "HOME=/x"]), "33:34 34 4 /x\n");
    assert!(b.store.fails(125, &["exec", "-u", "nobody", &b.id, "true"]).contains("nobody"));
    // A passwd file that is none does nothing.
    fs::remove_file(etc.join("passwd")).unwrap();
    ok("mkfifo", &[etc.join("passwd")]);
    assert_eq!(b.store.ok(&["exec", "--user", "33", &b.id, "sh", "-c", "echo $HOME"]), "/\n");
    assert!(b.store.fails(125, &["exec", "-u", "web", &b.id, "true"]).contains("web"));
}

#[test]
fn hooks_see_the_process_as_their_surroundings_do() {
    let b = Bundle::new("true");
    let log = b.dir.join("log");
    fs::create_dir(&log).unwrap();
    fs::create_dir(b.rootfs().join("log")).unwrap();
    let hook = |name: &str, dir: &str| {
        let script = format!("cat > {dir}/{name}; readlink /proc/self/ns/pid > {dir}/{name}.ns");
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
    };
    let host = log.to_str().unwrap();
    b.change(|c| {
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/log", "source": host, "options": ["bind"]}));
        c["hooks"] = json!({"createRuntime": hook("createRuntime", host),
            "createContainer": hook("createContainer", host), "startContainer": hook("startContainer", "/log"),
            "poststart": hook("poststart", host), "poststop": hook("poststop", host)});
    });
    assert!(b.launch("create").status.success());
    let pid = b.state()["pid"].clone();
    b.store.ok(&["start", &b.id]);
    b.wait(|b| b.state()["status"] == "stopped");
    b.store.ok(&["delete", &b.id]);
    for (name, status, pid) in [
        ("createRuntime", "creating", pid.clone()),
        ("createContainer", "creating", json!(1)),
        ("startContainer", "created", json!(1)),
        ("poststart", "running", pid),
        ("poststop", "stopped", json!(0)),
    ] {
        let state: Value = serde_json::from_slice(&fs::read(log.join(name)).unwrap()).unwrap();
        assert_eq!((&state["status"], &state["pid"]), (&json!(status), &pid), "{name}");
        assert_eq!((&state["id"], &state["ociVersion"]), (&json!(b.id), &json!("1.2.0")), "{name}");
    }
}

#[test]
fn exec_beside_groups_of_the_container() {
    let b = Bundle::new(
        "cd /sys/fs/cgroup; test -e cgroup.controllers || cd unified; mkdir below; echo $$ > below/cgroup.procs; \
         echo +pids > cgroup.subtree_control; echo ready; sleep 60",
    );
    b.change(|c| {
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.iter_mut().find(|m| m["destination"] == "/sys/fs/cgroup").unwrap()["options"] = json!(["rw"]);
    });
    b.start();
    b.wait(|b| fs::read_to_string(b.dir.join("stdout")).unwrap() == "ready\n");
    let groups = b.store.ok(&["exec", &b.id, "cat", "/proc/self/cgroup"]);
    let expected = if version_2() { "0::/below" } else { "0::/" };
    assert!(groups.lines().any(|l| l == expected), "{groups}");
    assert_eq!(b.store.ok(&["ps", &b.id, "-f", "json"]).trim(), format!("[{}]", b.state()["pid"]));
    b.store.ok(&["delete", "--force", &b.id]);
    b.nothing_left();
}

#[test]
fn detached_exec_as_conmon_calls_it() {
    let b = sleeping();
    let short = tempfile::tempdir().unwrap();
    let (socket, pid_file, file) = (short.path().join("s"), b.dir.join("pid"), b.dir.join("process.json"));
    let text = |path: &std::path::Path| path.to_str().unwrap().to_string();
    let mut process = json!({"args": ["sleep", "61"], "cwd": "/tmp", "env": ["PATH=/bin"], "user": {"uid": 33, "gid": 33, "umask": 0o77}});
    fs::write(&file, process.to_string()).unwrap();
    let (pid_path, path) = (text(&pid_file), text(&file));
    let exec = ["exec", "--pid-file", &pid_path, "--process", &path, "--detach", &b.id];
    b.store.ok(&exec);
    let pid = || fs::read_to_string(&pid_file).unwrap();
    let pids: Vec<i64> = serde_json::from_str(&b.store.ok(&["ps", &b.id, "-f", "json"])).unwrap();
    assert!(pids.len() == 2 && pids.contains(&pid().parse().unwrap()), "{pids:?} {}", pid());
    let status = fs::read_to_string(format!("/proc/{}/status", pid())).unwrap();
    assert!(status.contains("Umask:\t0077") && status.contains("Uid:\t33\t33\t33\t33"), "{status}");
    // With a terminal that goes to who asked for it.
    process["args"] = json!(["tty"]);
    process["terminal"] = json!(true);
    fs::write(&file, process.to_string()).unwrap();
    let failed = b.store.fails(125, &exec);
    assert!(failed.contains("--console-socket"), "{failed}");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    b.store.ok(&[&exec[..6], &["--console-socket", &text(&socket), &b.id]].concat());
    let (connection, _) = listener.accept().unwrap();
    let master = shipimg::sys::pty::receive_fd(connection.as_fd(), &mut [0; 64]).unwrap();
    let mut printed = Vec::new();
    let _ = fs::File::from(master).read_to_end(&mut printed);
    assert!(printed.starts_with(b"/dev/pts/"), "{printed:?}");
}
