//! A service manager's sockets in the container, and what the container tells the manager.

use crate::common::bundle::Bundle;
use crate::common::{bin, ok, output};
use serde_json::json;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Output, Stdio};
use std::time::Duration;

/// Runs shipimg with two open descriptors that stand for sockets.
fn with_sockets(b: &Bundle, pid: &str, args: &[&str]) -> Output {
    for name in ["one", "two", "three"] {
        fs::write(b.dir.join(name), name).unwrap();
    }
    let dir = b.dir.to_str().unwrap();
    let script = format!(
        "exec 3<{dir}/one 4<{dir}/two 5<{dir}/three; export LISTEN_FDS=2 LISTEN_FDNAMES=a:b LISTEN_PID={pid}; \
         exec \"$@\""
    );
    let root = b.store.path().to_str().unwrap();
    output("sh", &[&["-c", &script, "sh", bin(), "--root", root], args].concat())
}

#[test]
fn sockets_of_a_service_manager() {
    let script = "for n in 3 4 5 6; do [ ! -e /proc/self/fd/$n ] || eval \"cat <&$n\"; done; \
                  echo \" $LISTEN_FDS $LISTEN_FDNAMES\"; [ \"$LISTEN_PID\" = $$ ]";
    let b = Bundle::new(script);
    b.change(|c| c["process"]["env"].as_array_mut().unwrap().push(json!("LISTEN_FDS=99")));
    let text = |out: &Output| String::from_utf8_lossy(&out.stdout).into_owned();
    let run = ["run", "-b", b.dir.to_str().unwrap(), &b.id];
    for init in ["false", "true"] {
        b.change(|c| c["annotations"] = json!({"org.shipimg.init": init}));
        let out = with_sockets(&b, "$$", &run);
        assert!(out.status.success() && text(&out) == "onetwo 2 a:b\n", "init {init}: {out:?}");
    }
    let out = with_sockets(&b, "$$", &[&run[..1], &["--preserve-fds", "1"], &run[1..]].concat());
    assert!(out.status.success() && text(&out) == "onetwothree 2 a:b\n", "{out:?}");
    // Another process's sockets are no one's here.
    let out = with_sockets(&b, "1", &run);
    assert_eq!(text(&out), " 99 \n", "{out:?}");
    b.change(|c| c["process"]["args"] = json!(["sleep", "60"]));
    b.start();
    let out = with_sockets(&b, "$$", &["exec", &b.id, "sh", "-c", script]);
    assert!(out.status.success() && text(&out) == "onetwo 2 a:b\n", "{out:?}");
    assert_eq!(ok(bin(), &["--root", b.store.path().to_str().unwrap(), "list", "-q"]).trim(), b.id);
}

#[test]
fn readiness_for_a_service_manager() {
    let b = Bundle::new("echo $NOTIFY_SOCKET; grep -c /run/notify /proc/self/mountinfo; sleep 60");
    let place = b.store.path().join("manager");
    let manager = UnixDatagram::bind(&place).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let message = || {
        let mut text = [0; 200];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let begin = |args: &[&str]| {
        let files = ["stdout", "stderr"].map(|name| fs::File::create(b.dir.join(name)).unwrap());
        let [stdout, stderr] = files;
        let mut command = b.store.command();
        command.args(args).env("NOTIFY_SOCKET", &place).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        command.spawn().unwrap()
    };
    let dir = b.dir.to_str().unwrap();
    for two_steps in [true, false] {
        let mut waiting = if two_steps {
            assert!(begin(&["create", "-b", dir, &b.id]).wait().unwrap().success());
            // The program's output is that of `create`.
            let mut command = b.store.command();
            command.args(["start", &b.id]).env("NOTIFY_SOCKET", &place).spawn().unwrap()
        } else {
            begin(&["run", "--detach", "-b", dir, &b.id])
        };
        b.wait(|b| fs::read_to_string(b.dir.join("stdout")).unwrap() == "/run/notify/notify.sock\n1\n");
        let pid = b.state()["pid"].clone();
        let tell = |text: &str| {
            let inside = format!("/proc/{pid}/root/run/notify/notify.sock");
            UnixDatagram::unbound().unwrap().send_to(text.as_bytes(), inside).unwrap();
        };
        tell("STATUS=on the way");
        assert!(waiting.try_wait().unwrap().is_none(), "it waits for the container");
        tell("STATUS=there\nREADY=1");
        assert_eq!(message(), format!("MAINPID={pid}\nREADY=1\n"));
        assert_eq!(message(), "BARRIER=1");
        assert!(waiting.wait().unwrap().success());
        assert_eq!(b.state()["status"], "running");
        b.store.ok(&["delete", "--force", &b.id]);
        b.nothing_left();
    }
    // One that ends without a word, and one that nobody asks of.
    b.change(|c| c["process"]["args"] = json!(["true"]));
    assert!(begin(&["run", "--detach", "-b", dir, &b.id]).wait().unwrap().success());
    b.store.ok(&["delete", &b.id]);
    b.change(|c| c["process"]["args"] = json!(["sh", "-c", "echo :$NOTIFY_SOCKET"]));
    assert_eq!(b.run(0), ":\n");
}
