//! Containers that nobody waits for: their logs, ends, visitors and health.

use crate::common::bundle::busybox;
use crate::common::layout::{Blob, Layout};
use crate::common::user::User;
use crate::common::{TestStore, collect, need_root, ok, within};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An image `x:1` of busybox, with this `config`, in a layout beside the store.
fn layout(dir: &Path, config: &Value) -> PathBuf {
    let (root, path) = (dir.join("root"), dir.join("layout"));
    busybox(&root);
    let tar = dir.join("root.tar");
    ok("tar", &["-C", root.to_str().unwrap(), "-cf", tar.to_str().unwrap(), "."]);
    Layout::new(&path).add("x:1", &[Blob::tar(&fs::read(tar).unwrap())], config);
    path
}

fn store_with(config: &Value) -> TestStore {
    need_root();
    let store = TestStore::new();
    let layout = layout(store.path(), config);
    store.ok(&["import", layout.to_str().unwrap()]);
    store
}

fn store() -> TestStore {
    store_with(&json!({}))
}

/// `run --detach` with these options, of `sh -c SCRIPT` as `c`.
fn begin(store: &TestStore, options: &[&str], script: &str) {
    let words = ["--name", "c", "x:1", "--", "/bin/sh", "-c", script];
    assert_eq!(store.ok(&[&["run", "--detach"], options, &words].concat()), "c\n");
}

fn state(store: &TestStore) -> Value {
    serde_json::from_str(&store.ok(&["state", "c"])).unwrap()
}

fn nothing_left(store: &TestStore) {
    for area in ["containers", "bundles", "tmp"] {
        let folder = store.path().join("shipimg").join(area);
        // The one that takes it away is told to end, not waited for.
        within(10, area, || fs::read_dir(&folder).into_iter().flatten().count() == 0);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(store.path().to_str().unwrap()), "{mounts}");
}

/// A command of shipimg with pipes.
fn spawn(store: &TestStore, args: &[&str]) -> Child {
    let mut command = store.command();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn finish(child: Child) -> (Option<i32>, String, String) {
    let out = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn from_its_begin_to_its_end() {
    let store = store();
    begin(
        &store,
        &[],
        "echo out; echo err >&2; until [ -e /tmp/end ]; do sleep 0.02; done; printf last; exit 3",
    );
    assert_eq!(state(&store)["status"], "running");
    within(10, "its output", || store.output(&["logs", "c"]).stdout == b"out\n");
    assert!(store.ok(&["list"]).contains("running"));
    let top = store.ok(&["top", "c"]);
    assert!(top.lines().count() >= 2 && top.contains("sh -c"), "{top}");
    // The bundle is its own, and shows what was written.
    store.ok(&["exec", "c", "touch", "/made"]);
    assert!(store.ok(&["diff", "c"]).contains("A /made"));
    assert!(store.fails(125, &["run", "-d", "--name", "c", "x:1"]).contains("already exists"));
    assert!(store.fails(2, &["rm", "c"]).contains("not stopped"));
    let waits = [spawn(&store, &["wait", "c"]), spawn(&store, &["wait", "c"])];
    store.ok(&["exec", "c", "touch", "/tmp/end"]);
    for wait in waits {
        assert_eq!(finish(wait), (Some(0), "3\n".into(), String::new()));
    }
    assert_eq!(store.ok(&["wait", "c"]), "3\n");
    let state = state(&store);
    assert_eq!(
        (&state["status"], &state["exitCode"], &state["pid"]),
        (&json!("stopped"), &json!(3), &json!(0))
    );
    assert!(state["finished"].as_str().unwrap() > state["created"].as_str().unwrap());
    assert!(store.ok(&["list"]).contains("stopped (3)"));
    let out = store.output(&["logs", "c"]);
    assert_eq!((out.stdout, out.stderr), (b"out\nlast".to_vec(), b"err\n".to_vec()));
    assert!(store.fails(125, &["exec", "c", "true"]).contains("stopped"));
    // What was written is still there.
    assert!(store.ok(&["diff", "c"]).contains("A /made"));
    store.ok(&["commit", "c", "y:1"]);
    store.ok(&["rm", "c"]);
    nothing_left(&store);
    assert!(store.fails(10, &["logs", "c"]).contains("does not exist"));
    assert_eq!(store.ok(&["run", "y:1", "--", "ls", "/made"]), "/made\n");
}

#[test]
fn gone_by_itself() {
    let store = store();
    begin(&store, &["--rm"], "until [ -e /tmp/end ]; do sleep 0.02; done; exit 5");
    let wait = spawn(&store, &["wait", "c"]);
    let attach = spawn(&store, &["attach", "c"]);
    std::thread::sleep(Duration::from_millis(200));
    store.ok(&["exec", "c", "touch", "/tmp/end"]);
    assert_eq!(finish(wait).1, "5\n");
    assert_eq!(finish(attach).0, Some(5));
    nothing_left(&store);
    begin(&store, &["--rm", "--timeout", "1"], "sleep 1000");
    assert_eq!(store.ok(&["wait", "c"]), "137\n");
    nothing_left(&store);
    begin(&store, &[], "sleep 1000");
    store.ok(&["rm", "-f", "c"]);
    nothing_left(&store);
}

#[test]
fn what_does_not_begin_leaves_nothing() {
    let store = store();
    for (code, options, words) in [
        (127, &[][..], &["nosuch"][..]),
        (126, &[], &["/etc"]),
        (125, &["--cap-add", "ALL", "--sysctl", "no.such=1"], &["true"]),
    ] {
        let args = [&["run", "-d", "--name", "c"][..], options, &["x:1", "--"], words].concat();
        store.fails(code, &args);
        nothing_left(&store);
    }
    // A bundle of that name is somebody else's.
    store.ok(&["bundle", "create", "x:1", "mine"]);
    assert!(store.fails(125, &["run", "-d", "--name", "mine", "x:1"]).contains("already exists"));
    assert!(store.path().join("shipimg/bundles/mine/config.json").exists());
    assert_eq!(fs::read_dir(store.path().join("shipimg/containers")).unwrap().count(), 0);
    // It stays where it was run from, as before.
    store.ok(&["run", "-d", "mine", "--", "true"]);
    store.ok(&["wait", "mine"]);
    store.ok(&["rm", "mine"]);
    assert!(store.path().join("shipimg/bundles/mine/config.json").exists());
    store.ok(&["bundle", "delete", "mine"]);
    let kept = store.output(&["run", "--keep", "--name", "c", "x:1", "--", "sh", "-c", "echo x; exit 4"]);
    assert_eq!((kept.status.code(), kept.stdout), (Some(4), b"x\n".to_vec()));
    assert!(store.ok(&["list"]).contains("stopped (4)"));
    assert!(store.fails(2, &["logs", "c"]).contains("no `run --detach` keeps"));
    store.ok(&["rm", "c"]);
    nothing_left(&store);
}

#[test]
fn nothing_of_the_callers_is_held() {
    let store = store();
    let dir = tempfile::tempdir().unwrap();
    let line = format!(
        "exec 3</dev/full; exec {} --root {} run -d --name c x:1 -- sleep 1000",
        crate::common::bin(),
        store.path().display()
    );
    // With pipes, whose end is waited for.
    let out = Command::new("sh").current_dir(dir.path()).args(["-c", &line]).output().unwrap();
    assert!(out.status.success());
    let text = fs::read_to_string(store.path().join("shipimg/containers/c/state.json")).unwrap();
    let keeper = serde_json::from_str::<Value>(&text).unwrap()["keeper"]["pid"].to_string();
    let open = fs::read_dir(format!("/proc/{keeper}/fd"))
        .unwrap()
        .map(|e| fs::read_link(e.unwrap().path()).unwrap());
    assert!(open.into_iter().all(|path| path != Path::new("/dev/full")));
    assert_eq!(fs::read_link(format!("/proc/{keeper}/cwd")).unwrap(), Path::new("/"));
    let session = fs::read_to_string(format!("/proc/{keeper}/stat")).unwrap();
    assert_eq!(session.rsplit(") ").next().unwrap().split(' ').nth(3), Some(keeper.as_str()));
    store.ok(&["rm", "-f", "c"]);
    nothing_left(&store);
    // A store by a relative path is the same store.
    let mut command = Command::new(crate::common::bin());
    command.current_dir(store.path().parent().unwrap()).arg("--root").arg(store.path().file_name().unwrap());
    let out = collect(command.args(["run", "-d", "--name", "c", "x:1", "--", "sh", "-c", "echo hi; exit 2"]));
    assert!(out.status.success());
    assert_eq!(store.ok(&["wait", "c"]), "2\n");
    assert_eq!(store.ok(&["logs", "c"]), "hi\n");
    store.ok(&["rm", "c"]);
    nothing_left(&store);
}

#[test]
fn logs_are_bounded_and_followed() {
    let store = store();
    let bounds = ["--log-opt", "max-size=20k", "--log-opt", "max-file=2"];
    let script = "until [ -e /tmp/go ]; do sleep 0.02; done; i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf 'raw \\377\\n'";
    begin(&store, &bounds, script);
    let follow = spawn(&store, &["logs", "--follow", "c"]);
    let late = spawn(&store, &["logs", "-f", "--tail", "0", "--since", "1h", "c"]);
    std::thread::sleep(Duration::from_millis(300));
    store.ok(&["exec", "c", "touch", "/tmp/go"]);
    store.ok(&["wait", "c"]);
    for reader in [follow, late] {
        let (code, out, _) = finish(reader);
        let lines: Vec<&str> = out.lines().collect();
        // One that is too slow for the bounds misses the begin of what it was too slow for; not the end.
        assert_eq!((code, lines.last()), (Some(0), Some(&"raw \u{fffd}")), "{} lines", lines.len());
        assert!(lines.windows(2).all(|w| w[0] != w[1]), "{out}");
    }
    let dir = store.path().join("shipimg/containers/c");
    let files: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    let logs: Vec<_> = files.iter().filter(|f| f.to_string_lossy().contains("/log.json")).collect();
    assert_eq!(logs.len(), 2);
    assert!(logs.iter().all(|f| fs::metadata(f).unwrap().len() <= 20 << 10));
    // Docker's json-file.
    let first = fs::read_to_string(dir.join("log.json")).unwrap().lines().next().unwrap().to_string();
    let entry: Value = serde_json::from_str(&first).unwrap();
    assert!(
        entry["log"].as_str().unwrap().ends_with('\n')
            && entry["stream"] == "stdout"
            && entry["time"].is_string()
    );
    assert_eq!(store.ok(&["logs", "-n", "2", "c"]), "line 1999\nraw \u{fffd}\n");
    assert_eq!(store.ok(&["logs", "--until", "1h", "c"]), "");
    let times = store.ok(&["logs", "-t", "-n", "1", "c"]);
    assert!(times.starts_with("20") && times.ends_with("Z raw \u{fffd}\n"), "{times}");
    store.fails_usage(&["logs", "--since", "yesterday", "c"]);
    store.fails_usage(&["run", "-d", "--log-opt", "max-file=0", "x:1"]);
    store.ok(&["rm", "c"]);
    nothing_left(&store);
}

#[test]
fn visitors() {
    let store = store();
    begin(
        &store,
        &["-i"],
        "echo ready; while read line; do echo got $line; echo e $line >&2; [ $line = end ] && exit 6; done",
    );
    let mut one = spawn(&store, &["attach", "c"]);
    let two = spawn(&store, &["attach", "--no-stdin", "c"]);
    std::thread::sleep(Duration::from_millis(300));
    one.stdin.as_mut().unwrap().write_all(b"first\n").unwrap();
    within(10, "the first line", || store.ok(&["logs", "c"]).contains("got first"));
    // One that leaves takes nothing away.
    let mut third = spawn(&store, &["attach", "c"]);
    std::thread::sleep(Duration::from_millis(200));
    third.kill().unwrap();
    third.wait().unwrap();
    // One whose reader has gone ends.
    let line = format!("{} --root {} attach c | head -n 1", crate::common::bin(), store.path().display());
    let head =
        Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    for words in ["second\n", "third\n"] {
        one.stdin.as_mut().unwrap().write_all(words.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(finish(head).1, "got second\n");
    one.stdin.as_mut().unwrap().write_all(b"end\n").unwrap();
    let (out, err) = ("got first\ngot second\ngot third\ngot end\n", "e first\ne second\ne third\ne end\n");
    assert_eq!(finish(one), (Some(6), out.into(), err.into()));
    assert_eq!(finish(two), (Some(6), out.into(), err.into()));
    assert_eq!(store.output(&["logs", "c"]).stdout, [b"ready\n", out.as_bytes()].concat());
    assert!(store.fails(125, &["attach", "c"]).contains("container not running: c"));
    store.ok(&["rm", "c"]);
    // Without -i there is nothing to read.
    begin(&store, &["--rm"], "cat; exit 9");
    within(10, "its end", || store.ok(&["list", "-q"]).is_empty());
    nothing_left(&store);
}

/// Two visitors, one of which reads nothing: the other one and the program do not wait for it.
#[test]
fn a_visitor_that_does_not_read() {
    let store = store();
    begin(
        &store,
        &[],
        // Slowly enough for who reads, on a machine that has more to do.
        "until [ -e /tmp/go ]; do sleep 0.02; done; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do \
         head -c 500000 /dev/zero | tr '\\0' x; sleep 0.2; done; echo; exit 0",
    );
    let mut lazy = spawn(&store, &["attach", "c"]);
    let good = spawn(&store, &["attach", "c"]);
    std::thread::sleep(Duration::from_millis(300));
    store.ok(&["exec", "c", "touch", "/tmp/go"]);
    let (code, out, _) = finish(good);
    assert_eq!((code, out.len()), (Some(0), 8_000_001));
    assert_eq!(store.ok(&["wait", "c"]), "0\n");
    lazy.kill().unwrap();
    lazy.wait().unwrap();
    store.ok(&["rm", "c"]);
    nothing_left(&store);
}

#[test]
fn a_terminal_for_visitors() {
    let store = store();
    begin(
        &store,
        &["-it"],
        "tty; while read line; do stty size; echo got $line; [ $line = end ] && exit 7; done",
    );
    let visit = |typed: &str| -> (Option<i32>, String) {
        // script(1) gives it a terminal of its own.
        let line = format!(
            "stty rows 33 cols 77; exec {} --root {} attach c",
            crate::common::bin(),
            store.path().display()
        );
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(700));
        child.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        (child.wait().unwrap().code(), text)
    };
    let (code, text) = visit("one\n\x10\x11");
    assert!(code == Some(0) && text.contains("left c, which goes on"), "{code:?} {text}");
    within(10, "the line", || store.ok(&["logs", "c"]).contains("got one"));
    assert!(store.ok(&["logs", "c"]).contains("33 77"), "{}", store.ok(&["logs", "c"]));
    assert_eq!(state(&store)["status"], "running");
    let (code, text) = visit("end\n");
    assert!(code == Some(7) && text.contains("got end"), "{code:?} {text}");
    store.ok(&["rm", "c"]);
    nothing_left(&store);
}

#[test]
fn asked_to_end() {
    let store = store_with(&json!({"StopSignal": "SIGUSR1"}));
    let traps = "trap 'echo usr1; exit 11' USR1; trap 'echo term; exit 12' TERM; echo ready; while :; do sleep 0.02; done";
    for (options, stop, code) in [
        (&[][..], &["stop", "c"][..], "11\n"),
        (&["--stop-signal", "TERM"], &["stop", "c"], "12\n"),
        (&[], &["stop", "--signal", "15", "c"], "12\n"),
    ] {
        begin(&store, options, traps);
        within(10, "its traps", || store.ok(&["logs", "c"]) == "ready\n");
        store.ok(stop);
        // How it ended is known when stop has come back.
        assert_eq!(state(&store)["status"], "stopped");
        assert_eq!(store.ok(&["wait", "c"]), code);
        store.ok(&["stop", "c"]);
        store.ok(&["rm", "c"]);
    }
    begin(&store, &[], "trap '' USR1; echo ready; while :; do sleep 0.02; done");
    within(10, "its trap", || store.ok(&["logs", "c"]) == "ready\n");
    let begun = Instant::now();
    store.ok(&["stop", "-t", "1", "c"]);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(store.ok(&["wait", "c"]), "137\n");
    store.ok(&["rm", "c"]);
    begin(&store, &[], traps);
    store.ok(&["pause", "c"]);
    store.ok(&["stop", "-t", "0", "c"]);
    assert_eq!(store.ok(&["wait", "c"]), "137\n");
    store.ok(&["rm", "c"]);
    nothing_left(&store);
}

/// The container ends with its keeper, and what it was to leave is what it leaves.
#[test]
fn a_keeper_that_is_killed() {
    let store = store();
    let kill = || {
        let text = fs::read_to_string(store.path().join("shipimg/containers/c/state.json")).unwrap();
        let state: Value = serde_json::from_str(&text).unwrap();
        let number = |v: &Value| i32::try_from(v["pid"].as_i64().unwrap()).unwrap();
        let (keeper, init) = (number(&state["keeper"]), number(&state["process"]));
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(keeper).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        within(10, "the end of its program", || {
            let stat = fs::read_to_string(format!("/proc/{init}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    };
    begin(&store, &["--rm"], "sleep 1000");
    kill();
    assert_eq!(store.ok(&["list", "-q"]), "");
    nothing_left(&store);
    begin(&store, &[], "echo words; sleep 1000");
    within(10, "its words", || store.ok(&["logs", "c"]) == "words\n");
    let follow = spawn(&store, &["logs", "-f", "c"]);
    let attach = spawn(&store, &["attach", "c"]);
    std::thread::sleep(Duration::from_millis(200));
    kill();
    assert_eq!(finish(follow).1, "words\n");
    let (code, _, text) = finish(attach);
    assert!(code == Some(125) && text.contains("the keeper of container c has ended"), "{text}");
    assert_eq!(state(&store)["status"], "stopped");
    assert_eq!(store.ok(&["logs", "c"]), "words\n");
    assert!(store.fails(7, &["wait", "c"]).contains("exit code"));
    store.ok(&["rm", "c"]);
    nothing_left(&store);
}

#[test]
fn health() {
    let image = json!({"Healthcheck": {"Test": ["CMD", "/bin/sh", "-c", "echo checked; exec test ! -e /tmp/ill"],
        "Interval": 100_000_000, "Retries": 2}});
    let store = store_with(&image);
    let status = || state(&store)["health"]["status"].as_str().unwrap_or("none").to_string();
    begin(&store, &[], "sleep 1000");
    within(10, "health", || status() == "healthy");
    assert!(store.ok(&["list"]).contains("running (healthy)"));
    store.ok(&["exec", "c", "touch", "/tmp/ill"]);
    within(10, "illness", || status() == "unhealthy");
    let found = state(&store)["health"].clone();
    assert!(found["failingStreak"].as_u64().unwrap() >= 2, "{found}");
    let last = found["log"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["exitCode"], &last["output"]), (&json!(1), &json!("checked\n")));
    assert!(found["log"].as_array().unwrap().len() <= 5);
    store.ok(&["exec", "c", "rm", "/tmp/ill"]);
    within(10, "health again", || status() == "healthy");
    // A paused one is not checked, and is no iller for it.
    store.ok(&["pause", "c"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(status(), "healthy");
    store.ok(&["resume", "c"]);
    store.ok(&["rm", "-f", "c"]);
    // A check that hangs is ended with what it has begun.
    let slow =
        ["--health-cmd", "echo slow; sleep 1234", "--health-timeout", "200ms", "--health-retries", "1"];
    begin(&store, &slow, "sleep 1000");
    within(10, "illness", || status() == "unhealthy");
    let log = state(&store)["health"]["log"][0].clone();
    assert!(log["exitCode"] == 137 && log["output"].as_str().unwrap().starts_with("slow\n"), "{log}");
    within(10, "the end of the check", || {
        !store.ok(&["exec", "c", "ps"]).contains("sleep 1234") || status() == "unhealthy"
    });
    store.ok(&["rm", "-f", "c"]);
    begin(&store, &["--no-healthcheck"], "sleep 1000");
    assert_eq!(state(&store).get("health"), None);
    store.ok(&["rm", "-f", "c"]);
    // In the time that it may take to start failures do not count.
    begin(
        &store,
        &["--health-start-period", "1h", "--health-start-interval", "50ms"],
        "touch /tmp/ill; sleep 1000",
    );
    within(10, "checks", || state(&store)["health"]["log"].as_array().is_some_and(|l| l.len() == 5));
    assert_eq!(status(), "starting");
    store.ok(&["rm", "-f", "c"]);
    // One that is waited for is checked as well.
    let words =
        ["run", "--name", "c", "x:1", "--", "/bin/sh", "-c", "until [ -e /tmp/end ]; do sleep 0.02; done"];
    let run = spawn(&store, &words);
    within(10, "it", || store.output(&["state", "c"]).status.success());
    within(10, "health", || status() == "healthy");
    store.ok(&["exec", "c", "touch", "/tmp/end"]);
    assert_eq!(finish(run).0, Some(0));
    nothing_left(&store);
}

#[test]
fn an_ordinary_users() {
    let user = User::new();
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let image = layout(dir.path(), &json!({}));
    ok("cp", &["-r", image.to_str().unwrap(), user.home().join("layout").to_str().unwrap()]);
    user.give(&user.home().join("layout"));
    user.ok(&["import", user.home().join("layout").to_str().unwrap()]);
    let script = "echo hi; trap 'exit 4' TERM; touch /tmp/x; while :; do sleep 0.02; done";
    assert_eq!(user.ok(&["run", "-d", "--name", "c", "x:1", "--", "sh", "-c", script]), "c\n");
    user.ok(&["exec", "c", "sh", "-c", "until [ -e /tmp/x ]; do sleep 0.02; done"]);
    assert_eq!(user.ok(&["logs", "c"]), "hi\n");
    assert!(user.ok(&["list"]).contains("running"));
    user.ok(&["stop", "c"]);
    assert_eq!(user.ok(&["wait", "c"]), "4\n");
    user.ok(&["rm", "c"]);
    for area in ["containers", "bundles"] {
        let folder = user.store().join("shipimg").join(area);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "{area}");
    }
}
