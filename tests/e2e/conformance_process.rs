//! What the runtime specification says of the process (`config.md`, Process): see `docs/conformance.md`.

use crate::common::bundle::Bundle;
use crate::common::{ok, output};
use serde_json::json;
use std::fs;

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
