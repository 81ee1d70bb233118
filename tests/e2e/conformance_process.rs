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

#[test]
fn capabilities_that_are_not_there_are_warnings() {
    // One that nobody knows, and one that this process may not give; in any of the sets.
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        let b = Bundle::new("grep CapBnd /proc/self/status");
        b.change(|c| {
            c["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"]});
            let list = json!(["CAP_OF_LATER", "CAP_SYS_TIME", "CAP_KILL"]);
            c["process"]["capabilities"][set] = list;
        });
        let run = [crate::common::bin(), "--root", b.store.path().to_str().unwrap(), "run", "-b"];
        let drop = ["--bounding-set", "-sys_time", "--inh-caps", "-sys_time"];
        let out = output("setpriv", &[&drop[..], &run, &[b.dir.to_str().unwrap(), &b.id]].concat());
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(String::from_utf8_lossy(&out.stdout), "CapBnd:\t0000000000000020\n", "{out:?}");
        assert!(stderr.contains("CAP_OF_LATER") && stderr.contains("CAP_SYS_TIME"), "{set}: {stderr}");
        b.nothing_left();
    }
}

#[test]
fn what_is_not_set_stays_the_callers() {
    let b = Bundle::new("cat /proc/self/oom_score_adj; ulimit -n");
    b.change(|c| {
        c["process"].as_object_mut().unwrap().remove("rlimits");
        // Without a terminal its size means nothing.
        c["process"]["consoleSize"] = json!({"height": 10, "width": 20});
    });
    let script = "ulimit -n 321; echo 300 > /proc/self/oom_score_adj; exec \"$@\"";
    let run = [crate::common::bin(), "--root", b.store.path().to_str().unwrap(), "run", "-b"];
    let out = ok("sh", &[&["-c", script, "sh"], &run[..], &[b.dir.to_str().unwrap(), &b.id]].concat());
    assert_eq!(out, "300\n321\n");
    b.nothing_left();
}

#[test]
fn environment_and_arguments_as_they_are() {
    let b = Bundle::new("");
    b.change(|c| {
        c["process"]["args"] = json!(["sh", "-c", "echo \"$0|$1|$2\"; env", "a b", "", "*"]);
        c["process"]["env"] = json!(["PATH=/bin", "A=", "B=x=y z", "HOME=/h"]);
    });
    let out = b.run(0);
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    let of_the_shell = ["PWD=", "SHLVL=", "OLDPWD=", "_="];
    lines.retain(|l| !of_the_shell.iter().any(|name| l.starts_with(name)));
    assert_eq!(lines, ["A=", "B=x=y z", "HOME=/h", "PATH=/bin", "a b||*"]);
}
