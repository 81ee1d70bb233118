//! Programs that call shipimg as their runtime: podman, and containerd by its shim for runc.

use crate::common::bundle::{busybox, version_2};
use crate::common::{TestStore, bin, describe, need_root, ok, output};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const IMAGE: &str = "localhost/busybox:1";

/// A folder with a short name, since sockets lie in it, with an image as an archive.
fn ground() -> (tempfile::TempDir, PathBuf) {
    need_root();
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let (tree, tar, archive) = (dir.path().join("tree"), dir.path().join("tar"), dir.path().join("archive"));
    busybox(&tree);
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n").unwrap();
    ok("tar", &["-C", tree.to_str().unwrap(), "-cf", tar.to_str().unwrap(), "."]);
    let store = TestStore::new();
    store.ok(&["import", tar.to_str().unwrap(), IMAGE]);
    store.ok(&["export", IMAGE, "-o", archive.to_str().unwrap()]);
    (dir, archive)
}

/// A name for control groups of its own.
fn name(dir: &Path) -> String {
    format!("callers{}", dir.file_name().unwrap().to_str().unwrap())
}

/// A program that is shipimg with its state in `dir`: not all that podman calls is given the
/// options that a runtime should have.
fn runtime(dir: &Path) -> PathBuf {
    let path = dir.join("shipimg");
    let script = format!("#!/bin/sh\nexec {} --root {}/state \"$@\"\n", bin(), dir.display());
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// No container is known in `state`, and no control group of `parent` has a group below it;
/// nothing is mounted in `dir`.
fn nothing_left(dir: &Path, state: &str, parent: &str) {
    let state = dir.join(state);
    assert_eq!(ok(bin(), &["--root", state.to_str().unwrap(), "list", "-q"]), "");
    assert!(state.join("shipimg/containers").is_dir());
    for top in fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path()) {
        let group = if version_2() { Path::new("/sys/fs/cgroup").join(parent) } else { top.join(parent) };
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            // podman has one of its own, for what watches over the containers.
            let own = !entry.file_type().unwrap().is_dir() || entry.file_name() == "conmon";
            assert!(own, "{entry:?}");
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("{}/", dir.display())), "{mounts}");
}

/// Removes the groups that the programs made around those of the containers.
fn remove_groups(parent: &str) {
    let tops = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
    for group in tops.chain([PathBuf::from("/sys/fs/cgroup")]).map(|top| top.join(parent)) {
        let _ = fs::remove_dir(group.join("conmon"));
        let _ = fs::remove_dir(group);
    }
}

/// podman with folders of its own.
struct Podman {
    dir: tempfile::TempDir,
    runtime: PathBuf,
    parent: String,
}

impl Podman {
    fn new() -> Self {
        let (dir, archive) = ground();
        let parent =
            format!("podman-{}", dir.path().file_name().unwrap().to_str().unwrap().trim_matches('.'));
        let podman = Self { runtime: runtime(dir.path()), dir, parent };
        podman.ok(&["load", "--quiet", "--input", archive.to_str().unwrap()]);
        podman
    }

    fn args(&self, args: &[&str]) -> Vec<String> {
        let folder = |name: &str| self.dir.path().join(name).to_str().unwrap().to_string();
        let mut all: Vec<String> = ["--root", &folder("root"), "--runroot", &folder("run"), "--tmpdir"]
            .into_iter()
            .chain([folder("tmp").as_str(), "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .chain(["--events-backend", "none", "--runtime", self.runtime.to_str().unwrap()])
            .map(String::from)
            .collect();
        let (command, rest) = args.split_first().unwrap();
        all.push((*command).into());
        if ["run", "create"].contains(command) {
            // What podman asks for by itself is more than what these tests may have.
            let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--net", "none"];
            all.extend(limits.map(String::from));
            all.push(format!("--cgroup-parent=/{}", self.parent));
        }
        all.extend(rest.iter().map(ToString::to_string));
        all
    }

    fn output(&self, args: &[&str]) -> Output {
        output("podman", &self.args(args))
    }

    fn ok(&self, args: &[&str]) -> String {
        ok("podman", &self.args(args))
    }

    fn fails(&self, code: i32, args: &[&str]) -> String {
        let out = self.output(args);
        assert_eq!(out.status.code(), Some(code), "{}", describe("podman", args, &out));
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    /// The same in a terminal.
    fn terminal(&self, args: &[&str]) -> String {
        let line = self.args(args).iter().map(|a| format!("'{a}' ")).collect::<String>();
        ok("script", &["-qec", &format!("podman {line}"), "/dev/null"])
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.output(&["rm", "--force", "--all", "--time", "0"]);
        remove_groups(&self.parent);
    }
}

#[test]
fn podman_runs() {
    let podman = Podman::new();
    assert_eq!(podman.ok(&["run", "--rm", IMAGE, "echo", "hello"]), "hello\n");
    let script = "id -u; id -g; echo $HOME; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max \
                  2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
    let limits =
        ["run", "--rm", "--memory", "64m", "--pids-limit", "30", "--user", "web", IMAGE, "sh", "-c", script];
    assert_eq!(podman.ok(&limits), "33\n34\n/srv\n67108864\n30\n");
    podman.fails(7, &["run", "--rm", IMAGE, "sh", "-c", "exit 7"]);
    podman.fails(137, &["run", "--rm", IMAGE, "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
    // It knows from the log what went wrong.
    let missing = podman.fails(127, &["run", "--rm", IMAGE, "no-such-program"]);
    assert!(missing.contains("executable file not found in $PATH"), "{missing}");
    podman.fails(126, &["run", "--rm", IMAGE, "/etc/passwd"]);
    assert!(podman.terminal(&["run", "--rm", "-t", IMAGE, "tty"]).contains("/dev/pts/0"));
    let mut cat = Command::new("podman");
    cat.args(podman.args(&["run", "--rm", "-i", IMAGE, "cat"])).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut cat = cat.spawn().unwrap();
    cat.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(cat.wait_with_output().unwrap().stdout, b"through");
    nothing_left(podman.dir.path(), "state", &podman.parent);
}

#[test]
fn podman_controls() {
    let podman = Podman::new();
    let script = "trap 'exit 3' TERM; echo begun; while :; do sleep 0.05; done";
    podman.ok(&["run", "--detach", "--name", "c", IMAGE, "sh", "-c", script]);
    assert_eq!(podman.ok(&["exec", "c", "id", "-u"]), "0\n");
    assert_eq!(
        podman.ok(&["exec", "--user", "web", "c", "sh", "-c", "id -u; id -g; echo $HOME"]),
        "33\n34\n/srv\n"
    );
    podman.fails(9, &["exec", "c", "sh", "-c", "exit 9"]);
    podman.fails(127, &["exec", "c", "no-such-program"]);
    assert!(podman.terminal(&["exec", "-t", "c", "tty"]).contains("/dev/pts/"));
    podman.ok(&["exec", "--detach", "c", "touch", "/tmp/x"]);
    let status = || podman.ok(&["inspect", "c", "--format", "{{.State.Status}}"]);
    podman.ok(&["pause", "c"]);
    assert_eq!(status(), "paused\n");
    assert_ne!(podman.output(&["exec", "c", "true"]).status.code(), Some(0));
    podman.ok(&["unpause", "c"]);
    assert_eq!(status(), "running\n");
    podman.ok(&["update", "--memory", "50m", "c"]);
    let limit =
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    assert_eq!(podman.ok(&["exec", "c", "sh", "-c", limit]), "52428800\n");
    assert!(podman.ok(&["top", "c", "args"]).contains("begun"));
    let figures: Value =
        serde_json::from_str(&podman.ok(&["stats", "--no-stream", "--format", "json", "c"])).unwrap();
    assert_eq!(figures[0]["name"], "c");
    assert_eq!(podman.ok(&["logs", "c"]), "begun\n");
    podman.ok(&["stop", "c"]);
    assert_eq!(podman.ok(&["wait", "c"]), "3\n");
    assert_eq!(status(), "exited\n");
    podman.ok(&["start", "c"]);
    podman.ok(&["kill", "c"]);
    assert_eq!(podman.ok(&["wait", "c"]), "137\n");
    podman.ok(&["rm", "--force", "c"]);
    nothing_left(podman.dir.path(), "state", &podman.parent);
}

/// Copies by podman and by shipimg, in and out of one container, are alike. (Hard links are not among them:
/// there podman fails.)
#[test]
fn podman_copies_the_same() {
    let podman = Podman::new();
    let id = podman.ok(&["run", "--detach", IMAGE, "sleep", "600"]).trim().to_string();
    let make = "mkdir -p from/dir to/d && cd from && echo 1 >file && echo 2 >dir/in && ln -s file link && \
                ln -s nowhere dir/gone && mkfifo dir/fifo && chmod 1751 dir && \
                chmod 640 file && chown 7:8 file && touch -h -d '2001-02-03 04:05:06' file link dir/in dir/gone dir/fifo dir && \
                cd ../to && echo old >f && ln -s d ld && ln -s f lf && touch -h -d '2001-02-03 04:05:06' f ld lf";
    let list = "cd to && find . ! -type d -exec stat -c '%n %F %a %h %Y' {} + | sort; \
                find . -type d -exec stat -c '%n %a' {} + | sort; cat $(find . -type f | sort)";
    let inside =
        |script: &str| podman.ok(&["exec", &id, "sh", "-c", &format!("mkdir -p /w && cd /w && {script}")]);
    let host = podman.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    let here = |script: &str| ok("sh", &["-c", &format!("cd {} && {script}", host.display())]);
    let state = podman.dir.path().join("state");
    let root = ["--root", state.to_str().unwrap()];
    let table = [
        ("file", "new"),
        ("file", "f"),
        ("file", "d"),
        ("file", "ld"),
        ("file", "no/new"),
        ("file", "new/"),
        ("dir", "new"),
        ("dir", "d"),
        ("dir/.", "d"),
        ("dir/.", "new"),
        ("dir", "f"),
        ("none", "d"),
    ];
    for (from, to) in table {
        for out in [false, true] {
            let at = |inner: bool, path: String| {
                if inner { format!("{id}:/w/{path}") } else { format!("{}/{path}", host.display()) }
            };
            let (from, to) = (at(out, format!("from/{from}")), at(!out, format!("to/{to}")));
            let results = [true, false].map(|by_podman| {
                let fresh = format!("rm -rf from to; {make}");
                drop((here(&fresh), inside(&fresh)));
                let done = if by_podman {
                    // As for a user who wants no owners.
                    podman.output(&["cp", "--archive=false", &from, &to])
                } else {
                    output(bin(), &[&root[..], &["cp", &from, &to]].concat())
                };
                (done.status.success(), if out { here(list) } else { inside(list) })
            });
            assert_eq!(results[0], results[1], "{from} {to}");
        }
    }
    podman.ok(&["rm", "--force", "--time", "0", &id]);
}

/// containerd with folders of its own.
struct Containerd {
    dir: tempfile::TempDir,
    daemon: Child,
}

impl Containerd {
    fn new() -> Self {
        let (dir, archive) = ground();
        let path = |name: &str| dir.path().join(name);
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/run\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = \"{0}/socket\"\n",
            dir.path().display()
        );
        fs::write(path("config"), config).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(path("config")).stdin(Stdio::null()).stdout(log.try_clone().unwrap());
        let daemon = command.stderr(log).spawn().unwrap();
        let new = Self { dir, daemon };
        for _ in 0..600 {
            if new.output(&["version"]).status.success() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        new.ok(&["images", "import", archive.to_str().unwrap()]);
        new
    }

    /// The control group around that of the container.
    fn parent(&self) -> String {
        name(self.dir.path())
    }

    fn args(&self, args: &[&str]) -> Vec<String> {
        let mut all = vec!["--address".into(), self.dir.path().join("socket").to_str().unwrap().into()];
        all.extend(args.iter().map(ToString::to_string));
        if args[0] == "run" {
            let state = self.dir.path().join("state");
            let state = ["--runc-root", state.to_str().unwrap()];
            let group = format!("/{}/c", self.parent());
            let fixed = ["--snapshotter", "native", "--runc-binary", bin(), "--cgroup", &group];
            all.splice(3..3, fixed.into_iter().chain(state).map(String::from));
        }
        all
    }

    fn output(&self, args: &[&str]) -> Output {
        output("ctr", &self.args(args))
    }

    fn ok(&self, args: &[&str]) -> String {
        ok("ctr", &self.args(args))
    }

    fn status(&self) -> String {
        let tasks = self.ok(&["tasks", "list"]);
        let status = tasks.lines().nth(1).and_then(|l| l.split_whitespace().nth(2));
        status.unwrap_or("none").to_string()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.output(&["tasks", "delete", "--force", "c"]);
        self.output(&["containers", "delete", "c"]);
        // It ends at this signal, and takes nothing with it.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.daemon),
            rustix::process::Signal::TERM,
        );
        let _ = self.daemon.wait();
        remove_groups(&self.parent());
        for dir in ["s", "fifo", "runc", "."] {
            let _ = fs::remove_dir(Path::new("/run/containerd").join(dir));
        }
    }
}

#[test]
fn containerd_by_its_shim() {
    let c = Containerd::new();
    let run = |args: &[&str]| c.output(&[&["run", "--rm", IMAGE, "c"], args].concat());
    let hello = run(&["sh", "-c", "echo hello; exit 7"]);
    assert_eq!((hello.stdout.as_slice(), hello.status.code()), (&b"hello\n"[..], Some(7)), "{hello:?}");
    // It reads the log for what went wrong.
    let missing = run(&["no-such-program"]);
    let text = String::from_utf8_lossy(&missing.stderr);
    assert!(
        text.contains("OCI runtime create failed") && text.contains("executable file not found"),
        "{text}"
    );
    assert_eq!(c.status(), "none");
    c.ok(&["run", "--detach", "--memory-limit", "67108864", IMAGE, "c", "sleep", "100"]);
    assert_eq!(c.status(), "RUNNING");
    let exec = |args: &[&str]| c.output(&[&["tasks", "exec", "--exec-id", "x", "c"], args].concat());
    assert_eq!(exec(&["id", "-u"]).stdout, b"0\n");
    assert_eq!(exec(&["sh", "-c", "exit 9"]).status.code(), Some(9));
    c.ok(&["tasks", "pause", "c"]);
    assert_eq!(c.status(), "PAUSED");
    assert_ne!(exec(&["true"]).status.code(), Some(0));
    c.ok(&["tasks", "resume", "c"]);
    assert_eq!(c.status(), "RUNNING");
    assert_eq!(c.ok(&["tasks", "ps", "c"]).lines().count(), 2);
    let metrics = c.ok(&["tasks", "metrics", "c"]);
    assert!(metrics.contains("67108864"), "{metrics}");
    c.ok(&["tasks", "kill", "--signal", "KILL", "c"]);
    while c.status() == "RUNNING" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(c.status(), "STOPPED");
    let deleted = c.output(&["tasks", "delete", "c"]);
    assert!(
        deleted.status.success() && String::from_utf8_lossy(&deleted.stderr).contains("137"),
        "{deleted:?}"
    );
    c.ok(&["containers", "delete", "c"]);
    // In a terminal.
    let line = c.args(&["run", "--rm", "-t", IMAGE, "c", "tty"]).join(" ");
    assert!(ok("script", &["-qec", &format!("ctr {line}"), "/dev/null"]).contains("/dev/pts/0"));
    nothing_left(c.dir.path(), "state/default", &c.parent());
}
