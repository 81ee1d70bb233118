//! System calls that an agent decides on (runtime-spec, `config-linux.md`, Seccomp): the agent is
//! the test.
#![allow(unsafe_code, reason = "the kernel's interface for agents is ioctls")]

use crate::common::bundle::Bundle;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use std::io::{IoSliceMut, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Decides: the error number for the call with this number, or that it goes on.
type Decide = fn(i32) -> Option<i32>;

/// An agent that listens at a socket. Each descriptor it gets is served until nobody has the
/// filter any more.
struct Agent {
    path: PathBuf,
    states: Receiver<Value>,
}

impl Agent {
    fn new(dir: &Path, decide: Decide) -> Self {
        let path = dir.join("agent");
        let socket = UnixListener::bind(&path).unwrap();
        let (send, states) = channel();
        std::thread::spawn(move || {
            for stream in socket.incoming().map_while(Result::ok) {
                let (state, fd) = receive(stream);
                if send.send(state).is_err() {
                    return;
                }
                std::thread::spawn(move || serve(&fd, decide));
            }
        });
        Self { path, states }
    }

    fn state(&self) -> Value {
        self.states.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

/// One state with its descriptor, then the end of the connection.
fn receive(mut stream: UnixStream) -> (Value, OwnedFd) {
    let mut text = vec![0; 1 << 16];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let n = recvmsg(&stream, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .unwrap()
        .bytes;
    text.truncate(n);
    stream.read_to_end(&mut text).unwrap();
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    assert_eq!(fds.len(), 1);
    (serde_json::from_slice(&text).unwrap(), fds.remove(0))
}

fn serve(fd: &OwnedFd, decide: Decide) {
    let wait = Timespec { tv_sec: 60, tv_nsec: 0 };
    loop {
        let mut polled = [PollFd::new(fd, PollFlags::IN)];
        if poll(&mut polled, Some(&wait)) != Ok(1) || !polled[0].revents().contains(PollFlags::IN) {
            return;
        }
        // SAFETY: zero is what the kernel wants to find in it.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        let raw = fd.as_fd().as_raw_fd();
        // SAFETY: `call` is of the type that this ioctl writes.
        if unsafe { libc::ioctl(raw, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) } != 0 {
            continue;
        }
        let error = decide(call.data.nr);
        let flags = u32::from(error.is_none());
        let answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: -error.unwrap_or(0), flags };
        // SAFETY: `answer` is of the type that this ioctl reads.
        unsafe { libc::ioctl(raw, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
    }
}

fn no_folders(call: i32) -> Option<i32> {
    [libc::SYS_mkdir, libc::SYS_mkdirat].contains(&call.into()).then_some(libc::ENOMEDIUM)
}

fn profile(b: &Bundle, agent: &Path, default: &str, names: &[&str]) {
    b.change(|c| {
        c["linux"]["seccomp"] = json!({"defaultAction": default, "listenerPath": agent,
            "listenerMetadata": "for the agent", "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]});
    });
}

#[test]
fn decides_on_system_calls() {
    // Also calls that are the runner's own, after the filter is there; in the end all of them.
    let few: &[&str] = &["mkdir", "mkdirat"];
    let many: &[&str] =
        &["mkdir", "mkdirat", "sendto", "read", "write", "close", "prctl", "execve", "capset", "setresuid"];
    for (default, names) in [("SCMP_ACT_ALLOW", few), ("SCMP_ACT_ALLOW", many), ("SCMP_ACT_NOTIFY", few)] {
        for no_new_privileges in [true, false] {
            let b = Bundle::new("mkdir /tmp/x; echo went on; sleep 60");
            let agent = Agent::new(b.store.path(), no_folders);
            profile(&b, &agent.path, default, names);
            b.change(|c| {
                c["process"]["noNewPrivileges"] = json!(no_new_privileges);
                c["process"]["user"]["uid"] = json!(7);
                c["annotations"] = json!({"a": "b"});
            });
            assert!(b.launch("create").status.success());
            let state = agent.state();
            assert_eq!(state["ociVersion"], "1.2.0");
            assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("for the agent")));
            assert_eq!((&state["pid"], &state["state"]["id"]), (&b.state()["pid"], &json!(b.id)));
            assert_eq!(state["state"]["status"], "creating");
            assert_eq!(state["state"]["annotations"], json!({"a": "b"}));
            b.store.ok(&["start", &b.id]);
            b.wait(|b| std::fs::read_to_string(b.dir.join("stdout")).unwrap().contains("went on"));
            let stderr = std::fs::read_to_string(b.dir.join("stderr")).unwrap();
            assert!(stderr.contains("/tmp/x': No medium found"), "{default} {no_new_privileges}: {stderr}");
            // Another process, another state.
            let out = b.store.output(&["exec", &b.id, "mkdir", "/tmp/y"]);
            assert!(String::from_utf8_lossy(&out.stderr).contains("No medium found"), "{out:?}");
            let other = agent.state();
            assert_ne!(other["pid"], state["pid"]);
            assert_eq!(other["state"]["status"], "running");
            assert_eq!(other["state"]["pid"], state["pid"]);
            b.store.ok(&["delete", "--force", &b.id]);
            b.nothing_left();
        }
    }
}

#[test]
fn without_an_agent() {
    let b = Bundle::new("echo never");
    // One that is not there.
    let path = b.dir.join("agent");
    profile(&b, &path, "SCMP_ACT_ALLOW", &["mkdir"]);
    assert!(b.refused(125).contains(&format!("connect to seccomp agent {}", path.display())));
    // Where no call is for an agent nobody is asked.
    b.change(|c| {
        c["linux"]["seccomp"]["syscalls"] = json!([]);
        c["linux"]["seccomp"]["listenerPath"] = json!("/none");
    });
    assert_eq!(b.run(0), "never\n");
    b.change(|c| drop(c["linux"]["seccomp"].as_object_mut().unwrap().remove("listenerPath")));
    assert!(b.refused(125).contains("listenerMetadata without listenerPath"));
    b.change(|c| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    });
    assert!(b.refused(125).contains("SCMP_ACT_NOTIFY needs a listenerPath"));
}

#[test]
fn a_launch_that_is_killed_leaves_no_process_waiting() {
    let b = Bundle::new("echo never");
    // The agent takes the connection, and nothing more: the state does not fit.
    let path = b.dir.join("agent");
    let _socket = UnixListener::bind(&path).unwrap();
    profile(&b, &path, "SCMP_ACT_NOTIFY", &["mkdir"]);
    b.change(|c| c["annotations"] = json!({"long": "x".repeat(1 << 20)}));
    let args = ["create", "--bundle", b.dir.to_str().unwrap(), &b.id];
    let mut create = b.store.command();
    let mut create: std::process::Child =
        Command::args(&mut create, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    b.wait(|b| b.store.path().join("shipimg/containers").join(&b.id).join("state.json").exists());
    create.kill().unwrap();
    create.wait().unwrap();
    // The next command takes it away, its process too.
    b.store.ok(&["list"]);
    b.nothing_left();
}
