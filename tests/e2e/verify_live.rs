//! `verify`: commands in containers, and containers looked at from outside.

use crate::common::checks::{add, add_scratch, add_system, holds, nothing_left, verify};
use crate::common::layout::{Blob, Tar};
use crate::common::{TestStore, need_root};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tar::EntryType as T;

#[test]
fn every_live_check_holds_and_does_not() {
    need_root();
    let store = TestStore::in_memory();
    let script = "echo ready; touch /var/log/x; trap 'exit 0' TERM; httpd -f -p 80 -u web:web -h /www & wait";
    add_system(&store, &json!({"Entrypoint": ["/bin/sh", "-c", script]}));
    let soon = "within = '300ms'";
    let fails = |check: &str| format!("{check}\n{soon}");
    let all: Vec<(String, &str)> = vec![
        ("run = true\nhttp = { port = 80, body = 'hello', headers = { Content-Type = { matches = 'html' } } }".into(), ""),
        (fails("http = { port = 80, path = '/none' }"), "status 200 | 404"),
        ("http = { port = 80, path = '/none', status = 404 }".into(), ""),
        (fails("http = { port = 80, body = 'bye' }"), "a match of bye in the body | hello world"),
        (fails("http = { port = 81 }"), "an answer to GET :81/ | Connection refused"),
        ("port = 80".into(), ""),
        (fails("port = '80/udp'"), "something on port 80/udp | udp ports: none"),
        (fails("port = 81"), "something on port 81 | tcp ports: 80"),
        ("port = 81\nabsent = true".into(), ""),
        (fails("port = 80\nabsent = true"), "nothing on port 80"),
        ("process = 'httpd'\nas = 'web'".into(), ""),
        (fails("process = 'httpd'\nas = 'root'"), "httpd as root (0) | one as 33"),
        (fails("process = 'nginx'"), "a process nginx | none"),
        ("process = 'nginx'\nabsent = true".into(), ""),
        ("log = '^ready$'".into(), ""),
        (fails("log = 'steady'"), "a match of steady in the log | last: ready"),
        (fails("log = 'ready'\nlacks = 'ready'"), "no match of ready in the log | one"),
        ("writes-only = ['/var/log/**']".into(), ""),
        ("writes-only = ['/tmp/**']".into(), "/var/log/x only the declared paths written | it is written"),
        ("stops-within = '9s'".into(), ""),
        ("run = true\ncommand = ['cat', '/var/log/x']".into(), ""),
        ("run = true\ncommand = ['id', '-un']\nas = 'web'\nstdout-is = 'web'".into(), ""),
        // Nothing of the host's network is there.
        ("command = ['cat', '/proc/net/dev']\nstdout = 'lo:'\nstdout-lacks = 'eth|ens|veth'".into(), ""),
        ("command = ['cat', '/proc/self/status']\nstdout = '^NoNewPrivs:\\s1'".replace("'^NoNew", "'(?m)^NoNew"), ""),
        ("command = ['id', '-u']\nstdout-is = '0'".into(), ""),
        ("command = ['id', '-u']\nas = 'web'\nstdout-is = '33'".into(), ""),
        ("command = ['id', '-u']\nas = 'nobody'".into(), "error: the container did not start: invalid --user"),
        ("command = ['env']\nenv = { X = 'y' }\nstdout = '^X=y$'".into(), ""),
        ("command = ['false']".into(), "exit code 0 | 1"),
        ("command = ['false']\nexit = 1".into(), ""),
        ("command = ['none']".into(), "exit code 0 | 127"),
        (fails("command = ['sleep', '100']"), "an end within 300ms | it had to be killed"),
        ("command = ['cat', '/tmp/x']\nsetup = [['sh', '-c', 'echo a > /tmp/x']]\nstdout-is = 'a'".into(), ""),
        // Each command has files of its own.
        ("command = ['cat', '/tmp/x']\nexit = 1\nstderr = \"can't open\"".into(), ""),
        ("command = ['true']\nsetup = [['false']]".into(), "error: setup false: exit code 1"),
        ("command = ['true']\nteardown = [['false']]".into(), "error: teardown false: exit code 1"),
        ("command = ['sh', '-c', 'test -e /tmp/t || { touch /tmp/t; exit 1; }']".into(), "exit code 0 | 1"),
        ("command = ['sh', '-c', 'test -e /tmp/t || { touch /tmp/t; exit 1; }']\nretry = 1".into(), ""),
    ];
    let all: Vec<(&str, &str)> = all.iter().map(|(check, want)| (check.as_str(), *want)).collect();
    holds(&store, "img:1", &all);
    nothing_left(&store);
}

#[test]
fn an_image_without_anything_but_a_server() {
    need_root();
    let store = TestStore::in_memory();
    add_scratch(&store, "scratch:1", &["httpd", "-f", "-p", "8080"]);
    holds(
        &store,
        "scratch:1",
        &[
            ("port = 8080", ""),
            ("http = { port = 8080, path = '/busybox' }", ""),
            ("process = 'busybox'\nas = '0'", ""),
            ("command = ['/busybox', 'true']", ""),
            ("writes-only = []", ""),
        ],
    );
    nothing_left(&store);
}

#[test]
fn programs_that_end_or_do_not() {
    need_root();
    let store = TestStore::in_memory();
    // It ends by itself: what it printed can be looked at, the rest is not waited for.
    add_scratch(&store, "echo:1", &["sh", "-c", "echo done; exit 7"]);
    holds(
        &store,
        "echo:1",
        &[
            ("log = '^done$'\nwithin = '1m'", ""),
            ("log = 'never'\nwithin = '1m'", "a program that runs | it has ended with exit code 7"),
            ("port = 80\nwithin = '1m'", "the container does not run"),
            ("http = { port = 80 }\nwithin = '1m'", "the container does not run"),
        ],
    );
    // It does not listen to its stop signal, prints without an end, and answers a byte now and then.
    let stubborn = "trap '' TERM; /busybox nc -l -p 80 -e /busybox sh -c \
        'while :; do /busybox echo -n x; /busybox sleep 0.1; done' & /busybox yes";
    add_scratch(&store, "stubborn:1", &["sh", "-c", stubborn]);
    holds(
        &store,
        "stubborn:1",
        &[
            ("log = '^y$'", ""),
            ("http = { port = 80 }\nwithin = '300ms'", "an answer to GET :80/ | no answer in time"),
            ("stops-within = '500ms'", "an end within 500ms of its stop signal | it had to be killed"),
            ("command = ['/busybox', 'yes']\nwithin = '500ms'", "an end within 500ms"),
        ],
    );
    // It writes late, and listens to its signal late.
    add_scratch(
        &store,
        "late:1",
        &["sh", "-c", "/busybox sleep 0.3; >/late; trap 'exit 0' TERM; while :; do :; done"],
    );
    let written = "/late only the declared paths written | it is written";
    holds(
        &store,
        "late:1",
        &[("writes-only = []\nwithin = '3s'", written), ("stops-within = '9s'\nwithin = '3s'", "")],
    );
    let broken = Tar::new().dir("./").entry(T::Regular, "broken", 0o755, "", b"no program");
    add(&store, "broken:1", &[Blob::gzip(&broken.finish())], &json!({"Entrypoint": ["/broken"]}));
    let want = "error: the container did not start: ";
    holds(&store, "broken:1", &[("port = 80", want), ("log = 'x'", want)]);
    nothing_left(&store);
}

#[test]
fn nothing_is_left_of_a_check_that_is_interrupted() {
    need_root();
    let store = TestStore::in_memory();
    add_scratch(&store, "img:1", &["sleep", "1000"]);
    let checks = "[[check]]\nport = 80\nwithin = '10m'\n[[check]]\ncommand = ['/busybox', 'sleep', '1000']\nwithin = '10m'\n";
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::KILL, 137)] {
        let path = crate::common::checks::file(&store, "checks.toml", checks);
        let mut command = store.command();
        command.args(["verify", "img:1", "--checks", path.to_str().unwrap()]).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let list = || store.ok(&["list", "-q"]).lines().count();
        let begun = Instant::now();
        while list() < 2 {
            assert!(begun.elapsed() < Duration::from_mins(1), "no containers");
            std::thread::sleep(Duration::from_millis(20));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code().or(status.signal().map(|n| n + 128)), Some(code));
        let begun = Instant::now();
        // Killed children of a killed process are waited for by nobody here.
        while list() > 0 && begun.elapsed() < Duration::from_mins(1) {
            std::thread::sleep(Duration::from_millis(20));
        }
        nothing_left(&store);
    }
    let out = verify(&store, "img:1", "[[check]]\ncommand = ['/busybox', 'true']\n", &[]);
    assert_eq!(out.status.code(), Some(0));
}

#[test]
fn a_port_of_udp() {
    need_root();
    let store = TestStore::in_memory();
    add_scratch(&store, "img:1", &["sleep", "1000"]);
    let path =
        crate::common::checks::file(&store, "checks.toml", "[[check]]\nport = '53/udp'\nwithin = '1m'\n");
    let mut command = store.command();
    command.args(["verify", "img:1", "--checks", path.to_str().unwrap()]).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    // What listens in the container's network namespace is this test: busybox has no server of UDP.
    let pid = loop {
        let list: serde_json::Value = serde_json::from_str(&store.ok(&["list", "--format", "json"])).unwrap();
        match list[0]["pid"].as_i64() {
            Some(pid) if pid > 0 && list[0]["status"] == "running" => break pid,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let listener = std::thread::spawn(move || {
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).unwrap();
        std::net::UdpSocket::bind("127.0.0.1:53").unwrap()
    });
    let socket = listener.join().unwrap();
    let out = child.wait_with_output().unwrap();
    drop(socket);
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.starts_with("passed port 53/udp"), "{said}");
    nothing_left(&store);
}
