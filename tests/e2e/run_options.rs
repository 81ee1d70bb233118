//! What the options of `run` make of config.json, and what of it a container has.

use crate::common::bundle::{Bundle, busybox};
use crate::common::{TestStore, need_root, ok, within};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

/// A store, and a root filesystem with a user of its own in it.
fn root() -> (TestStore, PathBuf) {
    need_root();
    let store = TestStore::new();
    let root = store.path().join("root");
    busybox(&root);
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/srv:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "web:x:1001:\nlog:x:7:web\n").unwrap();
    (store, root)
}

/// Runs `sh -c SCRIPT` with the options; gives its exit code and output.
fn run(store: &TestStore, root: &std::path::Path, options: &[&str], script: &str) -> (i32, String) {
    let words = [root.to_str().unwrap(), "/bin/sh", "-c", script];
    let out = store.output(&[&["run"], options, &words].concat());
    let text = [out.stdout, out.stderr].concat();
    (out.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn options_in_the_configuration() {
    let (store, root) = root();
    let file = store.path().join("env");
    fs::write(&file, "# a comment\nFILE=from a file\nBOTH=file\n").unwrap();
    let config = |options: &[&str]| -> Value {
        let words = ["--print-config", root.to_str().unwrap(), "true", "--flag"];
        let text = store.ok(&[&["run"], options, &words].concat());
        serde_json::from_str(&text).unwrap()
    };
    let plain = config(&[]);
    assert_eq!(plain["process"]["args"], json!(["true", "--flag"]));
    for (options, place, wanted) in [
        (&["--env", "A=b"][..], "/process/env/2", json!("A=b")),
        (&["--user", "web"], "/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [1001, 7]})),
        (&["-u", "5:log"], "/process/user", json!({"uid": 5, "gid": 7, "additionalGids": [7]})),
        (&["--workdir", "/srv/./x/"], "/process/cwd", json!("/srv/x")),
        (&["--hostname", "box.example"], "/hostname", json!("box.example")),
        (&["--read-only"], "/root/readonly", json!(true)),
        (&["-t"], "/process/terminal", json!(true)),
        (&["-it"], "/process/terminal", json!(true)),
        (&["--tty=false"], "/process/terminal", json!(false)),
        (&["--rm", "--name", "mine"], "/hostname", json!("mine")),
        (
            &["-v", "/etc:/x:ro", "--tmpfs", "/x/y"],
            "/mounts/8",
            json!({"destination": "/x/y", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "nodev", "noexec"]}),
        ),
        (
            &["--tmpfs", "/x/y", "--mount", "type=bind,src=/etc,dst=/x,ro"],
            "/mounts/7",
            json!({"destination": "/x", "type": "bind", "source": "/etc",
                "options": ["rbind", "ro", "rro", "rprivate"]}),
        ),
        (
            &["--tmpfs", "/dev/shm:size=1m,exec"],
            "/mounts/6",
            json!({"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "nodev", "size=1m", "exec"]}),
        ),
        (&["--device", "/dev/full:/dev/x:r"], "/linux/devices/0/path", json!("/dev/x")),
        (
            &["--device", "/dev/full:/dev/x:r"],
            "/linux/resources/devices/1",
            json!({"allow": true, "type": "c", "major": 1, "minor": 7, "access": "r"}),
        ),
        (
            &["--cap-drop", "ALL", "--cap-add", "net_raw,CAP_CHOWN"],
            "/process/capabilities/bounding",
            json!(["CAP_CHOWN", "CAP_NET_RAW"]),
        ),
        (&["--cap-drop", "all"], "/process/capabilities/effective", json!([])),
        (&["-u", "7", "--cap-add", "net_raw"], "/process/capabilities/ambient", json!(["CAP_NET_RAW"])),
        (&["--security-opt", "no-new-privileges"], "/process/noNewPrivileges", json!(true)),
        (&["--security-opt", "apparmor=mine"], "/process/apparmorProfile", json!("mine")),
        (&["--seccomp", "unconfined"], "/linux/seccomp", Value::Null),
        (&["--security-opt", "seccomp=unconfined"], "/linux/seccomp", Value::Null),
        (
            &["--ulimit", "nofile=10:20"],
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]),
        ),
        (&["--sysctl", "net.ipv4.ip_forward=1"], "/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})),
        (
            &["--memory", "64m", "--memory-swap", "1g"],
            "/linux/resources/memory",
            json!({"limit": 64 << 20, "swap": 1 << 30}),
        ),
        (&["-m", "1g", "--memory-swap", "-1"], "/linux/resources/memory/swap", json!(-1)),
        (
            &["--cpus", "1.5", "--cpuset-cpus", "0-1"],
            "/linux/resources/cpu",
            json!({"quota": 150_000, "period": 100_000, "cpus": "0-1"}),
        ),
        (&["--pids-limit", "-1"], "/linux/resources/pids/limit", json!(-1)),
        (&["--io-weight", "100"], "/linux/resources/blockIO/weight", json!(100)),
        (&["--oom-score-adj", "-5"], "/process/oomScoreAdj", json!(-5)),
        (&["--init"], "/annotations/org.shipimg.init", json!("true")),
        (&["--annotation", "a=b=c"], "/annotations/a", json!("b=c")),
    ] {
        let config = config(options);
        assert_eq!(config.pointer(place).unwrap_or(&Value::Null), &wanted, "{options:?}\n{config:#}");
    }
    let env = config(&["--env-file", file.to_str().unwrap(), "-e", "BOTH=option", "-e", "NO_SUCH_VARIABLE"]);
    let env: Vec<&str> = env["process"]["env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(env.contains(&"FILE=from a file") && env.contains(&"BOTH=option") && !env.contains(&"BOTH=file"));
    assert!(!env.iter().any(|v| v.starts_with("NO_SUCH")), "{env:?}");
    assert!(fs::read_dir(store.path().join("shipimg/tmp")).unwrap().next().is_none(), "nothing is left");
}

#[test]
fn options_that_are_wrong_are_named() {
    let (store, root) = root();
    for (option, value) in [
        ("--env", "=x"),
        ("--env-file", "/no/such/file"),
        ("--workdir", "srv"),
        ("--hostname", "a b"),
        ("--volume", "/no/such/folder:/x"),
        ("--mount", "type=volume,dst=/x"),
        ("--tmpfs", "x"),
        ("--device", "/etc/passwd"),
        ("--cap-add", "fly"),
        ("--cap-drop", ""),
        ("--seccomp", "/no/such/file"),
        ("--security-opt", "label=x"),
        ("--ulimit", "files=1"),
        ("--sysctl", "x"),
        ("--memory", "much"),
        ("--cpus", "-1"),
        ("--cpuset-cpus", "1-"),
        ("--pids-limit", "-2"),
        ("--io-weight", "1001"),
        ("--oom-score-adj", "1001"),
        ("--timeout", "0"),
        ("--annotation", "x"),
        ("--publish", "80:80/sctp"),
        ("--mac", "01:00:00:00:00:00"),
        ("--subnet", "10.0.0.1/24"),
        ("--dns", "dns.example.org"),
        ("--dns-search", "a b"),
        ("--add-host", "a"),
        ("--netns-name", "../x"),
    ] {
        let said = store.fails(2, &["run", &format!("{option}={value}"), root.to_str().unwrap(), "true"]);
        assert!(said.contains(option), "{option}: {said}");
    }
    for (options, said) in [
        (&["--user", "nobody"][..], "--user \"nobody\""),
        (&["--net", "fast"], "--net"),
        (&["-p", "80:80"], "--publish: the network none has no use for it"),
        (&["--net", "private", "--ip", "10.0.0.2"], "--ip: the network private"),
        (&["--net", "host", "--netns-name", "x"], "--netns-name"),
        (&["--net", "container:x", "--dns", "10.0.0.2"], "--dns"),
        (&["--net", "container:no-such-container"], "no-such-container"),
        (&["--cap-add", "kill", "--cap-drop", "kill"], "--cap-add"),
        (&["-m", "2g", "--memory-swap", "1g"], "--memory-swap"),
        (&["--tmpfs", "/x", "-v", "/etc:/x"], "/x"),
        (&["--sysctl", "vm.swappiness=1"], "sysctl"),
        (&["--security-opt", "apparmor=none-such"], "AppArmor"),
    ] {
        let words = [root.to_str().unwrap(), "true"];
        let text = store.fails(125, &[&["run"], options, &words].concat());
        assert!(text.contains(said), "{options:?}: {text}");
    }
}

#[test]
fn options_in_the_container() {
    let (store, root) = root();
    let folder = store.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), "").unwrap();
    let volume = format!("{}:/vol:ro", folder.display());
    for (options, script, wanted) in [
        (
            &["--user", "web"][..],
            "id; echo $HOME",
            "uid=1000(web) gid=1001(web) groups=7(log),1001(web)\n/srv\n",
        ),
        (&["--workdir", "/tmp"], "pwd", "/tmp\n"),
        (&["--hostname", "h"], "hostname", "h\n"),
        (&["-v", &volume], "ls /vol; touch /vol/x 2>/dev/null || echo closed", "file\nclosed\n"),
        (&["--tmpfs", "/run/x:mode=700"], "stat -f -c %T /run/x; stat -c %a /run/x", "tmpfs\n700\n"),
        (&["--device", "/dev/full:/dev/x"], "head -c 1 /dev/x | wc -c", "1\n"),
        (&["--read-only"], "touch /x 2>/dev/null || echo closed", "closed\n"),
        (&["--ulimit", "nofile=33:44"], "ulimit -n; ulimit -Hn", "33\n44\n"),
        (&["--sysctl", "kernel.shmmni=99"], "cat /proc/sys/kernel/shmmni", "99\n"),
        (&["--oom-score-adj", "77"], "cat /proc/self/oom_score_adj", "77\n"),
        (&["--cap-drop", "ALL"], "grep CapEff /proc/self/status", "CapEff:\t0000000000000000\n"),
        (
            &["-u", "web", "--cap-drop=ALL", "--cap-add=kill"],
            "grep CapEff /proc/self/status",
            "CapEff:\t0000000000000020\n",
        ),
        (&["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"),
    ] {
        assert_eq!(run(&store, &root, options, script), (0, wanted.to_string()), "{options:?}");
    }
    let given = format!("{}:/vol:U", folder.display());
    fs::create_dir_all(folder.join("a/b")).unwrap();
    fs::write(store.path().join("outside"), "").unwrap();
    std::os::unix::fs::symlink(store.path().join("outside"), folder.join("a/link")).unwrap();
    let owner = |path: &std::path::Path| fs::symlink_metadata(path).map(|m| (m.uid(), m.gid())).unwrap();
    store.ok(&["run", "--print-config", "-u", "web", "-v", &given, root.to_str().unwrap(), "true"]);
    assert_eq!(owner(&folder), (0, 0), "printing changes nothing");
    assert_eq!(
        run(&store, &root, &["-u", "web", "-v", &given], "touch /vol/a/b/x /vol/file"),
        (0, String::new())
    );
    for name in ["", "file", "a", "a/b", "a/link"] {
        assert_eq!(owner(&folder.join(name)), (1000, 1001), "{name}");
    }
    assert_eq!(owner(&store.path().join("outside")), (0, 0), "no link is followed");
    let (code, _) = run(&store, &root, &["--timeout", "1"], "sleep 60");
    assert_eq!(code, 137);
    let left = store.ok(&["list"]);
    assert_eq!(left.lines().count(), 1, "{left}");
}

#[test]
fn another_runtime_runs_the_bundle() {
    let (store, root) = root();
    let options = ["--runtime", "runc", "--user", "web", "--tmpfs", "/t"];
    let (code, text) = run(&store, &root, &options, "id -u; stat -f -c %T /t; exit 7");
    assert_eq!((code, text.as_str()), (7, "1000\ntmpfs\n"));
    for (options, said) in [
        (&["--runtime", "/no/such/runtime"][..], "/no/such/runtime"),
        (&["--runtime", "runc", "--net", "private"], "--net private"),
        (&["--runtime", "runc", "--net", "bridge"], "--net bridge"),
        (&["--runtime", "runc", "--add-host", "a:10.0.0.1"], "hosts file"),
    ] {
        let text = store.fails(125, &[&["run"], options, &[root.to_str().unwrap(), "true"]].concat());
        assert!(text.contains(said), "{text}");
    }
    // A bundle as it stands: another program cannot be told to another runtime.
    store.ok(&[
        "bundle",
        "create",
        root.to_str().unwrap(),
        "b",
        "--driver",
        "copy",
        "--",
        "sh",
        "-c",
        "exit 3",
    ]);
    assert_eq!(store.output(&["run", "--runtime", "runc", "b"]).status.code(), Some(3));
    assert!(store.fails(125, &["run", "--runtime", "runc", "b", "true"]).contains("what the bundle says"));
    // Signals are passed on.
    let script = "trap 'exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    let words = ["run", "--runtime", "runc", root.to_str().unwrap(), "sh", "-c", script];
    let mut child = store.command().args(words).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    ok("kill", &["-TERM", &child.id().to_string()]);
    assert_eq!((line.as_str(), child.wait().unwrap().code()), ("ready\n", Some(4)));
    let list = ok("runc", &["list", "-q"]);
    assert!(!list.lines().any(|l| l.starts_with("root-")), "{list}");
}

#[test]
fn an_init_process() {
    let (store, root) = root();
    let init = |options: &[&str], script: &str| run(&store, &root, &[&["--init"], options].concat(), script);
    // Its environment, its name and its descriptors have nothing of the host.
    let script = "tr '\\0' '\\n' < /proc/1/environ | grep -c SECRET; tr '\\0' ' ' < /proc/1/cmdline | cut -c -12; \
         echo $PPID; exit 9";
    let command = ["run", "--init", "--user", "0", root.to_str().unwrap(), "sh", "-c", script];
    let out = store.command().env("SECRET", "of the host").args(command).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!((out.status.code(), text.as_ref()), (Some(9), "0\nshipimg-init\n1\n"));
    // The standard streams, and the descriptor that signals come from.
    assert_eq!(init(&[], "ls /proc/1/fd | wc -l; ls -l /proc/1/fd | grep -c signalfd").1, "4\n1\n");
    // Orphans are collected.
    let orphan = "(sh -c 'sleep 0.05 & exit' &); sleep 0.4; ps -o stat | grep -c Z";
    assert_eq!(init(&[], orphan).1, "0\n");
    assert_eq!(init(&[], "kill -KILL $$").0, 137);
    assert_eq!(init(&["--user", "web", "--cap-drop", "ALL"], "id -u"), (0, "1000\n".to_string()));
    let failed = |command: &str| {
        let out = store.output(&["run", "--init", root.to_str().unwrap(), command]);
        (out.status.code().unwrap(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    fs::write(root.join("bin/script"), "#!/no/such/shell\n").unwrap();
    fs::set_permissions(root.join("bin/script"), PermissionsExt::from_mode(0o755)).unwrap();
    let (code, text) = failed("/bin/script");
    assert!(code == 127 && text.contains("exec: \"/bin/script\""), "{code} {text}");
    assert_eq!(failed("/bin/none").0, 127);
    // Signals reach the program, which as the first process of a container would not hear them.
    let words = ["run", "--init", "--name", "init-box", root.to_str().unwrap(), "sleep", "600"];
    let mut child = store.command().args(words).spawn().unwrap();
    let asks = ["exec", "init-box", "/bin/sh", "-c", "grep -qx sleep /proc/2/comm"];
    within(20, "the container", || store.output(&asks).status.success());
    store.ok(&["kill", "init-box", "TERM"]);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn system_calls_of_a_container() {
    let (store, root) = root();
    let filtered = "grep -E '^Seccomp:' /proc/self/status; unshare -U true 2>&1; mount -t tmpfs t /tmp 2>&1; \
         true | cat && (true &) && echo works";
    let (code, text) = run(&store, &root, &[], filtered);
    assert!(code == 0 && text.starts_with("Seccomp:\t2\n") && text.ends_with("\nworks\n"), "{text}");
    assert!(text.contains("Operation not permitted") && text.contains("permission denied"), "{text}");
    // With the capability come its calls, and none is filtered where nobody asks for it.
    let (_, text) =
        run(&store, &root, &["--cap-add", "sys_admin"], "unshare -m mount -t tmpfs t /tmp && echo can");
    assert_eq!(text, "can\n");
    let (_, text) = run(&store, &root, &["--seccomp", "unconfined"], "grep -E '^Seccomp:' /proc/self/status");
    assert_eq!(text, "Seccomp:\t0\n");
    let file = store.path().join("profile.json");
    fs::write(
        &file,
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]})
        .to_string(),
    )
    .unwrap();
    let (code, text) = run(&store, &root, &["--seccomp", file.to_str().unwrap()], "mkdir /tmp/x");
    assert!(code == 1 && text.contains("No space left"), "{text}");
    // Podman's own profile, by the rules that are for this machine and these capabilities.
    let options = ["--seccomp", "/usr/share/containers/seccomp.json", "--user", "web"];
    assert_eq!(
        run(&store, &root, &options, "chroot / true 2>/dev/null; id -u").1.lines().last(),
        Some("1000")
    );
    // Other runtimes take the default profile too.
    let (code, text) = run(&store, &root, &["--runtime", "runc"], "unshare -U true 2>&1; echo $?");
    assert!(code == 0 && text.contains("not permitted"), "{text}");
}

#[test]
fn why_a_program_is_not_executed() {
    let (store, root) = root();
    let write = |name: &str, content: &[u8], mode: u32| {
        fs::write(root.join(name), content).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let mut foreign = fs::read("/bin/busybox").unwrap();
    foreign[18..20].copy_from_slice(&[22, 0]);
    write("foreign", &foreign, 0o755);
    let mut dynamic = fs::read(ok("sh", &["-c", "command -v runc"]).trim()).unwrap();
    dynamic.truncate(1 << 16);
    write("dynamic", &dynamic, 0o755);
    let mut object = fs::read("/bin/busybox").unwrap();
    object[16] = 1;
    write("object", &object, 0o755);
    write("text", b"echo hello\n", 0o755);
    write("empty", b"", 0o755);
    write("crlf", b"#!/bin/sh\r\necho\r\n", 0o755);
    write("script", b"#!/no/such/shell -e\n", 0o755);
    write("nested", b"#!/script\n", 0o755);
    write("closed", b"#!/plain\n", 0o755);
    write("loop", b"#!/loop\n", 0o755);
    write("plain", b"#!/bin/sh\n", 0o644);
    write("bin/plain-in-path", b"#!/bin/sh\n", 0o644);
    write("windows.exe", b"MZ\0\0", 0o755);
    ok("mkfifo", &[root.join("fifo")]);
    std::os::unix::fs::symlink("/proc/1/root/etc/passwd", root.join("link")).unwrap();
    for (program, code, said) in [
        ("/foreign", 126, "exec format error: it is built for s390x, this machine is"),
        ("/dynamic", 127, "no such file or directory: its loader \"/lib64/ld-linux-x86-64.so.2\""),
        ("/object", 126, "exec format error: it is an ELF file, but no program"),
        ("/text", 126, "exec format error: it is text without a #! line"),
        ("/empty", 126, "exec format error: it is empty"),
        ("/crlf", 127, "its first line ends with CR LF, thus its interpreter would be \"/bin/sh\\r\""),
        ("/script", 127, "no such file or directory: its interpreter \"/no/such/shell\""),
        ("/nested", 127, "its interpreter \"/script\": its interpreter \"/no/such/shell\""),
        ("/closed", 126, "permission denied: its interpreter \"/plain\" is not executable"),
        ("/loop", 126, "exec: \"/loop\": "),
        ("/plain", 126, "permission denied: not executable, its mode is 0644"),
        ("plain-in-path", 126, "/bin/plain-in-path: permission denied: not executable"),
        ("/windows.exe", 126, "it is a program for Windows"),
        ("/bin", 126, "is a directory"),
        ("/fifo", 126, "permission denied: not a regular file"),
        ("/link", 126, "exec: \"/link\""),
        ("/none", 127, "no such file or directory"),
        ("none", 127, "executable file not found in $PATH"),
    ] {
        for options in [&[][..], &["--init"]] {
            let text = store.fails(code, &[&["run"], options, &[root.to_str().unwrap(), program]].concat());
            assert!(text.contains(said), "{program} {options:?}: {text}");
        }
    }
}

#[test]
fn limits_of_a_container() {
    let (store, root) = root();
    let options =
        "--memory 64m --memory-swap 128m --pids-limit 50 --cpus 0.5 --cpuset-cpus 0 --io-weight 200";
    let options: Vec<&str> = options.split(' ').collect();
    // Version 1 or 2 of control groups, and with either disk scheduler.
    let script = "cd /sys/fs/cgroup; first() { cat $1 2>/dev/null || cat $2; }; \
         first memory/memory.limit_in_bytes memory.max; first pids/pids.max pids.max; \
         first cpuset/cpuset.cpus cpuset.cpus; \
         first cpu/cpu.cfs_quota_us cpu.max | cut -d ' ' -f 1; \
         cat blkio/blkio*.weight io*.weight 2>/dev/null | head -n 1";
    let (code, text) = run(&store, &root, &options, script);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((code, &lines[..4]), (0, &["67108864", "50", "0", "50000"][..]), "{text}");
    assert!(lines[4].contains("200"), "{text}");
}

#[test]
fn a_terminal_with_an_init_process() {
    let (store, root) = root();
    assert_eq!(run(&store, &root, &["-it"], "tty"), (0, "/dev/pts/0\r\n".to_string()));
    assert_eq!(run(&store, &root, &["-i"], "tty"), (1, "not a tty\n".to_string()));
    // What is typed goes to the program, which has the foreground: ^C ends it, once.
    let script = "tty; trap 'echo got it; exit 3' INT; while :; do sleep 0.05; done";
    let words = ["run", "-it", "--init", root.to_str().unwrap(), "sh", "-c", script];
    let mut child = store
        .command()
        .args(words)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    out.read_to_string(&mut line).unwrap();
    assert_eq!((child.wait().unwrap().code(), line.as_str()), (Some(3), "/dev/pts/0\r\n^Cgot it\r\n"));
}

#[test]
fn exec_says_why_too() {
    let b = Bundle::new("sleep 60");
    for (name, content) in [("script", "#!/no/such/shell\n"), ("text", "echo\n")] {
        fs::write(b.rootfs().join(name), content).unwrap();
        fs::set_permissions(b.rootfs().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    b.start();
    for (program, code, said) in [
        ("/script", 127, "its interpreter \"/no/such/shell\": no such file or directory"),
        ("/text", 126, "it is text without a #! line"),
        ("/bin", 126, "is a directory"),
    ] {
        let text = b.store.fails(code, &["exec", &b.id, program]);
        assert!(text.contains(said), "{text}");
    }
}
