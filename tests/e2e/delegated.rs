//! Control groups of an ordinary user: where one was handed down, limits hold.

use crate::common::bundle::{busybox, version_2};
use crate::common::user::User;
use crate::common::{collect, describe};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A group in each hierarchy that is the user's, with one in it for the user's shell, as a service
/// manager makes them; gone with the value.
struct Groups {
    uid: u32,
    tops: Vec<PathBuf>,
}

impl Groups {
    fn new(uid: u32) -> Self {
        let base = Path::new("/sys/fs/cgroup");
        let hierarchies: Vec<PathBuf> = if version_2() {
            for controller in ["cpu", "memory", "pids"] {
                fs::write(base.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
            }
            vec![base.to_path_buf()]
        } else {
            ["memory", "pids", "freezer", "unified"].iter().map(|name| base.join(name)).collect()
        };
        let tops: Vec<_> = hierarchies.iter().map(|h| h.join(format!("handed-down-{uid}"))).collect();
        for top in &tops {
            fs::create_dir_all(top.join("shell")).unwrap();
            for group in [top.clone(), top.join("shell")] {
                for path in [group.join("cgroup.procs"), group.join("cgroup.subtree_control"), group] {
                    if path.exists() {
                        chown(path, Some(uid), None).unwrap();
                    }
                }
            }
        }
        Self { uid, tops }
    }

    /// Runs shipimg as the user from within the shell's groups.
    fn output(&self, user: &User, args: &[&str]) -> Output {
        let mut enter: Vec<String> =
            self.tops.iter().map(|t| format!("echo $$ >{}/shell/cgroup.procs", t.display())).collect();
        enter.push("exec \"$@\"".to_string());
        let shipimg = user.shipimg();
        let mut command = Command::new("sh");
        command.args(["-c", &enter.join(" && "), "sh", "setpriv", "--clear-groups"]);
        command.args([format!("--reuid={}", self.uid), format!("--regid={}", self.uid)]).arg(user.bin());
        command.envs(shipimg.get_envs().filter_map(|(k, v)| Some((k, v?)))).current_dir(user.home());
        collect(command.args(args))
    }

    fn ok(&self, user: &User, args: &[&str]) -> String {
        let out = self.output(user, args);
        assert!(out.status.success(), "{}", describe("shipimg", args, &out));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// The groups beside the shell's.
    fn made(&self) -> Vec<PathBuf> {
        let entries = self.tops.iter().flat_map(|top| fs::read_dir(top).unwrap().map(|e| e.unwrap().path()));
        entries.filter(|path| path.is_dir() && !path.ends_with("shell")).collect()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for top in &self.tops {
            let _ = fs::remove_dir(top.join("shell"));
            let _ = fs::remove_dir(top);
        }
    }
}

#[test]
fn limits_where_a_group_was_handed_down() {
    let user = User::new();
    let root = user.home().join("root");
    busybox(&root);
    user.give(&root);
    let groups = Groups::new(user.uid);
    let run = |options: &[&str], script: &str| {
        groups.ok(&user, &[&["run"], options, &["--ephemeral", "./root", "--", "sh", "-c", script]].concat())
    };
    let limits = ["--detach", "--name", "c", "--memory", "64m", "--pids-limit", "50"];
    assert_eq!(run(&limits, "touch /up; sleep 1000"), "c\n");
    let state = user.store().join("shipimg/containers/c/state.json");
    let state: Value = serde_json::from_str(&fs::read_to_string(state).unwrap()).unwrap();
    let own: Vec<PathBuf> = serde_json::from_value(state["cgroups"].clone()).unwrap();
    assert!(
        !own.is_empty() && own.iter().all(|p| groups.tops.iter().any(|top| p.starts_with(top))),
        "{own:?}"
    );
    let read = |v1: &str, v2: &str| {
        let names = own.iter().map(|p| p.join(if version_2() { v2 } else { v1 }));
        let path = names.into_iter().find(|p| p.exists()).unwrap();
        fs::read_to_string(path).unwrap().trim().to_string()
    };
    assert_eq!(read("memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(read("pids.max", "pids.max"), "50");
    let pid = state["process"]["pid"].to_string();
    assert!(
        own.iter().all(|p| fs::read_to_string(p.join("cgroup.procs")).unwrap().lines().any(|l| l == pid))
    );
    // What comes later is in the same groups.
    groups.ok(&user, &["exec", "c", "true"]);
    groups.ok(&user, &["update", "--pids-limit", "60", "c"]);
    assert_eq!(read("pids.max", "pids.max"), "60");
    groups.ok(&user, &["pause", "c"]);
    assert!(groups.ok(&user, &["list"]).contains("paused"));
    groups.ok(&user, &["resume", "c"]);
    groups.ok(&user, &["rm", "-f", "c"]);
    assert!(groups.made().is_empty(), "{:?}", groups.made());
    // The limit holds.
    let out = groups.output(
        &user,
        &[
            "run",
            "--pids-limit",
            "5",
            "./root",
            "--",
            "sh",
            "-c",
            "for i in 1 2 3 4 5 6 7 8; do sleep 9 & done; wait",
        ],
    );
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("can't fork"),
        "{}",
        describe("shipimg", &[""], &out)
    );
    assert!(groups.made().is_empty(), "{:?}", groups.made());
}

#[test]
fn no_limits_where_none_was() {
    let user = User::new();
    let root = user.home().join("root");
    busybox(&root);
    user.give(&root);
    assert_eq!(user.ok(&["run", "./root", "--", "echo", "runs"]), "runs\n");
    let stderr = user.fails(125, &["run", "--memory", "64m", "./root", "--", "true"]);
    assert!(stderr.contains("no control group with it was handed down to this user"), "{stderr}");
}
